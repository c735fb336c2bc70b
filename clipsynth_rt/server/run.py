"""Serving the application with uvicorn, until a signal says stop."""

from __future__ import annotations

import logging
import math
import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from clipsynth_rt.errors import InputError
from clipsynth_rt.server.settings import Settings

logger = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        InputError: If it cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError, UnicodeError) as error:
        # create_server repeats the address in it
        reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]
        raise InputError(
            f"cannot listen on {host} port {port} ({reason}); choose another --host or --port"
        ) from error


def make_server(app: FastAPI, settings: Settings) -> uvicorn.Server:
    """Return uvicorn, set up for the application; it stops once its ``should_exit`` is set."""
    config = uvicorn.Config(
        app,
        # logs are this package's own (logs.py)
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        timeout_keep_alive=10,
        # no request outlives its deadline, but an answer may still be on its way
        timeout_graceful_shutdown=math.ceil(settings.limits.deadline_s + settings.limits.read_s),
    )
    return uvicorn.Server(config)


def run(app: FastAPI, settings: Settings, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, then finish what was taken."""
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
    logger.info("stopped")
