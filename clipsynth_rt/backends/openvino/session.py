"""OpenVINO sessions: the CPU, in bfloat16 where it multiplies that natively.

Intel's processors since 2023 and AMD's since 2024 do; a guided denoiser step then takes a third of
the time that it takes ONNX Runtime in float32.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from clipsynth_rt.backends.interface import Tensors, check_interface
from clipsynth_rt.backends.openvino.cache import CompiledCache
from clipsynth_rt.backends.session import Array, Session, Shapes
from clipsynth_rt.bundles.bundle import GraphFile
from clipsynth_rt.bundles.manifest import DENOISERS, TensorSpec
from clipsynth_rt.bundles.tokenizer import LENGTH_MULTIPLE
from clipsynth_rt.errors import BackendError, BundleError, MissingExtraError
from clipsynth_rt.lru import LRU

try:
    import openvino
except ModuleNotFoundError as error:
    raise MissingExtraError("openvino", "openvino") from error

logger = logging.getLogger(__name__)

MAX_SHAPES = 4
"""Compiled forms of one graph that are kept in memory, one for each set of input shapes."""

BFLOAT16_GRAPHS = frozenset(DENOISERS)
"""Graphs that run in bfloat16 without loss: the denoisers were trained in it.

The vocoder sums phases over a clip, of which bfloat16 would keep the first digits; the encoders run
once and gain nothing that a user would notice.
"""

ANY_LENGTH_GRAPHS = frozenset({"text_encoder"})
"""Graphs compiled once for every shape: prompts are of all lengths."""


_DTYPES = {"f32": "float32", "f16": "float16", "i64": "int64"}


class OpenVinoSession(Session):
    """One graph in OpenVINO, compiled anew for each set of input shapes.

    Fixed shapes let it choose layouts and kernels ahead; a clip of another length or batch costs
    one compilation (about half a second), and the last ``MAX_SHAPES`` are kept. The graphs in
    ``ANY_LENGTH_GRAPHS`` are compiled once. What was compiled is kept on disk for the next process,
    which begins with the form that was used last.

    Args:
        graph: A graph of a bundle.
        threads: CPU threads; None is OpenVINO's choice.

    Raises:
        BundleError: If the file is no graph, or its interface is not the manifest's.
    """

    provider = "openvino"

    def __init__(self, graph: GraphFile, threads: int | None = None) -> None:
        self.name = graph.name
        self._spec = graph.spec
        self._properties: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision_of(graph.name),
        }
        if threads is not None:
            self._properties["INFERENCE_NUM_THREADS"] = threads
        self._cache = CompiledCache(graph, {**self._properties, **_environment()})
        self._model: Any = None
        self._graph = graph
        self._compiled: LRU[tuple[Any, ...], Any] = LRU(MAX_SHAPES)
        self._lock = threading.Lock()
        any_length = graph.name in ANY_LENGTH_GRAPHS
        newest = {} if any_length else self._cache.newest()
        if newest is None or not self._load_kept(newest):
            # the first compilation takes the model that was read to be checked
            self._model = self._read()
        else:
            # a bundle that is damaged is refused, whatever of it was compiled before
            graph.read()
        if any_length:
            self._for_shapes({})
            self._try_out()

    def _try_out(self) -> None:
        """Run once on the usual prompt length: kernels are made for each new shape."""
        tokens = np.ones((1, LENGTH_MULTIPLE), np.int64)
        with contextlib.suppress(BackendError):  # one of another interface: nothing is known of it
            self.run(dict.fromkeys(self._spec.inputs, tokens))

    @property
    def precision(self) -> str:
        """Type that products are computed in: ``bf16`` or ``f32``."""
        return str(self._properties["INFERENCE_PRECISION_HINT"])

    def prepare(self, shapes: Shapes) -> None:
        """Compile for inputs of these shapes, so that the first run takes no longer than others.

        Raises:
            BackendError: If the graph does not take them.
        """
        try:
            self._for_shapes(shapes)
        except BundleError:
            raise
        except Exception as error:
            raise BackendError(f"{self.name}: {_first_line(error)}") from error

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output by name.

        Raises:
            BackendError: If the graph fails, with OpenVINO's reason.
        """
        if missing := sorted(self._spec.inputs.keys() - inputs.keys()):
            raise BackendError(f"{self.name}: input {missing[0]} is missing")
        try:
            compiled = self._for_shapes({name: value.shape for name, value in inputs.items()})
            # a request of its own a call, so that threads do not share buffers
            found = compiled.create_infer_request().infer(dict(inputs))
            # copies: what OpenVINO returns lies in the request's own memory
            return {name: np.array(found[name]) for name in self._spec.outputs}
        # OpenVINO raises plain RuntimeError and its relatives
        except Exception as error:
            raise BackendError(f"{self.name}: {_first_line(error)}") from error

    def _for_shapes(self, shapes: Shapes) -> Any:
        if self.name in ANY_LENGTH_GRAPHS:
            shapes = {}
        key = _key(shapes)
        with self._lock:
            if key not in self._compiled and not self._load_kept(shapes):
                return self._compiled.get(key, lambda: self._compile(shapes))
            return self._compiled.get(key)

    def _load_kept(self, shapes: Shapes) -> bool:
        """Load what an earlier process compiled for these shapes; return whether it did."""
        data = self._cache.read(shapes)
        if data is None:
            return False
        try:
            compiled = _import(data, self._properties)
        # whatever is wrong with it, compiling makes another
        except Exception as error:
            logger.warning("%s: %s; compiling it again", self.name, _first_line(error))
            return False
        self._compiled.get(_key(shapes), lambda: compiled)
        return True

    def _compile(self, shapes: Shapes) -> Any:
        model, self._model = self._model or self._read(), None
        if shapes:
            model.reshape({name: list(shape) for name, shape in shapes.items()})
        compiled = _core().compile_model(model, "CPU", self._properties)
        if self._cache.is_writable():
            try:
                stream = io.BytesIO()
                compiled.export_model(stream)
            except Exception as error:
                logger.warning("%s: cannot be kept (%s)", self.name, _first_line(error))
            else:
                self._cache.keep(shapes, stream.getvalue())
        return compiled

    def _read(self) -> Any:
        """Read the graph and check its interface."""
        path, spec = self._graph.path, self._graph.spec
        data = self._graph.read()
        try:
            model = _core().read_model(data)
        except Exception as error:
            raise BundleError(
                f"{path}: OpenVINO {openvino.__version__} cannot load it ({_first_line(error)})"
            ) from error
        inputs = _tensors(model.inputs, spec.inputs)
        check_interface(self._graph, inputs, _tensors(model.outputs, spec.outputs))
        return model


def precision_of(graph: str) -> str:
    """Return the type that a graph's products are computed in here: ``bf16`` or ``f32``."""
    return "bf16" if graph in BFLOAT16_GRAPHS and has_bfloat16() else "f32"


@functools.lru_cache
def has_bfloat16() -> bool:
    """Return whether this processor multiplies bfloat16 natively."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@functools.lru_cache
def probe() -> str:
    """Run a one-operator graph; return the problem, or an empty string."""
    try:
        x = openvino.opset13.parameter([1], np.float32, name="x")
        model = openvino.Model([openvino.opset13.add(x, x)], [x], "probe")
        result = _core().compile_model(model, "CPU")([np.ones(1, np.float32)])[0]
    except Exception as error:
        return _first_line(error)
    return "" if result[0] == 2.0 else f"1 + 1 gave {result[0]}"


@functools.lru_cache
def _core() -> Any:
    return openvino.Core()


def _key(shapes: Shapes) -> tuple[Any, ...]:
    return tuple(sorted(shapes.items()))


def _import(data: memoryview, properties: Mapping[str, Any]) -> Any:
    """Load a compiled graph."""
    try:
        # over the bytes as they lie, in half of the time that a stream takes
        tensor = openvino.Tensor(np.frombuffer(data, np.uint8))
        return _core().import_model(tensor, "CPU", properties)
    except TypeError:  # older versions take no tensor
        return _core().import_model(bytes(data), "CPU", properties)


@functools.lru_cache
def _environment() -> dict[str, Any]:
    """Return the versions and the processor that a compiled graph depends on."""
    names = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
    device = {name: _core().get_property("CPU", name) for name in names}
    return {"version": openvino.__version__, **device}


def _tensors(nodes: Iterable[Any], promised: Mapping[str, TensorSpec]) -> Tensors:
    found = {}
    for node in nodes:
        # a tensor may go by several names, of which the graph's own is one
        name = next((n for n in node.names if n in promised), node.get_any_name())
        kind, shape = node.get_element_type().get_type_name(), node.get_partial_shape()
        sizes = None
        if shape.rank.is_static:
            sizes = tuple(size.get_length() if size.is_static else "?" for size in shape)
        found[name] = (_DTYPES.get(kind, kind), sizes)
    return found


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # the first line names OpenVINO's source file; the last ones say what happened
    return lines[-1] if lines else type(error).__name__
