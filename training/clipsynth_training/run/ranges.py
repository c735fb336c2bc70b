"""Ranges that the values of a training's configuration must lie in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from clipsynth_rt.errors import InputError

Range = tuple[str, Callable[[float], bool]]
"""What to say of it, and whether a value is in it."""

ABOVE_ZERO: Range = ("above 0", lambda value: 0.0 < value < math.inf)
FROM_ZERO: Range = ("at least 0", lambda value: 0.0 <= value < math.inf)
FROM_ONE: Range = ("at least 1", lambda value: 1.0 <= value < math.inf)
SHARE: Range = ("from 0 to 1", lambda value: 0.0 <= value <= 1.0)
BELOW_ONE: Range = ("from 0 to below 1", lambda value: 0.0 <= value < 1.0)


def check_ranges(settings: object, ranges: Mapping[str, Range], where: str) -> None:
    """Check fields of a configuration.

    Args:
        settings: Has them as attributes.
        ranges: Field -> its range.
        where: Stands before a field's name in a message.

    Raises:
        InputError: If one lies outside; the message names the first, its range and its value.
    """
    for name, (told, fits) in ranges.items():
        value = getattr(settings, name)
        if not fits(value):
            raise InputError(f"{where}{name} must be {told}, got {value}")
