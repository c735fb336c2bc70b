"""``clipsynth-rt evaluate``: how good a voice is, as numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from clipsynth_rt.audio import write_atomically
from clipsynth_rt.cli.progress import query_progress
from clipsynth_rt.errors import InputError

_FOLDER = click.Path(path_type=Path)


@click.command("evaluate")
@click.argument("shards", metavar="SHARDS", type=_FOLDER)
@click.option("--labels", required=True, type=_FOLDER, help="The corpus's labels.csv.")
@click.option("--bundle", type=_FOLDER, help="The voice; the one that ships if left out.")
@click.option("--checkpoint", type=_FOLDER, help="Folder with the classifier; the shipped one.")
@click.option("--part", "parts", multiple=True, help="text, image, steps or vocoder; default: all.")
@click.option("--seeds", default=8, show_default=True, type=click.IntRange(min=1))
@click.option("--steps", type=click.IntRange(min=1, max=1000), help="The bundle's if left out.")
@click.option("--guidance", type=float, help="The bundle's if left out.")
@click.option("--resynthesis-clips", default=200, show_default=True, type=click.IntRange(min=1))
@click.option("--provider", default="auto", show_default=True)
@click.option("-o", "--out", type=_FOLDER, help="Write the report here, as JSON.")
@click.option("--update", is_flag=True, help="Keep the parts that the report at -o already has.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of tables.")
def command(
    shards: Path,
    labels: Path,
    bundle: Path | None,
    checkpoint: Path | None,
    parts: tuple[str, ...],
    seeds: int,
    steps: int | None,
    guidance: float | None,
    resynthesis_clips: int,
    provider: str,
    out: Path | None,
    update: bool,
    as_json: bool,
) -> None:
    """Measure a voice on SHARDS (with the folders train and test) of the open corpus."""
    from clipsynth_rt.training.checkpoint import default_checkpoint
    from clipsynth_rt.training.evaluate import report as reports

    earlier = None
    if update:
        if out is None:
            raise InputError("--update needs -o FILE")
        earlier = _read_report(out)
    with query_progress("evaluating") as progress:
        report = reports.evaluate(
            checkpoint or default_checkpoint(),
            shards,
            labels,
            bundle=bundle,
            parts=parts or reports.PARTS,
            seeds=seeds,
            steps=steps,
            guidance=guidance,
            resynthesis_clips=resynthesis_clips,
            provider=provider,
            progress=progress,
        )
    if earlier is not None:
        report = reports.merge(earlier, report)
    text = json.dumps(report, indent=1)
    if out is not None:
        write_atomically(out, (text + "\n").encode())
    click.echo(text if as_json else reports.markdown(report), nl=as_json)


def _read_report(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); leave --update out") from error
    if not isinstance(report, dict):
        raise InputError(f"{path}: is no report of clipsynth-rt evaluate; leave --update out")
    return report
