"""Bundles in archives: unpacked once, and refused by name where they are not to be trusted."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clipsynth_rt import Bundle
from clipsynth_rt.bundles import archive
from clipsynth_rt.cache import CACHE_VARIABLE
from clipsynth_rt.errors import BundleError, HashMismatchError, ManifestError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "bundles"


def pack(folder: Path, path: Path, top: str = "") -> Path:
    """Pack a folder by the archive's ending, below ``top``."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    names = [(file, os.path.join(top, file.relative_to(folder))) for file in files]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for file, name in names:
                packed.write(file, name)
    else:
        with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as tar:
            for file, name in names:
                tar.add(file, name)
    return path


def left(cache: Path) -> list[str]:
    # the lock stays
    return sorted(set(os.listdir(cache)) - {".lock"}) if cache.exists() else []


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tgz", "a.tar", "A.ZIP"])
@pytest.mark.parametrize("top", ["", "bundle"])
def test_every_kind_of_archive(
    tiny_bundle: Path, tmp_path: Path, cache: Path, name: str, top: str
) -> None:
    lower = pack(tiny_bundle, tmp_path / name.lower(), top)
    path = lower.rename(tmp_path / name)
    bundle = Bundle.open(path)
    assert bundle.manifest.name == "tiny-test"
    assert bundle.verify() > 0
    assert bundle.sha256 == Bundle.open(tiny_bundle).sha256
    assert bundle.path.is_relative_to(cache)
    # only once
    (cache / ".part-of-one-that-was-killed").mkdir()
    before = (bundle.path / "manifest.json").stat().st_ino
    again = Bundle.open(str(path))
    assert (again.path / "manifest.json").stat().st_ino == before
    assert len(left(cache)) == 2


def test_a_damaged_copy_in_the_cache_is_made_again(
    tiny_bundle: Path, tmp_path: Path, cache: Path
) -> None:
    path = pack(tiny_bundle, tmp_path / "a.zip")
    first = Bundle.open(path).path
    (first / "fp32" / "vocoder.onnx").write_bytes(b"damaged")
    assert Bundle.open(path).verify() > 0
    (first / "manifest.json").unlink()
    (cache / ".part-of-one-that-was-killed").mkdir()
    assert Bundle.open(path).verify() > 0
    # nobody else is at work, or the lock would be held
    assert len(left(cache)) == 1


def test_several_at_once(tiny_bundle: Path, tmp_path: Path, cache: Path) -> None:
    path = pack(tiny_bundle, tmp_path / "a.tar.gz")
    start = threading.Barrier(4)

    def work(_: int) -> int:
        start.wait(20)
        return Bundle.open(path).verify()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(work, range(4)))) == 1
    assert len(left(cache)) == 1


def a_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def a_zip(path: Path, *members: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for member, data in members:
            packed.writestr(member, data)
    return path


def zip_link() -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("manifest.json")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


WICKED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "zip path above": (lambda p: a_zip(p / "a.zip", ("../evil", b"x")), "'../evil' leaves"),
    "zip path inside": (lambda p: a_zip(p / "a.zip", ("a/../../evil", b"x")), "leaves the bundle"),
    "zip absolute": (lambda p: a_zip(p / "a.zip", ("/tmp/evil", b"x")), "'/tmp/evil' leaves"),
    "zip drive": (lambda p: a_zip(p / "a.zip", ("C:evil", b"x")), "'C:evil' leaves"),
    "zip link": (lambda p: a_zip(p / "a.zip", (zip_link(), b"/etc/passwd")), "is a link or device"),
    "zip file and folder": (
        lambda p: a_zip(p / "a.zip", ("a", b"x"), ("a/b", b"x")),
        "'a/b' is a file and a folder",
    ),
    "tar path above": (
        lambda p: a_tar(p / "a.tar.gz", (tarfile.TarInfo("../evil"), b"x")),
        "'../evil' leaves",
    ),
    "tar absolute": (
        lambda p: a_tar(p / "a.tar.gz", (tarfile.TarInfo("/tmp/evil"), b"x")),
        "'/tmp/evil' leaves",
    ),
    "tar link": (
        lambda p: a_tar(p / "a.tar.gz", special("manifest.json", tarfile.SYMTYPE, "/etc/passwd")),
        "'manifest.json' is a link or device",
    ),
    "tar hard link": (
        lambda p: a_tar(p / "a.tar.gz", special("a", tarfile.LNKTYPE, "/etc/passwd")),
        "'a' is a link or device",
    ),
    "tar device": (
        lambda p: a_tar(p / "a.tar.gz", special("a", tarfile.CHRTYPE)),
        "'a' is a link or device",
    ),
    "tar pipe": (
        lambda p: a_tar(p / "a.tar.gz", special("a", tarfile.FIFOTYPE)),
        "'a' is a link or device",
    ),
    "tar twice": (
        lambda p: a_tar(p / "a.tar.gz", (tarfile.TarInfo("a"), b"x"), (tarfile.TarInfo("a"), b"y")),
        "'a' is in it twice",
    ),
    "no manifest": (lambda p: a_zip(p / "a.zip", ("a", b"x")), "has no manifest.json at its top"),
    "empty": (lambda p: a_zip(p / "a.zip"), "has no manifest.json at its top"),
}


@pytest.mark.parametrize("kind", WICKED)
def test_archives_that_are_not_to_be_trusted(tmp_path: Path, cache: Path, kind: str) -> None:
    make, message = WICKED[kind]
    path = make(tmp_path)
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert message in text
    assert "\n" not in text
    # nothing of it stays, and nothing is outside
    assert left(cache) == []
    assert not list(tmp_path.rglob("evil"))
    assert not os.path.exists("/tmp/evil")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar"])
def test_archives_that_unpack_to_too_much(
    tiny_bundle: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 3_000_000)
    monkeypatch.setattr(archive, "_MAX_READ", 1_000_000)
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "big"))
    if name == "a.tar":
        # a member that claims more than there is
        member = tarfile.TarInfo("zeros")
        member.size = 10**12
        (tmp_path / name).write_bytes(member.tobuf() + bytes(1024))
    else:
        (folder / "zeros").write_bytes(bytes(5_000_000))
        path = pack(folder, tmp_path / name)
        assert path.stat().st_size < 1_000_000
    with pytest.raises(BundleError, match=r"unpacks to over 0\.003 GB; not a bundle"):
        Bundle.open(tmp_path / name)
    assert left(cache) == []


def test_a_zip_that_lies_about_its_sizes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 3_000_000)
    path = a_zip(tmp_path / "a.zip", ("zeros", bytes(5_000_000)))
    # 5 MB become 5 bytes in both headers
    data = path.read_bytes().replace((5_000_000).to_bytes(4, "little"), (5).to_bytes(4, "little"))
    path.write_bytes(data)
    with pytest.raises(BundleError):
        Bundle.open(path)
    assert left(cache) == []


@pytest.mark.parametrize("kind", ["zip", "tar", "tar folders"])
def test_too_many_files(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(archive, "MAX_FILES", 20)
    if kind == "zip":
        path = a_zip(tmp_path / "a.zip", *((f"f{i}", b"") for i in range(30)))
    elif kind == "tar":
        members = ((tarfile.TarInfo(f"f{i}"), b"") for i in range(30))
        path = a_tar(tmp_path / "a.tar.gz", *members)
    else:
        folders = (special(f"f{i}", tarfile.DIRTYPE) for i in range(30))
        path = a_tar(tmp_path / "a.tar.gz", *folders)
    with pytest.raises(BundleError, match="over 20 files; not a bundle"):
        Bundle.open(path)
    assert left(cache) == []


def test_a_header_that_wants_all_memory(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_MAX_READ", 1_000_000)
    member = tarfile.TarInfo("long")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 2_000_000
    path = tmp_path / "a.tar"
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(3_000_000))
    with pytest.raises(BundleError, match=r"a header of \d+ bytes; not a bundle"):
        Bundle.open(path)
    assert left(cache) == []


def test_a_negative_size_does_not_lead_round_in_circles(tmp_path: Path) -> None:
    member = tarfile.TarInfo("back")
    data = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    # -1024 in base 256, and the checksum that goes with it
    data[124:136] = (2**96 - 1024).to_bytes(12, "big")
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(data) + bytes(4096))
    with pytest.raises(BundleError, match="not a whole archive"):
        Bundle.open(path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar"])
def test_broken_archives(tiny_bundle: Path, tmp_path: Path, cache: Path, name: str) -> None:
    path = pack(tiny_bundle, tmp_path / name)
    data = path.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes(b ^ 255 for b in data[middle : middle + 50])
    for broken in (b"", b"no archive", data[:middle], flipped + data[middle + 50 :]):
        path.write_bytes(broken)
        with pytest.raises(BundleError) as caught:
            Bundle.open(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        assert left(cache) == []


def test_an_encrypted_zip(tmp_path: Path) -> None:
    path = a_zip(tmp_path / "a.zip", ("manifest.json", b"{}"))
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"not a whole archive .*encrypted"):
        Bundle.open(path)


def test_an_archive_of_a_bundle_that_is_not_whole(
    tiny_copy: Path, tmp_path: Path, cache: Path
) -> None:
    vocoder = tiny_copy / "fp32" / "vocoder.onnx"
    good = vocoder.read_bytes()
    vocoder.write_bytes(good + b"\0")
    with pytest.raises(HashMismatchError, match=r"a\.zip: fp32/vocoder\.onnx: sha256 differs"):
        Bundle.open(pack(tiny_copy, tmp_path / "a.zip"))
    vocoder.unlink()
    with pytest.raises(BundleError, match=r"b\.zip: fp32/vocoder\.onnx: listed in manifest"):
        Bundle.open(pack(tiny_copy, tmp_path / "b.zip"))
    (tiny_copy / "manifest.json").write_text("{")
    with pytest.raises(ManifestError, match=r"c\.zip: manifest\.json: not JSON"):
        Bundle.open(pack(tiny_copy, tmp_path / "c.zip"))
    assert left(cache) == []


def test_a_cache_that_cannot_be_written(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tiny_bundle, tmp_path / "a.zip")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(BundleError, match=r"a\.zip: the cache .* cannot be written \(Not a dir"):
        Bundle.open(path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk(
    tiny_bundle: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def full(self: Path, mode: str = "r", *args: object, **more: object) -> object:
        return real(Path("/dev/full"), "wb") if mode == "xb" else real(self, mode, *args, **more)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(BundleError, match=r"cannot be kept in .* \(No space left on device\)"):
        Bundle.open(pack(tiny_bundle, tmp_path / "a.zip"))
    monkeypatch.undo()
    assert left(cache) == []
