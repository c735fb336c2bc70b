"""Progress of the long commands, on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from clipsynth_rt import progress


def show_progress_lines() -> None:
    """Show the lines of ``clipsynth_rt.progress`` until the present command ends."""
    logger = logging.getLogger(progress.__name__)
    level = logger.level
    logger.setLevel(logging.INFO)
    click.get_current_context().call_on_close(lambda: logger.setLevel(level))


@contextmanager
def query_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function (done, total) that shows how many queries are done.

    Each run from the first query to the last has a bar, or lines, of its own.
    """
    shown: list[progress.Progress] = []

    def close() -> None:
        while shown:
            shown.pop().close()

    def advance(done: int, total: int) -> None:
        if shown and (done < shown[0].done or total != shown[0].total):
            close()
        if not shown:
            shown.append(progress.Progress(title, total, "query"))
        shown[0].update(done)
        if done >= total:
            close()

    try:
        yield advance
    finally:
        close()


@contextmanager
def engine_progress() -> Iterator[Callable[[float, int, str], None]]:
    """Yield a function (engines done, of how many, name) that draws a bar on a terminal."""
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
