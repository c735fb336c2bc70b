"""A mapping that forgets what was used longest ago."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LRU(Generic[K, V]):
    """Keeps the values used last, and gives back what the others hold.

    Not safe among threads by itself: its users hold a lock anyway, for what they make.

    Args:
        size: Values that are kept, at least 1.
        release: Called with each value that is forgotten.

    >>> squares = LRU(2)
    >>> [squares.get(n, lambda n=n: n * n) for n in (1, 2, 1, 3)]
    [1, 4, 1, 9]
    >>> 2 in squares, 1 in squares
    (False, True)
    """

    def __init__(self, size: int, release: Callable[[V], object] = lambda value: None) -> None:
        self._size, self._release = size, release
        self._kept: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, make: Callable[[], V] | None = None) -> V:
        """Return the value of ``key``, made where it is not kept.

        Room is made first: a value may hold memory that the new one needs.

        Raises:
            KeyError: If it is not kept, and there is nothing to make it.
        """
        if key not in self._kept:
            if make is None:
                raise KeyError(key)
            while len(self._kept) >= self._size:
                self._release(self._kept.popitem(last=False)[1])
            self._kept[key] = make()
        self._kept.move_to_end(key)
        return self._kept[key]

    def clear(self) -> None:
        """Forget everything."""
        while self._kept:
            self._release(self._kept.popitem(last=False)[1])

    def __contains__(self, key: object) -> bool:
        return key in self._kept

    def __iter__(self) -> Iterator[K]:
        return iter(tuple(self._kept))

    def __len__(self) -> int:
        return len(self._kept)
