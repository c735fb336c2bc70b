"""What ``clipsynth-rt synth`` reads from standard input and from named pipes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

from clipsynth_rt.errors import InputError

if TYPE_CHECKING:
    from clipsynth_rt.audio.clip import AudioClip

MAX_QUERY_BYTES = 16_000_000


def standard_input() -> BinaryIO:
    """Return standard input as bytes.

    Raises:
        InputError: If it is closed.
    """
    # Python has none where descriptor 0 is closed
    if sys.stdin is None:
        raise InputError("standard input: is closed; name a file")
    return sys.stdin.buffer


def expand_queries(queries: Sequence[str]) -> list[str]:
    """Return queries with the lines of standard input in the place of ``-``; blank ones are none.

    Raises:
        InputError: If it holds no query, is not UTF-8, or is named twice.
    """
    if "-" not in queries:
        return list(queries)
    if queries.count("-") > 1:
        raise InputError("standard input (-) is read once; name it once")
    data = standard_input().read(MAX_QUERY_BYTES + 1)
    if len(data) > MAX_QUERY_BYTES:
        raise InputError(f"standard input: over {MAX_QUERY_BYTES // 1_000_000} MB of queries")
    try:
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError("standard input: not UTF-8; give one query a line") from error
    found = [line for line in lines if line]
    if not found:
        raise InputError("standard input: has no query; give one a line")
    at = queries.index("-")
    return [*queries[:at], *found, *queries[at + 1 :]]


def sound_source(init: str | None) -> str | AudioClip | None:
    """Return ``--init`` as what may be read more than once: a pipe is read here.

    Raises:
        InputError: If it cannot be read as a sound.
    """
    is_pipe = init is not None and os.path.exists(init) and not os.path.isfile(init)
    if init is None or os.path.isdir(init) or not (is_pipe or init == "-"):
        return init
    from clipsynth_rt.audio.load import read_clip
    from clipsynth_rt.synthesis.options import MAX_DURATION_S

    return read_clip(standard_input() if init == "-" else init, MAX_DURATION_S)
