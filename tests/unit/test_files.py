"""Reading and hashing files."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from clipsynth_rt.errors import CheckpointError, InputError
from clipsynth_rt.files import read_toml, sha256_of


def test_toml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('name = "a"\n[part]\nsize = 3\n', encoding="utf-8")
    assert read_toml(path) == {"name": "a", "part": {"size": 3}}
    assert read_toml(str(path)) == read_toml(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        (b"a = ", "not TOML"),
        (b"a = '\xff'", "not TOML"),
        (b"a = " + b"[" * 100_000, "not TOML"),
    ],
)
def test_bad_toml_is_one_line(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.toml: {reason}") as caught:
        read_toml(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match=reason):
        read_toml(path, CheckpointError)


def test_hash_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc" * 1_000_000)
    assert sha256_of(path) == sha256(b"abc" * 1_000_000).hexdigest()
