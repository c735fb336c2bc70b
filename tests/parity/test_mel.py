"""The runtime's mel analysis against the training's, and against sounds whose mel is known."""

from __future__ import annotations

import numpy as np
import pytest

from clipsynth_rt.audio.mel import band_edges_hz, mel_spectrogram
from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.errors import InputError

# float32 FFTs of two libraries; what differs lies near the floor, where the logarithm is steep
TOLERANCE = 1e-3


def sound(seconds: float = 1.5) -> np.ndarray:
    t = np.arange(round(seconds * 22050)) / 22050
    sweep = np.sin(2 * np.pi * (100 * t + 1500 * t**2))
    noise = np.random.default_rng(3).normal(size=len(t)) * np.exp(-4 * t)
    return (0.5 * sweep + 0.2 * noise).astype(np.float32)


@pytest.mark.parametrize(
    "spec",
    [MelSpec(), MelSpec(n_mels=40, f_max_hz=8000.0, win_length=800, power=2.0, mean=-3.0)],
)
def test_it_is_the_analysis_of_training(spec: MelSpec) -> None:
    torch = pytest.importorskip("torch")
    from clipsynth_training.mel import MelSpectrogram

    wave = sound()
    theirs = MelSpectrogram(spec)(torch.from_numpy(wave)[None])[0].numpy()
    ours = mel_spectrogram(wave, spec)
    assert ours.shape == theirs.shape == (spec.n_mels, len(wave) // spec.hop_length)
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


@pytest.mark.parametrize("band", [5, 30, 70])
def test_a_tone_is_in_the_band_that_holds_its_frequency(band: int) -> None:
    spec = MelSpec()
    hz = band_edges_hz(spec)[band + 1]
    tone = np.sin(2 * np.pi * hz * np.arange(22050) / 22050).astype(np.float32)
    mel = mel_spectrogram(tone, spec)
    assert (mel[:, 10:-10].argmax(axis=0) == band).all()


def test_a_long_sound_is_the_same_as_its_parts_in_one() -> None:
    # more frames than are transformed at once
    wave = np.tile(sound(2.0), 13)
    mel = mel_spectrogram(wave, MelSpec())
    assert mel.shape[1] == len(wave) // 256 > 2048
    middle = mel_spectrogram(wave[2000 * 256 : 2100 * 256], MelSpec())
    np.testing.assert_allclose(mel[:, 2004:2096], middle[:, 4:96], atol=TOLERANCE)


def test_what_cannot_be_analysed() -> None:
    with pytest.raises(InputError, match="sound of 384 samples; the mel analysis needs more"):
        mel_spectrogram(np.zeros(384, np.float32), MelSpec())
    with pytest.raises(InputError, match="no such mel analysis"):
        mel_spectrogram(np.zeros(4096, np.float32), MelSpec(mel_scale="htk"))
