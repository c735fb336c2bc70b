"""Work done ahead of whoever uses its results."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_POLL_S = 0.1


class Ahead(Generic[T]):
    """Iterates over results that a background thread makes ahead, a bounded number of them.

    An exception of the producer is raised where its result would have come. Leaving the iteration
    early, by ``close()`` or by the end of a ``with`` block, stops the thread.

    Args:
        make: Given the event that says "stop", yields the results.
        ahead: Finished results that wait at most; one more may be in the making.
    """

    def __init__(self, make: Callable[[threading.Event], Iterator[T]], ahead: int) -> None:
        self._made: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(ahead)
        self._stop = threading.Event()
        self._done = False
        self._thread = threading.Thread(
            # not a method of self: the thread would keep an abandoned iterator alive
            target=_produce,
            args=(make, self._made, self._stop),
            name="clipsynth-ahead",
            daemon=True,
        )
        self._thread.start()

    def __iter__(self) -> Ahead[T]:
        return self

    def __next__(self) -> T:
        found: tuple[T] | BaseException | None = None
        while not self._done:
            try:
                found = self._made.get(timeout=_POLL_S)
            except queue.Empty:
                continue  # another thread may have closed it
            break
        if isinstance(found, tuple):
            return found[0]
        self.close()
        if found is None:
            raise StopIteration
        raise found

    def close(self) -> None:
        """Stop making more, and wait for the thread to end; it looks up between two steps."""
        self._done = True
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._stop.set()


def _produce(
    make: Callable[[threading.Event], Iterator[T]],
    made: queue.Queue[tuple[T] | BaseException | None],
    stop: threading.Event,
) -> None:
    def put(item: tuple[T] | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                made.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    try:
        for item in make(stop):
            if not put((item,)):
                return
    except BaseException as error:
        # of no interest where the one who iterates has had enough
        put(error)
    else:
        put(None)
