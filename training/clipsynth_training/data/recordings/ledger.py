"""The ledger of recordings: what each is, who made it, under which licence, and its split."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any

from clipsynth_rt.errors import InputError
from clipsynth_training.data.recordings.containers.fields import checked_path

LEDGER = "recordings.csv"

LICENSES = ("CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "BSD-3-Clause", "public-domain")
"""Licences whose recordings may be learnt from; all but the first and last ask to be credited."""

GROUPS = (
    "impacts",
    "water",
    "weather",
    "fire",
    "animals",
    "body",
    "vehicles",
    "machines",
    "weapons",
    "alarms",
    "interface",
    "games",
    "music",
    "household",
    "doors",
)
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Recording:
    """One recording, as a row of the ledger describes it.

    Attributes:
        package: Debian or PyPI package that holds it.
        path: Path inside the package; a container (``Sound.ocg``) counts as a folder.
        sha256: Of the file as it lies in the package or container.
        author: Whom to credit.
        license: One of ``LICENSES``.
        source: Page that the recording comes from; empty if unknown.
        concept: Its plain name, as a user would type it (``glass breaking``).
        group: One of ``GROUPS``.
        names: Other names and attributes (``distant``, ``heavy``, ``metal``).
        start_s: Where the sound begins, in seconds.
        end_s: Where it ends; None for the end of the file.
        split: ``train`` or ``test``.
        take: Equal for recordings of one take or source page; a take has one split.
        seconds: Length of the file.
        rate: Samples a second of the file.
    """

    package: str
    path: str
    sha256: str
    author: str
    license: str
    source: str
    concept: str
    group: str
    names: tuple[str, ...]
    start_s: float
    end_s: float | None
    split: str
    take: str
    seconds: float
    rate: int


COLUMNS = tuple(field.name for field in fields(Recording))


@functools.cache
def load_recordings() -> tuple[Recording, ...]:
    """Return the ledger, in file order (by package and path)."""
    text = resources.files(__package__).joinpath(LEDGER).read_text(encoding="utf-8")
    return tuple(parse_ledger(text.splitlines()))


def parse_ledger(lines: Iterable[str]) -> Iterator[Recording]:
    """Yield the recordings of a ledger in CSV.

    Raises:
        InputError: If a column is missing or a value is none that the column may hold.
    """
    reader = csv.DictReader(lines)
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise InputError(f"{LEDGER}: the columns must be {', '.join(COLUMNS)}")
    for number, row in enumerate(reader, start=2):
        where = f"{LEDGER}, line {number}"
        if None in row or None in row.values():
            raise InputError(f"{where}: has not {len(COLUMNS)} columns")
        for column, allowed in (("license", LICENSES), ("group", GROUPS), ("split", SPLITS)):
            if row[column] not in allowed:
                raise InputError(f"{where}: {column} {row[column]!r} is not one of {allowed}")
        for column in ("package", "sha256", "author", "concept", "take"):
            if not row[column]:
                raise InputError(f"{where}: {column} is empty")
        checked_path(f"{row['package']}/{row['path']}", where)
        values: dict[str, Any] = dict(row)
        values["names"] = tuple(filter(None, row["names"].split(";")))
        values["end_s"] = None
        try:
            values["start_s"] = float(row["start_s"] or 0)
            if row["end_s"]:
                values["end_s"] = float(row["end_s"])
            values["seconds"], values["rate"] = float(row["seconds"]), int(row["rate"])
        except ValueError as error:
            raise InputError(f"{where}: {error}") from error
        recording = Recording(**values)
        end = recording.seconds if recording.end_s is None else recording.end_s
        if not 0 <= recording.start_s < end <= recording.seconds or recording.rate <= 0:
            raise InputError(f"{where}: start_s, end_s, seconds and rate contradict each other")
        yield recording


def credits(recordings: Iterable[Recording]) -> str:
    """Return Markdown that credits the authors of ``recordings``, by package and licence."""
    lines: list[str] = []
    parts: dict[tuple[str, str], dict[str, list[Recording]]] = {}
    for recording in recordings:
        key = recording.package, recording.license
        parts.setdefault(key, {}).setdefault(recording.author, []).append(recording)
    for (package, license_id), authors in sorted(parts.items()):
        count = sum(map(len, authors.values()))
        lines += [f"### {package}: {count} under {license_id}\n"]
        for author in sorted(authors, key=str.casefold):
            files = sorted({r.path.rsplit("/", 1)[-1] for r in authors[author]})
            pages = sorted({r.source for r in authors[author] if r.source})
            lines.append(f"- {author}: {', '.join(files)}" + "".join(f" <{p}>" for p in pages))
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
