"""Bounds-checked access to binary data; whatever lies outside is an ``InputError``."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from clipsynth_rt.errors import InputError

MAX_UNPACKED = 1 << 30
"""Bytes that a compressed container may grow to; a larger one is refused."""

_STEP = 1 << 20


def fields_at(layout: str, data: bytes, offset: int, what: str) -> tuple[Any, ...]:
    """Return the fields that ``struct`` describes by ``layout``.

    Raises:
        InputError: If ``what`` is cut short.
    """
    if offset < 0 or offset + struct.calcsize(layout) > len(data):
        raise InputError(f"{what}: cut short at byte {min(max(offset, 0), len(data))}")
    return struct.unpack_from(layout, data, offset)


def slice_at(data: bytes, offset: int, size: int, what: str) -> bytes:
    """Return ``size`` bytes from ``offset``.

    Raises:
        InputError: If they lie outside of ``data``.
    """
    if offset < 0 or size < 0 or offset + size > len(data):
        raise InputError(f"{what}: {size} bytes at {offset} lie outside of {len(data)}")
    return data[offset : offset + size]


def inflate(data: bytes, window_bits: int, what: str, limit: int = MAX_UNPACKED) -> bytes:
    """Return ``data`` decompressed by zlib, to at most ``limit`` bytes.

    Args:
        data: The compressed bytes; what follows their end is ignored.
        window_bits: As zlib's ``wbits``: 15 for zlib, 31 for gzip.
        what: Named in errors.
        limit: Greatest size.

    Raises:
        InputError: If the data is damaged, cut short or larger than ``limit``.
    """
    stream = zlib.decompressobj(window_bits)
    parts: list[bytes] = []
    total = 0
    try:
        pending = data
        while not stream.eof:
            part = stream.decompress(pending, _STEP)
            pending = stream.unconsumed_tail
            total += len(part)
            if total > limit:
                raise InputError(f"{what}: unpacks to more than {limit} bytes")
            if not part and not pending and not stream.eof:
                raise InputError(f"{what}: compressed data is cut short")
            parts.append(part)
    except zlib.error as error:
        raise InputError(f"{what}: compressed data is damaged ({error})") from error
    return b"".join(parts)


def checked_path(name: str, what: str) -> str:
    """Return ``name`` if it is a relative path that stays below its folder.

    Raises:
        InputError: If it is empty, absolute, or climbs out of its folder.
    """
    parts = name.split("/")
    if not name or "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise InputError(f"{what}: {name!r} is no path below a folder")
    return name


def decoded(raw: bytes, encoding: str, what: str) -> str:
    """Return ``raw`` as text.

    Raises:
        InputError: If it is not text in ``encoding``.
    """
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{what}: a name is not {encoding} ({raw[:40]!r})") from error
