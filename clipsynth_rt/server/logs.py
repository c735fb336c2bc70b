"""Structured logs: one JSON object a line, without queries unless they are asked for."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

_OWN_LOGGERS = ("clipsynth_rt", "clipsynth_export", "clipsynth_training", "uvicorn")
_LIMITED_LOGGERS = ("asyncio", "uvicorn", "clipsynth_rt.server.connections", "python_multipart")
"""Whose warnings clients or the system can repeat without end."""
REPEAT_S = 10.0
"""Seconds for which a warning of these is not repeated."""


class _HideQueries(logging.Filter):
    """Takes the query out of the tokenizer's warning, the only message that holds one."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == "clipsynth_rt.bundles.tokenizer":
            record.msg, record.args = "query cut to what the text encoder reads", ()
        return True


class _LimitRepeats(logging.Filter):
    """Drops a warning for a while after one of the same logger and place; the next one counts them.

    Args:
        seconds: For how long.
    """

    def __init__(self, seconds: float = REPEAT_S) -> None:
        super().__init__()
        self._seconds = seconds
        self._seen: dict[tuple[str, str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        limited = any(record.name == n or record.name.startswith(f"{n}.") for n in _LIMITED_LOGGERS)
        if record.levelno < logging.WARNING or not limited:
            return True
        key, now = (record.name, record.pathname, record.lineno), time.monotonic()
        until, dropped = self._seen.get(key, (0.0, 0))
        if now < until:
            self._seen[key] = until, dropped + 1
            return False
        self._seen[key] = now + self._seconds, 0
        if dropped:
            record.dropped = dropped
        return True


@contextmanager
def json_logs(stream: TextIO, *, queries: bool) -> Iterator[None]:
    """Send all logs and Python's warnings to ``stream``, in place of anything else.

    This package and uvicorn log from INFO on, any other library (asyncio, multipart) from WARNING.

    Args:
        stream: Where to.
        queries: Whether a line may hold a query.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        JsonFormatter(
            "{levelname}{name}{message}",
            style="{",
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp=True,
            # uvicorn's messages once more, with terminal colours
            reserved_attrs=[*RESERVED_ATTRS, "color_message"],
        )
    )
    handler.addFilter(_LimitRepeats())
    if not queries:
        handler.addFilter(_HideQueries())
    kept = []
    for name in (*_OWN_LOGGERS, ""):
        logger = logging.getLogger(name)
        kept.append((logger, logger.handlers, logger.level, logger.propagate))
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name else logging.WARNING)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, handlers, level, propagate in kept:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
