"""Containers give back what was packed, and refuse what is damaged in one line."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import soundfile

from clipsynth_rt.errors import InputError
from clipsynth_training.data.recordings.containers import (
    fields,
    unpack_c4group,
    unpack_cat,
    unpack_rcc,
    unpack_wad,
)


def test_c4group_gives_files_of_nested_groups_by_path(make_c4group):
    data = make_c4group({"a.txt": b"one", "Sub.ocg": {"b.wav": b"two", "Deep.ocg": {"c": b""}}})
    assert unpack_c4group(data) == {
        "a.txt": b"one",
        "Sub.ocg/b.wav": b"two",
        "Sub.ocg/Deep.ocg/c": b"",
    }


@pytest.mark.parametrize("name", ["../up.wav", "/etc/passwd", "..", "a\\b", ""])
def test_c4group_refuses_paths_outside_of_itself(make_c4group, name):
    with pytest.raises(InputError, match=r"named|no path"):
        unpack_c4group(make_c4group({name: b"x"}))


def test_c4group_refuses_groups_that_lie_too_deep(make_c4group):
    files = {"end": b""}
    for _ in range(20):
        files = {"Sub.ocg": files}
    with pytest.raises(InputError, match="deep"):
        unpack_c4group(make_c4group(files))


@pytest.mark.parametrize("revision", [True, False])
def test_cat_gives_its_wave_files(make_cat, wave, revision):
    sounds = [wave(np.full(count, 0.5)) for count in (10, 400)]
    assert unpack_cat(make_cat(*sounds, new=revision)) == {"00.wav": sounds[0], "01.wav": sounds[1]}


def test_wad_gives_sounds_without_padding_and_skips_what_is_none(make_wad, make_lump):
    samples = bytes([0, 64, 128, 192, 255])
    sounds = unpack_wad(
        make_wad({"PLAYPAL": b"abc", "DSPISTOL": make_lump(samples), "DSEMPTY": bytes(4)})
    )
    assert list(sounds) == ["DSPISTOL.wav"]
    read, rate = soundfile.read(io.BytesIO(sounds["DSPISTOL.wav"]))
    assert rate == 11025
    np.testing.assert_allclose(read, (np.frombuffer(samples, np.uint8) - 128.0) / 128)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("flags", [0, 1])
def test_rcc_gives_files_of_every_version(make_rcc, version, flags):
    data = make_rcc("sounds", {"ä.wav": b"x" * 1000, "b.ogg": b""}, version, flags)
    assert unpack_rcc(data) == {"sounds/ä.wav": b"x" * 1000, "sounds/b.ogg": b""}


def test_rcc_refuses_zstandard_an_unknown_version_and_foreign_paths(make_rcc):
    with pytest.raises(InputError, match="Zstandard"):
        unpack_rcc(make_rcc("a", {"b": b"c"}, flags=4))
    with pytest.raises(InputError, match="version 9"):
        unpack_rcc(b"qres" + struct.pack(">I", 9) + bytes(40))
    with pytest.raises(InputError, match="no path"):
        unpack_rcc(make_rcc("..", {"b": b"c"}))


def test_rcc_refuses_a_tree_with_a_loop(make_rcc):
    data = bytearray(make_rcc("a", {"b": b"c"}))
    struct.pack_into(">I", data, 20 + 22 + 10, 1)  # the folder's first child is the folder
    with pytest.raises(InputError, match="tree of files is damaged"):
        unpack_rcc(bytes(data))


def test_rcc_refuses_more_than_a_file_says_it_unpacks_to(make_rcc):
    content = b"x" * 100_000
    data = make_rcc("a", {"b": content})
    with pytest.raises(InputError, match="more than 5 bytes"):
        unpack_rcc(data.replace(struct.pack(">I", len(content)), struct.pack(">I", 5)))


def test_inflate_stops_at_its_limit():
    bomb = zlib.compress(bytes(50_000_000))
    with pytest.raises(InputError, match="more than 1000000"):
        fields.inflate(bomb, 15, "bomb", limit=1_000_000)


@pytest.fixture
def packed(make_c4group, make_cat, make_wad, make_lump, make_rcc, wave):
    sound = wave(np.full(50, 0.25))
    return {
        "c4group": (unpack_c4group, make_c4group({"a.wav": sound, "b.ocg": {"c.wav": sound}})),
        "cat": (unpack_cat, make_cat(sound, sound)),
        "wad": (unpack_wad, make_wad({"DSA": make_lump(b"abc"), "DSB": make_lump(b"defg")})),
        "rcc": (unpack_rcc, make_rcc("a", {"b": sound, "c": sound})),
    }


@pytest.mark.parametrize("kind", ["c4group", "cat", "wad", "rcc"])
def test_damage_ends_in_input_error_or_files(packed, kind):
    unpack: Callable[[bytes], dict[str, bytes]]
    unpack, whole = packed[kind]
    for junk in (b"", b"\0" * 64, b"RIFF" + bytes(100), whole[::-1]):
        with pytest.raises(InputError):
            unpack(junk)
    with pytest.raises(InputError):
        unpack(whole[: len(whole) // 2])
    rng = np.random.default_rng(0)
    refused = []
    for _ in range(300):
        damaged = bytearray(whole)
        for at in rng.integers(0, min(len(whole), 120), 2):
            damaged[at] = rng.integers(256)
        try:
            files = unpack(bytes(damaged))
        except InputError as error:
            refused.append(str(error))
        else:
            assert all(".." not in name.split("/") for name in files)
    assert len(refused) > 20
    assert "\n" not in "".join(refused)
