"""``clipsynth-rt evaluate``: how good a voice is, as numbers."""

from __future__ import annotations

import dataclasses
import json
import logging
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from clipsynth_rt.cli.build import whole
from clipsynth_rt.cli.common.progress import query_progress, show_progress_lines
from clipsynth_rt.cli.common.voice import BUNDLE_HELP
from clipsynth_rt.cli.synth.targets import check_file
from clipsynth_rt.errors import InputError
from clipsynth_rt.files import sha256_of, write_atomically
from clipsynth_rt.machine import package_version

_FOLDER = click.Path(path_type=Path)


@click.command("evaluate")
@click.argument("shards", metavar="SHARDS", type=_FOLDER)
@click.option("--labels", required=True, type=_FOLDER, help="The corpus's labels.csv.")
@click.option("--bundle", metavar="BUNDLE", help=f"The voice. {BUNDLE_HELP}")
@click.option(
    "--checkpoint", type=_FOLDER, help="Folder with classifier and encoder; the shipped one."
)
@click.option(
    "--section",
    "sections",
    multiple=True,
    help="text, image, paraphrases, num_steps, vocoder (these if left out), systems, templates, "
    "gap, curves, teacher, obedience, one-shots, foley, or all (but foley); may be repeated.",
)
@click.option(
    "--system",
    "systems",
    multiple=True,
    metavar="NAME=PATH",
    help="A bundle or checkpoint that systems and gap compare; may be repeated.",
)
@click.option("--seeds", default=8, show_default=True, type=click.IntRange(min=1))
@click.option("--num-steps", type=click.IntRange(min=1, max=1000), help="The bundle's if left out.")
@click.option("--guidance-scale", type=float, help="The bundle's if left out.")
@click.option("--template", "templates", multiple=True, help="Of text queries; the bundle's.")
@click.option("--cure", help="Against the modality gap: none, mean_shift or prior.")
@click.option("--prior", type=_FOLDER, help="Folder that clipsynth-rt train prior wrote.")
@click.option(
    "--embedding",
    "embeddings",
    multiple=True,
    metavar="NAME=PATH",
    help="Weights for a further distance: vggish, panns, clap or inception; may be repeated.",
)
@click.option("--curve-steps", callback=whole, metavar="N,N", help="Step counts of curves.")
@click.option(
    "--teacher-steps",
    default=50,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Of the ordinary denoiser in the section teacher.",
)
@click.option(
    "--foley",
    type=_FOLDER,
    help="Real sounds in a folder a class, as in DCASE 2023 Task 7, for the section foley.",
)
@click.option("--concepts", type=click.IntRange(min=1), help="Ask for this many concepts only.")
@click.option("--resynthesis-clips", default=200, show_default=True, type=click.IntRange(min=1))
@click.option("--provider", default="auto", show_default=True)
@click.option("--cache", type=_FOLDER, help="Keep results here; a rerun makes only what changed.")
@click.option("-o", "--out", type=_FOLDER, help="Write the report here, as JSON.")
@click.option("--update", is_flag=True, help="Keep the sections that the report at -o already has.")
@click.option(
    "--page", type=_FOLDER, help="Write tables, plots, pictures and sounds as a page here."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of tables.")
def command(
    shards: Path,
    labels: Path,
    bundle: str | None,
    checkpoint: Path | None,
    sections: tuple[str, ...],
    systems: tuple[str, ...],
    seeds: int,
    num_steps: int | None,
    guidance_scale: float | None,
    templates: tuple[str, ...],
    cure: str | None,
    prior: Path | None,
    embeddings: tuple[str, ...],
    curve_steps: tuple[int, ...],
    teacher_steps: int,
    foley: Path | None,
    concepts: int | None,
    resynthesis_clips: int,
    provider: str,
    cache: Path | None,
    out: Path | None,
    update: bool,
    page: Path | None,
    as_json: bool,
) -> None:
    """Measure a voice on SHARDS (with the folders train and test) of the open corpus."""
    from clipsynth_rt.bundles.bundle import Bundle
    from clipsynth_training.checkpoint import default_checkpoint
    from clipsynth_training.evaluate import evaluation as reports
    from clipsynth_training.evaluate.cache import Cache
    from clipsynth_training.evaluate.measures.embedders import load_embedder
    from clipsynth_training.evaluate.report.tables import markdown
    from clipsynth_training.evaluate.sections import (
        CURVE_STEPS,
        Setup,
        check_measurable,
        check_names,
    )
    from clipsynth_training.evaluate.study import open_study
    from clipsynth_training.evaluate.systems import Voice

    # hours of silence would be taken for a run that hangs; the group above sets the level back
    logging.getLogger("clipsynth_training").setLevel(logging.INFO)
    show_progress_lines()
    names = reports.check_sections(sections)
    called = [_split(text)[0] for text in systems]
    try:
        check_names(called)
    except InputError as error:
        raise click.UsageError(f"--system: {error}") from error
    if update and out is None:
        raise InputError("--update needs -o FILE")
    earlier = _read_report(out) if update and out is not None else None
    if page is not None:
        from clipsynth_training.evaluate.report.page import check_page

        check_page(page)
    if out is not None:
        check_file(out)
    with ExitStack() as stack:
        results = Cache(cache)
        scratch = cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        study = open_study(
            checkpoint or default_checkpoint(), shards, labels, concept_count=concepts,
            cache=results,
            progress=stack.enter_context(query_progress("evaluating")),
        )  # fmt: skip
        study.embedders = [load_embedder(text, study.judge.mel_spec) for text in embeddings]
        opened = Bundle.open(bundle)
        setup = Setup(
            Voice(opened.manifest.name, opened, provider),
            seeds=seeds,
            num_steps=num_steps,
            guidance_scale=guidance_scale,
            template=list(templates) or None,
            cure=cure,
            prior=prior,
            curve_steps=curve_steps or CURVE_STEPS,
            teacher_steps=teacher_steps,
            resynthesis_clips=resynthesis_clips,
            foley_dir=foley,
        )
        # before checkpoints are exported, which takes minutes each
        check_measurable(study, setup, names)
        named = [_system(text, scratch) for text in systems]
        voices = [Voice(name, Bundle.open(path), provider) for name, path in named]
        setup = dataclasses.replace(setup, systems=voices)
        report = reports.evaluate(study, setup, sections, earlier)
        text = json.dumps(report, indent=1)
        if out is not None:
            write_atomically(out, (text + "\n").encode())
        if page is not None:
            from clipsynth_training.evaluate.report.page import write_page

            write_page(page, report, study, setup)
    click.echo(text if as_json else markdown(report), nl=as_json)
    if cache is not None:
        click.echo(f"{results.found} results from {cache}, {results.made} made anew", err=True)


def _split(text: str) -> tuple[str, Path]:
    """Return the two sides of ``NAME=PATH``."""
    name, _, place = text.partition("=")
    if not name or not place:
        raise InputError(f"--system {text}: give NAME=PATH, a bundle or a checkpoint folder")
    return name, Path(place)


def _system(text: str, scratch: Path) -> tuple[str, Path]:
    """Return the name and bundle of ``NAME=PATH``; a checkpoint is exported once."""
    name, path = _split(text)
    if (path / "manifest.json").is_file() or not (path / "denoiser.json").is_file():
        return name, path  # what is neither is refused as the bundle that it is not
    from clipsynth_export import assemble, graphs, precision, source, to_onnx, wrappers
    from clipsynth_training import checkpoint
    from clipsynth_training.clip import bert, image_tower, published_network
    from clipsynth_training.clip import encoder as clip
    from clipsynth_training.denoiser import conditions, unet
    from clipsynth_training.evaluate.cache import code_version, digest
    from clipsynth_training.vocoder import fourier, hifigan, istft, network

    code = code_version(
        *(assemble, graphs, precision, source, to_onnx, wrappers),
        *(checkpoint, clip, conditions),
        *(bert, image_tower, published_network, unet, fourier, hifigan, istft, network),
    )
    components = ("clip", "denoiser", "denoiser_distilled", "vocoder")
    files = {name: path / f"{name}.json" for name in components}
    facts = {name: sha256_of(file) for name, file in files.items() if file.is_file()}
    key = {
        "checkpoint": source.checkpoint_hashes(path),
        "facts": facts,
        "code": code,
        "libraries": {name: package_version(name) for name in ("onnx", "onnxruntime", "torch")},
    }
    out = scratch / f"{digest(key)}.bundle"
    if not out.is_dir():
        assemble.export_bundle(path, out, name=name)
    return name, out


def _read_report(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); leave --update out") from error
    if not isinstance(report, dict):
        raise InputError(f"{path}: is no report of clipsynth-rt evaluate; leave --update out")
    return report
