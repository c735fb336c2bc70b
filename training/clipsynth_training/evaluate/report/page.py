"""A folder that shows an evaluation: tables, plots, mel pictures, and sounds to play."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.audio.clip import AudioClip
from clipsynth_rt.files import writable_folder, write_atomically, write_text
from clipsynth_training.evaluate.protocol import LabelledClips
from clipsynth_training.evaluate.report import plots
from clipsynth_training.evaluate.report.html import file_name, render
from clipsynth_training.evaluate.report.tables import markdown
from clipsynth_training.evaluate.sections import Setup
from clipsynth_training.evaluate.study import Study
from clipsynth_training.evaluate.systems import Real, Resynthesis

SHOWN = 12
"""Queries whose sounds are on the page."""


def check_page(folder: Path) -> None:
    """Check, before anything is measured, that the page can be written.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        OutputError: If the folder cannot be written to.
    """
    plots.check_matplotlib()
    writable_folder(folder)


def write_page(folder: str | Path, report: dict[str, Any], study: Study, setup: Setup) -> Path:
    """Write ``index.html``, ``report.json``, ``report.md``, plots and sounds; return the page.

    Sounds are ``sounds/SYSTEM/QUERY.flac``, which ``clipsynth-rt listening`` takes.

    Raises:
        OutputError: If a file cannot be written.
    """
    folder = writable_folder(Path(folder))
    tables = markdown(report)
    write_text(folder / "report.json", json.dumps(report, indent=1) + "\n")
    write_text(folder / "report.md", tables)
    queries, heard = samples(study, setup)
    pictures = _plots(report)
    pictures["mels"] = _mel_grid(study, queries, heard)
    for name, png in pictures.items():
        write_atomically(folder / f"{name}.png", png)
    rate = study.judge.mel_spec.sample_rate
    files = {name: _write_sounds(folder, name, queries, heard[name], rate) for name in heard}
    page = render(
        "report.html", report=report, blocks=blocks(tables), pictures=pictures, queries=queries,
        files=files,
    )  # fmt: skip
    write_text(folder / "index.html", page)
    return folder / "index.html"


def samples(
    study: Study, setup: Setup, count: int = SHOWN
) -> tuple[list[str], dict[str, NDArray[np.int16]]]:
    """Return ``count`` concepts, and a sound of each, int16 [N, T], by every voice and for real.

    A real sound also comes as the vocoder gives it back from its mel.
    """
    whole = setup.question(study, "text", 1)
    rows = np.linspace(0, len(whole.queries) - 1, min(count, len(whole.queries))).round()
    chosen = rows.astype(int).tolist()
    question = dataclasses.replace(
        whole,
        queries=[whole.queries[row] for row in chosen],
        target=[whole.target[row] for row in chosen],
    )
    heard = {
        voice.name: voice.answer(question, study.cache, study.progress).audio
        for voice in setup.systems or (setup.voice,)
    }
    first = [np.flatnonzero(study.test.target == target) for target in question.target]
    kept = [number for number, found in enumerate(first) if len(found)]
    real = LabelledClips(
        study.test.shards,
        study.test.rows[[first[number][0] for number in kept]],
        np.array([question.target[number] for number in kept]),
    )
    heard = {name: audio[kept] for name, audio in heard.items()}
    system = Resynthesis(setup.voice, Real(real), study.analyse)
    # in the order of the labels, which is that of the questions
    heard["resynthesis"] = system.answer(None, study.cache).audio
    heard["real"] = Real(real).answer(None, study.cache).audio
    return [question.queries[number] for number in kept], heard


def blocks(text: str) -> list[dict[str, Any]]:
    """Return Markdown of paragraphs and tables, as ``tables.markdown`` writes it, in pieces."""
    found: list[dict[str, Any]] = []
    for block in text.strip().split("\n\n"):
        lines = block.splitlines()
        if not lines[0].startswith("|"):
            found.append({"text": block.replace("`", "")})
            continue
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        found.append({"head": rows[0], "rows": rows[2:]})
    return found


def _plots(report: Mapping[str, Any]) -> dict[str, bytes]:
    found = {}
    if "num_steps" in report:
        found["num_steps"] = plots.curves({"ddim": report["num_steps"], **_distilled(report)})
        found["guidance_scale"] = plots.curves({"ddim": report["guidance_scale"]}, "guidance_scale")
    if "curves" in report:
        found["curves"] = plots.curves(
            {**report["curves"]["num_steps"], **_distilled(report["curves"])}
        )
        found["guidance_scale"] = plots.curves(
            {"ddim": report["curves"]["guidance_scale"]}, "guidance_scale"
        )
    return found


def _distilled(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return a distilled denoiser's step counts as a series of their own, if there are any."""
    return {"distilled": figures["distilled"]} if "distilled" in figures else {}


def _mel_grid(
    study: Study, queries: Sequence[str], heard: Mapping[str, NDArray[np.int16]]
) -> bytes:
    shown = {
        name: study.analyse(sounds.astype(np.float32) / 32767.0) for name, sounds in heard.items()
    }
    return plots.mels({name: list(mel) for name, mel in shown.items()}, queries)


def _write_sounds(
    folder: Path, system: str, queries: Sequence[str], sounds: NDArray[np.int16], rate: int
) -> list[str]:
    where = writable_folder(folder / "sounds" / file_name(system))
    names = []
    for query, sound in zip(queries, sounds, strict=True):
        path = where / f"{file_name(query)}.flac"
        AudioClip(sound.astype(np.float32) / 32767.0, rate).save(path)
        names.append(path.relative_to(folder).as_posix())
    return names
