"""The application: routes, and how OpenAPI describes them."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from clipsynth_rt import __version__
from clipsynth_rt.server import openapi
from clipsynth_rt.server.middleware import RequestMiddleware
from clipsynth_rt.server.problems import ProblemError, problem_response, state_of
from clipsynth_rt.server.responses import (
    EncodedClip,
    clip_data,
    file_response,
    json_response,
    zip_response,
)
from clipsynth_rt.server.service import Service
from clipsynth_rt.server.settings import Settings

if TYPE_CHECKING:
    from clipsynth_rt.synthesis.synthesizer import Synthesizer

STATIC = Path(__file__).parent / "static"


def create_app(synthesizer: Synthesizer, settings: Settings | None = None) -> FastAPI:
    """Return the application that serves a voice.

    Args:
        synthesizer: The voice; it is not closed.
        settings: Limits and access; the defaults serve browsers and programs on this machine.

    Raises:
        BundleError: If one of the bundle's files cannot be used.
    """
    settings = settings or Settings()
    service = Service(synthesizer, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        # in a thread, so that responses for what is still being made go out
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="clipsynth-rt",
        version=__version__,
        summary="Text and pictures to sound.",
        description=openapi.DESCRIPTION,
        lifespan=lifespan,
        # their pages load scripts from elsewhere, which the security policy forbids
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(settings.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
            expose_headers=["Content-Disposition", "Retry-After", *openapi.HEADERS],
        )
    app.add_middleware(RequestMiddleware, settings=settings, metrics=service.metrics)
    for kind in (ProblemError, HTTPException):
        app.add_exception_handler(kind, _on_problem)
    if settings.token is None:
        app.include_router(api)
    else:
        # declared only where it is asked for
        checks = [Depends(_check_token)]
        app.include_router(api, dependencies=checks, responses=openapi.TOKEN_RESPONSES)
    app.include_router(public)
    app.mount("/static", StaticFiles(directory=STATIC))
    describe = app.openapi

    def describe_with_names() -> dict[str, Any]:
        described = describe()
        described.setdefault("components", {}).setdefault("schemas", {}).update(openapi.SCHEMAS)
        return described

    app.openapi = describe_with_names  # type: ignore[method-assign]
    return app


async def _on_problem(request: Request, error: Exception) -> Response:
    return problem_response(request, error)


bearer = HTTPBearer(auto_error=False, description="The token that the server was started with.")


async def _check_token(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
) -> None:
    token: str = request.app.state.service.settings.token
    given = credentials.credentials if credentials is not None else ""
    if not hmac.compare_digest(given.encode(), token.encode()):
        what = "the token is wrong" if given else "this server asks for a token"
        raise ProblemError(
            401,
            "token",
            f"{what}; send it as Authorization: Bearer TOKEN",
            headers={"WWW-Authenticate": "Bearer"},
        )


api = APIRouter()
public = APIRouter()


@api.post(
    "/v1/synth",
    summary="Make sounds",
    response_class=Response,
    responses=openapi.SYNTH_RESPONSES,
    openapi_extra={"requestBody": openapi.SYNTH_BODY},
)
async def synth(request: Request) -> Response:
    """Make one sound or several, from text as JSON or from pictures or a sound as a form.

    The same request gives the same sounds, whatever else is asked for at the same time.
    """
    service: Service = request.app.state.service
    began = time.perf_counter()
    parsed = await service.reader.read(request)
    fields, noted = parsed.request, state_of(request)["log"]
    noted |= {"clips": parsed.count, "format": fields.format, "pictures": len(parsed.images)}
    if service.settings.log_queries:
        noted["queries"] = fields.texts
    jobs = service.jobs(parsed)
    longest = service.settings.limits.deadline_s
    deadline_s = min(longest, fields.deadline_s or longest)
    spent_s = time.perf_counter() - began
    if fields.response_format == "ndjson":
        service.submit(jobs)
        clips = service.stream(jobs, fields.format, deadline_s, spent_s)
        return StreamingResponse(_lines(clips, request), media_type="application/x-ndjson")
    made = await service.make(jobs, request, deadline_s, spent_s)
    encoded = await service.encode(made, jobs, fields.format)
    noted |= {
        "rtf": round(max(clip.rtf for clip in made), 6),
        "queue_s": round(max(job.waited_s for job in jobs), 6),
        "batch": max(job.batch for job in jobs),
    }
    response_format = fields.response_format or ("file" if len(encoded) == 1 else "zip")
    if response_format == "file":
        return file_response(encoded[0])
    return json_response(encoded) if response_format == "json" else zip_response(encoded)


async def _lines(clips: AsyncIterator[EncodedClip], request: Request) -> AsyncIterator[str]:
    """Yield a line of JSON for each clip, and one for the problem that ends them early."""
    try:
        async for encoded in clips:
            yield f"{json.dumps(clip_data(encoded))}\n"
    except ProblemError as error:
        yield f"{bytes(problem_response(request, error).body).decode()}\n"


@api.get("/v1/bundle", summary="The voice")
async def bundle(request: Request) -> dict[str, Any]:
    """Say what the voice is and how good it is, and what this server allows."""
    facts: dict[str, Any] = request.app.state.service.facts
    return facts


@api.get("/metrics", summary="For Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """Requests, stage times, real-time factors and the queue, in Prometheus' text format."""
    registry = request.app.state.service.metrics.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


@public.get("/healthz", summary="Whether the server runs", responses=openapi.HEALTH_RESPONSES)
async def healthz(request: Request) -> JSONResponse:
    """Say whether the process works: 503 once the thread that makes sounds has died."""
    failed = request.app.state.service.batcher.failure is not None
    return JSONResponse({"status": "failed" if failed else "ok"}, 503 if failed else 200)


@public.get("/readyz", summary="Whether the voice is ready", responses=openapi.READY_RESPONSES)
async def readyz(request: Request) -> JSONResponse:
    """Say whether sounds are made: 503 while the server stops, or after it failed."""
    batcher = request.app.state.service.batcher
    if batcher.ready:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "failed" if batcher.failure else "stopping"}, 503)


@public.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Return the page."""
    return FileResponse(STATIC / "index.html", media_type="text/html")
