"""Bundles in the cache: unpacked or downloaded under their own hash.

A bundle appears in one step, and only when every file of it is the one that its manifest describes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from clipsynth_rt.bundles.manifest import MANIFEST_NAME
from clipsynth_rt.cache import CACHE_VARIABLE, cache_folder, locked
from clipsynth_rt.errors import BundleError

if TYPE_CHECKING:
    from clipsynth_rt.bundles.bundle import Bundle

Opener = Callable[[Path], "Bundle"]
"""``Bundle.open``, given by its caller: a bundle is opened through this module."""


def keep(name: str, what: str, fill: Callable[[Path], None], opener: Opener) -> Path:
    """Return the cached bundle ``name``, filling a folder and moving it into place if need be.

    A copy in the cache that has been damaged since is made again. Of two processes that fill the
    same one at once, one wins, and both get the same.

    Args:
        name: Path below the cache of bundles, which stands for the content.
        what: The address, for messages.
        fill: Puts the files into an empty folder.
        opener: Opens the result, to check it.

    Raises:
        BundleError: If ``fill`` raises it, the result is no whole bundle, or the cache cannot be
            written.
    """
    target = cache_folder("bundles") / name
    if found := _whole(target, opener):
        return found
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(target.parent / ".lock", f"fetches {what}"))
            for dead in target.parent.glob(".part-*"):
                # of a process that was killed: a living one would hold the lock
                shutil.rmtree(dead, ignore_errors=True)
            # beside its place: renaming works within one file system alone
            work = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent))
        except OSError as error:
            raise BundleError(
                f"{what}: the cache {target.parent} cannot be written ({error.strerror}); set "
                f"{CACHE_VARIABLE} to a folder that can"
            ) from error
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        # another process may have been faster
        return _whole(target, opener) or _fill(target, what, fill, work, opener)


def _fill(
    target: Path, what: str, fill: Callable[[Path], None], work: Path, opener: Opener
) -> Path:
    try:
        fill(work)
        opener(_root(work, what)).verify()
        work.chmod(0o755)
        # what is there is damaged
        shutil.rmtree(target, ignore_errors=True)
        os.replace(work, target)
    except OSError as error:
        reason = error.strerror or error
        raise BundleError(f"{what}: cannot be kept in {target.parent} ({reason})") from error
    except BundleError as error:
        # not in the words of a folder that is gone by now
        inside = str(error).replace(f"{work}{os.sep}", "").removeprefix(f"{what}: ")
        raise type(error)(f"{what}: {inside}") from error
    return _root(target, what)


def _whole(folder: Path, opener: Opener) -> Path | None:
    """Return the bundle in a folder of the cache, or None if it is not there as it should be."""
    if not folder.is_dir():
        return None
    try:
        root = _root(folder, "")
        opener(root).verify()
    except BundleError:
        return None
    return root


def _root(folder: Path, what: str) -> Path:
    """Return where the manifest is: in the folder itself, or in the one folder that it holds.

    Raises:
        BundleError: If it is nowhere.
    """
    inside = [path for path in folder.iterdir() if path.is_dir()]
    for candidate in (folder, *(inside if len(inside) == 1 else [])):
        if (candidate / MANIFEST_NAME).is_file():
            return candidate
    raise BundleError(f"{what}: has no {MANIFEST_NAME} at its top; it is not a bundle")
