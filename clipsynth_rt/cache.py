"""The cache: what can be made or fetched again, by one process at a time."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "CLIPSYNTH_RT_CACHE"
"""Environment variable that names the cache: of engines in itself, of all else in its folders."""


def cache_folder(kind: str) -> Path:
    r"""Return the folder of one kind of thing, which need not exist.

    Without ``CACHE_VARIABLE``, the folder of the user's caches on this system, such as
    ``~/.cache/clipsynth-rt`` or ``%LOCALAPPDATA%\clipsynth-rt\Cache``.

    Args:
        kind: ``engines`` or ``bundles``.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named) if kind == "engines" else Path(named) / kind
    import platformdirs

    return platformdirs.user_cache_path("clipsynth-rt", appauthor=False) / kind


def default_cache() -> Path:
    """Return the folder of what is built or compiled: ``$CLIPSYNTH_RT_CACHE``, or the user's."""
    return cache_folder("engines")


@contextlib.contextmanager
def locked(path: Path, doing: str) -> Iterator[None]:
    """Hold a lock file, and say so where another holder has to be waited for.

    The system gives the lock back when its holder dies, on Windows too.

    Args:
        path: The file; it is made, in a folder that is made, and stays.
        doing: What the other one does, for the message.

    Raises:
        OSError: If it cannot be made, before any work is done.
    """
    # only what takes seconds anyway is locked: importing it takes 0.1 s
    import filelock

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path, mode=0o666)
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            logger.warning("waiting for another process that %s", doing)
            lock.acquire()
    except NotImplementedError as error:  # some network file systems
        raise OSError(errno.ENOTSUP, "its file system has no locks", str(path)) from error
    try:
        yield
    finally:
        lock.release()
