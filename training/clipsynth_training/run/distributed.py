"""Training in several processes under ``torchrun``, each with its share of every batch.

On a CPU two processes of one thread are faster than one of two threads: the small operations of a
denoiser do not split well, clips do.
"""

from __future__ import annotations

import atexit
import datetime
import logging
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from clipsynth_rt.errors import CheckpointError, InputError

TIMEOUT = datetime.timedelta(hours=6)
"""Longest wait for another process, which may embed pictures for hours; if one dies, torchrun
ends the others at once."""


def join(backend: str = "gloo") -> None:
    """Join the other processes where ``torchrun`` started this one; else do nothing."""
    if "WORLD_SIZE" in os.environ and not dist.is_initialized():
        dist.init_process_group(backend, timeout=TIMEOUT)
        # its threads would otherwise outlive the interpreter, and now and then abort at the end
        # of a run that was fine (PyTorch's documentation of destroy_process_group)
        atexit.register(leave)


def leave() -> None:
    """Leave the other processes, if there are any."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def end(code: int) -> None:
    """End this process at once where it is one of several; else do nothing.

    Taking the interpreter down aborts now and then although the group is left, with "terminate
    called without an active exception" and no Python left to blame, and ``torchrun`` then reports
    a run as failed that was fine.
    """
    if dist.is_available() and dist.is_initialized():
        leave()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def train_device(name: str) -> torch.device:
    """Return the device to train on; under ``torchrun`` each process of a machine has its own GPU.

    Raises:
        InputError: If it is none of torch's, or is not here.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device {name}: no such device; use cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {name}: torch finds no CUDA device here; use cpu")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: training runs on cpu or cuda")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


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


def take_step(
    module: nn.Module, optimiser: torch.optim.Optimizer, rate: float, gradient_clip: float
) -> None:
    """Step at learning rate ``rate`` by the gradients of all processes, clipped by their norm."""
    average_gradients(module)
    torch.nn.utils.clip_grad_norm_(module.parameters(), gradient_clip)
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()


def any_process(value: bool) -> bool:
    """Return whether ``value`` holds in at least one process, so that all stop together."""
    return bool(_reduced(float(value), dist.ReduceOp.MAX) > 0)


def mean_over_processes(value: float) -> float:
    """Return the mean of every process's ``value``."""
    return _reduced(value, dist.ReduceOp.SUM) / rank_and_count()[1]


def same_in_all(value: int) -> bool:
    """Return whether every process has the same ``value``."""
    return _reduced(value, dist.ReduceOp.MAX) == -_reduced(-value, dist.ReduceOp.MAX)


def check_resumed_alike(step: int, folder: str | Path) -> None:
    """Check that every process goes on at the same step.

    Raises:
        CheckpointError: If not.
    """
    if not same_in_all(step):
        raise CheckpointError(
            f"{folder}: the processes resumed at different steps; do all see the same folder?"
        )


def signal_of_any(received: int | None) -> int | None:
    """Return the signal that ends this process: one that was only told of it ends as SIGTERM's."""
    stopped = any_process(received is not None)
    return (received or signal.SIGTERM) if stopped else None


def wait_for_all() -> None:
    """Return when every process has come here."""
    if rank_and_count()[1] > 1:
        dist.barrier()


def _reduced(value: float, operation: dist.ReduceOp) -> float:
    if rank_and_count()[1] == 1:
        return float(value)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    number = torch.tensor(float(value), dtype=torch.float64, device=device)
    dist.all_reduce(number, operation)
    return float(number)


def _order(tensor: torch.Tensor) -> list[int]:
    return sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
