"""The command line: one file a command, imported only when that command runs."""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

from clipsynth_rt import __version__
from clipsynth_rt.errors import ClipSynthError, MissingExtraError
from clipsynth_rt.text import printable

# command -> (short help, extra that installs what it imports). Kept here so that --help, which
# lists every command, imports none of them.
_COMMANDS = {
    "synth": ("Make sounds from words, or from a picture.", "cpu"),
    "info": ("Show what a bundle is and how good it is.", "cpu"),
    "doctor": ("Show what is installed and what would run.", "cpu"),
    "serve": ("Serve sounds over HTTP, and a page.", "serve"),
    "build": ("Build TensorRT engines ahead.", "tensorrt-rtx"),
    "bench": ("Measure how fast a voice is here.", "cpu"),
    "data": ("Build the open corpus, or shards from videos.", "train"),
    "train": ("Train a voice.", "train"),
    "evaluate": ("Measure how good a voice is.", "train"),
    "listening": ("Make listening tests, and score them.", "evaluate"),
    "export": ("Turn a checkpoint into a bundle.", "export"),
    "completion": ("Print a script for a shell's completion.", "cpu"),
}


PACKAGES = ("clipsynth_rt", "clipsynth_export", "clipsynth_training")
"""Our import names: their loggers are shown, and a missing module of theirs is a fault."""

_MODULES = {"completion": "common.completion", "synth": "synth.command", "train": "train.command"}
"""Where a command lies, if not in the module of its name."""

_NATIVE = frozenset({"synth", "bench", "info", "doctor", "build"})
"""Commands that Ctrl-C ends even inside a library. The others save or finish what they do."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What the system says of an output that takes no more."""


class _Failure(click.ClickException):
    """A failure that is shown as a single line; exits 1."""

    def __init__(self, message: str, command: str) -> None:
        super().__init__(printable(" ".join(message.split())))
        self.command = command

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line on stderr."""
        click.echo(f"{self.command}: {self.format_message()}", file=file, err=True)


class _UsageFailure(_Failure):
    """A command line that cannot be understood; exits 2."""

    exit_code = 2


class LazyGroup(click.Group):
    """Imports a command's module when it is asked for, and turns failures into one line.

    A ``ClipSynthError`` and a full output exit 1 and a usage error 2; anything unexpected keeps its
    traceback.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of --help."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in _COMMANDS:
            return None
        with _missing_extra(cmd_name):
            module = _MODULES.get(cmd_name, cmd_name)
            command = importlib.import_module(f"clipsynth_rt.cli.{module}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (text, _) in _COMMANDS.items()])

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse the group's own options."""
        try:
            with _full_output(str(info_name)):
                return super().make_context(info_name, args, parent, **extra)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            raise _usage(error, str(info_name)) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            with _full_output(ctx), _missing_extra(ctx):
                return super().invoke(ctx)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            raise _usage(error, ctx.command_path) from error
        except ClipSynthError as error:
            raise _Failure(str(error), _path(ctx)) from error


@contextmanager
def _missing_extra(command: str | click.Context) -> Iterator[None]:
    """Turn a module that is not installed into the name of the extra that brings it.

    Args:
        command: The command's name, or the group's context where only running tells it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        name = command if isinstance(command, str) else command.invoked_subcommand
        if module in ("", *PACKAGES) or name not in _COMMANDS:
            raise  # a fault of this package, not of the installation
        raise MissingExtraError(module, _COMMANDS[name][1]) from error


@contextmanager
def _full_output(command: str | click.Context) -> Iterator[None]:
    """Turn what printing to a full output raises into one line.

    Args:
        command: What stands before the line, or the group's context where only running tells it.
    """
    try:
        yield
    except OSError as error:
        # our own are lines already, and a disk that is full while a file is written is no output
        frames = traceback.extract_tb(error.__traceback__)
        printing = any((f.filename, f.name) == (click.utils.__file__, "echo") for f in frames)
        if isinstance(error, ClipSynthError) or error.errno not in _FULL or not printing:
            raise
        drop_output()
        path = command if isinstance(command, str) else _path(command)
        raise _Failure(f"the output cannot be written ({error.strerror})", path) from error


def drop_output() -> None:
    """Discard what standard output does not take.

    Python would try to write it once more when it exits, and fail with a traceback.
    """
    # Python has none where descriptor 1 is closed
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        # a stream in memory has no descriptor
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _path(ctx: click.Context) -> str:
    return f"{ctx.command_path} {ctx.invoked_subcommand or ''}".strip()


def _usage(error: click.UsageError, command: str) -> _UsageFailure:
    path = error.ctx.command_path if error.ctx is not None else command
    return _UsageFailure(f"{error.format_message()} (see {path} --help)", path)


class _StderrHandler(logging.Handler):
    """Shows the library's messages as lines on stderr, whatever stderr is by then."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        click.echo(f"{kind}{printable(record.getMessage())}", err=True)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="clipsynth-rt")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Say "drum", hear a drum: text to sound on the edge."""
    # help texts and file names are UTF-8; a C locale must not turn them into a traceback
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # OpenVINO imports its model converter, with telemetry, in three times the time of the rest
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
    if ctx.invoked_subcommand in _NATIVE:
        from clipsynth_rt.cli.interrupt import prompt_interrupt

        ctx.with_resource(prompt_interrupt())
    handler = _StderrHandler()
    levels = {}
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        levels[logger], logger.propagate = logger.level, False
        logger.setLevel(logging.WARNING)

    @ctx.call_on_close
    def close() -> None:
        for logger, level in levels.items():
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = True
