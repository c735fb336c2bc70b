"""Variations of a recording that a listener would name: pitch, brightness, room, level."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy import signal

from clipsynth_rt.errors import InputError
from clipsynth_training.data.procedural.model import SAMPLE_RATE
from clipsynth_training.data.procedural.space import ROOMS, distance_word, place

MAX_SEMITONES = 4.0
"""Furthest shift of pitch; further, a listener hears a changed recording."""

OPPOSITES = {
    "high pitched": ("low pitched", "low", "deep"),
    "low pitched": ("high pitched", "high"),
    "muffled": ("bright",),
    "bright": ("muffled", "dull", "dark"),
    "quiet": ("loud",),
    "loud": ("quiet", "soft"),
    "short": ("long", "steady"),
    "distant": ("close", "far away", "bright"),
    "far away": ("close", "distant", "bright"),
    "close": ("distant", "far away"),
}
"""What a word replaces among the attributes."""

_NAMED_SEMITONES = 2.0  # a smaller shift is not said: nobody knows the original
_NAMED_CENTROID = 1.3  # ratio of the spectral centroid after filtering
_NAMED_LENGTH, _SHORT_S = 0.6, 1.0  # share of the length that is left, and seconds
_MIN_SECONDS = 0.25


def vary(
    samples: NDArray[np.floating],
    rng: np.random.Generator,
    attributes: Iterable[str] = (),
    *,
    musical: bool = False,
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return a varied sound, and the attributes that are true of it.

    Args:
        samples: Mono [T] at ``SAMPLE_RATE``, peak 1.
        rng: Draws what is changed and how far.
        attributes: Words that are true of ``samples``.
        musical: Whether the pitch carries meaning and is kept.

    Returns:
        float32 [T'] of peak 1 at most, and the attributes: those that still hold, then those that
        the variation adds (``high pitched``, ``muffled``, ``in a hall``, ``distant``, ``quiet``).

    Raises:
        InputError: If ``samples`` is empty, silent or not finite.
    """
    sound = np.asarray(samples, np.float64)
    peak = float(np.max(np.abs(sound), initial=0.0))
    if sound.ndim != 1 or not np.isfinite(peak) or peak == 0.0:
        raise InputError("vary: the samples are not a sound [T] (empty, silent or NaN)")
    words = list(attributes)
    sound = sound / peak
    if not musical and rng.random() < 0.6:
        semitones = float(rng.uniform(-MAX_SEMITONES, MAX_SEMITONES))
        sound = shift_pitch(sound, semitones)
        if abs(semitones) >= _NAMED_SEMITONES:
            _say(words, "high pitched" if semitones > 0 else "low pitched")
    if rng.random() < 0.35:
        before = centroid_hz(sound)
        change = float(rng.choice([-1, 1])) * float(rng.uniform(0.4, 1.0))
        sound = tilt_spectrum(sound, change)
        ratio = centroid_hz(sound) / before
        if ratio < 1 / _NAMED_CENTROID:
            _say(words, "muffled")
        elif ratio > _NAMED_CENTROID:
            _say(words, "bright")
    if rng.random() < 0.25:
        length = len(sound)
        sound = cut_end(sound, float(rng.uniform(0.4, 0.9)))
        if len(sound) <= min(_NAMED_LENGTH * length, _SHORT_S * SAMPLE_RATE):
            _say(words, "short")
    room, distance_m = "dry", 1.0
    if rng.random() < 0.5:
        room = str(rng.choice(list(ROOMS)))
        furthest = {"small room": 4.0, "hall": 25.0, "cave": 25.0}.get(room, 150.0)
        distance_m = float(np.exp(rng.uniform(np.log(0.5), np.log(furthest))))
        sound = place(sound, rng, distance_m, room)
        for word in (ROOMS[room].phrase, distance_word(distance_m)):
            if word:
                _say(words, word)
    sound, level = _levelled(sound, rng, far=distance_m >= 15.0)
    if level:
        _say(words, level)
    return sound.astype(np.float32), tuple(words)


def shift_pitch(samples: NDArray[np.float64], semitones: float) -> NDArray[np.float64]:
    """Return ``samples`` played faster (semitones > 0) or slower, as a tape would."""
    ratio = 2.0 ** (semitones / 12)
    return np.asarray(soxr.resample(samples, SAMPLE_RATE * ratio, SAMPLE_RATE, quality="HQ"))


def tilt_spectrum(samples: NDArray[np.float64], change: float) -> NDArray[np.float64]:
    """Return ``samples`` brighter (change to 1) or darker (to -1).

    Darker is a low-pass filter that falls from 8 kHz to 800 Hz; brighter removes what lies below
    1 kHz by up to 20 dB.
    """
    if change < 0:
        sections = signal.butter(2, 8000.0 * 0.1 ** (-change), fs=SAMPLE_RATE, output="sos")
        return np.asarray(signal.sosfilt(sections, samples))
    sections = signal.butter(2, 1000.0, "low", fs=SAMPLE_RATE, output="sos")
    low = signal.sosfiltfilt(sections, samples) if len(samples) > 30 else samples
    return np.asarray(samples - (1 - 10 ** (-change)) * low)


def cut_end(samples: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Return the first ``share`` of a sound, faded out; no shorter than a quarter of a second."""
    length = max(round(share * len(samples)), round(_MIN_SECONDS * SAMPLE_RATE))
    if length >= len(samples):
        return samples
    kept = samples[:length].copy()
    fade = min(length, round(0.05 * SAMPLE_RATE))
    kept[-fade:] *= np.cos(np.linspace(0, np.pi / 2, fade)) ** 2
    return kept


def centroid_hz(samples: NDArray[np.float64]) -> float:
    """Return the centre of gravity of the power spectrum."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    return float(np.sum(power * np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)) / np.sum(power))


def _levelled(
    sound: NDArray[np.float64], rng: np.random.Generator, *, far: bool
) -> tuple[NDArray[np.float64], str]:
    """Give a sound its level: ``loud`` fills the scale, ``quiet`` stays 20 dB or more below."""
    peak = float(np.max(np.abs(sound)))
    choice = rng.random()
    if choice < 0.2:
        return sound * (10 ** (-float(rng.uniform(20, 32)) / 20) / peak), "quiet"
    if choice < 0.4 and not far:
        return sound * (10 ** (-float(rng.uniform(0, 1)) / 20) / peak), "loud"
    low, high = (14, 20) if far else (3, 14)
    return sound * (10 ** (-float(rng.uniform(low, high)) / 20) / peak), ""


def _say(words: list[str], word: str) -> None:
    """Add ``word``, in place of what contradicts it."""
    gone = {word, *OPPOSITES.get(word, ())}
    words[:] = [said for said in words if said not in gone]
    words.append(word)
