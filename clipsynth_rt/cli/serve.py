"""``clipsynth-rt serve``: a voice behind HTTP, and a page that plays it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import click

from clipsynth_rt.cli.common.voice import (
    BUNDLE,
    PRECISION,
    PROVIDER,
    THREADS,
    FiniteRange,
    parse_precision,
)
from clipsynth_rt.errors import InputError

TOKEN_VARIABLE = "CLIPSYNTH_RT_TOKEN"
_COUNT = click.IntRange(min=1)
_AMOUNT = FiniteRange(min=0, min_open=True)
_MILLIONS = FiniteRange(min=0, max=1e6, min_open=True)


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="0 takes a free one.",
)
@BUNDLE
@PROVIDER
@PRECISION
@THREADS
@click.option(
    "--token-file",
    type=click.Path(readable=False, path_type=Path),
    help=f"File with the token to ask for; else {TOKEN_VARIABLE} is.",
)
@click.option("--allow-anonymous", is_flag=True, help="Let other machines in without a token.")
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Another name of this server, such as a proxy's; with a port, that port alone.",
)
@click.option(
    "--allow-origin",
    "allowed_origins",
    multiple=True,
    metavar="ORIGIN",
    help="A site whose pages may use this server, such as https://app.example.",
)
@click.option(
    "--root-path",
    default="",
    metavar="PATH",
    help="Path under which a proxy shows this server, such as /sounds.",
)
@click.option("--queue", type=_COUNT, default=16, show_default=True, help="Sounds that may wait.")
@click.option("--batch", type=_COUNT, default=4, show_default=True, help="Sounds made at once.")
@click.option("--max-clips", type=_COUNT, help="Sounds a request; 8, or the queue if shorter.")
@click.option("--max-query", type=_COUNT, default=300, show_default=True, help="Characters.")
@click.option("--max-duration", type=_AMOUNT, default=20.0, show_default=True, help="Seconds.")
@click.option("--max-steps", type=_COUNT, default=50, show_default=True)
@click.option("--max-upload", type=_MILLIONS, default=10.0, show_default=True, help="MB.")
@click.option("--max-pixels", type=_MILLIONS, default=25.0, show_default=True, help="Millions.")
@click.option(
    "--max-form-pixels", type=_MILLIONS, default=50.0, show_default=True, help="Millions a request."
)
@click.option(
    "--max-connections",
    type=_COUNT,
    default=1000,
    show_default=True,
    help="At once; fewer where the limit of open files is lower.",
)
@click.option("--deadline", type=_AMOUNT, default=60.0, show_default=True, help="Seconds.")
@click.option("--log-queries", is_flag=True, help="Let logs hold what is asked for.")
def command(
    host: str,
    port: int,
    bundle: str | None,
    provider: str,
    precision: str | None,
    threads: int | None,
    token_file: Path | None,
    allow_anonymous: bool,
    allowed_hosts: tuple[str, ...],
    allowed_origins: tuple[str, ...],
    root_path: str,
    queue: int,
    batch: int,
    max_clips: int | None,
    max_query: int,
    max_duration: float,
    max_steps: int,
    max_upload: float,
    max_pixels: float,
    max_form_pixels: float,
    max_connections: int,
    deadline: float,
    log_queries: bool,
) -> None:
    """Serve sounds over HTTP, and a page that makes and plays them.

    \b
      clipsynth-rt serve                     (then open http://127.0.0.1:8000)
      curl http://127.0.0.1:8000/v1/synth --json '{"query": "drum"}' -o drum.wav

    Logs are JSON lines on stderr. Ctrl+C or SIGTERM finishes what was taken.
    """  # noqa: D301  (click reads \b as "keep these lines")
    from clipsynth_rt.server import Limits, Settings, create_app
    from clipsynth_rt.server.logs import json_logs
    from clipsynth_rt.server.run import listen, run
    from clipsynth_rt.server.settings import LOOPBACK
    from clipsynth_rt.synthesis.synthesizer import Synthesizer

    token = read_token(token_file)
    local = host in LOOPBACK or host.startswith("127.")
    if token is None and not local and not allow_anonymous:
        raise click.UsageError(
            f"on {host} other machines reach this server: set {TOKEN_VARIABLE} or --token-file, or "
            "let anyone in with --allow-anonymous"
        )
    limits = Limits(
        queue=queue,
        batch=batch,
        clips=max_clips or min(8, queue),
        query_chars=max_query,
        duration=max_duration,
        num_steps=max_steps,
        deadline_s=deadline,
        upload_bytes=round(max_upload * 1e6),
        image_pixels=round(max_pixels * 1e6),
        form_pixels=round(max_form_pixels * 1e6),
        connections=max_connections,
    )
    hosts = _hosts(host, allowed_hosts) if local or allowed_hosts else None
    settings = Settings(
        limits, token, hosts, _origins(allowed_origins), _root_path(root_path), log_queries
    )
    with (
        listen(host, port) as listener,
        Synthesizer.from_bundle(
            bundle, provider, parse_precision(precision), threads
        ) as synthesizer,
    ):
        app = create_app(synthesizer, settings)
        app.state.service.warm_up()
        where = f"[{host}]" if ":" in host else host
        click.echo(
            f"{synthesizer.bundle.manifest.name} on {synthesizer.provider}: "
            f"http://{where}:{listener.getsockname()[1]}{settings.root_path} (Ctrl+C stops)"
        )
        if token is None and not local:
            click.echo("warning: anyone who reaches this machine can use it", err=True)
        with json_logs(sys.stderr, queries=log_queries):
            run(app, settings, listener)


def _hosts(host: str, allowed: tuple[str, ...]) -> frozenset[str]:
    """Return the server's own names as ``Settings.hosts`` has them."""
    from clipsynth_rt.server.middleware import format_host, split_host
    from clipsynth_rt.server.settings import LOOPBACK

    hosts = set()
    for name in (*LOOPBACK, host, *allowed):
        split = split_host(name)
        if split is None:
            raise click.UsageError(
                f"--allowed-host {name!r} is no name, such as sounds.example or sounds.example:8443"
            )
        hosts.add(format_host(*split))
    return frozenset(hosts)


def _origins(allowed: tuple[str, ...]) -> frozenset[str]:
    """Return origins as browsers send them: in lower case, without a default port."""
    from clipsynth_rt.server.middleware import format_origin, split_origin

    origins = set()
    for text in allowed:
        split = split_origin(text)
        if split is None:
            raise click.UsageError(
                f"--allow-origin {text!r} is no origin, such as https://app.example"
            )
        origins.add(format_origin(*split))
    return frozenset(origins)


def _root_path(path: str) -> str:
    stripped = path.strip("/")
    if not stripped:
        return ""
    if not re.fullmatch(r"[\w.~-]+(/[\w.~-]+)*", stripped, re.ASCII):
        raise click.UsageError(f"--root-path {path!r} is no path, such as /sounds")
    return f"/{stripped}"


def read_token(path: Path | None) -> str | None:
    """Return the token from a file or from the environment, never from the command line.

    Raises:
        InputError: If the file cannot be read, or the token is empty or not plain ASCII.
    """
    if path is None:
        token, where = os.environ.get(TOKEN_VARIABLE), TOKEN_VARIABLE
        if token is None:
            return None
    else:
        where = str(path)
        try:
            token = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise InputError(f"{path}: the token cannot be read ({reason})") from error
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(
            f"{where}: a token is one word of ASCII; make one with: openssl rand -hex 32"
        )
    return token
