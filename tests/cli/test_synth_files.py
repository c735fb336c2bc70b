"""Where ``clipsynth-rt synth`` writes, and what it reads from pipes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path

import click.testing
import numpy as np
import PIL.Image
import pytest
import soundfile

from clipsynth_rt.cli.main import main
from clipsynth_rt.files import file_stem

Synth = Callable[..., click.testing.Result]


def line(result: click.testing.Result) -> str:
    assert result.exit_code != 0, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    return result.stderr


def files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def test_folders_are_made_by_every_door(synth: Synth) -> None:
    assert synth("drum", "-o", "new/deep/a.wav", "--plot", "pictures/a.png").exit_code == 0
    assert synth("drum", "dog", "-o", "sounds/").exit_code == 0
    Path("list.csv").write_text("query\nrain\n")
    assert synth("--batch", "list.csv", "--out-dir", "out/deep").exit_code == 0
    expected = ["list.csv", "new/deep/a.wav", "out/deep/0001-rain.wav", "out/deep/results.json"]
    assert files() == [*expected, "pictures/a.png", "sounds/dog.wav", "sounds/drum.wav"]


def test_a_bad_option_makes_no_folder(synth: Synth) -> None:
    assert "eta must be" in line(synth("drum", "-o", "new/a.wav", "--eta", "2"))
    assert os.listdir() == []


def test_a_number_counts_from_one_and_a_seed_is_the_seed(synth: Synth) -> None:
    assert synth("drum", "-o", "{i}-{seed}.wav", "--variations", "2", "--seed", "7").exit_code == 0
    assert files() == ["1-7.wav", "2-8.wav"]
    assert synth("drum", "-o", "takes/", "--variations", "2", "--seed", "7").exit_code == 0
    assert files()[2:] == ["takes/drum-1.wav", "takes/drum-2.wav"]
    assert synth("drum", "-o", "{{i}}.wav").exit_code == 0
    assert "{i}.wav" in files()


def test_what_exists_is_replaced_with_a_word_or_kept(synth: Synth) -> None:
    first = json.loads(synth("drum", "-o", "a.wav", "--json").stdout)
    assert first["replaced"] is False
    before = Path("a.wav").read_bytes()
    assert "a.wav exists already; give another -o, or --overwrite" in line(
        synth("dog", "-o", "a.wav", "--no-clobber")
    )
    assert Path("a.wav").read_bytes() == before
    result = synth("dog", "-o", "a.wav")
    assert result.stdout.endswith(", in place of an older file\n")
    assert Path("a.wav").read_bytes() != before
    Path("b.png").write_bytes(b"mine")
    message = line(synth("dog", "-o", "b.wav", "--plot", "b.png", "--no-clobber"))
    assert "b.png exists already" in message
    assert Path("b.png").read_bytes() == b"mine"


def test_a_batch_keeps_what_is_not_its_own(synth: Synth) -> None:
    Path("list.csv").write_text("query,file\nrain,a.wav\ndog,b.wav\n")
    os.mkdir("out")
    Path("out/a.wav").write_bytes(b"mine")
    result = synth("--batch", "list.csv", "--out-dir", "out", "--no-clobber")
    assert result.exit_code == 1
    assert "row 1: a.wav exists already" in result.stderr
    assert Path("out/a.wav").read_bytes() == b"mine"
    # its own are kept as ever
    again = synth("--batch", "list.csv", "--out-dir", "out", "--no-clobber")
    assert "row 2: b.wav" in again.stdout
    assert "1 kept" in again.stdout
    assert synth("--batch", "list.csv", "--out-dir", "out").exit_code == 0
    assert Path("out/a.wav").read_bytes() != b"mine"


def test_two_pictures_are_two_sounds(synth: Synth, tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("rose.png", "sky.png")]
    for path, colour in zip(paths, ("red", "blue"), strict=True):
        PIL.Image.new("RGB", (8, 8), colour).save(path)
    both = ("--image", paths[0], "--image", paths[1])
    assert synth(*both, "-o", "{query}.wav").exit_code == 0
    assert files() == ["rose.wav", "sky.wav"]
    assert Path("rose.wav").read_bytes() != Path("sky.wav").read_bytes()
    assert "two sounds would both be written to a.wav" in line(synth(*both, "-o", "a.wav"))


def test_a_sound_and_its_picture_do_not_share_a_file(synth: Synth) -> None:
    args = ("drum", "-o", "a.png", "--format", "wav", "--plot")
    assert "a.png: the sound and its picture (--plot) cannot share" in line(synth(*args, "a.png"))
    assert "A.png: the sound and its picture" in line(synth(*args, "./A.png"))
    assert os.listdir() == []


def test_names_that_some_disks_take_for_one(synth: Synth) -> None:
    Path("list.csv").write_text("query,file\nrain,A.wav\nwind,a.wav\n")
    result = synth("--batch", "list.csv", "--out-dir", "out")
    assert "a.wav and A.wav of row 1 are one file on disks that ignore case" in result.stderr
    assert os.listdir("out") == ["A.wav", "results.json"] or sorted(os.listdir("out")) == [
        "A.wav",
        "results.json",
    ]
    accents = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    assert "two sounds would both be written" in line(synth(*accents, "-o", "{query}.wav"))


@pytest.mark.parametrize(
    ("query", "stem"),
    [
        ("कुत्ता", "कुत्ता"),
        (unicodedata.normalize("NFD", "Café"), "café"),
        ("שָׁלוֹם", unicodedata.normalize("NFC", "שָׁלוֹם")),
        ("con", "con-sound"),
        ("NUL", "nul-sound"),
        ("lpt1!", "lpt1-sound"),
        ("console", "console"),
        ("a/b\\c:d", "a-b-c-d"),
        ("!!!", "sound"),
    ],
)
def test_file_names_of_queries(query: str, stem: str) -> None:
    assert file_stem(query) == stem


def run(arguments: list[str], data: bytes, bundle: Path) -> click.testing.Result:
    command = ["synth", "--bundle", str(bundle), *arguments]
    return click.testing.CliRunner().invoke(main, command, input=data, prog_name="clipsynth-rt")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_queries_from_standard_input(tiny_bundle: Path, here: Path) -> None:
    result = run(
        ["rain", "-", "-o", "{i}-{query}.wav"], b"\xef\xbb\xbfdrum\r\n\ndog\n", tiny_bundle
    )
    assert result.exit_code == 0, result.output
    assert files() == ["1-rain.wav", "2-drum.wav", "3-dog.wav"]
    for data, message in (
        (b"\n \n", "standard input: has no query"),
        (b"\xff\xfe", "standard input: not UTF-8"),
    ):
        assert message in line(run(["-", "-o", "a.wav"], data, tiny_bundle))
    message = "standard input (-) can be one of"
    assert message in line(run(["-", "--init", "-", "-o", "a.wav"], b"", tiny_bundle))


def test_a_list_from_standard_input(tiny_bundle: Path, here: Path) -> None:
    result = run(["--batch", "-", "--out-dir", "out"], b"query;seed\ndrum, deep;5\n", tiny_bundle)
    assert result.exit_code == 0, result.output
    (row,) = json.loads(Path("out/results.json").read_text())["rows"]
    assert (row["query"], row["seed"]) == ("drum, deep", 5)


def test_a_sound_to_vary_from_standard_input(tiny_bundle: Path, here: Path) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.1 * np.random.default_rng(0).normal(size=9000), 22050, format="WAV")
    Path("given.wav").write_bytes(buffer.getvalue())
    more = ["drum", "--variations", "9", "--no-tag"]
    result = run([*more, "--init", "-", "-o", "pipe/"], buffer.getvalue(), tiny_bundle)
    assert result.exit_code == 0, result.output
    assert run([*more, "--init", "given.wav", "-o", "file/"], b"", tiny_bundle).exit_code == 0
    for path in Path("pipe").iterdir():
        assert path.read_bytes() == (Path("file") / path.name).read_bytes()
    message = "standard input: cannot be read as a sound"
    assert message in line(run(["drum", "--init", "-", "-o", "a.wav"], b"none", tiny_bundle))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_named_pipes_are_there(tiny_bundle: Path, here: Path) -> None:
    def piped(name: str, data: bytes, arguments: list[str]) -> None:
        os.mkfifo(name)
        writer = threading.Thread(target=Path(name).write_bytes, args=(data,))
        writer.start()
        result = run(arguments, b"", tiny_bundle)
        writer.join(10)
        assert result.exit_code == 0, result.output

    sound, picture = io.BytesIO(), io.BytesIO()
    soundfile.write(sound, 0.1 * np.ones(9000), 22050, format="WAV")
    PIL.Image.new("RGB", (8, 8), "red").save(picture, "PNG")
    takes = ["--variations", "9"]
    piped("init", sound.getvalue(), ["drum", "--init", "init", "-o", "a/", *takes])
    piped("image", picture.getvalue(), ["--image", "image", "-o", "b/", *takes])
    piped("list", b"query\ndrum\n", ["--batch", "list", "--out-dir", "c"])
    assert [len(os.listdir(name)) for name in "abc"] == [9, 9, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode here")
def test_names_that_are_no_utf8(tiny_bundle: Path, here: Path) -> None:
    soundfile.write("ok.wav", 0.1 * np.ones(9000), 22050)
    PIL.Image.new("RGB", (8, 8), "red").save("ok.png")
    for kind in ("wav", "png"):
        os.rename(f"ok.{kind}", f"vid\udce9.{kind}")
    command = [sys.executable, "-m", "clipsynth_rt", "synth", "--bundle", str(tiny_bundle)]
    for more in (
        ["drum", "--init", b"vid\xe9.wav", "-o", "a.wav"],
        ["--image", b"vid\xe9.png", "-o", "b.ogg", "--plot", "b.png"],
        ["--image", b"vid\xe9.png", "-o", b"c\xe9.mp3", "--json"],
        ["drum", "--init", b"absent\xe9.wav", "-o", "d.wav"],
    ):
        done = subprocess.run([*command, *more], capture_output=True)
        assert b"Traceback" not in done.stderr, done.stderr.decode("utf-8", "replace")
        assert done.returncode == (b"absent\xe9.wav" in more)
    assert Path("a.wav").is_file()
    assert os.path.isfile(b"c\xe9.mp3")
    Path("list.csv").write_text("query,init\nrain,\ndog,absent.wav\n")
    done = subprocess.run(
        [*command, "--batch", "list.csv", "--out-dir", b"out\xe9", "--init", b"vid\xe9.wav"],
        capture_output=True,
    )
    assert b"Traceback" not in done.stderr
    assert b"0001-rain.wav" in b"".join(os.listdir(b"out\xe9"))


def test_messages_are_short_and_hints_are_there(synth: Synth) -> None:
    result = synth("drum " * 4000, "-o", "a.wav")
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) < 200
    message = line(synth("-drum", "-o", "a.wav"))
    assert 'A query that begins with "-" goes after "--".' in message
    assert synth("-o", "b.wav", "--", "-drum").exit_code == 0
    Path("list.csv").write_text("query\n" + "drum " * 4000 + "\n")
    result = synth("--batch", "list.csv", "--out-dir", "out")
    assert max(map(len, result.output.splitlines())) < 200
