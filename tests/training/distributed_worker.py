"""One of two processes of test_distributed.py: python distributed_worker.py OUT.

The environment says which, as ``torchrun`` does.
"""

import os
import sys

import torch
from torch import nn

from clipsynth_training.run import distributed


def network() -> nn.Module:
    """Return a small network, the same at every call."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    return layers.to(memory_format=torch.channels_last)


def gradients(module: nn.Module, rows: slice) -> list[torch.Tensor]:
    """Return the gradients of a loss over some rows of a fixed batch of four."""
    x = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    module(x[rows]).square().mean().backward()
    return [p.grad for p in module.parameters()]


def main() -> None:
    """Average gradients with the other process and store what came of it."""
    rank = int(os.environ["RANK"])
    distributed.join()
    module = network()
    gradients(module, slice(2 * rank, 2 * rank + 2))
    distributed.average_gradients(module)
    stops = (
        distributed.any_process(rank == 1),
        distributed.any_process(False),
        distributed.same_in_all(rank),
        distributed.same_in_all(7),
        distributed.mean_over_processes(float(rank)),
    )
    distributed.wait_for_all()
    found = [p.grad for p in module.parameters()], stops, distributed.rank_and_count()
    torch.save(found, sys.argv[1])


if __name__ == "__main__":
    main()
