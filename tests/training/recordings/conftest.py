"""Small made-up containers, written as their formats are described."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clipsynth_training.data.recordings.containers.c4group import IDENTITY, MAGIC, scramble

Files = Mapping[str, "bytes | Files"]


@pytest.fixture
def make_c4group() -> Callable[[Files], bytes]:
    """Pack files and folders as a C4Group file."""

    def group(files: Files) -> bytes:
        header = bytearray(204)
        header[:24] = IDENTITY
        struct.pack_into("<III", header, 28, 1, 2, len(files))
        table, contents = b"", b""
        for name, content in files.items():
            data = content if isinstance(content, bytes) else group(content)
            entry = struct.pack("<260sIIIIII", name.encode(), 0, 0, 0, 0, 0, 0)
            is_group = not isinstance(content, bytes)
            entry = struct.pack(
                "<260sIIIIII", name.encode(), 1, is_group, len(data), 0, len(contents), 0
            )
            table += entry.ljust(316, b"\0")
            contents += data
        return scramble(bytes(header)) + table + contents

    return lambda files: MAGIC + gzip.compress(group(files))[2:]


@pytest.fixture
def make_cat() -> Callable[..., bytes]:
    """Pack WAVE files as a sound bank of OpenTTD."""

    def make(*sounds: bytes, new: bool = True) -> bytes:
        offset, index, body = 8 * len(sounds), b"", b""
        for number, sound in enumerate(sounds):
            name = f"sound {number}\0".encode()
            part = bytes([len(name)]) + name + sound + bytes([4]) + b"end\0"
            index += struct.pack("<II", (offset + len(body)) | (new << 31), len(sound))
            body += part
        return index + body

    return make


@pytest.fixture
def make_wad() -> Callable[[Mapping[str, bytes]], bytes]:
    """Pack lumps as a WAD."""

    def make(lumps: Mapping[str, bytes]) -> bytes:
        body, directory = b"", b""
        for name, lump in lumps.items():
            directory += struct.pack("<II8s", 12 + len(body), len(lump), name.encode())
            body += lump
        return struct.pack("<4sII", b"IWAD", len(lumps), 12 + len(body)) + body + directory

    return make


@pytest.fixture
def make_lump() -> Callable[..., bytes]:
    """Write 8-bit samples as a digital sound of Doom."""

    def make(samples: bytes, rate: int = 11025) -> bytes:
        padded = samples[:1] * 16 + samples + samples[-1:] * 16
        return struct.pack("<HHI", 3, rate, len(padded)) + padded

    return make


@pytest.fixture
def make_rcc() -> Callable[..., bytes]:
    """Pack files of one folder as a Qt resource."""

    def make(folder: str, files: Mapping[str, bytes], version: int = 2, flags: int = 1) -> bytes:
        names, data, nodes = b"", b"", []
        stamp = b"" if version == 1 else bytes(8)

        def name_at(text: str) -> int:
            nonlocal names
            at = len(names)
            names += struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")
            return at

        nodes.append(struct.pack(">IHII", 0, 2, 1, 1) + stamp)
        nodes.append(struct.pack(">IHII", name_at(folder), 2, len(files), 2) + stamp)
        for name, content in files.items():
            packed = content
            if flags & 1:
                packed = struct.pack(">I", len(content)) + zlib.compress(content)
            nodes.append(struct.pack(">IHHHI", name_at(name), flags, 0, 1, len(data)) + stamp)
            data += struct.pack(">I", len(packed)) + packed
        tree = b"".join(nodes)
        head = 20 if version < 3 else 24
        at = (head, head + len(tree), head + len(tree) + len(data))
        header = struct.pack(">4sIIII", b"qres", version, at[0], at[1], at[2]).ljust(head, b"\0")
        return header + tree + data + names

    return make


@pytest.fixture
def wave(tmp_path: Path) -> Callable[..., bytes]:
    """Write samples [T] or [T, C] as a WAVE file."""

    def make(samples: np.ndarray, rate: int = 44100, subtype: str = "FLOAT") -> bytes:
        path = tmp_path / "made.wav"
        soundfile.write(path, samples, rate, subtype=subtype)
        return path.read_bytes()

    return make
