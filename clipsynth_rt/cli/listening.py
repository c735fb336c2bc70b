"""``clipsynth-rt listening``: tests with listeners, as static pages, and what they said."""

from __future__ import annotations

import json
from pathlib import Path

import click

from clipsynth_rt.files import write_atomically

_PATH = click.Path(path_type=Path)
_OUT = click.option("-o", "--out", required=True, type=_PATH, help="Folder of the test; made.")
_TITLE = click.option("--title", default="Listening test", show_default=True)


@click.group("listening")
def command() -> None:
    """Make listening tests as web pages, and turn their results into scores."""


@command.command("mushra")
@click.argument("sounds", metavar="SOUNDS", type=_PATH)
@_OUT
@click.option("--reference", default="real", show_default=True, help="What others are held to.")
@click.option("--system", "systems", multiple=True, help="Which to rate; all if left out.")
@click.option(
    "--anchor",
    "anchors",
    multiple=True,
    type=click.FloatRange(min=100),
    help="Cut-off in Hz of a low-pass anchor; may be repeated. 3500 and 7000 if left out, "
    "3500 alone for sounds of 15000 Hz or less.",
)
@_TITLE
def mushra(
    sounds: Path,
    out: Path,
    reference: str,
    systems: tuple[str, ...],
    anchors: tuple[float, ...],
    title: str,
) -> None:
    """Make a MUSHRA test (ITU-R BS.1534-3) of the folder SOUNDS, which holds SYSTEM/NAME.wav.

    clipsynth-rt evaluate --page PAGE writes such a folder: PAGE/sounds.
    """
    from clipsynth_training.evaluate.listening.kit import mushra_kit

    page = mushra_kit(
        sounds, out, reference=reference, systems=systems, anchors_hz=anchors or None, title=title
    )
    _done(page)


@command.command("ab")
@click.argument("sounds", metavar="SOUNDS", type=_PATH)
@_OUT
@click.option("--system", "systems", multiple=True, help="Which to compare; all if left out.")
@click.option(
    "--question",
    default="Which one sounds more like “{name}”?",
    show_default=True,
    help="{name} is the sound's.",
)
@_TITLE
def ab(sounds: Path, out: Path, systems: tuple[str, ...], question: str, title: str) -> None:
    """Make a test of preference between every two systems of the folder SOUNDS."""
    from clipsynth_training.evaluate.listening.kit import ab_kit

    _done(ab_kit(sounds, out, systems=systems, question=question, title=title))


@command.command("score")
@click.argument("kit", metavar="TEST", type=_PATH)
@click.argument("results", metavar="RESULT...", nargs=-1, required=True, type=_PATH)
@click.option("-o", "--out", type=_PATH, help="Write the scores here, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of tables.")
def score(kit: Path, results: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Turn the files that listeners downloaded into scores with intervals and a win matrix."""
    from clipsynth_training.evaluate.listening import scores as listening_scores

    report = listening_scores.score(kit, results)
    text = json.dumps(report, indent=1)
    if out is not None:
        write_atomically(out, (text + "\n").encode())
    click.echo(text if as_json else listening_scores.markdown(report), nl=as_json)


def _done(page: Path) -> None:
    click.echo(f"{page}: give the folder to listeners, without key.json, which tells what is what")
