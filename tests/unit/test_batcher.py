"""The thread that makes a server's clips: what it does first, and how it ends."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("starlette")
from clipsynth_rt.server.batcher import Batcher


def test_what_comes_first_runs_on_the_thread_that_makes_clips() -> None:
    batcher, ran = Batcher(lambda jobs, cancel: [], 4, 2), list[str]()
    batcher.start(lambda: ran.append(threading.current_thread().name))
    assert ran == ["clipsynth-worker"]
    batcher.start()
    assert batcher.ready
    batcher.close()
    assert not batcher.ready


def test_a_first_task_that_fails_is_told_to_whoever_starts() -> None:
    def fail() -> None:
        raise ValueError("no voice")

    batcher = Batcher(lambda jobs, cancel: [], 4, 2)
    for first in (fail, None):
        with pytest.raises(ValueError, match="no voice"):
            batcher.start(first)
    assert not batcher.ready
    batcher.close()


def test_what_never_began_can_be_closed() -> None:
    Batcher(lambda jobs, cancel: [], 4, 2).close()
