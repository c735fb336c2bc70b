"""``clipsynth-rt export``: a checkpoint to a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from clipsynth_rt.cli.build import TARGETS_HELP, numbers
from clipsynth_rt.cli.common.voice import BUNDLE_HELP

_FOLDER = click.Path(path_type=Path)
_EXPORTING = (
    "checkpoint",
    "out",
    "name",
    "license_id",
    "author",
    "clip",
    "clip_pretrained",
    "sentence_encoder",
    "engines",
    "targets",
)
"""Options that ask for an export of a checkpoint."""


@click.command("export")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    metavar="P",
    help="edge (what ships; the default), small (as edge, in fp32 arithmetic), fp32, fp16, "
    "fp16-products (engines for Turing), int8 or int8-vocoder (not of a HiFi-GAN); several fill "
    "one bundle, and the first is what it runs unless asked otherwise.",
)
@click.option("--checkpoint", type=_FOLDER, help="Checkpoint folder; the shipped one if left out.")
@click.option("--out", type=_FOLDER, help="Bundle folder; ./clipsynth-bundle-P if left out.")
@click.option("--name", help="The bundle's name; its folder's if left out.")
@click.option(
    "--license",
    "license_id",
    metavar="SPDX",
    help="Licence of the weights, such as CC-BY-4.0; 'not stated' if left out, but for the shipped "
    "checkpoint.",
)
@click.option("--author", help="Who made the voice; 'not stated' if left out.")
@click.option(
    "--clip", metavar="NAME", help="Checkpoint folder or open_clip model; the checkpoint's own."
)
@click.option("--clip-pretrained", metavar="TAG", help="open_clip's tag or checkpoint file.")
@click.option(
    "--sentence-encoder", type=_FOLDER, help="Weights of the text tower; its installed package."
)
@click.option("--threads", type=click.IntRange(min=1), help="One a core if left out.")
@click.option(
    "--engines/--no-engines",
    default=None,
    help="Build TensorRT engines of the fp16 graphs too; where a builder is installed if left out.",
)
@click.option("--targets", callback=numbers, metavar="CC,CC", help=TARGETS_HELP)
@click.option(
    "--triton",
    type=_FOLDER,
    metavar="DIR",
    help="Write a model repository of Triton Inference Server, from a bundle (no torch needed), or "
    "from what --checkpoint or --out exports.",
)
@click.option("--bundle", metavar="BUNDLE", help=f"For --triton. {BUNDLE_HELP}")
@click.option(
    "--gpu", is_flag=True, help="For --triton: for the server's GPU; for its CPU if left out."
)
@click.option(
    "--tensorrt",
    is_flag=True,
    help="For --triton: ONNX Runtime's TensorRT provider, on the server's GPU.",
)
@click.pass_context
def command(
    context: click.Context,
    precisions: tuple[str, ...],
    checkpoint: Path | None,
    out: Path | None,
    name: str | None,
    license_id: str | None,
    author: str | None,
    clip: str | None,
    clip_pretrained: str | None,
    sentence_encoder: Path | None,
    threads: int | None,
    engines: bool | None,
    targets: tuple[str, ...],
    triton: Path | None,
    bundle: str | None,
    gpu: bool,
    tensorrt: bool,
) -> None:
    """Turn a checkpoint into a bundle of ONNX graphs, each measured against PyTorch.

    \b
      clipsynth-rt export                       (the shipped weights, as they ship)
      clipsynth-rt export --precision fp16 --checkpoint run/ --out bundle/
      clipsynth-rt export --precision fp16 --targets 86,89,120   (and engines for these GPUs)
      clipsynth-rt export --triton models/      (the shipped bundle for tritonserver)
      clipsynth-rt synth drum -o drum.wav --bundle bundle/
    """  # noqa: D301  (click reads \b as "keep these lines")
    exporting = _given(context, _EXPORTING)
    _check_usage(exporting, triton, bundle, gpu or tensorrt)
    if triton is not None and not exporting:
        _write_triton(bundle, triton, precisions, gpu, tensorrt)
        return
    import torch

    from clipsynth_export.assemble import check_presets, export_bundle
    from clipsynth_export.to_engine import export_engines, wants_engines
    from clipsynth_rt.cli.common.progress import engine_progress
    from clipsynth_training.checkpoint import default_checkpoint

    presets = check_presets(precisions or ("edge",))
    if threads is not None:
        torch.set_num_threads(threads)
    out = out or Path(f"clipsynth-bundle-{presets[0]}")
    engines = wants_engines(engines, presets, targets, click.echo)
    export_bundle(
        checkpoint or default_checkpoint(),
        out,
        presets,
        name,
        license_id=license_id,
        author=author,
        clip=clip,
        clip_pretrained=clip_pretrained,
        sentence_encoder=sentence_encoder,
        threads=threads,
        progress=click.echo,
    )
    if engines:
        with engine_progress() as progress:
            built = export_engines(out, targets, report=click.echo, progress=progress)
        click.echo(f"{built.paths[0].parent}: {len(built.paths)} engines by {built.library}")
    if triton is not None:
        _write_triton(out, triton, (), gpu, tensorrt)


def _given(context: click.Context, names: tuple[str, ...]) -> list[str]:
    """Return which options stand on the command line."""
    default = click.core.ParameterSource.DEFAULT
    return [name for name in names if context.get_parameter_source(name) is not default]


def _check_usage(
    exporting: list[str], triton: Path | None, bundle: str | None, on_gpu: bool
) -> None:
    if triton is None and (bundle is not None or on_gpu):
        raise click.UsageError("--bundle, --gpu and --tensorrt are for --triton DIR")
    if bundle is not None and exporting:
        option = exporting[0].removesuffix("_id").replace("_", "-")
        raise click.UsageError(
            f"--bundle is exported already, and --{option} is for exporting a checkpoint; leave "
            "one of the two out"
        )


def _write_triton(
    bundle: str | Path | None, out: Path, precisions: tuple[str, ...], gpu: bool, tensorrt: bool
) -> None:
    from clipsynth_export.to_triton import write_repository
    from clipsynth_rt.bundles.bundle import Bundle

    if len(precisions) > 1:
        raise click.UsageError("--triton takes one --precision")
    opened = Bundle.open(bundle)
    precision = precisions[0] if precisions else None
    write_repository(opened, out, precision, gpu=gpu, tensorrt=tensorrt)
    click.echo(f"{out}: {opened.manifest.name} for tritonserver --model-repository={out}")
