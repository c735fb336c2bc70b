"""The command group: help, errors, and commands whose modules are not installed."""

from __future__ import annotations

import errno
import io
import logging
import sys
import tomllib
import types
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import click
import click.testing
import pytest

from clipsynth_rt import __main__, __version__
from clipsynth_rt.cli import main as cli
from clipsynth_rt.errors import DataError, install_command


def invoke(*args: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(cli.main, args, prog_name="clipsynth-rt")


def test_help_lists_every_command() -> None:
    for flag in ("--help", "-h"):
        result = invoke(flag)
        assert result.exit_code == 0
        for name in ("synth", "info", "doctor", "serve", "data", "train", "evaluate", "export"):
            assert f"\n  {name} " in result.stdout


def test_version() -> None:
    assert invoke("--version").stdout == f"clipsynth-rt, version {__version__}\n"


def test_unknown_command() -> None:
    result = invoke("sing")
    assert result.exit_code == 2
    assert result.stderr == "clipsynth-rt: No such command 'sing'. (see clipsynth-rt --help)\n"


def test_unknown_option() -> None:
    result = invoke("--loud")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1


def use(monkeypatch: pytest.MonkeyPatch, name: str, body: Any) -> None:
    """Put a command of our own in a command's place."""
    module = types.SimpleNamespace(command=click.command(name)(body))
    real = cli.importlib.import_module
    wanted = f"clipsynth_rt.cli.{cli._MODULES.get(name, name)}"
    monkeypatch.setattr(
        cli.importlib, "import_module", lambda n: module if n == wanted else real(n)
    )


def test_an_error_of_ours_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        raise DataError("no usable file\nin folder")

    use(monkeypatch, "data", body)
    result = invoke("data")
    assert result.exit_code == 1
    assert result.stderr == "clipsynth-rt data: no usable file in folder\n"


def test_an_unexpected_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        raise ZeroDivisionError

    use(monkeypatch, "train", body)
    assert isinstance(invoke("train").exception, ZeroDivisionError)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_output_is_one_line(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(code, "it is full")

    def body() -> None:
        click.echo("facts", file=Full())

    use(monkeypatch, "info", body)
    result = invoke("info")
    assert result.exit_code == 1
    assert result.stderr == "clipsynth-rt info: the output cannot be written (it is full)\n"


@pytest.mark.parametrize(
    "error",
    [
        # as the system says it where a file is written
        OSError(errno.ENOSPC, "full"),
        OSError(errno.ENOSPC, "full", "a.bin"),
        OSError(errno.EACCES, "no"),
        OSError("no"),
    ],
)
def test_other_errors_of_the_system_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def body() -> None:
        raise error

    use(monkeypatch, "info", body)
    assert invoke("info").exception is error


@pytest.mark.parametrize(
    ("command", "extra"), [("export", "export"), ("train", "train"), ("data", "train")]
)
def test_a_missing_module_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, command: str, extra: str
) -> None:
    def body() -> None:
        raise ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")

    use(monkeypatch, command, body)
    result = invoke(command)
    assert result.exit_code == 1
    command_to_run = install_command(extra)
    assert result.stderr == (
        f"clipsynth-rt {command}: torch is not installed; run: {command_to_run}\n"
    )


def test_a_module_missing_when_the_command_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'av'", name="av")

    monkeypatch.setattr(cli.importlib, "import_module", missing)
    result = invoke("data", "--help")
    assert result.exit_code == 1
    assert f"av is not installed; run: {install_command('train')}" in result.stderr


def test_a_module_of_ours_that_is_missing_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        raise ModuleNotFoundError("No module named", name="clipsynth_rt.lost")

    use(monkeypatch, "train", body)
    assert isinstance(invoke("train").exception, ModuleNotFoundError)


def test_warnings_are_lines_on_stderr_and_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logger = logging.getLogger("clipsynth_rt")
    before = list(logger.handlers)
    use(monkeypatch, "doctor", lambda: logger.warning("mind the %s", "gap"))
    result = invoke("doctor")
    assert (result.exit_code, result.stderr, result.stdout) == (0, "warning: mind the gap\n", "")
    assert logger.handlers == before
    assert logger.propagate


def test_the_script_and_the_module_are_the_same() -> None:
    # not the installed metadata, which may be older than the tree
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    script = EntryPoint("clipsynth-rt", project["scripts"]["clipsynth-rt"], "console_scripts")
    assert script.load() is __main__.run


@pytest.mark.parametrize(("argument", "code"), [("--version", 0), ("sing", 2)])
def test_a_process_of_several_ends_with_its_code(
    monkeypatch: pytest.MonkeyPatch, argument: str, code: int
) -> None:
    ended: list[int] = []
    distributed = types.SimpleNamespace(end=ended.append)
    monkeypatch.setitem(sys.modules, "clipsynth_training.run.distributed", distributed)
    monkeypatch.setattr(sys, "argv", ["clipsynth-rt", argument])
    with pytest.raises(SystemExit) as stop:
        __main__.run()
    assert (stop.value.code, ended) == (code, [code])
