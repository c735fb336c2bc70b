"""What every request passes: an id, a log line, security headers, and one line for a fault.

Three libraries were tried for parts of it. Starlette's ``TrustedHostMiddleware`` ignores ports and
origins and refuses with a bare text. ``asgi-correlation-id`` replaces two lines, and logs one for
every id that it does not accept, which a client can make flood. Under
``prometheus-fastapi-instrumentator`` a client who leaves is a status of 500, and the reasons of
refusals would still need a counter here.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clipsynth_rt.server.metrics import Metrics
from clipsynth_rt.server.problems import ProblemError, problem_response
from clipsynth_rt.server.settings import LOOPBACK, Settings

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
_DEFAULT_PORTS = {"http": 80, "https": 443}

Host = tuple[str, int | None]
"""A name in lower case, and its port if it has one."""
Origin = tuple[str, str, int]
"""A scheme, a name and a port."""


class RequestMiddleware:
    """ASGI middleware around the whole application.

    Args:
        app: What it wraps.
        settings: Which hosts and origins browsers may use.
        metrics: Told of every response.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        self._check = OriginCheck(settings)
        self._root_path = settings.root_path

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
        path = _set_root(scope, self._root_path)
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
                static = path.startswith("/static/") or path == "/"
                headers.setdefault("Cache-Control", "no-cache" if static else "no-store")
                if "location" in headers:
                    # without scheme and host, which a proxy in front may have changed
                    target = urlsplit(headers["location"])
                    headers["Location"] = target._replace(scheme="", netloc="").geturl()
            await send(message)

        request = Request(scope)
        try:
            _check_framing(request)
            self._check(request, path)
            # the same response without its body, which the server leaves out
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
                raise  # half a response is out: only closing the connection tells
            fault = ProblemError(
                500, "fault", "something is wrong in the server; its log says what"
            )
            await problem_response(request, fault)(scope, receive, send_marked)
        finally:
            self._report(scope, path, status or 499, time.perf_counter() - began)

    def _report(self, scope: Scope, path: str, status: int, seconds: float) -> None:
        noted = scope["clipsynth"]
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


def _set_root(scope: Scope, root_path: str) -> str:
    """Put the root path before a path without it, as ASGI wants it, and return what follows it.

    Some proxies take the prefix away before they pass a request on, and others do not.
    """
    root, path = root_path or scope.get("root_path", ""), scope["path"]
    scope["root_path"] = root
    if not root:
        return str(path)
    if path == root or path.startswith(f"{root}/"):
        return str(path[len(root) :])
    scope["path"] = root + path
    return str(path)


def _check_framing(request: Request) -> None:
    """Refuse a request of two lengths, which a proxy may read as two requests (RFC 9112, 6.3).

    Raises:
        ProblemError: If it has both; the connection is closed.
    """
    if "transfer-encoding" in request.headers and "content-length" in request.headers:
        raise ProblemError(
            400,
            "malformed",
            "both Content-Length and Transfer-Encoding are given; send one of the two",
            headers={"Connection": "close"},
        )


class OriginCheck:
    """Keeps web pages of other sites out of a server that asks for no token.

    Args:
        settings: Which hosts and origins browsers may use.
    """

    def __init__(self, settings: Settings) -> None:
        self._has_token = settings.token is not None
        self._hosts = None if settings.hosts is None else _split_all(settings.hosts)
        self._origins = {split_origin(origin) for origin in settings.origins}
        # a proxy under another name speaks TLS, and may pass on another Host
        for name, port in _split_all(settings.hosts or ()):
            if name not in LOOPBACK:
                self._origins.add(("https", name, port or _DEFAULT_PORTS["https"]))

    def __call__(self, request: Request, path: str) -> None:
        """Check one request.

        Args:
            request: The request.
            path: Its path, without the root path.

        Raises:
            ProblemError: If the server is addressed by a name that is not its own, or the page of
                another site sends the request.
        """
        if self._has_token:
            return  # no page elsewhere has it
        headers = request.headers
        text = headers.get("host", "")
        host = split_host(text)
        if self._hosts is not None and not self._is_ours(host):
            raise ProblemError(
                421, "host", f"this server is not {text:.100}; allow the name with --allowed-host"
            )
        origin = headers.get("origin")
        if origin is not None:
            theirs = split_origin(origin)
            scheme = request.scope["scheme"]
            own = host and (scheme, host[0], host[1] or _DEFAULT_PORTS.get(scheme, 0))
            if theirs is None or (theirs != own and theirs not in self._origins):
                raise ProblemError(
                    403,
                    "origin",
                    f"pages of {origin:.100} may not use this server; allow them with "
                    "--allow-origin",
                )
            return
        # requests that carry no Origin: pictures, scripts, links
        if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
            return
        # a link to the page is no request of the site that it stands on
        is_link = headers.get("sec-fetch-mode") == "navigate" and path in ("", "/")
        if not (is_link and request.method in ("GET", "HEAD")):
            raise ProblemError(403, "origin", "pages of other sites may not use this server")

    def _is_ours(self, host: Host | None) -> bool:
        assert self._hosts is not None
        return host is not None and (host in self._hosts or (host[0], None) in self._hosts)


def _split_all(hosts: Iterable[str]) -> set[Host]:
    return {host for host in map(split_host, hosts) if host is not None}


def split_host(host: str) -> Host | None:
    """Return a host's name in lower case and its port, and None for what is no host.

    >>> split_host("Sounds.example:8000"), split_host("[::1]:8000"), split_host("::1")
    (('sounds.example', 8000), ('::1', 8000), ('::1', None))
    """
    # an IPv6 address as options name it: its last part is no port
    bare = host.count(":") > 1 and not host.startswith("[")
    try:
        parts = urlsplit(f"//[{host}]" if bare else f"//{host}")
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not name or parts.path or parts.query or parts.fragment or "@" in host:
        return None
    return name, port


def split_origin(origin: str) -> Origin | None:
    """Return an origin's scheme, host and port, and None for what is none.

    >>> split_origin("https://App.example"), split_origin("null")
    (('https', 'app.example', 443), None)
    """
    scheme, separator, rest = origin.partition("://")
    host = split_host(rest)
    scheme = scheme.lower()
    if not separator or host is None or scheme not in _DEFAULT_PORTS:
        return None
    return scheme, host[0], host[1] or _DEFAULT_PORTS[scheme]


def format_host(name: str, port: int | None) -> str:
    """Return a host as options and headers name it.

    >>> format_host("::1", 8000), format_host("sounds.example", None)
    ('[::1]:8000', 'sounds.example')
    """
    if port is None:
        return name
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def format_origin(scheme: str, name: str, port: int) -> str:
    """Return an origin as browsers send it.

    >>> format_origin("https", "app.example", 443), format_origin("http", "::1", 3000)
    ('https://app.example', 'http://[::1]:3000')
    """
    shown = None if port == _DEFAULT_PORTS[scheme] else port
    host = f"[{name}]" if ":" in name and shown is None else format_host(name, shown)
    return f"{scheme}://{host}"
