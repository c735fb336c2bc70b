"""The options of a synthesis on the command line, made from the one table of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from clipsynth_rt.cli.common.completion import values
from clipsynth_rt.synthesis.options import OPTIONS, SEED, Option

F = TypeVar("F", bound=Callable[..., Any])


def synthesis_options(function: F) -> F:
    """Give a command the seed and every option of ``OPTIONS``, in that order."""
    for option in reversed((SEED, *OPTIONS.values())):
        function = _click_option(option)(function)
    return function


def _click_option(option: Option) -> Callable[[F], F]:
    if option.type is bool:
        return click.option(option.flag, is_flag=True, help=option.help)
    more: dict[str, Any] = {}
    if option.several:
        more = {"multiple": True}
    elif option.default is not None and option.name != "strength":
        # strength is left out where it makes no difference: without a sound to start from
        more = {"default": option.default, "show_default": True}
    if option.choices:
        # not click.Choice: what is wrong is said in one way in every door
        more |= {"shell_complete": values(*option.choices)}
    return click.option(
        option.flag, type=option.type, metavar=option.metavar, help=option.help, **more
    )
