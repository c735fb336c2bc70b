"""Training in two processes takes the step that one would take on both their batches."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))
from denoiser_for_tests import CURVE, clips, losses

from clipsynth_training.checkpoint import load_component
from clipsynth_training.denoiser.train import DenoiserTrainer
from clipsynth_training.run import distributed

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
        assert stops == (True, False, False, True, 0.5)
        for found, expected in zip(gradients, whole, strict=True):
            torch.testing.assert_close(found, expected)


def test_two_processes_under_torchrun_have_the_loss_curve_of_one(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    out, steps = tmp_path / "two", 12
    worker = WORKER.with_name("denoiser_for_tests.py")
    done = subprocess.run(
        [*torchrun, worker, "train", out, str(steps)],
        capture_output=True, text=True, timeout=180, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    two = json.loads((out / "losses.json").read_text())
    one = losses(DenoiserTrainer(CURVE, clips(), tmp_path / "one"), steps)
    assert one[-1] < 0.8 * one[0]  # the curve has a shape to be compared
    # the same clips, noise and times; bfloat16 products are rounded in another order
    assert two == pytest.approx(one, rel=0.02)
    weights = (load_component(tmp_path / n, "denoiser")[0] for n in ("one", "two"))
    for (name, mine), theirs in zip(*(w.items() for w in weights), strict=True):
        assert name == theirs[0]
        assert (mine - theirs[1]).abs().mean() < 0.02, name


def test_one_process_is_left_alone():
    network = worker.network()
    before = [g.clone() for g in worker.gradients(network, slice(0, 4))]
    distributed.join()
    distributed.average_gradients(network)
    assert distributed.rank_and_count() == (0, 1)
    assert distributed.any_process(True)
    assert not distributed.any_process(False)
    assert distributed.mean_over_processes(2.5) == 2.5
    assert distributed.same_in_all(7)
    for found, expected in zip(network.parameters(), before, strict=True):
        assert torch.equal(found.grad, expected)
