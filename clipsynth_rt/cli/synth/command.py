"""``clipsynth-rt synth``: words or pictures to sound files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsynth_rt.cli.common.completion import values
from clipsynth_rt.cli.common.voice import (
    BUNDLE,
    FILE,
    PRECISION,
    PROVIDER,
    THREADS,
    parse_precision,
)
from clipsynth_rt.cli.synth.options import synthesis_options
from clipsynth_rt.cli.synth.stdin import expand_queries, sound_source
from clipsynth_rt.cli.synth.targets import (
    check_apart,
    check_free,
    picture_targets,
    sound_targets,
)
from clipsynth_rt.cli.synth.work import Work, lines
from clipsynth_rt.errors import InputError

if TYPE_CHECKING:
    from clipsynth_rt.bundles.manifest import Manifest
    from clipsynth_rt.synthesis.synthesizer import Synthesizer

_MAX_VARIATIONS = 1000


class SynthCommand(click.Command):
    """Says how to ask for a query that looks like an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the line, and add a hint to what click says of an unknown option."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name.startswith("--"):
                raise
            text = f'{error.format_message()} A query that begins with "-" goes after "--".'
            raise click.UsageError(text, ctx) from error


@click.command("synth", cls=SynthCommand)
@click.argument("queries", nargs=-1, metavar="QUERY...")
@click.option(
    "-o", "--out", type=FILE, metavar="OUT", help="File, folder, pattern, or -; see above."
)
@click.option(
    "--image", "images", type=FILE, multiple=True, metavar="PATH", help="In place of words."
)
@synthesis_options
@click.option("--variations", type=int, default=1, metavar="N", help="Takes of each query.")
@click.option("--init", type=FILE, metavar="SOUND", help="A sound to make a variation of, or -.")
@click.option(
    "--plot", type=FILE, metavar="PNG", help="A picture of the mel; also folder or pattern."
)
@click.option(
    "--batch",
    type=click.Path(),
    metavar="CSV",
    help="A list of sounds (see above) or -, with --out-dir.",
)
@click.option(
    "--out-dir", type=FILE, metavar="DIR", help="Folder of a batch, made if it is missing."
)
@click.option(
    "--overwrite/--no-clobber",
    default=True,
    show_default=True,
    help="Whether files that are there are replaced.",
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
@click.option("-v", "--verbose", is_flag=True, help="Say what auto chose, and why.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing unless something is wrong.")
def command(
    queries: tuple[str, ...],
    out: str | None,
    images: tuple[str, ...],
    variations: int,
    plot: str | None,
    batch: str | None,
    out_dir: str | None,
    overwrite: bool,
    bundle: str | None,
    provider: str,
    precision: str | None,
    threads: int | None,
    file_format: str | None,
    no_tag: bool,
    as_json: bool,
    verbose: bool,
    quiet: bool,
    seed: int,
    init: str | None,
    strength: float | None,
    template: tuple[str, ...],
    **options: Any,
) -> None:
    """Make a sound for each QUERY; - stands for the lines of standard input.

    \b
      clipsynth-rt synth drum -o drum.wav
      clipsynth-rt synth drum piano -o sounds/           (a folder, made if it is missing)
      clipsynth-rt synth drum piano -o "{i}-{query}.ogg" (a pattern; {i} from 1, also {seed})
      clipsynth-rt synth --image dog.jpg -o - | aplay    (standard output)
      clipsynth-rt synth rain --loop --lufs -16 -o rain.flac
      clipsynth-rt synth siren --init voice.wav --strength 0.5 -o siren.wav
      clipsynth-rt synth --batch list.csv --out-dir sounds/

    A batch is a CSV file whose first line names its columns: query or image, and any of seed,
    duration, num_steps, guidance_scale, eta, negative, template, sampler, strength, loop, lufs,
    denoiser, init, file. Options are for the cells that are left empty. What is done is in
    results.json; run it again and finished rows are kept.
    """  # noqa: D301  (click reads \b as "keep these lines")
    _check_usage(queries, out, images, batch, out_dir, variations, plot, init)
    if verbose and quiet:
        raise click.UsageError("--verbose and --quiet contradict each other")
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
            overwrite=overwrite,
            as_json=as_json,
            quiet=quiet,
            seed=seed,
            init=init,
            options=options,
            file_format=file_format,
        )
        return
    texts = expand_queries(queries)
    subjects = texts or [Path(image).stem for image in images]
    names = [name for name in subjects for _ in range(variations)]
    seeds = list(range(seed, seed + len(names)))
    targets = sound_targets(str(out), names, seeds, file_format)
    pictures = picture_targets(plot, names, seeds) if plot else []
    check_apart(targets, pictures)
    if not overwrite:
        check_free([*targets, *pictures])
    sound = sound_source(init)
    synthesizer = opened()
    manifest = synthesizer.bundle.manifest
    if plot:
        _check_plot(manifest, options)
    work = Work(
        queries=[text for text in texts for _ in range(variations)],
        images=[
            picture
            for picture in _picture_sources(images, manifest.condition.image_size)
            for _ in range(variations)
        ],
        seeds=seeds,
        targets=targets,
        pictures=pictures,
        file_format=file_format,
        tag=not no_tag,
    )
    synthesizer.load_for(image=bool(images), init=sound is not None, **options)
    if verbose:
        for line in _choices(synthesizer, options, init=sound is not None):
            click.echo(line, err=True)
    for report in work.run(synthesizer, {**options, "init": sound}):
        report["not_taken"] = synthesizer.choice.not_taken
        # standard output is the sound's where it goes there
        if as_json or not quiet:
            text = json.dumps(report) if as_json else lines(report)
            click.echo(text, err=report["path"] == "-")


def _check_usage(
    queries: Sequence[str],
    out: str | None,
    images: Sequence[str],
    batch: str | None,
    out_dir: str | None,
    variations: int,
    plot: str | None,
    init: str | None,
) -> None:
    """Refuse options that contradict each other."""
    if ("-" in queries) + (batch == "-") + (init == "-") > 1:
        raise click.UsageError("standard input (-) can be one of QUERY, --batch and --init")
    if batch is not None:
        if queries or images or out is not None or plot is not None or variations != 1:
            raise click.UsageError(
                "--batch goes with --out-dir, and neither with QUERY, --image, -o, --plot nor "
                "--variations"
            )
        if out_dir is None:
            raise click.UsageError("Missing option '--out-dir', which --batch needs")
        if init == "-":
            raise click.UsageError("--init - goes without --batch; give a file")
        return
    if out_dir is not None:
        raise click.UsageError("--out-dir goes with --batch; use -o")
    if bool(queries) == bool(images):
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

    plain = SynthOptions.of({**options, "denoiser": "auto"})
    count, least = resolve_options(plain, manifest).num_samples, min_samples(manifest.mel)
    if count < least:
        rate = manifest.mel.sample_rate
        raise InputError(
            f"--plot: a sound of {1000 * count / rate:.3g} ms is too short for a picture; at least "
            f"{1000 * least / rate:.3g} ms are needed"
        )


def _picture_sources(images: Sequence[str], size: int) -> list[Any]:
    """Return pictures as what may be read more than once: a pipe is read here."""
    from clipsynth_rt.synthesis.images import square_image

    return [
        image if os.path.isfile(image) or not os.path.exists(image) else square_image(image, size)
        for image in images
    ]


def _choices(synthesizer: Synthesizer, options: dict[str, Any], *, init: bool) -> list[str]:
    """Return a line for each thing that ``auto`` chose, with its reasons."""
    from clipsynth_rt.synthesis.options import SynthOptions, why_full

    found = []
    if not_taken := synthesizer.choice.not_taken:
        # the first clause says what is wrong, the next what to do: "doctor" has both
        reasons = [f"{name} ({why.split(';')[0]})" for name, why in not_taken.items()]
        found.append(f"auto took {synthesizer.provider}, not {', '.join(reasons)}")
    given = SynthOptions.of(options)
    reason = why_full(given, synthesizer.bundle.manifest, 1.0 if init else None)
    if reason:
        found.append(f"auto took the full denoiser, not the distilled one: {reason}")
    return found
