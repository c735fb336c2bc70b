"""``clipsynth-rt train``: the encoder, the denoiser, the vocoder and the judge."""

from __future__ import annotations

import dataclasses
import logging
import sys
from pathlib import Path

import click

from clipsynth_rt.errors import InputError

_FOLDER = click.Path(path_type=Path)
_OUT = click.option(
    "--out", required=True, type=_FOLDER, help="Checkpoint folder; a run in it is resumed."
)
_THREADS = click.option("--threads", type=click.IntRange(min=1), help="One a core if left out.")
_MINUTES = click.option("--max-minutes", type=click.FloatRange(min=0, min_open=True))


@click.group("train")
def command() -> None:
    """Train a voice: clip, then denoiser and vocoder; classifier to judge it."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)


def _set_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


@command.command("clip")
@click.option("--source-dir", default="/", show_default=True, type=_FOLDER)
@click.option("--config", type=_FOLDER, help="TOML file; the shipped encoder's if left out.")
@_OUT
@_THREADS
def clip(source_dir: Path, config: Path | None, out: Path, threads: int | None) -> None:
    """Train the small dual encoder on the corpus's pictures and their names."""
    from clipsynth_rt.training import train_clip

    _set_threads(threads)
    settings = train_clip.load_config(config) if config is not None else None
    report = train_clip.train_clip(source_dir, out, settings)
    click.echo(report)


@command.command("denoiser")
@click.argument("shards", metavar="SHARDS", type=_FOLDER)
@click.option("--clip", "clip_name", help="Checkpoint folder or open_clip model; shipped one.")
@click.option("--clip-pretrained", help="open_clip's tag or checkpoint file for --clip.")
@click.option("--labels", type=_FOLDER, help="labels.csv, for the variants text and hybrid.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    help="Only clips of this kind (labels.csv's column); may be repeated. All if left out.",
)
@click.option("--validation", type=_FOLDER, help="Shards of held-out clips.")
@click.option("--config", default="edge", show_default=True, help="edge, paper, tiny or a file.")
@click.option("--variant", help="image (CLIPSynth), text or hybrid; the configuration's.")
@click.option("--max-steps", type=click.IntRange(min=1))
@click.option("--cooldown-steps", default=0, show_default=True, type=click.IntRange(min=0))
@_MINUTES
@_OUT
@_THREADS
def denoiser(
    shards: Path,
    clip_name: str | None,
    clip_pretrained: str | None,
    labels: Path | None,
    kinds: tuple[str, ...],
    validation: Path | None,
    config: str,
    variant: str | None,
    max_steps: int | None,
    cooldown_steps: int,
    max_minutes: float | None,
    out: Path,
    threads: int | None,
) -> None:
    """Train the diffusion U-Net on SHARDS, from clipsynth-rt data prepare."""
    from clipsynth_rt.training import config as configs
    from clipsynth_rt.training.checkpoint import default_checkpoint
    from clipsynth_rt.training.clip import load_clip
    from clipsynth_rt.training.conditions import load_conditioned, read_labels
    from clipsynth_rt.training.distributed import join
    from clipsynth_rt.training.train_diffusion import DenoiserTrainer, RunLimits

    _set_threads(threads)
    settings = configs.load_config(config)
    if variant is not None:
        if variant not in configs.VARIANTS:
            raise InputError(f"--variant {variant}: must be one of {', '.join(configs.VARIANTS)}")
        optimiser = dataclasses.replace(settings.optimiser, variant=variant)
        settings = dataclasses.replace(settings, optimiser=optimiser)
    if settings.optimiser.variant == "text" and labels is None:
        raise InputError("--variant text needs --labels labels.csv")
    if kinds and labels is None:
        raise InputError("--kind needs --labels labels.csv")
    encoder = load_clip(clip_name or str(default_checkpoint()), clip_pretrained)
    if encoder.dim != settings.unet.condition_dim:
        unet = dataclasses.replace(settings.unet, condition_dim=encoder.dim)
        settings = dataclasses.replace(settings, unet=unet)
    data = load_conditioned(shards, encoder, settings.mel, labels, kinds)
    held_out = None
    if validation is not None:
        held_out = load_conditioned(validation, encoder, settings.mel, labels, kinds)
    join()
    # export tells pictures by them where texts alone were learnt from
    known = sorted(set(read_labels(labels).values())) if labels is not None else []
    trainer = DenoiserTrainer(settings, data, out, held_out, {"labels": known})
    trainer.run(
        RunLimits(max_steps=max_steps, max_minutes=max_minutes, cooldown_steps=cooldown_steps)
    )
    click.echo(f"{out}: denoiser at step {trainer.step}")


@command.command("vocoder")
@click.argument("shards", metavar="SHARDS", type=_FOLDER)
@click.option(
    "--config", default="light", show_default=True, help="light, v1, v2, v3 (HiFi-GAN) or a file."
)
@_MINUTES
@_OUT
@_THREADS
def vocoder(
    shards: Path, config: str, max_minutes: float | None, out: Path, threads: int | None
) -> None:
    """Train a vocoder on the sound of SHARDS."""
    from clipsynth_rt.training.train_vocoder import train_vocoder

    _set_threads(threads)
    click.echo(train_vocoder(config, shards, out, max_minutes=max_minutes))


@command.command("classifier")
@click.argument("shards", metavar="SHARDS", type=_FOLDER)
@click.option("--labels", required=True, type=_FOLDER, help="labels.csv")
@click.option("--validation", type=_FOLDER, help="Shards of held-out clips.")
@click.option("--epochs", default=12, show_default=True, type=click.IntRange(min=1))
@_OUT
@_THREADS
def classifier(
    shards: Path,
    labels: Path,
    validation: Path | None,
    epochs: int,
    out: Path,
    threads: int | None,
) -> None:
    """Train the classifier that judges voices, on real clips alone."""
    from clipsynth_rt.spec import MelSpec
    from clipsynth_rt.training.conditions import load_labelled
    from clipsynth_rt.training.train_classifier import train_classifier

    _set_threads(threads)
    spec = MelSpec()
    data, names = load_labelled(shards, spec, labels)
    held_out = load_labelled(validation, spec, labels)[0] if validation is not None else None
    metrics = train_classifier(data, names, spec, out, validation=held_out, epochs=epochs)
    click.echo(metrics)


@command.command("prior")
@click.argument("shards", metavar="SHARDS", type=_FOLDER)
@click.option("--labels", required=True, type=_FOLDER, help="labels.csv")
@click.option("--clip", "clip_name", help="Checkpoint folder or open_clip model; shipped one.")
@click.option("--validation", type=_FOLDER, help="Shards of held-out clips.")
@click.option("--steps", default=2000, show_default=True, type=click.IntRange(min=1))
@_OUT
@_THREADS
def prior(
    shards: Path,
    labels: Path,
    clip_name: str | None,
    validation: Path | None,
    steps: int,
    out: Path,
    threads: int | None,
) -> None:
    """Train a network from text to image embeddings, for voices that learnt from pictures.

    clipsynth-rt evaluate --cure prior --prior OUT asks a voice through it.
    """
    from clipsynth_rt.spec import MelSpec
    from clipsynth_rt.training.checkpoint import default_checkpoint
    from clipsynth_rt.training.clip import load_clip
    from clipsynth_rt.training.prior import load_pairs, train_prior

    _set_threads(threads)
    encoder = load_clip(clip_name or str(default_checkpoint()))
    pairs = load_pairs(shards, encoder, MelSpec(), labels)
    held_out = load_pairs(validation, encoder, MelSpec(), labels) if validation else None
    facts = {"encoder": encoder.name}
    click.echo(train_prior(pairs, out, validation=held_out, steps=steps, facts=facts))
