"""Filters, envelopes, oscillators and resonator banks shared by the sound models.

Source:
    Farnell, "Designing Sound" (MIT Press 2010), parts II and III; Cook, "Real Sound Synthesis for
    Interactive Applications" (2002), chapters 3 and 4 (modal synthesis).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import signal

from clipsynth_training.data.procedural.model import (
    SAMPLE_RATE,
    Choice,
    Range,
    Render,
    SoundModel,
    Value,
    Waveform,
)

Parameters = Mapping[str, Value]
Rng = np.random.Generator

_FADE_S = 0.005
_HIGHEST_HZ = 0.45 * SAMPLE_RATE


def times(duration_s: float) -> Waveform:
    """Return the time of every sample [T] of ``duration_s``, at least two samples."""
    return np.arange(max(2, round(duration_s * SAMPLE_RATE))) / SAMPLE_RATE


def white(duration_s: float, rng: np.random.Generator) -> Waveform:
    """Return white noise [T] of variance 1."""
    return rng.standard_normal(len(times(duration_s)))


def lowpass(samples: Waveform, cutoff_hz: float, order: int = 2) -> Waveform:
    """Return ``samples`` [T] below ``cutoff_hz``."""
    return _butter(samples, min(cutoff_hz, _HIGHEST_HZ), "lowpass", order)


def highpass(samples: Waveform, cutoff_hz: float, order: int = 2) -> Waveform:
    """Return ``samples`` [T] above ``cutoff_hz``."""
    return _butter(samples, min(cutoff_hz, _HIGHEST_HZ), "highpass", order)


def bandpass(samples: Waveform, low_hz: float, high_hz: float, order: int = 1) -> Waveform:
    """Return ``samples`` [T] between two frequencies."""
    high_hz = min(high_hz, _HIGHEST_HZ)
    return _butter(samples, (min(low_hz, 0.8 * high_hz), high_hz), "bandpass", order)


def _butter(
    samples: Waveform, cutoff: float | tuple[float, float], kind: str, order: int
) -> Waveform:
    sections = signal.butter(order, cutoff, kind, fs=SAMPLE_RATE, output="sos")
    return np.asarray(signal.sosfilt(sections, samples))


def resonate(samples: Waveform, centre_hz: float, quality: float) -> Waveform:
    """Return ``samples`` [T] through one resonance with a gain of 1 at its centre."""
    b, a = signal.iirpeak(min(centre_hz, _HIGHEST_HZ), quality, fs=SAMPLE_RATE)
    return np.asarray(signal.lfilter(b, a, samples))


def formants(samples: Waveform, centres_hz: Sequence[float], quality: float = 8.0) -> Waveform:
    """Return ``samples`` [T] through parallel resonances, each 4 dB below the one under it."""
    return sum_of(
        0.63**index * resonate(samples, centre, quality) for index, centre in enumerate(centres_hz)
    )


def sum_of(parts: Iterable[Waveform]) -> Waveform:
    """Return the sum of waveforms [T] of one length."""
    return np.asarray(np.sum(list(parts), axis=0))


def sine(frequency_hz: ArrayLike, duration_s: float) -> Waveform:
    """Return a sine [T] whose frequency is a number or follows an array [T]."""
    return np.asarray(np.sin(2 * np.pi * phase(frequency_hz, duration_s)))


def phase(frequency_hz: ArrayLike, duration_s: float) -> Waveform:
    """Return the phase [T] in cycles of an oscillator."""
    frequency = np.broadcast_to(np.asarray(frequency_hz, np.float64), len(times(duration_s)))
    return np.asarray((np.cumsum(frequency) - frequency) / SAMPLE_RATE)


def saw(frequency_hz: ArrayLike, duration_s: float) -> Waveform:
    """Return a falling sawtooth [T], its jumps smoothed against aliasing (polyBLEP)."""
    cycles = phase(frequency_hz, duration_s) % 1.0
    step = np.broadcast_to(np.asarray(frequency_hz, np.float64) / SAMPLE_RATE, len(cycles))
    wave = 1.0 - 2.0 * cycles
    after, before = cycles < step, cycles > 1.0 - step
    x = cycles[after] / step[after]
    wave[after] -= (x - 1.0) ** 2
    x = (cycles[before] - 1.0) / step[before]
    wave[before] += (x + 1.0) ** 2
    return wave


def square(frequency_hz: ArrayLike, duration_s: float, duty: float = 0.5) -> Waveform:
    """Return a square wave [T] with the given share of each cycle high, as old chips made it."""
    wave = phase(frequency_hz, duration_s) % 1.0 < duty
    return np.where(wave, 1.0, -1.0) - (2.0 * duty - 1.0)


def glide(start: float, end: float, duration_s: float, log: bool = True) -> Waveform:
    """Return a ramp [T] between two values, by ratio unless ``log`` is off."""
    count = len(times(duration_s))
    if log:
        return np.geomspace(start, end, count)
    return np.linspace(start, end, count)


def decay(duration_s: float, t60_s: float, attack_s: float = 0.001) -> Waveform:
    """Return an envelope [T] that rises in ``attack_s`` and falls by 60 dB in ``t60_s``."""
    t = times(duration_s)
    return np.minimum(t / max(attack_s, 1e-4), 1.0) * 10 ** (-3.0 * t / t60_s)


def hump(duration_s: float, peak: float = 0.3, power: float = 1.0) -> Waveform:
    """Return a smooth rise and fall [T], highest at ``peak`` in (0, 1) of the length."""
    x = np.linspace(0.0, 1.0, len(times(duration_s)))
    warped = np.where(x < peak, 0.5 * x / peak, 0.5 + 0.5 * (x - peak) / (1.0 - peak))
    return np.asarray(np.sin(np.pi * warped) ** power)


def plateau(duration_s: float, attack_s: float = 0.01, release_s: float = 0.02) -> Waveform:
    """Return an envelope [T] that is 1 except for a linear rise and fall."""
    t = times(duration_s)
    rise = np.minimum(t / attack_s, 1.0)
    return np.asarray(np.clip(np.minimum(rise, (t[-1] - t) / release_s), 0.0, 1.0))


def modes(
    frequencies_hz: ArrayLike, t60_s: ArrayLike, gains: ArrayLike, duration_s: float
) -> Waveform:
    """Return a struck body [T]: decaying sines; those above the band are left out."""
    t = times(duration_s)
    bank = zip(*np.broadcast_arrays(frequencies_hz, t60_s, gains), strict=True)
    wave = np.zeros(len(t))
    for frequency, t60, gain in bank:
        if frequency < _HIGHEST_HZ:
            wave += gain * np.sin(2 * np.pi * frequency * t) * 10 ** (-3.0 * t / t60)
    return wave


def slow_noise(duration_s: float, rate_hz: float, rng: np.random.Generator) -> Waveform:
    """Return a smooth random curve [T] in about [-1, 1] that turns ``rate_hz`` times a second."""
    t = times(duration_s)
    knots = rng.uniform(-1.0, 1.0, int(duration_s * rate_hz) + 4)
    at = t * rate_hz
    index = at.astype(int)
    mix = 0.5 - 0.5 * np.cos(np.pi * (at - index))
    return np.asarray(knots[index] * (1.0 - mix) + knots[index + 1] * mix)


def lay(onsets_s: Iterable[float], grain: Callable[[int], Waveform]) -> Waveform:
    """Return the sum of ``grain(index)`` at every onset; as long as the last one to end."""
    starts = [round(onset * SAMPLE_RATE) for onset in onsets_s]
    grains = [grain(index) for index in range(len(starts))]
    wave = np.zeros(max(start + len(one) for start, one in zip(starts, grains, strict=True)))
    for start, one in zip(starts, grains, strict=True):
        wave[start : start + len(one)] += one
    return wave


def regular(count: int, rate_hz: float, rng: np.random.Generator, jitter: float = 0.0) -> Waveform:
    """Return the onsets of ``count`` events, displaced by ``jitter`` of the period; first at 0."""
    onsets = (np.arange(count) + jitter * rng.uniform(-0.5, 0.5, count)) / rate_hz
    return np.sort(onsets) - np.min(onsets)


def finish(samples: Waveform, level: float = 1.0) -> Waveform:
    """Return ``samples`` [T] with peak ``level``, without DC, and faded at its ends."""
    wave = highpass(np.asarray(samples, np.float64), 15.0, order=1)
    fade = min(round(_FADE_S * SAMPLE_RATE), len(wave) // 2)
    wave[-fade:] *= np.linspace(1.0, 0.0, fade)
    rise = min(22, len(wave) // 4)  # half a millisecond: no click, and no softened attack
    wave[:rise] *= np.linspace(0.0, 1.0, rise)
    return wave * (level / max(float(np.max(np.abs(wave))), 1e-12))


def family(group: str, source: str) -> Callable[..., SoundModel]:
    """Return a maker of the models of one group: ``make(concept, render, *parameters)``."""

    def make(
        concept: str,
        render: Render,
        *parameters: Range | Choice,
        names: tuple[str, ...] = (),
        steady: bool = False,
    ) -> SoundModel:
        return SoundModel(concept, group, parameters, render, names, source, steady)

    return make
