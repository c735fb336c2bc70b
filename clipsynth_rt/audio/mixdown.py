"""Channels to one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CANCELLATION = 0.2
"""Power of the mean of channels, relative to that of unrelated ones, below which they cancel.

The mean of C unrelated channels has 1 / C of their mean power. Two channels of equal power fall
below 0.2 of that, -10 dB of their own power, where their correlation is below -0.8.
"""


def mix_to_mono(channels: NDArray[np.floating]) -> tuple[NDArray[np.float32], bool]:
    """Return channels [C, T] as one [T], and whether their mean would have cancelled.

    It is the mean of the channels, or the loudest channel alone where the mean cancels, as it does
    for stereo of opposite phase.
    """
    sound = np.asarray(channels, np.float32)
    mean = sound.mean(axis=0, dtype=np.float32)
    if len(sound) < 2 or sound.size == 0:
        return mean, False
    powers = np.square(sound, dtype=np.float64).mean(axis=1)
    power = float(np.square(mean, dtype=np.float64).mean())
    if power < CANCELLATION * powers.mean() / len(sound):
        return np.ascontiguousarray(sound[int(powers.argmax())]), True
    return mean, False
