"""Few-shot fine-tuning: sounds and their names, a short run, a checkpoint that export takes."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from clipsynth_export.source import load_source
from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.cli.main import main
from clipsynth_rt.errors import CheckpointError, DataError, InputError
from clipsynth_training.checkpoint import load_component
from clipsynth_training.clip import encoder as clip_module
from clipsynth_training.clip.encoder import load_clip
from clipsynth_training.data.clips import CutSpec
from clipsynth_training.data.shards import ShardWriter
from clipsynth_training.data.sound_folder import name_of, read_sounds
from clipsynth_training.denoiser.conditions import ConditionedMels
from clipsynth_training.denoiser.config import TrainConfig
from clipsynth_training.denoiser.finetune import finetune, new_clips, read_replay, with_replay
from clipsynth_training.denoiser.held_out import held_out_losses
from clipsynth_training.denoiser.unet import UNet


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors gain nothing from more, and waiting threads take the machine's time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


CUT = CutSpec(mel=MelSpec(n_mels=16), num_frames=32, hop_frames=32, min_seconds=0.05)


@pytest.fixture
def sounds(tmp_path):
    """Three sounds of two names, of other rates and formats, and what is none."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "sounds"
    (folder / "rain").mkdir(parents=True)
    tone = np.sin(np.arange(16000) / 16000 * 440 * 2 * np.pi)
    soundfile.write(folder / "my_drum-1.wav", 0.5 * tone[:5000], 16000)
    soundfile.write(folder / "my drum (2).flac", np.stack([tone, tone], 1), 16000)
    soundfile.write(folder / "rain" / "01.ogg", 0.1 * rng.standard_normal(22050), 44100)
    (folder / "readme.txt").write_text("not a sound")
    return folder


@pytest.fixture
def encoder(checkpoint, sentence_encoder):
    return load_clip(checkpoint, model_dir=sentence_encoder)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("dog_barking-2.wav", "dog barking"),
        ("My Doorbell (3).mp3", "My Doorbell"),
        ("kick 808 01.wav", "kick"),
        ("rain/007.wav", "rain"),
        ("hi-hat.wav", "hi-hat"),
        ("12.wav", ""),
    ],
)
def test_names_from_files(path, name):
    assert name_of(Path(path)) == name


def test_sounds_of_any_format_become_clips(sounds, caplog):
    read = read_sounds(sounds, CUT)
    # the second is a second long, which is two whole clips and a rest
    assert read.names == ("my drum", "my drum", "my drum", "rain")
    assert read.mels.shape == (4, 16, 32)
    assert np.isfinite(read.mels.astype(np.float32)).all()
    assert not caplog.records


def test_files_that_are_no_sound_are_named_and_left_out(sounds, caplog):
    (sounds / "broken.wav").write_bytes(b"RIFF and nothing")
    soundfile.write(sounds / "silence.wav", np.zeros(9000), 16000)
    soundfile.write(sounds / "click.wav", np.ones(20), 16000)
    soundfile.write(sounds / "7.wav", np.ones(9000), 16000)
    assert set(read_sounds(sounds, CUT).names) == {"my drum", "rain"}
    lines = sorted(r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    assert [Path(line.partition(":")[0]).name for line in lines] == [
        "7.wav", "broken.wav", "click.wav", "silence.wav",
    ]  # fmt: skip
    for line, reason in zip(
        lines, ("name is empty", "decoded", "too short", "silent"), strict=True
    ):
        assert reason in line
        assert "\n" not in line


def test_a_csv_names_files(sounds, tmp_path, caplog):
    names = tmp_path / "names.csv"
    names.write_text("file,name\nrain/01.ogg,light drizzle\nnowhere.wav,ghost\n", "utf-8")
    assert set(read_sounds(sounds, CUT, names).names) == {"light drizzle"}
    assert "nowhere.wav: left out: cannot be decoded" in caplog.text
    for content, message in (
        ("path,label\n", "needs the columns file and name"),
        ("file,name\n", "lists no files"),
        (b"\xff\xfe\x00", "cannot be read"),
    ):
        names.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(DataError, match=message):
            read_sounds(sounds, CUT, names)


def test_a_folder_without_sounds_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        read_sounds(tmp_path / "none", CUT)
    with pytest.raises(DataError, match="no sounds in it"):
        read_sounds(tmp_path, CUT)
    (tmp_path / "a.wav").write_bytes(b"")
    with pytest.raises(DataError, match="none of its 1 files"):
        read_sounds(tmp_path, CUT)


def loss_of(folder, data):
    tensors, facts = load_component(folder, "denoiser")
    config = TrainConfig.from_dict(
        {key: facts[key] for key in ("unet", "mel", "diffusion", "optimiser")}
    )
    unet = UNet(config.unet)
    unet.load_state_dict({k: v.float() for k, v in tensors.items()})
    return held_out_losses(unet.eval(), data, config, torch.device("cpu"))["held_out_text"]


def test_a_voice_learns_and_can_be_exported(
    sounds, checkpoint, encoder, sentence_encoder, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    report = finetune(
        sounds, out, checkpoint, encoder, steps=20, learning_rate=1e-2, samples_every=10
    )
    assert report.names == ("my drum", "rain")
    assert (report.clips, report.step, report.stopped_by) == (4, 20, None)
    read = read_sounds(sounds, CUT)
    data = new_clips(read, report.names, encoder)
    assert loss_of(out, data) < 0.8 * loss_of(checkpoint, data)
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before
    made = load_source(out, sentence_encoder=sentence_encoder)
    assert made.facts["labels"] == ["my drum", "rain"]
    assert made.facts["steps"] == 20
    # what was measured and said of the old voice is not claimed of the new one
    assert not (out / "metrics.json").exists()
    assert not (out / "MODEL_CARD.md").exists()
    assert len(list((out / "samples").glob("*.png"))) == 2
    monkeypatch.setattr(clip_module, "load_clip", lambda *_: encoder)
    options = ("--checkpoint", str(checkpoint), "--out", str(out), "--steps", "21")
    again = CliRunner().invoke(main, ["train", "finetune", str(sounds), *options])
    assert again.exit_code == 0, again.output
    assert "learnt my drum, rain from 4 clips" in again.output
    assert "denoiser at step 21" in again.output
    # a kill between state and part leaves a run that goes on
    for path in out.glob("denoiser.*"):
        path.unlink()
    assert finetune(sounds, out, checkpoint, encoder, steps=22, samples_every=0).step == 22
    # a run that is finished would learn nothing of a sound that came later
    soundfile.write(sounds / "horn.wav", np.random.default_rng(3).normal(0, 0.1, 9000), 16000)
    with pytest.raises(InputError, match=r"was taught other sounds \(my drum, rain\)"):
        finetune(sounds, out, checkpoint, encoder, steps=23, samples_every=0)
    assert load_component(out, "denoiser")[1]["labels"] == ["my drum", "rain"]


def test_an_epoch_holds_as_many_new_clips_as_old_ones():
    def clips(count, labels, phrasings, value):
        return ConditionedMels(
            torch.full((count, 2, 4), value).half(),
            torch.ones(count, 1, 3),
            torch.ones(count, dtype=torch.bool),
            torch.full((max(labels) + 1, phrasings, 3), value),
            torch.tensor(labels),
        )

    new, old = clips(3, [0, 1, 1], 2, 1.0), clips(7, [0, 1, 2, 0, 1, -1, 2], 5, 2.0)
    mixed = with_replay(new, old)
    indices = mixed.usable("text")
    assert sorted(indices.tolist()) == sorted([0, 1, 2] * 2 + [3, 4, 5, 6, 7, 9])
    drawn = mixed.conditions(indices, "text", torch.Generator().manual_seed(0))
    # each clip is asked for by its own texts
    assert torch.equal(drawn[:, 0], mixed.mels[indices, 0, 0].float())
    assert mixed.text.shape == (5, 5, 3)
    with pytest.raises(DataError, match="labels"):
        with_replay(new, dataclasses.replace(old, label=torch.full((7,), -1)))


def test_old_clips_are_mixed_in(sounds, checkpoint, encoder, tmp_path):
    writer = ShardWriter(tmp_path / "shards", CUT.mel)
    mel = np.random.default_rng(1).standard_normal((6, 16, 32))
    ids = [f"id{i}" for i in range(6)]
    writer.add(ids, mel, np.zeros((6, 0, 1, 1, 3), np.uint8), np.zeros((6, 8), np.int16))
    writer.flush()
    labels = tmp_path / "labels.csv"
    labels.write_text("id,concept\n" + "".join(f"{i},piano\n" for i in ids))
    out, shards = tmp_path / "run", tmp_path / "shards"
    report = finetune(
        sounds,
        out,
        checkpoint,
        encoder,
        replay=shards,
        labels_csv=labels,
        steps=1,
        samples_every=0,
    )
    assert report.clips == 4
    assert load_component(out, "denoiser")[1]["optimiser"]["learning_rate"] == 3e-4
    some = read_replay(shards, labels, encoder, CUT.mel, 3)
    np.testing.assert_array_equal(some.mels.numpy(), mel[[0, 2, 5]].astype(np.float16))
    kinds = "".join(f"{name},piano,{'note' if name == 'id1' else 'hit'}\n" for name in ids)
    labels.write_text("id,concept,kind\n" + kinds)
    assert len(read_replay(shards, labels, encoder, CUT.mel, 9, ("note",))) == 1
    labels.write_text("id,concept\nother,piano\n")
    with pytest.raises(DataError, match="labels no clip"):
        read_replay(shards, labels, encoder, CUT.mel, 3)


def test_what_cannot_be_taught_is_refused(sounds, checkpoint, encoder, tmp_path):
    with pytest.raises(InputError, match="choose another --out"):
        finetune(sounds, checkpoint, checkpoint, encoder)
    with pytest.raises(InputError, match="--replay needs --labels"):
        finetune(sounds, tmp_path / "run", checkpoint, encoder, replay=tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        finetune(sounds, tmp_path / "run", tmp_path, encoder)
    with pytest.raises(CheckpointError, match="condition_dim is 8, and the encoder's"):
        finetune(sounds, tmp_path / "run", checkpoint, dataclasses.replace(encoder, dim=9))
    assert not (tmp_path / "run").exists()
