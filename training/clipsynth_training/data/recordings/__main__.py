"""``python -m clipsynth_training.data.recordings CACHE`` fetches the recordings."""

from __future__ import annotations

from pathlib import Path

import click

from clipsynth_rt.errors import ClipSynthError
from clipsynth_training.data.recordings.fetch import fetch


@click.command()
@click.argument("cache", type=click.Path(file_okay=False, path_type=Path))
def main(cache: Path) -> None:
    """Fetch every recording of the ledger into CACHE."""
    try:
        problems = fetch(cache)
    except ClipSynthError as error:
        raise click.ClickException(str(error)) from error
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        raise SystemExit(1)
    click.echo(f"{cache} holds every recording of the ledger")


if __name__ == "__main__":
    main()
