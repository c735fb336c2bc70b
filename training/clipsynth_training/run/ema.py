"""Exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """Average of a module's parameters and buffers over training steps.

    The decay ramps up as (1 + n) / (10 + n), so that early averages are not held back by the
    random initialisation.

    Args:
        module: Its current state is where the average begins.
        decay: Decay a step once ramped up.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.tensors = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module's current weights."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        state = module.state_dict()
        names = [name for name, value in self.tensors.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [self.tensors[name] for name in names],
            [state[name].detach() for name in names],
            1.0 - decay,
        )

    def load(self, tensors: Mapping[str, Tensor], num_updates: int) -> None:
        """Continue an average that was stored."""
        for name, value in self.tensors.items():
            value.copy_(tensors[name])
        self.num_updates = num_updates
