"""A run survives a kill at any moment, and damaged files; a signal stops it in order."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))
from denoiser_for_tests import CURVE, clips, losses, tiny

from clipsynth_rt.errors import CheckpointError, OutputError
from clipsynth_training import checkpoint
from clipsynth_training.checkpoint import load_component, load_state, save_component, save_state
from clipsynth_training.denoiser.train import STATE, DenoiserTrainer
from clipsynth_training.run.log import METRICS, read_metrics
from clipsynth_training.run.trainer import RunLimits

WORKER = Path(__file__).with_name("denoiser_for_tests.py")


def states(folder):
    return sorted(path.name for path in folder.glob(f"{STATE}*"))


def same_weights(one: DenoiserTrainer, other: DenoiserTrainer) -> bool:
    pairs = zip(one.model.state_dict().items(), other.model.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_a_run_that_is_killed_again_and_again_ends_as_an_unbroken_one(tmp_path):
    out = tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, WORKER, "kill", out, "5", "6"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    begun_at = [int(line) for line in done.stdout.split()]
    assert begun_at == sorted(begun_at)
    assert begun_at[-1] > 0
    resumed = DenoiserTrainer(tiny(), clips(), out)
    assert resumed.step >= begun_at[-1]
    # the published weights are those of the state, wherever in a save the last kill came
    assert load_component(out, "denoiser")[1]["steps"] == resumed.step
    end = resumed.step + 3
    resumed.run(RunLimits(max_steps=end))
    whole = DenoiserTrainer(tiny(), clips(), tmp_path / "whole")
    whole.run(RunLimits(max_steps=end))
    assert same_weights(whole, resumed)
    assert not list(out.glob(".denoiser_state*"))


@pytest.mark.parametrize("at", range(5))
def test_a_save_cut_off_anywhere_leaves_a_whole_state(at, tmp_path, monkeypatch):
    """Stop at each operation of a save that changes the folder, in order."""
    trainer = DenoiserTrainer(tiny(), clips(), tmp_path)
    trainer.run(RunLimits(max_steps=2, save_every=1))
    calls = iter(range(100))

    class Killed(BaseException):
        pass

    def until(function):
        def call(*args, **kwargs):
            if next(calls) == at:
                raise Killed
            return function(*args, **kwargs)

        return call

    trainer.train_step(1e-3)
    monkeypatch.setattr(checkpoint, "save_file", until(checkpoint.save_file))
    monkeypatch.setattr(os, "replace", until(os.replace))
    with pytest.raises(Killed):
        trainer.save()
    monkeypatch.undo()
    found = DenoiserTrainer(tiny(), clips(), tmp_path)
    assert found.step == (2 if at < 2 else 3)
    assert load_component(tmp_path, "denoiser")[1]["steps"] == found.step


def test_the_last_two_states_are_kept(tmp_path):
    DenoiserTrainer(tiny(), clips(), tmp_path).run(RunLimits(max_steps=5, save_every=1))
    assert states(tmp_path) == [f"{STATE}-0000000{n}.safetensors" for n in (4, 5)]


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, empty, flip])
def test_a_damaged_state_is_named_and_the_one_before_it_taken(damage, tmp_path, caplog):
    DenoiserTrainer(tiny(), clips(), tmp_path).run(RunLimits(max_steps=4, save_every=2))
    damage(tmp_path / f"{STATE}-00000004.safetensors")
    trainer = DenoiserTrainer(tiny(), clips(), tmp_path)
    assert trainer.step == 2
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert f"{STATE}-00000004.safetensors: damaged" in warnings[0]
    assert f"{STATE}-00000002.safetensors: taken in its place" in warnings[1]
    # what the next save keeps is whole, and the damaged file is gone
    trainer.run(RunLimits(max_steps=3))
    assert states(tmp_path) == [f"{STATE}-0000000{n}.safetensors" for n in (2, 3)]


def test_where_no_state_is_whole_the_newest_is_named(tmp_path):
    DenoiserTrainer(tiny(), clips(), tmp_path).run(RunLimits(max_steps=2, save_every=1))
    for path in tmp_path.glob(f"{STATE}*"):
        cut(path)
    with pytest.raises(CheckpointError, match=rf"{STATE}-00000002.*damaged.*nor is an older"):
        DenoiserTrainer(tiny(), clips(), tmp_path)


def as_version_0_1_wrote_it(folder) -> None:
    tensors, facts = load_state(folder, STATE)
    for path in folder.glob(f"{STATE}-*"):
        path.unlink()
    (folder / METRICS).unlink()
    save_component(folder, STATE, tensors, facts)


def test_a_run_of_version_0_1_goes_on(tmp_path):
    whole = DenoiserTrainer(tiny(), clips(), tmp_path / "whole")
    whole.run(RunLimits(max_steps=6))
    old = tmp_path / "old"
    DenoiserTrainer(tiny(), clips(), old).run(RunLimits(max_steps=3))
    as_version_0_1_wrote_it(old)
    (old / "denoiser_log.jsonl").write_text('{"step": 3, "seconds": 1.0, "loss": 0.5}\n')
    trainer = DenoiserTrainer(tiny(), clips(), old)
    assert trainer.step == 3
    trainer.run(RunLimits(max_steps=6, save_every=2))
    assert same_weights(whole, trainer)
    assert [row["step"] for row in read_metrics(old)] == [3, 6]
    # the old pair goes once two new states are there
    assert states(old) == [f"{STATE}-0000000{n}.safetensors" for n in (4, 6)]


def test_the_old_pair_is_one_to_go_back_to(tmp_path):
    DenoiserTrainer(tiny(), clips(), tmp_path).run(RunLimits(max_steps=3))
    as_version_0_1_wrote_it(tmp_path)
    DenoiserTrainer(tiny(), clips(), tmp_path).run(RunLimits(max_steps=4))
    cut(tmp_path / f"{STATE}-00000004.safetensors")
    assert DenoiserTrainer(tiny(), clips(), tmp_path).step == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_and_saves(number, tmp_path):
    trainer = DenoiserTrainer(tiny(), clips(), tmp_path, clips())

    def interrupt(step, loss):
        if step == 3:
            signal.raise_signal(number)

    before = signal.getsignal(number)
    assert trainer.run(RunLimits(max_steps=50), interrupt) == number
    assert signal.getsignal(number) is before
    # it does not stop to evaluate
    assert "held_out_text" not in read_metrics(tmp_path)[-1]
    assert DenoiserTrainer(tiny(), clips(), tmp_path).step == 3


def test_a_state_that_cannot_be_written_is_named_and_the_old_one_stays(tmp_path, monkeypatch):
    save_state(tmp_path, "state", 1, {"a": torch.ones(3)}, {})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(
        OutputError, match=r"state-00000002\.safetensors: cannot be written \(No sp"
    ):
        save_state(tmp_path, "state", 2, {"a": torch.ones(3)}, {})
    assert load_state(tmp_path, "state")[0]["a"].sum() == 3


def test_every_kind_of_tensor_comes_back(tmp_path):
    tensors = {
        "scalar": torch.tensor(2.5),
        "bool": torch.tensor([True, False]),
        "half": torch.arange(6.0).half().reshape(2, 3),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "none": torch.zeros(0, 3),
    }
    save_state(tmp_path, "state", 7, tensors, {"step": 7, "text": "ü"})
    loaded, facts = load_state(tmp_path, "state")
    assert facts == {"step": 7, "text": "ü"}
    for name, value in tensors.items():
        assert torch.equal(loaded[name], value)
    assert load_state(tmp_path, "other") is None


def test_accumulated_parts_take_the_steps_of_whole_batches(tmp_path):
    optimiser = dataclasses.replace(CURVE.optimiser, accumulate=4)
    accumulating = dataclasses.replace(CURVE, optimiser=optimiser)
    whole = losses(DenoiserTrainer(CURVE, clips(), tmp_path / "1"), 12)
    parts = losses(DenoiserTrainer(accumulating, clips(), tmp_path / "4"), 12)
    assert whole[-1] < 0.8 * whole[0]  # the curve has a shape to be compared
    # bfloat16 products are rounded in another order
    assert parts == pytest.approx(whole, rel=0.02)


def test_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path):
    def gradient(parts):
        config = tiny(batch_size=11, accumulate=parts)
        trainer = DenoiserTrainer(config, clips(), tmp_path / f"{parts}")
        trainer._accumulate(trainer.batches.take(0))
        return torch.cat(
            [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
        )

    whole = gradient(1)
    for parts in (3, 11):
        difference = (gradient(parts) - whole).norm() / whole.norm()
        assert difference < 0.01


def test_metrics_are_logged_and_cut_to_where_a_run_goes_on(tmp_path):
    limits = RunLimits(max_steps=8, log_every=2, evaluate_every=4, save_every=4)
    DenoiserTrainer(tiny(), clips(), tmp_path, clips()).run(limits)
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert [("held_out_text" in row) for row in rows] == [False, True, False, True]
    assert all(0.0 <= row["wait_share"] < 1.0 and row["clips_per_second"] > 0 for row in rows)
    (tmp_path / f"{STATE}-00000008.safetensors").unlink()  # killed before it was saved
    DenoiserTrainer(tiny(), clips(), tmp_path).run(dataclasses.replace(limits, max_steps=6))
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert json.loads((tmp_path / "denoiser.json").read_text())["steps"] == 6


@pytest.mark.parametrize("end", [b"3,0.1e-", b"3,1.0,\xff\n", b"three,1.0\n", b"1,2" * 99])
def test_metrics_that_were_cut_off_do_not_stop_a_run(end, tmp_path, caplog):
    DenoiserTrainer(tiny(), clips(), tmp_path).run(RunLimits(max_steps=2, log_every=1))
    with (tmp_path / METRICS).open("ab") as file:
        file.write(end)
    DenoiserTrainer(tiny(), clips(), tmp_path).run(RunLimits(max_steps=3, log_every=1))
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]
    assert "line 4 is no row" in caplog.text


def test_a_file_in_place_of_the_run_is_an_output_error(tmp_path):
    (tmp_path / "run").write_text("in the way")
    trainer = DenoiserTrainer(tiny(), clips(), tmp_path / "run")
    with pytest.raises(OutputError, match="run: cannot be written"):
        trainer.run(RunLimits(max_steps=1))
