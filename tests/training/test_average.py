"""Checkpoints of one run are averaged, and of others refused."""

import pytest
import torch

from clipsynth_rt.errors import CheckpointError
from clipsynth_rt.training.average import average
from clipsynth_rt.training.checkpoint import load_part, save_part


def test_weights_are_averaged_and_their_steps_kept(tmp_path):
    for steps, value in ((10, 1.0), (30, 4.0)):
        facts = {"steps": steps, "distilled_steps": [2]}
        save_part(tmp_path / str(steps), "net", {"w": torch.full((2,), value)}, facts)
    average("net", [tmp_path / "10", tmp_path / "30"], tmp_path / "out")
    tensors, facts = load_part(tmp_path / "out", "net")
    assert tensors["w"].tolist() == [2.5, 2.5]
    assert facts == {"steps": 30, "distilled_steps": [2], "average_of_steps": [10, 30]}


def test_networks_of_other_shapes_are_refused(tmp_path):
    save_part(tmp_path / "a", "net", {"w": torch.zeros(2)}, {})
    save_part(tmp_path / "b", "net", {"w": torch.zeros(3)}, {})
    with pytest.raises(CheckpointError, match="net is of another shape"):
        average("net", [tmp_path / "a", tmp_path / "b"], tmp_path / "out")
