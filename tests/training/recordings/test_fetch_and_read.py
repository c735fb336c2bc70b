"""Fetching keeps what the ledger names; reading gives mono sound at one rate."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from clipsynth_rt.errors import InputError, OutputError
from clipsynth_training.data.procedural.model import SAMPLE_RATE
from clipsynth_training.data.recordings import packages
from clipsynth_training.data.recordings.__main__ import main
from clipsynth_training.data.recordings.fetch import cached_path, fetch
from clipsynth_training.data.recordings.ledger import Recording, load_recordings
from clipsynth_training.data.recordings.reading import read_recording, read_recordings, to_mono


def recording(package: str, path: str, data: bytes, **changes) -> Recording:
    values = {
        "package": package,
        "path": path,
        "sha256": hashlib.sha256(data).hexdigest(),
        "author": "A",
        "license": "CC0-1.0",
        "source": "",
        "concept": "thud",
        "group": "impacts",
        "names": (),
        "start_s": 0.0,
        "end_s": None,
        "split": "train",
        "take": "t",
        "seconds": 1.0,
        "rate": 44100,
    }
    return Recording(**values | changes)


@pytest.fixture
def tone(wave) -> bytes:
    return wave(0.25 * np.sin(2 * np.pi * 1000 * np.arange(22050) / 22050), 22050)


@pytest.fixture
def get(tmp_path, make_c4group, tone):
    """Stands for the download: a plain file and a container, and the packages asked for."""

    def download(package: str, folder: Path) -> Path:
        asked.append(package)
        if package == "absent":
            raise InputError("absent: no such package")
        (folder / "share").mkdir()
        (folder / "share" / "plain.wav").write_bytes(tone)
        (folder / "share" / "Sound.ocg").write_bytes(make_c4group({"Sub.ocg": {"a.wav": tone}}))
        (folder / "share" / "broken.wad").write_bytes(b"IWAD")
        return folder

    asked: list[str] = []
    download.asked = asked
    return download


def test_fetch_keeps_plain_files_and_members_and_goes_on_where_it_was(tmp_path, get, tone):
    cache = tmp_path / "cache"
    wanted = [
        recording("one", "share/plain.wav", tone),
        recording("one", "share/Sound.ocg/Sub.ocg/a.wav", tone),
        recording("two", "share/plain.wav", tone),
    ]
    assert fetch(cache, wanted[:1], get=get) == []
    assert fetch(cache, wanted, get=get) == []
    assert all(cached_path(cache, r).read_bytes() == tone for r in wanted)
    assert get.asked == ["one", "one", "two"]
    assert fetch(cache, wanted, get=get) == []
    assert len(get.asked) == 3
    cached_path(cache, wanted[2]).write_bytes(b"damaged")
    assert fetch(cache, wanted, get=get) == []
    assert get.asked[3:] == ["two"]
    assert sorted(path.name for path in cache.iterdir()) == ["one", "two"]


def test_fetch_says_one_line_a_problem_and_keeps_the_rest(tmp_path, get, tone):
    wanted = [
        recording("absent", "a.wav", tone),
        recording("one", "share/plain.wav", tone),
        recording("one", "share/Sound.ocg/missing.wav", tone),
        recording("one", "share/broken.wad/DSA.wav", tone),
        recording("two", "share/plain.wav", b"another"),
        recording("two", "share/plain.wav/inside.wav", tone),
        recording("two", "nowhere.wav", tone),
    ]
    problems = fetch(tmp_path, wanted, get=get)
    assert problems == [
        "absent: no such package",
        "one: 2 of 3 recordings are missing (first: share/Sound.ocg/missing.wav: not in Sound.ocg)",
        "two: 3 of 3 recordings are missing (first: share/plain.wav: "
        "sha256 differs from the ledger)",
    ]
    assert cached_path(tmp_path, wanted[1]).exists()


def test_fetch_refuses_a_cache_that_is_a_file(tmp_path, get, tone):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        fetch(tmp_path / "file", [recording("one", "share/plain.wav", tone)], get=get)


def test_download_needs_its_tools_and_a_known_package(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="nonsense: not a package"):
        packages.download("nonsense", tmp_path)
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="freedoom: apt-get is not installed"):
        packages.download("freedoom", tmp_path)


@pytest.mark.skipif(shutil.which("false") is None, reason="no program `false`")
def test_a_failing_tool_is_quoted_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"^p: sh failed \(two\)$"):
        packages._run(["sh", "-c", "echo one >&2; echo two >&2; exit 3"], tmp_path, "p")


def test_command_prints_problems_and_fails(tmp_path, monkeypatch):
    module = "clipsynth_training.data.recordings.__main__.fetch"
    monkeypatch.setattr(module, lambda cache: ["freedoom: gone"])
    result = CliRunner().invoke(main, [str(tmp_path)])
    assert (result.exit_code, result.stderr) == (1, "freedoom: gone\n")
    monkeypatch.setattr(module, lambda cache: [])
    assert CliRunner().invoke(main, [str(tmp_path)]).exit_code == 0


def test_reading_resamples_trims_and_gives_peak_one(tmp_path, tone):
    wanted = recording("p", "a.wav", tone, start_s=0.25, end_s=0.75)
    path = cached_path(tmp_path, wanted)
    path.parent.mkdir(parents=True)
    path.write_bytes(tone)
    ((row, samples),) = read_recordings(tmp_path, "train", [wanted])
    assert row is wanted
    assert list(read_recordings(tmp_path, "test", [wanted])) == []
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(SAMPLE_RATE // 2, abs=4)  # 2 samples at half the rate
    assert np.max(np.abs(samples)) == 1.0
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(samples) == pytest.approx(1000, abs=2)
    assert abs(samples[0]) < 0.01  # the cut is faded
    assert abs(samples[-1]) < 0.05


def test_reading_names_what_is_missing_changed_or_no_sound(tmp_path, tone, wave):
    wanted = recording("p", "a.wav", tone)
    with pytest.raises(InputError, match=r"a\.wav: cannot be read .*run: python -m"):
        read_recording(tmp_path, wanted)
    path = cached_path(tmp_path, wanted)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"other")
    with pytest.raises(InputError, match="sha256 differs"):
        read_recording(tmp_path, wanted)
    with pytest.raises(InputError, match="cannot be decoded"):
        read_recording(tmp_path, recording("p", "a.wav", b"other"))
    silence = wave(np.zeros(100))
    path.write_bytes(silence)
    with pytest.raises(InputError, match="silence"):
        read_recording(tmp_path, recording("p", "a.wav", silence))


def test_mono_does_not_cancel_what_is_of_opposite_phase():
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, 4000))
    np.testing.assert_array_equal(to_mono(np.stack([left, -left], 1)), left)
    np.testing.assert_array_equal(to_mono(np.stack([left, -0.8 * left], 1)), left)
    np.testing.assert_array_equal(to_mono(np.stack([0 * left, left], 1)), left)
    np.testing.assert_allclose(to_mono(np.stack([left, right], 1)), (left + right) / 2)
    np.testing.assert_array_equal(to_mono(left[:, None]), left)


def test_downloaded_recordings_read_as_the_ledger_says():
    cache = os.environ.get("CLIPSYNTH_RECORDINGS")
    if not cache:
        pytest.skip("CLIPSYNTH_RECORDINGS does not name a folder of fetched recordings")
    ledger = load_recordings()
    for row in ledger[:: len(ledger) // 40]:
        samples = read_recording(Path(cache), row)
        end = row.seconds if row.end_s is None else row.end_s
        assert len(samples) / SAMPLE_RATE == pytest.approx(end - row.start_s, abs=0.002)
        assert np.max(np.abs(samples)) == pytest.approx(1.0)
