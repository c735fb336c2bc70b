"""Shipping a voice: halved weights that load as before."""

import pytest
import torch

from clipsynth_rt.errors import CheckpointError
from clipsynth_rt.training.checkpoint import load_part, load_weights, save_part
from clipsynth_rt.training.ship import PARTS, ship


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5))


def test_shipped_weights_load_and_matrices_are_halved(tmp_path):
    for part in PARTS:
        save_part(tmp_path / "run", part, network().state_dict(), {"part": part})
    save_part(tmp_path / "other", "clip", network().state_dict(), {"part": "another"})
    sizes = ship([tmp_path / "run", tmp_path / "other"], tmp_path / "out")
    assert set(sizes) == set(PARTS)
    tensors, facts = load_part(tmp_path / "out", "clip")
    assert facts == {"part": "clip"}
    assert tensors["0.weight"].dtype == torch.float16
    assert tensors["0.bias"].dtype == torch.float32
    fresh = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5))
    load_weights(fresh, tensors, "shipped")
    assert fresh[0].weight.dtype == torch.float32
    torch.testing.assert_close(fresh[0].weight, network()[0].weight, rtol=1e-3, atol=1e-4)


def test_a_voice_needs_no_distilled_denoiser(tmp_path):
    for part in set(PARTS) - {"denoiser_distilled"}:
        save_part(tmp_path / "run", part, network().state_dict(), {})
    assert "denoiser_distilled" not in ship([tmp_path / "run"], tmp_path / "out")
    assert not list((tmp_path / "out").glob("denoiser_distilled*"))


def test_a_missing_part_is_named(tmp_path):
    save_part(tmp_path, "clip", network().state_dict(), {})
    with pytest.raises(CheckpointError, match="denoiser: in none of"):
        ship([tmp_path], tmp_path / "out")


def test_weights_beyond_fp16_are_refused(tmp_path):
    for part in PARTS:
        save_part(tmp_path, part, {"w": torch.full((2, 2), 1e6)}, {})
    with pytest.raises(CheckpointError, match="does not fit fp16"):
        ship([tmp_path], tmp_path / "out")
