"""A server around the tiny bundle: in process, or listening on loopback."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from clipsynth_rt import Synthesizer
from clipsynth_rt.server import Limits, Settings, create_app
from clipsynth_rt.server.run import listen, make_server


def poll(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something is true, without a busy loop."""
    wake = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if true():
            return
        wake.wait(0.02)
    raise AssertionError("it did not happen in time")


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], None]:
    return poll


class HeldVoice:
    """A voice that waits for a signal before it makes anything, and notes what it is asked for."""

    def __init__(self, voice: Synthesizer) -> None:
        self._voice = voice
        self.go = threading.Event()
        self.begun = threading.Semaphore(0)
        self.batches: list[dict[str, Any]] = []
        self.failure: BaseException | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._voice, name)

    def synth_batch(self, queries: list[str], **options: Any) -> Any:
        self.batches.append({"queries": queries, **options})
        self.begun.release()
        assert self.go.wait(30)
        if self.failure is not None:
            raise self.failure
        return self._voice.synth_batch(queries, **options)


@pytest.fixture(scope="session")
def voice(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_bundle(tiny_bundle, provider="cpu", threads=1)


@pytest.fixture
def held(
    voice: Synthesizer, serve: Callable[..., TestClient], listening: Listening
) -> Iterator[HeldVoice]:
    # after the servers, so that it is let go before they are stopped
    held = HeldVoice(voice)
    yield held
    held.go.set()


@pytest.fixture
def serve(voice: Synthesizer) -> Iterator[Callable[..., TestClient]]:
    """Start an application in process; its client raises nothing that a browser would not see."""
    with contextlib.ExitStack() as stack:

        def start(
            limits: Limits | None = None, *, speaker: Any = None, **settings: Any
        ) -> TestClient:
            settings = {"limits": limits or Limits(), **settings}
            app = create_app(speaker or voice, Settings(**settings))
            client = TestClient(app, "http://localhost", raise_server_exceptions=False)
            return stack.enter_context(client)

        yield start


@pytest.fixture
def client(serve: Callable[..., TestClient]) -> TestClient:
    return serve()


class Listening:
    """Servers on loopback, each in a thread."""

    def __init__(self, voice: Synthesizer) -> None:
        self._voice = voice
        self._running: dict[str, tuple[Any, threading.Thread, Any]] = {}

    def __call__(self, limits: Limits | None = None, speaker: Any = None, **settings: Any) -> str:
        """Start a server and return its address."""
        made = Settings(limits or Limits(), **settings)
        server = make_server(create_app(speaker or self._voice, made), made)
        listener = listen("127.0.0.1", 0)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._running[address] = server, thread, listener
        return address

    def stop(self, address: str) -> None:
        """Stop a server, and wait for what it took."""
        server, thread, listener = self._running.pop(address)
        server.should_exit = True
        thread.join(60)
        listener.close()
        assert not thread.is_alive()

    def close(self) -> None:
        for address in list(self._running):
            self.stop(address)


@pytest.fixture
def listening(voice: Synthesizer) -> Iterator[Listening]:
    listening = Listening(voice)
    yield listening
    listening.close()
