"""What the commands that train share."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click

from clipsynth_rt.errors import InputError

FOLDER = click.Path(path_type=Path)
OUT = click.option(
    "--out", required=True, type=FOLDER, help="Checkpoint folder; a run in it is resumed."
)
KINDS = click.option(
    "--kind",
    "kinds",
    multiple=True,
    help="Only clips of this kind (labels.csv's column); may be repeated. All if left out.",
)
REPEATS = click.option(
    "--repeat",
    "repeats",
    multiple=True,
    metavar="NAME=N",
    help="This label is drawn N times as often as otherwise; may be repeated.",
)
DEVICE = click.option("--device", default="cpu", show_default=True, help="cpu, or cuda.")
THREADS = click.option("--threads", type=click.IntRange(min=1), help="One a core if left out.")
DEFAULT_MINUTES = 60.0
"""Length of a run that is told no end."""
MINUTES = click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    help=f"End after this long, saved; {DEFAULT_MINUTES:g} without --max-steps.",
)


def parse_repeats(repeats: tuple[str, ...]) -> dict[str, int]:
    """Read NAME=N.

    Raises:
        InputError: If one is something else.
    """
    times = {}
    for text in repeats:
        name, _, count = text.rpartition("=")
        if not name or not count.isdecimal() or not 1 <= int(count) <= 1000:
            raise InputError(f"--repeat {text}: write a label and a count, such as piano=3")
        times[name] = int(count)
    return times


def default_minutes(max_steps: int | None, max_minutes: float | None) -> float | None:
    """Return when a run ends by time, and say so where nobody chose an end."""
    if max_steps is not None or max_minutes is not None:
        return max_minutes
    click.echo(
        f"no --max-steps or --max-minutes: this run ends after {DEFAULT_MINUTES:g} minutes, and "
        "the same command goes on",
        err=True,
    )
    return DEFAULT_MINUTES


def set_threads(threads: int | None) -> None:
    """Give PyTorch this many threads; its own choice if None."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def end(out: Path, what: str, stopped_by: int | None) -> None:
    """Say where a run stands, and end as the signal that stopped it asks."""
    from clipsynth_training.run.interruption import exit_code

    if stopped_by is None:
        click.echo(f"{out}: {what}")
        return
    name = signal.Signals(stopped_by).name
    click.echo(f"{out}: {what} saved on {name}; the same command goes on")
    sys.exit(exit_code(stopped_by))
