"""Training in two processes takes the step that one would take on both their batches."""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clipsynth_rt.training import distributed

WORKER = Path(__file__).with_name("distributed_worker.py")
spec = importlib.util.spec_from_file_location("distributed_worker", WORKER)
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)


@pytest.fixture
def unused_tcp_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_two_processes_average_their_gradients(tmp_path, unused_tcp_port):
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(unused_tcp_port), "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, WORKER, tmp_path / f"{rank}.pt"],
            env={**os.environ, **common, "RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    whole = worker.gradients(worker.network(), slice(0, 4))
    for rank in range(2):
        gradients, stops, place = torch.load(tmp_path / f"{rank}.pt")
        assert place == (rank, 2)
        assert stops == (True, False)
        for found, expected in zip(gradients, whole, strict=True):
            torch.testing.assert_close(found, expected)


def test_one_process_is_left_alone():
    network = worker.network()
    before = [g.clone() for g in worker.gradients(network, slice(0, 4))]
    distributed.join()
    distributed.average_gradients(network)
    assert distributed.rank_and_count() == (0, 1)
    assert distributed.any_process(True)
    for found, expected in zip(network.parameters(), before, strict=True):
        assert torch.equal(found.grad, expected)
