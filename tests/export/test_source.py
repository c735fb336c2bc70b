"""Checkpoints that cannot be exported."""

import json

import pytest

from clipsynth_export.source import load_source
from clipsynth_rt.errors import CheckpointError


@pytest.fixture
def load(checkpoint_copy, sentence_encoder):
    """Load the copy after a change to one part's JSON."""

    def change(part=None, edit=None):
        if part is not None:
            path = checkpoint_copy / f"{part}.json"
            data = json.loads(path.read_text())
            edit(data)
            path.write_text(json.dumps(data))
        return load_source(checkpoint_copy, sentence_encoder=sentence_encoder)

    change.folder = checkpoint_copy
    return change


@pytest.mark.parametrize("part", ["denoiser", "vocoder", "clip"])
def test_missing_and_damaged_parts(load, part):
    path = load.folder / f"{part}.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=f"{part}.safetensors: damaged"):
        load()
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{part}.safetensors: no such file"):
        load()


@pytest.mark.parametrize(
    ("part", "edit", "said"),
    [
        ("denoiser", lambda d: d.pop("mel"), "denoiser.json: mel is missing"),
        ("denoiser", lambda d: d["unet"].update(widht=3), "unet.widht: unknown key"),
        ("denoiser", lambda d: d["unet"].update(channels=[8, 24]), "in this configuration"),
        ("denoiser", lambda d: d["mel"].update(n_mels=80), "unet.n_mels is 16"),
        ("denoiser", lambda d: d["diffusion"].update(frames_multiple=2), "frames_multiple is 4"),
        ("denoiser", lambda d: d["mel"].update(floor=1e-5), "vocoder.json: mel differs"),
        ("vocoder", lambda d: d["vocoder"].update(kind="world"), "'world' is not one of"),
    ],
)
def test_parts_of_another_configuration(load, part, edit, said):
    with pytest.raises(CheckpointError, match=said) as caught:
        load(part, edit)
    assert "\n" not in str(caught.value)


def test_encoder_of_another_size(load, sentence_encoder):
    with pytest.raises(CheckpointError, match="neither a checkpoint folder nor an open_clip"):
        load_source(load.folder, "no-such-model", sentence_encoder=sentence_encoder)


def test_no_folder(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        load_source(tmp_path / "nowhere")
