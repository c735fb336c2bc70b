"""Killed, out of space, without a home: what was there stays whole, and the message is one line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and mounts of POSIX")
CLI = [sys.executable, "-m", "clipsynth_rt"]
ROUNDS = 4

# each writes two contents in turn to the same place, for ever, and says when it has begun
WRITERS = {
    "output": """
import numpy as np
from pathlib import Path
from clipsynth_rt.audio.clip import AudioClip
clips = [AudioClip(np.full(400_000, level, np.float32), 22050) for level in (0.25, 0.5)]
def write(i): clips[i % 2].save(Path(folder) / "it.wav")
""",
    "cache": """
from pathlib import Path
from clipsynth_rt.backends.cache_file import write_cache_file
def write(i):
    data = bytes([1 + i % 2]) * 4_000_000
    write_cache_file(Path(folder) / "it.plan", b"magic\\n", {}, data)
""",
    "checkpoint": """
import torch
from clipsynth_training.checkpoint import save_component
parts = [{"w": torch.full((1_000_000,), level)} for level in (1.0, 2.0)]
def write(i): save_component(folder, "it", parts[i % 2], {"step": i})
""",
}
LOOP = """
import itertools, sys
folder = sys.argv[1]
{setup}
write(0)
print("begun", flush=True)
for i in itertools.count(1): write(i)
"""


def check(kind: str, folder: Path) -> None:
    """The file is one of the two contents, whole."""
    if kind == "output":
        samples, _ = soundfile.read(folder / "it.wav")
        assert len(samples) == 400_000
        assert samples[0] == samples[300_000] != 0.0
    elif kind == "cache":
        from clipsynth_rt.backends.cache_file import read_cache_file

        assert read_cache_file(folder / "it.plan", b"magic\n")[1][:1] in (b"\1", b"\2")
    else:
        from clipsynth_training.checkpoint import load_component

        tensors, facts = load_component(folder, "it")
        assert tensors["w"].min() == tensors["w"].max()
        assert facts["step"] >= 0


@pytest.mark.parametrize("kind", list(WRITERS))
def test_kill_while_writing(kind: str, tmp_path: Path) -> None:
    if kind == "checkpoint":
        pytest.importorskip("torch")
    for wait_ms in range(ROUNDS):
        code = LOOP.format(setup=WRITERS[kind])
        process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        time.sleep(0.005 + 0.013 * wait_ms)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        check(kind, tmp_path)
        if kind == "checkpoint":
            break  # importing torch takes seconds


def synth(*args: str | Path, bundle: Path, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [*CLI, "synth", "drum", "--bundle", bundle, "--provider", "cpu", *args]
    return subprocess.run(command, capture_output=True, timeout=120, **options)  # type: ignore[call-overload, no-any-return]


def test_a_full_disk(tiny_bundle: Path, tmp_path: Path) -> None:
    """A file system of 64 kB, mounted where nobody else sees it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        f"mount -t tmpfs -o size=64k tmpfs {disk} && cd {disk} && echo old > drum.wav && "
        f"{' '.join(CLI)} synth drum -o drum.wav --bundle {tiny_bundle} --provider cpu "
        "--duration 1.9; echo code $?; cat drum.wav; ls -A"
    )
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    probe = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True
    )
    if probe.returncode != 0:
        pytest.skip("mounting is not allowed here")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, timeout=120
    )
    assert "drum.wav: cannot be written (No space left on device)" in done.stderr
    assert done.stderr.count("\n") == 1
    # the old file is what it was, and nothing else is left
    assert done.stdout.splitlines() == ["code 1", "old", "drum.wav"]


def test_neither_home_nor_temporary_folder(tiny_bundle: Path, tmp_path: Path) -> None:
    nowhere = {
        name: "/dev/null/nowhere" for name in ("HOME", "TMPDIR", "TEMP", "TMP", "XDG_CACHE_HOME")
    }
    done = synth("-o", "a.wav", bundle=tiny_bundle, cwd=tmp_path, env=os.environ | nowhere)
    assert done.returncode == 0, done.stderr
    assert soundfile.info(tmp_path / "a.wav").frames > 0


@pytest.mark.parametrize("flag", [[], ["--json"]])
def test_closed_standard_output(tiny_bundle: Path, tmp_path: Path, flag: list[str]) -> None:
    """The sound is what was asked for; the report is lost with the stream."""
    done = synth(
        "-o", "a.wav", *flag, bundle=tiny_bundle, cwd=tmp_path, preexec_fn=lambda: os.close(1)
    )
    assert soundfile.info(tmp_path / "a.wav").frames > 0
    assert b"Traceback" not in done.stderr


def test_a_sound_to_closed_standard_output(tiny_bundle: Path, tmp_path: Path) -> None:
    done = synth("-o", "-", bundle=tiny_bundle, cwd=tmp_path, preexec_fn=lambda: os.close(1))
    assert done.returncode == 1
    assert done.stderr.endswith(b"standard output: is closed; name a file with --out\n")
    assert done.stderr.count(b"\n") == 1


def test_a_broken_pipe(tiny_bundle: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [*CLI, "synth", "drum", "-o", "-", "--bundle", tiny_bundle, "--provider", "cpu"]
    done = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, cwd=tmp_path, timeout=120, check=False
    )
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr.endswith(b"synth: standard output: cannot be written (Broken pipe)\n")
    assert done.stderr.count(b"\n") == 1
