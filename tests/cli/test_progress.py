"""The progress bar: on a terminal, for long runs, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
from clipsynth_rt.cli.synth import work as synth
synth._PROGRESS_DELAY_S = {delay}
import time
with synth._progress_bar() as report:
    for done in range(1, 4):
        time.sleep(0.15)
        report(done * 2, 6)
"""


ENGINES = """
from clipsynth_rt.cli.common.progress import engine_progress
import time
with engine_progress() as report:
    for done in range(4):
        report(done / 2, 2, "vocoder-b1")
        time.sleep(0.15)
"""


def shown(delay: float, *, terminal: bool, code: str = CODE) -> str:
    """Return what a run of three reports writes to stderr."""
    command = [sys.executable, "-c", code.format(delay=delay)]
    if not terminal:
        result = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
        return result.stderr
    pty = pytest.importorskip("pty")
    termios = pytest.importorskip("termios")
    ours, theirs = pty.openpty()
    # a new terminal has no width, and a bar no room in it
    termios.tcsetwinsize(theirs, (24, 80))
    subprocess.run(command, stderr=theirs, check=True)
    os.close(theirs)
    output = b""
    try:
        while part := os.read(ours, 4096):
            output += part
    except OSError:
        pass  # Linux reports the closed end of a terminal as an error
    os.close(ours)
    return output.decode()


def test_a_long_run_on_a_terminal_shows_how_far_it_is() -> None:
    output = shown(0.01, terminal=True)
    assert "2/6" in output or "4/6" in output
    assert "step" in output


def test_a_short_run_on_a_terminal_shows_nothing() -> None:
    assert "/6" not in shown(60.0, terminal=True)


def test_no_terminal_no_bar() -> None:
    assert shown(0.01, terminal=False) == ""


def test_a_build_shows_engines_and_parts_of_them() -> None:
    output = shown(0.0, terminal=True, code=ENGINES)
    assert "vocoder-b1" in output
    assert "0.5/2 engines" in output or "1.5/2 engines" in output
    assert shown(0.0, terminal=False, code=ENGINES) == ""
