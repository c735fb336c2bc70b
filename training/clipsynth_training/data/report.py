"""What a long run over many files did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class SkipReport:
    """Counts and lists the files that a run did not use, and those it used with a remark."""

    entries: list[tuple[str, str, str]] = field(default_factory=list)
    remarks: list[tuple[str, str]] = field(default_factory=list)

    def add(self, reason: str, path: str, detail: str = "") -> None:
        """Record that ``path`` was skipped for ``reason`` (a short name such as ``silent``)."""
        self.entries.append((reason, path, detail))

    def remark(self, remark: str, path: str) -> None:
        """Record that ``path`` is used although ``remark`` (a short name such as ``gap``)."""
        self.remarks.append((remark, path))

    @property
    def counts(self) -> dict[str, int]:
        """Number of skipped files a reason, most frequent first."""
        return dict(Counter(reason for reason, _, _ in self.entries).most_common())

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data: counts, every skipped file with what was wrong, and the remarks."""
        files = [{"path": p, "reason": r, "detail": d} for r, p, d in sorted(self.entries)]
        remarked: dict[str, list[str]] = {}
        for remark, path in sorted(self.remarks):
            remarked.setdefault(remark, []).append(path)
        return {"skipped": self.counts, "skipped_files": files, "remarks": remarked}
