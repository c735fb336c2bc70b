"""A look-ahead limiter."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from clipsynth_rt.errors import NumericalError

PEAK = 0.98
"""Highest sample that a clip keeps: lossy coding overshoots a little."""
_LIMIT_BLOCK, _LIMIT_REACH = 64, 10
"""Samples whose gain is found at once, and blocks to either side that it is smoothed over: 61 ms
in all at 22.05 kHz, more than a period of the lowest sounds, which a faster gain would bend."""


def limit_peaks(
    waveform: NDArray[np.float32],
    peak: float = PEAK,
    *,
    loop: bool = False,
    level: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Return a waveform [T] whose peak is at most ``peak``, turned down around its peaks alone.

    A look-ahead limiter: the gain falls before a peak and rises again after it, so a loud stroke
    does not make all of its clip quiet, and nothing is clipped.

    Args:
        waveform: In any range.
        peak: Highest level of the result.
        loop: The end goes on with the beginning.
        level: What is limited, float32 [T]; None is the samples' own magnitude.

    Raises:
        NumericalError: If a sample is not finite.

    Source:
        Giannoulis et al. 2012, "Digital dynamic range compressor design", JAES 60 (6).
    """
    highest = float(np.abs(waveform if level is None else level).max(initial=0.0))
    if not np.isfinite(highest):
        raise NumericalError("vocoder gave samples that are not finite")
    if highest <= peak:
        return waveform
    count = len(waveform)
    blocks = -(-count // _LIMIT_BLOCK)
    padded = np.zeros((blocks, _LIMIT_BLOCK), np.float32)
    np.abs(waveform if level is None else level, out=padded.reshape(-1)[:count])
    gain = peak / np.maximum(padded.max(axis=1), peak)
    # a block more than is smoothed over: samples lie between two blocks, and take from both
    around = np.pad(gain, 2 * _LIMIT_REACH + 1, mode="wrap" if loop else "edge")
    lowest = sliding_window_view(around, 2 * _LIMIT_REACH + 3).min(axis=1)
    smooth = np.hanning(2 * _LIMIT_REACH + 3)[1:-1]
    gain = np.convolve(lowest, smooth / smooth.sum(), mode="valid")
    ends = (gain[-1:], gain[:1]) if loop else (gain[:1], gain[-1:])
    # from one block's centre to the next one's a straight line, worked out where it is below 1
    # alone: a clip has few such places
    knots = np.concatenate([ends[0], gain, ends[1]])
    rows = np.flatnonzero(np.minimum(knots[:-1], knots[1:]) < 1.0)
    share = (np.arange(_LIMIT_BLOCK, dtype=np.float32) + 0.5) / _LIMIT_BLOCK
    knots *= 1.0 - 1e-6  # what follows is in float32
    begin, rise = (values[rows, None].astype(np.float32) for values in (knots, np.diff(knots)))
    framed = np.zeros((blocks + 1, _LIMIT_BLOCK), np.float32)
    limited: NDArray[np.float32] = framed.reshape(-1)[_LIMIT_BLOCK // 2 :][:count]
    limited[:] = waveform
    framed[rows] *= begin + rise * share
    return limited
