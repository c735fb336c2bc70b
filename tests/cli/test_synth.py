"""``clipsynth-rt synth``: exit code, output and files, for good input and bad."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click.testing
import numpy as np
import PIL.Image
import pytest
import soundfile

from clipsynth_rt.audio.provenance import read_tag
from clipsynth_rt.backends import choice as backends
from clipsynth_rt.backends.ort import session as ort
from clipsynth_rt.cli import main as cli
from clipsynth_rt.cli.common.voice import parse_precision
from clipsynth_rt.cli.synth.targets import check_file
from clipsynth_rt.errors import InputError, OutputError
from clipsynth_rt.files import file_stem

KEYS = {
    "rtf",
    "audio_s",
    "stages_s",
    "provider",
    "num_steps",
    "network_calls",
    "guidance_scale",
    "distilled",
    "seed",
    "bundle",
}
Synth = Callable[..., click.testing.Result]


def assert_refused_there(result: click.testing.Result, message: str, code: int = 1) -> None:
    """One line on stderr and nothing on stdout."""
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def assert_refused(result: click.testing.Result, message: str, code: int = 1) -> None:
    """One line on stderr, nothing on stdout, and no file."""
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert os.listdir() == []


def test_a_sound_and_a_line_a_stage(synth: Synth) -> None:
    result = synth("drum", "-o", "drum.wav", "--duration", "0.5", "--seed", "3")
    assert result.exit_code == 0, result.output
    info = soundfile.info("drum.wav")
    assert (info.frames, info.samplerate, info.channels, info.subtype) == (
        11025,
        22050,
        1,
        "PCM_16",
    )
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["text", "denoise", "vocode", "write"]
    assert lines[4].startswith("drum.wav: 0.50 s of 'drum', RTF ")
    assert len(lines) == 5
    assert result.stderr == ""
    assert os.listdir() == ["drum.wav"]


def test_verbose_says_what_auto_chose_and_quiet_says_nothing(
    synth: Synth, distilled_bundle: Path
) -> None:
    result = synth("drum", "-o", "a.wav", "--verbose")
    # which provider "auto" took is said, and why each better one was not
    if "on cpu" in result.stdout:
        assert result.stderr.startswith("auto took cpu, not tensorrt (")
        assert "tensorrt-rtx (" in result.stderr
        assert "cuda (" in result.stderr
    args = ("drum", "-o", "a.wav", "--provider", "cpu")
    result = synth(*args, "-v", "--guidance-scale", "3", bundle=distilled_bundle)
    assert result.stderr == (
        "auto took the full denoiser, not the distilled one: it has no guidance_scale; its "
        "guidance is in its weights\n"
    )
    assert synth(*args, "-v", bundle=distilled_bundle).stderr == ""
    quiet = synth("drum", "-o", "b.wav", "--quiet")
    assert (quiet.exit_code, quiet.output) == (0, "")
    assert Path("b.wav").is_file()
    assert "warning: " in synth("drum " * 1000, "-o", "a.wav", "--quiet").stderr
    assert_refused_there(synth("drum", "-o", "a.wav", "-v", "-q"), "contradict each other", 2)


def test_the_denoiser_by_name(synth: Synth, distilled_bundle: Path) -> None:
    def report(*more: str) -> dict[str, object]:
        args = ("drum", "-o", "a.wav", "--json", "--provider", "cpu", *more)
        result = synth(*args, bundle=distilled_bundle)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    assert report()["distilled"] is True
    assert report("--denoiser", "distilled")["distilled"] is True
    full = report("--denoiser", "full")
    assert (full["distilled"], full["num_steps"], full["network_calls"]) == (False, 8, 16)
    result = synth(
        *("drum", "-o", "a.wav", "--denoiser", "distilled", "--negative", "dog"),
        bundle=distilled_bundle,
    )
    assert_refused_there(result, "denoiser distilled: it takes no negative; use auto or full")
    result = synth("drum", "-o", "a.wav", "--denoiser", "distilled")
    assert_refused_there(result, "denoiser distilled: the voice tiny-test has no distilled")
    result = synth("drum", "-o", "a.wav", "--denoiser", "fast")
    assert_refused_there(result, "unknown denoiser 'fast'; use one of auto, full, distilled")


def test_json(synth: Synth, tiny_bundle: Path) -> None:
    result = synth(
        *(
            "drum",
            "-o",
            "drum.flac",
            "--json",
            "--num-steps",
            "5",
            "--guidance-scale",
            "3",
            "--seed",
            "9",
        )
    )
    report = json.loads(result.stdout)
    assert report.keys() == KEYS | {"query", "path", "not_taken", "replaced"}
    assert list(report["stages_s"]) == ["text", "denoise", "vocode", "write"]
    assert (report["num_steps"], report["network_calls"], report["guidance_scale"]) == (5, 10, 3.0)
    assert (report["seed"], report["bundle"], report["path"]) == (9, "tiny-test", "drum.flac")
    assert report["provider"] in backends.PROVIDERS
    assert report["audio_s"] == soundfile.info("drum.flac").duration
    assert report["rtf"] == pytest.approx(sum(report["stages_s"].values()) / report["audio_s"])


@pytest.mark.parametrize(
    ("options", "distilled", "num_steps", "calls", "guidance_scale"),
    [
        ((), True, 2, 2, 1.0),
        (("--num-steps", "4"), True, 4, 4, 1.0),
        (("--num-steps", "3"), False, 3, 6, 2.0),
        (("--guidance-scale", "3"), False, 8, 16, 3.0),
        (("--negative", "dog"), False, 8, 16, 2.0),
        (("--eta", "1"), False, 8, 16, 2.0),
    ],
)
def test_a_plain_query_of_a_distilled_voice(
    distilled_bundle: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    distilled: bool,
    num_steps: int,
    calls: int,
    guidance_scale: float,
) -> None:
    line = ["synth", "drum", "-o", str(tmp_path / "a.wav"), "--json", "--provider", "cpu"]
    line += ["--bundle", str(distilled_bundle), *options]
    result = click.testing.CliRunner().invoke(cli.main, line, prog_name="clipsynth-rt")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["distilled"] is distilled
    assert (report["num_steps"], report["network_calls"], report["guidance_scale"]) == (
        num_steps,
        calls,
        guidance_scale,
    )


def test_guidance_of_one_halves_the_calls(synth: Synth) -> None:
    result = synth("drum", "-o", "a.wav", "--json", "--num-steps", "5", "--guidance-scale", "1")
    assert json.loads(result.stdout)["network_calls"] == 5


def test_standard_output(synth: Synth) -> None:
    result = synth("drum", "-o", "-", "--duration", "0.5")
    samples, rate = soundfile.read(io.BytesIO(result.stdout_bytes))
    assert (len(samples), rate) == (11025, 22050)
    assert "RTF" in result.stderr
    assert synth("drum", "-o", "-", "--format", "ogg").stdout_bytes.startswith(b"OggS")
    report = json.loads(synth("drum", "-o", "-", "--json").stderr)
    assert report["path"] == "-"
    assert os.listdir() == []


def test_several_queries(synth: Synth) -> None:
    os.mkdir("sounds")
    result = synth("drum", "Snare Drum!", "-o", "sounds", "--json", "--seed", "4")
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert sorted(os.listdir("sounds")) == ["drum.wav", "snare-drum.wav"]
    assert [(r["query"], r["seed"]) for r in reports] == [("drum", 4), ("Snare Drum!", 5)]
    assert synth("drum", "dog", "-o", "sounds/", "--format", "ogg").exit_code == 0
    assert synth("drum", "drum", "-o", "{i}-{query}-{seed}.flac").exit_code == 0
    assert {"1-drum-0.flac", "2-drum-1.flac"} < set(os.listdir())
    # the i-th of several is the same sound as that seed alone
    assert synth("drum", "-o", "alone.flac", "--seed", "1").exit_code == 0
    alone, second = (soundfile.read(name)[0] for name in ("alone.flac", "2-drum-1.flac"))
    np.testing.assert_allclose(alone, second, atol=2 / 32767)


def test_an_image(synth: Synth, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (64, 48), "red").save(tmp_path / "rose.jpg")
    result = synth("--image", str(tmp_path / "rose.jpg"), "-o", "{query}.wav")
    assert result.exit_code == 0, result.output
    assert os.listdir() == ["rose.wav"]


def test_every_wish_changes_the_sound(synth: Synth) -> None:
    options = [
        (),
        ("--seed", "1"),
        ("--num-steps", "3"),
        ("--guidance-scale", "1.5"),
        ("--eta", "1"),
        ("--negative", "rain"),
        ("--template", "the sound of {query}"),
        ("--sampler", "dpmpp_2m"),
        ("--loop",),
        ("--lufs", "-30"),
    ]
    sounds = set()
    for wish in options:
        # the tag holds the seed, which would make a difference by itself
        assert synth("drum", "-o", "a.wav", "--no-tag", *wish).exit_code == 0
        sounds.add(Path("a.wav").read_bytes())
    assert len(sounds) == len(options)
    assert synth("drum", "-o", "a.wav", "--no-tag").exit_code == 0
    assert Path("a.wav").read_bytes() in sounds


def test_variations_are_takes_of_each_query(synth: Synth) -> None:
    os.mkdir("takes")
    result = synth("drum", "dog", "-o", "takes", "--variations", "5", "--seed", "3", "--json")
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    # more than are made at once
    assert [r["query"] for r in reports] == ["drum"] * 5 + ["dog"] * 5
    assert [r["seed"] for r in reports] == list(range(3, 13))
    assert sorted(os.listdir("takes")) == sorted(Path(r["path"]).name for r in reports)
    assert {"drum-1.wav", "dog-10.wav"} < set(os.listdir("takes"))
    assert synth("dog", "-o", "alone.wav", "--seed", "12").exit_code == 0
    alone, last = (soundfile.read(name)[0] for name in ("alone.wav", "takes/dog-10.wav"))
    np.testing.assert_allclose(alone, last, atol=2 / 32767)


def test_a_bad_query_is_found_before_anything_is_written(synth: Synth) -> None:
    queries = [*["drum"] * 12, " "]
    assert_refused(synth(*queries, "-o", "{i}.wav"), "query is empty")


def test_a_variation_of_a_sound(synth: Synth, tmp_path: Path) -> None:
    given = tmp_path / "given.wav"
    soundfile.write(given, 0.1 * np.random.default_rng(0).normal(size=9000), 22050)
    sounds = {}
    for strength in ("0.1", "0.9"):
        args = ("drum", "--init", str(given), "--strength", strength, "-o", "a.wav")
        result = synth(*args, "--json", "--num-steps", "10")
        report = json.loads(result.stdout)
        assert report["network_calls"] == round(10 * float(strength)) * 2
        sounds[strength] = soundfile.read("a.wav")[0]
        assert len(sounds[strength]) == 9000
    assert not np.allclose(*sounds.values(), atol=1e-3)


def test_a_sound_that_is_too_short_to_vary_is_named(synth: Synth, tmp_path: Path) -> None:
    given = tmp_path / "one.wav"
    soundfile.write(given, np.zeros(1), 22050)
    for more in ((), ("--duration", "1"), ("--plot", "a.png")):
        result = synth("drum", "--init", str(given), "-o", "a.wav", *more)
        assert_refused(
            result,
            f"{given}: the sound is too short, 0.0454 ms; at least 17.5 ms are needed",
        )


def test_the_shortest_sounds_have_a_picture(synth: Synth, tmp_path: Path) -> None:
    given = tmp_path / "short.wav"
    soundfile.write(given, 0.1 * np.ones(385), 22050)
    for more in (
        ("--duration", "0.0175"),
        ("--init", str(given)),
        ("--loop", "--duration", "0.0175"),
    ):
        result = synth("drum", "-o", "a.wav", "--plot", "a.png", *more)
        assert result.exit_code == 0, result.output
        assert sorted(os.listdir()) == ["a.png", "a.wav"]
        os.unlink("a.png")


def test_a_picture_of_the_mel(synth: Synth) -> None:
    result = synth("drum", "dog", "-o", "{query}.wav", "--plot", "{query}.png", "--json")
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["plot"] for line in result.stdout.splitlines()] == [
        "drum.png",
        "dog.png",
    ]
    with PIL.Image.open("drum.png") as picture:
        assert picture.format == "PNG"
        # 8 bins at 4 pixels and the margins; 44 frames at the least width
        assert picture.size == (480 + 80, 32 + 74)


def test_the_tag_and_its_absence(synth: Synth) -> None:
    assert synth("drum", "-o", "a.flac", "--seed", "5").exit_code == 0
    tag = read_tag("a.flac")
    assert tag is not None
    assert (tag["query"], tag["seed"], tag["bundle"]) == ("drum", 5, "tiny-test")
    assert synth("drum", "-o", "a.flac", "--no-tag").exit_code == 0
    assert read_tag("a.flac") is None
    assert b"clipsynth" in synth("drum", "-o", "-").stdout_bytes
    assert b"clipsynth" not in synth("drum", "-o", "-", "--no-tag").stdout_bytes


def test_an_over_long_query_warns_in_one_line(synth: Synth) -> None:
    result = synth("drum " * 1000, "-o", "a.wav")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: query cut to the first 12 tokens: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("",), "query is empty"),
        (("  ",), "query is empty"),
        (("drum", "\n"), "query is empty"),
        (("drum", "--negative", " "), "negative is empty"),
        (("drum", "--num-steps", "0"), "num_steps must be from 1 to 1000, got 0"),
        (("drum", "--num-steps", "1001"), "num_steps must be from 1 to 1000, got 1001"),
        (("drum", "--guidance-scale", "nan"), "guidance_scale must be from 0 to 30, got nan"),
        (("drum", "--guidance-scale", "-1"), "guidance_scale must be from 0 to 30, got -1"),
        (("drum", "--guidance-scale", "1e9"), "guidance_scale must be from 0 to 30, got 1e+09"),
        (("drum", "--duration", "nan"), "duration must be from"),
        (("drum", "--duration", "-2"), "duration must be from"),
        (("drum", "--duration", "inf"), "duration must be from"),
        (("drum", "--duration", "100"), "duration must be from"),
        (("drum", "--eta", "2"), "eta must be from 0 to 1, got 2"),
        (("drum", "--seed", "-1"), "seed must be from 0"),
        (("drum", "--seed", str(2**64)), "seed must be from 0"),
        (("drum", "--sampler", "euler"), "unknown sampler 'euler'"),
        (("drum", "--template", "a photo"), "has no {query}"),
        (("drum", "--format", "aac"), "unknown format 'aac'"),
        (("drum", "--format", "ogg"), "the name says wav and the format ogg"),
        (("drum", "--provider", "tpu"), "unknown provider 'tpu'"),
        (("drum", "--precision", "fp8"), "has no fp8"),
        (("drum", "--precision", "vocodr=fp32"), "has no graph 'vocodr'; it has text_encoder, "),
        (("drum", "--precision", "image_encoder=fp8"), "has no fp8 image_encoder; it has fp32"),
        (("drum", "--precision", "vocoder="), "--precision 'vocoder=': write fp16, or"),
        (("drum", "--threads", "0"), "threads must be from 1"),
        (("drum", "piano"), "two sounds would both be written to {i}-x.wav".replace("{i}-x", "a")),
        (("--image", "absent.png"), "absent.png: no such image file"),
        (("drum", "--duration", "60.1"), "duration must be from 0.01161 to 60 s, got 60.1"),
        (("drum", "--init", "absent.wav"), "absent.wav: no such sound file"),
        (("drum", "--init", "/", "--strength", "0.5"), "no such sound file"),
        (("drum", "--init", "/", "--strength", "2"), "strength must be above 0 and at most 1"),
        (("drum", "--lufs", "3"), "lufs must be from -60 to -5, got 3"),
        (("drum", "--variations", "0"), "variations must be from 1 to 1000, got 0"),
        (("drum", "--variations", "2"), "two sounds would both be written to a.wav"),
        (("drum", "--plot", "a.jpg"), "a.jpg: --plot writes PNG; name it .png"),
        (
            ("drum", "--plot", "a.png", "--duration", "0.012"),
            "--plot: a sound of 12 ms is too short for a picture; at least 17.5 ms are needed",
        ),
    ],
)
def test_bad_wishes(synth: Synth, args: tuple[str, ...], message: str) -> None:
    out = "{i}.wav" if args == ("drum", "\n") else "a.wav"
    assert_refused(synth(*args, "-o", out), message)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("a.aac", "a.aac: unknown extension"),
        ("a", "a: unknown extension"),
        ("{nope}.wav", "{nope}.wav: unknown placeholder {nope}; there are {query}, {i}, {seed}"),
        ("{}/a.wav", "{}/a.wav: unknown placeholder {}; there are {query}, {i}, {seed}"),
        ("/proc/absent/a.wav", "/proc/absent: cannot be made"),
        ("x" * 300 + ".wav", "cannot be written"),
    ],
)
def test_bad_outputs(synth: Synth, out: str, message: str) -> None:
    assert_refused(synth("drum", "-o", out), message)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "give a QUERY or --image"),
        (("drum", "--image", "a.png"), "give a QUERY or --image"),
        (("drum", "--num-steps", "many"), "'many' is not a valid integer"),
        (("drum", "--stepz", "1"), "No such option"),
        (("drum", "--strength", "0.5"), "--strength goes with --init"),
        (("drum", "--batch", "a.csv"), "--batch goes with --out-dir"),
        (("drum", "--out-dir", "sounds"), "--out-dir goes with --batch; use -o"),
    ],
)
def test_usage(synth: Synth, args: tuple[str, ...], message: str) -> None:
    assert_refused(synth(*args, "-o", "a.wav"), message, code=2)


def test_output_is_required(synth: Synth) -> None:
    assert_refused(synth("drum"), "Missing option '-o'", code=2)


def test_several_sounds_to_standard_output(synth: Synth) -> None:
    assert_refused(synth("drum", "dog", "-o", "-"), "-o - takes one sound")


def test_a_folder_that_is_not_writable(synth: Synth, monkeypatch: pytest.MonkeyPatch) -> None:
    # not by chmod: the superuser, whom CI often is, may write anywhere
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert_refused(synth("drum", "-o", "a.wav"), "folder . is not writable")


def test_an_enormous_image(synth: Synth, tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    PIL.Image.new("1", (9000, 9000)).save(path)
    assert_refused(synth("--image", str(path), "-o", "a.wav"), "9000 x 9000 pixels")


def test_an_unreadable_image(synth: Synth, tmp_path: Path) -> None:
    path = tmp_path / "bad.png"
    path.write_text("no picture")
    assert_refused(synth("--image", str(path), "-o", "a.wav"), "cannot be read as an image")


def test_bad_bundles(synth: Synth, tiny_copy: Path) -> None:
    assert_refused(synth("drum", "-o", "a.wav", bundle="absent"), "absent: no such folder")
    vocoder = tiny_copy / "fp32" / "vocoder.onnx"
    good = vocoder.read_bytes()
    vocoder.write_bytes(good[:-1] + b"\0")
    assert_refused(synth("drum", "-o", "a.wav", bundle=tiny_copy), "sha256 differs")
    vocoder.unlink()
    assert_refused(synth("drum", "-o", "a.wav", bundle=tiny_copy), "the bundle is incomplete")
    manifest = tiny_copy / "manifest.json"
    text = manifest.read_text().replace('"schema_version": 3', '"schema_version": 99')
    manifest.write_text(text)
    assert_refused(synth("drum", "-o", "a.wav", bundle=tiny_copy), "schema_version 99 is newer")
    manifest.unlink()
    assert_refused(synth("drum", "-o", "a.wav", bundle=tiny_copy), "is not a bundle")


@pytest.mark.skipif(ort.probe("cuda") == "", reason="this machine has CUDA")
def test_cuda_where_there_is_none(synth: Synth) -> None:
    result = synth("drum", "-o", "a.wav", "--provider", "cuda")
    assert_refused(result, "provider cuda is not available")


def process(
    *args: str, cwd: Path, stdout: int | io.BufferedWriter = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    code = "from clipsynth_rt.cli.main import main; main(prog_name='clipsynth-rt')"
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        cwd=cwd,
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_standard_output_that_is_full(tiny_bundle: Path, tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        result = process(
            *("synth", "drum", "-o", "-", "--bundle", str(tiny_bundle)), cwd=tmp_path, stdout=full
        )
    assert result.returncode == 1
    assert result.stderr.decode() == (
        "clipsynth-rt synth: standard output: cannot be written (No space left on device)\n"
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("args", [("info",), ("info", "--help"), ("--version",)])
def test_what_is_printed_to_a_full_output_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with open("/dev/full", "wb") as full:
        result = process(*args, cwd=tmp_path, stdout=full)
    assert result.returncode == 1
    command = "clipsynth-rt" if args == ("--version",) else "clipsynth-rt info"
    assert result.stderr.decode() == (
        f"{command}: the output cannot be written (No space left on device)\n"
    )


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="no /dev/stdout here")
def test_standard_output_by_its_name(tiny_bundle: Path, tmp_path: Path) -> None:
    line = ("synth", "drum", "-o", "/dev/stdout", "--format", "wav", "--duration", "0.5")
    result = process(*line, "--bundle", str(tiny_bundle), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    samples, _ = soundfile.read(io.BytesIO(result.stdout))
    assert len(samples) == 11025


def test_arguments_that_are_not_utf8(tiny_bundle: Path, tmp_path: Path) -> None:
    query = os.fsdecode(b"dr\xffum")
    result = process(*("synth", query, "-o", "a.wav", "--bundle", str(tiny_bundle)), cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.count(b"\n") == 1
    assert b"not valid Unicode" in result.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("query", "stem"),
    [
        ("drum", "drum"),
        ("A Snare  Drum!", "a-snare-drum"),
        ("../../etc/passwd", "etc-passwd"),
        ("барабан", "барабан"),
        ("...", "sound"),
        ("x" * 300, "x" * 50),
    ],
)
def test_file_stem(query: str, stem: str) -> None:
    assert file_stem(query) == stem


def test_parse_precision() -> None:
    assert parse_precision(None) is None
    assert parse_precision("fp16") == "fp16"
    assert parse_precision("denoiser_step=fp16, vocoder=fp32") == {
        "denoiser_step": "fp16",
        "vocoder": "fp32",
    }
    with pytest.raises(InputError, match="write fp16, or"):
        parse_precision("denoiser_step=fp16,fp32")


def test_a_link_is_written_where_it_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As /dev/stdout is, where the output is a file: its own folder need not be writable."""
    (tmp_path / "links").mkdir()
    (tmp_path / "drum.wav").write_bytes(b"")
    link = tmp_path / "links" / "drum.wav"
    link.symlink_to(tmp_path / "drum.wav")
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("links"))
    check_file(link)
    with pytest.raises(OutputError, match="not writable"):
        check_file(tmp_path / "links" / "other.wav")
