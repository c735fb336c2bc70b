"""``clipsynth-rt synth --batch``: a CSV file to a folder of sounds."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsynth_rt.errors import ClipSynthError, InputError, OutputError
from clipsynth_rt.files import file_stem
from clipsynth_rt.text import short

if TYPE_CHECKING:
    from clipsynth_rt.synthesis.synthesizer import Synthesizer


def run_batch(
    path: str,
    out_dir: str,
    open_synthesizer: Callable[[], Synthesizer],
    *,
    tag: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    seed: int,
    init: str | None,
    options: dict[str, Any],
    file_format: str | None,
) -> None:
    """Make what is not there yet, telling of each row, and raise if one failed.

    Raises:
        ClipSynthError: If the list cannot be read, or a row failed; then all others are done.
    """
    from clipsynth_rt.audio.clip import format_for
    from clipsynth_rt.jobs.batch import RESULTS_NAME, BatchRun
    from clipsynth_rt.jobs.csv_rows import read_rows

    extension = format_for("-", file_format or "wav")
    rows = read_rows(
        path, seed=seed, init=init, options=options, file_format=extension, stem=file_stem
    )
    folder = Path(out_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror})") from error
    first = next((row for row in rows if not row.error), None)
    with open_synthesizer() as synthesizer:
        # one that asks for what cannot be fails as a row, not as a list
        with contextlib.suppress(InputError):
            if first is not None:
                picture, sound = first.image is not None, first.init is not None
                synthesizer.load_for(image=picture, init=sound, **first.options)
        run = BatchRun(synthesizer, rows, folder, tag=tag, overwrite=overwrite)

        def report(result: dict[str, Any]) -> None:
            failed = result["status"] == "failed"
            if quiet and not failed and not as_json:
                return
            line = json.dumps(result) if as_json else _line(result)
            click.echo(line, err=failed and not as_json)

        results = run.run(report)
    counts = Counter(result["status"] for result in results)
    manifest = folder / RESULTS_NAME
    if not as_json and not quiet:
        parts = [f"{counts[status]} {status}" for status in ("made", "kept", "failed")]
        click.echo(f"{', '.join(parts)}; {manifest}")
    if counts["failed"]:
        raise ClipSynthError(f"{counts['failed']} of {len(results)} rows failed; see {manifest}")


def _line(result: dict[str, Any]) -> str:
    if result["status"] == "failed":
        return f"row {result['row']}: {result['error']}"
    return (
        f"row {result['row']}: {result['file']}: {result['audio_s']:.2f} s of "
        f"{short(result['query'])}, {result['status']}"
    )
