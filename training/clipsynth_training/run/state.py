"""A run's network, average and optimiser as named tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from clipsynth_training.checkpoint import load_weights
from clipsynth_training.run.ema import WeightAverage


def pack(
    model: nn.Module, average: WeightAverage | None, optimiser: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Return everything of a run that is a tensor, by name."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"adam.{key}.{name}"] = torch.as_tensor(value)
    averages = {} if average is None else average.tensors
    return tensors | {f"average.{name}": value for name, value in averages.items()}


def unpack(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    average: WeightAverage | None,
    optimiser: torch.optim.Optimizer,
    average_updates: int,
    where: str,
) -> None:
    """Put back what ``pack`` returned.

    Args:
        tensors: By name.
        model: Loaded in place, as ``average`` and ``optimiser``.
        average: See there; None if the run has none.
        optimiser: AdamW over the model's parameters.
        average_updates: Steps that the average has seen.
        where: Named in errors.

    Raises:
        CheckpointError: If the network is of another configuration.
    """

    def part(prefix: str) -> dict[str, Tensor]:
        return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

    load_weights(model, part("model."), where)
    if average is not None:
        average.load(part("average."), average_updates)
    for name, parameter in model.named_parameters():
        if f"adam.step.{name}" not in tensors:
            continue
        # the fused optimiser reads moments in the parameter's own memory format
        moments = {
            key: torch.empty_like(parameter).copy_(tensors[f"adam.{key}.{name}"])
            for key in ("exp_avg", "exp_avg_sq")
        }
        moments["step"] = tensors[f"adam.step.{name}"].to(parameter.device, copy=True)
        optimiser.state[parameter] = moments
