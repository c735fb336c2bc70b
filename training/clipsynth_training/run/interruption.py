"""Stopping on a signal: the step at hand is finished and the run saved before it ends."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SAME_S = 2.0


class StopSignals:
    """Notes SIGTERM and SIGINT while entered; a second one acts as it did before.

    What comes within ``SAME_S`` of the first is the first: a terminal sends Ctrl-C to ``torchrun``
    and its processes alike, and ``torchrun`` passes it on to these once more.

    Outside the main thread, where Python handles no signals, it notes none.

    Attributes:
        received: Number of the signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._since = number, time.monotonic()
        elif time.monotonic() - self._since >= SAME_S:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def exit_code(signal_number: int) -> int:
    """Return what a shell reports of a process that this signal ended."""
    return 128 + signal_number
