"""The choice of a provider. A backend is imported only when it is asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from clipsynth_rt.backends.session import ENGINE_PROVIDERS, PROVIDERS, Choice, Session
from clipsynth_rt.bundles.bundle import GraphFile
from clipsynth_rt.errors import ClipSynthError, InputError, ProviderUnavailableError

BEST_FIRST = ("tensorrt", "tensorrt-rtx", "cuda", "openvino", "cpu")
"""The order in which ``auto`` tries."""


def probe(provider: str) -> str:
    """Try a provider; return the problem, or an empty string.

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
    """Return why ``auto`` skips a provider that works, or an empty string."""
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
    """Raise an error if a provider does not load."""
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
