"""Training in several processes under ``torchrun``, each with its share of every batch.

On a CPU two processes of one thread are faster than one of two threads: the small operations of a
denoiser do not split well, clips do.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import nn


def join() -> None:
    """Join the other processes where ``torchrun`` started this one; else do nothing."""
    if "WORLD_SIZE" in os.environ and not dist.is_initialized():
        dist.init_process_group("gloo")


def rank_and_count() -> tuple[int, int]:
    """Return this process's number, and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def average_gradients(module: nn.Module) -> None:
    """Replace gradients by their mean over all processes."""
    _, count = rank_and_count()
    if count == 1:
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    # memory order: a copy into the order of channels first would cost more than the exchange
    flat = torch.cat([g.permute(_order(g)).reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= count
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        order = _order(gradient)
        gradient.permute(order).copy_(part.view([gradient.shape[i] for i in order]))


def any_process(value: bool) -> bool:
    """Return whether ``value`` holds in at least one process, so that all stop together."""
    _, count = rank_and_count()
    if count == 1:
        return value
    flag = torch.tensor(float(value))
    dist.all_reduce(flag)
    return bool(flag > 0)


def _order(tensor: torch.Tensor) -> list[int]:
    return sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
