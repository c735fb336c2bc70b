"""Loudness against the standard's own reference tone, and what cannot be made loud."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest

from clipsynth_rt import Synthesizer
from clipsynth_rt.audio import loudness
from clipsynth_rt.errors import InputError, MissingExtraError

pytest.importorskip("pyloudnorm")
RATE = 22050
TONE = np.sin(2 * np.pi * 997 * np.arange(RATE) / RATE).astype(np.float32)


@pytest.mark.parametrize("level_db", [-40.0, -20.0, -6.0])
def test_the_reference_tone(level_db: float) -> None:
    # ITU-R BS.1770: a full-scale sine of 997 Hz in one channel is -3.01 LKFS; 0.1 dB for the
    # filters at this sample rate
    found = loudness.loudness(TONE * np.float32(10 ** (level_db / 20)), RATE)
    assert found == pytest.approx(level_db - 3.01, abs=0.1)


@pytest.mark.parametrize("samples", [256, 3000, RATE])
def test_a_target_is_reached(samples: int) -> None:
    made = loudness.normalise_loudness(0.01 * TONE[:samples], RATE, -16.0, 0.98)
    assert made.dtype == np.float32
    assert loudness.loudness(made, RATE) == pytest.approx(-16.0, abs=0.05)


def strokes(decay_s: float) -> np.ndarray:
    """A drum: loud strokes, each a second apart, that die away."""
    t = np.arange(RATE) / RATE
    stroke = np.sin(2 * np.pi * 180 * t) * np.exp(-t / decay_s)
    return np.tile(0.5 * stroke, 4).astype(np.float32)


def test_a_peak_is_never_clipped(caplog: pytest.LogCaptureFixture) -> None:
    click = np.zeros(RATE, np.float32)
    click[100:110] = 0.5
    with caplog.at_level(logging.WARNING):
        made = loudness.normalise_loudness(click, RATE, -10.0, 0.98)
    assert loudness.true_peak(made) <= 0.98 * (1 + 1e-6)
    reached = loudness.loudness(made, RATE)
    assert (
        f"{reached:.1f} LUFS instead of -10: its peaks keep it {-10 - reached:.1f} LU quieter"
        in caplog.text
    )


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize(("decay_s", "lufs"), [(0.05, -16.0), (0.1, -12.0), (0.2, -11.0)])
def test_a_target_beyond_the_peaks_is_reached(
    decay_s: float, lufs: float, loop: bool, caplog: pytest.LogCaptureFixture
) -> None:
    drum = strokes(decay_s)
    # what scaling alone would do
    gain = 10 ** ((lufs - loudness.loudness(drum, RATE)) / 20)
    assert gain * np.abs(drum).max() > 0.98
    made = loudness.normalise_loudness(drum, RATE, lufs, 0.98, loop=loop)
    assert loudness.loudness(made, RATE) == pytest.approx(lufs, abs=0.1)
    assert loudness.true_peak(made, loop=loop) <= 0.98 * (1 + 1e-6)
    assert caplog.text == ""


def test_a_peak_between_samples_counts() -> None:
    # a quarter of the rate, sampled off its peaks: sqrt(2) higher between them
    tone = np.sin(0.5 * np.pi * np.arange(RATE) + 0.25 * np.pi).astype(np.float32)
    assert np.abs(tone).max() == pytest.approx(0.7071, abs=1e-3)
    assert loudness.true_peak(tone) == pytest.approx(1.0, abs=0.1)


def test_silence_stays_silent(caplog: pytest.LogCaptureFixture) -> None:
    silence = np.zeros(RATE, np.float32)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(
            loudness.normalise_loudness(silence, RATE, -16.0, 0.98), silence
        )
    assert "silent: there is nothing to bring to -16 LUFS" in caplog.text


@pytest.mark.parametrize("lufs", [0.0, -61.0, float("nan"), float("inf")])
def test_targets_out_of_range(lufs: float) -> None:
    with pytest.raises(InputError, match="lufs must be from -60 to -5"):
        loudness.check_lufs(lufs)


def test_without_pyloudnorm_it_is_said_before_any_work(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesizer = Synthesizer.from_bundle(tiny_bundle, "cpu")
    monkeypatch.setattr(loudness.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "pyloudnorm", None)
    with pytest.raises(MissingExtraError, match=r"pyloudnorm is not installed.*\[sound\]"):
        synthesizer.synth("drum", lufs=-16.0, progress=lambda *_: pytest.fail("work was done"))


def test_a_sound_from_words(tiny_bundle: Path) -> None:
    synthesizer = Synthesizer.from_bundle(tiny_bundle, "cpu")
    clip = synthesizer.synth("drum", lufs=-30.0)
    assert loudness.loudness(clip.waveform, RATE) == pytest.approx(-30.0, abs=0.05)
