"""The cache of built engines.

A built engine is a cache file, never a product: it belongs to one ONNX file, one set of shapes, one
builder version and one compute capability, and is rebuilt where one of them differs.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clipsynth_rt.backends.cache_file import (
    facts_key,
    read_cache_file,
    read_header,
    write_cache_file,
)
from clipsynth_rt.backends.tensorrt.api import BuildProgress, TensorRTApi
from clipsynth_rt.backends.tensorrt.engines import EngineSpec
from clipsynth_rt.cache import CACHE_VARIABLE, default_cache, locked
from clipsynth_rt.errors import EngineError, OutputError
from clipsynth_rt.files import write_atomically
from clipsynth_rt.onnx_editing.dequantize import read_for_gpu

logger = logging.getLogger(__name__)

RECIPE = 2
"""How ``TensorRTApi.build`` goes about it; raised when the same inputs give another engine."""

_MAGIC = b"clipsynth-rt plan 1\n"


def engine_key(spec: EngineSpec, library: TensorRTApi, target: str) -> str:
    """Return what an engine depends on as one SHA-256 in hex."""
    facts = {
        "onnx": spec.graph.digest,
        "shapes": {name: list(shape) for name, shape in sorted(spec.shapes.items())},
        "precision": spec.graph.precision,
        "builder": [library.name, library.version],
        "target": target,
        "recipe": RECIPE,
    }
    return facts_key(facts)


class EngineCache:
    """Engines on disk.

    Args:
        folder: Where; None is ``default_cache()``. It is made when the first engine is written.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = default_cache() if folder is None else Path(folder)

    def path(self, spec: EngineSpec, library: TensorRTApi, target: str) -> Path:
        """Return the engine's file, whether it is there or not."""
        key = engine_key(spec, library, target)
        return self.folder / f"{spec.label}-{library.name}-{target}-{key[:32]}.plan"

    def has(self, spec: EngineSpec, library: TensorRTApi, target: str) -> bool:
        """Return whether there is an engine; ``read`` says whether it is whole."""
        return self.path(spec, library, target).is_file()

    def read(self, spec: EngineSpec, library: TensorRTApi, target: str) -> bytes | None:
        """Return an engine, or None if there is none or it is damaged, which is logged."""
        path = self.path(spec, library, target)
        try:
            return bytes(read_cache_file(path, _MAGIC)[1])
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("%s: not a whole engine (%s); building it again", path, error)
            return None

    def kernels(self, spec: EngineSpec, library: TensorRTApi, target: str) -> bytes:
        """Return what ``keep_kernels`` kept; nothing if there is nothing."""
        try:
            return self._kernels_path(spec, library, target).read_bytes()
        except OSError:
            return b""

    def keep_kernels(
        self, spec: EngineSpec, library: TensorRTApi, target: str, data: bytes
    ) -> None:
        """Keep what a GPU compiled in an engine's first run; a full disk costs only time."""
        try:
            write_atomically(self._kernels_path(spec, library, target), data)
        except OutputError as error:
            logger.warning("%s; its kernels will be compiled again next time", error)

    def _kernels_path(self, spec: EngineSpec, library: TensorRTApi, target: str) -> Path:
        return self.path(spec, library, target).with_suffix(".kernels")

    def build_seconds(self, graph: str, library: TensorRTApi) -> float | None:
        """Return how long this graph's builds took here before, on average; None if unknown."""
        known = []
        for path in self.folder.glob(f"{graph}-*-{library.name}-*.plan"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                known.append(float(read_header(path, _MAGIC)["build_s"]))
        return sum(known) / len(known) if known else None

    def get(
        self,
        spec: EngineSpec,
        library: TensorRTApi,
        target: str,
        progress: BuildProgress | None = None,
        *,
        rebuild: bool = False,
    ) -> bytes:
        """Return an engine, building it if need be.

        Args:
            spec: The engine.
            library: The builder.
            target: From ``TensorRTApi.targets`` or ``TensorRTApi.targets_for``.
            progress: Told how far a build is.
            rebuild: Whether what is there is known not to load.

        Raises:
            EngineError: If it cannot be built.
            OutputError: If the folder cannot be written; nothing is left behind.
        """
        engine = None if rebuild else self.read(spec, library, target)
        if engine is not None:
            return engine
        path = self.path(spec, library, target)
        before = _identity(path)
        with self._lock():
            # another process may have built it while this one waited
            if not rebuild or _identity(path) != before:
                engine = self.read(spec, library, target)
            if engine is None:
                engine = self._build(spec, library, target, path, progress)
        return engine

    def _build(
        self,
        spec: EngineSpec,
        library: TensorRTApi,
        target: str,
        path: Path,
        progress: BuildProgress | None,
    ) -> bytes:
        timing = self.folder / f"timing-{library.name}-{library.version}-{target}.cache"
        known = timing.read_bytes() if timing.is_file() else b""
        began = time.perf_counter()
        model = read_for_gpu(spec.graph, library.name)
        engine, learnt = library.build(spec.graph.name, model, spec.shapes, target, known, progress)
        header = {
            "engine": spec.label,
            "precision": spec.graph.precision,
            "onnx_sha256": spec.graph.digest,
            "shapes": {name: list(shape) for name, shape in spec.shapes.items()},
            "builder": f"{library.name} {library.version}",
            "target": target,
            "build_s": round(time.perf_counter() - began, 3),
        }
        try:
            write_cache_file(path, _MAGIC, header, engine)
            if learnt and learnt != known:
                write_atomically(timing, learnt)
        except OutputError as error:
            raise OutputError(f"{error}; name another folder with {CACHE_VARIABLE}") from error
        return engine

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Let one process build at a time, and say so where one has to wait.

        Raises:
            OutputError: If the folder cannot be written, before any work is done.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self.folder / "build.lock", "builds engines"))
            except OSError as error:
                raise OutputError(
                    f"{self.folder}: engines cannot be kept here ({error.strerror}); name another "
                    f"folder with {CACHE_VARIABLE}"
                ) from error
            yield


def load_engine(
    spec: EngineSpec, library: TensorRTApi, targets: Sequence[str], cache: EngineCache
) -> Any:
    """Return a deserialised engine, building it if need be, and again if it does not load.

    Args:
        spec: The engine.
        library: The builder.
        targets: What may be played here, best first; the first is what would be built.
        cache: Where engines are.

    Raises:
        BundleError: If its graph's file cannot be used, whether there is an engine or not.
        EngineError: If it cannot be built, or a fresh one does not load either.
        OutputError: If it has to be built and cannot be kept.
    """
    # a bundle that is damaged is refused, whatever of it was built before
    spec.graph.read()
    for target in targets:
        engine = cache.read(spec, library, target)
        if engine is None:
            continue
        try:
            return _check(spec, library.deserialise(spec.graph.name, engine))
        except EngineError as error:
            logger.warning("%s; building it again", error)
    logger.warning(
        "building %s for %s; clipsynth-rt build does this beforehand", spec.label, library.name
    )
    try:
        engine = cache.get(spec, library, targets[0], rebuild=True)
        return _check(spec, library.deserialise(spec.graph.name, engine))
    except EngineError as error:
        raise EngineError(f"{error}; use --provider cuda or cpu") from error


def is_built(
    spec: EngineSpec, library: TensorRTApi, targets: Sequence[str], cache: EngineCache
) -> bool:
    """Return whether there is an engine for one of ``targets``."""
    return any(cache.has(spec, library, target) for target in targets)


def _check(spec: EngineSpec, engine: Any) -> Any:
    """Compare an engine's tensors with the manifest's.

    Raises:
        EngineError: If a name or an input's shape differs.
    """
    names = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
    promised = spec.graph.spec.inputs.keys() | spec.graph.spec.outputs.keys()
    if names != promised:
        raise EngineError(
            f"{spec.label}: the engine has {', '.join(sorted(names))} and manifest.json says "
            f"{', '.join(sorted(promised))}; re-run clipsynth-rt export"
        )
    for name, shape in spec.shapes.items():
        if tuple(engine.get_tensor_shape(name)) != shape:
            raise EngineError(
                f"{spec.label}: input {name} is {list(engine.get_tensor_shape(name))} in the "
                f"engine and should be {list(shape)}"
            )
    return engine


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells one version of a file from the next."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns
