"""What a long run over many files did, and the small file operations that its writers share."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipsynth_rt.errors import OutputError


@dataclass
class SkipReport:
    """Counts and lists the files that a run did not use, by reason."""

    entries: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, reason: str, path: str, detail: str = "") -> None:
        """Record that ``path`` was skipped for ``reason`` (a short name such as ``silent``)."""
        self.entries.append((reason, path, detail))

    @property
    def counts(self) -> dict[str, int]:
        """Number of skipped files a reason, most frequent first."""
        return dict(Counter(reason for reason, _, _ in self.entries).most_common())

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data: counts, and every skipped file with what was wrong with it."""
        files = [{"path": p, "reason": r, "detail": d} for r, p, d in sorted(self.entries)]
        return {"skipped": self.counts, "skipped_files": files}


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that becomes ``path`` when the block succeeds.

    Raises:
        OutputError: If the file cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write ``data`` as JSON to ``path``, whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def writable_folder(path: Path) -> Path:
    """Make ``path`` a folder that files can be written to.

    Raises:
        OutputError: If it is a file, cannot be made or cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written to ({error.strerror or error}); choose another folder"
        ) from error
