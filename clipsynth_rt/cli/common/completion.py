"""``clipsynth-rt completion``: what makes a shell complete commands and options."""

from __future__ import annotations

from collections.abc import Callable

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print a script that makes SHELL complete commands, options and their values.

    \b
      clipsynth-rt completion bash > ~/.local/share/bash-completion/completions/clipsynth-rt
      clipsynth-rt completion zsh > ~/.zfunc/_clipsynth-rt      (with fpath+=~/.zfunc)
      clipsynth-rt completion fish > ~/.config/fish/completions/clipsynth-rt.fish
    """  # noqa: D301  (click reads \b as "keep these lines")
    from clipsynth_rt.cli.main import main

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "clipsynth-rt", "_CLIPSYNTH_RT_COMPLETE").source())


def values(*known: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return what completes an option of these values, which it need not be restricted to."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        return [value for value in known if value.startswith(incomplete)]

    return complete
