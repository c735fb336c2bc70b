"""C4Group, the archive of Clonk and OpenClonk (``.ocg``, ``.ocd``, ``.c4d``).

A group is a header of 204 bytes, a table of entries of 316 bytes and the contents. The file is
compressed by gzip with its two magic bytes changed; a group inside a group is not. The header is
scrambled: every byte is XORed with 237, and the first and third of each three bytes are swapped.

Source:
    The description of the format in OpenClonk's developer documentation (C4Group).
"""

from __future__ import annotations

from clipsynth_rt.errors import InputError
from clipsynth_training.data.recordings.containers.fields import (
    checked_path,
    decoded,
    fields_at,
    inflate,
    slice_at,
)

MAGIC = b"\x1e\x8c"  # instead of gzip's 1f 8b
IDENTITY = b"RedWolf Design GrpFolder"
HEADER_SIZE = 204
ENTRY_SIZE = 316

_KEY = 237
_NUM_ENTRIES_AT = 36
_MAX_ENTRIES = 100_000
_MAX_DEPTH = 16
_ENTRY = "<260s4xIII I"  # file name, (packed), is a group, size, (reserved), offset


def unpack_c4group(data: bytes, what: str = "C4Group") -> dict[str, bytes]:
    """Return the files of a group by path; files of child groups lie below the child's name.

    Args:
        data: The whole file.
        what: Named in errors.

    Raises:
        InputError: If it is not a C4Group file, is damaged or names a path outside of itself.
    """
    if data[:2] != MAGIC:
        raise InputError(f"{what}: not a C4Group file")
    files: dict[str, bytes] = {}
    _read_group(inflate(b"\x1f\x8b" + data[2:], 31, what), "", files, what, 0)
    return files


def _read_group(data: bytes, prefix: str, files: dict[str, bytes], what: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise InputError(f"{what}: groups lie more than {_MAX_DEPTH} deep")
    header = scramble(slice_at(data, 0, HEADER_SIZE, what))
    if not header.startswith(IDENTITY):
        raise InputError(f"{what}: {prefix or 'the file'} has no group header")
    (count,) = fields_at("<I", header, _NUM_ENTRIES_AT, what)
    if count > _MAX_ENTRIES:
        raise InputError(f"{what}: {count} entries are too many")
    contents_at = HEADER_SIZE + count * ENTRY_SIZE
    for index in range(count):
        at = HEADER_SIZE + index * ENTRY_SIZE
        slice_at(data, at, ENTRY_SIZE, what)
        raw, is_group, size, _, offset = fields_at(_ENTRY, data, at, what)
        name = decoded(raw.split(b"\0", 1)[0], "utf-8", what)
        if "/" in name:
            raise InputError(f"{what}: an entry is named {name!r}")
        path = checked_path(prefix + name, what)
        content = slice_at(data, contents_at + offset, size, f"{what}: {path}")
        if is_group:
            _read_group(content, f"{path}/", files, what, depth + 1)
        else:
            files[path] = content


def scramble(header: bytes) -> bytes:
    """Return a header unscrambled, or scrambled: the operation is its own inverse."""
    out = bytearray(byte ^ _KEY for byte in header)
    for at in range(0, len(out) - 2, 3):
        out[at], out[at + 2] = out[at + 2], out[at]
    return bytes(out)
