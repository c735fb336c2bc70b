"""Shard folders: what is written is read back, and damage is named."""

import copy
import dataclasses
import json

import numpy as np
import pytest

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.errors import DataError, OutputError
from clipsynth_training.data import shards as shards_module
from clipsynth_training.data.shards import ShardSet, ShardWriter, to_int16

M, F, K, S, T = 8, 6, 2, 4, 1536
SPEC = MelSpec()


def clips(first: int, count: int):
    rng = np.random.default_rng(first)
    return (
        [f"clip{number}" for number in range(first, first + count)],
        rng.normal(size=(count, M, F)).astype(np.float16),
        rng.integers(0, 256, (count, K, S, S, 3), dtype=np.uint8),
        rng.integers(-32768, 32768, (count, T)).astype(np.int16),
    )


def write(folder, groups=((0, 3), (3, 2), (5, 4)), shard_size=4):
    writer = ShardWriter(folder, SPEC, shard_size)
    for group in groups:
        writer.add(*clips(*group))
    writer.flush()
    return [np.concatenate(part) for part in zip(*(clips(*g) for g in groups), strict=True)]


def test_rows_come_back_in_order_from_every_shard(tmp_path):
    ids, mel, frames, audio = write(tmp_path)
    opened = ShardSet.open(tmp_path, SPEC)
    assert opened.ids == list(ids)
    assert len(opened) == 9
    assert len(list(tmp_path.glob("shard-*.safetensors"))) == 2
    np.testing.assert_array_equal(opened.mels(), mel)
    np.testing.assert_array_equal(opened.frames(), frames)
    np.testing.assert_array_equal(opened.audio(), audio)
    rows = [8, 0, 4, 4, -1]
    np.testing.assert_array_equal(opened.audio(rows), audio[rows])
    np.testing.assert_array_equal(opened.mels(6), mel[6])
    assert opened.frames([]).shape == (0, K, S, S, 3)
    with pytest.raises(IndexError, match="of 9"):
        opened.mels([9])


def test_a_copy_for_another_process_opens_its_own_files(tmp_path):
    _, mel, _, _ = write(tmp_path)
    opened = ShardSet.open(tmp_path)
    assert opened._handle.cache_info().currsize
    other = copy.copy(opened)
    assert not other._handle.cache_info().currsize
    np.testing.assert_array_equal(other.mels(3), mel[3])


def test_clips_of_one_call_stay_together(tmp_path):
    write(tmp_path, groups=((0, 3), (3, 3)), shard_size=4)
    index = json.loads((tmp_path / "shards.json").read_text())
    assert [len(shard["ids"]) for shard in index["shards"]] == [6]


def test_writer_goes_on_where_the_last_run_stopped(tmp_path):
    first = ShardWriter(tmp_path, SPEC, 4)
    first.add(*clips(0, 4))
    first.add(*clips(4, 2))  # never flushed: the run was killed here
    (tmp_path / "shard-00001.safetensors").write_bytes(b"of a run killed before the index")
    second = ShardWriter(tmp_path, SPEC, 4)
    assert second.done == {"clip0", "clip1", "clip2", "clip3"}
    second.add(*clips(4, 2))
    second.flush()
    opened = ShardSet.open(tmp_path)
    assert opened.ids == [f"clip{number}" for number in range(6)]
    np.testing.assert_array_equal(opened.audio([4, 5]), clips(4, 2)[3])


def test_an_id_twice_or_another_size_is_refused(tmp_path):
    writer = ShardWriter(tmp_path, SPEC)
    writer.add(*clips(0, 2))
    with pytest.raises(DataError, match="'clip1' is there already"):
        writer.add(*clips(1, 1))
    ids, mel, frames, audio = clips(7, 1)
    with pytest.raises(DataError, match="'clip7' has sizes"):
        writer.add(ids, mel[:, :, :3], frames, audio)


@pytest.mark.parametrize("begin", [ShardSet.open, ShardWriter])
def test_another_mel_spec_is_named(tmp_path, begin):
    write(tmp_path)
    other = dataclasses.replace(SPEC, hop_length=512)
    with pytest.raises(DataError, match=r"mel\.hop_length is 256, this run needs 512"):
        begin(tmp_path, other)


def test_missing_folder_and_missing_shard_are_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing/shards\.json.*clipsynth-rt data prepare"):
        ShardSet.open(tmp_path / "nothing")
    write(tmp_path)
    (tmp_path / "shard-00001.safetensors").unlink()
    with pytest.raises(DataError, match=r"shard-00001\.safetensors: missing or damaged"):
        ShardSet.open(tmp_path)


def test_cut_or_exchanged_shard_is_named(tmp_path):
    write(tmp_path)
    first, second = (tmp_path / f"shard-0000{number}.safetensors" for number in (0, 1))
    whole = second.read_bytes()
    second.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"shard-00001\.safetensors: missing or damaged"):
        ShardSet.open(tmp_path)
    second.write_bytes(first.read_bytes())
    with pytest.raises(DataError, match=r"shard-00001\.safetensors: mel is .*shards\.json says"):
        ShardSet.open(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda text: text[:40], lambda text: text.replace('"sizes"', '"size"')]
)
def test_damaged_index_is_named(tmp_path, damage):
    write(tmp_path)
    index = tmp_path / "shards.json"
    index.write_text(damage(index.read_text()))
    with pytest.raises(DataError, match=r"shards\.json: damaged"):
        ShardSet.open(tmp_path)


def test_format_of_another_version_is_refused(tmp_path):
    write(tmp_path)
    index = tmp_path / "shards.json"
    index.write_text(index.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(DataError, match="format 2, not 1"):
        ShardSet.open(tmp_path)


def test_full_disk_leaves_no_half_shard(tmp_path, monkeypatch):
    def full(tensors, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    writer = ShardWriter(tmp_path, SPEC)
    writer.add(*clips(0, 2))
    monkeypatch.setattr(shards_module, "save_file", full)
    with pytest.raises(OutputError, match="No space left on device"):
        writer.flush()
    assert list(tmp_path.iterdir()) == []


def test_full_scale_does_not_wrap():
    audio = to_int16(np.array([1.0, -1.0, 0.5, 2.0], np.float32))
    assert audio.tolist() == [32767, -32767, 16384, 32767]
