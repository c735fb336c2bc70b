"""What can be measured of a sound without knowing what it is: pitch, length, rate, brightness.

Every function takes a waveform float [T] and its sample rate in Hz. Letters: T samples, N frames.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import fft, signal

Samples = NDArray[np.floating]
Measure = Callable[[Samples, int], float]

ACTIVE_DB = -30.0
"""Level of a frame, relative to the loudest, from which it belongs to the sound."""
_FRAME_S, _HOP_S = 0.010, 0.005
_PITCH_RANGE_HZ = (40.0, 8000.0)
_PITCH_WINDOW_S, _PITCH_HOP_S = 0.050, 0.010
_APERIODIC, _VOICED = 0.1, 0.3
"""YIN's threshold for the first dip that counts, and the deepest dip of a frame without a pitch."""
_VOICED_SHARE = 0.2
"""Share of the energy that must lie in frames with a pitch."""
_FLUX_WINDOW_S, _FLUX_HOP_S = 0.023, 0.005
_ONSET_GAP_S, _ONSET_SHARE = 0.04, 0.2
_COMPRESSION = 100.0
_KEPT_POWER = 0.25
"""Power after an onset relative to that before: a sound that is cut off clicks, and is no onset."""
_DECAY_DB, _LONGEST_DECAY_S = -25.0, 60.0


def pitch_hz(sound: Samples, rate: int) -> float:
    """Return the fundamental frequency in Hz; NaN where there is none.

    The energy-weighted median over the frames with a pitch.

    Source:
        de Cheveigné & Kawahara 2002, "YIN, a fundamental frequency estimator for speech and
        music", JASA 111(4), steps 1 to 5.
    """
    low, high = _PITCH_RANGE_HZ
    window = round(_PITCH_WINDOW_S * rate)
    longest = round(rate / low)
    shortest = max(2, int(rate / high))
    samples = _active(sound, rate)
    samples = np.pad(samples, (0, max(0, window + longest - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, window + longest)
    frames = frames[:: round(_PITCH_HOP_S * rate)]
    energy = np.square(frames[:, :window]).sum(axis=1)
    kept = energy > 10.0 ** (ACTIVE_DB / 10.0) * energy.max(initial=0.0)
    if not kept.any():
        return float("nan")
    frames, energy = frames[kept], energy[kept]
    dips = _normalised_difference(frames, window, longest)
    lags, depths = _first_dips(dips, shortest)
    voiced = depths < _VOICED
    if energy[voiced].sum() < _VOICED_SHARE * energy.sum():
        return float("nan")
    return _weighted_median(rate / lags[voiced], energy[voiced])


def length_s(sound: Samples, rate: int) -> float:
    """Return the time from the first frame within 30 dB of the loudest to the last, in seconds."""
    first, last = _span(sound, rate)
    return (last - first) / rate


def onset_rate_hz(sound: Samples, rate: int) -> float:
    """Return how many onsets a second there are between the first and the last.

    A sound of one onset has as many as fit: one in its length.

    Source:
        Böck, Krebs & Schedl 2012, "Evaluating the online capabilities of onset detection
        methods", ISMIR (spectral flux of a logarithmic magnitude, with a moving mean).
    """
    onsets = onset_times_s(sound, rate)
    if len(onsets) < 2:
        return 1.0 / max(length_s(sound, rate), len(sound) / rate, _FRAME_S)
    return float((len(onsets) - 1) / (onsets[-1] - onsets[0]))


def onset_times_s(sound: Samples, rate: int) -> NDArray[np.float64]:
    """Return when onsets are, in seconds."""
    window, hop = round(_FLUX_WINDOW_S * rate), round(_FLUX_HOP_S * rate)
    # silence before the first sample: a sound that starts at once has an onset there
    samples = np.pad(np.asarray(sound, np.float64), (2 * window, window))
    stft = signal.ShortTimeFFT(signal.get_window("hann", window), hop, rate)
    magnitude = np.abs(stft.stft(samples))
    peak = magnitude.max(initial=0.0)
    if peak == 0.0:
        return np.zeros(0)
    shape = np.log1p(_COMPRESSION * magnitude / peak)
    step = max(1, round(window / hop / 2))
    rise = np.maximum(shape[:, step:] - shape[:, :-step], 0.0).sum(axis=0)
    gap = max(1, round(_ONSET_GAP_S / _FLUX_HOP_S))
    near = signal.convolve(rise, np.ones(6 * gap + 1) / (6 * gap + 1), mode="same")
    peaks, _ = signal.find_peaks(
        np.maximum(rise - near, 0.0), height=_ONSET_SHARE * float((rise - near).max()), distance=gap
    )
    power = np.square(magnitude).sum(axis=0)
    sums = np.concatenate([[0.0], np.cumsum(power)])
    middle = peaks + step // 2
    after = sums[np.minimum(middle + 1 + gap, len(power))] - sums[middle + 1]
    before = sums[middle] - sums[np.maximum(middle - gap, 0)]
    peaks = peaks[after >= _KEPT_POWER * before]
    times = stft.t(len(samples))[step:][peaks] - (2 * window + step * hop / 2) / rate
    return np.asarray(times, np.float64)


def centroid_hz(sound: Samples, rate: int) -> float:
    """Return the mean frequency in Hz, weighted by the magnitude spectrum of the active part."""
    samples = _active(sound, rate)
    window = min(2048 * max(1, rate // 22050), len(samples))
    if window < 16 or not samples.any():
        return float("nan")
    frequency, power = signal.welch(samples, rate, "hann", window, scaling="spectrum")
    magnitude = np.sqrt(power)
    return float((frequency * magnitude).sum() / magnitude.sum())


def level_db(sound: Samples, rate: int) -> float:
    """Return the level of the active frames, in dB relative to full scale; -inf for silence."""
    powers = _powers(sound, rate)
    loudest = powers.max(initial=0.0)
    if loudest == 0.0:
        return float("-inf")
    return float(10.0 * np.log10(powers[powers >= 10.0 ** (ACTIVE_DB / 10.0) * loudest].mean()))


def decay_s(sound: Samples, rate: int) -> float:
    """Return the time in which the sound decays by 60 dB after its loudest frame, in seconds.

    The slope of a line through the levels from there to the last frame within 25 dB; infinity
    where it does not fall, as for a tone that is held and cut. NaN for silence.
    """
    powers = _powers(sound, rate)
    loudest = powers.max(initial=0.0)
    if loudest == 0.0:
        return float("nan")
    levels = 10.0 * np.log10(np.maximum(powers / loudest, 1e-12))
    first = int(powers.argmax())
    last = int(np.flatnonzero(levels >= _DECAY_DB)[-1])
    if last - first < 3:  # faster than the frames can tell
        return 60.0 / -_DECAY_DB * (last - first + 1) * _HOP_S
    slope = np.polyfit(np.arange(first, last + 1) * _HOP_S, levels[first : last + 1], 1)[0]
    return float(-60.0 / slope) if slope < -60.0 / _LONGEST_DECAY_S else float("inf")


MEASURES: dict[str, Measure] = {
    measure.__name__: measure
    for measure in (pitch_hz, length_s, onset_rate_hz, centroid_hz, level_db, decay_s)
}


def _powers(sound: Samples, rate: int) -> NDArray[np.float64]:
    """Return the mean power of overlapping frames [N]; the last ones are cut by the sound's end."""
    size, hop = round(_FRAME_S * rate), round(_HOP_S * rate)
    squares = np.square(np.asarray(sound, np.float64))
    sums = np.concatenate([[0.0], np.cumsum(squares)])
    starts = np.arange(0, max(1, len(squares) - size + 1), hop)
    ends = np.minimum(starts + size, len(squares))
    return np.asarray(np.maximum(sums[ends] - sums[starts], 0.0) / size, np.float64)


def _span(sound: Samples, rate: int) -> tuple[int, int]:
    """Return the first sample of the sound, and the one after its last."""
    powers = _powers(sound, rate)
    loudest = powers.max(initial=0.0)
    if loudest == 0.0:
        return 0, 0
    rows = np.flatnonzero(powers >= 10.0 ** (ACTIVE_DB / 10.0) * loudest)
    hop = round(_HOP_S * rate)
    return int(rows[0]) * hop, min(int(rows[-1]) * hop + round(_FRAME_S * rate), len(sound))


def _active(sound: Samples, rate: int) -> NDArray[np.float64]:
    first, last = _span(sound, rate)
    return np.asarray(sound[first:last], np.float64)


def _normalised_difference(
    frames: NDArray[np.float64], window: int, longest: int
) -> NDArray[np.float64]:
    """Return YIN's cumulative mean normalised difference of frames, [N, longest]."""
    size = fft.next_fast_len(frames.shape[1] + window, real=True)
    spectrum = fft.rfft(frames, size, axis=1)
    head = fft.rfft(frames[:, :window], size, axis=1)
    product = fft.irfft(spectrum * head.conj(), size, axis=1)[:, :longest]
    sums = np.concatenate(
        [np.zeros((len(frames), 1)), np.cumsum(np.square(frames), axis=1)], axis=1
    )
    energy = sums[:, window : window + longest] - sums[:, :longest]
    difference = np.maximum(energy[:, :1] + energy - 2.0 * product, 0.0)
    difference[:, 0] = 0.0
    total = np.cumsum(difference, axis=1)
    lags = np.arange(longest)
    normalised = difference * lags / np.maximum(total, 1e-30)
    normalised[:, 0] = 1.0
    return np.asarray(normalised, np.float64)


def _first_dips(
    dips: NDArray[np.float64], shortest: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lag of each frame, between samples, and how deep its dip is."""
    lags, depths = np.empty(len(dips)), np.empty(len(dips))
    for number, row in enumerate(dips):
        inner = row[shortest:-1]
        below = np.flatnonzero(inner < _APERIODIC)
        at = shortest + int(below[0] if len(below) else inner.argmin())
        while at + 2 < len(row) and row[at + 1] < row[at]:
            at += 1
        before, here, after = row[at - 1 : at + 2]
        bend = before - 2.0 * here + after
        lags[number] = at + (0.5 * (before - after) / bend if bend > 0.0 else 0.0)
        depths[number] = here
    return lags, depths


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    passed = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(passed, 0.5 * passed[-1])])
