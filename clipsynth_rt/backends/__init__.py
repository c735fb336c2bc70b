"""Where graphs run. A backend is imported when it is asked for, not before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from clipsynth_rt.bundle import GraphFile
from clipsynth_rt.errors import InputError

PROVIDERS = ("cpu", "cuda")
"""What can be asked for by name; ``auto`` is the best of them that loads."""

Array = NDArray[Any]


class Session(Protocol):
    """One loaded graph."""

    @property
    def provider(self) -> str:
        """Where it really runs: one of ``PROVIDERS``."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output by name.

        Raises:
            BackendError: If the graph fails.
        """


def choose_provider(provider: str = "auto") -> str:
    """Return the provider that will run: the one asked for, or the best that loads.

    Raises:
        InputError: If there is no provider of that name.
        MissingExtraError: If ONNX Runtime is not installed.
        ProviderUnavailableError: If the one asked for by name does not load here.
    """
    if provider not in ("auto", *PROVIDERS):
        raise InputError(f"unknown provider {provider!r}; use auto, {', '.join(PROVIDERS)}")
    from clipsynth_rt.backends import ort

    return ort.choose_provider(provider)


def open_session(graph: GraphFile, provider: str = "cpu", threads: int | None = None) -> Session:
    """Load a graph and check that it is what the manifest says.

    Args:
        graph: A verified graph of a bundle.
        provider: ``auto`` or one of ``PROVIDERS``.
        threads: CPU threads; None is one for each physical core.

    Raises:
        InputError: If ``provider`` or ``threads`` makes no sense.
        MissingExtraError: If ONNX Runtime is not installed.
        ProviderUnavailableError: If the provider does not load here.
        BundleError: If the file is no graph, or its interface is not the manifest's.
    """
    if threads is not None and not 1 <= threads <= 1024:
        raise InputError(f"threads must be from 1 to 1024, got {threads}")
    chosen = choose_provider(provider)
    from clipsynth_rt.backends import ort

    return ort.OrtSession(graph, chosen, threads)
