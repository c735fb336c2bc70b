"""A bundle's graphs as loaded sessions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from clipsynth_rt.backends.choice import choose, open_session
from clipsynth_rt.backends.session import ENGINE_PROVIDERS, Choice, Session
from clipsynth_rt.backends.tensorrt.engines import engine_precision
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.errors import BackendError

if TYPE_CHECKING:
    from clipsynth_rt.backends.tensorrt.backend import TrtBackend


class Sessions:
    """A bundle's graphs on one provider, each loaded when it is first needed.

    Several threads may share one: a graph is loaded once, and providers whose sessions keep state
    between calls (``cuda``, engines) take turns.

    Args:
        bundle: An opened bundle.
        provider: One of ``backends.PROVIDERS``, or ``auto``: the best that works, engines only
            where they are built already. A ``Choice`` is taken as it is.
        precision: See ``Bundle.graph``.
        threads: CPU threads; None is one for each physical core.

    Raises:
        InputError: If there is no provider of that name, or ``precision`` names what the bundle
            does not have.
        MissingExtraError: If ONNX Runtime is not installed.
        ProviderUnavailableError: If the provider asked for by name does not load here.
    """

    def __init__(
        self,
        bundle: Bundle,
        provider: str | Choice = "auto",
        precision: str | Mapping[str, str] | None = None,
        threads: int | None = None,
    ) -> None:
        self.bundle = bundle
        bundle.check_precision(precision)
        if isinstance(provider, str):
            provider = choose(provider, self._why_not_ready(precision))
        self.choice = provider
        self.provider = self.choice.provider
        self.precision = precision
        self._threads = threads
        self._sessions: dict[str, Session] = {}
        self._loading = threading.RLock()
        self._closed = False
        self.engines: TrtBackend | None = None
        if self.provider in ENGINE_PROVIDERS:
            from clipsynth_rt.backends.tensorrt.backend import TrtBackend

            self.engines = TrtBackend(bundle, self.provider, precision)

    def _why_not_ready(self, precision: str | Mapping[str, str] | None) -> Callable[[str], str]:
        """Return what ``auto`` asks of a provider that loads."""

        def why_not_ready(name: str) -> str:
            if name not in ENGINE_PROVIDERS:
                return ""
            from clipsynth_rt.backends.tensorrt import backend as trt

            return trt.why_not_ready(self.bundle, name, precision)

        return why_not_ready

    def close(self) -> None:
        """Give sessions and device memory back; any use afterwards is a ``BackendError``."""
        with self._loading:
            self._closed = True
            self._sessions.clear()
        if self.engines is not None:
            self.engines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load(self, graphs: Sequence[str]) -> None:
        """Load graphs side by side: parsing and optimising one keeps a single core busy.

        Raises:
            BundleError: If a file cannot be used.
            BackendError: If a graph cannot be loaded, or the sessions are closed.
        """
        with self._loading:
            if self._closed:
                raise BackendError(f"{self.provider}: this synthesizer is closed; open another")
            missing = [name for name in graphs if name not in self._sessions]
            if len(missing) == 1:
                self._sessions[missing[0]] = self._open(missing[0])
            elif missing:
                with ThreadPoolExecutor(len(missing)) as pool:
                    self._sessions.update(zip(missing, pool.map(self._open, missing), strict=True))

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the graphs loaded so far."""
        return tuple(self._sessions)

    @property
    def file_precision(self) -> str | Mapping[str, str] | None:
        """Which files are loaded: what the caller chose, or on engines fp16 where there is one."""
        if self.engines is None:
            return self.precision
        return engine_precision(self.bundle, self.precision)

    def _open(self, name: str) -> Session:
        graph = self.bundle.graph(name, self.file_precision)
        if self.engines is not None:
            return self.engines.session(graph)
        return open_session(graph, self.provider, self._threads)

    def session(self, name: str) -> Session:
        """Return a graph's session, loading it if need be.

        Raises:
            ClipSynthError: As ``load``.
        """
        # one look: another thread may close in between
        found = self._sessions.get(name)
        if found is None:
            with self._loading:
                self.load([name])
                found = self._sessions[name]
        return found
