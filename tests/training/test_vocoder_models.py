from dataclasses import replace

import numpy as np
import pytest
import torch

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.errors import CheckpointError, ManifestError
from clipsynth_training.checkpoint import load_weights
from clipsynth_training.mel import MelSpectrogram
from clipsynth_training.vocoder.config import read_vocoder_config
from clipsynth_training.vocoder.discriminators import DiscriminatorConfig, Discriminators
from clipsynth_training.vocoder.fourier import RealStft
from clipsynth_training.vocoder.hifigan import HIFIGAN_PRESETS, HifiGan, HifiGanConfig
from clipsynth_training.vocoder.istft import IstftVocoder, IstftVocoderConfig, MelConstraint
from clipsynth_training.vocoder.network import build_vocoder

SPEC = MelSpec()
TINY = IstftVocoderConfig(channels=16, hidden=32, blocks=1, refinements=1)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def vocoder() -> IstftVocoder:
    torch.manual_seed(0)
    made = IstftVocoder(TINY, SPEC)
    torch.nn.init.normal_(made.head.weight, std=0.3)
    return made


@pytest.mark.parametrize("training", [False, True])
def test_the_transform_is_that_of_numpy(training: bool) -> None:
    wave = noise(1, 2048)
    stft = RealStft(SPEC).train(training)
    real, imag = map(stft.in_order, stft.analyse(wave))
    padded = np.pad(wave[0].numpy().astype(np.float64), 384, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    frames = [padded[start : start + 1024] * window for start in range(0, 2048, 256)]
    expected = np.fft.rfft(frames)
    # fp32 sums of 1,024 products of order one
    np.testing.assert_allclose(real[0].numpy(), expected.real, atol=2e-4)
    np.testing.assert_allclose(imag[0].numpy(), expected.imag, atol=2e-4)


@pytest.mark.parametrize("training", [False, True])
def test_the_inverse_transform_gives_the_wave_back(training: bool) -> None:
    stft, wave = RealStft(SPEC).train(training), noise(2, 4096)
    torch.testing.assert_close(stft.synthesise(*stft.analyse(wave)), wave, atol=1e-5, rtol=0)


def test_both_inverse_transforms_agree_on_spectra_of_no_wave() -> None:
    stft, real, imag = RealStft(SPEC), noise(1, 6, 513), noise(1, 6, 513, seed=1)
    fft = stft.train().synthesise(real[:, None], imag[:, None])
    folded = (stft.fold(part).transpose(1, 2) for part in (real, imag))
    torch.testing.assert_close(stft.eval().synthesise(*folded), fft, atol=1e-5, rtol=0)


def test_an_analysis_that_does_not_fold_is_refused() -> None:
    with pytest.raises(ValueError, match="no such transform"):
        RealStft(MelSpec(win_length=800))


def test_the_mel_constraint_moves_magnitudes_to_the_mel() -> None:
    constraint, analysis = MelConstraint(SPEC), MelSpectrogram(SPEC)
    true = analysis.magnitude(0.3 * noise(1, 8192)).transpose(1, 2)
    mel = true @ constraint.filters
    gaps = [
        (torch.log(constraint.guess(mel, rounds) @ constraint.filters) - torch.log(mel))
        .abs()
        .mean()
        for rounds in (0, 4)
    ]
    assert gaps[1] < 0.5 * gaps[0]
    # the edge bins lie in no filter; all others are explained already
    torch.testing.assert_close(constraint(true, mel), true, rtol=1e-3, atol=1e-5)


def test_the_mel_constraint_raises_nothing_to_the_floor() -> None:
    constraint = MelConstraint(SPEC)
    quiet = torch.full((1, 1, 513), 1e-4)
    floor = torch.full((1, 1, 80), SPEC.floor)
    assert constraint(quiet, floor).max() <= 1e-4 * (1 + 1e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("frames", [5, 16, 21])
def test_phases_are_remembered_as_the_recurrence_says(
    vocoder: IstftVocoder, frames: int, training: bool
) -> None:
    stft = vocoder.train(training).stft
    speed, real, imag = (noise(1, frames, 513, seed=seed) for seed in range(3))
    gate = 4.0 * noise(1, frames, 16, seed=3)
    laid_out = (
        part[:, None] if training else stft.fold(part).transpose(1, 2)
        for part in (speed, real, imag)
    )
    made = torch.complex(*map(stft.in_order, vocoder._remember(*laid_out, gate)))
    held = torch.sigmoid(gate).repeat_interleave(32, 2)
    held = torch.cat([held, held[:, :, -1:]], dim=2)
    state = torch.zeros(1, 513, dtype=torch.complex64)
    for frame in range(frames):
        turned = torch.polar(held[:, frame], speed[:, frame]) * state
        fresh = 1.0 - held[:, frame] if frame else 1.0
        state = turned + fresh * torch.complex(real[:, frame], imag[:, frame])
        torch.testing.assert_close(made[:, frame], state, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("phase", ["recurrent", "direct"])
def test_the_light_vocoder_turns_frames_into_hops(phase: str) -> None:
    torch.manual_seed(0)
    vocoder = IstftVocoder(replace(TINY, phase=phase), SPEC)
    mel = noise(2, 80, 11)
    wave = vocoder.eval()(mel)
    assert wave.shape == (2, 11 * 256)
    assert vocoder(mel + 4.0).abs().max() > 1.0  # clipping is left to who keeps the sound
    # a clip does not depend on its batch; 1e-4 is rounding through the Griffin-Lim rounds
    torch.testing.assert_close(vocoder(mel[1:]), wave[1:], atol=1e-4, rtol=0)
    torch.testing.assert_close(vocoder.train()(mel), wave, atol=1e-3, rtol=0)


def test_a_held_note_keeps_its_pitch(vocoder: IstftVocoder) -> None:
    # 440 Hz is no multiple of the frame rate: a constant phase would give 430.7 Hz
    hz = 440.0
    turn = 2 * np.pi * hz * 256 / 22050
    torch.nn.init.zeros_(vocoder.head.weight)
    with torch.no_grad():
        vocoder.head.bias[513:1026] = turn - vocoder.turn
        vocoder.head.bias[1026:1539] = 1.0
        vocoder.head.bias[2052:] = 20.0
    seconds = torch.arange(64 * 256) / 22050
    tone = 0.5 * torch.sin(2 * np.pi * hz * seconds)[None]
    made = vocoder.eval()(MelSpectrogram(SPEC)(tone))[0, 2048:-2048].detach().numpy()
    spectrum = np.abs(np.fft.rfft(made * np.hanning(len(made)), 1 << 17))
    found = spectrum.argmax() * 22050 / (1 << 17)
    assert found == pytest.approx(hz, abs=1.0)


def test_more_rounds_take_the_same_weights(vocoder: IstftVocoder) -> None:
    more = IstftVocoder(replace(TINY, refinements=3), SPEC)
    load_weights(more, vocoder.state_dict(), "here")


def test_the_light_vocoder_exports_without_complex_numbers(vocoder: IstftVocoder) -> None:
    program = torch.export.export(vocoder.eval(), (noise(1, 80, 8),))
    for node in program.graph.nodes:
        assert "fft" not in str(node.target)
        value = node.meta.get("val")
        assert not (isinstance(value, torch.Tensor) and value.is_complex())


# Table 1 of Kong et al. 2020, in millions
@pytest.mark.parametrize(("preset", "millions"), [("v1", 13.92), ("v2", 0.92), ("v3", 1.46)])
def test_hifigan_is_as_large_as_in_the_paper(preset: str, millions: float) -> None:
    with torch.device("meta"):
        generator = HifiGan(HIFIGAN_PRESETS[preset], SPEC)
        size = sum(p.numel() for p in generator.parameters())
    # weight norm's scales are counted too: one a channel
    assert size / 1e6 == pytest.approx(millions, abs=0.02)
    assert read_vocoder_config(f"hifigan_{preset}").vocoder == HIFIGAN_PRESETS[preset]


def test_the_shipped_size_is_within_its_budget() -> None:
    vocoder = build_vocoder(read_vocoder_config("light").vocoder)
    assert sum(p.numel() for p in vocoder.parameters()) <= 3.5e6


@pytest.mark.parametrize("preset", ["v2", "v3"])
def test_folding_weight_norm_changes_nothing(preset: str) -> None:
    torch.manual_seed(0)
    generator, mel = HifiGan(HIFIGAN_PRESETS[preset], SPEC).eval(), noise(1, 80, 4)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(1.5)
        before = generator(mel)
        after = generator.fold_()(mel)
    assert before.shape == (1, 1024)
    torch.testing.assert_close(after, before)
    assert not any("original" in name for name in generator.state_dict())


def test_rates_that_miss_the_hop_are_refused() -> None:
    with pytest.raises(ValueError, match="multiply to 128"):
        HifiGan(HifiGanConfig(upsample_rates=(8, 8, 2), upsample_kernels=(16, 16, 4)), SPEC)


def test_discriminators_answer_for_every_member() -> None:
    config = DiscriminatorConfig((2, 3), 2, 0.05, ((512, 128, 512),), 4)
    wave = noise(3, 4096)
    scores, features = Discriminators(config)(wave)
    assert len(scores) == len(features) == 5
    assert all(score.shape[0] == 3 for score in scores)
    assert [len(layers) for layers in features] == [6, 6, 8, 8, 6]


def test_no_discriminator_is_refused() -> None:
    with pytest.raises(ValueError, match="no discriminator"):
        Discriminators(DiscriminatorConfig(periods=(), scales=0))


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ManifestError, match=r"vocoder\.kind: 'wavenet'"):
        build_vocoder({"kind": "wavenet"})
    with pytest.raises(ValueError, match="'guessed' is neither"):
        build_vocoder({"kind": "istft", "phase": "guessed"})


def test_weights_of_another_size_are_refused(vocoder: IstftVocoder) -> None:
    other = build_vocoder({"kind": "istft", "channels": 8, "hidden": 32, "blocks": 1})
    with pytest.raises(CheckpointError, match="use the configuration"):
        load_weights(other, vocoder.state_dict(), "here")
