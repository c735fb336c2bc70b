"""The schedule and the noise, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clipsynth_rt.bundles.manifest import DiffusionSpec
from clipsynth_rt.errors import InputError
from clipsynth_rt.synthesis.schedule import (
    MAX_SEED,
    alpha_sigma,
    gaussian_noise,
    sampling_times,
    shift_time,
)


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_schedule_preserves_variance(t: float) -> None:
    alpha, sigma = alpha_sigma(t)
    assert alpha**2 + sigma**2 == pytest.approx(1.0, abs=1e-15)


def test_schedule_ends() -> None:
    assert alpha_sigma(0.0) == (1.0, 0.0)
    assert alpha_sigma(1.0) == pytest.approx((0.0, 1.0), abs=1e-15)
    assert alpha_sigma(0.5) == pytest.approx((0.5**0.5, 0.5**0.5))


@pytest.mark.parametrize("num_steps", [1, 2, 8, 1000])
def test_times_fall_from_one_to_zero(num_steps: int) -> None:
    times = sampling_times(num_steps, DiffusionSpec())
    assert len(times) == num_steps + 1
    assert (times[0], times[-1]) == (1.0, 0.0)
    assert (np.diff(times) < 0).all()


@pytest.mark.parametrize("u", [0.1, 0.5, 0.9])
def test_shift_multiplies_the_noise_to_signal_ratio(u: float) -> None:
    alpha, sigma = alpha_sigma(u)
    shifted_alpha, shifted_sigma = alpha_sigma(shift_time(u, 3.0))
    assert shifted_sigma / shifted_alpha == pytest.approx(3.0 * sigma / alpha)
    assert shift_time(u, 1.0) == pytest.approx(u)


def test_shifted_times_dwell_on_noise() -> None:
    even = sampling_times(8, DiffusionSpec())
    shifted = sampling_times(8, DiffusionSpec(time_shift=3.0))
    assert (shifted[0], shifted[-1]) == (1.0, 0.0)
    assert (np.diff(shifted) < 0).all()
    assert (shifted[1:-1] > even[1:-1]).all()


@pytest.mark.parametrize("num_steps", [0, -1, 1001])
def test_times_out_of_range(num_steps: int) -> None:
    with pytest.raises(InputError, match=f"from 1 to 1000, got {num_steps}"):
        sampling_times(num_steps, DiffusionSpec())


def test_noise_is_standard_normal() -> None:
    noise = gaussian_noise(3, 1000, 80).astype(np.float64)
    # five standard errors of 80,000 draws
    assert abs(noise.mean()) < 5 / np.sqrt(noise.size)
    assert abs(noise.var() - 1.0) < 5 * np.sqrt(2.0 / noise.size)
    assert abs((noise**4).mean() - 3.0) < 5 * np.sqrt(96.0 / noise.size)
    # neighbours come in pairs from one radius and angle, and must not be correlated
    assert abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 5 / np.sqrt(1000)


def test_noise_depends_on_seed_and_stream_alone() -> None:
    first = gaussian_noise(1, 16, 8)
    np.testing.assert_array_equal(first, gaussian_noise(1, 16, 8))
    assert not np.array_equal(first, gaussian_noise(2, 16, 8))
    assert not np.array_equal(first, gaussian_noise(1, 16, 8, stream=1))


@pytest.mark.parametrize("bins", [7, 8])
def test_a_longer_clip_begins_with_the_same_noise(bins: int) -> None:
    short, long = gaussian_noise(5, 9, bins), gaussian_noise(5, 24, bins)
    assert short.shape == (bins, 9)
    assert short.dtype == np.float32
    np.testing.assert_array_equal(short, long[:, :9])


def test_noise_is_the_same_on_every_machine() -> None:
    # float32 of the first values, made once; the same seed must give the same sound in a year
    noise = gaussian_noise(0, 2, 2)
    np.testing.assert_allclose(noise, FIRST, rtol=1e-6)


FIRST = np.array([[0.15853384, -1.925692], [2.9828794, -0.82492554]], np.float32)


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10 as Salmon et al. 2011 write it: four words for a counter and a key."""
    word = (1 << 64) - 1
    for _ in range(10):
        first, third = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [
            (third >> 64) ^ counter[1] ^ key[0],
            third & word,
            (first >> 64) ^ counter[3] ^ key[1],
            first & word,
        ]
        key = [(key[0] + 0x9E3779B97F4A7C15) & word, (key[1] + 0xBB67AE8584CAA73B) & word]
    return counter


def test_noise_can_be_made_again_in_another_language() -> None:
    seed, stream = 12345, 7
    # NumPy counts from 1
    words = [w for n in (1, 2) for w in philox([n, 0, 0, 0], [seed, stream])]
    uniform = [((w >> 11) + 1) / 2**53 for w in words]
    expected = []
    for u, v in zip(uniform[::2], uniform[1::2], strict=True):
        radius = math.sqrt(-2.0 * math.log(u))
        expected += [radius * math.cos(2 * math.pi * v), radius * math.sin(2 * math.pi * v)]
    noise = gaussian_noise(seed, 2, 4, stream)
    # frame by frame, so transposed; float32 rounding
    np.testing.assert_allclose(noise.T.ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_seed_out_of_range(seed: int) -> None:
    with pytest.raises(InputError, match="seed must be from 0"):
        gaussian_noise(seed, 1, 1)


def test_largest_seed_works() -> None:
    assert np.isfinite(gaussian_noise(MAX_SEED, 4, 4)).all()
