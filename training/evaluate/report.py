"""The evaluation as one command runs it, and the Markdown table that the README shows."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clipsynth_rt.errors import DataError, InputError
from clipsynth_rt.machine import describe_machine
from clipsynth_rt.pipeline import Synthesizer
from clipsynth_rt.spec import Manifest
from clipsynth_rt.training.evaluate.protocol import (
    Judge,
    LabelledClips,
    Progress,
    distances,
    hear_queries,
    hear_real,
    resynthesis,
)

PARTS = ("text", "image", "steps", "vocoder")


def evaluate(
    checkpoint: str | Path,
    shards: str | Path,
    labels_csv: str | Path,
    *,
    bundle: str | Path | None = None,
    parts: Sequence[str] = PARTS,
    seeds: int = 8,
    steps: int | None = None,
    guidance: float | None = None,
    step_counts: Sequence[int] = (2, 4, 8, 16, 25),
    guidance_scales: Sequence[float] = (1.0, 2.0, 3.0, 4.0),
    resynthesis_clips: int = 200,
    provider: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a bundle on the open corpus.

    Args:
        checkpoint: Folder with the classifier.
        shards: Folder with the shard folders ``train`` and ``test``.
        labels_csv: The corpus's labels.
        bundle: The voice; None is the one that ships.
        parts: What to measure: ``text`` and ``image`` queries of every concept, ``steps`` and
            guidance curves, ``vocoder`` resynthesis.
        seeds: Clips a concept.
        steps: Sampling steps; None is the bundle's default.
        guidance: Guidance scale; None is the bundle's default.
        step_counts: Of the curve.
        guidance_scales: Of the curve.
        resynthesis_clips: Real test clips sent through the vocoder and Griffin-Lim.
        provider: Where graphs run.
        progress: Called with (queries done, queries in all) of the part under way.

    Returns:
        A report of JSON data: ``real``, ``text``, ``image``, ``steps``, ``guidance``,
        ``vocoder``, and where and when it was measured.

    Raises:
        InputError: If a part is not known.
        ClipSynthError: If an input cannot be used.
    """
    if unknown := sorted(set(parts) - set(PARTS)):
        raise InputError(f"no such part: {unknown[0]}; parts are {', '.join(PARTS)}")
    judge = Judge(checkpoint)
    synthesizer = Synthesizer.from_bundle(bundle, provider=provider)
    open_split = lambda split: LabelledClips.open(  # noqa: E731
        Path(shards) / split, labels_csv, judge.labels, judge.mel_spec
    )
    test, train = open_split("test"), open_split("train")
    real_test, real_train = hear_real(judge, test), hear_real(judge, train, limit=2500)
    real = real_test.scores(judge.labels)
    diffusion = synthesizer.bundle.manifest.diffusion
    report: dict[str, Any] = {
        "measured": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        "bundle": synthesizer.bundle.manifest.name,
        "bundle_sha256": _fingerprint(synthesizer.bundle.manifest, without="image_encoder"),
        "image_encoder_sha256": _fingerprint(synthesizer.bundle.manifest, "image_encoder"),
        "steps_default": diffusion.num_steps if steps is None else steps,
        "guidance_default": diffusion.guidance_scale if guidance is None else guidance,
        "fad_embedding": "penultimate layer of the corpus classifier",
        "concepts": len(judge.labels),
        "real": {key: real[key] for key in ("clips", "top1", "top1_interval", "top5")},
        "real_hard_concepts": {
            name: found
            for name, found in real["by_concept"].items()
            if found["right"] < 0.7 * found["of"]
        },
    }
    wishes = {"steps": steps, "guidance": guidance}

    def ask(kind: str, queries: Sequence[Any], targets: Sequence[int], n: int, **w: Any) -> Any:
        heard, rtf = hear_queries(
            judge, synthesizer, queries, targets, kind=kind, seeds=n, progress=progress, **w
        )
        scores = heard.scores(judge.labels)
        found = {"provider": synthesizer.session("denoiser_step").provider, "rtf_in_batches": rtf}
        return {**scores, **distances(heard, real_test, real_train), **found}

    everything = range(len(judge.labels))
    if "text" in parts:
        report["text"] = ask("text", judge.labels, everything, seeds, **wishes)
    if "image" in parts:
        pictures, targets = picture_queries(test, judge.labels)
        report["image"] = ask("image", pictures, targets, seeds, **wishes)
    if "steps" in parts:
        few = max(1, seeds // 4)
        report["steps"] = {
            str(count): _brief(ask("text", judge.labels, everything, few, steps=count))
            for count in step_counts
        }
        report["guidance"] = {
            str(scale): _brief(
                ask("text", judge.labels, everything, few, steps=steps, guidance=scale)
            )
            for scale in guidance_scales
        }
    if "vocoder" in parts:
        report["vocoder"] = resynthesis(judge, synthesizer, test, resynthesis_clips)
    return report


def merge(earlier: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    """Return ``report`` with the parts that only ``earlier`` has.

    The image encoder may have changed where all that depends on it was measured again.

    Raises:
        InputError: If the two were not measured on one bundle under the same defaults.
    """
    keys = ["bundle_sha256", "steps_default", "guidance_default", "machine", "real"]
    if "image" in earlier and "image" not in report:
        keys.append("image_encoder_sha256")
    for key in keys:
        if earlier.get(key) != report.get(key):
            raise InputError(
                f"the earlier report has {key} {earlier.get(key)}, this one {report.get(key)}: "
                "they cannot be merged; write to another file"
            )
    return {**earlier, **report}


def _fingerprint(manifest: Manifest, graph: str | None = None, without: str = "") -> str:
    """Return one hash of the files of ``graph``, or of every graph but one."""
    names = [graph] if graph is not None else [n for n in manifest.graphs if n != without]
    files = [spec.sha256 for name in names for spec in manifest.graphs[name].files.values()]
    return hashlib.sha256("".join(sorted(files)).encode()).hexdigest()


def _brief(scores: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in scores.items() if key != "by_concept"}


def picture_queries(test: LabelledClips, labels: Sequence[str]) -> tuple[list[Any], list[int]]:
    """Return one test picture (PIL image) of each concept that has any, and its label index.

    Raises:
        DataError: If no test clip has a picture.
    """
    from PIL import Image

    pictures, targets = [], []
    for index in range(len(labels)):
        for row in test.rows[test.target == index]:
            frame = test.shards.frames([int(row)])[0, 0]
            if frame.max() > 0:
                pictures.append(Image.fromarray(np.asarray(frame)))
                targets.append(index)
                break
    if not pictures:
        raise DataError("no test clip has a picture; leave the part image out")
    return pictures, targets


def markdown(report: dict[str, Any]) -> str:
    """Return the README's tables of a report."""
    lines = [
        f"Measured {report['measured']} on {report['machine']}; bundle `{report['bundle']}`, "
        f"{report['steps_default']} steps, guidance {report['guidance_default']:g}; "
        f"{report['concepts']} concepts; FAD under the {report['fad_embedding']}.",
        "",
        "| sounds | clips | top-1 | top-5 | FAD to real test |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    real = report["real"]
    fad = next((report[k]["fad_train_vs_test"] for k in ("text", "image") if k in report), None)
    lines.append(_row("real test clips", real, "0"))
    if fad is not None:
        lines.append(f"| real training clips | | | | {fad:.1f} |")
    for kind in ("text", "image"):
        if kind in report:
            scores = report[kind]
            lines.append(_row(f"{kind} queries", scores, f"{scores['fad_generated_vs_test']:.1f}"))
    made = {k: report[k]["provider"] for k in ("text", "image") if "provider" in report.get(k, {})}
    if made:
        lines += ["", f"Provider: {', '.join(f'{k} {where}' for k, where in made.items())}."]
    for title in ("steps", "guidance"):
        if title in report:
            lines += ["", f"| {title} | top-1 | top-5 | FAD |", "| ---: | ---: | ---: | ---: |"]
            lines += [
                f"| {key} | {_percent(s['top1'])} | {_percent(s['top5'])} "
                f"| {s['fad_generated_vs_test']:.1f} |"
                for key, s in report[title].items()
            ]
    if "vocoder" in report:
        found = report["vocoder"]
        lines += [
            "",
            f"| mel to sound, {found['clips']} real test clips (top-1 of the originals "
            f"{_percent(found['real_top1'])}) | mel-L1, nats | multi-resolution STFT | LSD, dB "
            "| top-1 |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        for key, name in (("vocoder", "shipped vocoder"), ("griffin_lim_60", "Griffin-Lim, 60")):
            s = found[key]
            lines.append(
                f"| {name} | {s['mel_l1']:.3f} | {s['mr_stft']:.3f} | {s['lsd_db']:.2f} "
                f"| {_percent(s['top1'])} |"
            )
    return "\n".join(lines) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _row(name: str, scores: dict[str, Any], fad: str) -> str:
    low, high = scores["top1_interval"]
    return (
        f"| {name} | {scores['clips']} | {_percent(scores['top1'])} "
        f"({100 * low:.0f}–{100 * high:.0f}) | {_percent(scores['top5'])} | {fad} |"
    )
