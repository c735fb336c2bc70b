"""``clipsynth-rt train``: the encoder, the denoiser, the vocoder and the judge."""

from __future__ import annotations

import dataclasses
import logging
import signal
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
@click.option(
    "--from-checkpoint",
    "start",
    type=_FOLDER,
    help="Checkpoint folder whose denoiser a new run begins with.",
)
@click.option(
    "--repeat",
    "repeats",
    multiple=True,
    metavar="NAME=N",
    help="An epoch holds the clips of this label N times; may be repeated.",
)
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
@_MINUTES
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
@click.option("--device", default="cpu", show_default=True, help="cpu, or cuda.")
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
    start: Path | None,
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
    from clipsynth_rt.training import config as configs
    from clipsynth_rt.training.checkpoint import default_checkpoint, load_part
    from clipsynth_rt.training.clip import load_clip
    from clipsynth_rt.training.conditions import load_conditioned, read_labels
    from clipsynth_rt.training.distributed import join, train_device
    from clipsynth_rt.training.run_samples import choose_samples
    from clipsynth_rt.training.train_diffusion import DenoiserTrainer, RunLimits

    _set_threads(threads)
    settings = configs.load_config(config)
    changes = {"variant": variant, "accumulate": accumulate}
    changes = {name: value for name, value in changes.items() if value is not None}
    if variant is not None and variant not in configs.VARIANTS:
        raise InputError(f"--variant {variant}: must be one of {', '.join(configs.VARIANTS)}")
    optimiser = dataclasses.replace(settings.optimiser, **changes)
    settings = dataclasses.replace(settings, optimiser=optimiser)
    if settings.optimiser.variant == "text" and labels is None:
        raise InputError("--variant text needs --labels labels.csv")
    for option, values in (("--kind", kinds), ("--repeat", repeats)):
        if values and labels is None:
            raise InputError(f"{option} needs --labels labels.csv")
    times = _parse_repeats(repeats)
    where = train_device(device)
    encoder = load_clip(clip_name or str(default_checkpoint()), clip_pretrained)
    if encoder.dim != settings.unet.condition_dim:
        unet = dataclasses.replace(settings.unet, condition_dim=encoder.dim)
        settings = dataclasses.replace(settings, unet=unet)
    join("nccl" if where.type == "cuda" else "gloo")
    data = load_conditioned(shards, encoder, settings.mel, labels, kinds, stream=stream)
    held_out = None
    if validation is not None:
        held_out = load_conditioned(validation, encoder, settings.mel, labels, kinds, stream=stream)
    # export tells pictures by them where texts alone were learnt from
    known = sorted(set(read_labels(labels).values())) if labels is not None else []
    if times:
        data.emphasise(times, known)
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
        {"labels": known},
        samples=samples,
        tensorboard=tensorboard,
        device=where,
        start=None if start is None else load_part(start, "denoiser")[0],
    )
    stopped_by = trainer.run(
        RunLimits(max_steps=max_steps, max_minutes=max_minutes, cooldown_steps=cooldown_steps)
    )
    _end(out, "denoiser", trainer.step, stopped_by)


def _parse_repeats(repeats: tuple[str, ...]) -> dict[str, int]:
    """Read NAME=N.

    Raises:
        InputError: If one is something else.
    """
    times = {}
    for text in repeats:
        name, _, count = text.rpartition("=")
        if not name or not count.isdecimal() or not 1 <= int(count) <= 1000:
            raise InputError(f"--repeat {text}: write a label and a count, such as piano=3")
        times[name] = int(count)
    return times


def _end(out: Path, part: str, step: int, stopped_by: int | None) -> None:
    """Say where a run stands, and end as the signal that stopped it asks."""
    from clipsynth_rt.training.interruption import exit_code

    if stopped_by is None:
        click.echo(f"{out}: {part} at step {step}")
        return
    name = signal.Signals(stopped_by).name
    click.echo(f"{out}: {part} saved at step {step} on {name}; the same command goes on")
    sys.exit(exit_code(stopped_by))


@command.command("finetune")
@click.argument("sounds", metavar="FOLDER", type=_FOLDER)
@click.option(
    "--names", type=_FOLDER, help="CSV with the columns file and name; file names if left out."
)
@click.option("--checkpoint", type=_FOLDER, help="The voice to begin with; the shipped one.")
@click.option("--clip", "clip_name", help="Its encoder; the checkpoint's own if left out.")
@click.option("--clip-pretrained", help="open_clip's tag or checkpoint file for --clip.")
@click.option(
    "--replay",
    type=_FOLDER,
    help="Shards of what the voice learnt from, mixed in so that it is not forgotten.",
)
@click.option("--labels", type=_FOLDER, help="labels.csv of --replay.")
@click.option("--steps", default=300, show_default=True, type=click.IntRange(min=1))
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True))
@_OUT
@_THREADS
def finetune(
    sounds: Path,
    names: Path | None,
    checkpoint: Path | None,
    clip_name: str | None,
    clip_pretrained: str | None,
    replay: Path | None,
    labels: Path | None,
    steps: int,
    learning_rate: float | None,
    out: Path,
    threads: int | None,
) -> None:
    """Teach a voice the sounds of FOLDER, named by what they are.

    \b
      clipsynth-rt train finetune my_sounds/ --out run/   (dog_barking-1.wav, "my doorbell.mp3"...)
      clipsynth-rt export --checkpoint run/ --out bundle/
      clipsynth-rt synth "my doorbell" --bundle bundle/ -o doorbell.wav
    """  # noqa: D301  (click reads \b as "keep these lines")
    from tqdm import tqdm

    from clipsynth_rt.training.checkpoint import default_checkpoint
    from clipsynth_rt.training.clip import load_clip
    from clipsynth_rt.training.finetune import finetune as teach

    _set_threads(threads)
    voice = checkpoint or default_checkpoint()
    encoder = load_clip(clip_name or voice, clip_pretrained)
    with tqdm(total=steps, unit="step", disable=None) as bar:

        def advance(step: int, loss: float) -> None:
            bar.update(step - bar.n)
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

        report = teach(
            sounds,
            out,
            voice,
            encoder,
            names_csv=names,
            replay=replay,
            labels_csv=labels,
            steps=steps,
            learning_rate=learning_rate,
            on_step=advance,
        )
    listed = ", ".join(report.names[:5]) + (", ..." if len(report.names) > 5 else "")
    click.echo(f"{out}: learnt {listed} from {report.clips} clips")
    _end(out, "denoiser", report.step, report.stopped_by)


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
