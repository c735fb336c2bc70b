"""``clipsynth-rt synth``: words or a picture to sound files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsynth_rt.cli.common.completion import values
from clipsynth_rt.cli.common.voice import BUNDLE, FILE, PRECISION, PROVIDER, THREADS
from clipsynth_rt.cli.main import drop_output
from clipsynth_rt.cli.synth.targets import plan_pictures, plan_targets
from clipsynth_rt.errors import InputError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clipsynth_rt.audio.clip import AudioClip
    from clipsynth_rt.bundles.manifest import Manifest
    from clipsynth_rt.synthesis.synthesizer import Synthesizer

_PROGRESS_DELAY_S = 1.5
_MAX_VARIATIONS = 1000


@click.command("synth")
@click.argument("queries", nargs=-1, metavar="QUERY...")
@click.option(
    "-o", "--out", type=FILE, metavar="OUT", help="File, folder, pattern, or -; see below."
)
@click.option("--image", type=FILE, metavar="PATH", help="A picture in place of the words.")
@click.option("--duration", type=float, metavar="SECONDS", help="Length of the sound, up to 60.")
@click.option("--num-steps", type=int, help="Denoising steps, 1 to 1000; the voice's if left out.")
@click.option(
    "--guidance-scale",
    type=float,
    metavar="W",
    help="Guidance scale; 1 is off. Given, the ordinary denoiser runs, not a distilled one.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="The i-th sound gets seed + i."
)
@click.option("--negative", metavar="TEXT", help="What to steer away from.")
@click.option(
    "--template",
    multiple=True,
    metavar="TEXT",
    help='Such as "a photo of {query}"; several average.',
)
@click.option(
    "--sampler",
    default="ddim",
    show_default=True,
    help="ddim or dpmpp_2m.",
    shell_complete=values("ddim", "dpmpp_2m"),
)
@click.option("--eta", type=float, default=0.0, show_default=True, help="DDIM noise, 0 to 1.")
@click.option("--variations", type=int, default=1, metavar="N", help="Takes of each query.")
@click.option("--init", type=FILE, metavar="SOUND", help="A sound to make a variation of.")
@click.option("--strength", type=float, help="How far --init is changed, up to 1; 0.6.")
@click.option("--loop", is_flag=True, help="A seamless loop.")
@click.option("--lufs", type=float, metavar="L", help="Loudness to bring it to, such as -16.")
@click.option(
    "--plot", type=FILE, metavar="PNG", help="A picture of the mel; also folder or pattern."
)
@click.option(
    "--batch",
    type=click.Path(),
    metavar="CSV",
    help="A list of sounds (see below), with --out-dir.",
)
@click.option(
    "--out-dir", type=FILE, metavar="DIR", help="Folder of a batch, made if it is missing."
)
@BUNDLE
@PROVIDER
@PRECISION
@THREADS
@click.option(
    "--format",
    "file_format",
    help="wav, flac, ogg or mp3; by the file name if left out.",
    shell_complete=values("wav", "flac", "ogg", "mp3"),
)
@click.option("--no-tag", is_flag=True, help="Do not write into files where they came from.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a sound, for machines.")
def command(
    queries: tuple[str, ...],
    out: str | None,
    image: str | None,
    variations: int,
    plot: str | None,
    batch: str | None,
    out_dir: str | None,
    bundle: str | None,
    provider: str,
    precision: str | None,
    threads: int | None,
    file_format: str | None,
    no_tag: bool,
    as_json: bool,
    seed: int,
    init: str | None,
    strength: float | None,
    template: tuple[str, ...],
    **options: Any,
) -> None:
    """Make a sound for each QUERY.

    \b
      clipsynth-rt synth drum -o drum.wav
      clipsynth-rt synth drum piano -o sounds/           (an existing folder)
      clipsynth-rt synth drum piano -o "{i}-{query}.ogg" (a pattern; also {seed})
      clipsynth-rt synth --image dog.jpg -o - | aplay    (standard output)
      clipsynth-rt synth rain --loop --lufs -16 -o rain.flac
      clipsynth-rt synth siren --init voice.wav --strength 0.5 -o siren.wav
      clipsynth-rt synth --batch list.csv --out-dir sounds/

    A batch is a CSV file whose first line names its columns: query or image, and any of seed,
    duration, num_steps, guidance_scale, eta, negative,
    template, sampler, strength, init, loop, lufs, file.
    Options are for the cells that are left empty. What is done is in results.json; run it again
    and finished rows are kept.
    """  # noqa: D301  (click reads \b as "keep these lines")
    _check_usage(queries, out, image, batch, out_dir, variations, plot)
    options["template"] = template or None
    if strength is not None:
        if init is None and batch is None:
            raise click.UsageError("--strength goes with --init")
        options["strength"] = strength

    def opened() -> Synthesizer:
        from clipsynth_rt.synthesis.synthesizer import Synthesizer

        return Synthesizer.from_bundle(
            bundle, provider, parse_precision(precision), threads, graphs=()
        )

    if batch is not None:
        from clipsynth_rt.cli.synth.batch import run_batch

        run_batch(
            batch,
            str(out_dir),
            opened,
            tag=not no_tag,
            as_json=as_json,
            seed=seed,
            init=init,
            options=options,
            file_format=file_format,
        )
        return
    names = [name for name in list(queries) or [Path(str(image)).stem] for _ in range(variations)]
    seeds = list(range(seed, seed + len(names)))
    work = Work(
        queries=[query for query in queries for _ in range(variations)],
        images=[image] * variations if image else [],
        seeds=seeds,
        targets=plan_targets(str(out), names, seeds, file_format),
        pictures=plan_pictures(plot, names, seeds) if plot else [],
        file_format=file_format,
        tag=not no_tag,
    )
    synthesizer = opened()
    if plot:
        _check_plot(synthesizer.bundle.manifest, options)
    synthesizer.load_for(image=bool(image), init=init is not None, **options)
    for report in work.run(synthesizer, {**options, "init": init}):
        report["not_taken"] = synthesizer.choice.not_taken
        # standard output is the sound's where it goes there
        click.echo(json.dumps(report) if as_json else _lines(report), err=report["path"] == "-")


def _check_usage(
    queries: Sequence[str],
    out: str | None,
    image: str | None,
    batch: str | None,
    out_dir: str | None,
    variations: int,
    plot: str | None,
) -> None:
    """Refuse options that contradict each other."""
    if batch is not None:
        if queries or image or out is not None or plot is not None or variations != 1:
            raise click.UsageError(
                "--batch goes with --out-dir, and neither with QUERY, --image, -o, --plot nor "
                "--variations"
            )
        if out_dir is None:
            raise click.UsageError("Missing option '--out-dir', which --batch needs")
        return
    if out_dir is not None:
        raise click.UsageError("--out-dir goes with --batch; use -o")
    if bool(queries) == bool(image):
        raise click.UsageError("give a QUERY or --image, one of the two")
    if out is None:
        raise click.UsageError("Missing option '-o' / '--out'")
    if not 1 <= variations <= _MAX_VARIATIONS:
        raise InputError(f"variations must be from 1 to {_MAX_VARIATIONS}, got {variations}")


def _check_plot(manifest: Manifest, options: dict[str, Any]) -> None:
    """Refuse a length that has no picture; one left to a given sound is long enough by itself.

    Raises:
        InputError: If there is none.
    """
    from clipsynth_rt.audio.mel import min_samples
    from clipsynth_rt.synthesis.options import SynthOptions, resolve_options

    count, least = (
        resolve_options(SynthOptions(**options), manifest).num_samples,
        min_samples(manifest.mel),
    )
    if count < least:
        rate = manifest.mel.sample_rate
        raise InputError(
            f"--plot: a sound of {1000 * count / rate:.3g} ms is too short for a picture; at least "
            f"{1000 * least / rate:.3g} ms are needed"
        )


@dataclass(frozen=True)
class Work:
    """The sounds of one call: what they are of, and where they go."""

    queries: list[str]
    images: list[str]
    seeds: list[int]
    targets: list[Path | None]
    pictures: list[Path]
    file_format: str | None
    tag: bool

    def run(self, synthesizer: Synthesizer, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Make them a part at a time, write them, and yield the facts of each."""
        from clipsynth_rt.synthesis.options import check_query
        from clipsynth_rt.synthesis.sessions import MAX_BATCH

        # what is wrong with the last one is said before the first is made
        for query in self.queries:
            check_query(query)
        count = len(self.seeds)
        with _progress_bar() as show:
            for start in range(0, count, MAX_BATCH):
                part = slice(start, min(start + MAX_BATCH, count))
                show_part = _part_of(show, part, count)
                clips = synthesizer.synth_batch(
                    self.queries[part],
                    images=self.images[part],
                    seed=self.seeds[part],
                    progress=show_part,
                    **options,
                )
                for number, clip in enumerate(clips, start):
                    yield self._write(clip, number, synthesizer)

    def _write(self, clip: AudioClip, number: int, synthesizer: Synthesizer) -> dict[str, Any]:
        target = self.targets[number]
        if target is None:
            _write_stdout(clip, self.file_format or "wav", tag=self.tag)
        else:
            clip.save(target, self.file_format, tag=self.tag)
        report = describe(clip, target)
        if self.pictures:
            from clipsynth_rt.audio.plot import plot_clip
            from clipsynth_rt.files import write_atomically

            picture = self.pictures[number]
            write_atomically(picture, plot_clip(clip, synthesizer.bundle.manifest.mel))
            report["plot"] = str(picture)
        return report


def _part_of(
    show: Callable[[int, int], None], part: slice, count: int
) -> Callable[[int, int], None]:
    """Return what shows the steps of some of the sounds as a share of all ``count``."""

    def progress(done: int, total: int) -> None:
        num_steps = total // (part.stop - part.start)
        show(part.start * num_steps + done, count * num_steps)

    return progress


def describe(clip: AudioClip, path: Path | None) -> dict[str, Any]:
    """Return the facts of a finished clip, as ``--json`` prints them."""
    from clipsynth_rt.jobs.batch import facts

    return {"query": clip.query, "path": "-" if path is None else str(path), **facts(clip)}


def _lines(report: dict[str, Any]) -> str:
    lines = [f"{name:8}{seconds * 1000:9.1f} ms" for name, seconds in report["stages_s"].items()]
    lines.append(
        f"{report['path']}: {report['audio_s']:.2f} s of {report['query']!r}, "
        f"RTF {report['rtf']:.3f} on {report['provider']}"
    )
    if report["not_taken"]:
        # the first clause says what is wrong, the next what to do: "doctor" has both
        reasons = [f"{name} ({why.split(';')[0]})" for name, why in report["not_taken"].items()]
        lines.append(f"auto took {report['provider']}, not {', '.join(reasons)}")
    return "\n".join(lines)


def parse_precision(text: str | None) -> str | dict[str, str] | None:
    """Return ``fp16`` as it is, and ``denoiser_step=fp16,vocoder=fp32`` as a mapping.

    Raises:
        InputError: If the two forms are mixed, or a name is missing.
    """
    if text is None or "=" not in text:
        return text
    pairs = [[word.strip() for word in part.split("=")] for part in text.split(",")]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise InputError(f"--precision {text!r}: write fp16, or denoiser_step=fp16,vocoder=fp32")
    return {graph: precision for graph, precision in pairs}


def _write_stdout(clip: AudioClip, file_format: str, *, tag: bool) -> None:
    # Python has none where descriptor 1 is closed
    if sys.stdout is None:
        raise OutputError("standard output: is closed; name a file with --out")
    try:
        clip.write_to(sys.stdout.buffer, file_format, tag=tag)
    except OutputError:
        drop_output()
        raise


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal, once a run takes longer than a moment."""
    from tqdm import tqdm

    # disable=None: not where stderr is no terminal
    bar: Any
    with tqdm(unit="step", delay=_PROGRESS_DELAY_S, disable=None, leave=False) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report
