"""Serving the application with uvicorn, until a signal says stop."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import math
import signal
import socket
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from clipsynth_rt.errors import BackendError, InputError
from clipsynth_rt.server.connections import (
    ConnectionGuard,
    GuardedProtocol,
    descriptor_budget,
)
from clipsynth_rt.server.settings import Settings

logger = logging.getLogger(__name__)

BACKLOG = 1024
"""Connections that the system holds until they are accepted."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        InputError: If it cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        # create_server repeats the address in it
        reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]
        raise InputError(
            f"cannot listen on {host} port {port} ({reason}); choose another --host or --port"
        ) from error


class Server(uvicorn.Server):
    """uvicorn for one application: it stops when the thread that makes sounds dies.

    Args:
        config: uvicorn's.
        app: The application.
        guard: Of its connections.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, guard: ConnectionGuard) -> None:
        super().__init__(config)
        self._guard = guard
        self._batcher = app.state.service.batcher
        self._batcher.on_death = self._stop

    def _stop(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve, with errors of the event loop in the log."""
        asyncio.get_running_loop().set_exception_handler(self._on_loop_error)
        await super().startup(sockets)
        for listener in sockets or ():
            # asyncio takes a listener's backlog for the number of connections to accept at once
            listener.listen(BACKLOG)

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what asyncio reports outside of any request, one line each."""
        error = context.get("exception")
        reason = f" ({type(error).__name__}: {error})" if error is not None else ""
        # the system's errors say all in their line, and may come many times a second
        trace = None if isinstance(error, OSError) else error
        logging.getLogger("asyncio").error("%s", f"{context['message']}{reason}", exc_info=trace)
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            self._guard.make_room()


def make_server(app: FastAPI, settings: Settings) -> Server:
    """Return uvicorn, set up for the application; it stops once its ``should_exit`` is set."""
    limits = settings.limits
    most, at_once = descriptor_budget(limits)
    guard = ConnectionGuard(limits, most)
    config = uvicorn.Config(
        app,
        # the limits on connections hang on this parser, whatever else is installed
        http=functools.partial(GuardedProtocol, guard),  # type: ignore[arg-type]
        loop="asyncio",
        ws="none",
        # logs are this package's own (logs.py)
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        backlog=at_once,
        timeout_keep_alive=math.ceil(limits.idle_s),
        # no request outlives its deadline, but a response may still be on its way
        timeout_graceful_shutdown=math.ceil(limits.deadline_s + limits.read_s),
    )
    return Server(config, app, guard)


def run(app: FastAPI, settings: Settings, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, then finish what was taken.

    Raises:
        BackendError: If the thread that makes sounds died.
    """
    server = make_server(app, settings)

    # uvicorn raises a signal anew once it has stopped: to stop was all that it meant
    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    kept = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    failure = app.state.service.batcher.failure
    if failure is not None:
        raise BackendError(
            f"the thread that makes sounds died ({type(failure).__name__}); the log says where, "
            "start the server again"
        )
    logger.info("stopped")
