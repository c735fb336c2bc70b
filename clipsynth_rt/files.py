"""Files that appear whole or not at all, and what they are called."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsynth_rt.errors import ClipSynthError, InputError, OutputError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_MAX_STEM = 50
_DEVICES = {
    *("con", "prn", "aux", "nul", "conin$", "conout$"),
    *(f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³"),
}
"""Names that Windows gives to devices, whatever extension follows."""


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that it appears whole or not at all.

    Through a temporary file in the same folder, renamed when complete. A device or a pipe is
    written to directly: renaming would replace it by a file.

    Raises:
        OutputError: If it cannot be written; nothing is left behind.
    """
    try:
        if path.exists() and not path.is_file():
            if path.is_dir():
                raise OutputError(f"{path}: is a folder; give a file name")
            # by the name given: /dev/stdout on a pipe leads to a name that nothing can open
            with path.open("wb", buffering=0) as device:
                left = memoryview(data)
                while left:
                    # a pipe may take a part
                    left = left[device.write(left) :]
            return
        # follow links: the file they point to is what the caller means, not the link
        with _temporary(path.resolve()) as temporary, temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            # some file systems report a full disk only here
            os.fsync(stream.fileno())
    except OutputError:
        raise
    except FileNotFoundError as error:
        raise OutputError(f"{path}: there is no folder {path.parent}; make it first") from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path}: cannot be written ({reason})") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that becomes ``path`` when the block succeeds.

    Raises:
        OutputError: If the file cannot be written; nothing is left behind.
    """
    try:
        with _temporary(path) as temporary:
            yield temporary
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write ``data`` as JSON to ``path``, whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def read_toml(
    path: str | Path | Traversable, error: type[ClipSynthError] = InputError
) -> dict[str, Any]:
    """Return what a TOML file holds.

    Args:
        path: The file, or a resource of a package.
        error: Raised if it cannot be read.

    Raises:
        ClipSynthError: An ``error`` naming the file and the reason, if there is no such file, it
            cannot be read, or it is not TOML in UTF-8.
    """
    import tomllib

    source = Path(path) if isinstance(path, str) else path
    try:
        return tomllib.loads(source.read_bytes().decode("utf-8"))
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror or problem})") from problem
    except (ValueError, RecursionError) as problem:
        raise error(f"{path}: not TOML ({problem})") from problem


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hex, read in pieces.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def writable_folder(path: Path) -> Path:
    """Make ``path`` a folder that files can be written to.

    Raises:
        OutputError: If it is a file, cannot be made or cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written to ({error.strerror or error}); choose another folder"
        ) from error


def file_stem(query: str) -> str:
    """Return a file name for a query: letters, digits and marks of any script, and hyphens.

    In normal form C, so that one query has one name however its accents are typed.
    """
    text = unicodedata.normalize("NFC", query.strip().lower())
    kept = [c if c == "_" or c.isalnum() or _is_mark(c) else " " for c in text]
    # file systems allow 255 bytes; a character of UTF-8 takes up to four
    stem = re.sub(r" +", "-", "".join(kept).strip(" ")).strip("-_")[:_MAX_STEM]
    if stem in _DEVICES:
        return f"{stem}-sound"
    return stem or "sound"


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def same_file_key(path: str | Path) -> str:
    """Return what is equal for two paths that some disk takes for one: letter case, accents."""
    return unicodedata.normalize("NFC", os.path.normpath(path)).casefold()


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """Give a path beside ``target`` that is renamed to it when the block succeeds."""
    # not tempfile: its files are readable by their owner alone, and a result should obey the umask
    temporary = target.with_name(f".clipsynth-{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
