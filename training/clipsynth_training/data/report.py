"""What a long run over many files did, and the small file operations that its writers share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


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
