"""A bundle's graphs as loaded sessions, on one provider."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from clipsynth_rt.backends.choice import choose, open_session
from clipsynth_rt.backends.session import ENGINE_PROVIDERS, Choice, Session
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.bundles.manifest import frame_bucket
from clipsynth_rt.errors import BackendError

if TYPE_CHECKING:
    from clipsynth_rt.backends.tensorrt.backend import TrtBackend

MAX_BATCH = 8
"""Clips sampled at once; a longer list runs in batches, which changes nothing but its memory."""


class Sessions:
    """A bundle's ONNX graphs on one provider, each loaded when it is first needed.

    Several threads may share one: a graph is loaded once, and providers whose sessions keep state
    between calls (``cuda``, engines) take turns.

    Args:
        bundle: An opened bundle.
        choice: The provider, and why ``auto`` took none of the better ones.
        precision: See ``Bundle.graph``.
        threads: CPU threads; None is one for each physical core.

    Attributes:
        max_batch: Clips that are made at once.
        engines: The backend that captures whole clips; None where there is none.
    """

    max_batch: int = MAX_BATCH
    engines: TrtBackend | None = None

    def __init__(
        self,
        bundle: Bundle,
        choice: Choice,
        precision: str | Mapping[str, str] | None = None,
        threads: int | None = None,
    ) -> None:
        self.bundle, self.choice, self.precision = bundle, choice, precision
        self.provider = choice.provider
        self._threads = threads
        self._sessions: dict[str, Session] = {}
        self._on_load: dict[str, Callable[[], object]] = {}
        self._loading = threading.RLock()
        self._closed = False

    @property
    def file_precision(self) -> str | Mapping[str, str] | None:
        """The files that are loaded: what the caller chose, or on engines fp16 where it exists."""
        return self.precision

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the graphs loaded so far."""
        return tuple(self._sessions)

    def frames_for(self, num_frames: int) -> int:
        """Return how many frames a graph runs for ``num_frames``, at most the longest bucket."""
        return num_frames

    def on_load(self, graph: str, run: Callable[[], object]) -> None:
        """Have ``run`` called whenever ``graph`` is loaded, in the same thread."""
        self._on_load[graph] = run

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
                self._sessions[missing[0]] = self._load(missing[0])
            elif missing:
                with ThreadPoolExecutor(len(missing)) as pool:
                    self._sessions.update(zip(missing, pool.map(self._load, missing), strict=True))

    def get(self, name: str) -> Session:
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

    def close(self) -> None:
        """Give sessions back; any use afterwards is a ``BackendError``."""
        with self._loading:
            self._closed = True
            self._sessions.clear()

    def _load(self, name: str) -> Session:
        if name in self._on_load:
            self._on_load[name]()
        return self._open(name)

    def _open(self, name: str) -> Session:
        graph = self.bundle.graph(name, self.file_precision)
        return open_session(graph, self.provider, self._threads)


class EngineSessions(Sessions):
    """A bundle's graphs as TensorRT engines, which have fixed shapes."""

    def __init__(
        self,
        bundle: Bundle,
        choice: Choice,
        precision: str | Mapping[str, str] | None = None,
        threads: int | None = None,
    ) -> None:
        from clipsynth_rt.backends.tensorrt.backend import TrtBackend
        from clipsynth_rt.backends.tensorrt.engines import BATCH_SIZES, engine_precision

        super().__init__(bundle, choice, precision, threads)
        self.max_batch = max(BATCH_SIZES)
        self._file_precision = engine_precision(bundle, precision)
        self._backend = TrtBackend(bundle, self.provider, precision)
        self.engines = self._backend

    @property
    def file_precision(self) -> str | Mapping[str, str] | None:
        """The files that engines are built from."""
        return self._file_precision

    def frames_for(self, num_frames: int) -> int:
        """Return the bucket that holds ``num_frames``."""
        return frame_bucket(num_frames, self.bundle.manifest)

    def close(self) -> None:
        """Give engines and device memory back."""
        super().close()
        self._backend.close()

    def _open(self, name: str) -> Session:
        return self._backend.session(self.bundle.graph(name, self.file_precision))


def open_sessions(
    bundle: Bundle,
    provider: str = "auto",
    precision: str | Mapping[str, str] | None = None,
    threads: int | None = None,
) -> Sessions:
    """Choose a provider, and return a bundle's sessions on it; nothing is loaded yet.

    Args:
        bundle: An opened bundle.
        provider: One of ``backends.session.PROVIDERS``, or ``auto``: the best that works, engines
            only where they are built already.
        precision: See ``Bundle.graph``.
        threads: CPU threads; None is one for each physical core.

    Raises:
        InputError: If there is no provider of that name, or ``precision`` names what the bundle
            does not have.
        MissingExtraError: If ONNX Runtime is not installed.
        ProviderUnavailableError: If the provider asked for by name does not load here.
    """
    bundle.check_precision(precision)

    def why_not_ready(name: str) -> str:
        if name not in ENGINE_PROVIDERS:
            return ""
        from clipsynth_rt.backends.tensorrt import backend

        return backend.why_not_ready(bundle, name, precision)

    choice = choose(provider, why_not_ready)
    kind = EngineSessions if choice.provider in ENGINE_PROVIDERS else Sessions
    return kind(bundle, choice, precision, threads)
