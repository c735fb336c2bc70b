"""Shipping a voice: halved weights that load as before."""

import pytest
import torch
from safetensors.torch import load_file

from clipsynth_rt.errors import CheckpointError
from clipsynth_training.checkpoint import load_component, load_weights, save_component
from clipsynth_training.run.ship import PARTS, ship


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5))


def test_shipped_weights_load_and_matrices_are_halved(tmp_path):
    for part in PARTS:
        save_component(tmp_path / "run", part, network().state_dict(), {"part": part})
    save_component(tmp_path / "other", "clip", network().state_dict(), {"part": "another"})
    sizes = ship([tmp_path / "run", tmp_path / "other"], tmp_path / "out")
    assert set(sizes) == set(PARTS)
    tensors, facts = load_component(tmp_path / "out", "clip")
    assert facts == {"part": "clip"}
    assert tensors["0.weight"].dtype == torch.float16
    assert tensors["0.bias"].dtype == torch.float32
    fresh = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5))
    load_weights(fresh, tensors, "shipped")
    assert fresh[0].weight.dtype == torch.float32
    torch.testing.assert_close(fresh[0].weight, network()[0].weight, rtol=1e-3, atol=1e-4)


def test_matrices_of_every_part_are_fp16_and_vectors_stay(tmp_path):
    torch.manual_seed(0)
    tensors = {
        "image_tower.body.wide.weight": torch.randn(64, 320, 1, 1)
        * torch.logspace(-3, 1, 64)[:, None, None, None],
        "image_tower.body.depthwise.weight": torch.randn(2048, 1, 5, 5),
        "image_tower.head.bias": torch.randn(25_600),
        "projection.weight": torch.randn(64, 384),
    }
    for part in PARTS:
        save_component(tmp_path / "run", part, tensors if part == "clip" else {}, {})
    ship([tmp_path / "run"], tmp_path / "out")
    stored = load_file(tmp_path / "out" / "clip.safetensors")
    assert stored.keys() == tensors.keys()
    for name, value in tensors.items():
        kind = torch.float16 if value.ndim > 1 else torch.float32
        assert stored[name].dtype == kind
        error = (stored[name].float() - value).square().mean() / value.square().mean()
        assert error < 1e-7, name
    # stored once more, nothing is lost
    ship([tmp_path / "out"], tmp_path / "again")
    again = load_file(tmp_path / "again" / "clip.safetensors")
    assert all(again[name].equal(value) for name, value in stored.items())


@pytest.mark.parametrize("damage", [b"\xff\xfe{}", b"{", b"[1]", b"3", b"[" * 100_000])
def test_a_part_whose_json_is_no_object_is_named(damage, tmp_path):
    save_component(tmp_path, "clip", {"w": torch.zeros(2)}, {})
    (tmp_path / "clip.json").write_bytes(damage)
    told = r"clip\.json: (damaged|holds no JSON object).*train or copy it again"
    with pytest.raises(CheckpointError, match=told):
        load_component(tmp_path, "clip")


def test_a_voice_needs_no_distilled_denoiser(tmp_path):
    for part in set(PARTS) - {"denoiser_distilled"}:
        save_component(tmp_path / "run", part, network().state_dict(), {})
    assert "denoiser_distilled" not in ship([tmp_path / "run"], tmp_path / "out")
    assert not list((tmp_path / "out").glob("denoiser_distilled*"))


def test_a_missing_part_is_named(tmp_path):
    save_component(tmp_path, "clip", network().state_dict(), {})
    with pytest.raises(CheckpointError, match="denoiser: in none of"):
        ship([tmp_path], tmp_path / "out")


def test_weights_beyond_fp16_are_refused(tmp_path):
    for part in PARTS:
        save_component(tmp_path, part, {"w": torch.full((2, 2), 1e6)}, {})
    with pytest.raises(CheckpointError, match="does not fit fp16"):
        ship([tmp_path], tmp_path / "out")
