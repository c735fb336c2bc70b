"""Structured logs: one JSON object a line, without what was asked for unless that is wished."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

_LOGGERS = ("clipsynth_rt", "clipsynth_export", "clipsynth_training", "uvicorn")


class _HideQueries(logging.Filter):
    """Takes the query out of the tokenizer's warning, the only message that holds one."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == "clipsynth_rt.bundles.tokenizer":
            record.msg, record.args = "query cut to what the text encoder reads", ()
        return True


@contextmanager
def json_logs(stream: TextIO, *, queries: bool) -> Iterator[None]:
    """Send the logs of this package and of uvicorn to ``stream``, in place of anything else.

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
    if not queries:
        handler.addFilter(_HideQueries())
    kept = []
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        kept.append((logger, logger.handlers, logger.level, logger.propagate))
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, handlers, level, propagate in kept:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
