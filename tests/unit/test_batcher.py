"""The thread that makes a server's clips: what it does first, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
from clipsynth_rt.audio.clip import AudioClip
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.bundles.manifest import Manifest
from clipsynth_rt.server.batcher import (
    Batcher,
    Job,
    PanicError,
    QueueClosedError,
    WorkerDiedError,
)
from clipsynth_rt.synthesis.options import SynthOptions, resolve_options


class Panic(BaseException):
    """As pyo3's PanicException: no Exception."""


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


@pytest.fixture
def manifest(tiny_bundle: Path) -> Manifest:
    return Bundle.open(tiny_bundle).manifest


def job(manifest: Manifest, query: str) -> Job:
    return Job(resolve_options(SynthOptions(), manifest), {}, 0, query=query)


def test_a_panic_is_one_jobs_failure(manifest: Manifest) -> None:
    clip = AudioClip(np.zeros(10, np.float32), 22050)

    def make(jobs: Sequence[Job], cancel: Any) -> list[AudioClip]:
        if any(job.query == "bad" for job in jobs):
            raise Panic("called `Option::unwrap()` on a `None` value")
        return [clip for _ in jobs]

    batcher = Batcher(make, 4, 2)
    jobs = [job(manifest, query) for query in ("bad", "good")]
    batcher.start()
    batcher.submit(jobs)
    error = jobs[0].future.exception(10)
    assert isinstance(error, PanicError)
    assert "Option::unwrap()" in str(error)
    assert jobs[1].future.result(10) is clip
    assert batcher.ready
    batcher.close()


@pytest.mark.filterwarnings("error")
def test_a_worker_that_dies_fails_its_jobs(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()
    batcher = Batcher(lambda jobs, cancel: [], 4, 1)
    batcher.on_death = told.set
    go = threading.Event()

    def die(batch: Sequence[Job]) -> bool:
        assert go.wait(10)
        raise Panic("broken")

    monkeypatch.setattr(batcher, "_make", die)
    jobs = [job(manifest, "drum") for _ in range(3)]
    batcher.start()
    batcher.submit(jobs)
    go.set()
    for one in jobs:
        assert isinstance(one.future.exception(10), WorkerDiedError)
    assert told.wait(10)
    assert isinstance(batcher.failure, Panic)
    assert not batcher.ready
    with pytest.raises(QueueClosedError):
        batcher.submit([job(manifest, "drum")])
    batcher.close()
