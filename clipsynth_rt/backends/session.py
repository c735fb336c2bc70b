"""Where graphs run. A backend is imported when it is asked for, not before."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from clipsynth_rt.bundles.bundle import GraphFile
from clipsynth_rt.errors import ClipSynthError, InputError, ProviderUnavailableError

PROVIDERS = ("cpu", "openvino", "cuda", "tensorrt", "tensorrt-rtx")
"""What can be asked for by name; ``auto`` is the best of them that works."""

ENGINE_PROVIDERS = ("tensorrt", "tensorrt-rtx")
"""Those that play engines built ahead, in place of ONNX graphs."""

BEST_FIRST = ("tensorrt", "tensorrt-rtx", "cuda", "openvino", "cpu")
"""The order in which ``auto`` tries."""

Array = NDArray[Any]


Shapes = Mapping[str, tuple[int, ...]]
"""Input -> shape."""


class StepLoop(Protocol):
    """Denoiser steps that leave x on the device between one and the next."""

    def __call__(self, x: Any, t: float, s: float, eta: float, noise: Array) -> tuple[Any, Any]:
        """Return x at time s and the estimate of x0, both on the device.

        Args:
            x: An array before the first step, the last step's result after it.
            t: Time of x.
            s: Time to step to.
            eta: Share of fresh noise, 0 to 1.
            noise: float32 [B, M, F].

        Raises:
            BackendError: If the graph fails.
        """

    def fetch(self, x: Any) -> Array:
        """Return a copy of a step's result on the host."""


class Session(ABC):
    """One loaded graph. ``prepare`` and ``step_loop`` are optional: the defaults do nothing."""

    @property
    @abstractmethod
    def provider(self) -> str:
        """The provider that really runs the graph: one of ``PROVIDERS``."""

    @abstractmethod
    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output by name.

        Raises:
            BackendError: If the graph fails.
        """

    def prepare(self, shapes: Shapes) -> None:  # noqa: B027  (optional, not forgotten)
        """Compile for inputs of these shapes, where the backend compiles for fixed shapes.

        Raises:
            BackendError: If the graph does not take them.
        """

    def step_loop(
        self, x: Array, fixed: Mapping[str, Array]
    ) -> AbstractContextManager[StepLoop] | None:
        """Return denoiser steps on the device, or None where steps go through the host.

        Args:
            x: float32 [B, M, F]; gives the shape.
            fixed: Inputs that stay the same from step to step: condition and weights.

        Raises:
            BackendError: On entry, if the device has no memory for the buffers.
        """
        return None


@dataclass(frozen=True)
class Choice:
    """A provider, and why ``auto`` took none of the better ones.

    Attributes:
        provider: One of ``PROVIDERS``.
        not_taken: Better provider -> reason; empty where the provider was asked for by name.
    """

    provider: str
    not_taken: dict[str, str] = field(default_factory=dict)


def probe(provider: str) -> str:
    """Try a provider, and return what went wrong: nothing if empty.

    Raises:
        MissingExtraError: If ONNX Runtime is not installed and ``provider`` needs it.
    """
    if provider in ENGINE_PROVIDERS:
        from clipsynth_rt.backends.tensorrt import backend as trt

        return trt.probe(provider)
    if provider == "openvino":
        from clipsynth_rt.backends.openvino import session as openvino

        return openvino.probe()
    from clipsynth_rt.backends.ort import session as ort

    return ort.probe(provider)


def slower(provider: str) -> str:
    """Return why ``auto`` does not take a provider although it works: nothing if empty."""
    if provider != "openvino":
        return ""
    from clipsynth_rt.backends.openvino import session as openvino

    if openvino.has_bfloat16() or importlib.util.find_spec("onnxruntime") is None:
        return ""
    return "this processor has no bfloat16, without which ONNX Runtime is as fast"


def choose(provider: str = "auto", why_not_ready: Callable[[str], str] | None = None) -> Choice:
    """Return the provider that will run: the one asked for, or the best that works.

    Args:
        provider: ``auto`` or one of ``PROVIDERS``.
        why_not_ready: Asked of a provider that loads, under ``auto`` alone: what else keeps it from
            being taken, such as engines that are not built; nothing if empty.

    Raises:
        InputError: If there is no provider of that name.
        MissingExtraError: If ONNX Runtime is not installed.
        ProviderUnavailableError: If the one asked for by name does not load here.
    """
    if provider not in ("auto", *PROVIDERS):
        raise InputError(f"unknown provider {provider!r}; use auto, {', '.join(PROVIDERS)}")
    if provider != "auto":
        _require(provider)
        return Choice(provider)
    not_taken: dict[str, str] = {}
    *better, last = BEST_FIRST
    for name in better:
        try:
            problem = probe(name) or slower(name)
            if not problem and why_not_ready is not None:
                problem = why_not_ready(name)
        except ClipSynthError as error:
            problem = str(error)
        if not problem:
            return Choice(name, not_taken)
        not_taken[name] = problem
    _require(last)
    return Choice(last, not_taken)


def choose_provider(provider: str = "auto") -> str:
    """Return the name of ``choose``'s provider.

    Raises:
        ClipSynthError: As ``choose``.
    """
    return choose(provider).provider


def _require(provider: str) -> None:
    """Raise what keeps a provider from loading, if anything does."""
    if provider in ENGINE_PROVIDERS:
        from clipsynth_rt.backends.tensorrt import backend as trt

        trt.require(provider)
        return
    if problem := probe(provider):
        raise ProviderUnavailableError(
            f"provider {provider} is not available: {problem}; see clipsynth-rt doctor"
        )


def open_session(graph: GraphFile, provider: str = "cpu", threads: int | None = None) -> Session:
    """Load a graph and check that it is what the manifest says.

    Args:
        graph: A graph of a bundle.
        provider: ``cpu``, ``openvino``, ``cuda``, or ``auto`` for the best that works. Engines
            belong to a whole bundle: see ``trt.TrtBackend.session``.
        threads: CPU threads; None is one for each physical core.

    Raises:
        InputError: If ``provider`` or ``threads`` makes no sense.
        MissingExtraError: If ONNX Runtime is not installed.
        ProviderUnavailableError: If the provider does not load here.
        BundleError: If the file is no graph, or its interface is not the manifest's.
    """
    if threads is not None and not 1 <= threads <= 1024:
        raise InputError(f"threads must be from 1 to 1024, got {threads}")
    if provider in ENGINE_PROVIDERS:
        raise InputError(f"{provider} plays the engines of a bundle; open a Synthesizer on it")
    if provider == "auto":
        provider = choose(provider, lambda name: "no ONNX" * (name in ENGINE_PROVIDERS)).provider
    elif provider not in PROVIDERS:
        raise InputError(f"unknown provider {provider!r}; use auto, {', '.join(PROVIDERS)}")
    _require(provider)
    if provider == "openvino":
        from clipsynth_rt.backends.openvino import session as openvino

        return openvino.OpenVinoSession(graph, threads)
    from clipsynth_rt.backends.ort import session as ort

    return ort.OrtSession(graph, provider, threads)
