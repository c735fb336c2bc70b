"""Batches that are made in the background while the network computes, or as they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")

PREFETCH = 4
"""Batches that wait ready."""


class Prefetcher(Generic[T]):
    """Makes what the next steps need before they ask.

    Args:
        make: Step number -> its batch; called from several threads.
        readers: How many; with none, a batch is made when it is asked for.
    """

    def __init__(self, make: Callable[[int], T], readers: int) -> None:
        self.make, self.readers = make, readers
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: dict[int, Future[T]] = {}

    def take(self, step: int) -> T:
        """Return the batch of ``step``, and begin those that follow."""
        if not self.readers:
            return self.make(step)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.readers, thread_name_prefix="batches")
        for number in list(self._ahead):
            if number < step or number > step + PREFETCH:  # the caller has jumped
                self._ahead.pop(number).cancel()
        for number in range(step, step + PREFETCH + 1):
            if number not in self._ahead:
                self._ahead[number] = self._pool.submit(self.make, number)
        return self._ahead.pop(step).result()

    def close(self) -> None:
        """Stop making more, until ``take`` is called again."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool, self._ahead = None, {}
