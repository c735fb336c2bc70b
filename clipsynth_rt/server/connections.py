"""Connections that wait: time limits, and a cap below the process' limit of descriptors.

uvicorn alone closes a connection that is idle after a response, but neither one that never sends a
request nor one that stops in the middle of its headers, and it accepts until descriptors run out.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from clipsynth_rt.server.settings import Limits

logger = logging.getLogger(__name__)

RESERVED_DESCRIPTORS = 8
"""Kept for files and pipes that are opened while connections are at their cap."""
MAX_ACCEPTED_AT_ONCE = 16
ACCEPT_ROUNDS = 5
"""Turns of the event loop from accepting a connection to having closed it or another."""
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
    b"Retry-After: 5\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
)
_BUSY_BODY = (
    b'{"title":"Service Unavailable","status":503,"code":"connections",'
    b'"detail":"too many connections; try again in 5 s"}'
)
_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def descriptor_budget(limits: Limits) -> tuple[int, int]:
    """Return how many connections are held, and how many are accepted at once.

    Both together, with what is open already, stay below the process' limit of descriptors.
    asyncio accepts up to a listener's backlog before any connection's protocol sees it.
    """
    try:
        import resource

        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        opened = len(os.listdir("/proc/self/fd"))
    except (ImportError, OSError):  # Windows has no such limit, macOS no /proc
        return limits.connections, min(MAX_ACCEPTED_AT_ONCE, limits.connections)
    spare = max(2, allowed - opened - RESERVED_DESCRIPTORS)
    at_once = max(1, min(MAX_ACCEPTED_AT_ONCE, spare // (2 * ACCEPT_ROUNDS)))
    return max(1, min(limits.connections, spare - ACCEPT_ROUNDS * at_once)), at_once


class ConnectionGuard:
    """Counts the connections of one server, and closes the idle ones when there are too many.

    Args:
        limits: Times; ``connections`` is the cap.
        most: Connections that are held; see ``descriptor_budget``.
    """

    def __init__(self, limits: Limits, most: int) -> None:
        self.limits, self.most = limits, most
        # in the order in which they came or last finished a request: the first has waited longest
        self._idle: dict[GuardedProtocol, None] = {}
        self._count = 0

    def enter(self, connection: GuardedProtocol) -> bool:
        """Take a connection in, in place of the one idle longest if there are too many.

        Returns:
            Whether there is room.
        """
        self._count += 1
        self._idle[connection] = None
        if self._count <= self.most:
            return True
        logger.warning(
            "too many connections: the one that is idle longest is closed",
            extra={"connections": self._count, "limit": self.most},
        )
        longest = next(iter(self._idle))
        if longest is connection:
            return False
        longest.close()
        return True

    def make_room(self) -> None:
        """Close half of the idle connections: the system has no descriptor left."""
        for connection in list(self._idle)[: 1 + len(self._idle) // 2]:
            connection.close()

    def set_idle(self, connection: GuardedProtocol, idle: bool) -> None:
        """Note whether a connection waits for its client's next request."""
        self._idle.pop(connection, None)
        if idle:
            self._idle[connection] = None

    def leave(self, connection: GuardedProtocol) -> None:
        """Forget a connection that is closed."""
        self._count -= 1
        self._idle.pop(connection, None)


class GuardedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with a time limit for request heads and for responses that nobody reads.

    Args:
        guard: The server's.
        *args: uvicorn's.
        **kwargs: uvicorn's.
    """

    def __init__(self, guard: ConnectionGuard, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._guard = guard
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._is_idle = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request's head."""
        super().connection_made(transport)
        if self._guard.enter(self):
            self._await_head()
        else:
            transport.write(_BUSY % (len(_BUSY_BODY), _BUSY_BODY))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._stop(self._head_timer, self._write_timer)
        self._guard.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read; the time for a head does not begin anew with each part of it."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._note()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._note()

    def pause_writing(self) -> None:
        """Begin to wait for a client that reads more slowly than the server writes."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """Stop waiting: the client has read."""
        super().resume_writing()
        self._stop(self._write_timer)
        self._write_timer = None

    def close(self) -> None:
        """Close at once where nothing is to be sent, else after it."""
        self._guard.set_idle(self, False)
        if not self.transport.is_closing():
            self.transport.close()

    def _note(self) -> None:
        """Follow whether a request is being handled."""
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy:
            self._stop(self._head_timer)
            self._head_timer = None
        elif self._head_timer is None and not self.transport.is_closing():
            # after a response uvicorn's own timer runs until the first byte comes
            if self.conn.trailing_data[0] or self.timeout_keep_alive_task is None:
                self._await_head()
        if busy == self._is_idle and not self.transport.is_closing():
            self._is_idle = not busy
            self._guard.set_idle(self, not busy)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self._guard.limits.header_s, self._head_is_late)

    def _head_is_late(self) -> None:
        if self.transport.is_closing():
            return
        logger.warning(
            "a request's head did not arrive in time: its connection is closed",
            extra={"seconds": self._guard.limits.header_s},
        )
        if self.conn.trailing_data[0] and self.conn.our_state is h11.IDLE:
            self.transport.write(_LATE)
        self.close()

    def _await_reader(self) -> None:
        size = self.transport.get_write_buffer_size()
        self._stop(self._write_timer)
        self._write_timer = self.loop.call_later(
            self._guard.limits.write_s, self._reader_is_late, size
        )

    def _reader_is_late(self, size: int) -> None:
        if self.transport.get_write_buffer_size() < size:
            self._await_reader()  # slow, but it reads
            return
        logger.warning(
            "a response was not read in time: its connection is closed",
            extra={"seconds": self._guard.limits.write_s},
        )
        self.transport.abort()

    @staticmethod
    def _stop(*timers: asyncio.TimerHandle | None) -> None:
        for timer in timers:
            if timer is not None:
                timer.cancel()
