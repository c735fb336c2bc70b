"""Stopping a synthesis that is under way."""

from __future__ import annotations

from typing import Protocol

from clipsynth_rt.errors import CancelledError


class Cancel(Protocol):
    """Says whether to stop: ``threading.Event``, or anything else that has ``is_set()``."""

    def is_set(self) -> bool:
        """Return whether the caller has had enough."""


class EitherCancel:
    """Set if one of two is."""

    def __init__(self, one: Cancel, other: Cancel | None) -> None:
        self._one, self._other = one, other

    def is_set(self) -> bool:
        """Return whether one is set."""
        return self._one.is_set() or (self._other is not None and self._other.is_set())


def check_cancel(cancel: Cancel | None) -> None:
    """Raise ``CancelledError`` if the caller has had enough."""
    if cancel is not None and cancel.is_set():
        raise CancelledError("synthesis cancelled")
