"""``clipsynth-rt data``: what it prints, its exit codes, and one line for bad input."""

import json
import os
import stat
from fractions import Fraction

import av
import numpy as np
import pytest
from click.testing import CliRunner

from clipsynth_rt.cli.main import main
from clipsynth_training.data.shards import ShardSet


@pytest.fixture
def run():
    def call(*arguments):
        return CliRunner().invoke(main, ["data", *map(str, arguments)])

    return call


def video(path, seconds=1.5):
    times = np.arange(round(22050 * seconds)) / 22050
    sound = np.round(8000 * np.sin(2760 * times)).astype(np.int16)
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=4)
        pictures.width = pictures.height = 32
        pictures.pix_fmt = "yuv420p"
        audio = container.add_stream("flac", rate=22050, layout="mono", format="s16")
        for number in range(round(4 * seconds)):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 90, np.uint8), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 4)
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode())
        for start in range(0, len(sound), 4096):
            frame = av.AudioFrame.from_ndarray(sound[None, start : start + 4096], "s16", "mono")
            frame.sample_rate, frame.pts = 22050, start
            frame.time_base = Fraction(1, 22050)
            container.mux(audio.encode(frame))
        container.mux(audio.encode())


def failed(result, exit_code, *parts, announced=()):
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1 + len(announced)
    assert result.stderr.splitlines()[: len(announced)] == list(announced)
    for part in parts:
        assert part in result.stderr.splitlines()[-1]


def test_prepare_writes_shards_and_says_what_it_skipped(tmp_path, run):
    (tmp_path / "videos").mkdir()
    video(tmp_path / "videos" / "a.mp4")
    (tmp_path / "videos" / "b.webm").write_bytes(b"no video")
    shards = tmp_path / "shards"
    result = run(
        "prepare", tmp_path / "videos", shards, "--frames", 64, "--images", 2, "--frame-size", 16,
        "--workers", 1,
    )  # fmt: skip
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"2 clips of 2 videos in {shards}",
        "skipped 1 broken: b.webm",
        f"all of them are listed in {shards / 'report.json'}",
    ]
    opened = ShardSet.open(shards)
    assert opened.ids == ["a", "a#1"]
    assert opened.frames().shape == (2, 2, 16, 16, 3)
    assert json.loads((shards / "report.json").read_text())["skipped"] == {"broken": 1}
    assert result.stderr.splitlines() == [f"cutting 2 of 2 videos into {shards}, workers: 1"]
    assert "\r" not in result.stderr  # no progress bar where there is no terminal


def test_prepare_without_one_usable_video(tmp_path, run):
    failed(run("prepare", tmp_path / "none", tmp_path / "out"), 1, "none: no such folder")
    (tmp_path / "videos").mkdir()
    failed(run("prepare", tmp_path / "videos", tmp_path / "out"), 1, "no videos in it")
    (tmp_path / "videos" / "a.mp4").write_bytes(b"no video")
    result = run("prepare", tmp_path / "videos", tmp_path / "out", "--workers", 1)
    told = f"cutting 1 of 1 videos into {tmp_path / 'out'}, workers: 1"
    failed(result, 1, "none of its 1 videos can be used (1 broken)", announced=[told])
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_prepare_into_a_file(tmp_path, run):
    video(tmp_path / "a.mp4")
    (tmp_path / "out").write_text("")
    failed(run("prepare", tmp_path, tmp_path / "out"), 1, "out: cannot be written to")


@pytest.mark.parametrize(
    "option", [("--frames", "0"), ("--images", "0"), ("--workers", "0"), ("--hop", "x")]
)
def test_prepare_refuses_senseless_numbers(tmp_path, run, option):
    failed(run("prepare", tmp_path, tmp_path / "out", *option), 2, option[0])


def test_openav_names_the_missing_source(tmp_path, run):
    result = run("openav", tmp_path / "corpus", "--source-dir", tmp_path)
    failed(result, 1, "FluidR3 GM", "apt-get install fluid-soundfont-gm", "clipsynth-rt data fetch")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", [("--clips", "0"), ("--seed", "-1"), ("--workers", "0")])
def test_openav_refuses_senseless_numbers(tmp_path, run, option):
    failed(run("openav", tmp_path / "corpus", *option), 2, option[0])


def tools(folder, names, body):
    """Put executables that run ``body`` first on the path of a test."""
    for name in names:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_fetch_that_fails_says_so(tmp_path, run, monkeypatch):
    (tmp_path / "bin").mkdir()
    path = tools(tmp_path / "bin", ("apt-get", "dpkg", "npm", "tar"), "exit 100")
    monkeypatch.setenv("PATH", path)
    result = run("fetch", tmp_path / "sources")
    assert result.exit_code == 1
    assert "sources: the sources were not fetched (exit 100)" in result.stderr


def test_fetch_without_bash(tmp_path, run, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    failed(run("fetch", tmp_path / "sources"), 1, "bash is not installed")


def test_fetch_says_which_package_of_how_many(tmp_path, run, monkeypatch, capfd):
    (tmp_path / "bin").mkdir()
    # each tool gives what the script looks for, without a network
    path = tools(tmp_path / "bin", ("apt-get", "dpkg", "tar"), "exit 0")
    monkeypatch.setenv("PATH", path)
    tools(tmp_path / "bin", ("npm",), "exit 1")
    assert run("fetch", tmp_path / "sources").exit_code == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("fetching what is missing of 36 packages into ")
    assert lines[1] == "[1/36] apt-get download fluid-soundfont-gm"
    assert lines[2].startswith("[2/36] apt-get download fluid-soundfont-gs, about ")
    assert lines[-1].startswith("[7/36] npm pack @iconify-json/noto, about ")
