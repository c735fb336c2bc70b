"""Where the files of ``clipsynth-rt synth`` go, settled before any work is done."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from clipsynth_rt.errors import InputError, OutputError


def plan_targets(
    out: str, names: Sequence[str], seeds: Sequence[int], file_format: str | None
) -> list[Path | None]:
    """Return where each sound goes (None is standard output).

    Args:
        out: File, folder, pattern with ``{query}``, ``{i}`` and ``{seed}``, or ``-``.
        names: What each sound is of.
        seeds: One a sound.
        file_format: One of ``audio.FORMATS``; None goes by the file name.

    Raises:
        InputError: If two sounds would share a file, or the format cannot be told.
        OutputError: If a folder is missing or not writable.
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
        check_file(path)
    return list(paths)


def plan_pictures(plot: str, names: Sequence[str], seeds: Sequence[int]) -> list[Path]:
    """Return where each mel picture goes: as ``plan_targets``, but PNG files alone.

    Raises:
        InputError: If two pictures would share a file, or one is not named ``.png``.
        OutputError: If a folder is missing or not writable.
    """
    paths = _paths(plot, names, seeds, "png")
    for path in paths:
        if path.suffix.lower() != ".png":
            raise InputError(f"{path}: --plot writes PNG; name it .png")
        check_file(path)
    return paths


def _paths(out: str, names: Sequence[str], seeds: Sequence[int], extension: str) -> list[Path]:
    pattern = out
    if out.endswith(("/", os.sep)) or os.path.isdir(out):
        # several takes of one query differ in their seeds alone
        several = len(set(names)) < len(names) and len(set(seeds)) == len(seeds)
        stem = "{query}-{seed}" if several else "{query}"
        pattern = os.path.join(out, f"{stem}.{extension}")
    paths: list[Path] = []
    taken: set[Path] = set()
    for i, (name, seed) in enumerate(zip(names, seeds, strict=True)):
        path = Path(_fill(pattern, query=file_stem(name), i=str(i + 1), seed=str(seed)))
        if path in taken:
            raise InputError(
                f"two sounds would both be written to {path}; give an existing folder or a "
                f'pattern such as "{{i}}-{{query}}.{extension}"'
            )
        taken.add(path)
        paths.append(path)
    return paths


def _fill(pattern: str, **fields: str) -> str:
    """Put ``fields`` in their braces, and leave any other brace alone."""
    return re.sub(
        r"\{(\w+)\}", lambda match: fields.get(match[1], match[0]), pattern, flags=re.ASCII
    )


def check_file(path: Path) -> None:
    """Check that a file can be written, before what goes into it is made.

    Raises:
        OutputError: If it is a folder, or the folder it would be in is missing or not writable.
    """
    folder = path.parent
    if os.path.isdir(path):
        raise OutputError(f"{path}: is a folder; give a file name")
    if not os.path.isdir(folder):
        raise OutputError(f"{path}: there is no folder {folder}; make it first")
    # a file is replaced by another, a device or a pipe is not
    replaced = os.path.isfile(path) or not os.path.exists(path)
    # links are followed: what is replaced lies where they lead
    if replaced and not os.access(os.path.dirname(os.path.realpath(path)), os.W_OK):
        raise OutputError(f"{path}: folder {folder} is not writable")


def file_stem(query: str) -> str:
    """Return a file name for a query: letters and digits of any script, joined by hyphens."""
    stem = re.sub(r"[^\w]+", "-", query.strip().lower()).strip("-_")
    # file systems allow 255 bytes; a character of UTF-8 takes up to four
    return stem[:50] or "sound"
