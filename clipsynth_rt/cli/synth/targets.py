"""Where the files of ``clipsynth-rt synth`` go, settled before any work is done."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from clipsynth_rt.errors import InputError, OutputError
from clipsynth_rt.files import file_stem, same_file_key

PLACEHOLDERS = ("query", "i", "seed")


def sound_targets(
    out: str, names: Sequence[str], seeds: Sequence[int], file_format: str | None
) -> list[Path | None]:
    """Return where each sound goes (None is standard output).

    Args:
        out: File, folder, pattern with ``{query}``, ``{i}`` (from 1) and ``{seed}``, or ``-``.
        names: What each sound is of.
        seeds: One a sound.
        file_format: One of ``audio.clip.FORMATS``; None goes by the file name.

    Raises:
        InputError: If two sounds would share a file, a placeholder is unknown, or the format
            cannot be told.
        OutputError: If a file cannot be written there.
    """
    from clipsynth_rt.audio.clip import format_for

    if out == "-":
        if len(names) > 1:
            raise InputError("-o - takes one sound; give a folder or a pattern for several")
        # checks the format; the name says nothing
        format_for("-", file_format or "wav")
        return [None]
    paths = _paths(out, names, seeds, file_format or "wav")
    for path in paths:
        format_for(path, file_format)
        check_file(path, makes_folder=True)
    return list(paths)


def picture_targets(plot: str, names: Sequence[str], seeds: Sequence[int]) -> list[Path]:
    """Return where each mel picture goes: as ``sound_targets``, but PNG files alone.

    Raises:
        InputError: If two pictures would share a file, or one is not named ``.png``.
        OutputError: If a file cannot be written there.
    """
    paths = _paths(plot, names, seeds, "png")
    for path in paths:
        if path.suffix.lower() != ".png":
            raise InputError(f"{path}: --plot writes PNG; name it .png")
        check_file(path, makes_folder=True)
    return paths


def check_apart(sounds: Sequence[Path | None], pictures: Sequence[Path]) -> None:
    """Check that no picture would be written over a sound.

    Raises:
        InputError: If one would.
    """
    taken = {same_file_key(path) for path in sounds if path is not None}
    for picture in pictures:
        if same_file_key(picture) in taken:
            raise InputError(f"{picture}: the sound and its picture (--plot) cannot share a file")


def check_free(paths: Sequence[Path | None]) -> None:
    """Check that no file is there yet, for ``--no-clobber``.

    Raises:
        OutputError: If some are; the message names the first ones.
    """
    there = [str(path) for path in paths if path is not None and os.path.isfile(path)]
    if there:
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        verb = "exists" if len(there) == 1 else "exist"
        raise OutputError(
            f"{', '.join(there[:3])}{more} {verb} already; give another -o, or --overwrite"
        )


def _paths(out: str, names: Sequence[str], seeds: Sequence[int], extension: str) -> list[Path]:
    pattern = out
    if out.endswith(("/", os.sep)) or os.path.isdir(out):
        # several takes of one query differ in their number alone
        several = len({file_stem(name) for name in names}) < len(names)
        stem = "{query}-{i}" if several else "{query}"
        folder = out.replace("{", "{{").replace("}", "}}") if os.path.isdir(out) else out
        pattern = os.path.join(folder, f"{stem}.{extension}")
    paths: list[Path] = []
    taken: dict[str, Path] = {}
    for i, (name, seed) in enumerate(zip(names, seeds, strict=True), start=1):
        path = Path(_fill(pattern, query=file_stem(name), i=str(i), seed=str(seed)))
        key = same_file_key(path)
        if key in taken:
            where = f"to {path}"
            if path != taken[key]:
                where = f"to {taken[key]} and {path}, one file on disks that ignore case"
            raise InputError(
                f"two sounds would both be written {where}; give a folder or a "
                f'pattern such as "{{i}}-{{query}}.{extension}"'
            )
        taken[key] = path
        paths.append(path)
    return paths


def _fill(pattern: str, **fields: str) -> str:
    """Put ``fields`` in their braces; doubled braces are single ones.

    Raises:
        InputError: If a name in braces is none of the fields.
    """

    def value(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        if match[1] not in fields:
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise InputError(f"{pattern}: unknown placeholder {match[0]}; there are {known}")
        return fields[match[1]]

    return re.sub(r"\{\{|\}\}|\{([^{}]*)\}", value, pattern)


def check_file(path: Path, *, makes_folder: bool = False) -> None:
    """Check that a file can be written, before what goes into it is made.

    Args:
        path: The file.
        makes_folder: Whether its folder is made with it, where that is missing.

    Raises:
        OutputError: If it is a folder, or the folder it would be in is missing or not writable.
    """
    if os.path.isdir(path):
        raise OutputError(f"{path}: is a folder; give a file name")
    # a file is replaced by another, a device or a pipe is not
    if os.path.exists(path) and not os.path.isfile(path):
        return
    # links are followed: what is replaced lies where they lead
    folder = Path(os.path.realpath(path)).parent
    if not makes_folder and not os.path.isdir(folder):
        raise OutputError(f"{path}: there is no folder {path.parent}; make it first")
    while not os.path.lexists(folder):
        folder = folder.parent
    if not os.path.isdir(folder):
        raise OutputError(f"{path}: {folder} is no folder")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{path}: folder {path.parent} is not writable")


def make_folder(path: Path) -> None:
    """Make the folder that a file goes into, where it is missing.

    Raises:
        OutputError: If it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path.parent}: cannot be made ({error.strerror})") from error
