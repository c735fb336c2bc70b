"""Training in two processes takes the step that one would take on both their batches."""

import os
import socket

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from clipsynth_rt.training import distributed


def _network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    return network.to(memory_format=torch.channels_last)


def _gradients(network: nn.Module, rows: slice) -> list[torch.Tensor]:
    x = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    network(x[rows]).square().mean().backward()
    return [p.grad for p in network.parameters()]


def _worker(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    distributed.join()
    network = _network()
    _gradients(network, slice(2 * rank, 2 * rank + 2))
    distributed.average_gradients(network)
    stops = distributed.any_process(rank == 1), distributed.any_process(False)
    result = [p.grad for p in network.parameters()], stops, distributed.rank_and_count()
    torch.save(result, f"{folder}/{rank}.pt")


@pytest.fixture
def unused_tcp_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_two_processes_average_their_gradients(tmp_path, unused_tcp_port):
    mp.spawn(_worker, (unused_tcp_port, str(tmp_path)), nprocs=2)
    whole = _gradients(_network(), slice(0, 4))
    for rank in range(2):
        gradients, stops, place = torch.load(tmp_path / f"{rank}.pt")
        assert place == (rank, 2)
        assert stops == (True, False)
        for found, expected in zip(gradients, whole, strict=True):
            torch.testing.assert_close(found, expected)


def test_one_process_is_left_alone():
    network = _network()
    before = [g.clone() for g in _gradients(network, slice(0, 4))]
    distributed.join()
    distributed.average_gradients(network)
    assert distributed.rank_and_count() == (0, 1)
    assert distributed.any_process(True)
    for found, expected in zip(network.parameters(), before, strict=True):
        assert torch.equal(found.grad, expected)
