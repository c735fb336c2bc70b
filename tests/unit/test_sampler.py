"""Samplers against a denoiser whose answers are known in closed form.

For data from N(mean, std^2) the best estimate of x0 and the exact solution of the probability-flow
ODE are both known (Song et al. 2021, arXiv:2011.13456, section 4.3): x_t = alpha mean +
sqrt(alpha^2 std^2 + sigma^2) z, with z constant along the path.
"""

from __future__ import annotations

import numpy as np
import pytest

from clipsynth_rt.bundles.manifest import DiffusionSpec
from clipsynth_rt.synthesis.samplers import Mel, ddim, ddim_update, dpmpp_2m
from clipsynth_rt.synthesis.schedule import alpha_sigma, sampling_times

MEAN, STD = 0.7, 0.4
SPEC = DiffusionSpec()


class GaussianStep:
    """The optimal denoiser of N(MEAN, STD^2), with the host's DDIM update."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, float]] = []

    def __call__(self, x: Mel, t: float, s: float, eta: float, noise: Mel) -> tuple[Mel, Mel]:
        self.calls.append((t, s))
        alpha, sigma = alpha_sigma(t)
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        x0 = (MEAN + gain * (x - alpha * MEAN)).astype(np.float32)
        return ddim_update(x, x0, t, s, eta, noise), x0


def noise(shape: tuple[int, int, int] = (2, 4, 8), seed: int = 0) -> Mel:
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape, np.float32)


def error(sampler: str, num_steps: int) -> float:
    z = noise()
    times = sampling_times(num_steps, SPEC)
    result = (ddim if sampler == "ddim" else dpmpp_2m)(GaussianStep(), z, times)
    return float(np.abs(result - (MEAN + STD * z)).max())


def test_ddim_converges_to_the_exact_solution_at_first_order() -> None:
    errors = [error("ddim", num_steps) for num_steps in (10, 100, 1000)]
    assert errors[2] < 0.01 * STD
    # ten times the steps, a tenth of the error; float32 leaves some slack
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.25)


def test_dpmpp_2m_is_of_higher_order() -> None:
    for num_steps in (10, 20, 50):
        assert error("dpmpp_2m", num_steps) < 0.5 * error("ddim", num_steps)
    # order 2 but for its first and last step, so that 4 times the steps give between 4 and 16
    assert 6.0 < error("dpmpp_2m", 100) / error("dpmpp_2m", 400) < 16.0


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m"])
def test_one_step_is_the_estimate_at_pure_noise(sampler: str) -> None:
    # at t = 1 the input says nothing, so the best estimate is the mean
    assert error(sampler, 1) == pytest.approx(float(np.abs(STD * noise()).max()), rel=1e-5)


def test_ancestral_sampling_has_the_data_distribution() -> None:
    shape = (1, 100, 400)
    result = ddim(
        GaussianStep(),
        noise(shape),
        sampling_times(200, SPEC),
        eta=1.0,
        noise_for_step=lambda i: noise(shape, seed=i),
    )
    assert result.mean() == pytest.approx(MEAN, abs=5 * STD / np.sqrt(40_000))
    assert result.std() == pytest.approx(STD, rel=0.03)  # 200 steps are not infinitely many


def test_eta_one_forgets_the_starting_noise_and_eta_zero_does_not() -> None:
    shape = (1, 20, 50)

    def run(start: int, eta: float) -> Mel:
        times = sampling_times(50, SPEC)
        return ddim(
            GaussianStep(),
            noise(shape, start),
            times,
            eta=eta,
            noise_for_step=lambda i: noise(shape, 1000 + i),
        )

    # same fresh noise, other start
    spread = {eta: float(np.abs(run(1, eta) - run(2, eta)).mean()) for eta in (0.0, 1.0)}
    assert spread[1.0] < 0.1 * spread[0.0]


def test_update_conserves_what_the_estimate_implies() -> None:
    x0, eps = noise(seed=1), noise(seed=2)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = alpha_sigma(0.8), alpha_sigma(0.3)
    x = (alpha_t * x0 + sigma_t * eps).astype(np.float32)
    moved = ddim_update(x, x0, 0.8, 0.3, 0.0, noise(seed=3))
    np.testing.assert_allclose(moved, alpha_s * x0 + sigma_s * eps, atol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_update_keeps_the_total_variance(eta: float) -> None:
    shape = (1, 200, 400)
    eps, fresh = noise(shape, 3), noise(shape, 4)
    x0 = np.zeros(shape, np.float32)
    sigma_t, sigma_s = alpha_sigma(0.6)[1], alpha_sigma(0.4)[1]
    moved = ddim_update((sigma_t * eps).astype(np.float32), x0, 0.6, 0.4, eta, fresh)
    assert moved.std() == pytest.approx(sigma_s, rel=0.01)  # 80,000 draws


@pytest.mark.parametrize("sampler", [ddim, dpmpp_2m])
def test_every_step_is_called_once_and_reported(sampler: object) -> None:
    assert callable(sampler)
    step, seen = GaussianStep(), []
    sampler(step, noise(), sampling_times(4, SPEC), progress=lambda *at: seen.append(at))
    assert step.calls == [(1.0, 0.75), (0.75, 0.5), (0.5, 0.25), (0.25, 0.0)]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
