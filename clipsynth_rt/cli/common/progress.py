"""Progress bars of the long commands, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


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


@contextmanager
def engine_progress() -> Iterator[Callable[[float, int, str], None]]:
    """Yield a function (engines done, of how many, name) that draws a bar as ``query_progress``."""
    from tqdm import tqdm

    shape = "{desc} |{bar}| {n:.1f}/{total_fmt} engines [{elapsed}<{remaining}]"
    bars: list[Any] = []

    def advance(done: float, total: int, label: str) -> None:
        if not bars:
            # not before there is something to show: what is to be done is printed first
            bars.append(tqdm(total=total, disable=not sys.stderr.isatty(), bar_format=shape))
        bars[0].set_description_str(label, refresh=False)
        bars[0].update(done - bars[0].n)

    try:
        yield advance
    finally:
        for bar in bars:
            bar.close()
