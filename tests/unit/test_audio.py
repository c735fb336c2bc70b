"""Finished sound and the files it goes into."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from clipsynth_rt.audio.clip import PEAK, AudioClip, finish, format_for, limit_peaks, to_int16
from clipsynth_rt.errors import InputError, NumericalError, OutputError
from clipsynth_rt.files import write_atomically

RATE = 22050


@pytest.fixture
def clip() -> AudioClip:
    time = np.arange(RATE, dtype=np.float32) / RATE
    return AudioClip(0.5 * np.sin(2 * np.pi * 440 * time).astype(np.float32), RATE)


@pytest.mark.parametrize(
    ("format", "tolerance"), [("wav", 1e-4), ("flac", 1e-4), ("ogg", 0.05), ("mp3", 0.1)]
)
def test_formats_keep_the_sound(
    clip: AudioClip, tmp_path: Path, format: str, tolerance: float
) -> None:
    path = clip.save(tmp_path / f"a.{format}")
    samples, rate = soundfile.read(path, dtype="float32")
    info = soundfile.info(path)
    assert (rate, info.channels, info.format) == (RATE, 1, format.upper())
    # 16 bit: half a step; Vorbis and MP3: what their default quality does to a sine
    np.testing.assert_allclose(samples, clip.waveform, atol=tolerance)
    assert clip.stages_s["write"] > 0.0


def test_long_ogg(tmp_path: Path) -> None:
    waveform = np.zeros(RATE * 40, np.float32)
    path = AudioClip(waveform, RATE).save(tmp_path / "long.ogg")
    assert soundfile.info(path).frames == len(waveform)


def test_full_scale_does_not_wrap() -> None:
    samples = to_int16(np.array([1.0, -1.0, 2.0, -2.0, 0.0, 0.5], np.float32))
    assert samples.tolist() == [32767, -32767, 32767, -32767, 0, 16384]


def test_finish_cuts_fades_and_keeps_the_level() -> None:
    waveform = np.full(5000, 0.25, np.float32)
    result = finish(waveform, 4000, RATE)
    assert len(result) == 4000
    fade = round(0.01 * RATE)
    assert (result[:-fade] == 0.25).all()
    assert abs(result[-1]) < 1e-6
    assert (np.diff(result[-fade:]) < 0).all()
    # the vocoder's own array is left alone
    assert (waveform == 0.25).all()


def _beats(peaks: list[float]) -> np.ndarray:
    """One stroke of 100 Hz every half second, dying away."""
    time = np.arange(RATE // 2) / RATE
    stroke = np.sin(2 * np.pi * 100.0 * time) * np.exp(-12.0 * time)
    return np.concatenate([peak * stroke for peak in peaks]).astype(np.float32)


def test_a_loud_stroke_leaves_the_others_as_they_are() -> None:
    waveform = _beats([0.5, 3.0, 0.5])
    result = limit_peaks(waveform)
    assert np.abs(result).max() <= PEAK
    assert np.abs(result).max() > 0.8 * PEAK
    stroke = RATE // 2
    # the limiter is at rest a window away from what is too loud
    np.testing.assert_allclose(result[: stroke - 3000], waveform[: stroke - 3000], rtol=2e-6)
    np.testing.assert_allclose(result[2 * stroke + 100 :], waveform[2 * stroke + 100 :], rtol=2e-6)


def test_a_limited_tone_stays_a_tone() -> None:
    time = np.arange(RATE) / RATE
    waveform = (3.0 * np.sin(2 * np.pi * 50.0 * time)).astype(np.float32)
    result = limit_peaks(waveform)
    spectrum = np.abs(np.fft.rfft(result * np.hanning(RATE)))
    # second and later harmonics, against the tone's own
    assert spectrum[90:].max() < 0.003 * spectrum[45:56].max()


def test_a_limited_loop_goes_on_without_a_step() -> None:
    waveform = np.concatenate([_beats([3.0, 0.5])[1000:], _beats([3.0])[:1000]])
    waveform = waveform[: len(waveform) // 64 * 64]
    twice = limit_peaks(np.tile(waveform, 3))[len(waveform) : 2 * len(waveform)]
    np.testing.assert_allclose(limit_peaks(waveform, loop=True), twice, rtol=1e-5, atol=1e-7)


@given(st.integers(1, 3000), st.floats(0.1, 50.0), st.integers(0, 2**32 - 1), st.booleans())
def test_nothing_exceeds_the_peak(count: int, level: float, seed: int, loop: bool) -> None:
    waveform = level * np.random.default_rng(seed).standard_normal(count).astype(np.float32)
    assert np.abs(limit_peaks(waveform, loop=loop)).max() <= PEAK


def test_finish_keeps_silence_silent() -> None:
    assert not finish(np.zeros(100, np.float32), 100, RATE).any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_finish_refuses_what_is_not_finite(value: float) -> None:
    waveform = np.zeros(100, np.float32)
    waveform[50] = value
    with pytest.raises(NumericalError, match="not finite"):
        finish(waveform, 100, RATE)


@pytest.mark.parametrize(
    ("name", "format", "expected"),
    [("a.wav", None, "wav"), ("a.OGG", None, "ogg"), ("a", "flac", "flac"), ("a.b", "wav", "wav")],
)
def test_format_for(name: str, format: str | None, expected: str) -> None:
    assert format_for(name, format) == expected


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("a.aac", None, r"a\.aac: unknown extension; use \.wav, \.flac, \.ogg, \.mp3"),
        ("a", None, "unknown extension"),
        ("a.wav", "aac", "unknown format 'aac'"),
        ("a.wav", "flac", "the name says wav and the format flac"),
    ],
)
def test_format_that_cannot_be(name: str, format: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        format_for(name, format)


def test_save_replaces_and_obeys_the_umask(clip: AudioClip, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_text("old")
    old = os.umask(0o027)
    try:
        clip.save(path)
    finally:
        os.umask(old)
    assert soundfile.info(path).frames == RATE
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["a.wav"]


def test_save_through_a_link_writes_what_it_points_to(clip: AudioClip, tmp_path: Path) -> None:
    target, link = tmp_path / "real.wav", tmp_path / "link.wav"
    link.symlink_to(target)
    clip.save(link)
    assert link.is_symlink()
    assert soundfile.info(target).frames == RATE


def test_save_into_no_folder(clip: AudioClip, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        clip.save(tmp_path / "absent" / "a.wav")


def test_save_onto_a_folder(clip: AudioClip, tmp_path: Path) -> None:
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        clip.save(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["x" * 300 + ".wav", "nul\0.wav"], ids=["long", "nul"])
def test_save_under_an_impossible_name(clip: AudioClip, tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        clip.save(tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_device_is_an_error_and_stays_a_device(clip: AudioClip) -> None:
    with pytest.raises(OutputError, match="No space left on device"):
        clip.save("/dev/full", "wav")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="no /dev/fd here")
def test_a_pipe_is_written_to_by_any_name(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    # by its number, as >(...) of a shell is named, and by the standard names
    for name in ("/dev/fd/1", "/dev/stdout", "/proc/self/fd/1", str(tmp_path / "link")):
        if not os.path.exists(name):
            os.symlink("/dev/stdout", name)
        code = (
            "import pathlib\n"
            "from clipsynth_rt.audio.clip import write_atomically\n"
            f"write_atomically(pathlib.Path({name!r}), bytes(range(256)) * 1000)\n"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert result.stdout == data
    # and a file by such a name is replaced as by its own
    with (tmp_path / "a").open("wb") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert (tmp_path / "a").read_bytes() == data
    assert sorted(os.listdir(tmp_path)) == ["a", "link"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_text("old")
    # a process of its own: a limit on file sizes, once lowered, holds for all that follows
    code = (
        "import resource, pathlib\n"
        "from clipsynth_rt.audio.clip import write_atomically\n"
        "from clipsynth_rt.errors import OutputError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        f"    write_atomically(pathlib.Path({str(path)!r}), bytes(5000))\n"
        "except OutputError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "cannot be written (File too large)" in result.stdout
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.wav"]


def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.wav", b"sound")
    assert os.listdir(tmp_path) == []


def test_write_to_a_stream(clip: AudioClip) -> None:
    stream = io.BytesIO()
    clip.write_to(stream, "flac")
    stream.seek(0)
    assert soundfile.info(stream).format == "FLAC"


def test_real_time_factor_counts_every_stage() -> None:
    clip = AudioClip(np.zeros(RATE * 2, np.float32), RATE, stages_s={"text": 0.1, "denoise": 0.3})
    assert clip.audio_s == 2.0
    assert clip.rtf == pytest.approx(0.2)
