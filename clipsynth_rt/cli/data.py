"""``clipsynth-rt data``: build the open corpus, cut videos into shards, fetch the sources."""

from __future__ import annotations

import logging
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import click

from clipsynth_rt.cli.common.progress import show_progress_lines
from clipsynth_rt.errors import DataError

_FOLDER = click.Path(path_type=Path)
_WORKERS = click.option(
    "--workers", type=click.IntRange(min=1), help="Processes; one a usable core if left out."
)


@click.group("data")
def command() -> None:
    """Build the open corpus, or training shards from any folder of videos."""
    # hours of silence would be taken for a run that hangs; the group above sets the level back
    logging.getLogger("clipsynth_training").setLevel(logging.INFO)
    show_progress_lines()


@command.command("openav")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option(
    "--source-dir", type=_FOLDER, help="Where data fetch put the sources; else the system's."
)
@click.option(
    "--edition",
    type=click.Choice(["1", "2"]),
    default="1",
    show_default=True,
    help="1: soundfonts and pictures at 22 kHz, what the shipped voice learnt from. 2: models, "
    "recordings and soundfonts at 44.1 kHz with captions, without pictures so far.",
)
@click.option(
    "--recordings",
    type=_FOLDER,
    metavar="CACHE",
    help="For edition 2: where python -m clipsynth_training.data.recordings CACHE put them.",
)
@click.option("--clips", type=click.IntRange(min=1), help="24000, of edition 2 40000.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@_WORKERS
def openav(
    folder: Path,
    source_dir: Path | None,
    edition: str,
    recordings: Path | None,
    clips: int | None,
    seed: int,
    workers: int | None,
) -> None:
    """Write the open corpus to DIR: unlabeled videos, and labels apart from them."""
    if (edition == "2") != (recordings is not None):
        raise click.UsageError("--edition 2 and --recordings CACHE go together")
    if recordings is not None:
        from clipsynth_training.data.corpus import build as second

        report = second.build(folder, recordings, source_dir, clips or 40_000, seed, workers)
        kinds = ", ".join(f"{n} {kind}" for kind, n in report["clips_by_kind"].items())
        click.echo(f"{report['concepts']} concepts, {report['hours']:.1f} hours: {kinds}")
        _echo_skipped(report, folder / "report.json")
        return
    from clipsynth_training.data import openav as corpus

    report = corpus.build(folder, source_dir, clips or 24_000, seed, workers)
    for split, count in report["clips"].items():
        shown = report["clips_with_pictures"].get(split, 0)
        pictures = report["pictures"][split]
        click.echo(f"{split}: {count} clips, {shown} of them show one of {pictures} pictures")
    without = report["concepts_without_pictures"]
    click.echo(
        f"{report['concepts']} concepts; {len(without)} have too few pictures and serve the "
        f"text-conditioned variants only: {', '.join(without) or 'none'}"
    )
    _echo_skipped(report, folder / "report.json")


@command.command("prepare")
@click.argument("videos", metavar="VIDEOS", type=_FOLDER)
@click.argument("shards", metavar="SHARDS", type=_FOLDER)
@click.option(
    "--clips-per-video",
    default=10,
    show_default=True,
    type=click.IntRange(min=1),
    help="At most, from the start of each video.",
)
@click.option(
    "--frames", default=352, show_default=True, type=click.IntRange(min=8), help="Mel frames."
)
@click.option(
    "--hop",
    type=click.IntRange(min=1),
    help="Mel frames from clip to clip; the length of a clip if left out.",
)
@click.option(
    "--images", default=3, show_default=True, type=click.IntRange(1, 64), help="Pictures a clip."
)
@click.option(
    "--frame-size",
    "image_size",
    default=128,
    show_default=True,
    type=click.IntRange(8, 1024),
    help="Pixels of a picture, as the CLIP takes.",
)
@click.option(
    "--config",
    default="edge",
    show_default=True,
    help="Of the denoiser that will be trained: its mel spectrogram is written.",
)
@click.option(
    "--keep-pictureless",
    is_flag=True,
    help="Take files without a picture track too, for text-conditioned training.",
)
@_WORKERS
def prepare(
    videos: Path,
    shards: Path,
    clips_per_video: int,
    frames: int,
    hop: int | None,
    images: int,
    image_size: int,
    config: str,
    keep_pictureless: bool,
    workers: int | None,
) -> None:
    """Cut every video under the folder VIDEOS into clips, and write them to the folder SHARDS.

    Links to folders are followed. A run that was stopped goes on where it was. Files that cannot be
    used are skipped, and listed in SHARDS/report.json; so are files that are used although
    something is unusual: gap (a hole in the sound's timestamps, silence here), damaged_packets
    (silence in their place), opposite_phase (channels that cancel; the louder one is used).
    """
    from clipsynth_training.data import videos as preparation
    from clipsynth_training.data.clips import CutSpec
    from clipsynth_training.denoiser.config import load_config

    cut = CutSpec(
        mel=load_config(config).mel,
        num_frames=frames,
        hop_frames=hop or frames,
        clips_per_video=clips_per_video,
        images=images,
        image_size=image_size,
        keep_pictureless=keep_pictureless,
    )
    report = preparation.prepare(videos, shards, cut, workers)
    click.echo(f"{report['clips']} clips of {report['videos']} videos in {shards}")
    _echo_skipped(report, shards / "report.json")


@command.command("fetch")
@click.argument("folder", metavar="DIR", type=_FOLDER)
def fetch(folder: Path) -> None:
    """Fetch and unpack the open corpus's sources into DIR, through apt-get and npm, without root.

    Then: clipsynth-rt data openav CORPUS --source-dir DIR
    """
    bash = shutil.which("bash")
    if bash is None:
        raise DataError("bash is not installed; it runs the script that fetches the sources")
    script = resources.files("clipsynth_training.data") / "fetch_sources.sh"
    with resources.as_file(script) as path:
        status = subprocess.run([bash, str(path), str(folder)], check=False).returncode
    if status != 0:
        raise DataError(f"{folder}: the sources were not fetched (exit {status}); see above")


def _echo_skipped(report: dict[str, Any], path: Path) -> None:
    for remark, files in report.get("remarks", {}).items():
        more = ", ..." if len(files) > 5 else ""
        click.echo(f"used {len(files)} {remark}: {', '.join(files[:5])}{more}")
    for reason, count in report["skipped"].items():
        files = [entry["path"] for entry in report["skipped_files"] if entry["reason"] == reason]
        more = ", ..." if count > 5 else ""
        click.echo(f"skipped {count} {reason}: {', '.join(files[:5])}{more}")
    if report["skipped"] or report.get("remarks"):
        click.echo(f"all of them are listed in {path}")
