"""Where things are kept that can be made or fetched again, by one process at a time."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows: two processes then do the same work twice, and one wins
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "CLIPSYNTH_RT_CACHE"
"""Environment variable that names the cache: of engines in itself, of all else in its folders."""


def cache_folder(kind: str) -> Path:
    """Return the folder of one kind of thing, which need not exist.

    Args:
        kind: ``engines`` or ``bundles``.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named) if kind == "engines" else Path(named) / kind
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "clipsynth-rt" / kind


def default_cache() -> Path:
    """Return the folder of what is built or compiled: ``$CLIPSYNTH_RT_CACHE``, or the user's."""
    return cache_folder("engines")


@contextlib.contextmanager
def locked(path: Path, doing: str) -> Iterator[None]:
    """Hold a lock file, and say so where another holder has to be waited for.

    Args:
        path: The file; it is made, in a folder that is made, and stays.
        doing: What the other one does, for the message.

    Raises:
        OSError: If it cannot be made, before any work is done.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.warning("waiting for another process that %s", doing)
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
