"""Samplers: how noise becomes a mel spectrogram, over any denoiser step.

A step is one call of the ``denoiser_step`` graph, or anything that behaves like it: guidance, the
network and the DDIM update from time t to time s. Mels are float32 [B, M, F].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.synthesis.schedule import alpha_sigma

Mel = NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called after each step with (steps done, steps in all)."""


class Step(Protocol):
    """One denoiser step: from ``x`` at time ``t`` to (x at time ``s``, estimate of x0)."""

    def __call__(self, x: Mel, t: float, s: float, eta: float, noise: Mel) -> tuple[Mel, Mel]:
        """Return float32 [B, M, F] twice; 0 <= s < t <= 1, eta in 0..1, noise [B, M, F]."""


def ddim_update(x: Mel, x0: Mel, t: float, s: float, eta: float, noise: Mel) -> Mel:
    """Return x at time ``s`` from x at time ``t`` and the estimate ``x0``.

    This is what the exported graph does on the device, in NumPy: the reference that graphs are
    compared with, and the way to run a denoiser that has no update of its own.

    Args:
        x: float32 [B, M, F] at time ``t``.
        x0: Estimate of the clean mel, float32 [B, M, F].
        t: In (0, 1].
        s: In [0, t).
        eta: 0 is deterministic, 1 is ancestral sampling.
        noise: Standard normal, float32 [B, M, F]; unused where ``eta`` is 0.

    Source:
        Song et al. 2021, arXiv:2010.02502, equations 12 and 16.
    """
    alpha_t, sigma_t = alpha_sigma(t)
    alpha_s, sigma_s = alpha_sigma(s)
    eps = (x - alpha_t * x0) / sigma_t
    fresh = eta * sigma_s / sigma_t * math.sqrt(max(0.0, 1.0 - (alpha_t / alpha_s) ** 2))
    kept = math.sqrt(max(0.0, sigma_s**2 - fresh**2))
    return (alpha_s * x0 + kept * eps + fresh * noise).astype(np.float32)


def ddim(
    step: Step,
    x: Mel,
    times: Sequence[float] | NDArray[np.float64],
    *,
    eta: float = 0.0,
    noise_for_step: Callable[[int], Mel] | None = None,
    progress: Progress | None = None,
) -> Mel:
    """Walk ``times`` with the step's own DDIM update.

    Args:
        step: The denoiser step.
        x: Noise at ``times[0]``, float32 [B, M, F].
        times: Strictly decreasing, N + 1 of them; the last is where the result is.
        eta: 0 to 1.
        noise_for_step: i -> noise that step i (from 1) adds, float32 [B, M, F]; needed where
            ``eta`` is above 0.
        progress: Told of every step.

    Source:
        Song et al. 2021, arXiv:2010.02502.
    """
    num_steps = len(times) - 1
    still = np.zeros_like(x)
    for i in range(num_steps):
        noise = noise_for_step(i + 1) if eta > 0.0 and noise_for_step is not None else still
        x, _ = step(x, float(times[i]), float(times[i + 1]), eta, noise)
        if progress is not None:
            progress(i + 1, num_steps)
    return x


def dpmpp_2m(
    step: Step,
    x: Mel,
    times: Sequence[float] | NDArray[np.float64],
    *,
    progress: Progress | None = None,
) -> Mel:
    """Walk ``times`` with the second-order multistep DPM-Solver++, from the step's x0 alone.

    The first step and the last are of first order: before the first there is no history, and at
    time 0 the log signal-to-noise ratio is infinite.

    Args:
        step: The denoiser step; its own update is ignored.
        x: Noise at ``times[0]``, float32 [B, M, F].
        times: Strictly decreasing, N + 1 of them; the last is where the result is.
        progress: Told of every step.

    Source:
        Lu et al. 2022, arXiv:2211.01095, algorithm 2.
    """
    num_steps = len(times) - 1
    still = np.zeros_like(x)
    last_x0: Mel | None = None
    for i in range(num_steps):
        t, s = float(times[i]), float(times[i + 1])
        _, x0 = step(x, t, s, 0.0, still)
        estimate = x0
        if last_x0 is not None and s > 0.0:
            h = _log_snr(s) - _log_snr(t)
            ratio = (_log_snr(t) - _log_snr(float(times[i - 1]))) / h
            estimate = x0 + (x0 - last_x0) / (2.0 * ratio)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = alpha_sigma(t), alpha_sigma(s)
        keep = sigma_s / sigma_t
        x = (keep * x + (alpha_s - keep * alpha_t) * estimate).astype(np.float32)
        last_x0 = x0
        if progress is not None:
            progress(i + 1, num_steps)
    return x


def _log_snr(t: float) -> float:
    """Return log(alpha / sigma) at time ``t`` in (0, 1], finite at 1."""
    alpha, sigma = alpha_sigma(t)
    return math.log(max(alpha, 1e-12) / sigma)
