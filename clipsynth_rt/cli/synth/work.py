"""The sounds of one call of ``clipsynth-rt synth``: made, written and told of."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsynth_rt.cli.main import drop_output
from clipsynth_rt.cli.synth.targets import make_folder
from clipsynth_rt.errors import OutputError
from clipsynth_rt.text import short

if TYPE_CHECKING:
    from clipsynth_rt.audio.clip import AudioClip
    from clipsynth_rt.synthesis.synthesizer import Synthesizer

_PROGRESS_DELAY_S = 1.5


@dataclass(frozen=True)
class Work:
    """What the sounds of one call are of, and where they go.

    Attributes:
        queries: Texts; none where there are images.
        images: Pictures: paths, or Pillow's own where a path can be read only once.
        seeds: One a sound.
        targets: One a sound; None is standard output.
        pictures: Of the mels, one a sound; or none.
        file_format: One of ``audio.clip.FORMATS``, or None.
        tag: Whether files say where they came from.
    """

    queries: list[str]
    images: list[Any]
    seeds: list[int]
    targets: list[Path | None]
    pictures: list[Path]
    file_format: str | None
    tag: bool

    def run(self, synthesizer: Synthesizer, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Make them a batch at a time, write them, and yield the facts of each."""
        from clipsynth_rt.synthesis.options import check_query
        from clipsynth_rt.synthesis.sessions import MAX_BATCH

        # what is wrong with the last one is said before the first is made
        for query in self.queries:
            check_query(query)
        count = len(self.seeds)
        with _progress_bar() as show:
            for start in range(0, count, MAX_BATCH):
                rows = slice(start, min(start + MAX_BATCH, count))
                clips = synthesizer.synth_batch(
                    self.queries[rows],
                    images=self.images[rows],
                    seed=self.seeds[rows],
                    progress=_share_of(show, rows, count),
                    **options,
                )
                for number, clip in enumerate(clips, start):
                    yield self._write(clip, number, synthesizer)

    def _write(self, clip: AudioClip, number: int, synthesizer: Synthesizer) -> dict[str, Any]:
        target = self.targets[number]
        replaced = target is not None and os.path.isfile(target)
        if target is None:
            _write_stdout(clip, self.file_format or "wav", tag=self.tag)
        else:
            make_folder(target)
            clip.save(target, self.file_format, tag=self.tag)
        report = {**describe(clip, target), "replaced": replaced}
        if self.pictures:
            from clipsynth_rt.audio.plot import plot_clip
            from clipsynth_rt.files import write_atomically

            picture = self.pictures[number]
            make_folder(picture)
            write_atomically(picture, plot_clip(clip, synthesizer.bundle.manifest.mel))
            report["plot"] = str(picture)
        return report


def describe(clip: AudioClip, path: Path | None) -> dict[str, Any]:
    """Return the facts of a finished clip, as ``--json`` prints them."""
    from clipsynth_rt.jobs.batch import facts

    return {"query": clip.query, "path": "-" if path is None else str(path), **facts(clip)}


def lines(report: dict[str, Any]) -> str:
    """Return the facts of a clip for people."""
    found = [f"{name:8}{seconds * 1000:9.1f} ms" for name, seconds in report["stages_s"].items()]
    replaced = ", in place of an older file" if report["replaced"] else ""
    found.append(
        f"{report['path']}: {report['audio_s']:.2f} s of {short(report['query'])}, "
        f"RTF {report['rtf']:.3f} on {report['provider']}{replaced}"
    )
    return "\n".join(found)


def _share_of(
    show: Callable[[int, int], None], rows: slice, count: int
) -> Callable[[int, int], None]:
    """Return what shows the steps of some of the sounds as a share of all ``count``."""

    def progress(done: int, total: int) -> None:
        num_steps = total // (rows.stop - rows.start)
        show(rows.start * num_steps + done, count * num_steps)

    return progress


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
