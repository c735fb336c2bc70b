"""What a step trains on: of the seed and the step alone, from memory or from the disk."""

import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parent))
from denoiser_for_tests import clips, losses, tiny

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.errors import DataError, InputError
from clipsynth_training.data import shards as shards_module
from clipsynth_training.data.shards import ShardSet, ShardWriter
from clipsynth_training.data.streaming import StreamedMels
from clipsynth_training.denoiser.batches import Batches
from clipsynth_training.denoiser.train import DenoiserTrainer
from clipsynth_training.run.prefetch import PREFETCH
from clipsynth_training.run.trainer import RunLimits


@pytest.fixture
def streamed(tmp_path, monkeypatch):
    """Return the clips of ``clips``, streamed from six shards of which two may be open at once."""
    monkeypatch.setattr(shards_module, "OPEN", 2)
    data = clips()
    writer = ShardWriter(tmp_path / "shards", MelSpec(n_mels=16), shard_size=2)
    for number, mel in enumerate(data.mels.numpy()):
        frames = np.zeros((1, 0, 1, 1, 3), np.uint8)
        writer.add([f"clip{number}"], mel[None], frames, np.zeros((1, 8), np.int16))
    writer.flush()
    return dataclasses.replace(data, mels=StreamedMels(ShardSet.open(tmp_path / "shards")))


def same(one, other):
    names = ("mel", "condition", "t", "noise")
    return all(torch.equal(getattr(one, n), getattr(other, n)) for n in names)


def test_streamed_batches_are_those_in_memory_in_any_order(streamed):
    memory, disk = Batches(tiny(), clips()), Batches(tiny(), streamed)
    for step in (0, 1, 2, 3, 9, 1, 10, 40):
        assert same(disk.take(step), memory.take(step))
        assert len(disk._ahead._ahead) <= PREFETCH
    assert len({path.name for path in streamed.mels._shards.files}) == 6
    assert streamed.mels._shards._handle.cache_info().currsize == 2
    disk.close()


def test_batches_drawn_ahead_are_the_same_and_can_be_taken_after_a_stop():
    plain, ahead = Batches(tiny(), clips()), Batches(tiny(), clips(), ahead=True)
    for step in (0, 1, 5):
        assert same(ahead.take(step), plain.take(step))
    ahead.close()
    assert same(ahead.take(6), plain.take(6))
    ahead.close()


def test_an_epoch_holds_every_clip_once_in_an_order_of_its_own():
    batches = Batches(tiny(batch_size=4), clips())
    epochs = [torch.cat([batches._indices(3 * e + s) for s in range(3)]) for e in range(2)]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(12))
    assert not torch.equal(*epochs)


def test_training_from_the_disk_is_training_from_memory_and_resumes(streamed, tmp_path):
    whole = losses(DenoiserTrainer(tiny(), clips(), tmp_path / "memory"), 8)
    first = losses(DenoiserTrainer(tiny(), streamed, tmp_path / "disk"), 5)
    second = losses(DenoiserTrainer(tiny(), streamed, tmp_path / "disk"), 8)
    assert first + second == whole


def test_processes_share_what_one_would_train_on():
    config = tiny(batch_size=7)
    whole = Batches(config, clips()).take(5)
    shares = [Batches(config, clips(), rank, 3).take(5) for rank in range(3)]
    assert [len(share) for share in shares] == [3, 2, 2]
    assert sum(share.weight for share in shares) == pytest.approx(3.0)
    for rank, share in enumerate(shares):
        for name in ("mel", "condition", "t", "noise"):
            assert torch.equal(getattr(share, name), getattr(whole, name)[rank::3])
    with pytest.raises(InputError, match="7 clips cannot be shared by 8 processes"):
        Batches(config, clips(), 0, 8)


def test_parts_of_a_batch_weigh_what_they_hold():
    batch = Batches(tiny(batch_size=7), clips()).take(0)
    parts = list(batch.split(3))
    assert [len(part) for part in parts] == [3, 3, 1]
    assert sum(part.weight for part in parts) == pytest.approx(1.0)
    assert torch.equal(torch.cat([part.mel for part in parts]), batch.mel)
    assert len(list(batch.split(100))) == 7


def test_waiting_for_the_disk_is_measured(streamed):
    class Slow:
        shape = streamed.mels.shape

        def __getitem__(self, index):
            time.sleep(0.02)
            return streamed.mels[index]

    batches = Batches(tiny(), dataclasses.replace(streamed, mels=Slow()))
    batches.take(0)
    assert batches.wait_s >= 0.02
    waited = batches.wait_s
    time.sleep(0.2)  # as long as a step takes
    batches.take(1)
    assert batches.wait_s - waited < 0.02
    batches.close()


def test_a_shard_that_is_lost_on_the_way_is_named(streamed, tmp_path):
    trainer = DenoiserTrainer(tiny(), streamed, tmp_path / "run")
    for path in streamed.mels._shards.files:
        path.unlink()
    with pytest.raises(DataError, match=r"shard-0000\d\.safetensors: missing or damaged"):
        trainer.run(RunLimits(max_steps=3))
