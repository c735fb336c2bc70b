"""Calls of one object by several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
REPEATS = 40
"""Calls of each thread: enough that they meet where nothing keeps them apart."""


def check_threads(make: Callable[[T], np.ndarray], asked: Sequence[T]) -> None:
    """Check that ``make`` gives each thread what it gives one that is alone."""
    wanted = [make(value) for value in asked]
    wrong: list[T] = []

    def work(number: int) -> None:
        for _ in range(REPEATS):
            if not np.array_equal(make(asked[number]), wanted[number]):
                wrong.append(asked[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
