"""The serial number of an Ogg stream."""

from __future__ import annotations

import struct
import zlib

from clipsynth_rt.errors import OutputError

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_HEADER = 27
"""Bytes of a page before its table of segments."""


def with_serial(data: bytes, serial: int) -> bytes:
    """Return an Ogg file of one stream with another serial number.

    Args:
        data: The file.
        serial: From 0 to 2**32 - 1.

    Raises:
        OutputError: If ``data`` is not made of Ogg pages.

    Source:
        RFC 3533, section 6: the page header, and its checksum over the page with that at zero.
    """
    pages, start = bytearray(data), 0
    while start < len(pages):
        if pages[start : start + 4] != b"OggS" or start + _HEADER > len(pages):
            raise OutputError("libsndfile wrote an Ogg file that is not made of pages")
        segments = pages[start + 26]
        table = pages[start + _HEADER : start + _HEADER + segments]
        end = start + _HEADER + segments + sum(table)
        struct.pack_into("<I", pages, start + 14, serial)
        pages[start + 22 : start + 26] = bytes(4)
        struct.pack_into("<I", pages, start + 22, _checksum(bytes(pages[start:end])))
        start = end
    return bytes(pages)


def _checksum(page: bytes) -> int:
    """Return Ogg's checksum: the polynomial of zlib's, highest bit first, from zero."""
    # zlib works lowest bit first, and inverts at both ends
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
