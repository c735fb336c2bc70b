"""Small signal processing that the acoustic families share: noise, filters, modes and grains.

Everything is mono at ``SAMPLE_RATE`` and vectorised over samples; a Python loop runs over events or
bands at most. Letters: T samples, M modes, N events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft, signal

from clipsynth_training.data.procedural.model import SAMPLE_RATE, Waveform

Parameters = Mapping[str, Any]
"""Drawn values by name: a float for every ``Range``, a str for every ``Choice``."""

_BLOCK = 512  # samples a row of the matrix product in ring()
_LN_1000 = float(np.log(1000.0))  # nepers in 60 dB


def num_samples(duration_s: float) -> int:
    """Return the samples in ``duration_s``, at least one."""
    return max(1, round(duration_s * SAMPLE_RATE))


def times(n: int) -> Waveform:
    """Return the time of each of ``n`` samples in seconds."""
    return np.arange(n) / SAMPLE_RATE


def decay(n: int, t60_s: float) -> Waveform:
    """Return an exponential envelope that starts at 1 and falls by 60 dB in ``t60_s``."""
    return np.asarray(np.exp(-_LN_1000 / (t60_s * SAMPLE_RATE) * np.arange(n)))


def attack_decay(n: int, attack_s: float, t60_s: float) -> Waveform:
    """Return an envelope that rises as half a cosine in ``attack_s``, then falls exponentially."""
    envelope = decay(n, t60_s)
    rise = min(n, num_samples(attack_s))
    envelope[:rise] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(rise) / rise)
    return envelope


def contour(n: int, points: Sequence[tuple[float, float]]) -> Waveform:
    """Return straight lines through ``(position, value)``, position in [0, 1] of the length."""
    positions, values = zip(*points, strict=True)
    return np.asarray(np.interp(np.linspace(0.0, 1.0, n), positions, values))


def hump(n: int, sharpness: float = 1.0) -> Waveform:
    """Return half a sine raised to ``sharpness``: zero at both ends."""
    return np.sin(np.pi * (np.arange(n) + 0.5) / n) ** sharpness


def drift(n: int, rate_hz: float, rng: np.random.Generator) -> Waveform:
    """Return a slow random curve of unit variance that turns about ``rate_hz`` times a second."""
    knots = rng.standard_normal(max(4, int(n / SAMPLE_RATE * rate_hz) + 4))
    position = np.arange(n) * (rate_hz / SAMPLE_RATE) + rng.random()
    index = np.minimum(position.astype(int), len(knots) - 2)
    part = position - index
    part = part * part * (3.0 - 2.0 * part)
    return np.asarray(1.16 * (knots[index] * (1.0 - part) + knots[index + 1] * part))


def white(n: int, rng: np.random.Generator) -> Waveform:
    """Return white noise of unit variance."""
    return rng.standard_normal(n)


def tilted(n: int, rng: np.random.Generator, db_per_octave: float) -> Waveform:
    """Return noise of unit variance whose level changes by ``db_per_octave`` above 50 Hz."""
    size = fft.next_fast_len(n, real=True)
    spectrum = fft.rfft(rng.standard_normal(size))
    frequency = np.maximum(fft.rfftfreq(size, 1.0 / SAMPLE_RATE), 50.0)
    noise = fft.irfft(spectrum * (frequency / 1000.0) ** (db_per_octave / 6.0206), size)[:n]
    return np.asarray(noise / max(float(np.std(noise)), 1e-12))


def lowpass(x: Waveform, hz: float, order: int = 2) -> Waveform:
    """Filter with a Butterworth low-pass."""
    return np.asarray(
        signal.sosfilt(signal.butter(order, _edge(hz), fs=SAMPLE_RATE, output="sos"), x)
    )


def highpass(x: Waveform, hz: float, order: int = 2) -> Waveform:
    """Filter with a Butterworth high-pass."""
    sos = signal.butter(order, _edge(hz), "highpass", fs=SAMPLE_RATE, output="sos")
    return np.asarray(signal.sosfilt(sos, x))


def bandpass(x: Waveform, low_hz: float, high_hz: float, order: int = 2) -> Waveform:
    """Filter with a Butterworth band-pass."""
    edges = (_edge(low_hz), _edge(max(high_hz, low_hz * 1.05)))
    sos = signal.butter(order, edges, "bandpass", fs=SAMPLE_RATE, output="sos")
    return np.asarray(signal.sosfilt(sos, x))


def resonance(x: Waveform, hz: float, q: float) -> Waveform:
    """Filter with one resonance of unit gain at its peak."""
    b, a = signal.iirpeak(min(hz, 0.45 * SAMPLE_RATE), q, fs=SAMPLE_RATE)
    return np.asarray(signal.lfilter(b, a, x))


def _edge(hz: float) -> float:
    return float(np.clip(hz, 5.0, 0.47 * SAMPLE_RATE))


def noise_band(n: int, rng: np.random.Generator, low_hz: float, high_hz: float) -> Waveform:
    """Return band-passed noise of about unit variance."""
    noise = bandpass(rng.standard_normal(n + 256), low_hz, high_hz)[256:]
    return np.asarray(
        noise / np.sqrt(max(min(high_hz, 20_000.0) - low_hz, 20.0) / (0.5 * SAMPLE_RATE))
    )


def moving_noise(
    centre_hz: Waveform, width_octaves: float, rng: np.random.Generator, num_bands: int = 9
) -> Waveform:
    """Return noise whose band follows ``centre_hz`` [T], as a scratch follows its speed.

    Fixed bands from the lowest to the highest centre are mixed with weights that move.
    """
    n = len(centre_hz)
    place = np.log2(np.maximum(centre_hz, 20.0))
    bottom, top = float(place.min()) - width_octaves, float(place.max()) + width_octaves
    spacing = (top - bottom) / num_bands
    noise = rng.standard_normal(n)
    out = np.zeros(n)
    for band in range(num_bands):
        middle = bottom + (band + 0.5) * spacing
        if 2.0 ** (middle - spacing / 2) > 20_000.0:
            continue
        low_hz, high_hz = 2.0 ** (middle - spacing / 2), 2.0 ** (middle + spacing / 2)
        weight = np.exp(-0.5 * ((place - middle) / (0.5 * width_octaves)) ** 2)
        # white noise has more power in a higher band of the same ratio
        out += weight * 2.0 ** (-0.5 * (middle - bottom)) * bandpass(noise, low_hz, high_hz, 1)
    return out


def sine(frequency_hz: ArrayLike, n: int, phase: float = 0.0) -> Waveform:
    """Return a sine whose frequency is a number or a curve [T]."""
    step = np.broadcast_to(np.asarray(frequency_hz, np.float64), (n,)) * (2 * np.pi / SAMPLE_RATE)
    return np.asarray(np.sin(np.cumsum(step) - step[0] + phase))


def ring(
    frequencies_hz: ArrayLike,
    t60s_s: ArrayLike,
    gains: ArrayLike,
    duration_s: float | None = None,
    phases: ArrayLike | None = None,
) -> Waveform:
    """Return the sum of damped sines, the impulse response of a bank of modes.

    Powers of each mode's complex pole factor into a block start and an offset within the block, so
    the sum over modes is one matrix product.

    Args:
        frequencies_hz: Mode frequencies [M]; those above 20 kHz are left out.
        t60s_s: Seconds to fall by 60 dB [M].
        gains: Amplitudes [M].
        duration_s: Length; the longest decay where none is given.
        phases: Phase at the start [M]; 0 is a sine, which starts without a step.

    Returns:
        Waveform [T].

    Source:
        van den Doel and Pai 1998, "The sounds of physical shapes".
    """
    frequency, t60, gain = np.broadcast_arrays(*map(np.atleast_1d, (frequencies_hz, t60s_s, gains)))
    phase = np.broadcast_to(np.asarray(0.0 if phases is None else phases), frequency.shape)
    n = num_samples(float(np.max(t60)) if duration_s is None else duration_s)
    kept = frequency < 20_000.0
    pole = -_LN_1000 / (t60[kept] * SAMPLE_RATE) + 2j * np.pi * frequency[kept] / SAMPLE_RATE
    amplitude = gain[kept] * np.exp(1j * (phase[kept] - np.pi / 2))
    starts = amplitude * np.exp(np.outer(np.arange(0, n, _BLOCK), pole))  # [T / block, M]
    offsets = np.exp(np.outer(pole, np.arange(_BLOCK)))  # [M, block]
    return np.asarray((starts.real @ offsets.real - starts.imag @ offsets.imag).ravel()[:n])


def resonate(force: Waveform, response: Waveform) -> Waveform:
    """Convolve a contact force with a body's impulse response; as long as both together."""
    convolve = signal.oaconvolve if len(force) > 4 * len(response) else signal.fftconvolve
    return np.asarray(convolve(force, response))


def arrivals(rate_hz: float, duration_s: float, rng: np.random.Generator) -> Waveform:
    """Return Poisson arrival times in [0, duration), sorted; at least one."""
    count = max(1, int(rng.poisson(rate_hz * duration_s)))
    return np.sort(rng.random(count)) * duration_s


def beats(rate_hz: float, duration_s: float, jitter: float, rng: np.random.Generator) -> Waveform:
    """Return near-regular times from 0; ``jitter`` is a share of the period."""
    count = max(1, int(np.ceil(duration_s * rate_hz - 1e-9)))
    when = (np.arange(count) + jitter * rng.uniform(-0.5, 0.5, count)) / rate_hz
    when[0] = 0.0
    return np.maximum(when, 0.0)


def bounces(
    first_gap_s: float, restitution: float, least_gap_s: float = 0.012
) -> tuple[Waveform, Waveform]:
    """Return contact times from 0 and speeds from 1 of a body that bounces to rest."""
    count = max(2, int(np.log(least_gap_s / first_gap_s) / np.log(restitution)) + 1)
    gaps = first_gap_s * restitution ** np.arange(count)
    speeds: Waveform = np.asarray(restitution ** np.arange(count + 1), np.float64)
    return np.concatenate([[0.0], np.cumsum(gaps)]), speeds


def scatter(
    grains: Sequence[Waveform],
    starts_s: ArrayLike,
    gains: ArrayLike,
    rng: np.random.Generator,
    duration_s: float | None = None,
) -> Waveform:
    """Add grains at their times, one of ``grains`` at random for each.

    Args:
        grains: Waveforms to choose from, of any lengths.
        starts_s: Start times [N].
        gains: Amplitudes [N], or one for all.
        rng: Chooses.
        duration_s: Length; grains are cut there. Enough for the last grain where none is given.

    Returns:
        Waveform [T].
    """
    starts = np.round(np.atleast_1d(starts_s) * SAMPLE_RATE).astype(int)
    amplitude = np.broadcast_to(np.asarray(gains, np.float64), starts.shape)
    which = rng.integers(len(grains), size=len(starts))
    return _place([grains[i] for i in which], starts, amplitude, duration_s)


def place(
    sounds: Sequence[Waveform],
    starts_s: ArrayLike,
    gains: ArrayLike = 1.0,
    duration_s: float | None = None,
) -> Waveform:
    """Add every sound at its own time."""
    starts = np.round(np.atleast_1d(starts_s) * SAMPLE_RATE).astype(int)
    return _place(
        sounds, starts, np.broadcast_to(np.asarray(gains, float), starts.shape), duration_s
    )


def _place(
    sounds: Sequence[Waveform], starts: Any, gains: Any, duration_s: float | None
) -> Waveform:
    if duration_s is None:
        n = max(s + len(x) for s, x in zip(starts, sounds, strict=True))
    else:
        n = num_samples(duration_s)
    out = np.zeros(n)
    for start, gain, sound in zip(starts, gains, sounds, strict=True):
        if start < n:
            stop = min(n, start + len(sound))
            out[start:stop] += gain * sound[: stop - start]
    return out


def shaken(
    shakes_s: ArrayLike, duration_s: float, rate_hz: float, t60_s: float, rng: np.random.Generator
) -> tuple[Waveform, Waveform]:
    """Return collision times and strengths of loose particles that are shaken.

    Each shake sets the system's energy, which then falls exponentially; collisions arrive at
    random and take their strength from the energy at that moment.

    Source:
        Cook 1997, "Physically Informed Sonic Modeling (PhISM)", Computer Music Journal 21(3).
    """
    shakes = np.sort(np.atleast_1d(shakes_s))
    when = arrivals(rate_hz, duration_s, rng)
    last = np.searchsorted(shakes, when, side="right") - 1
    since = np.where(last >= 0, when - shakes[np.maximum(last, 0)], np.inf)
    strength = np.exp(-_LN_1000 * since / t60_s) * rng.exponential(1.0, len(when)) ** 0.7
    kept = strength > 1e-3
    return when[kept], strength[kept]


def burst(
    rng: np.random.Generator, low_hz: float, high_hz: float, t60_s: float, attack_s: float = 0.0005
) -> Waveform:
    """Return a burst of band-passed noise, of the length in which it falls by 60 dB."""
    n = num_samples(t60_s)
    return noise_band(n, rng, low_hz, high_hz) * attack_decay(n, attack_s, t60_s)


def fade(x: Waveform, fade_in_s: float, fade_out_s: float) -> Waveform:
    """Return a copy with half-cosine fades at both ends."""
    out = x.copy()
    for length, view in ((fade_in_s, out), (fade_out_s, out[::-1])):
        n = min(len(out) // 2, num_samples(length)) if length > 0 else 0
        view[:n] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(n) / max(n, 1))
    return out


def level(x: Waveform) -> Waveform:
    """Return the waveform at unit root mean square."""
    return x / max(float(np.sqrt(np.mean(x * x))), 1e-12)


def unit_peak(x: Waveform) -> Waveform:
    """Return the waveform at unit peak."""
    return x / max(float(np.max(np.abs(x))), 1e-12)


def finish(x: Waveform, *, fade_out_s: float = 0.005, floor_db: float = -66.0) -> Waveform:
    """Remove what lies below hearing and below ``floor_db`` at both ends, and fade the end."""
    x = highpass(x, 18.0, 1)
    loud = np.flatnonzero(np.abs(x) > np.max(np.abs(x), initial=0.0) * 10.0 ** (floor_db / 20.0))
    if len(loud) == 0:
        return x
    start = max(0, int(loud[0]) - 20)
    stop = min(len(x), int(loud[-1]) + num_samples(fade_out_s))
    return fade(x[start:stop], 0.0003, fade_out_s)


def finish_steady(x: Waveform) -> Waveform:
    """Finish a sound that goes on: the ends fade quickly and nothing is cut."""
    return fade(highpass(x, 18.0, 1), 0.005, 0.02)
