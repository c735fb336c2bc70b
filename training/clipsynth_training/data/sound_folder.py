"""A folder of sounds that are named by what they are, as clips to learn from."""

from __future__ import annotations

import csv
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.errors import DataError
from clipsynth_training.data.clips import CutSpec, UnusableError, read_sound
from clipsynth_training.data.folders import files_below

logger = logging.getLogger(__name__)

LONGEST_NAME = 200
NOT_SOUNDS = frozenset(".csv .json .md .txt .toml .html .pdf .png .jpg .jpeg .gif .svg".split())
_NUMBER = re.compile(r"(\s*\(\d+\)|[\s._#-]*\d+)+$")
REMARKS = {
    "gap": "its timestamps leave a gap, which is silence here",
    "damaged_packets": "some of it cannot be decoded and is silence here",
    "opposite_phase": "its channels cancel each other; the louder one is used",
}
_REASONS = {
    "broken": "cannot be decoded",
    "no_audio": "has no sound",
    "silent": "is silent",
    "too_short": "is too short",
}


@dataclass(frozen=True)
class NamedClips:
    """Clips and what each is called.

    Attributes:
        mels: Normalised mels, float16 [N, M, F].
        names: One a clip.
    """

    mels: NDArray[np.float16]
    names: tuple[str, ...]


def read_sounds(
    folder: str | Path, cut: CutSpec, names_csv: str | Path | None = None
) -> NamedClips:
    """Read every sound below ``folder``, and cut it into clips.

    A sound's name is its file's, without the extension, a number at the end and underscores
    (``dog_barking-2.wav`` is "dog barking"); where nothing is left, its folder's. A file that
    cannot be used is named in a warning and left out.

    Args:
        folder: Searched with its subfolders.
        cut: Analysis and length of clips.
        names_csv: Names by file in place of that: columns ``file`` (relative to ``folder``) and
            ``name``; only the files in it are read.

    Raises:
        DataError: If there is no usable sound, or ``names_csv`` cannot be understood.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of sounds")
    files = _listed(folder, Path(names_csv)) if names_csv is not None else _found(folder)
    mels: list[NDArray[np.float16]] = []
    names: list[str] = []
    for path, name in files.items():
        if not 0 < len(name) <= LONGEST_NAME:
            logger.warning("%s: left out: its name is empty or over long", path)
            continue
        try:
            clips = read_sound(path, cut)
        except UnusableError as error:
            detail = f" ({error.detail})" if error.detail else ""
            logger.warning("%s: left out: %s%s", path, _REASONS[error.reason], detail)
            continue
        for remark in clips.remarks:
            logger.warning("%s: %s", path, REMARKS[remark])
        mels.append(clips.mel)
        names += [name] * len(clips.mel)
    if not mels:
        raise DataError(f"{folder}: none of its {len(files)} files is a sound that can be used")
    return NamedClips(np.concatenate(mels), tuple(names))


def name_of(path: Path) -> str:
    """Return what a file's name says it is, ``path`` relative to the folder of sounds."""
    for part in (path.stem, path.parent.name):
        name = " ".join(_NUMBER.sub("", part).replace("_", " ").split())
        if name:
            return name
    return ""


def _found(folder: Path) -> dict[Path, str]:
    paths = [
        path
        for path in files_below(folder)
        if path.suffix.lower() not in NOT_SOUNDS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not paths:
        raise DataError(f"{folder}: no sounds in it or its subfolders")
    return {path: name_of(path.relative_to(folder)) for path in paths}


def _listed(folder: Path, names_csv: Path) -> dict[Path, str]:
    try:
        with names_csv.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {"file", "name"} <= set(rows.fieldnames or ()):
                raise DataError(f"{names_csv}: needs the columns file and name")
            listed = {folder / (row["file"] or ""): (row["name"] or "").strip() for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{names_csv}: cannot be read ({error})") from error
    if not listed:
        raise DataError(f"{names_csv}: lists no files")
    return listed
