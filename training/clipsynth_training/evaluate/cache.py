"""A folder of results by the hash of all that decides them: a run makes only what changed."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from clipsynth_rt.errors import DataError
from clipsynth_rt.files import replacing, sha256_of, writable_folder, write_json

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")


class Cache:
    """Arrays and JSON data, each under the SHA-256 of its key; without a folder it keeps nothing.

    A key is JSON data that names what the result depends on: files by their hash (those of real
    clips by size and time of change), settings by their value, code by ``code_version``, and for
    what a voice makes the library and the machine that ran it. Where one of these changes, the old
    result is not wrong but unused: the folder may be deleted at any time. No key names the other
    libraries, such as PyTorch and NumPy, whose versions may differ in the last digits: begin
    another folder after an update of them.

    Args:
        folder: Made if missing; None for no cache.

    Attributes:
        made, found: How many results were computed, and how many were there.

    Raises:
        OutputError: If the folder cannot be written to.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = None if folder is None else writable_folder(Path(folder))
        self.made = self.found = 0

    def arrays(self, key: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
        """Return the arrays stored under ``key``, or make and store them."""
        return self._get(key, "safetensors", load_file, _write_arrays, make)

    def json(self, key: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the JSON data stored under ``key``, or make and store it."""
        return self._get(key, "json", _read_json, write_json, make)

    def _get(
        self,
        key: Mapping[str, Any],
        kind: str,
        read: Callable[[Path], T],
        write: Callable[[Path, T], None],
        make: Callable[[], T],
    ) -> T:
        path = self._path(key, kind)
        if path is not None and path.is_file():
            try:
                found = read(path)
            except (OSError, ValueError, SafetensorError) as error:
                raise DataError(f"{path}: damaged ({error}); delete it and run again") from error
            self.found += 1
            return found
        made = make()
        self.made += 1
        if path is not None:
            write(path, made)
        return made

    def _path(self, key: Mapping[str, Any], kind: str) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / f"{digest(key)}.{kind}"


def _write_arrays(path: Path, arrays: Arrays) -> None:
    with replacing(path) as temporary:
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, temporary)


def _read_json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def digest(key: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON data, in hex; equal data has equal hashes."""
    text = json.dumps(key, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.lru_cache
def code_version(*parts: ModuleType | type | FunctionType) -> str:
    """Return one hash of the source of modules, classes or functions: another metric, another hash.

    Their imports are not followed: name every part that decides the result. Of a package it is
    every file of the folder, but not of folders in it.
    """
    text = "".join(map(_source, parts))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _source(part: ModuleType | type | FunctionType) -> str:
    if not hasattr(part, "__path__"):
        return inspect.getsource(part)
    files = sorted(Path(part.__path__[0]).glob("*.py"))
    return "".join(file.read_text(encoding="utf-8") for file in files)


@functools.lru_cache
def file_hash(path: Path) -> str:
    """Return a file's SHA-256 in hex, read once a process.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
