"""Unpack bundles from archives that are not trusted."""

from __future__ import annotations

import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any

from clipsynth_rt.bundles.store import Opener, keep
from clipsynth_rt.errors import BundleError
from clipsynth_rt.files import sha256_of

MAX_FILES = 1_000
MAX_BYTES = 2_000_000_000
"""Of an archive, and of what it unpacks to."""
_MAX_READ = 1 << 24
"""Most that is asked of a tar file at once: a header that claims more is an attack on memory."""
_CHUNK = 1 << 20


def unpacked(path: Path, opener: Opener) -> Path:
    """Return the folder of an archive's bundle, unpacked into the cache under the archive's hash.

    Nothing but plain files and folders inside the archive's own folder is taken; anything else in
    it, such as a link, a path with ``..`` or more than ``MAX_BYTES``, refuses the whole.

    Raises:
        BundleError: If it is no archive, broken, or not to be trusted.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BundleError(f"{path}: over {MAX_BYTES / 1e9:g} GB; not a bundle")
        digest = sha256_of(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
    unpack = _unpack_zip if path.name.lower().endswith(".zip") else _unpack_tar

    def fill(folder: Path) -> None:
        try:
            unpack(path, _Writer(folder, str(path)))
        except BundleError:
            raise
        # what the decoders raise for a broken archive; an OSError of the disk goes on
        except (
            *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError),
            *(EOFError, NotImplementedError, RuntimeError, ValueError),
        ) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BundleError(f"{path}: not a whole archive ({reason})") from error

    return keep(digest, str(path), fill, opener)


class _Writer:
    """Writes members into a folder, as many and as large as is allowed."""

    def __init__(self, folder: Path, archive: str) -> None:
        self._folder, self._archive = folder, archive
        self._bytes = 0

    def check(self, name: str, *, plain: bool, size: int) -> Path:
        """Return where a member goes.

        Raises:
            BundleError: If it may go nowhere.
        """
        pure = PurePosixPath(name)
        strange = not pure.name or bool(set(name) & {"\\", ":", "\0"})
        if strange or pure.is_absolute() or ".." in pure.parts:
            raise BundleError(f"{self._archive}: {name!r} leaves the bundle's folder")
        if not plain:
            raise BundleError(f"{self._archive}: {name!r} is a link or device; bundles hold files")
        self._count(size, add=False)
        path = self._folder / pure
        if path.exists():
            raise BundleError(f"{self._archive}: {name!r} is in it twice")
        return path

    def check_count(self, count: int) -> None:
        """Refuse an archive of more than ``MAX_FILES`` members.

        Raises:
            BundleError: If it has them.
        """
        if count > MAX_FILES:
            raise BundleError(f"{self._archive}: over {MAX_FILES} files; not a bundle")

    def write(self, path: Path, stream: IO[bytes]) -> None:
        """Copy a member, going by what comes and not by what the archive says of its size."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                while data := stream.read(_CHUNK):
                    self._count(len(data), add=True)
                    file.write(data)
        except (FileExistsError, NotADirectoryError) as error:
            name = str(path.relative_to(self._folder))
            raise BundleError(f"{self._archive}: {name!r} is a file and a folder") from error

    def _count(self, size: int, *, add: bool) -> None:
        if self._bytes + size > MAX_BYTES:
            raise BundleError(
                f"{self._archive}: unpacks to over {MAX_BYTES / 1e9:g} GB; not a bundle"
            )
        self._bytes += size if add else 0


def _unpack_zip(path: Path, writer: _Writer) -> None:
    with zipfile.ZipFile(path) as archive:
        writer.check_count(len(archive.infolist()))
        for member in archive.infolist():
            if member.is_dir():
                continue
            mode = member.external_attr >> 16
            plain = stat.S_IFMT(mode) in (0, stat.S_IFREG)
            target = writer.check(member.filename, plain=plain, size=member.file_size)
            with archive.open(member) as stream:
                writer.write(target, stream)


def _unpack_tar(path: Path, writer: _Writer) -> None:
    with path.open("rb") as raw:
        magic = raw.read(2)
        raw.seek(0)
        opener: Callable[..., Any] = gzip.GzipFile if magic == b"\x1f\x8b" else _as_it_is
        guarded: Any = _Guarded(opener(fileobj=raw), str(path))
        with tarfile.open(fileobj=guarded, mode="r:") as archive:
            for number, member in enumerate(archive):
                writer.check_count(number)
                if member.isdir():
                    continue
                target = writer.check(member.name, plain=member.isreg(), size=member.size)
                stream = archive.extractfile(member)
                assert stream is not None
                writer.write(target, stream)


def _as_it_is(fileobj: IO[bytes]) -> IO[bytes]:
    return fileobj


class _Guarded:
    """A stream that neither unpacks nor hands out more than is allowed."""

    def __init__(self, stream: IO[bytes], archive: str) -> None:
        self._stream, self._archive = stream, archive

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_READ:
            raise BundleError(f"{self._archive}: a header of {size} bytes; not a bundle")
        data = self._stream.read(size)
        self._check(self._stream.tell())
        return data

    def seek(self, position: int) -> int:
        # a negative size leads back to a header that was read: for ever
        if position < self._stream.tell() - 1:
            raise BundleError(f"{self._archive}: not a whole archive (it leads back into itself)")
        self._check(position)
        return self._stream.seek(position)

    def tell(self) -> int:
        return self._stream.tell()

    def _check(self, position: int) -> None:
        # headers and padding come on top of the files
        if position > MAX_BYTES + _MAX_READ:
            raise BundleError(
                f"{self._archive}: unpacks to over {MAX_BYTES / 1e9:g} GB; not a bundle"
            )
