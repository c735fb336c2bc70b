"""``clipsynth-rt train``: the encoder, the denoiser, the vocoder and the judge."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import click

from clipsynth_rt.cli.train import finetune
from clipsynth_rt.cli.train.common import (
    DEVICE,
    FOLDER,
    KINDS,
    MINUTES,
    OUT,
    REPEATS,
    THREADS,
    default_minutes,
    end,
    parse_repeats,
    set_threads,
)
from clipsynth_rt.errors import InputError


@click.group("train")
def command() -> None:
    """Train a voice: clip, then denoiser and vocoder; classifier to judge it."""
    # hours of silence would be taken for a run that hangs; the group above sets the level back
    logging.getLogger("clipsynth_training").setLevel(logging.INFO)


command.add_command(finetune.command)


@command.command("clip")
@click.option("--source-dir", default="/", show_default=True, type=FOLDER)
@click.option("--config", type=FOLDER, help="TOML file; the shipped encoder's if left out.")
@click.option(
    "--text-from",
    type=FOLDER,
    help="Checkpoint folder whose text tower is kept, so that denoisers of its texts stay valid.",
)
@OUT
@THREADS
def clip(
    source_dir: Path, config: Path | None, text_from: Path | None, out: Path, threads: int | None
) -> None:
    """Train the small dual encoder on the corpus's pictures and their names."""
    from clipsynth_training.clip import train as train_clip
    from clipsynth_training.run.interruption import StopSignals

    set_threads(threads)
    settings = train_clip.load_config(config or train_clip.DEFAULT_CONFIG)
    with StopSignals() as signals:
        report = train_clip.train_clip(
            source_dir, out, settings, text_from=text_from, signals=signals
        )
    click.echo(report)
    end(out, "clip", signals.received)


@command.command("denoiser")
@click.argument("shards", metavar="SHARDS", type=FOLDER)
@click.option("--clip", "clip_name", help="Checkpoint folder or open_clip model; shipped one.")
@click.option("--clip-pretrained", help="open_clip's tag or checkpoint file for --clip.")
@click.option("--labels", type=FOLDER, help="labels.csv, for the variants text and hybrid.")
@KINDS
@click.option("--validation", type=FOLDER, help="Shards of held-out clips.")
@click.option(
    "--config",
    default="edge",
    show_default=True,
    help="edge, paper, tiny, condition (for --fresh-condition), further (after it) or a file.",
)
@click.option("--variant", help="image (CLIPSynth), text or hybrid; the configuration's.")
@click.option(
    "--from-checkpoint",
    "start",
    type=FOLDER,
    help="Checkpoint folder whose denoiser a new run begins with.",
)
@click.option(
    "--fresh-condition",
    is_flag=True,
    help="With --from-checkpoint: draw the layer that reads the condition anew and train it alone, "
    "which makes another variant in minutes.",
)
@REPEATS
@click.option(
    "--accumulate",
    type=click.IntRange(min=1),
    help="Compute a batch in this many parts, in less memory; the configuration's.",
)
@click.option(
    "--stream/--no-stream",
    default=None,
    help="Read clips from the disk as needed; by itself for a corpus that would crowd the memory.",
)
@click.option("--max-steps", type=click.IntRange(min=1))
@click.option("--cooldown-steps", default=0, show_default=True, type=click.IntRange(min=0))
@MINUTES
@click.option(
    "--sample", "queries", multiple=True, help="A query to sample as it goes; may be repeated."
)
@click.option(
    "--samples-every",
    default=1000,
    show_default=True,
    type=click.IntRange(min=0),
    help="Steps between samples, as pictures of their mels; 0 for none.",
)
@click.option("--sounds", is_flag=True, help="Write samples as WAV files too.")
@click.option("--tensorboard", is_flag=True, help="Log to TensorBoard too, where installed.")
@DEVICE
@OUT
@THREADS
def denoiser(
    shards: Path,
    clip_name: str | None,
    clip_pretrained: str | None,
    labels: Path | None,
    kinds: tuple[str, ...],
    validation: Path | None,
    config: str,
    variant: str | None,
    start: Path | None,
    fresh_condition: bool,
    repeats: tuple[str, ...],
    accumulate: int | None,
    stream: bool | None,
    max_steps: int | None,
    cooldown_steps: int,
    max_minutes: float | None,
    queries: tuple[str, ...],
    samples_every: int,
    sounds: bool,
    tensorboard: bool,
    device: str,
    out: Path,
    threads: int | None,
) -> None:
    """Train the diffusion U-Net on SHARDS, from clipsynth-rt data prepare.

    Goes on where a run in --out was, however it ended. SIGTERM and Ctrl-C save first.
    """
    import torch

    from clipsynth_training.checkpoint import check_weights, default_checkpoint, load_component
    from clipsynth_training.clip.encoder import keep_encoder, load_clip
    from clipsynth_training.denoiser import config as configs
    from clipsynth_training.denoiser.conditions import load_conditioned, read_labels
    from clipsynth_training.denoiser.samples import choose_samples
    from clipsynth_training.denoiser.train import DenoiserTrainer
    from clipsynth_training.denoiser.unet import UNet
    from clipsynth_training.run.distributed import join, train_device
    from clipsynth_training.run.trainer import RunLimits

    set_threads(threads)
    settings = configs.load_config(config)
    given = {"variant": variant, "accumulate": accumulate}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if variant is not None and variant not in configs.VARIANTS:
        raise InputError(f"--variant {variant}: must be one of {', '.join(configs.VARIANTS)}")
    optimiser = dataclasses.replace(settings.optimiser, **changes)
    settings = dataclasses.replace(settings, optimiser=optimiser)
    if settings.optimiser.variant == "text" and labels is None:
        raise InputError("--variant text needs --labels labels.csv")
    for option, values in (("--kind", kinds), ("--repeat", repeats)):
        if values and labels is None:
            raise InputError(f"{option} needs --labels labels.csv")
    if fresh_condition and start is None:
        raise InputError("--fresh-condition needs --from-checkpoint: without it all is fresh")
    times = parse_repeats(repeats)
    where = train_device(device)
    encoder = load_clip(clip_name or str(default_checkpoint()), clip_pretrained)
    if encoder.dim != settings.unet.condition_dim:
        unet = dataclasses.replace(settings.unet, condition_dim=encoder.dim)
        settings = dataclasses.replace(settings, unet=unet)
    facts: dict[str, Any] = {}
    weights = None
    if start is not None:
        # before the clips, which can take minutes to read
        weights, begun = load_component(start, "denoiser")
        with torch.device("meta"):
            check_weights(UNet(settings.unet), weights, str(start))
        facts = {"begun_with_steps": begun.get("steps"), "fresh_condition": fresh_condition}
    facts |= keep_encoder(clip_name or str(default_checkpoint()), clip_pretrained, out)
    join("nccl" if where.type == "cuda" else "gloo")
    data = load_conditioned(shards, encoder, settings.mel, labels, kinds, stream=stream)
    held_out = None
    if validation is not None:
        held_out = load_conditioned(validation, encoder, settings.mel, labels, kinds, stream=stream)
    # export tells pictures by them where texts alone were learnt from
    known = sorted(set(read_labels(labels).values())) if labels is not None else []
    if times:
        data.oversample(times, known)
    samples = None
    if samples_every:
        samples = choose_samples(
            data, encoder, queries, settings.optimiser.variant, known, samples_every, sounds
        )
    trainer = DenoiserTrainer(
        settings,
        data,
        out,
        held_out,
        {"labels": known, **facts},
        samples=samples,
        tensorboard=tensorboard,
        device=where,
        start=weights,
        fresh_condition=fresh_condition,
    )
    stopped_by = trainer.run(
        RunLimits(max_steps, default_minutes(max_steps, max_minutes), cooldown_steps=cooldown_steps)
    )
    end(out, f"denoiser at step {trainer.step}", stopped_by)


@command.command("distil")
@click.argument("shards", metavar="SHARDS", type=FOLDER)
@click.option("--labels", required=True, type=FOLDER, help="labels.csv")
@KINDS
@REPEATS
@click.option(
    "--teacher", type=FOLDER, help="Checkpoint folder with clip and denoiser; the shipped one."
)
@click.option("--config", type=FOLDER, help="TOML file of DistilConfig; its defaults if left out.")
@click.option(
    "--trajectories",
    "rounds",
    default=8,
    show_default=True,
    type=click.IntRange(min=1),
    help="Sounds of the teacher to follow, for each label; made first, and kept in --out.",
)
@click.option(
    "--more-trajectories",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Further ones of labels that --auxiliary hears right in fewer than half of those.",
)
@click.option(
    "--more-of",
    multiple=True,
    metavar="NAME",
    help="--more-trajectories are of this label, in place of what --auxiliary hears; may be "
    "repeated.",
)
@click.option(
    "--own-trajectories",
    is_flag=True,
    help="--trajectories are what --from-checkpoint makes already: it keeps what it knows while it "
    "learns the labels of --more-trajectories.",
)
@click.option(
    "--teacher-steps",
    default=8,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Steps of such a sound: more are better, and as much slower to make.",
)
@click.option(
    "--teacher-guidance", default=2.5, show_default=True, type=click.FloatRange(1.0, 20.0)
)
@click.option(
    "--from-checkpoint",
    "start",
    type=FOLDER,
    help="Checkpoint folder whose distilled denoiser the student begins with; the teacher.",
)
@click.option(
    "--auxiliary",
    type=FOLDER,
    help="Checkpoint folder of train classifier --auxiliary: it tells the student what it hears.",
)
@click.option("--max-steps", default=2000, show_default=True, type=click.IntRange(min=1))
@click.option("--cooldown-steps", default=0, show_default=True, type=click.IntRange(min=0))
@MINUTES
@DEVICE
@OUT
@THREADS
def distil(
    shards: Path,
    labels: Path,
    kinds: tuple[str, ...],
    repeats: tuple[str, ...],
    teacher: Path | None,
    config: Path | None,
    rounds: int,
    more_trajectories: int,
    more_of: tuple[str, ...],
    own_trajectories: bool,
    teacher_steps: int,
    teacher_guidance: float,
    start: Path | None,
    auxiliary: Path | None,
    max_steps: int,
    cooldown_steps: int,
    max_minutes: float | None,
    device: str,
    out: Path,
    threads: int | None,
) -> None:
    """Distil a denoiser's guidance and steps into a few calls, on SHARDS.

    Writes the part denoiser_distilled, which clipsynth-rt export takes along. Goes on where a run
    in --out was.
    """
    from clipsynth_training.checkpoint import default_checkpoint
    from clipsynth_training.distil.batches import load_config
    from clipsynth_training.distil.setup import open_run
    from clipsynth_training.distil.trajectories import TeacherSpec
    from clipsynth_training.run.distributed import join, train_device
    from clipsynth_training.run.trainer import RunLimits

    if more_trajectories and auxiliary is None and not more_of:
        raise click.UsageError(
            "--more-trajectories needs a --auxiliary, who hears what is wrong, or --more-of"
        )
    if more_of and not more_trajectories:
        raise click.UsageError("--more-of needs --more-trajectories: how many of each")
    if own_trajectories and start is None:
        raise click.UsageError(
            "--own-trajectories needs --from-checkpoint: the student that makes them"
        )
    set_threads(threads)
    settings = load_config(config)
    where = train_device(device)
    join("nccl" if where.type == "cuda" else "gloo")
    trainer = open_run(
        settings,
        teacher or default_checkpoint(),
        shards,
        labels,
        out,
        kinds=kinds,
        repeat=parse_repeats(repeats),
        rounds=rounds,
        more=more_trajectories,
        more_of=more_of,
        own=own_trajectories,
        how=TeacherSpec.of(teacher_steps, teacher_guidance),
        start=start,
        auxiliary=auxiliary,
        device=where,
    )
    limits = RunLimits(
        max_steps,
        default_minutes(max_steps, max_minutes),
        cooldown_steps=cooldown_steps,
        log_every=20,
    )
    stopped_by = trainer.run(limits)
    end(out, f"distilled denoiser at step {trainer.step}", stopped_by)


@command.command("vocoder")
@click.argument("shards", metavar="SHARDS", type=FOLDER)
@click.option(
    "--config", default="light", show_default=True, help="light, v1, v2, v3 (HiFi-GAN) or a file."
)
@click.option("--max-steps", type=click.IntRange(min=1), help="The configuration's if left out.")
@MINUTES
@OUT
@THREADS
def vocoder(
    shards: Path,
    config: str,
    max_steps: int | None,
    max_minutes: float | None,
    out: Path,
    threads: int | None,
) -> None:
    """Train a vocoder on the sound of SHARDS."""
    from clipsynth_training.run.interruption import StopSignals
    from clipsynth_training.vocoder.train import train_vocoder

    set_threads(threads)
    with StopSignals() as signals:
        train_vocoder(
            config, shards, out, max_steps=max_steps, max_minutes=max_minutes, signals=signals
        )
    end(out, "vocoder", signals.received)


@command.command("classifier")
@click.argument("shards", metavar="SHARDS", type=FOLDER)
@click.option("--labels", required=True, type=FOLDER, help="labels.csv")
@click.option("--validation", type=FOLDER, help="Shards of held-out clips.")
@click.option("--epochs", default=12, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--learning-rate", default=3e-3, show_default=True, type=click.FloatRange(0, 1, min_open=True)
)
@click.option(
    "--from-checkpoint",
    "start",
    type=FOLDER,
    help="Checkpoint folder whose classifier, of the same labels, this one begins with.",
)
@click.option(
    "--auxiliary",
    is_flag=True,
    help="One for train distil, of another shape than the one that judges.",
)
@OUT
@THREADS
def classifier(
    shards: Path,
    labels: Path,
    validation: Path | None,
    epochs: int,
    learning_rate: float,
    start: Path | None,
    auxiliary: bool,
    out: Path,
    threads: int | None,
) -> None:
    """Train the classifier that judges voices, on real clips alone."""
    from clipsynth_rt.bundles.manifest import MelSpec
    from clipsynth_training.classifier.train import load_classifier, train_classifier
    from clipsynth_training.denoiser.conditions import load_labelled

    set_threads(threads)
    spec = MelSpec()
    before = None if start is None else load_classifier(start)[0]
    known = () if before is None else before.config.labels
    data, names = load_labelled(shards, spec, labels, known)
    held_out = load_labelled(validation, spec, labels, names)[0] if validation else None
    metrics = train_classifier(
        data,
        names,
        spec,
        out,
        validation=held_out,
        epochs=epochs,
        learning_rate=learning_rate,
        start=before,
        auxiliary=auxiliary,
    )
    click.echo(metrics)


@command.command("prior")
@click.argument("shards", metavar="SHARDS", type=FOLDER)
@click.option("--labels", required=True, type=FOLDER, help="labels.csv")
@click.option("--clip", "clip_name", help="Checkpoint folder or open_clip model; shipped one.")
@click.option("--validation", type=FOLDER, help="Shards of held-out clips.")
@click.option("--steps", default=2000, show_default=True, type=click.IntRange(min=1))
@OUT
@THREADS
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
    from clipsynth_rt.bundles.manifest import MelSpec
    from clipsynth_training.checkpoint import default_checkpoint
    from clipsynth_training.clip.encoder import load_clip
    from clipsynth_training.clip.prior import load_pairs, train_prior

    set_threads(threads)
    encoder = load_clip(clip_name or str(default_checkpoint()))
    pairs = load_pairs(shards, encoder, MelSpec(), labels)
    held_out = load_pairs(validation, encoder, MelSpec(), labels) if validation else None
    facts = {"encoder": encoder.name}
    click.echo(train_prior(pairs, out, validation=held_out, steps=steps, facts=facts))
