"""Compiled OpenVINO graphs on disk, for the next process.

Compiling takes several times as long as loading what was compiled. A cache file belongs to one ONNX
file and interface, one set of shapes, one configuration, one version of OpenVINO and one processor,
and is of no use where one of them differs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clipsynth_rt.backends.cache_file import (
    facts_key,
    read_cache_file,
    read_header,
    write_cache_file,
)
from clipsynth_rt.backends.session import Shapes
from clipsynth_rt.bundles.bundle import GraphFile
from clipsynth_rt.cache import default_cache
from clipsynth_rt.errors import OutputError

logger = logging.getLogger(__name__)

MAX_BYTES = 512 * 10**6
"""Total size of the compiled graphs; the least recently used is removed first."""

SUFFIX = ".blob"
_MAGIC = b"clipsynth-rt openvino 1\n"


class CompiledCache:
    """One graph's compiled forms on disk. A cache that cannot be used costs only time.

    Args:
        graph: The graph.
        environment: What else a compiled form depends on, as JSON data; ``version`` is OpenVINO's.
        folder: Where; None is ``default_cache()``. It is made when the first form is written.
    """

    def __init__(
        self, graph: GraphFile, environment: Mapping[str, Any], folder: str | Path | None = None
    ) -> None:
        self.folder = default_cache() if folder is None else Path(folder)
        self._version = facts_key({"version": environment["version"]})[:8]
        facts = {
            "onnx": graph.digest,
            "inputs": {name: asdict(spec) for name, spec in graph.spec.inputs.items()},
            "outputs": {name: asdict(spec) for name, spec in graph.spec.outputs.items()},
            **environment,
        }
        self._stem = f"{graph.name}-openvino-{self._version}-{facts_key(facts)[:16]}"

    def path(self, shapes: Shapes) -> Path:
        """Return the file of the form for inputs of these shapes."""
        key = facts_key({name: list(shape) for name, shape in shapes.items()})
        return self.folder / f"{self._stem}-{key[:16]}{SUFFIX}"

    def newest(self) -> dict[str, tuple[int, ...]] | None:
        """Return the shapes of the most recently used form, or None if there is none."""
        kept = _by_age(self.folder, f"{self._stem}-*{SUFFIX}")
        if not kept:
            return None
        try:
            shapes = read_header(kept[-1], _MAGIC)["shapes"]
            return {str(name): tuple(map(int, shape)) for name, shape in shapes.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def read(self, shapes: Shapes) -> memoryview | None:
        """Return a compiled form, or None if there is none or it is damaged, which is logged."""
        path = self.path(shapes)
        try:
            data = read_cache_file(path, _MAGIC)[1]
        except OSError:
            return None
        except ValueError as error:
            logger.warning("%s: not a whole graph (%s); compiling it again", path, error)
            return None
        _mark_used(path)
        return data

    def is_writable(self) -> bool:
        """Return whether there is a folder that a form can be written to, making one if need be."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return False
        return os.access(self.folder, os.W_OK)

    def keep(self, shapes: Shapes, data: bytes) -> None:
        """Store a compiled form; remove those of other versions and those beyond ``MAX_BYTES``."""
        header = {"shapes": {name: list(shape) for name, shape in shapes.items()}}
        try:
            write_cache_file(self.path(shapes), _MAGIC, header, data)
        except OutputError as error:
            logger.warning("%s; it will be compiled again next time", error)
            return
        _mark_used(self.path(shapes))
        self._clear()

    def _clear(self) -> None:
        known = _by_age(self.folder, f"*-openvino-*{SUFFIX}")
        stale = [path for path in known if f"-openvino-{self._version}-" not in path.name]
        for path in stale:
            _remove(path)
        left = [path for path in known if path not in stale]
        total = sum(map(_size, left))
        # the newest is the one that was just written
        for path in left[:-1]:
            if total <= MAX_BYTES:
                break
            total -= _size(path)
            _remove(path)


def _by_age(folder: Path, pattern: str) -> list[Path]:
    """Return files, the least recently used first."""
    ages = []
    for path in folder.glob(pattern):
        # another process may remove it at any time
        with contextlib.suppress(OSError):
            ages.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(ages)]


def _mark_used(path: Path) -> None:
    # the time that a kernel gives by itself moves in ticks of some ms, so that two uses could tie
    now = time.time_ns()
    with contextlib.suppress(OSError):
        os.utime(path, ns=(now, now))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
