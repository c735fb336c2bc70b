"""``clipsynth-rt synth``: words or a picture to sound files."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsynth_rt.errors import InputError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clipsynth_rt.audio import AudioClip

_PROGRESS_DELAY_S = 1.5
PROVIDER_HELP = "auto, cpu, openvino, cuda, tensorrt or tensorrt-rtx."


@click.command("synth")
@click.argument("queries", nargs=-1, metavar="QUERY...")
@click.option("-o", "--out", required=True, help="File, folder, pattern, or - (see below).")
@click.option("--image", metavar="PATH", help="A picture in place of the words.")
@click.option("--duration", type=float, metavar="SECONDS", help="Length of the sound.")
@click.option("--steps", type=int, help="Denoising steps, 1 to 1000.")
@click.option("--guidance", type=float, metavar="W", help="Guidance scale; 1 is off, and faster.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="The i-th query gets seed + i."
)
@click.option("--negative", metavar="TEXT", help="What to steer away from.")
@click.option(
    "--template",
    multiple=True,
    metavar="TEXT",
    help='Such as "a photo of {query}"; several average.',
)
@click.option("--sampler", default="ddim", show_default=True, help="ddim or dpmpp_2m.")
@click.option("--eta", type=float, default=0.0, show_default=True, help="DDIM noise, 0 to 1.")
@click.option("--bundle", metavar="PATH", help="Bundle folder; the shipped one if left out.")
@click.option(
    "--provider",
    default="auto",
    show_default=True,
    help=PROVIDER_HELP,
)
@click.option("--precision", metavar="P", help="fp32, fp16 or int8, or GRAPH=P,GRAPH=P.")
@click.option("--threads", type=int, help="CPU threads; one a physical core if left out.")
@click.option(
    "--format", "file_format", help="wav, flac, ogg or mp3; by the file name if left out."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a sound, for machines.")
def command(
    queries: tuple[str, ...],
    out: str,
    image: str | None,
    bundle: str | None,
    provider: str,
    precision: str | None,
    threads: int | None,
    file_format: str | None,
    as_json: bool,
    seed: int,
    template: tuple[str, ...],
    **wishes: Any,
) -> None:
    """Make a sound for each QUERY.

    \b
      clipsynth-rt synth drum -o drum.wav
      clipsynth-rt synth drum piano -o sounds/           (an existing folder)
      clipsynth-rt synth drum piano -o "{i}-{query}.ogg" (a pattern; also {seed})
      clipsynth-rt synth --image dog.jpg -o - | aplay    (standard output)
    """  # noqa: D301  (click reads \b as "keep these lines")
    if bool(queries) == bool(image):
        raise click.UsageError("give a QUERY or --image, one of the two")
    names = list(queries) or [Path(str(image)).stem]
    targets = plan_targets(out, names, seed, file_format)
    from clipsynth_rt.pipeline import IMAGE_GRAPHS, TEXT_GRAPHS, Synthesizer

    wishes["duration_s"] = wishes.pop("duration")
    wishes["template"] = template or None
    synthesizer = Synthesizer.from_bundle(
        bundle,
        provider,
        parse_precision(precision),
        threads,
        IMAGE_GRAPHS if image else TEXT_GRAPHS,
    )
    with _progress_bar() as progress:
        clips = synthesizer.synth_batch(
            queries, images=[image] if image else [], seed=seed, progress=progress, **wishes
        )
    where = synthesizer.bundle.manifest.name
    for clip, target in zip(clips, targets, strict=True):
        if target is None:
            _write_stdout(clip, file_format or "wav")
        else:
            clip.save(target, file_format)
        report = describe(clip, where, target)
        report["not_taken"] = synthesizer.choice.not_taken
        # standard output is the sound's where it goes there
        click.echo(json.dumps(report) if as_json else _lines(report), err=target is None)


def describe(clip: AudioClip, bundle: str, path: Path | None) -> dict[str, Any]:
    """Return the facts of a finished clip, as ``--json`` prints them."""
    return {
        "query": clip.query,
        "path": "-" if path is None else str(path),
        "rtf": clip.rtf,
        "audio_s": clip.audio_s,
        "stages_s": clip.stages_s,
        "provider": clip.provider,
        "steps": clip.steps,
        "network_calls": clip.network_calls,
        "guidance": clip.guidance,
        "seed": clip.seed,
        "bundle": bundle,
    }


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


def plan_targets(
    out: str, names: list[str], seed: int, file_format: str | None
) -> list[Path | None]:
    """Return where each sound goes (None is standard output), before any work is done.

    Raises:
        InputError: If two sounds would share a file, or the format cannot be told.
        OutputError: If a folder is missing or not writable.
    """
    from clipsynth_rt.audio import format_for

    if out == "-":
        if len(names) > 1:
            raise InputError("-o - takes one sound; give a folder or a pattern for several")
        # checks the format; the name says nothing
        format_for("-", file_format or "wav")
        return [None]
    pattern = out
    if out.endswith(("/", os.sep)) or os.path.isdir(out):
        pattern = os.path.join(out, f"{{query}}.{file_format or 'wav'}")
    targets: list[Path | None] = []
    for i, name in enumerate(names):
        path = Path(_fill(pattern, query=file_stem(name), i=str(i + 1), seed=str(seed + i)))
        if path in targets:
            raise InputError(
                f"two sounds would both be written to {path}; give an existing folder or a "
                'pattern such as "{i}-{query}.wav"'
            )
        format_for(path, file_format)
        _check_folder(path)
        targets.append(path)
    return targets


def _fill(pattern: str, **fields: str) -> str:
    """Put ``fields`` in their braces, and leave any other brace alone."""
    return re.sub(
        r"\{(\w+)\}", lambda match: fields.get(match[1], match[0]), pattern, flags=re.ASCII
    )


def _check_folder(path: Path) -> None:
    folder = path.parent
    if not os.path.isdir(folder):
        raise OutputError(f"{path}: there is no folder {folder}; make it first")
    if not os.path.exists(path) and not os.access(folder, os.W_OK):
        raise OutputError(f"{path}: folder {folder} is not writable")


def file_stem(query: str) -> str:
    """Return a file name for a query: letters and digits of any script, joined by hyphens."""
    stem = re.sub(r"[^\w]+", "-", query.strip().lower()).strip("-_")
    # file systems allow 255 bytes; a character of UTF-8 takes up to four
    return stem[:50] or "sound"


def parse_precision(text: str | None) -> str | dict[str, str] | None:
    """Return ``fp16`` as it is, and ``denoiser_step=fp16,vocoder=fp32`` as a mapping.

    Raises:
        InputError: If the two forms are mixed.
    """
    if text is None or "=" not in text:
        return text
    pairs = [part.split("=") for part in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise InputError(f"--precision {text!r}: write fp16, or denoiser_step=fp16,vocoder=fp32")
    return {graph.strip(): precision.strip() for graph, precision in pairs}


def _write_stdout(clip: AudioClip, file_format: str) -> None:
    try:
        clip.write_to(sys.stdout.buffer, file_format)
    except OutputError:
        # what is still buffered would fail once more, with a traceback, when Python exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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
