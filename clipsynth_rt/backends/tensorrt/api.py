"""TensorRT and TensorRT for RTX behind one adapter: loading, building, deserialising.

Both have the same Python API under two module names. What differs is here: how the libraries are
found, what an engine is built for, and the timing cache. TensorRT measures kernels on the GPU that
it builds on; TensorRT for RTX builds anywhere, for any compute capability that it lists, and
finishes its kernels on the device.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import importlib
import importlib.util
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from clipsynth_rt.backends.interface import PROBE
from clipsynth_rt.backends.session import ENGINE_PROVIDERS
from clipsynth_rt.backends.tensorrt.cuda import is_installed
from clipsynth_rt.errors import (
    EngineError,
    InputError,
    MissingExtraError,
    ProviderUnavailableError,
    install_command,
)
from clipsynth_rt.onnx_editing.transposed import rewrite_transposed

logger = logging.getLogger(__name__)

LIBRARIES = ENGINE_PROVIDERS
"""What ``load_library`` takes, best first."""

PORTABLE = "portable"
"""Target of an RTX engine that names no compute capability: Ampere and later."""

Shapes = Mapping[str, tuple[int, ...]]
BuildProgress = Callable[[float], None]
"""Called with the share of a build that is done, 0 to 1."""

_RTX_MODULES = ("tensorrt_rtx", "tensorrt_rtx_bindings")
_RTX_LIBRARIES = ("libtensorrt_rtx", "libtensorrt_onnxparser_rtx")
# the package that carries TensorRT for RTX's libraries; its own Python part is not imported
_RTX_CARRIER = "onnxruntime_ep_nv_tensorrt_rtx"
_KEPT_MESSAGES = 20


class TensorRTApi:
    """One loaded TensorRT.

    Args:
        name: One of ``LIBRARIES``.
        module: Its Python module.

    Attributes:
        name: One of ``LIBRARIES``.
        version: As the library says.
    """

    def __init__(self, name: str, module: Any) -> None:
        self.name = name
        self.module = module
        self.version = str(module.__version__)
        self._lock = threading.RLock()
        self._messages: collections.deque[str] = collections.deque(maxlen=_KEPT_MESSAGES)
        # TensorRT keeps the first logger of a process and refuses others
        self._logger = _make_logger(module, self._messages)

    @property
    def targets(self) -> tuple[str, ...]:
        """Compute capabilities that an engine can be built for without such a GPU ("86")."""
        if self.name != "tensorrt-rtx":
            return ()
        names = self.module.ComputeCapability.__members__
        return tuple(sorted((n[2:] for n in names if re.fullmatch(r"SM\d+", n)), key=int))

    def targets_for(self, compute_capability: tuple[int, int]) -> tuple[str, ...]:
        """Return what plays on a GPU of this compute capability, best first, such as ``86``."""
        target = f"{compute_capability[0]}{compute_capability[1]}"
        if self.name != "tensorrt-rtx":
            return (target,)
        return (target, PORTABLE) if target in self.targets else (PORTABLE,)

    def refusal(self, compute_capability: tuple[int, int]) -> str:
        """Return why no engine plays on this process's GPU: nothing if one does.

        TensorRT for RTX says so when an engine is loaded, not before: it is asked with the smallest
        one, unless it lists the compute capability among those it builds for.
        """
        if self.targets_for(compute_capability) != (PORTABLE,):
            return ""
        try:
            plan, _ = self.build("probe", PROBE, {"x": (1,)}, PORTABLE)
            self.deserialise("probe", plan)
        except EngineError as error:
            return str(error)
        return ""

    def check_targets(self, targets: tuple[str, ...]) -> None:
        """Refuse targets that this library does not build for.

        Raises:
            InputError: If there is one.
        """
        known = (*self.targets, PORTABLE)
        for target in targets:
            if self.name != "tensorrt-rtx":
                raise InputError(
                    f"{self.name} builds for the GPU that it runs on; targets are for tensorrt-rtx"
                )
            if target not in known:
                raise InputError(
                    f"unknown target {target!r}; {self.name} {self.version} builds for "
                    f"{', '.join(known)}"
                )

    def build(
        self,
        name: str,
        model: bytes,
        shapes: Shapes,
        target: str,
        timing_cache: bytes = b"",
        progress: BuildProgress | None = None,
    ) -> tuple[bytes, bytes]:
        """Build an engine for one set of input shapes.

        Args:
            name: The graph's, for messages.
            model: ONNX file; its precision is what the engine computes in.
            shapes: Input -> shape, every input of the graph.
            target: From ``targets`` or ``targets_for``.
            timing_cache: What an earlier build returned; ``b""`` is a new one.
            progress: Told how far the build is.

        Returns:
            The plan, and the timing cache (empty for TensorRT for RTX, which has none).

        Raises:
            EngineError: If the graph cannot be built, with the library's reason.
            MissingExtraError: If the graph has to be rewritten and ``onnx`` is not installed.
        """
        trt = self.module
        model = rewrite_transposed(model, self.name)
        with self._reasons(f"{name}: {self.name} {self.version} cannot build it for {target}"):
            builder = trt.Builder(self._logger)
            # always so since TensorRT 11, which may drop the flag
            flags = getattr(trt, "NetworkDefinitionCreationFlag", None)
            typed = getattr(flags, "STRONGLY_TYPED", None)
            network = builder.create_network(0 if typed is None else 1 << int(typed))
            parser = trt.OnnxParser(network, self._logger)
            if not parser.parse(model):
                errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
                raise _RefusedError(errors[-1] if errors else "the file is no ONNX model")
            _fix_shapes(network, shapes)
            kept = _dequantize_tables(trt, network)
            config = builder.create_builder_config()
            cache = self._configure(trt, config, target, timing_cache)
            if progress is not None:
                config.progress_monitor = _make_monitor(trt, progress)
            plan = builder.build_serialized_network(network, config)
            kept.clear()
            if plan is None:
                raise _RefusedError
            return bytes(plan), b"" if cache is None else bytes(cache.serialize())

    def _configure(self, trt: Any, config: Any, target: str, timing_cache: bytes) -> Any:
        """Set target, flags and timing cache; return the cache, if this library has one."""
        if self.name == "tensorrt-rtx":
            # without it RTX allocates while it runs, which a stream capture forbids
            config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
            if target != PORTABLE:
                config.num_compute_capabilities = 1
                config.set_compute_capability(trt.ComputeCapability.__members__[f"SM{target}"], 0)
            return None
        cache = config.create_timing_cache(timing_cache)
        if cache is None or not config.set_timing_cache(cache, False):
            logger.info("timing cache is of another device or version; starting a new one")
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, False)
        return cache

    def deserialise(self, name: str, plan: bytes) -> Any:
        """Return an engine from its serialised bytes (TensorRT's plan).

        Raises:
            EngineError: If it does not load here, with the library's reason.
        """
        with self._reasons(f"{name}: {self.name} {self.version} cannot load its engine"):
            runtime = self.module.Runtime(self._logger)
            engine = runtime.deserialize_cuda_engine(plan)
            if engine is None:
                raise _RefusedError
            return engine

    def runtime_config(self, engine: Any, kernels: bytes) -> tuple[Any, Any]:
        """Return what contexts of an engine are made with, and the cache of its kernels.

        TensorRT for RTX compiles kernels for the GPU in an engine's first run; what an earlier
        process compiled is taken over. TensorRT has compiled them when it built, and has no cache.

        Args:
            engine: From ``deserialise``.
            kernels: What an earlier cache gave when it was serialised; ``b""`` is none.
        """
        strategy = self.module.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.name != "tensorrt-rtx":
            return strategy, None
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        cache = config.create_runtime_cache()
        if kernels and not cache.deserialize(kernels):
            logger.info("kernels are of another device or version; compiling them again")
        config.set_runtime_cache(cache)
        return config, cache

    def create_context(self, engine: Any, config: Any) -> Any:
        """Return an execution context whose scratch memory the caller supplies.

        Raises:
            EngineError: If there is no memory for it.
        """
        with self._reasons(f"{self.name} {self.version} cannot start an engine"):
            context = engine.create_execution_context(config)
            if context is None:
                raise _RefusedError
            return context

    @contextlib.contextmanager
    def _reasons(self, what: str) -> Iterator[None]:
        """Turn a refusal into ``what`` and the reason that the library logged."""
        with self._lock:
            self._messages.clear()
            try:
                yield
            except _RefusedError as error:
                reason = str(error) or (self._messages[0] if self._messages else "no reason given")
                raise EngineError(f"{what} ({_one_line(reason)}){_advice(reason)}") from error
            # what pybind11 raises where a library function returns nothing
            except (TypeError, RuntimeError, ValueError) as error:
                reason = self._messages[0] if self._messages else str(error)
                raise EngineError(f"{what} ({_one_line(reason)}){_advice(reason)}") from error


class _RefusedError(Exception):
    """The library said no; the reason is in its log unless it is given."""


def check_installed(name: str) -> None:
    """Check that one of ``LIBRARIES`` is there, without loading its hundreds of megabytes.

    Raises:
        MissingExtraError: If it is not.
    """
    modules = _RTX_MODULES if name == "tensorrt-rtx" else (name,)
    if not any(is_installed(module) for module in modules):
        raise MissingExtraError(name, name)


@functools.lru_cache
def load_library(name: str) -> TensorRTApi:
    """Load one of ``LIBRARIES``.

    Raises:
        MissingExtraError: If it is not installed.
        ProviderUnavailableError: If it is installed and does not load, with the system's reason.
    """
    try:
        return TensorRTApi(name, _import_rtx() if name == "tensorrt-rtx" else _import_module(name))
    except OSError as error:
        raise ProviderUnavailableError(f"{name} does not load ({_one_line(str(error))})") from error


def describe_library(name: str) -> str:
    """Return ``ok`` with the version, or what to install; for ``doctor``."""
    try:
        return f"{load_library(name).version}, builds engines"
    except (MissingExtraError, ProviderUnavailableError) as error:
        return str(error)


def _import_module(name: str) -> ModuleType:
    check_installed(name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or name, "tensorrt") from error
    except ImportError as error:
        raise ProviderUnavailableError(f"{name} does not load ({_one_line(str(error))})") from error


def _import_rtx() -> ModuleType:
    """Load TensorRT for RTX's libraries where Python's linker does not look, and import it."""
    check_installed("tensorrt-rtx")
    found = next(name for name in _RTX_MODULES if is_installed(name))
    libraries = _rtx_libraries()
    for path in libraries:
        # global: the bindings look their symbols up among those already loaded
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    try:
        module = importlib.import_module(found)
    except ImportError as error:
        hint = "" if libraries else f"; run: {install_command('tensorrt-rtx')}"
        raise ProviderUnavailableError(
            f"tensorrt-rtx does not load ({_one_line(str(error))}){hint}"
        ) from error
    for path in libraries:
        carried = path.name.partition(".so.")[2]
        if not str(module.__version__).startswith(carried):
            raise ProviderUnavailableError(
                f"tensorrt-rtx: the bindings are {module.__version__} and {path.name} is "
                f"{carried}; run: {install_command('tensorrt-rtx')} -U"
            )
    return module


def _rtx_libraries() -> list[Path]:
    spec = importlib.util.find_spec(_RTX_CARRIER)
    if spec is None or spec.origin is None or not sys.platform.startswith("linux"):
        return []
    folder = Path(spec.origin).parent
    # the carrier puts links without a version beside the files when it is imported
    found = [sorted(folder.glob(f"{name}.so.*.*")) for name in _RTX_LIBRARIES]
    return [paths[-1] for paths in found if paths]


def _fix_shapes(network: Any, shapes: Shapes) -> None:
    """Make every input's shape a fixed one, so that all shapes inside are known when building."""
    inputs = {network.get_input(i).name: network.get_input(i) for i in range(network.num_inputs)}
    if inputs.keys() != shapes.keys():
        raise _RefusedError(
            f"its inputs are {', '.join(sorted(inputs))} and manifest.json says "
            f"{', '.join(sorted(shapes))}; re-run clipsynth-rt export"
        )
    for name, tensor in inputs.items():
        promised = tuple(tensor.shape)
        fits = len(promised) == len(shapes[name]) and all(
            have in (-1, want) for have, want in zip(promised, shapes[name], strict=True)
        )
        if not fits:
            raise _RefusedError(
                f"input {name} is {list(promised)} and {list(shapes[name])} was asked"
            )
        tensor.shape = shapes[name]


def _dequantize_tables(trt: Any, network: Any) -> list[Any]:
    """Put fp16 constants in the place of int8 ones, and return what has to live until the build.

    TensorRT takes int8 constants as quantised values alone, and wants them dequantised at once; an
    int8 embedding table is looked up first and scaled afterwards, and weights in blocks are cast
    and scaled. fp16 holds every int8 exactly.
    """
    kept: list[Any] = []
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    tables = {
        layer.get_output(0).name: layer
        for layer in layers
        if layer.type == trt.LayerType.CONSTANT and layer.get_output(0).dtype == trt.int8
    }
    if not tables:
        return kept
    for layer in layers:
        # a constant that is dequantised, as a quantised convolution's is, stays as it is
        if layer.type not in (trt.LayerType.GATHER, trt.LayerType.CAST):
            continue
        if layer.get_input(0).name not in tables:
            continue
        table = tables[layer.get_input(0).name]
        # the bindings give layers as their base class, which has no weights
        table.__class__ = trt.IConstantLayer
        values = np.asarray(table.weights, np.float16).reshape(tuple(table.shape))
        kept.append(values)
        layer.set_input(0, network.add_constant(tuple(table.shape), values).get_output(0))
    return kept


def _make_logger(module: Any, messages: collections.deque[str]) -> Any:
    """Return a logger that keeps errors for exceptions and passes the rest to ``logging``."""

    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            # errors are raised with what was asked; warnings speak of the library's own affairs
            if severity in (module.ILogger.INTERNAL_ERROR, module.ILogger.ERROR):
                messages.append(message)
                logger.debug("%s", message)
            elif severity == module.ILogger.WARNING:
                logger.debug("%s", message)

    return Logger()


def _make_monitor(module: Any, progress: BuildProgress) -> Any:
    """Return a progress monitor that counts the steps of the outermost phase."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.outermost: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, num_steps: int) -> None:
            if not parent:
                self.outermost[name] = num_steps

        def step_complete(self, name: str, step: int) -> bool:
            if name in self.outermost:
                progress(min(1.0, (step + 1) / self.outermost[name]))
            return True

        def phase_finish(self, name: str) -> None:
            self.outermost.pop(name, None)

    return Monitor()


def _advice(reason: str) -> str:
    """Return what to do about a refusal, where it is known."""
    if "FP32 GEMM is not supported" in reason:
        return "; export a bundle with --precision fp16-products and build from that"
    return ""


def _one_line(text: str) -> str:
    """Return a message's first lines as one, without the library's source positions."""
    text = " ".join(text.split())
    text = re.sub(r"\s*In \w+ at /\S+:\d+", "", text)
    return text[:300].rstrip(". ")
