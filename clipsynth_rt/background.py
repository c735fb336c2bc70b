"""An iterator whose items a background thread makes ahead of their use."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_POLL_S = 0.1


class BackgroundIterator(Generic[T]):
    """Iterates over items that a background thread makes ahead, a bounded number of them.

    An exception in the thread is raised in place of the item. ``close()``, or the end of a ``with``
    block, stops the thread before the last item.

    Args:
        make: Given the event that asks it to stop, yields the items.
        prefetch: Finished items that wait at most; one more may be in the making.
    """

    def __init__(self, make: Callable[[threading.Event], Iterator[T]], prefetch: int) -> None:
        self._made: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(prefetch)
        self._stop = threading.Event()
        self._done = False
        self._thread = threading.Thread(
            # not a method of self: the thread would keep an abandoned iterator alive
            target=_produce,
            args=(make, self._made, self._stop),
            name="clipsynth-background",
            daemon=True,
        )
        self._thread.start()

    def __iter__(self) -> BackgroundIterator[T]:
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
        """Stop the thread and wait for it to end, which it does between two network calls."""
        self._done = True
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> BackgroundIterator[T]:
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
