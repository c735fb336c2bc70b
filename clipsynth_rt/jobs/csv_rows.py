"""A list of sounds from a CSV file: what each row asks for."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from clipsynth_rt.audio.clip import format_for
from clipsynth_rt.errors import InputError
from clipsynth_rt.files import same_file_key
from clipsynth_rt.synthesis.options import OPTIONS, SEED

MAX_BYTES = 64_000_000
"""Largest CSV file that is read."""
MAX_ROWS = 100_000

COLUMNS = ("query", "image", "init", "seed", *OPTIONS, "file")
"""What a CSV file may have; ``query`` or ``image`` is needed, an empty cell is the default."""


@dataclass(frozen=True)
class Row:
    """One sound to make.

    Attributes:
        number: From 1, the header not counted.
        query: What to hear; nothing where there is an image.
        image: A picture in its place, or None.
        init: A sound to start from, or None.
        seed: Of its noise.
        options: Fields of ``SynthOptions``.
        file: Path within the output folder.
        error: Why it cannot be made, where that is known already.
    """

    number: int
    query: str = ""
    image: str | None = None
    init: str | None = None
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    file: str = ""
    error: str = ""

    @property
    def name(self) -> str:
        """What the row is of: the query, or the image's name."""
        return self.query or Path(self.image or "").stem


def read_rows(
    path: str | Path,
    *,
    seed: int = 0,
    init: str | None = None,
    options: Mapping[str, Any] | None = None,
    file_format: str = "wav",
    stem: Callable[[str], str] = str,
) -> list[Row]:
    """Read a CSV file with a header of ``COLUMNS``; a row that makes no sense carries its error.

    Args:
        path: UTF-8, or ``-`` for standard input; a ``image`` or ``init`` in it is relative to its
            folder.
        seed: Row i (from 1) gets ``seed + i - 1`` where it names none.
        init: A sound to start from, for rows that name none.
        options: Fields of ``SynthOptions``, for rows that leave them empty.
        file_format: Of files that a row does not name.
        stem: Turns a query into a file name.

    Raises:
        InputError: If the file cannot be read, or a column is missing, unknown or there twice.
    """
    folder = Path(path).parent
    rows: list[Row] = []
    taken: dict[str, Row] = {}
    for number, cells in enumerate(_cells(path), start=1):
        if number > MAX_ROWS:
            raise InputError(f"{path}: over {MAX_ROWS} rows; split the file")
        try:
            row = _row(number, cells, folder, seed + number - 1, dict(options or {}))
            named = row.file or f"{number:04d}-{stem(row.name)}.{file_format}"
            row = dataclasses.replace(row, init=row.init or init, file=_inside(named))
            other = taken.setdefault(same_file_key(row.file), row)
            if other is not row:
                if other.file == row.file:
                    raise ValueError(f"{row.file} is the file of row {other.number} already")
                raise ValueError(
                    f"{row.file} and {other.file} of row {other.number} are one file on disks that "
                    "ignore case"
                )
        # numbers that are none are ValueErrors, as InputError is
        except ValueError as error:
            row = Row(number, (cells or {}).get("query", ""), error=str(error))
        rows.append(row)
    if not rows:
        raise InputError(f"{path}: has no rows below its header")
    return rows


def _cells(path: str | Path) -> Iterator[dict[str, str] | None]:
    """Yield a row's cells that are not empty, by column; None where there are too many.

    Empty cells at the end of a line are none: spreadsheets write as many for every line.
    """
    text = _text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    try:
        header = [name.lower() for name in _filled(next(reader, []))]
        for name in header:
            if name not in COLUMNS:
                raise InputError(f"{path}: unknown column {name!r}; there are {', '.join(COLUMNS)}")
            if header.count(name) > 1:
                raise InputError(f"{path}: column {name!r} is there twice")
        if not {"query", "image"} & set(header):
            raise InputError(f"{path}: has no column query; its first line names the columns")
        for line in reader:
            cells = _filled(line)
            if not cells:
                continue
            fits = len(cells) <= len(header)
            pairs = zip(header, cells, strict=False)
            yield {name: cell for name, cell in pairs if cell} if fits else None
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: not CSV ({error})") from error


def _delimiter(text: str) -> str:
    """Return what stands between cells: what spreadsheets of the reader's country write.

    The first line names columns, and no column's name has any of these in it.
    """
    header = text.partition("\n")[0]
    return next((mark for mark in ",;\t" if mark in header), ",")


def _filled(line: list[str]) -> list[str]:
    """Return a line's cells without surrounding blanks, up to the last that is not empty."""
    cells = [cell.strip() for cell in line]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _text(path: str | Path) -> str:
    where = "standard input" if str(path) == "-" else str(path)
    try:
        if str(path) == "-":
            if sys.stdin is None:
                raise InputError("standard input: is closed; name a CSV file")
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        elif not os.path.exists(path) or os.path.isdir(path):
            raise InputError(f"{path}: no such CSV file")
        else:
            # a named pipe is a file too
            with open(path, "rb") as stream:
                data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror})") from error
    if len(data) > MAX_BYTES:
        raise InputError(f"{where}: over {MAX_BYTES // 1_000_000} MB; split the file")
    try:
        # spreadsheets put a byte order mark in front
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8; save it as CSV UTF-8") from error


def _row(
    number: int, cells: dict[str, str] | None, folder: Path, seed: int, options: dict[str, Any]
) -> Row:
    if cells is None:
        raise ValueError("more cells than columns; put quotes around a text with commas")
    if ("query" in cells) == ("image" in cells):
        raise ValueError("needs a query or an image, one of the two")
    options |= {name: o.parse(cells[name]) for name, o in OPTIONS.items() if name in cells}
    if "seed" in cells:
        seed = SEED.parse(cells["seed"])
    files = {name: str(folder / cells[name]) for name in ("image", "init") if name in cells}
    return Row(
        number,
        cells.get("query", ""),
        files.get("image"),
        files.get("init"),
        seed,
        options,
        cells.get("file", ""),
    )


def _inside(name: str) -> str:
    """Return a path that stays in the output folder and has a known extension.

    Raises:
        InputError: If it does not.
    """
    pure = PurePosixPath(name)
    strange = set(name) & {"\\", ":", "\0"}
    if strange or pure.is_absolute() or ".." in pure.parts or not pure.name:
        raise InputError(f"file {name!r} leaves the output folder")
    format_for(name)
    return str(pure)
