"""``clipsynth-rt synth --batch``: a list of sounds, and everything that can be wrong with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import PIL.Image
import pytest
import soundfile

from clipsynth_rt import Synthesizer
from clipsynth_rt.audio.provenance import read_tag
from clipsynth_rt.errors import CancelledError, InputError
from clipsynth_rt.jobs.batch import BatchRun
from clipsynth_rt.jobs.csv_rows import COLUMNS, read_rows

Synth = Callable[..., click.testing.Result]
LIST = """query,seed,duration,num_steps,guidance_scale,negative,file
drum,3,0.5,2,1,,
"dog, barking",,,,,rain,sub/dog.flac
piano,,99,,,,
rain,x,,,,,
 ,,,,,,
,5,,,,,
"""


def write(text: str, name: str = "list.csv") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def rows(folder: str = "out") -> list[dict[str, Any]]:
    data = json.loads(Path(folder, "results.json").read_text(encoding="utf-8"))
    assert (data["schema_version"], data["bundle"]) == (1, "tiny-test")
    return list(data["rows"])


def run(synth: Synth, text: str, *args: str) -> click.testing.Result:
    return synth("--batch", write(text), "--out-dir", "out", "--seed", "10", *args)


def test_a_failing_row_is_reported_and_the_rest_go_on(synth: Synth) -> None:
    result = run(synth, LIST, "--num-steps", "3")
    assert result.exit_code == 1
    assert [row["status"] for row in rows()] == ["made", "made", "failed", "failed", "failed"]
    first, second, *failed = rows()
    assert first["file"] == "0001-drum.wav"
    assert (first["seed"], first["num_steps"], first["network_calls"]) == (3, 2, 2)
    assert soundfile.info("out/0001-drum.wav").frames == 11025
    # empty cells are the options', and the seed goes by the row
    assert (second["file"], second["seed"], second["num_steps"]) == ("sub/dog.flac", 11, 3)
    tag = read_tag("out/sub/dog.flac")
    assert tag is not None
    assert tag["query"] == "dog, barking"
    assert failed[0]["error"].startswith("duration must be from")
    assert failed[1]["error"] == "seed 'x' is not a whole number"
    assert failed[2]["error"] == "needs a query or an image, one of the two"
    lines = result.stderr.splitlines()
    assert lines[0].startswith("row 3: duration must be from")
    assert lines[-1] == "clipsynth-rt synth: 3 of 5 rows failed; see out/results.json"
    assert result.stdout.splitlines()[-1] == "2 made, 0 kept, 3 failed; out/results.json"
    assert sorted(os.listdir("out")) == ["0001-drum.wav", "results.json", "sub"]


def test_a_second_run_keeps_what_is_the_same(synth: Synth) -> None:
    text = "query,num_steps\n" + "".join(
        f"{q},2\n" for q in ("drum", "dog", "rain", "piano", "snare")
    )
    assert run(synth, text).exit_code == 0
    made = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.wav")}
    again = run(synth, text)
    assert again.exit_code == 0
    assert [row["status"] for row in rows()] == ["kept"] * 5
    assert {path: path.stat().st_mtime_ns for path in Path("out").glob("*.wav")} == made
    assert rows()[0]["audio_s"] > 0
    # another request, a missing file and a damaged one are made again, the others not
    Path("out/0002-dog.wav").unlink()
    with open("out/0003-rain.wav", "ab") as stream:
        stream.write(b"\0")
    assert run(synth, text.replace("drum,2", "drum,3")).exit_code == 0
    assert [row["status"] for row in rows()] == ["made", "made", "made", "kept", "kept"]
    # and all of them with another voice or without a tag
    assert run(synth, text, "--no-tag").exit_code == 0
    assert {row["status"] for row in rows()} == {"made"}


def test_rows_are_the_sounds_of_single_calls(synth: Synth) -> None:
    assert run(synth, "query,seed,loop\ndrum,4,yes\ndrum,4,no\n").exit_code == 0
    for name, flags in (("0001-drum", ["--loop"]), ("0002-drum", [])):
        assert synth("drum", "-o", "a.wav", "--seed", "4", *flags).exit_code == 0
        assert Path("a.wav").read_bytes() == Path(f"out/{name}.wav").read_bytes()


def test_pictures_and_sounds_lie_beside_the_list(synth: Synth) -> None:
    os.mkdir("lists")
    PIL.Image.new("RGB", (20, 20), "red").save("lists/rose.png")
    soundfile.write("lists/given.wav", 0.1 * np.ones(6000), 22050)
    text = "image,query,init\nrose.png,,\n,dog,given.wav\nabsent.png,,\n"
    write(text, "lists/list.csv")
    result = synth("--batch", "lists/list.csv", "--out-dir", "out", "--format", "ogg")
    assert result.exit_code == 1
    assert [row["file"] for row in rows()] == ["0001-rose.ogg", "0002-dog.ogg", "0003-absent.ogg"]
    assert [row["status"] for row in rows()] == ["made", "made", "failed"]
    assert "absent.png: no such file" in rows()[2]["error"]
    assert soundfile.info("out/0002-dog.ogg").frames == 6000
    # a sound that changed is another request
    soundfile.write("lists/given.wav", 0.2 * np.ones(6000), 22050)
    synth("--batch", "lists/list.csv", "--out-dir", "out", "--format", "ogg")
    assert [row["status"] for row in rows()] == ["kept", "made", "failed"]


def test_json(synth: Synth) -> None:
    result = run(synth, "query\ndrum\n\ndog\n", "--json")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["row"], row["query"], row["status"]) for row in found] == [
        (1, "drum", "made"),
        (2, "dog", "made"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "list.csv: has no column query"),
        ("seed\n1\n", "list.csv: has no column query"),
        ("query\n", "list.csv: has no rows below its header"),
        (",,\ndrum,,\n", "list.csv: has no column query"),
        ("query,,seed\ndrum,,1\n", "list.csv: unknown column ''; there are query,"),
        ("query,loudness\ndrum,1\n", "list.csv: unknown column 'loudness'; there are query,"),
        ("query,query\ndrum,1\n", "list.csv: column 'query' is there twice"),
        ('query\n"drum\n', "list.csv: line 2: not CSV (unexpected end of data)"),
        ("query\n" + "x" * 200_000 + "\n", "not CSV (field larger than field limit"),
        ("query\ndr\0um\n", "out"),
    ],
)
def test_lists_that_cannot_be_used(synth: Synth, text: str, message: str) -> None:
    result = run(synth, text)
    if message == "out":
        # a strange character is a strange query, and no more
        assert result.exit_code == 0
        return
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert os.listdir() == ["list.csv"]


@pytest.mark.parametrize(
    "text",
    [
        "query,seed,\ndrum,3,\n",
        "query,seed\ndrum,3,\n",
        "query,seed,,\ndrum,3\n",
        "query,seed, ,\ndrum,3, , ,,\n,,,\n",
        "query,seed,file\ndrum,3,,,\n",
    ],
)
def test_empty_cells_at_the_end_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    (row,) = read_rows(path)
    assert (row.query, row.seed, row.error) == ("drum", 3, "")


def test_lists_that_are_no_text(synth: Synth) -> None:
    Path("list.csv").write_bytes("query\nbär\n".encode("utf-16"))
    result = synth("--batch", "list.csv", "--out-dir", "out")
    assert (result.exit_code, result.stderr) == (
        1,
        "clipsynth-rt synth: list.csv: not UTF-8; save it as CSV UTF-8\n",
    )
    result = synth("--batch", "absent.csv", "--out-dir", "out")
    assert (result.exit_code, result.stderr) == (
        1,
        "clipsynth-rt synth: absent.csv: no such CSV file\n",
    )
    # as spreadsheets write it
    Path("list.csv").write_bytes("\ufeffQuery;\r\n".replace(";", "").encode() + "bär\r\n".encode())
    assert synth("--batch", "list.csv", "--out-dir", "out").exit_code == 0
    assert rows()[0]["query"] == "bär"


@pytest.mark.parametrize(
    ("cells", "error"),
    [
        ("drum,,../a.wav", "file '../a.wav' leaves the output folder"),
        ("drum,,/tmp/a.wav", "file '/tmp/a.wav' leaves the output folder"),
        ("drum,,a.aac", "a.aac: unknown extension"),
        ("drum,,results.json", "results.json: unknown extension"),
        ("drum,,first.wav", "first.wav is the file of row 1 already"),
        ("drum,many,", "num_steps 'many' is not a whole number"),
        ("drum,0,", "num_steps must be from 1 to 1000, got 0"),
        ("drum,1,a.wav,more", "more cells than columns"),
        ("drum,1,a.wav,,more,", "more cells than columns"),
        ("drum,1," + "x" * 300 + ".wav", "cannot be written"),
    ],
)
def test_rows_that_cannot_be_made(synth: Synth, cells: str, error: str) -> None:
    result = run(synth, f"query,num_steps,file\ndrum,1,first.wav\n{cells}\ndog,1,\n")
    assert result.exit_code == 1
    assert [row["status"] for row in rows()] == ["made", "failed", "made"]
    assert error in rows()[1]["error"]
    assert sorted(os.listdir("out")) == ["0003-dog.wav", "first.wav", "results.json"]
    assert not os.path.exists("a.wav")


@pytest.mark.parametrize("content", ["{", "[]", '{"rows": []}', '{"schema_version": 1}'])
def test_results_that_no_batch_wrote(synth: Synth, content: str) -> None:
    os.mkdir("out")
    write(content, "out/results.json")
    result = run(synth, "query\ndrum\n")
    assert result.exit_code == 1
    assert "out/results.json: not the manifest of a batch; move it away" in result.stderr
    assert Path("out/results.json").read_text() == content
    write('{"schema_version": 2, "rows": []}', "out/results.json")
    assert "of schema_version 2" in run(synth, "query\ndrum\n").stderr


def test_a_folder_that_cannot_be_made(synth: Synth) -> None:
    write("no folder", "out")
    result = run(synth, "query\ndrum\n")
    assert result.exit_code == 1
    assert result.stderr == "clipsynth-rt synth: out: cannot be made (File exists)\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--batch", "a.csv"), "Missing option '--out-dir', which --batch needs"),
        (("--batch", "a.csv", "--out-dir", "o", "-o", "a.wav"), "neither with QUERY, --image, -o"),
        (("--batch", "a.csv", "--out-dir", "o", "--plot", "a.png"), "--batch goes with --out-dir"),
        (("--batch", "a.csv", "--out-dir", "o", "--variations", "2"), "--batch goes with"),
    ],
)
def test_usage(synth: Synth, args: tuple[str, ...], message: str) -> None:
    result = synth(*args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_cancelling_keeps_what_is_done(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("query,num_steps\ndrum,1\ndog,1\nrain,1\n")
    wanted, cancel = read_rows(path), threading.Event()
    with Synthesizer.from_bundle(tiny_bundle, "cpu") as synthesizer:
        batch = BatchRun(synthesizer, wanted, tmp_path)
        with pytest.raises(CancelledError):
            batch.run(lambda result: cancel.set() if result["row"] == 2 else None, cancel)
        assert [row["status"] for row in rows(str(tmp_path))] == ["made", "made", "waiting"]
        again = BatchRun(synthesizer, wanted, tmp_path).run()
        assert [row["status"] for row in again] == ["kept", "kept", "made"]


def test_a_killed_batch_goes_on_where_it_was(tiny_bundle: Path, tmp_path: Path) -> None:
    many = tmp_path / "list.csv"
    many.write_text("query,duration\n" + "drum,60\n" * 400)
    code = (
        "import clipsynth_rt.jobs.batch as b; b._SAVE_EVERY_S = 0.0\n"
        "from clipsynth_rt.cli.main import main; main(prog_name='clipsynth-rt')"
    )
    command = [sys.executable, "-c", code, "synth", "--batch", str(many)]
    command += [
        "--out-dir",
        str(tmp_path / "out"),
        "--bundle",
        str(tiny_bundle),
        "--num-steps",
        "1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    process.kill()
    process.communicate()
    finished = [row for row in rows(str(tmp_path / "out")) if row["status"] == "made"]
    assert 2 <= len(finished) < 400
    # every file there is whole
    for path in (tmp_path / "out").glob("*.wav"):
        assert soundfile.info(path).frames == 60 * 22050
    with Synthesizer.from_bundle(tiny_bundle, "cpu") as synthesizer:
        options = {"num_steps": 1, "duration": None}
        defaults = {"negative": None, "template": None, "sampler": "ddim", "eta": 0.0}
        batch = BatchRun(
            synthesizer,
            read_rows(
                many,
                options={
                    **defaults,
                    **options,
                    "guidance_scale": None,
                    "loop": False,
                    "lufs": None,
                    "denoiser": "auto",
                },
                stem=lambda query: query,
            ),
            tmp_path / "out",
        )
    kept = [row["file"] for row in batch.results if row["status"] == "kept"]
    assert kept == [row["file"] for row in finished]


def test_every_column_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    values = {
        **dict.fromkeys(COLUMNS, ""),
        **{
            "query": "drum",
            "seed": "5",
            "duration": "1.5",
            "num_steps": "4",
            "guidance_scale": "2",
        },
        **{"eta": "0.5", "strength": "0.3", "lufs": "-20", "loop": "Yes", "negative": "dog"},
        **{"template": "a {query}", "sampler": "ddim", "file": "a.ogg", "init": "b.wav"},
    }
    path.write_text(f"{','.join(values)}\n{','.join(values.values())}\n")
    (row,) = read_rows(path)
    assert (row.query, row.seed, row.file, row.init) == (
        "drum",
        5,
        "a.ogg",
        str(tmp_path / "b.wav"),
    )
    assert row.options == {
        **{"duration": 1.5, "num_steps": 4, "guidance_scale": 2.0, "eta": 0.5, "strength": 0.3},
        **{"lufs": -20.0, "loop": True, "negative": "dog", "template": "a {query}"},
        "sampler": "ddim",
    }


def test_too_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import clipsynth_rt.jobs.csv_rows

    monkeypatch.setattr(clipsynth_rt.jobs.csv_rows, "MAX_ROWS", 2)
    path = tmp_path / "list.csv"
    path.write_text("query\n1\n2\n3\n")
    with pytest.raises(InputError, match="over 2 rows; split the file"):
        read_rows(path)
    monkeypatch.setattr(clipsynth_rt.jobs.csv_rows, "MAX_BYTES", 5)
    with pytest.raises(InputError, match=r"list\.csv: over 0 MB; split the file"):
        read_rows(path)
