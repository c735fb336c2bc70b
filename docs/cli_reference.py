"""Write the reference of the command line from its own help: ``python docs/cli_reference.py``.

A test fails where docs/reference/cli.md is not what this writes.
"""

from __future__ import annotations

from pathlib import Path

import click

from clipsynth_rt.cli.main import main

TARGET = Path(__file__).parent / "reference" / "cli.md"
_WIDTH = 96
_HEAD = """# Command line

What every command prints with `--help`. Made by `python docs/cli_reference.py`; do not edit.
"""


def reference() -> str:
    """Return the reference as Markdown: one section a command, in the order of --help."""
    parts = [_HEAD]
    root = click.Context(
        main, info_name="clipsynth-rt", terminal_width=_WIDTH, **main.context_settings
    )
    _add(parts, main, root, 2)
    return "\n".join(parts)


def _add(parts: list[str], command: click.Command, ctx: click.Context, level: int) -> None:
    text = "\n".join(line.rstrip() for line in command.get_help(ctx).splitlines())
    parts.append(f"{'#' * level} `{ctx.command_path}`\n\n```text\n{text}\n```\n")
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            if inner is not None and not inner.hidden:
                child = click.Context(inner, parent=ctx, info_name=name, **inner.context_settings)
                _add(parts, inner, child, level + 1)


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
