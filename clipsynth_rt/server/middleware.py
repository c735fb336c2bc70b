"""What every request passes: an id, a log line, security headers, and one line for a fault."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clipsynth_rt.server.metrics import Metrics
from clipsynth_rt.server.problems import ProblemError, problem_response
from clipsynth_rt.server.settings import Settings

logger = logging.getLogger(__name__)

ROUTES = ("/", "/v1/synth", "/v1/bundle", "/healthz", "/readyz", "/metrics", "/openapi.json")
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_CLIENT_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)


class RequestMiddleware:
    """ASGI middleware around the whole application.

    Args:
        app: What it wraps.
        settings: Which hosts browsers may use, and what may be logged.
        metrics: Told of every answer.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _CLIENT_ID.fullmatch(given) else uuid.uuid4().hex
        noted: dict[str, Any] = {"request_id": request_id, "log": {}}
        scope["clipsynth"] = noted
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                # the page's files are asked for again, and not sent again where they are the same
                static = scope["path"].startswith("/static/") or scope["path"] == "/"
                headers.setdefault("Cache-Control", "no-cache" if static else "no-store")
            await send(message)

        request = Request(scope)
        try:
            check_origin(request, self._settings)
            # the same answer without its body, which the server leaves out
            asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
            await self._app(asked, receive, send_marked)
        except ClientDisconnect:
            status, noted["problem"] = 499, "disconnected"
        except ProblemError as problem:
            await problem_response(request, problem)(scope, receive, send_marked)
        # whatever it is: the log has the traceback, and the client one line
        except Exception:
            logger.exception("unexpected error", extra={"request_id": request_id})
            if status:
                raise  # half an answer is out: only closing the connection tells
            fault = ProblemError(
                500, "fault", "something is wrong in the server; its log says what"
            )
            await problem_response(request, fault)(scope, receive, send_marked)
        finally:
            self._report(scope, noted, status or 499, time.perf_counter() - began)

    def _report(self, scope: Scope, noted: dict[str, Any], status: int, seconds: float) -> None:
        path = scope["path"]
        route = path if path in ROUTES else "other"
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_s.labels(route).observe(seconds)
        facts = {
            "request_id": noted["request_id"],
            "method": scope["method"],
            "path": path[:200],
            "status": status,
            "seconds": round(seconds, 6),
            **noted["log"],
        }
        if "problem" in noted:
            self._metrics.rejected.labels(noted["problem"]).inc()
            facts["problem"] = noted["problem"]
        logger.info("request", extra=facts)


def check_origin(request: Request, settings: Settings) -> None:
    """Keep web pages of other sites out of a server that asks for no token.

    Raises:
        ProblemError: If the server is addressed by a name that is not its own, or another site's
            page sends the request.
    """
    if settings.token is not None:
        return  # no page elsewhere has it
    host = request.headers.get("host", "")
    if settings.hosts is not None and host_name(host) not in settings.hosts:
        raise ProblemError(
            421, "host", f"this server is not {host:.100}; allow the name with --allowed-host"
        )
    origin = request.headers.get("origin")
    if origin is None:
        return
    theirs = origin.partition("://")[2]
    if not theirs or (theirs != host and host_name(theirs) not in (settings.hosts or ())):
        raise ProblemError(403, "origin", f"pages of {origin:.100} may not use this server")


def host_name(host: str) -> str | None:
    """Return a host in lower case and without its port, and None for what is no host.

    >>> host_name("Sounds.example:8000"), host_name("[::1]:8000"), host_name("::1")
    ('sounds.example', '::1', '::1')
    """
    # an IPv6 address as options name it: its last part is no port
    bare = host.count(":") > 1 and not host.startswith("[")
    try:
        return urlsplit(f"//[{host}]" if bare else f"//{host}").hostname
    except ValueError:
        return None
