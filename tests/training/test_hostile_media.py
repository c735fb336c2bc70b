"""Videos, labels and shards that are damaged: counted with a reason, never a crash."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from clipsynth_rt.errors import DataError
from clipsynth_training.data.clips import CutSpec, UnusableError, read_video
from clipsynth_training.denoiser.conditions import read_labels

av = pytest.importorskip("av")
few = hypothesis.settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
CUT = CutSpec(num_frames=88, hop_frames=88, images=2, image_size=16, min_seconds=0.5)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A second of noise and of grey pictures, as a file's bytes."""
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=22050, layout="mono")
        pictures = container.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        for i in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 * i, np.uint8))
            container.mux(pictures.encode(frame))
        noise = np.random.Generator(np.random.Philox(1)).normal(0, 0.1, 26460)
        frame = av.AudioFrame.from_ndarray(noise[None].astype(np.float32), "fltp", "mono")
        frame.sample_rate = 22050
        container.mux(sound.encode(frame))
        for stream in (pictures, sound):
            container.mux(stream.encode(None))
    assert read_video(path, CUT).numbers == [0]
    return path.read_bytes()


@few
@hypothesis.given(st.data())
def test_a_damaged_video(video, tmp_path_factory, data):
    content = bytearray(video)
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=20)):
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path = tmp_path_factory.mktemp("damaged") / "a.mp4"
    path.write_bytes(content)
    try:
        clips = read_video(path, CUT)
    except UnusableError as error:
        assert error.reason
        return
    assert clips.audio.dtype == np.int16
    assert clips.frames.shape[1:] == (2, 16, 16, 3)


@few
@hypothesis.given(
    st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace"))
)
def test_labels_of_any_bytes(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    path.write_bytes(content)
    try:
        labels = read_labels(path)
    except DataError as error:
        assert str(path) in str(error)
        return
    assert all(isinstance(value, str) for value in labels.values())


@few
@hypothesis.given(
    st.lists(st.lists(st.text(max_size=8), max_size=4), max_size=4), st.sampled_from([",", ";"])
)
def test_labels_with_any_rows(tmp_path_factory, rows, comma):
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    lines = ["id,concept", *(comma.join(row) for row in rows)]
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    try:
        labels = read_labels(path)
    except DataError:
        return
    assert all(isinstance(key, str) and isinstance(labels[key], str) for key in labels)
