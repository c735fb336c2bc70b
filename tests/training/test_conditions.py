"""From shards and labels to what the denoiser trains on."""

import os

import numpy as np
import pytest
import torch

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.errors import DataError, InputError
from clipsynth_training.data.shards import ShardWriter
from clipsynth_training.denoiser.conditions import label_indices, load_conditioned, read_labels

SPEC = MelSpec()
KINDS = ("note", "phrase", "note", "hit", "phrase")


class Encoder:
    """A CLIP whose embedding of a picture is its mean colour."""

    dim, image_size = 3, 4

    def __init__(self):
        self.image_tower, self.seen = torch.nn.Linear(1, 1), 0

    def encode_images(self, images):
        self.seen += len(images)
        return torch.nn.functional.normalize(torch.tensor(images).float().mean(dim=(1, 2)), dim=1)

    def encode_text(self, texts):
        return torch.nn.functional.normalize(torch.ones(len(texts), 3), dim=1)


@pytest.fixture
def corpus(tmp_path):
    rng = np.random.default_rng(0)
    count = len(KINDS)
    writer = ShardWriter(tmp_path / "shards", SPEC)
    writer.add(
        [f"id{i}" for i in range(count)],
        np.arange(count, dtype=np.float16)[:, None, None] * np.ones((1, 8, 6), np.float16),
        rng.integers(1, 256, (count, 2, 4, 4, 3), dtype=np.uint8),
        np.zeros((count, 1536), np.int16),
    )
    writer.flush()
    rows = [f"id{i},{'drum' if i % 2 else 'flute'},{kind}" for i, kind in enumerate(KINDS)]
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["id,concept,kind", *rows]) + "\n")
    return tmp_path / "shards", labels


def test_every_clip_is_kept_unless_kinds_are_named(corpus):
    data = load_conditioned(corpus[0], Encoder(), SPEC, corpus[1])
    assert data.label.tolist() == [1, 0, 1, 0, 1]
    assert len(data) == 5
    assert data.image.shape == (5, 2, 3)


def test_kinds_pick_clips_with_all_that_belongs_to_them(corpus):
    whole = load_conditioned(corpus[0], Encoder(), SPEC, corpus[1])
    some = load_conditioned(corpus[0], Encoder(), SPEC, corpus[1], ("note", "hit"))
    rows = [0, 2, 3]
    assert some.mels[:, 0, 0].tolist() == rows
    assert torch.equal(some.image, whole.image[rows])
    assert torch.equal(some.has_image, whole.has_image[rows])
    assert torch.equal(some.label, whole.label[rows])


def test_kinds_that_no_clip_has_are_named(corpus):
    with pytest.raises(DataError, match="no clip is of kind song; kinds: hit, note, phrase"):
        load_conditioned(corpus[0], Encoder(), SPEC, corpus[1], ("song",))
    with pytest.raises(InputError, match=r"told by labels\.csv"):
        load_conditioned(corpus[0], Encoder(), SPEC, kinds=("note",))


def test_pictures_are_embedded_once(corpus):
    encoder = Encoder()
    first = load_conditioned(corpus[0], encoder, SPEC)
    assert encoder.seen == 10
    again = load_conditioned(corpus[0], encoder, SPEC)
    assert encoder.seen == 10
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.has_image, again.has_image)


def test_another_encoder_or_shard_is_embedded_anew(corpus):
    load_conditioned(corpus[0], Encoder(), SPEC)
    other = Encoder()
    with torch.no_grad():
        other.image_tower.weight += 1.0
    load_conditioned(corpus[0], other, SPEC)
    assert other.seen == 10
    shard = next(corpus[0].glob("shard-*"))
    os.utime(shard, ns=(1, 1))
    load_conditioned(corpus[0], other, SPEC)
    assert other.seen == 20
    kept = next((corpus[0] / "embeddings").rglob("shard-*"))
    kept.write_bytes(kept.read_bytes()[:-7])
    cut = load_conditioned(corpus[0], Encoder(), SPEC)
    assert torch.equal(cut.image, load_conditioned(corpus[0], other, SPEC).image)


def test_embeddings_that_cannot_be_kept_are_warned_of(corpus, caplog):
    (corpus[0] / "embeddings").write_text("in the way")
    data = load_conditioned(corpus[0], Encoder(), SPEC)
    assert data.image.shape == (5, 2, 3)
    assert "embeddings are not kept for the next run" in caplog.text


def test_streamed_clips_are_those_in_memory(corpus):
    for kinds in ((), ("note", "hit")):
        whole = load_conditioned(corpus[0], Encoder(), SPEC, corpus[1], kinds)
        streamed = load_conditioned(corpus[0], Encoder(), SPEC, corpus[1], kinds, stream=True)
        assert streamed.streams
        assert not whole.streams
        assert len(streamed) == len(whole)
        assert streamed.mels.shape == whole.mels.shape
        rows = torch.tensor([2, 0, 2])
        assert torch.equal(streamed.mels[rows], whole.mels[rows])
        assert torch.equal(streamed.mels[1:], whole.mels[1:])
        assert torch.equal(streamed.label, whole.label)


def test_a_corpus_that_crowds_the_memory_is_streamed_by_itself(corpus, monkeypatch):
    assert not load_conditioned(corpus[0], Encoder(), SPEC, stream=None).streams
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 1}.get(name, 900))
    # 5 mels of 8 x 6 in 2 bytes are 480 bytes, more than half of 900
    assert load_conditioned(corpus[0], Encoder(), SPEC, stream=None).streams
    assert not load_conditioned(corpus[0], Encoder(), SPEC, stream=False).streams


def test_an_epoch_holds_emphasised_labels_more_often(corpus):
    data = load_conditioned(corpus[0], Encoder(), SPEC, corpus[1])
    data.oversample({"flute": 3}, ["drum", "flute"])
    assert data.usable("text").tolist() == [0, 0, 0, 1, 2, 2, 2, 3, 4, 4, 4]
    with pytest.raises(InputError, match="gong"):
        data.oversample({"gong": 2}, ["drum", "flute"])


def test_a_label_is_of_its_video_whatever_it_is_called():
    labels = {"clip": "drum", "clip#2.mp4": "flute", "take#1 drum": "drum"}
    ids = ["clip", "clip#3", "clip#2.mp4", "clip#2.mp4#1", "take#1 drum", "take"]
    assert label_indices(ids, labels, ["drum", "flute"]) == [0, 0, 1, 1, 0, -1]


def test_labels_are_read_as_a_spreadsheet_writes_them(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes("id,concept\r\na, drum \r\na,drum\r\n".encode("utf-8-sig"))
    assert read_labels(path) == {"a": "drum"}
    path.write_text("id,concept\na,drum\na,flute\n")
    with pytest.raises(DataError, match="line 3: a is flute here and drum before"):
        read_labels(path)
    path.write_text("id,concept\na, \n")
    with pytest.raises(DataError, match="line 2 has no id or no concept"):
        read_labels(path)
