"""ONNX Runtime sessions, on the CPU and through CUDA."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clipsynth_rt.backends.interface import PROBE, Tensors, check_interface
from clipsynth_rt.backends.session import Array, Session
from clipsynth_rt.bundles.bundle import GraphFile
from clipsynth_rt.bundles.manifest import DENOISERS
from clipsynth_rt.errors import (
    BackendError,
    BundleError,
    MissingExtraError,
    ProviderUnavailableError,
    install_command,
)
from clipsynth_rt.lru import LRU
from clipsynth_rt.machine import physical_cores
from clipsynth_rt.onnx_editing.dequantize import read_for_gpu

try:
    import onnxruntime
except ModuleNotFoundError as error:
    raise MissingExtraError("onnxruntime", "cpu") from error

from clipsynth_rt.backends.ort.step_loop import (
    MAX_LOOPS,
    TURNS,
    FixedRuns,
    NotCapturedError,
    StepBuffers,
    StepLoops,
)

_NAMES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64"}
_FATAL_ONLY = 4
_NAMED = 5
"""Nodes that a warning names; it counts the others."""

CAPTURED = frozenset({*DENOISERS, "text_encoder", "image_encoder", "vocoder"})
"""Graphs that ``cuda`` captures into CUDA graphs."""

logger = logging.getLogger(__name__)


class OrtSession(Session):
    """One graph loaded into ONNX Runtime.

    Args:
        graph: A graph of a bundle.
        provider: ``cpu`` or ``cuda``.
        threads: CPU threads; None is one for each physical core.

    Raises:
        BundleError: If the file is no graph, or its interface is not the manifest's.
        ProviderUnavailableError: If ONNX Runtime does not confirm ``provider``.
    """

    def __init__(self, graph: GraphFile, provider: str, threads: int | None = None) -> None:
        self.name = graph.name
        self._graph, self._threads = graph, threads
        self._captures = provider == "cuda" and graph.name in CAPTURED
        # loading takes memory of the device, which would spoil another thread's capture
        with _turn(provider):
            self._session = self._open(graph, provider, threads)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        check_interface(graph, _tensors(inputs), _tensors(outputs))
        # a denoiser that is captured plays in sessions of its own
        if provider == "cuda" and not (self._captures and graph.name in DENOISERS):
            _report_strays(graph.name, self._session, provider)
        self._outputs = [output.name for output in outputs]
        self._provider = provider
        self._shaped: LRU[tuple[tuple[str, int], ...], StepLoops] = LRU(MAX_LOOPS)

    def _open(self, graph: GraphFile, provider: str, threads: int | None) -> Any:
        options = session_options(threads)
        if provider != "cuda":
            return _load(graph.read(), provider, options, graph.path)
        model = read_for_gpu(graph, "gpu")
        # a denoiser is captured in sessions of its own; see _loops_for
        if not self._captures or graph.name in DENOISERS:
            return _load(model, provider, options, graph.path)
        try:
            return _load(model, provider, options, graph.path, captures=True)
        except BundleError as error:
            # a node on the CPU, other than those that compute shapes, cannot be captured
            logger.warning("%s: no CUDA graph (%s)", graph.name, error)
            self._captures = False
            return _load(model, provider, session_options(threads), graph.path)

    def _stop_capturing(self, error: BaseException) -> None:
        """Load the graph again without capture, after a run showed that it cannot be captured."""
        logger.warning("%s: no CUDA graph (%s)", self.name, _first_line(error))
        with _turn(self._provider):
            self._captures = False
            self._shaped.clear()
            # the stream of the old session may still be in its capture
            self._session = self._open(self._graph, self._provider, self._threads)
            for name in ("loops", "_fixed"):
                self.__dict__.pop(name, None)

    @property
    def provider(self) -> str:
        """``cpu`` or ``cuda``, confirmed by ONNX Runtime."""
        return self._provider

    @functools.cached_property
    def loops(self) -> StepLoops:
        """The session as denoiser steps whose x stays on the device, none of them captured."""
        return StepLoops(self._session, self._provider, self.name, captures=False)

    def _loops_for(self, x: Array, fixed: Mapping[str, Array]) -> StepLoops:
        """Return the loops of a session for these shapes alone where it captures, else ``loops``.

        With every size known, ONNX Runtime folds the nodes that compute shapes. They run on the
        CPU, and it captures no graph that has any.
        """
        if not self._captures:
            return self.loops
        given = {"x": x, "noise": x, **fixed}
        sizes = {
            size: given[node.name].shape[axis]
            for node in self._session.get_inputs()
            for axis, size in enumerate(node.shape)
            if isinstance(size, str)
        }
        key = tuple(sorted(sizes.items()))
        with TURNS:
            return self._shaped.get(key, lambda: self._capturing_loops(key))

    def _capturing_loops(self, sizes: tuple[tuple[str, int], ...]) -> StepLoops:
        options = session_options(self._threads)
        for size, value in sizes:
            options.add_free_dimension_override_by_name(size, value)
        model = read_for_gpu(self._graph, "gpu")
        session = _load(model, self._provider, options, self._graph.path, captures=True)
        _report_strays(self.name, session, self._provider)
        return StepLoops(session, self._provider, self.name, captures=True)

    def step_loop(
        self, x: Array, fixed: Mapping[str, Array]
    ) -> contextlib.AbstractContextManager[StepBuffers] | None:
        """Return ``loop`` on ``cuda``; on ``cpu`` x lies on the host anyway."""
        return self.loop(x, fixed) if self._provider == "cuda" else None

    @contextlib.contextmanager
    def loop(self, x: Array, fixed: Mapping[str, Array]) -> Iterator[StepBuffers]:
        """Give a step whose x stays on the device; see ``StepLoops.loop``.

        Raises:
            BackendError: If the graph fails, with ONNX Runtime's reason.
        """
        with contextlib.ExitStack() as stack:
            try:
                step = stack.enter_context(self._loops_for(x, fixed).loop(x, fixed))
            except (BackendError, BundleError) as error:
                if not self._captures:
                    raise
                self._stop_capturing(error)
                step = stack.enter_context(self.loops.loop(x, fixed))
            yield step

    @functools.cached_property
    def _fixed(self) -> FixedRuns:
        return FixedRuns(self._session, self._provider, self._outputs)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output by name.

        Raises:
            BackendError: If the graph fails, with ONNX Runtime's reason.
        """
        try:
            values = None
            if self._captures and self.name not in DENOISERS:
                values = self._run_captured(inputs)
            if values is None:
                # a denoiser's steps are captured by ``loop``; this session captures nothing
                with _turn(self._provider):
                    values = self._session.run(self._outputs, dict(inputs))
        # ONNX Runtime's exceptions share no base but Exception
        except Exception as error:
            raise BackendError(f"{self.name}: {_first_line(error)}") from error
        return dict(zip(self._outputs, values, strict=True))

    def _run_captured(self, inputs: Mapping[str, Array]) -> list[Array] | None:
        """Return the outputs, or None where the graph turns out not to be capturable."""
        try:
            return self._fixed.run(inputs)
        except NotCapturedError as error:
            self._stop_capturing(error.__cause__ or error)
            return None


def _turn(provider: str) -> contextlib.AbstractContextManager[object]:
    """Return the lock for using the device: no other thread may capture meanwhile."""
    return TURNS if provider == "cuda" else contextlib.nullcontext()


def session_options(threads: int | None = None) -> Any:
    """Return ONNX Runtime options for one caller who waits for each result."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = physical_cores() if threads is None else threads
    # the graphs are chains: there is nothing to run side by side
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # threads that spin while they wait gain nothing measurable on an idle machine and, where
    # something else wants the cores, make a denoiser step 1.6 times as slow (two cores, load 5)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # lets _report_strays ask where each node runs
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # problems are raised as exceptions; the log would only repeat them on stderr
    options.log_severity_level = _FATAL_ONLY
    return options


@functools.lru_cache
def probe(provider: str) -> str:
    """Run a one-operator graph on a provider; return the problem, or an empty string."""
    if _NAMES[provider] not in onnxruntime.get_available_providers():
        extra = "gpu" if provider == "cuda" else "cpu"
        return (
            f"the installed ONNX Runtime {onnxruntime.__version__} was built without it (in an "
            f"environment of its own, run: {install_command(extra)})"
        )
    try:
        session = _load(PROBE, provider, session_options(1), Path("probe"))
        (result,) = session.run(None, {"x": np.ones(1, np.float32)})
    except ProviderUnavailableError as error:
        return str(error)
    except Exception as error:
        return _first_line(error)
    return "" if result[0] == 2.0 else f"1 + 1 gave {result[0]}"


def provider_options(provider: str, *, captures: bool = False) -> dict[str, str]:
    """Return an execution provider's options."""
    if provider != "cuda":
        return {}
    return {
        # trying every algorithm of every new shape takes longer than a whole clip
        "cudnn_conv_algo_search": "HEURISTIC",
        "enable_cuda_graph": "1" if captures else "0",
    }


def _report_strays(graph: str, session: Any, provider: str) -> None:
    """Warn of nodes on another provider: each costs a copy to the host and back."""
    strays = stray_nodes(session, provider)
    if strays:
        more = f" and {len(strays) - _NAMED} more" if len(strays) > _NAMED else ""
        logger.warning(
            "%s: %d nodes do not run on %s: %s%s",
            graph,
            len(strays),
            provider,
            ", ".join(strays[:_NAMED]),
            more,
        )


def stray_nodes(session: Any, provider: str) -> list[str]:
    """Return the nodes of a session that another execution provider runs, as "name (type)"."""
    # ONNX Runtime tells since 1.24
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return []
    return [
        f"{node.name} ({node.op_type})"
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name != _NAMES[provider]
        for node in part.get_nodes()
    ]


def _load(model: bytes, provider: str, options: Any, path: Path, *, captures: bool = False) -> Any:
    name = _NAMES[provider]
    if provider == "cuda" and hasattr(onnxruntime, "preload_dlls"):
        # finds CUDA and cuDNN installed as wheels, which the dynamic linker does not
        onnxruntime.preload_dlls()
    try:
        chosen = [(name, provider_options(provider, captures=captures))]
        # without fallback: the CPU in place of a provider that fails, and words on stdout
        session = onnxruntime.InferenceSession(model, options, chosen, enable_fallback=0)
    except Exception as error:
        raise BundleError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load it on {provider} "
            f"({_first_line(error)})"
        ) from error
    # without an exception, ONNX Runtime runs on the CPU what a provider could not load
    if name not in session.get_providers():
        raise ProviderUnavailableError(
            f"provider {provider} did not load for {path.name}: ONNX Runtime offers "
            f"{', '.join(session.get_providers())} (missing or mismatched CUDA libraries?)"
        )
    return session


def _tensors(nodes: Iterable[Any]) -> Tensors:
    return {node.name: (_DTYPES.get(node.type, node.type), tuple(node.shape)) for node in nodes}


def _first_line(error: BaseException) -> str:
    # CUDA's own words, from between ONNX Runtime's source positions
    if found := re.search(r"CU[A-Z]+ failure \d+: [^;]+", str(error)):
        return found[0].strip()
    return (str(error).strip() or type(error).__name__).splitlines()[0]
