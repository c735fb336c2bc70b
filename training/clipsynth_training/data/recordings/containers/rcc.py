"""Binary resources of Qt (``.rcc``), as rcc writes them with ``--binary``.

The header ``qres`` names a version and where a tree, the data and the names lie. A node of the tree
is a folder (number of children, index of the first) or a file (offset of its data). All numbers are
big-endian; names are UTF-16.

Source:
    The Qt Resource System, and the layout in Qt's ``qresource.cpp`` and ``rcc.cpp``.
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

_VERSIONS = (1, 2, 3)
_COMPRESSED, _FOLDER, _COMPRESSED_ZSTD = 1, 2, 4
_MAX_NODES = 100_000


def unpack_rcc(data: bytes, what: str = "Qt resource") -> dict[str, bytes]:
    """Return the files of a Qt resource by path.

    Raises:
        InputError: If it is not a Qt resource, is damaged, or uses Zstandard.
    """
    magic, version, tree_at, data_at, names_at = fields_at(">4sIIII", data, 0, what)
    if magic != b"qres":
        raise InputError(f"{what}: not a Qt resource")
    if version not in _VERSIONS:
        raise InputError(f"{what}: version {version} of Qt resources is not known")
    node_size = 14 if version == 1 else 22  # version 2 added the time of modification
    files: dict[str, bytes] = {}
    pending = [(0, "")]
    seen: set[int] = set()
    while pending:
        index, prefix = pending.pop()
        if index in seen or len(seen) > _MAX_NODES:
            raise InputError(f"{what}: the tree of files is damaged at node {index}")
        seen.add(index)
        at = tree_at + index * node_size
        name_at, flags, high, low = fields_at(">IHII", data, at, what)
        path = prefix
        if index:
            length, _ = fields_at(">HI", data, names_at + name_at, what)
            raw = slice_at(data, names_at + name_at + 6, 2 * length, what)
            name = decoded(raw, "utf-16-be", what)
            if "/" in name:
                raise InputError(f"{what}: an entry is named {name!r}")
            path = checked_path(f"{prefix}/{name}" if prefix else name, what)
        if flags & _FOLDER:
            count, first = high, low
            if count > _MAX_NODES:
                raise InputError(f"{what}: a folder of {count} files is too large")
            pending += [(first + child, path) for child in range(count)]
        else:
            # territory and language take the first four bytes of a file's node
            files[path] = _content(data, data_at + low, flags, f"{what}: {path}")
    return files


def _content(data: bytes, at: int, flags: int, what: str) -> bytes:
    (size,) = fields_at(">I", data, at, what)
    content = slice_at(data, at + 4, size, what)
    if flags & _COMPRESSED_ZSTD:
        raise InputError(f"{what}: compressed by Zstandard, which is not supported")
    if flags & _COMPRESSED:
        (unpacked,) = fields_at(">I", content, 0, what)
        return inflate(content[4:], 15, what, limit=unpacked)
    return content
