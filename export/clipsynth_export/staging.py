"""A folder that appears whole or not at all: built beside its place, then renamed into it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipsynth_rt.errors import OutputError


def check_target(out: Path, marker: str, what: str) -> None:
    """Check that a folder may be written, or an older one of its kind replaced, before any work.

    Args:
        out: The folder.
        marker: File inside it that tells its kind.
        what: What it is, for messages.

    Raises:
        OutputError: If it may not.
    """
    if out.exists() and not (out / marker).is_file():
        empty = out.is_dir() and not any(out.iterdir())
        if not empty:
            raise OutputError(f"{out}: exists and is no {what}; choose another folder")
    parent = out.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"{out}: there is no folder {parent}; make it first")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"{out}: folder {parent} is not writable")


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """Give a new folder beside ``out``, and remove whatever is left of it afterwards."""
    try:
        outer = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent))
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror})") from error
    try:
        # an inner one, because mkdtemp's own is closed to other users
        inner = outer / "bundle"
        inner.mkdir()
        yield inner
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def put_in_place(folder: Path, out: Path) -> None:
    """Rename ``folder`` to ``out``; an older bundle is moved aside first and back on failure."""
    aside = folder.with_name("old")
    if out.is_dir():
        os.replace(out, aside)
    try:
        os.replace(folder, out)
    except OSError:
        if aside.is_dir():
            os.replace(aside, out)
        raise
