"""The runtime's few-step sampler as training needs it: differentiable."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from clipsynth_rt.bundles.manifest import DiffusionSpec
from clipsynth_rt.synthesis.schedule import alpha_sigma, sampling_times
from clipsynth_training.denoiser.diffusion import ddim_step, predict_x0
from clipsynth_training.run.autocast import mixed_precision

Network = Callable[[Tensor, Tensor, Tensor], Tensor]


def clip_through(x: Tensor, low: float, high: float) -> Tensor:
    """Return ``x`` clipped as the runtime clips it, with a gradient as if it were not.

    Source:
        Bengio et al. 2013, arXiv:1308.3432 (straight-through estimator).
    """
    return x + (x.clamp(low, high) - x).detach()


class Rollout:
    """The runtime's few-step sampler, differentiable.

    Args:
        spec: Schedule and bounds.
        steps: Calls.
    """

    def __init__(self, spec: DiffusionSpec, steps: int) -> None:
        self.spec = spec
        self.times = [float(t) for t in sampling_times(steps, spec)]

    def __call__(
        self, model: Network, noise: Tensor, condition: Tensor, end_to_end: bool, first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the state that each call was given, and its clipped estimate of x0, [B, M, F].

        Args:
            model: The network, of what ``UNet.forward`` takes; or one that asks it several times.
            noise: [B, M, F].
            condition: [B, D].
            end_to_end: Let gradients reach through the states, not only through each call.
            first: Calls before this one are made without gradients.
        """
        x = noise
        for number, (t, s) in enumerate(zip(self.times, self.times[1:], strict=False)):
            (alpha, sigma), (alpha_s, sigma_s) = alpha_sigma(t), alpha_sigma(s)
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= first):
                with mixed_precision(noise.device.type):
                    v = model(x, torch.full((len(x),), t, device=x.device), condition)
                x0 = clip_through(
                    predict_x0(x, v, alpha, sigma), self.spec.x0_min, self.spec.x0_max
                )
            yield x, x0
            x = ddim_step(x, x0, (alpha, sigma), (alpha_s, sigma_s))
            if not end_to_end:
                x = x.detach()

    def target(self, number: int, x: Tensor, following: Tensor) -> Tensor:
        """Return the x0 with which call ``number`` goes from ``x`` to the state ``following``.

        It is clipped as estimates are: beyond that it would pull without end.

        Source:
            Salimans & Ho 2022, arXiv:2202.00512, appendix G.
        """
        (alpha, sigma), (alpha_s, sigma_s) = (
            alpha_sigma(t) for t in self.times[number : number + 2]
        )
        ratio = sigma_s / sigma
        x0 = (following - ratio * x) / (alpha_s - ratio * alpha)
        return x0.clamp(self.spec.x0_min, self.spec.x0_max)
