"""Loudness as people hear it (ITU-R BS.1770-4), through pyloudnorm."""

from __future__ import annotations

import importlib.util
import logging

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.audio.limiter import limit_peaks
from clipsynth_rt.errors import InputError, MissingExtraError

MIN_LUFS, MAX_LUFS = -60.0, -5.0
_BLOCK_S = 0.4
"""BS.1770's gating block; a shorter sound is one block."""

_TOLERANCE_LU = 0.1
_LIMIT_PASSES, _MAX_SLOPE = 8, 6.0
"""Of the secant method: how often the gain is set anew, and by how much of what is missing."""
_MAX_LIMIT_DB = 18.0
"""Most that peaks are turned down: beyond, a stroke becomes a thud."""
_OVERSAMPLING, _PEAK_CONTEXT = 4, 64
"""Of the true peak, and samples beyond each end that the interpolation sees."""

logger = logging.getLogger(__name__)


def check_lufs(lufs: float) -> float:
    """Check a target before any work is done, and return it.

    Raises:
        InputError: If it is out of range.
        MissingExtraError: If pyloudnorm is not installed.
    """
    # written so that NaN is refused too
    if not MIN_LUFS <= lufs <= MAX_LUFS:
        raise InputError(f"lufs must be from {MIN_LUFS:g} to {MAX_LUFS:g}, got {lufs:g}")
    if importlib.util.find_spec("pyloudnorm") is None:
        raise MissingExtraError("pyloudnorm", "sound")
    return float(lufs)


def normalise_loudness(
    waveform: NDArray[np.float32],
    sample_rate: int,
    lufs: float,
    peak: float,
    *,
    loop: bool = False,
) -> NDArray[np.float32]:
    """Bring a sound to an integrated loudness, with its true peaks limited.

    Where scaling alone would take a peak beyond ``peak``, a look-ahead limiter turns the sound down
    around its peaks (see ``limit_peaks``) and makes up for it, by at most ``_MAX_LIMIT_DB``.
    Where that does not reach the target, a warning says how loud the sound is. Silence stays as it
    is.

    Args:
        waveform: float32 [T], mono.
        sample_rate: In Hz.
        lufs: Target, from ``MIN_LUFS`` to ``MAX_LUFS``.
        peak: Highest true peak of the result: of the samples, and of the sound between them.
        loop: The end goes on with the beginning.

    Raises:
        InputError: If ``lufs`` is out of range.
        MissingExtraError: If pyloudnorm is not installed.

    Source:
        ITU-R BS.1770-4, annex 2 (true peak by fourfold oversampling).
    """
    check_lufs(lufs)
    now = loudness(waveform, sample_rate)
    if not np.isfinite(now):
        logger.warning("silent: there is nothing to bring to %g LUFS", lufs)
        return waveform
    gain_db = lufs - now
    most_db = 20.0 * float(np.log10(peak / true_peak(waveform, loop=loop)))
    if gain_db <= most_db:
        return _scaled(waveform, gain_db)
    best, reached = waveform, now
    last_gain, last = most_db, now + most_db
    for _ in range(_LIMIT_PASSES):
        limited = _limited(waveform, gain_db, peak, loop=loop)
        found = loudness(limited, sample_rate)
        if abs(lufs - found) < abs(lufs - reached):
            best, reached = limited, found
        # as exact as a meter shows; and where more gain makes it no louder, no gain will
        if abs(lufs - found) <= _TOLERANCE_LU or found <= last:
            break
        slope = (gain_db - last_gain) / (found - last)
        last_gain, last = gain_db, found
        gain_db += (lufs - found) * min(max(slope, 1.0), _MAX_SLOPE)
        gain_db = min(gain_db, most_db + _MAX_LIMIT_DB)
        if gain_db == last_gain:
            break
    if abs(lufs - reached) > _TOLERANCE_LU:
        logger.warning(
            "%.1f LUFS instead of %g: its peaks keep it %.1f LU quieter, limited as they are",
            reached,
            lufs,
            lufs - reached,
        )
    return best


def true_peak(waveform: NDArray[np.float32], *, loop: bool = False) -> float:
    """Return the highest level of a sound [T], between its samples too."""
    return float(_envelope(waveform, loop=loop).max(initial=0.0))


def _envelope(waveform: NDArray[np.float32], *, loop: bool) -> NDArray[np.float32]:
    """Return the highest level around each sample, by fourfold oversampling, float32 [T]."""
    # pyloudnorm needs SciPy, so that it is there
    from scipy.signal import resample_poly  # type: ignore[import-untyped,unused-ignore]

    count = len(waveform)
    context = min(_PEAK_CONTEXT, count)
    around = np.pad(waveform, context, mode="wrap" if loop else "constant")
    between = np.abs(resample_poly(around.astype(np.float64), _OVERSAMPLING, 1))
    inner = between[context * _OVERSAMPLING : (context + count) * _OVERSAMPLING]
    highest = np.maximum(np.abs(waveform), inner.reshape(count, _OVERSAMPLING).max(axis=1))
    found: NDArray[np.float32] = highest.astype(np.float32)
    return found


def _limited(
    waveform: NDArray[np.float32], gain_db: float, peak: float, *, loop: bool
) -> NDArray[np.float32]:
    """Return a sound louder by ``gain_db``, its true peaks at most ``peak``."""
    scaled = _scaled(waveform, gain_db)
    limited = limit_peaks(scaled, peak, loop=loop, level=_envelope(scaled, loop=loop))
    # a gain that moves within an oversampled peak may leave a hair
    highest = true_peak(limited, loop=loop)
    if highest > peak:
        limited = (limited * np.float32(peak / highest)).astype(np.float32)
    return limited


def _scaled(waveform: NDArray[np.float32], gain_db: float) -> NDArray[np.float32]:
    return (waveform * np.float32(10.0 ** (gain_db / 20.0))).astype(np.float32)


def loudness(waveform: NDArray[np.float32], sample_rate: int) -> float:
    """Return the integrated loudness in LUFS of a mono sound; -inf for silence.

    Raises:
        MissingExtraError: If pyloudnorm is not installed.
    """
    try:
        import pyloudnorm
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyloudnorm", "sound") from error
    # one sample less, so that the sound is never shorter than a block after rounding
    block_s = min(_BLOCK_S, (len(waveform) - 1) / sample_rate)
    meter = pyloudnorm.Meter(sample_rate, block_size=block_s)
    if not np.abs(waveform).max(initial=0.0) > 0.0:
        return -np.inf
    return float(meter.integrated_loudness(waveform.astype(np.float64)))
