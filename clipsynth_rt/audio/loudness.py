"""Loudness as people hear it (ITU-R BS.1770-4), through pyloudnorm."""

from __future__ import annotations

import importlib.util
import logging

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.errors import InputError, MissingExtraError

MIN_LUFS, MAX_LUFS = -60.0, -5.0
_BLOCK_S = 0.4
"""BS.1770's gating block; a shorter sound is one block."""

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
    waveform: NDArray[np.float32], sample_rate: int, lufs: float, peak: float
) -> NDArray[np.float32]:
    """Scale a sound to an integrated loudness, as far as its peak allows.

    Where the peak would exceed ``peak`` the sound stays quieter, never clipped or compressed, and
    a warning says how loud it is. Silence stays as it is.

    Args:
        waveform: float32 [T], mono.
        sample_rate: In Hz.
        lufs: Target, from ``MIN_LUFS`` to ``MAX_LUFS``.
        peak: Highest sample of the result.

    Raises:
        InputError: If ``lufs`` is out of range.
        MissingExtraError: If pyloudnorm is not installed.
    """
    check_lufs(lufs)
    now = loudness(waveform, sample_rate)
    if not np.isfinite(now):
        logger.warning("silent: there is nothing to bring to %g LUFS", lufs)
        return waveform
    gain = 10.0 ** ((lufs - now) / 20.0)
    most = peak / float(np.abs(waveform).max())
    if gain > most:
        reached = now + 20.0 * np.log10(most)
        logger.warning("%.1f LUFS instead of %g: louder would clip its peaks", reached, lufs)
        gain = most
    return (waveform * np.float32(gain)).astype(np.float32)


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
