"""``clipsynth-rt train finetune``: a few sounds of one's own."""

from __future__ import annotations

from pathlib import Path

import click

from clipsynth_rt.cli.train.common import FOLDER, OUT, THREADS, end, set_threads


@click.command("finetune")
@click.argument("sounds", metavar="FOLDER", type=FOLDER)
@click.option(
    "--names", type=FOLDER, help="CSV with the columns file and name; file names if left out."
)
@click.option("--checkpoint", type=FOLDER, help="The voice to begin with; the shipped one.")
@click.option("--clip", "clip_name", help="Its encoder; the checkpoint's own if left out.")
@click.option("--clip-pretrained", help="open_clip's tag or checkpoint file for --clip.")
@click.option(
    "--replay",
    type=FOLDER,
    help="Shards of what the voice learnt from, mixed in so that it is not forgotten.",
)
@click.option("--labels", type=FOLDER, help="labels.csv of --replay.")
@click.option("--kind", "kinds", multiple=True, help="Only these kinds of --replay's clips.")
@click.option("--steps", default=200, show_default=True, type=click.IntRange(min=1))
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True))
@OUT
@THREADS
def command(
    sounds: Path,
    names: Path | None,
    checkpoint: Path | None,
    clip_name: str | None,
    clip_pretrained: str | None,
    replay: Path | None,
    labels: Path | None,
    kinds: tuple[str, ...],
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

    from clipsynth_training.checkpoint import default_checkpoint
    from clipsynth_training.clip.encoder import load_clip
    from clipsynth_training.denoiser.finetune import finetune

    set_threads(threads)
    voice = checkpoint or default_checkpoint()
    encoder = load_clip(clip_name or voice, clip_pretrained)
    with tqdm(total=steps, unit="step", disable=None) as bar:

        def advance(step: int, loss: float) -> None:
            bar.update(step - bar.n)
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

        report = finetune(
            sounds,
            out,
            voice,
            encoder,
            names_csv=names,
            replay=replay,
            labels_csv=labels,
            kinds=kinds,
            steps=steps,
            learning_rate=learning_rate,
            on_step=advance,
        )
    listed = ", ".join(report.names[:5]) + (", ..." if len(report.names) > 5 else "")
    click.echo(f"{out}: learnt {listed} from {report.clips} clips")
    end(out, f"denoiser at step {report.step}", report.stopped_by)
