"""Bundles at an address of the Hugging Face Hub, or of a server that speaks its protocol."""

from __future__ import annotations

import functools
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clipsynth_rt.bundles.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES
from clipsynth_rt.bundles.store import Opener, keep
from clipsynth_rt.cache import cache_folder
from clipsynth_rt.errors import BundleError, MissingExtraError, OutputError
from clipsynth_rt.files import write_atomically

MAX_BYTES = 2_000_000_000
"""Of all files of a bundle."""
_TIMEOUT_S = 10.0
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40,64}")

logger = logging.getLogger(__name__)


def fetch_from_hub(address: str, opener: Opener) -> Path:
    """Return the folder of a hub's bundle, downloaded into the cache under its commit.

    Only the files that its manifest lists are downloaded, and every hash is checked. Where the hub
    cannot be reached, the copy that was last downloaded from that address is used, with a warning.
    The hub is the one that ``HF_ENDPOINT`` names, and private ones need the user's token, as
    huggingface_hub says.

    Args:
        address: ``hf://owner/name`` or ``hf://owner/name@revision``.
        opener: Opens what was downloaded, to check it.

    Raises:
        BundleError: If the address is none, or the bundle cannot be had or trusted.
        MissingExtraError: If huggingface_hub is not installed.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise BundleError(f"{address}: not an address; write hf://owner/name[@revision]")
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise MissingExtraError("huggingface_hub", "hub") from error
    repository, revision = match[1], match[2] or "main"
    name = f"hub/{repository.replace('/', '--')}"
    reference = cache_folder("bundles") / name / f"{quote(revision, safe='')}.ref"
    # read now: the library reads it once, when it is first imported
    endpoint = os.environ.get("HF_ENDPOINT")
    api = huggingface_hub.HfApi(endpoint=endpoint, library_name="clipsynth-rt")
    commit, sizes = _look_up(api, address, repository, revision, reference)
    get = functools.partial(
        huggingface_hub.hf_hub_download,
        repository,
        revision=commit,
        endpoint=endpoint,
        library_name="clipsynth-rt",
    )

    def fill(folder: Path) -> None:
        with _quiet_unless_watched():
            _download(address, get, sizes, folder, opener)

    folder = keep(f"{name}/{commit}", address, fill, opener)
    try:
        write_atomically(reference, commit.encode())
    except OutputError as error:
        logger.warning("%s; without the hub it will not be found again", error)
    return folder


def _look_up(
    api: Any, address: str, repository: str, revision: str, reference: Path
) -> tuple[str, dict[str, int]]:
    """Return the commit that a revision is, and the sizes of its files."""
    from huggingface_hub import errors

    try:
        info = api.repo_info(repository, revision=revision, files_metadata=True, timeout=_TIMEOUT_S)
    except errors.GatedRepoError as error:
        raise BundleError(f"{address}: needs its owner's permission; ask on its page") from error
    except errors.RepositoryNotFoundError as error:
        raise BundleError(
            f"{address}: no such repository, or a private one (then run: hf auth login)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise BundleError(f"{address}: no revision {revision!r} there") from error
    except errors.HFValidationError as error:
        raise BundleError(f"{address}: not an address ({_first_line(error)})") from error
    # whatever the HTTP library of the day raises for a server that does not answer
    except Exception as error:
        commit = _read_reference(reference)
        if commit is None:
            raise BundleError(
                f"{address}: the hub does not answer ({_first_line(error)}), and the cache has no "
                "copy"
            ) from error
        logger.warning(
            "%s: the hub does not answer (%s); taking the copy of commit %s from the cache",
            *(address, _first_line(error), commit[:12]),
        )
        return commit, {}
    commit = str(info.sha)
    if not _COMMIT.fullmatch(commit):
        raise BundleError(f"{address}: the hub names no commit ({commit!r})")
    return commit, {file.rfilename: file.size or 0 for file in info.siblings or ()}


def _read_reference(path: Path) -> str | None:
    try:
        commit = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def _download(
    address: str, get: Callable[..., str], sizes: dict[str, int], folder: Path, opener: Opener
) -> None:
    """Download a manifest, and then the files that it lists."""
    if sizes.get(MANIFEST_NAME, 0) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{address}: {MANIFEST_NAME} of {sizes[MANIFEST_NAME]} bytes; no bundle")
    _get(address, get, MANIFEST_NAME, folder)
    bundle = opener(folder)
    wanted = sorted({spec.path for spec in bundle.files().values()})
    for path in wanted:
        bundle.inside(path)
    if sum(sizes.get(path, 0) for path in wanted) > MAX_BYTES:
        raise BundleError(f"{address}: over {MAX_BYTES / 1e9:g} GB; not a bundle")
    for path in wanted:
        _get(address, get, path, folder)
    # what huggingface_hub notes for itself
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def _get(address: str, get: Callable[..., str], path: str, folder: Path) -> None:
    from huggingface_hub import errors

    try:
        get(path, local_dir=folder)
    # a kind of EntryNotFoundError that means something else
    except errors.LocalEntryNotFoundError as error:
        raise BundleError(f"{address}: {path}: the hub stopped answering; try again") from error
    except errors.EntryNotFoundError as error:
        hint = "is not a bundle" if path == MANIFEST_NAME else "the bundle is incomplete"
        raise BundleError(f"{address}: has no {path}; {hint}") from error
    except OSError as error:
        if error.strerror:
            raise  # the disk's, not the hub's
        raise BundleError(f"{address}: {path}: {_first_line(error)}") from error
    except Exception as error:
        raise BundleError(f"{address}: {path}: {_first_line(error)}") from error


@contextmanager
def _quiet_unless_watched() -> Iterator[None]:
    """Show huggingface_hub's progress bars on a terminal only."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
