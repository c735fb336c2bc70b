"""ONNX Runtime on fixed device buffers, on which its CUDA graphs are captured and replayed.

Denoiser steps leave x on the device between them.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from clipsynth_rt.backends.session import Array
from clipsynth_rt.errors import BackendError
from clipsynth_rt.lru import LRU

MAX_LOOPS = 4
"""Sets of buffers that are kept, one for each set of input shapes."""
MAX_RUNS = 8
"""The same for graphs that run once a clip; prompts differ in their number of tokens."""

TURNS = threading.RLock()
"""Held during every run: memory allocated by another thread would spoil a capture."""

NO_CAPTURE = -1
"""Graph id of a run that is neither captured nor replayed."""


class StepBuffers:
    """Fixed buffers of one denoiser step on a device; a step of the sampler's ``Step`` protocol.

    Inputs are updated in place and x goes back and forth between two buffers, so that the same
    addresses come round: ONNX Runtime's CUDA graphs, one for each direction, replay on them.

    Args:
        session: ONNX Runtime's.
        device: ``cuda`` or ``cpu``.
        name: The graph's, for messages.
        inputs: Values that give every input's shape and type.
        graph_ids: One for each direction; None where nothing is captured.
    """

    def __init__(
        self,
        session: Any,
        device: str,
        name: str,
        inputs: Mapping[str, Array],
        graph_ids: tuple[int, int] | None,
    ) -> None:

        def make(value: Array, device: str, number: int) -> Any:
            # a copy: on the CPU, the value lies in the very array that it is made from
            return onnxruntime.OrtValue.ortvalue_from_numpy(np.array(value), device, number)

        self._inputs = {name: make(value, device, 0) for name, value in inputs.items()}
        x = inputs["x"]
        self._xs = [self._inputs["x"], make(np.zeros_like(x), device, 0)]
        self._x0 = make(np.zeros_like(x), device, 0)
        self._session, self._name = session, name
        self._bindings = [self._bind(i) for i in range(2)]
        ids = graph_ids or (NO_CAPTURE, NO_CAPTURE)
        self._options = [run_options(number) for number in ids]
        self.graph_ids = graph_ids
        self._direction = 0
        self._last_noise: Array | None = None

    def _bind(self, direction: int) -> Any:
        binding = self._session.io_binding()
        for name, value in self._inputs.items():
            binding.bind_ortvalue_input(name, self._xs[direction] if name == "x" else value)
        binding.bind_ortvalue_output("x_next", self._xs[1 - direction])
        binding.bind_ortvalue_output("x0", self._x0)
        return binding

    def try_out(self) -> None:
        """Take a step each way, which ONNX Runtime captures."""
        for binding, options in zip(self._bindings, self._options, strict=True):
            self._session.run_with_iobinding(binding, options)

    def start(self, fixed: Mapping[str, Array]) -> None:
        """Begin a loop with what stays the same from step to step."""
        self._direction = 0
        self._last_noise = None
        for name, value in fixed.items():
            self._inputs[name].update_inplace(np.ascontiguousarray(value))

    def __call__(self, x: Any, t: float, s: float, eta: float, noise: Array) -> tuple[Any, Any]:
        """Take one step; ``x`` is an array before the first and a device's value after it."""
        if isinstance(x, np.ndarray):
            self._direction = 0
            self._xs[0].update_inplace(np.ascontiguousarray(x))
        for name, value in (("t", t), ("s", s), ("eta", eta)):
            self._inputs[name].update_inplace(np.array([value], np.float32))
        # deterministic steps are all given the same zeros
        if noise is not self._last_noise:
            self._inputs["noise"].update_inplace(np.ascontiguousarray(noise))
            self._last_noise = noise
        way = self._direction
        try:
            self._session.run_with_iobinding(self._bindings[way], self._options[way])
        # ONNX Runtime's exceptions share no base but Exception
        except Exception as error:
            raise _failed(self._name, error) from error
        self._direction = 1 - way
        return self._xs[1 - way], self._x0

    def fetch(self, x: Any) -> Array:
        """Return a copy of a step's result on the host."""
        return np.array(x.numpy())


class StepLoops:
    """The buffers of one session, for the shapes used last. One loop of a process runs at a time.

    Args:
        session: ONNX Runtime's, of a denoiser's graph.
        device: ``cuda`` or ``cpu``.
        name: The graph's.
        captures: Whether the session captures CUDA graphs.
    """

    def __init__(self, session: Any, device: str, name: str, *, captures: bool) -> None:
        self._session, self._device, self._captures = session, device, captures
        self._name = name
        self._kept: LRU[tuple[Any, ...], StepBuffers] = LRU(MAX_LOOPS, self._give_back)
        self._ids = itertools.count(1)

    @contextlib.contextmanager
    def loop(self, x: Array, fixed: Mapping[str, Array]) -> Iterator[StepBuffers]:
        """Give a step for mels of ``x``'s shape; ``fixed`` are condition and weights.

        Raises:
            BackendError: If there is no memory for its buffers, or it cannot be captured.
        """
        with TURNS:
            buffers = self._buffers(x, fixed)
            buffers.start(fixed)
            yield buffers

    def _buffers(self, x: Array, fixed: Mapping[str, Array]) -> StepBuffers:
        key = (x.shape, *(fixed[name].shape for name in sorted(fixed)))
        return self._kept.get(key, lambda: self._make(x, fixed))

    def _make(self, x: Array, fixed: Mapping[str, Array]) -> StepBuffers:
        one = np.zeros(1, np.float32)
        inputs = {"x": x, "noise": x, "t": one, "s": one, "eta": one, **fixed}
        ids = (next(self._ids), next(self._ids)) if self._captures else None
        try:
            buffers = StepBuffers(self._session, self._device, self._name, inputs, ids)
            if ids is not None:
                buffers.try_out()
        except Exception as error:
            raise _failed(self._name, error) from error
        return buffers

    def _give_back(self, buffers: StepBuffers) -> None:
        _release(self._session, buffers.graph_ids or ())


class NotCapturedError(Exception):
    """A run that ONNX Runtime captures failed; its cause says why."""


class FixedRuns:
    """One graph on fixed buffers, with a CUDA graph for each set of input shapes.

    The first run of new shapes tells those of the outputs, and captures nothing; ONNX Runtime
    captures in one of the next.

    Args:
        session: ONNX Runtime's.
        device: ``cuda`` or ``cpu``.
        outputs: Names of the graph's outputs.
    """

    def __init__(self, session: Any, device: str, outputs: Sequence[str]) -> None:
        self._session, self._device, self._outputs = session, device, list(outputs)
        self._kept: LRU[tuple[Any, ...], _FixedRun] = LRU(MAX_RUNS, self._give_back)
        self._ids = itertools.count(1)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Return the outputs in their order; the runs of a process take turns.

        Raises:
            NotCapturedError: If a run fails that ONNX Runtime captures or replays.
            Exception: ONNX Runtime's own, if another fails.
        """
        key = tuple((name, np.shape(inputs[name])) for name in sorted(inputs))
        with TURNS:
            if key not in self._kept:
                return self._first(key, inputs)
            known = self._kept.get(key)
            for name, value in inputs.items():
                known.inputs[name].update_inplace(np.ascontiguousarray(value))
            try:
                self._session.run_with_iobinding(known.binding, known.options)
            except Exception as error:
                raise NotCapturedError from error
            # copies: on the CPU, what it gives lies in the buffer itself
            return [known.outputs[name].numpy().copy() for name in self._outputs]

    def _first(self, key: tuple[Any, ...], inputs: Mapping[str, Array]) -> list[Array]:
        values: list[Array]
        values = self._session.run(self._outputs, dict(inputs), run_options(NO_CAPTURE))
        self._kept.get(key, lambda: self._make(inputs, values))
        return values

    def _give_back(self, run: _FixedRun) -> None:
        _release(self._session, (run.graph_id,))

    def _make(self, inputs: Mapping[str, Array], values: Sequence[Array]) -> _FixedRun:
        def make(value: Array) -> Any:
            # a copy: on the CPU, the value lies in the very array that it is made from
            return onnxruntime.OrtValue.ortvalue_from_numpy(np.array(value), self._device, 0)

        made_in = {name: make(value) for name, value in inputs.items()}
        made_out = {n: make(value) for n, value in zip(self._outputs, values, strict=True)}
        binding = self._session.io_binding()
        for name, value in made_in.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in made_out.items():
            binding.bind_ortvalue_output(name, value)
        number = next(self._ids)
        return _FixedRun(made_in, made_out, binding, run_options(number), number)


@dataclass(frozen=True)
class _FixedRun:
    """Buffers of one set of shapes, and the graph that is captured on them."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]
    binding: Any
    options: Any
    graph_id: int


def _release(session: Any, graph_ids: Iterable[int]) -> None:
    """Give captured graphs back, where this ONNX Runtime can."""
    release = getattr(session, "release_captured_graph", None)
    for number in graph_ids:
        if release is not None:
            release(number)


def run_options(graph_id: int) -> Any:
    """Return options of a run that belongs to one captured graph, or to none."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph_id))
    return options


def _failed(name: str, error: Exception) -> BackendError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return BackendError(f"{name}: {reason}")
