"""The open audio-visual corpus: unlabeled short videos of sounds and pictures anyone may ship.

``build`` writes ``train/``, ``validation/`` and ``test/`` with one MP4 a clip, named by an id that
says nothing; ``labels.csv`` says apart what each clip is, ``ATTRIBUTION.md`` who made what was
used. A concept with too few pictures has sound without a picture track.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import io
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.errors import DataError, OutputError
from clipsynth_rt.files import writable_folder, write_json, write_text
from clipsynth_rt.machine import cpu_count
from clipsynth_rt.progress import progress
from clipsynth_training.data.attribution import attribution
from clipsynth_training.data.parallel import Crashed, ordered_map
from clipsynth_training.data.pictures.catalogue import (
    Picture,
    assign_splits,
    find_pictures,
    pictures_for,
)
from clipsynth_training.data.pictures.raster import rasterise_all
from clipsynth_training.data.report import SkipReport
from clipsynth_training.data.shards import to_int16
from clipsynth_training.data.sounds import (
    SOURCES,
    SPLITS,
    ClipPlan,
    Concept,
    Renderer,
    load_concepts,
    plan_clips,
)
from clipsynth_training.data.stills import DRAWN_SIZE, still_frames, write_video

logger = logging.getLogger(__name__)

LABELS = (
    "id", "split", "concept", "kind", "source", "soundfont", "license",
    "picture", "picture_source", "picture_license", "variants",
)  # fmt: skip
MIN_PICTURES = 2
"""Drawings that a concept needs to be seen; one of them at least is kept for test."""
IDENTITY = "corpus.json"
DRAWINGS = ".drawings.safetensors"


@dataclass(frozen=True)
class Job:
    """One clip to write: its sound, and its picture with its row in the drawings."""

    plan: ClipPlan
    picture: Picture | None = None
    row: int = -1

    @property
    def path(self) -> Path:
        """The video, relative to the corpus."""
        return Path(self.plan.split) / f"{self.plan.id}.mp4"

    def label(self) -> dict[str, str]:
        """Return this clip's row of ``labels.csv``."""
        plan, picture, source = self.plan, self.picture, SOURCES[self.plan.source]
        return {
            "id": plan.id,
            "split": plan.split,
            "concept": plan.concept,
            "kind": plan.kind,
            "source": f"{source.path}#{plan.preset}",
            "soundfont": source.name,
            "license": plan.license,
            "picture": picture.id if picture else "",
            "picture_source": picture.source if picture else "",
            "picture_license": picture.license if picture else "",
            "variants": "image+text" if picture else "text",
        }


@dataclass(frozen=True)
class _Maker:
    """Picklable task function: writes one clip; returns why it could not be made, or ""."""

    out_dir: Path
    source_dir: Path | None
    seed: int

    def __call__(self, job: Job) -> str:
        try:
            audio = to_int16(_renderer(self.source_dir).render(job.plan))
        except DataError as error:
            return str(error)
        frames = []
        rate = MelSpec().sample_rate
        if job.picture is not None:
            drawing = _drawings(self.out_dir / DRAWINGS).get_slice("pixels")[job.row]
            rng = np.random.default_rng([self.seed, int(job.plan.id, 16)])
            frames = still_frames(drawing, job.picture.tint, len(audio) / rate, rng)
        write_video(self.out_dir / job.path, audio, frames, rate)
        return ""


@functools.lru_cache(maxsize=1)
def _renderer(source_dir: Path | None) -> Renderer:
    return Renderer(source_dir)


@functools.lru_cache(maxsize=1)
def _drawings(path: Path) -> Any:
    return safe_open(path, "numpy")


def build(
    out_dir: str | Path,
    source_dir: str | Path | None = None,
    num_clips: int = 24000,
    seed: int = 0,
    workers: int | None = None,
) -> dict[str, Any]:
    """Write the corpus; the same seed and sources give the same files, byte for byte.

    A run that was stopped goes on where it was. Clips that are there already are kept, provided
    that the folder was begun with the same plan.

    Args:
        out_dir: Made if missing.
        source_dir: Where the sources were unpacked; the system's folders if None.
        num_clips: Clips to plan, over all splits.
        seed: Decides everything.
        workers: Processes; one a core if None.

    Returns:
        The report: clips a split, concepts without pictures, what could not be made.

    Raises:
        DataError: If a source is missing, or the folder holds another corpus.
        OutputError: If the corpus cannot be written.
    """
    out_dir = Path(out_dir)
    source_dir = None if source_dir is None else Path(source_dir)
    Renderer(source_dir)  # a missing source is found before anything is written
    concepts = load_concepts()
    plans = plan_clips(concepts, num_clips, seed)
    pictures = find_pictures(source_dir or Path("/"))
    wanted = {picture.id for concept in concepts for picture in pictures_for(concept, pictures)}
    matched = [picture for picture in pictures if picture.id in wanted]
    existed = out_dir.exists()
    writable_folder(out_dir)
    try:
        drawn, _ = rasterise_all(matched, DRAWN_SIZE, out_dir / DRAWINGS)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{out_dir / DRAWINGS}: cannot be written ({error})") from error
    jobs = assign_pictures(plans, concepts, drawn, assign_splits(pictures, concepts), seed)
    _check_identity(out_dir, jobs, num_clips, seed)
    skipped = SkipReport()
    _write_clips(_Maker(out_dir, source_dir, seed), jobs, workers or cpu_count(), skipped)
    missing = {path for _, path, _ in skipped.entries}
    made = [job for job in jobs if str(job.path) not in missing]
    (out_dir / DRAWINGS).unlink()
    if not made:
        _forget(out_dir, existed)
        raise DataError(f"{out_dir}: no clip could be made ({skipped.entries[0][2]})")
    undrawn = sorted({picture.id for picture in matched} - {picture.id for picture in drawn})
    facts = {"num_clips": num_clips, "seed": seed, **_summary(made), "pictures_undrawn": undrawn}
    return _finish(out_dir, made, facts | skipped.to_dict())


def assign_pictures(
    plans: Sequence[ClipPlan],
    concepts: Iterable[Concept],
    pictures: Sequence[Picture],
    split: Mapping[str, str],
    seed: int,
) -> list[Job]:
    """Give each clip a random picture of its concept, from the clip's own split.

    Validation clips of a concept without a validation picture show a training picture; test
    pictures are shown in test alone. A concept with fewer than ``MIN_PICTURES`` pictures, or
    with none for training or none for test, is not shown at all.

    Args:
        plans: The clips.
        concepts: Those of the plans.
        pictures: Drawings, in the order of their rows.
        split: Picture id -> split.
        seed: Decides the choice, with the clip's id.
    """
    rows = {picture.id: row for row, picture in enumerate(pictures)}
    choices: dict[tuple[str, str], list[Picture]] = {}
    for concept in concepts:
        found = pictures_for(concept, pictures)
        by_split = {name: [p for p in found if split[p.id] == name] for name in SPLITS}
        if len(found) >= MIN_PICTURES and by_split["train"] and by_split["test"]:
            by_split["validation"] = by_split["validation"] or by_split["train"]
            choices |= {(concept.name, name): chosen for name, chosen in by_split.items()}
    jobs = []
    for plan in plans:
        chosen = choices.get((plan.concept, plan.split))
        if chosen is None:
            jobs.append(Job(plan))
            continue
        picture = chosen[np.random.default_rng([seed, int(plan.id, 16), 1]).integers(len(chosen))]
        jobs.append(Job(plan, picture, rows[picture.id]))
    return jobs


def _check_identity(folder: Path, jobs: Sequence[Job], num_clips: int, seed: int) -> None:
    """Write which corpus this is; a folder that holds another is not added to."""
    digest = hashlib.sha256()
    for job in jobs:
        digest.update(repr((job.plan, job.picture and job.picture.id)).encode())
    identity = {"num_clips": num_clips, "seed": seed, "plan_sha256": digest.hexdigest()}
    path = folder / IDENTITY
    if not path.exists():
        write_json(path, identity)
        return
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        name = next((key for key in identity if earlier[key] != identity[key]), None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); build into another folder") from error
    if name is not None:
        (folder / DRAWINGS).unlink(missing_ok=True)
        raise DataError(
            f"{path}: holds a corpus of {name} {earlier[name]}, not {identity[name]}; "
            "build into another folder"
        )


def _write_clips(maker: _Maker, jobs: Sequence[Job], workers: int, skipped: SkipReport) -> None:
    for name in SPLITS:
        writable_folder(maker.out_dir / name)
    todo = [job for job in jobs if not (maker.out_dir / job.path).exists()]
    done = len(jobs) - len(todo)
    logger.info(
        "rendering %d of %d clips into %s, workers: %d%s",
        *(
            len(todo),
            len(jobs),
            maker.out_dir,
            workers,
            f"; {done} are there already" if done else "",
        ),
    )
    with progress("rendering", len(jobs), "clip", done) as shown:
        for job, problem in ordered_map(maker, todo, workers):
            if isinstance(problem, Crashed):
                skipped.add("crashed", str(job.path), job.plan.preset)
            elif problem:
                skipped.add("not_rendered", str(job.path), problem)
            shown.advance()


def _summary(made: Sequence[Job]) -> dict[str, Any]:
    seen = {job.plan.concept for job in made if job.picture}
    return {
        "clips": dict(Counter(job.plan.split for job in made)),
        "clips_with_pictures": dict(Counter(job.plan.split for job in made if job.picture)),
        "pictures": {
            name: len({j.picture.id for j in made if j.picture and j.plan.split == name})
            for name in SPLITS
        },
        "concepts": len({job.plan.concept for job in made}),
        "concepts_without_pictures": sorted({job.plan.concept for job in made} - seen),
    }


def _finish(folder: Path, made: Sequence[Job], facts: dict[str, Any]) -> dict[str, Any]:
    """Write labels, attribution and report."""
    table = io.StringIO()
    writer = csv.DictWriter(table, LABELS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(job.label() for job in made)
    write_text(folder / "labels.csv", table.getvalue())
    sources = {job.plan.source for job in made}
    pictures = {job.picture.id: job.picture for job in made if job.picture}
    write_text(folder / "ATTRIBUTION.md", attribution(sources, pictures.values()))
    write_json(folder / "report.json", facts)
    return facts


def _forget(folder: Path, existed: bool) -> None:
    """Leave no trace of a build that made nothing."""
    (folder / IDENTITY).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for name in SPLITS:
            (folder / name).rmdir()
        if not existed:
            folder.rmdir()
