"""The noise schedule, the times that a sampler visits, and the noise itself. Pure functions."""

from __future__ import annotations

import math
import operator
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.bundles.manifest import DiffusionSpec
from clipsynth_rt.errors import InputError
from clipsynth_rt.synthesis.options import MAX_SEED


def alpha_sigma(t: float) -> tuple[float, float]:
    """Return how much of the signal and of the noise there is at time ``t`` in [0, 1].

    Variance preserving: alpha^2 + sigma^2 = 1.

    Source:
        Salimans and Ho 2022, arXiv:2202.00512: alpha = cos(pi t / 2).
    """
    return math.cos(0.5 * math.pi * t), math.sin(0.5 * math.pi * t)


def shift_time(u: float, shift: float) -> float:
    """Return the time t at which the cosine schedule, shifted by ``shift``, is at its time ``u``.

    tan(pi t / 2) = shift * tan(pi u / 2): sigma / alpha grows by the factor ``shift``.

    Source:
        Hoogeboom et al. 2023, arXiv:2301.11093, section 3.1 (shifted cosine schedule).
    """
    if shift == 1.0:
        return u  # without the rounding of there and back
    alpha, sigma = alpha_sigma(u)
    return 2.0 / math.pi * math.atan2(shift * sigma, alpha)


def sampling_times(num_steps: int, spec: DiffusionSpec) -> NDArray[np.float64]:
    """Return the times that a sampler visits, noisiest first, ending in zero.

    Evenly spaced in the shifted schedule, from pure noise at 1, so that the first call sees what
    training called its noisiest timestep ("trailing" spacing: Lin et al. 2024, arXiv:2305.08891,
    table 2).

    Args:
        num_steps: Steps N, from 1 to ``spec.num_train_timesteps``.
        spec: Supplies the number of training timesteps and the shift.

    Returns:
        float64 [N + 1] in [0, 1], strictly decreasing; the last element is 0.0.

    Raises:
        InputError: If ``num_steps`` is out of range.

    >>> sampling_times(4, DiffusionSpec()).tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if not 1 <= num_steps <= spec.num_train_timesteps:
        raise InputError(f"num_steps must be from 1 to {spec.num_train_timesteps}, got {num_steps}")
    even = [i / num_steps for i in range(num_steps, -1, -1)]
    return np.array([1.0, *(shift_time(u, spec.time_shift) for u in even[1:-1]), 0.0])


def check_seed(seed: SupportsIndex) -> int:
    """Return a seed as a Python integer, whatever kind of integer it is.

    >>> check_seed(np.int64(3))
    3

    Raises:
        InputError: If it is no integer, or out of range.
    """
    try:
        # int(): the index of True is True itself
        number = int(operator.index(seed))
    except TypeError as error:
        raise InputError(f"seed must be a whole number, got {seed!r:.60}") from error
    if not 0 <= number <= MAX_SEED:
        raise InputError(f"seed must be from 0 to {MAX_SEED}, got {number}")
    return number


def gaussian_noise(
    seed: SupportsIndex, num_frames: int, num_bins: int, stream: int = 0
) -> NDArray[np.float32]:
    """Return standard normal noise that depends on its arguments alone, float32 [M, F].

    Philox is counter-based: value n is a function of (seed, stream, n), so any runtime can make
    the same noise. Values are drawn frame by frame, so a longer clip begins with the noise of a
    shorter one. The normal transform is written out because NumPy keeps its raw bit streams
    stable over versions, but not those of its distributions (NEP 19).

    Args:
        seed: From 0 to ``MAX_SEED``.
        num_frames: F.
        num_bins: M.
        stream: 0 for the noise that sampling starts from, i for what step i adds.

    Raises:
        InputError: If ``seed`` is no integer, or out of range.

    Source:
        Salmon et al. 2011, doi:10.1145/2063384.2063405; Box and Muller 1958,
        doi:10.1214/aoms/1177706645.
    """
    count = num_frames * num_bins
    generator = np.random.Philox(key=np.array([check_seed(seed), stream], np.uint64))
    raw = generator.random_raw(count + count % 2).reshape(-1, 2)
    # in place, because fresh memory takes longer than what is worked out in it: 53 bits a value,
    # and + 1 keeps log() away from zero
    uniform = np.empty((2, len(raw)))
    uniform[:] = (raw >> np.uint64(11)).T
    uniform += 1.0
    uniform *= 2.0**-53
    radius, half_angle = uniform
    np.log(radius, out=radius)
    radius *= -2.0
    np.sqrt(radius, out=radius)
    # cosine and sine by the tangent t of half the angle: (1 - t^2) / (1 + t^2), 2 t / (1 + t^2),
    # the same float32 but for one value in 200 million, in a fifth of the time, which is most of it
    half_angle *= np.pi
    tangent = np.tan(half_angle, out=half_angle)
    square = tangent * tangent
    radius /= 1.0 + square
    pairs = np.empty((len(radius), 2), np.float32)
    np.subtract(1.0, square, out=square)
    square *= radius
    pairs[:, 0] = square
    tangent *= 2.0
    tangent *= radius
    pairs[:, 1] = tangent
    frames = pairs.reshape(-1)[:count].reshape(num_frames, num_bins)
    return np.ascontiguousarray(frames.T)
