import math

import numpy as np
import pytest
import torch

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_training.mel import MelSpectrogram
from clipsynth_training.vocoder import losses
from clipsynth_training.vocoder import metrics as metrics
from clipsynth_training.vocoder.griffin_lim import (
    griffin_lim,
    griffin_lim_from_mel,
    istft,
    mel_to_magnitude,
    stft,
)

SPEC = MelSpec()
ANALYSIS = MelSpectrogram(SPEC)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def tone() -> torch.Tensor:
    seconds = torch.arange(32 * 256) / SPEC.sample_rate
    partials = [torch.sin(2 * math.pi * 330.0 * n * seconds) / n for n in range(1, 12)]
    return 0.2 * torch.stack(partials).sum(0)[None]


def test_distances_of_a_sound_to_itself_are_zero() -> None:
    wave = noise(2, 8192)
    for distance in (
        metrics.mel_l1(wave, wave, ANALYSIS),
        metrics.multi_resolution_stft_distance(wave, wave),
        metrics.log_spectral_distance(wave, wave),
    ):
        assert distance.tolist() == [0.0, 0.0]
    assert losses.multi_resolution_stft_loss(wave, wave) == 0.0


def test_a_sound_twice_as_loud_is_as_far_as_decibels_say() -> None:
    wave = noise(1, 8192)
    # 20 log10(2); bins at the floor, one in ten thousand here, move less
    decibels = 20 * math.log10(2.0)
    assert metrics.log_spectral_distance(wave, 2 * wave)[0] == pytest.approx(decibels, rel=1e-3)
    assert metrics.mel_l1(wave, 2 * wave, ANALYSIS)[0] == pytest.approx(math.log(2), rel=1e-3)
    # |2x - x| / |x| = 1, and the logarithm's part
    both = metrics.multi_resolution_stft_distance(wave, 2 * wave)[0]
    assert both == pytest.approx(1.0 + math.log(2), rel=1e-3)


def test_what_lies_below_the_mel_floor_is_no_distance() -> None:
    hush = 1e-6 * torch.ones(1, 8192)
    assert metrics.log_spectral_distance(torch.zeros(1, 8192), hush)[0] == 0.0


def test_the_magnitude_floor_is_that_of_the_mel() -> None:
    filters = ANALYSIS.filters.sum(1)
    level = SPEC.floor / float(filters.median())
    assert level == pytest.approx(metrics.MAGNITUDE_FLOOR, rel=0.1)


def test_measuring_averages_over_clips_of_every_batch() -> None:
    audio = noise(3, 8192)
    whole = metrics.measure_resynthesis(audio, lambda mel: noise(len(mel), 8192), ANALYSIS, 1)
    single = [
        metrics.measure_resynthesis(clip[None], lambda mel: noise(len(mel), 8192), ANALYSIS)
        for clip in audio
    ]
    for name, value in whole.items():
        assert value == pytest.approx(np.mean([one[name] for one in single]), rel=1e-4)


def test_phase_loss_sees_steps_and_not_the_phase_itself() -> None:
    spectrum = stft(noise(1, 8192), SPEC).transpose(1, 2)
    parts = spectrum.real, spectrum.imag
    turned = spectrum.angle() + 1.0
    over_time, over_frequency = losses.phase_loss(*parts, turned.cos(), turned.sin())
    assert over_time == pytest.approx(0.0, abs=1e-3)
    assert over_frequency == pytest.approx(0.0, abs=1e-3)
    # one radian more at each frame: every step over time is wrong by one, none over frequency
    slipping = turned + torch.arange(32.0)[:, None]
    over_time, over_frequency = losses.phase_loss(*parts, slipping.cos(), slipping.sin())
    assert over_time == pytest.approx(1.0 - math.cos(1.0), abs=1e-3)
    assert over_frequency == pytest.approx(0.0, abs=1e-3)


def test_speed_loss_is_zero_for_the_true_turn() -> None:
    spectrum = stft(noise(1, 8192), SPEC).transpose(1, 2)
    turn = torch.zeros(1, 32, 513)
    turn[:, 1:] = torch.angle(spectrum[:, 1:] * spectrum[:, :-1].conj())
    parts = spectrum.real, spectrum.imag
    assert losses.speed_loss(*parts, turn) == pytest.approx(0.0, abs=1e-3)
    wrong = losses.speed_loss(*parts, turn - 0.5)
    assert wrong == pytest.approx(1.0 - math.cos(0.5), abs=1e-3)


def test_amplitude_loss_is_in_nats_above_the_floor() -> None:
    true = torch.tensor([1.0, 2.0, 0.0])
    predicted = torch.log(torch.tensor([math.e, 2.0, 1e-6]))
    assert losses.amplitude_loss(true, predicted) == pytest.approx(1.0 / 3.0)


def test_gan_losses_are_least_squares() -> None:
    real, fake = [torch.tensor([[1.0, 0.5]])], [torch.tensor([[0.0, 1.0]])]
    assert losses.discriminator_loss(real, fake) == pytest.approx(0.125 + 0.5)
    assert losses.adversarial_loss(fake) == pytest.approx(0.5)
    features = [[torch.zeros(2), torch.ones(3)]], [[torch.ones(2), torch.ones(3)]]
    assert losses.feature_matching_loss(*features) == pytest.approx(0.5)


def test_the_inverse_stft_gives_the_wave_back() -> None:
    wave = noise(2, 4096)
    torch.testing.assert_close(istft(stft(wave, SPEC), SPEC), wave, atol=1e-5, rtol=0)


def test_griffin_lim_gets_nearer_with_every_round(tone: torch.Tensor) -> None:
    magnitude = stft(tone, SPEC).abs()
    gaps = []
    for rounds in (0, 4, 32):
        made = stft(griffin_lim(magnitude, SPEC, iterations=rounds), SPEC).abs()
        gaps.append(float((made - magnitude).norm() / magnitude.norm()))
    assert gaps[0] > 1.5 * gaps[1] > 2.0 * gaps[2]


def test_non_negative_magnitudes_explain_the_mel_better_than_the_pseudo_inverse(
    tone: torch.Tensor,
) -> None:
    mel = ANALYSIS(tone)
    gaps = []
    for rounds in (0, 100):
        magnitude = mel_to_magnitude(mel, ANALYSIS, rounds)
        assert magnitude.min() >= 0.0
        power = torch.exp(ANALYSIS.denormalise(mel))
        gaps.append(float((ANALYSIS.filters @ magnitude - power).norm() / power.norm()))
    assert gaps[1] < 0.3 * gaps[0]


def test_griffin_lim_from_a_mel_is_near_the_sound_and_repeatable(tone: torch.Tensor) -> None:
    mel = ANALYSIS(tone)
    made = griffin_lim_from_mel(mel, ANALYSIS, iterations=30)
    assert made.shape == tone.shape
    assert torch.equal(made, griffin_lim_from_mel(mel, ANALYSIS, iterations=30))
    near = metrics.mel_l1(tone, made, ANALYSIS)
    far = metrics.mel_l1(tone, noise(*tone.shape), ANALYSIS)
    assert near < 0.25 * far
