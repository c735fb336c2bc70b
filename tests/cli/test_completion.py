"""Shell completion, and the reference of the command line."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import click
import click.testing
import pytest
from click.shell_completion import get_completion_class

from clipsynth_rt.cli.common.completion import SHELLS
from clipsynth_rt.cli.main import main

DOCS = Path(__file__).parents[2] / "docs"


def complete(*words: str) -> list[str]:
    kind = get_completion_class("bash")
    assert kind is not None
    shell = kind(main, {}, "clipsynth-rt", "_CLIPSYNTH_RT_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_for_each_shell(shell: str, tmp_path: Path) -> None:
    result = click.testing.CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert "_CLIPSYNTH_RT_COMPLETE" in result.stdout
    if shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(result.stdout)
        subprocess.run([shell, "-n", script], check=True)


def test_an_unknown_shell() -> None:
    result = click.testing.CliRunner().invoke(main, ["completion", "tcsh"])
    assert result.exit_code == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_is_completed() -> None:
    assert complete("sy") == ["synth"]
    assert {"--loop", "--lufs"} == set(complete("synth", "drum", "--l"))
    assert complete("synth", "--provider", "open") == ["openvino"]
    assert complete("synth", "--format", "") == ["wav", "flac", "ogg", "mp3"]
    assert complete("completion", "z") == ["zsh"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_itself(tmp_path: Path) -> None:
    script = click.testing.CliRunner().invoke(main, ["completion", "bash"]).stdout
    code = "from clipsynth_rt.cli.main import main; main(prog_name='clipsynth-rt')"
    shim = tmp_path / "clipsynth-rt"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    shim.chmod(0o755)
    # what bash does when the tab key is pressed
    lines = [
        script,
        f"PATH={tmp_path}:$PATH",
        "COMP_WORDS=(clipsynth-rt synth drum --lo) COMP_CWORD=3",
        "_clipsynth_rt_completion clipsynth-rt",
        'printf "%s\\n" "${COMPREPLY[@]}"',
    ]
    found = subprocess.run(
        ["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["--loop"]


def test_the_reference_is_what_the_commands_say() -> None:
    for module in ("torch", "av", "onnx"):
        pytest.importorskip(module, reason="some commands load only with every extra")
    spec = importlib.util.spec_from_file_location("cli_reference", DOCS / "cli_reference.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = script.reference()
    # words only: versions of click differ in their spaces
    assert text.split() == script.TARGET.read_text(encoding="utf-8").split(), (
        "docs/reference/cli.md is out of step; run: python docs/cli_reference.py"
    )
    for name in main.list_commands(click.Context(main)):
        assert f"### `clipsynth-rt {name}`" in text
