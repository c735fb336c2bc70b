"""Sounds and lists that users bring: whatever is in them, an answer or one line."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsynth_rt.audio.clip import FORMATS, AudioClip
from clipsynth_rt.audio.load import load_sound
from clipsynth_rt.audio.provenance import read_tag
from clipsynth_rt.errors import InputError
from clipsynth_rt.jobs.csv_rows import COLUMNS, read_rows

pytest.importorskip("soundfile")


def sound(format: str) -> bytes:
    noise = np.random.Generator(np.random.Philox(2)).normal(0, 0.1, 4000)
    return AudioClip(noise.astype(np.float32), 22050, query="drum", seed=3).encode(format)


SOUNDS = {format: sound(format) for format in FORMATS}


@given(data=st.data())
def test_a_damaged_sound(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = bytearray(SOUNDS[data.draw(st.sampled_from(sorted(SOUNDS)))])
    # most of what a parser can trip over stands in front
    places = st.integers(0, 60) | st.integers(0, len(content) - 1)
    for at in data.draw(st.lists(places, max_size=8)):
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path = tmp_path_factory.mktemp("sound") / "sound"
    path.write_bytes(content)
    try:
        samples = load_sound(path, 22050, 10.0)
    except InputError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
    else:
        assert samples.ndim == 1
        assert samples.dtype == np.float32
        assert len(samples) <= 10 * 22050 + 1
        assert np.isfinite(samples).all()
    try:
        tag = read_tag(path)
    except InputError as error:
        assert str(path) in str(error)
        return
    assert tag is None or isinstance(tag, dict)


@given(st.binary(max_size=100) | st.sampled_from([b"query\n" + b"\0", b"query\n\xff", b'query\n"']))
def test_a_list_of_any_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("list") / "list.csv"
    path.write_bytes(content)
    try:
        rows = read_rows(path)
    except InputError as error:
        assert str(path) in str(error)
        return
    assert rows


@given(
    st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=5, unique=True),
    st.lists(
        st.lists(
            st.text(max_size=6)
            | st.sampled_from(["nan", "-1", "1e999", "9" * 5000, "../x.wav", "/etc/x.wav", "yes"]),
            max_size=6,
        ),
        max_size=3,
    ),
)
def test_a_list_with_any_cells(
    tmp_path_factory: pytest.TempPathFactory, columns: list[str], lines: list[list[str]]
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["query", *(c for c in columns if c != "query")], *lines])
    folder: Path = tmp_path_factory.mktemp("list")
    path = folder / "list.csv"
    path.write_text(text.getvalue(), encoding="utf-8", errors="replace", newline="")
    try:
        rows = read_rows(path)
    except InputError as error:
        assert "\n" not in str(error)
        return
    for row in rows:
        # a result never lands outside the folder of the results
        assert row.error or (folder / row.file).resolve().is_relative_to(folder.resolve())
