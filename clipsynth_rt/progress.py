"""Progress of long work: a bar on a terminal, lines at a steady pace elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger(__name__)

TELL_EVERY_S = 30.0
"""Seconds from one line to the next where there is no terminal."""
FIRST_ESTIMATE_S = 5.0
"""Seconds until the first of these lines: shorter work says nothing."""


class Progress:
    """Counts what is done, and shows it with its rate and the time left.

    Args:
        title: What is being done, such as ``preparing videos``.
        total: How much there is to do.
        unit: One of them, in the singular.
        done: How many an earlier run did; they do not count for the rate.
    """

    def __init__(self, title: str, total: int, unit: str, done: int = 0) -> None:
        from tqdm import tqdm

        self.title, self.total, self.unit, self.done = title, total, unit, done
        self._first = done
        self._began = time.monotonic()
        self._next = self._began + FIRST_ESTIMATE_S
        self._told = False
        self._bar: Any = tqdm(
            total=total, initial=done, desc=title, unit=unit, leave=False, smoothing=0.05,
            disable=not _on_terminal(),
        )  # fmt: skip

    def advance(self, count: int = 1) -> None:
        """Add ``count`` to what is done."""
        self.update(self.done + count)

    def update(self, done: int) -> None:
        """Set how much is done in all."""
        count, self.done = done - self.done, done
        self._bar.update(count)
        now = time.monotonic()
        if self._bar.disable and now >= self._next and done < self.total:
            self._next = now + TELL_EVERY_S
            self._told = True
            logger.info("%s", self.line(now - self._began))

    def line(self, seconds: float) -> str:
        """Return what is done after ``seconds`` of work, in words."""
        done = f"{self.title}: {self.done:,} of {self.total:,} {self.unit}s"
        made = self.done - self._first
        if made <= 0 or seconds <= 0.0:
            return done
        rate = made / seconds
        pace = f"{rate:.3g} a second" if rate >= 1.0 else f"{1.0 / rate:.3g} s each"
        return f"{done}, {pace}, {duration((self.total - self.done) / rate)} left"

    def close(self) -> None:
        """Take the bar away; where lines were written, write the last one."""
        self._bar.close()
        if self._told:
            seconds = time.monotonic() - self._began
            logger.info(
                "%s: %s of %s %ss in %s",
                *(self.title, f"{self.done:,}", f"{self.total:,}", self.unit, duration(seconds)),
            )


@contextmanager
def progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Progress]:
    """Yield a ``Progress`` that is closed at the end."""
    shown = Progress(title, total, unit, done)
    try:
        yield shown
    finally:
        shown.close()


def duration(seconds: float) -> str:
    """Return a length of time in words, of two digits or so.

    >>> duration(42), duration(600), duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
