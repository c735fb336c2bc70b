"""Cache files: a line that names the format, a line of JSON that describes the data, and the data.

The JSON holds the SHA-256 of the bytes, so that a file that was cut or changed is told from a whole
one. Files are written under another name and renamed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipsynth_rt.files import write_atomically

_LONGEST_HEADER = 65536


def facts_key(facts: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hex, of the facts that a cache file depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def write_cache_file(path: Path, magic: bytes, header: Mapping[str, Any], data: bytes) -> None:
    """Write ``data`` with its header; the folder must be there.

    Raises:
        OutputError: If it cannot be written; nothing is left behind.
    """
    whole = {**header, "sha256": hashlib.sha256(data).hexdigest()}
    write_atomically(path, magic + json.dumps(whole).encode() + b"\n" + data)


def read_header(path: Path, magic: bytes) -> dict[str, Any]:
    """Return a cache file's header.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is damaged.
    """
    with path.open("rb") as stream:
        if stream.readline(_LONGEST_HEADER) != magic:
            raise ValueError("not of this format")
        header = json.loads(stream.readline(_LONGEST_HEADER))
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    return header


def read_cache_file(path: Path, magic: bytes) -> tuple[dict[str, Any], memoryview]:
    """Return a cache file's header and data.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is damaged.
    """
    header = read_header(path, magic)
    contents = path.read_bytes()
    data = memoryview(contents)[contents.index(b"\n", len(magic)) + 1 :]
    if hashlib.sha256(data).hexdigest() != header.get("sha256"):
        raise ValueError("its sha256 differs from its header")
    return header, data
