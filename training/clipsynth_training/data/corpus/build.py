"""Build the second edition of the open corpus: short sounds with captions, and labels apart.

Every clip is as long as its sound. Its id says nothing; ``labels.csv`` says apart what it is, what
it was made from, and what may be said of it.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from clipsynth_rt.errors import DataError
from clipsynth_rt.files import writable_folder, write_json, write_text
from clipsynth_rt.machine import cpu_count
from clipsynth_training.data.corpus.captions import write_caption
from clipsynth_training.data.corpus.catalogue import CorpusConcept, load_corpus_concepts
from clipsynth_training.data.parallel import Crashed, ordered_map
from clipsynth_training.data.procedural.model import SAMPLE_RATE
from clipsynth_training.data.report import SkipReport
from clipsynth_training.data.shards import to_int16
from clipsynth_training.data.stills import write_video

LABELS = (
    "id", "split", "concept", "group", "kind", "origin", "license", "seconds", "attributes",
    "parameters", "captions",
)  # fmt: skip
SPLITS = {"train": 0.86, "validation": 0.04, "test": 0.1}
"""Share of each split. Validation draws from the training side, with seeds of its own."""
CAPTIONS_PER_CLIP = 6
TRIES = 4
"""Draws of a clip before it counts as one that cannot be made."""


@dataclass(frozen=True)
class ClipPlan:
    """What decides one clip."""

    id: str
    split: str
    concept: str
    source: int
    seed: tuple[int, ...]

    @property
    def path(self) -> Path:
        """The video, relative to the corpus."""
        return Path(self.split) / f"{self.id}.mp4"


def plan_clips(concepts: Sequence[CorpusConcept], num_clips: int, seed: int) -> list[ClipPlan]:
    """Spread clips evenly over concepts, and each concept's over its sources.

    Raises:
        DataError: If there are too few clips for one of each concept and split.
    """
    least = len(SPLITS) * len(concepts)
    if num_clips < least:
        raise DataError(
            f"{num_clips} clips cannot cover {len(concepts)} concepts in {len(SPLITS)} splits; "
            f"ask for at least {least}"
        )
    plans = []
    for number, concept in enumerate(concepts):
        count = num_clips // len(concepts) + (number < num_clips % len(concepts))
        for split, share in SPLITS.items():
            side = "test" if split == "test" else "train"
            able = [i for i, source in enumerate(concept.sources) if side in source.splits()]
            for index in range(max(1, round(share * count)) if able else 0):
                name = f"{seed}/{concept.name}/{split}/{index}"
                digest = hashlib.sha256(name.encode()).digest()
                numbers = tuple(np.frombuffer(digest[:16], "<u4").tolist())
                source = able[index % len(able)]
                plans.append(ClipPlan(digest.hex()[:16], split, concept.name, source, numbers))
    return plans


@dataclass(frozen=True)
class _Maker:
    """Picklable task function: writes one clip; returns its row of labels, or why there is none."""

    out_dir: Path
    cache: Path
    source_dir: Path | None

    def __call__(self, plan: ClipPlan) -> dict[str, str] | str:
        concept = _concepts(self.cache, self.source_dir)[plan.concept]
        source = concept.sources[plan.source]
        side = "test" if plan.split == "test" else "train"
        problem = ""
        for attempt in range(TRIES):
            rng = np.random.default_rng([*plan.seed, attempt])
            try:
                clip = source.draw(side, rng)
            except DataError as error:
                problem = str(error)
                continue
            write_video(self.out_dir / plan.path, to_int16(clip.samples), (), SAMPLE_RATE)
            names = list(dict.fromkeys((concept.name, *concept.names, *clip.names)))
            captions = [
                write_caption(names, clip.attributes, rng, held_out=False)
                for _ in range(CAPTIONS_PER_CLIP)
            ]
            return {
                "id": plan.id,
                "split": plan.split,
                "concept": concept.name,
                "group": concept.group,
                "kind": source.kind,
                "origin": clip.origin,
                "license": clip.license,
                "seconds": f"{len(clip.samples) / SAMPLE_RATE:.3f}",
                "attributes": json.dumps(clip.attributes, sort_keys=True),
                "parameters": json.dumps(clip.parameters, sort_keys=True),
                "captions": json.dumps(list(dict.fromkeys(captions)), ensure_ascii=False),
            }
        return problem


@functools.lru_cache(maxsize=1)
def _concepts(cache: Path, source_dir: Path | None) -> dict[str, CorpusConcept]:
    return {concept.name: concept for concept in load_corpus_concepts(cache, source_dir)}


def build(
    out_dir: str | Path,
    cache: str | Path,
    source_dir: str | Path | None = None,
    num_clips: int = 40_000,
    seed: int = 0,
    workers: int | None = None,
) -> dict[str, Any]:
    """Write the corpus; the same seed and sources give the same clips.

    Args:
        out_dir: Made if missing.
        cache: Folder of the recordings.
        source_dir: Root of the soundfonts; the system's folders if None.
        num_clips: Clips to plan, over all splits.
        seed: Decides everything.
        workers: Processes; one a usable core if None.

    Returns:
        The report: clips by split, kind and group, and what could not be made.

    Raises:
        DataError: If a source is missing, or no clip could be made.
        OutputError: If the corpus cannot be written.
    """
    out = writable_folder(Path(out_dir))
    for split in SPLITS:
        writable_folder(out / split)
    maker = _Maker(out, Path(cache), None if source_dir is None else Path(source_dir))
    plans = plan_clips(list(_concepts(maker.cache, maker.source_dir).values()), num_clips, seed)
    rows, skipped = _write_clips(maker, plans, workers or cpu_count())
    if not rows:
        raise DataError(f"{out}: no clip could be made ({skipped.entries[0][2]})")
    table = io.StringIO()
    writer = csv.DictWriter(table, LABELS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out / "labels.csv", table.getvalue())
    report = {
        "num_clips": num_clips,
        "seed": seed,
        "concepts": len({row["concept"] for row in rows}),
        **{
            f"clips_by_{key}": dict(Counter(row[key] for row in rows))
            for key in ("split", "kind", "group")
        },
        "hours": sum(float(row["seconds"]) for row in rows) / 3600,
        **skipped.to_dict(),
    }
    write_json(out / "report.json", report)
    return report


def _write_clips(
    maker: _Maker, plans: Iterable[ClipPlan], workers: int
) -> tuple[list[dict[str, str]], SkipReport]:
    rows: list[dict[str, str]] = []
    skipped = SkipReport()
    todo = list(plans)
    with tqdm(total=len(todo), unit="clip", disable=None) as bar:
        for plan, made in ordered_map(maker, todo, workers):
            if isinstance(made, Crashed):
                skipped.add("crashed", str(plan.path), plan.concept)
            elif isinstance(made, str):
                skipped.add("not_rendered", str(plan.path), f"{plan.concept}: {made}")
            else:
                rows.append(made)
            bar.update()
    return rows, skipped
