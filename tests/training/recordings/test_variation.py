"""A variation says what is true of it, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from clipsynth_rt.errors import InputError
from clipsynth_training.data.procedural.model import SAMPLE_RATE
from clipsynth_training.data.procedural.space import ROOMS
from clipsynth_training.data.recordings.variation import (
    centroid_hz,
    cut_end,
    shift_pitch,
    tilt_spectrum,
    vary,
)

ADDED = {
    "high pitched", "low pitched", "muffled", "bright", "short",
    "quiet", "loud", "close", "distant", "far away",
} | {room.phrase for room in ROOMS.values() if room.phrase}  # fmt: skip


def tone(seconds: float = 1.0, frequency: float = 1000.0) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)


def peak_hz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * SAMPLE_RATE / len(samples))


@pytest.mark.parametrize("semitones", [-4.0, -1.5, 3.0])
def test_pitch_and_length_move_together(semitones):
    shifted = shift_pitch(tone(), semitones)
    ratio = 2 ** (semitones / 12)
    assert peak_hz(shifted) == pytest.approx(1000 * ratio, rel=0.005)
    assert len(shifted) == pytest.approx(SAMPLE_RATE / ratio, abs=2)


def test_tilt_moves_the_centroid():
    noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE)
    noise = np.cumsum(noise - noise.mean())  # as much below 1 kHz as recordings have
    darker, brighter = tilt_spectrum(noise, -1.0), tilt_spectrum(noise, 1.0)
    assert centroid_hz(darker) < centroid_hz(noise) < centroid_hz(brighter)
    assert len(darker) == len(brighter) == len(noise)


def test_end_is_cut_with_a_fade_and_not_below_a_quarter_of_a_second():
    kept = cut_end(np.ones(SAMPLE_RATE), 0.5)
    assert len(kept) == SAMPLE_RATE // 2
    assert kept[0] == 1.0
    assert abs(kept[-1]) < 1e-6
    assert len(cut_end(np.ones(1000), 0.5)) == 1000


def test_words_are_true():
    seen = set()
    for seed in range(140):
        samples, words = vary(tone(0.9), np.random.default_rng(seed), ("metal",))
        assert samples.dtype == np.float32
        assert np.isfinite(samples).all()
        assert words[0] == "metal"
        assert len(set(words)) == len(words)
        added = set(words[1:])
        assert added <= ADDED
        seen |= added
        peak_db = 20 * np.log10(np.max(np.abs(samples)))
        assert ("loud" in added) == (peak_db > -1.5)
        assert ("quiet" in added) == (peak_db < -20.0 + 1e-4)
        moved = 12 * np.log2(peak_hz(samples[: SAMPLE_RATE // 4]) / 1000)
        assert abs(moved) < 4.6
        if "high pitched" in added:
            assert moved > 1.5
        if "low pitched" in added:
            assert moved < -1.5
        if "short" in added:
            rings = sum(phrase in added for phrase in ("in a hall", "in a cave"))
            assert len(samples) < (1.0 + 5 * rings + 1.0) * SAMPLE_RATE
        assert not {"high pitched", "low pitched"} <= added
        assert not {"close", "distant"} <= added
        assert not {"loud", "distant"} <= added
    # a pure tone has no more or less of its spectrum above it
    assert seen >= ADDED - {"muffled", "bright"}


def test_brightness_words_are_measured():
    noise = np.cumsum(np.random.default_rng(1).standard_normal(SAMPLE_RATE // 2))
    noise /= np.max(np.abs(noise))
    seen = set()
    for seed in range(30):
        _, words = vary(noise, np.random.default_rng(seed), musical=True)
        seen |= set(words)
    assert {"bright", "muffled"} & seen
    assert "high pitched" not in seen


def test_musical_pitch_is_kept():
    for seed in range(30):
        samples, words = vary(tone(), np.random.default_rng(seed), musical=True)
        assert peak_hz(samples[: SAMPLE_RATE // 4]) == pytest.approx(1000, rel=0.01)
        assert not {"high pitched", "low pitched"} & set(words)


def test_contradicted_attributes_go():
    for seed in range(50):
        _, words = vary(tone(), np.random.default_rng(seed), ("low", "loud", "distant", "wood"))
        assert "wood" in words
        if "high pitched" in words:
            assert "low" not in words
        if "quiet" in words:
            assert "loud" not in words
        if "close" in words:
            assert "distant" not in words


def test_the_generator_decides():
    first, again = (vary(tone(), np.random.default_rng(5), ("a",)) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros(100), np.full(100, np.nan)])
def test_vary_refuses_what_is_no_sound(samples):
    with pytest.raises(InputError, match="not a sound"):
        vary(samples, np.random.default_rng(0))


def test_a_very_short_sound_can_be_varied():
    for seed in range(60):
        samples, _ = vary(np.array([0.5, -1.0, 0.25]), np.random.default_rng(seed))
        assert np.isfinite(samples).all()
