"""The diffusion objective: noise schedule, velocity target, loss weights, condition noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clipsynth_rt.bundles.manifest import DiffusionSpec
from clipsynth_training.denoiser.config import OptimiserConfig
from clipsynth_training.denoiser.unet import UNet
from clipsynth_training.run.autocast import mixed_precision


def cosine_schedule(t: Tensor) -> tuple[Tensor, Tensor]:
    """Return alpha and sigma at times ``t`` in [0, 1]; alpha^2 + sigma^2 = 1.

    Source:
        Nichol & Dhariwal 2021, arXiv:2102.09672, without the offset; Salimans & Ho 2022,
        arXiv:2202.00512, section 4.
    """
    angle = t * (math.pi / 2)
    return angle.cos(), angle.sin()


def sample_times(count: int, spec: DiffusionSpec, generator: torch.Generator) -> Tensor:
    """Draw training times, float32 [count], spread evenly over the batch.

    They are the N times {1/N, ..., 1} of the schedule, as ``spec.time_shift`` moves them.

    Source:
        Low-discrepancy sampling of Kingma et al. 2021, arXiv:2107.00630, appendix I.1.
    """
    n = spec.num_train_timesteps
    offset = torch.rand(1, generator=generator)
    uniform = (offset + torch.arange(count) / count) % 1.0
    u = (uniform * n).floor().clamp(0, n - 1).add(1).div(n)
    alpha, sigma = cosine_schedule(u)
    return torch.atan2(spec.time_shift * sigma, alpha) * (2 / math.pi)


def perturb_condition(
    condition: Tensor, config: OptimiserConfig, generator: torch.Generator
) -> Tensor:
    """Add noise to unit-length conditions [B, D], then drop some to the null condition (zeros).

    The noise makes the denoiser blind to how far text and image embeddings lie apart.

    Source:
        Nukrai et al. 2022, arXiv:2211.00575 (noise against the modality gap); Ho & Salimans 2022,
        arXiv:2207.12598 (dropout for classifier-free guidance).
    """
    noisy = add_noise(condition, config.condition_noise, generator)
    keep = torch.rand(len(condition), 1, generator=generator) >= config.condition_dropout
    return noisy * keep


def add_noise(condition: Tensor, length: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of about ``length`` to unit conditions [B, D]; they stay unit vectors."""
    noise = torch.randn(condition.shape, generator=generator)
    noisy = condition + noise * (length / math.sqrt(condition.shape[1]))
    return torch.nn.functional.normalize(noisy, dim=1)


def velocity_loss(
    model: UNet, mel: Tensor, condition: Tensor, t: Tensor, noise: Tensor, loss: str = "v"
) -> Tensor:
    """Return the mean squared error of v, a scalar.

    Args:
        model: The denoiser.
        mel: Normalised mel x0, float32 [B, M, F].
        condition: [B, D], already perturbed.
        t: Times [B].
        noise: Standard normal, like ``mel``.
        loss: ``v``, or ``min_snr`` for weights min(SNR, 5) / (SNR + 1).

    Source:
        Salimans & Ho 2022, arXiv:2202.00512; Hang et al. 2023, arXiv:2303.09556.
    """
    alpha, sigma = (a[:, None, None] for a in cosine_schedule(t))
    target = alpha * noise - sigma * mel
    with mixed_precision(mel.device.type):
        v = model(alpha * mel + sigma * noise, t, condition)
    error = (v - target).square().mean(dim=(1, 2))
    if loss == "min_snr":
        snr = (alpha / sigma).square().flatten()
        error = error * snr.clamp(max=5.0) / (snr + 1.0)
    return error.mean()


def predict_x0(x: Tensor, v: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """Return the estimate of the clean mel from a noisy one and its velocity, both [B, M, F].

    Source:
        Salimans & Ho 2022, arXiv:2202.00512, appendix D.
    """
    return alpha * x - sigma * v


def ddim_step(
    x: Tensor,
    x0: Tensor,
    now: tuple[Tensor, Tensor] | tuple[float, float],
    then: tuple[Tensor, Tensor] | tuple[float, float],
    fresh: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Return x at the next time, [B, M, F]; the runtime's NumPy twin is ``samplers.ddim_update``.

    Args:
        x: At the present time, [B, M, F].
        x0: Estimate of the clean mel, [B, M, F].
        now: Alpha and sigma of the present time.
        then: Alpha and sigma of the next one.
        fresh: Eta and standard normal noise [B, M, F]; None is the deterministic step.

    Source:
        Song et al. 2021, arXiv:2010.02502, equations 12 and 16.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = now, then
    eps = (x - alpha_t * x0) / sigma_t
    if fresh is None:
        return alpha_s * x0 + sigma_s * eps
    eta, noise = fresh
    share = torch.as_tensor(1.0 - (alpha_t / alpha_s) ** 2).clamp_min(0.0)
    sigma = eta * (sigma_s / sigma_t) * torch.sqrt(share)
    kept = torch.sqrt(torch.as_tensor(sigma_s**2 - sigma**2).clamp_min(0.0))
    return alpha_s * x0 + kept * eps + sigma * noise
