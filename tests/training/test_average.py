"""Checkpoints of one run are averaged, and of others refused."""

import sys

import pytest
import torch

from clipsynth_rt.errors import CheckpointError
from clipsynth_training.checkpoint import load_component, save_component
from clipsynth_training.run.average import average
from clipsynth_training.run.average import main as average_main
from clipsynth_training.run.ship import main as ship_main


def test_weights_are_averaged_and_their_steps_kept(tmp_path):
    for steps, value in ((10, 1.0), (30, 4.0)):
        facts = {"steps": steps, "distilled_steps": [2]}
        save_component(tmp_path / str(steps), "net", {"w": torch.full((2,), value)}, facts)
    average("net", [tmp_path / "10", tmp_path / "30"], tmp_path / "out")
    tensors, facts = load_component(tmp_path / "out", "net")
    assert tensors["w"].tolist() == [2.5, 2.5]
    assert facts == {"steps": 30, "distilled_steps": [2], "average_of_steps": [10, 30]}


def test_networks_of_other_shapes_are_refused(tmp_path):
    save_component(tmp_path / "a", "net", {"w": torch.zeros(2)}, {})
    save_component(tmp_path / "b", "net", {"w": torch.zeros(3)}, {})
    with pytest.raises(CheckpointError, match="net is of another shape"):
        average("net", [tmp_path / "a", tmp_path / "b"], tmp_path / "out")


@pytest.mark.parametrize("command", [average_main, ship_main])
def test_a_command_that_finds_nothing_says_so_in_a_line(tmp_path, monkeypatch, capsys, command):
    part = ["denoiser"] if command is average_main else []
    out = ["--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["mean", *part, str(tmp_path / "none"), *out])
    with pytest.raises(SystemExit) as stop:
        command()
    assert stop.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith("mean: ")
    assert told.count("\n") == 1
