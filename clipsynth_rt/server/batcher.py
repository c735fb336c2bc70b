"""A bounded queue in front of one voice, and the thread that makes what waits there."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clipsynth_rt.audio.clip import AudioClip
from clipsynth_rt.errors import CancelledError
from clipsynth_rt.synthesis.options import ResolvedOptions, SynthKwargs

if TYPE_CHECKING:
    from PIL.Image import Image

    from clipsynth_rt.synthesis.synthesizer import Cancel

logger = logging.getLogger(__name__)

MAX_RETRY_S = 120


class QueueFullError(Exception):
    """There is no room for a request's clips.

    Args:
        retry_s: When there may be.
    """

    def __init__(self, retry_s: int) -> None:
        super().__init__(f"the queue is full for {retry_s} s")
        self.retry_s = retry_s


class QueueClosedError(Exception):
    """The server is about to stop, and takes nothing more."""


class PanicError(Exception):
    """A library failed in a way that is no ``Exception``, such as a panic of Rust code."""


class WorkerDiedError(Exception):
    """The thread that makes clips ended; none of those that wait will be made."""


@dataclass(eq=False)
class Job:
    """One clip that is waited for.

    Attributes:
        resolved: The options with every blank filled in; jobs of equal ones are made together.
        options: The arguments of ``synth_batch``.
        seed: Of its noise.
        query: What to hear, or None where a picture is given.
        image: The picture.
        init: The sound to make a variation of, if any: the same object for a request's jobs.
        waited_s: How long it was in the queue.
        batch: How many clips it was made with.
        future: The clip.
        abandoned: Whether nobody waits for it any longer.
    """

    resolved: ResolvedOptions
    options: SynthKwargs
    seed: int
    query: str | None = None
    image: Image | None = None
    init: AudioClip | None = None
    waited_s: float = 0.0
    batch: int = 0
    future: Future[AudioClip] = field(default_factory=Future)
    abandoned: bool = False
    entered: float = field(default_factory=time.perf_counter)

    @property
    def kind(self) -> tuple[bool, int | None, ResolvedOptions]:
        """What jobs of one batch have in common."""
        init = None if self.init is None else id(self.init)
        return self.image is None, init, self.resolved


Make = Callable[[Sequence[Job], "Cancel"], list[AudioClip]]
"""Make the clips of jobs of one kind, unless nobody waits for any of them any longer."""


class _Abandoned:
    """Set once nobody waits for any clip of a batch."""

    def __init__(self, batch: Sequence[Job]) -> None:
        self._batch = batch

    def is_set(self) -> bool:
        return all(job.abandoned for job in self._batch)


class Batcher:
    """Makes clips one batch at a time, in the order in which they came.

    A batch is the clip that has waited longest and others of the same options. No clip waits for
    others: a batch is what came while the last one was made.

    Args:
        make: Makes a batch.
        capacity: Clips that may wait; those being made are not among them.
        max_batch: Clips in a batch.

    Attributes:
        failure: What ended the thread that makes clips, if anything did.
        on_death: Called on that thread when that happens.
    """

    def __init__(self, make: Make, capacity: int, max_batch: int) -> None:
        self._synth, self.capacity, self._max_batch = make, capacity, max_batch
        self.failure: BaseException | None = None
        self.on_death: Callable[[], None] = lambda: None
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._clip_s = 1.0
        self._warm_up: Callable[[], None] | None = None
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, name="clipsynth-worker", daemon=True)

    def start(self, first: Callable[[], None] | None = None) -> None:
        """Begin to take and to make clips, if that has not begun.

        Args:
            first: Called on the thread that makes clips, before it makes any, and waited for: what
                is captured or compiled for a thread is then there for the first clip.

        Raises:
            Exception: What ``first`` raises.
        """
        if self._thread.ident is None:
            self._warm_up = first
            self._thread.start()
        self._started.result()

    @property
    def depth(self) -> int:
        """Clips that wait."""
        return len(self._waiting)

    @property
    def ready(self) -> bool:
        """Whether clips are taken and made."""
        return self._thread.is_alive() and not self._closed

    def submit(self, jobs: Sequence[Job]) -> None:
        """EncodedClip all clips of a request, or none.

        Raises:
            QueueFullError: If they do not all fit.
            QueueClosedError: If no more are taken.
        """
        with self._changed:
            if not self.ready:
                raise QueueClosedError
            if len(self._waiting) + len(jobs) > self.capacity:
                raise QueueFullError(self._retry_s())
            for job in jobs:
                job.entered = time.perf_counter()
            self._waiting += jobs
            self._changed.notify()

    def retry_s(self) -> int:
        """Return in how many seconds what waits now will be done, as far as can be told."""
        with self._changed:
            return self._retry_s()

    def _retry_s(self) -> int:
        ahead = len(self._waiting) + len(self._running)
        return min(MAX_RETRY_S, max(1, math.ceil(ahead * self._clip_s)))

    def abandon(self, jobs: Sequence[Job]) -> None:
        """Drop clips that nobody waits for: those in the queue leave it.

        A batch that is being made stops before its next step once all of it is abandoned.
        """
        with self._changed:
            for job in jobs:
                job.abandoned = True
                job.future.cancel()
            self._waiting = [job for job in self._waiting if not job.abandoned]

    def close(self) -> None:
        """EncodedClip nothing more, finish what was taken, and return when that is done."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        try:
            if self._warm_up is not None:
                self._warm_up()
            self._started.set_result(None)
        # for who waits for it in start
        except BaseException as error:
            self._started.set_exception(error)
            return
        try:
            while batch := self._next():
                self._time(batch)
        # whatever it is, those who wait must hear of it
        except BaseException as error:
            self._die(error)

    def _time(self, batch: Sequence[Job]) -> None:
        """Make a batch, and measure how long a clip takes."""
        began = time.perf_counter()
        for job in batch:
            job.waited_s, job.batch = began - job.entered, len(batch)
        if self._make(batch):
            taken = (time.perf_counter() - began) / len(batch)
            # follows a change of load within a few clips
            self._clip_s += 0.3 * (taken - self._clip_s)
        with self._changed:
            self._running = []

    def _die(self, error: BaseException) -> None:
        logger.critical("the thread that makes sounds died", exc_info=error)
        with self._changed:
            self._closed, self.failure = True, error
            jobs = self._running + self._waiting
            self._running, self._waiting = [], []
        for job in jobs:
            if not job.future.done():
                job.future.set_exception(WorkerDiedError())
        self.on_death()

    def _next(self) -> list[Job]:
        """Wait for clips and return the next batch, empty once the queue is closed and done."""
        with self._changed:
            while True:
                while not self._waiting:
                    if self._closed:
                        return []
                    self._changed.wait()
                kind = self._waiting[0].kind
                alike = [job for job in self._waiting if job.kind == kind][: self._max_batch]
                # sizes 1, 2, 4, ...: some providers compile for each size that they meet
                batch = alike[: 1 << (len(alike).bit_length() - 1)]
                self._waiting = [job for job in self._waiting if job not in batch]
                self._running = [job for job in batch if job.future.set_running_or_notify_cancel()]
                if self._running:
                    return self._running

    def _make(self, batch: Sequence[Job]) -> bool:
        """Make a batch, and return whether it was worth a measurement."""
        try:
            clips = self._synth(batch, _Abandoned(batch))
        except CancelledError as error:
            for job in batch:
                job.future.set_exception(error)
        # whatever it is, it must reach who waits for the clip, and not end this thread: a panic of
        # the tokenizer's library is no Exception
        except BaseException as error:
            if len(batch) > 1:
                # one clip's failure must not be its neighbours'
                for job in batch:
                    job.batch = 1
                    self._make([job])
            else:
                batch[0].future.set_exception(_as_exception(error))
        else:
            for job, clip in zip(batch, clips, strict=True):
                job.future.set_result(clip)
            return True
        return False


def _as_exception(error: BaseException) -> Exception:
    """Return an error as one that an event loop hands on."""
    if isinstance(error, Exception):
        return error
    panic = PanicError(f"{type(error).__name__}: {error}")
    panic.__cause__ = error
    return panic
