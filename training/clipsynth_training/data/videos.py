"""Any folder of videos to training shards, in several processes, skipping what cannot be used."""

from __future__ import annotations

import contextlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clipsynth_rt.errors import DataError
from clipsynth_rt.files import write_json
from clipsynth_rt.machine import cpu_count
from clipsynth_rt.progress import progress
from clipsynth_training.data.clips import Clips, CutSpec, UnusableError, read_video
from clipsynth_training.data.folders import files_below
from clipsynth_training.data.parallel import Crashed, ordered_map, single_thread
from clipsynth_training.data.report import SkipReport
from clipsynth_training.data.shards import WINDOW, ShardWriter, video_id

logger = logging.getLogger(__name__)

EXTENSIONS = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()
)
SETTINGS = "prepare.json"
VIDEOS = "videos.json"
"""Which file each id is of: path below the folder of videos, and size in bytes."""


@dataclass(frozen=True)
class _Reader:
    """Picklable task function: a path to its clips, or to why there are none."""

    cut: CutSpec

    def __call__(self, path: Path) -> Clips | UnusableError:
        try:
            return read_video(path, self.cut)
        except UnusableError as unusable:
            return unusable


def prepare(
    videos_dir: str | Path,
    shards_dir: str | Path,
    cut: CutSpec | None = None,
    workers: int | None = None,
    shard_size: int = 512,
) -> dict[str, Any]:
    """Cut every video under a folder into clips, and write them as shards.

    A run that was stopped goes on where it was: videos whose clips are in a finished shard are
    not decoded again. ``report.json`` in the shard folder lists what was skipped, and why.

    Args:
        videos_dir: Searched with its subfolders for files with a video's extension.
        shards_dir: Made if missing.
        cut: How a video becomes clips.
        workers: Processes that decode; one a core if None.
        shard_size: Clips in a shard.

    Returns:
        The report: counts of videos and clips, the skipped files by reason, and those that were
        used although something about them is unusual.

    Raises:
        DataError: If there is no usable video, or the shards were cut in another way or hold clips
            of another video by the same name.
        OutputError: If the shards cannot be written.
    """
    cut, videos_dir, shards_dir = cut or CutSpec(), Path(videos_dir), Path(shards_dir)
    paths = find_videos(videos_dir)
    existed = shards_dir.exists()
    writer = ShardWriter(shards_dir, cut.mel, shard_size)
    _check_settings(shards_dir, cut)
    done = {video_id(clip) for clip in writer.done}
    # what gave no clip holds no id: it may come back as another file
    known = {name: facts for name, facts in _read_videos(shards_dir).items() if name in done}
    videos = _ids(paths, videos_dir, {path: name for name, (path, _) in known.items()})
    found = {
        name: (path.relative_to(videos_dir).as_posix(), path.stat().st_size)
        for path, name in videos.items()
    }
    for name in sorted(known.keys() & found.keys()):
        if found[name] != known[name]:
            raise DataError(
                f"{videos_dir / found[name][0]}: {shards_dir} holds clips of another video of that "
                "name; prepare into another folder"
            )
    write_json(shards_dir / VIDEOS, known | found)
    todo = {path: name for path, name in videos.items() if name not in done}
    report = SkipReport()
    workers, earlier = workers or cpu_count(), len(videos) - len(todo)
    logger.info(
        "cutting %d of %d videos into %s, workers: %d%s",
        *(
            len(todo),
            len(videos),
            shards_dir,
            workers,
            f"; {earlier} are there already" if earlier else "",
        ),
    )
    results = ordered_map(_Reader(cut), todo, workers, single_thread)
    with progress("cutting", len(videos), "video", earlier) as shown:
        for path, result in results:
            if isinstance(result, Clips):
                ids = [_clip_id(todo[path], number) for number in result.numbers]
                for remark in result.remarks:
                    report.remark(remark, str(path.relative_to(videos_dir)))
                writer.add(
                    ids, result.mel, result.frames, result.audio, has_pictures=result.has_pictures
                )
            elif isinstance(result, Crashed):
                report.add("broken", str(path.relative_to(videos_dir)), "the decoder crashed")
            else:
                report.add(result.reason, str(path.relative_to(videos_dir)), result.detail)
            shown.advance()
    writer.flush()
    if not writer.done:
        _forget(shards_dir, existed)
        counts = ", ".join(f"{count} {reason}" for reason, count in report.counts.items())
        raise DataError(f"{videos_dir}: none of its {len(videos)} videos can be used ({counts})")
    facts = {"videos": len(videos), "clips": len(writer.done), **report.to_dict()}
    write_json(shards_dir / "report.json", facts)
    return facts


def find_videos(folder: Path) -> list[Path]:
    """Return the videos under ``folder`` and its subfolders, sorted; see ``files_below``.

    Raises:
        DataError: If ``folder`` is none, or holds no file with a video's extension.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of videos")
    paths = [path for path in files_below(folder) if path.suffix.lower() in EXTENSIONS]
    if not paths:
        raise DataError(
            f"{folder}: no videos in it or its subfolders ({', '.join(sorted(EXTENSIONS))})"
        )
    return paths


def _ids(paths: Sequence[Path], folder: Path, known: Mapping[str, str]) -> dict[Path, str]:
    """Return the id of each video below ``folder``.

    It is the path without extension; with it where two videos would share one, or where the name
    ends like the number of a clip. A video whose path is ``known`` keeps its id.
    """
    stems = {path: path.relative_to(folder).with_suffix("").as_posix() for path in paths}
    shared = Counter(stems.values())
    taken, videos = set(known.values()), {}
    for path, stem in stems.items():
        name = path.relative_to(folder).as_posix()
        if name not in known and shared[stem] == 1 and stem not in taken:
            videos[path] = name if WINDOW.search(stem) else stem
        else:
            videos[path] = known.get(name, name)
    return videos


def _clip_id(video: str, number: int) -> str:
    return f"{video}#{number}" if number else video


def _read_videos(folder: Path) -> dict[str, tuple[str, int]]:
    path = folder / VIDEOS
    if not path.exists():  # nothing is prepared, or a version did that which wrote none
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {name: (str(where), int(size)) for name, (where, size) in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error}); prepare into another folder") from error


def _check_settings(folder: Path, cut: CutSpec) -> None:
    """Write how the shards are cut; an earlier run's must have been cut in the same way."""
    path, settings = folder / SETTINGS, json.loads(json.dumps(asdict(cut)))
    if not path.exists():
        write_json(path, settings)
        return
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        name = next((key for key in settings if earlier[key] != settings[key]), None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); prepare into another folder") from error
    if name is not None:
        raise DataError(
            f"{path}: prepared with {name} {earlier[name]}, this run has {settings[name]}; "
            "prepare into another folder"
        )


def _forget(folder: Path, existed: bool) -> None:
    """Leave no trace of a run that found nothing."""
    for name in (SETTINGS, VIDEOS):
        (folder / name).unlink(missing_ok=True)
    if not existed:
        with contextlib.suppress(OSError):
            folder.rmdir()
