"""How long each stage took, and how that compares with the sound it made."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageTimer:
    """Adds up wall-clock seconds under stage names.

    Attributes:
        stages_s: Seconds a stage, in the order in which stages first ran.
    """

    def __init__(self) -> None:
        self.stages_s: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body of a ``with`` block and add it to stage ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stages_s[name] = self.stages_s.get(name, 0.0) + time.perf_counter() - start


def real_time_factor(seconds_spent: float, audio_s: float) -> float:
    """Return seconds spent for each second of audio; below 1 is faster than real time."""
    return seconds_spent / audio_s
