"""What a server allows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from clipsynth_rt.errors import InputError

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Limits:
    """Most of everything that a client can ask for.

    Attributes:
        queue: Clips that wait for their turn; a request that does not fit gets 429.
        batch: Clips made at once, of the same options.
        clips: Clips of one request; at most ``queue``, or they could never be taken.
        query_chars: Characters of a query, a negative query and a template.
        duration: Seconds of sound.
        num_steps: Denoising steps.
        deadline_s: Seconds from a request to its sounds.
        upload_bytes: Of a request with pictures.
        image_pixels: Of a picture, read from its header before it is decoded.
        form_pixels: Of all pictures of a request.
        read_s: Seconds that a request's body may take to arrive.
        header_s: Seconds that a request's head may take to arrive.
        idle_s: Seconds that a connection may be idle between two requests.
        write_s: Seconds for which a client may read nothing of a response.
        connections: Connections at once; fewer where the process may open fewer descriptors.
    """

    queue: int = 16
    batch: int = 4
    clips: int = 8
    query_chars: int = 300
    duration: float = 20.0
    num_steps: int = 50
    deadline_s: float = 60.0
    upload_bytes: int = 10_000_000
    image_pixels: int = 25_000_000
    form_pixels: int = 50_000_000
    read_s: float = 15.0
    header_s: float = 10.0
    idle_s: float = 10.0
    write_s: float = 30.0
    connections: int = 1000

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            # written so that NaN is refused too
            if not 0 < value < math.inf:
                raise InputError(f"limit {name} must be above 0 and finite, got {value}")
        if self.clips > self.queue:
            raise InputError(
                f"{self.clips} clips of one request do not fit a queue of {self.queue}; "
                "allow fewer clips or a longer queue"
            )

    @property
    def json_bytes(self) -> int:
        """Of a JSON request: every text at its limit, each character escaped in JSON."""
        return 16_384 + 12 * self.query_chars * (self.clips + 16)


@dataclass(frozen=True)
class Settings:
    """How a server behaves.

    Attributes:
        limits: Most of everything.
        token: Asked for as ``Authorization: Bearer``; None is nobody's.
        hosts: Names under which browsers may reach a server without a token, so that no web page
            elsewhere can use it (DNS rebinding, cross-site requests); None is any. A name may have
            a port (``sounds.example:8443``), which then has to be the same.
        origins: Origins of web pages that may use the server, such as ``https://app.example``.
        root_path: Path under which a proxy shows the server, such as ``/sounds``.
        log_queries: Whether logs may hold what was asked for.
    """

    limits: Limits = field(default_factory=Limits)
    token: str | None = None
    hosts: frozenset[str] | None = frozenset(LOOPBACK)
    origins: frozenset[str] = frozenset()
    root_path: str = ""
    log_queries: bool = False
