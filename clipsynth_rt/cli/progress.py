"""Progress bars of the long commands, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def query_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function (done, total) that draws a bar on stderr where that is a terminal."""
    from tqdm import tqdm

    with tqdm(desc=title, disable=not sys.stderr.isatty(), leave=False) as bar:

        def advance(done: int, total: int) -> None:
            if done < bar.n or bar.total != total:
                bar.reset(total)
            bar.update(done - bar.n)

        yield advance
