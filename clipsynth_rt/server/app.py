"""The application: routes, and how OpenAPI describes them."""

from __future__ import annotations

import asyncio
import hmac
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
from starlette.responses import FileResponse, JSONResponse, Response

from clipsynth_rt import __version__
from clipsynth_rt.server import openapi
from clipsynth_rt.server.middleware import RequestMiddleware
from clipsynth_rt.server.problems import ProblemError, problem_response, state_of
from clipsynth_rt.server.responses import file_response, json_response, zip_response
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
        # in a thread, so that answers for what is still being made go out
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
    app.add_middleware(RequestMiddleware, settings=settings, metrics=service.metrics)
    for kind in (ProblemError, HTTPException):
        app.add_exception_handler(kind, _on_problem)
    app.include_router(api)
    app.include_router(public)
    app.mount("/static", StaticFiles(directory=STATIC))
    return app


async def _on_problem(request: Request, error: Exception) -> Response:
    return problem_response(request, error)


bearer = HTTPBearer(auto_error=False, description="Where the server was started with a token.")


async def _check_token(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
) -> None:
    token = request.app.state.service.settings.token
    if token is None:
        return
    given = credentials.credentials if credentials is not None else ""
    if not hmac.compare_digest(given.encode(), token.encode()):
        what = "the token is wrong" if given else "this server asks for a token"
        raise ProblemError(
            401,
            "token",
            f"{what}; send it as Authorization: Bearer TOKEN",
            headers={"WWW-Authenticate": "Bearer"},
        )


api = APIRouter(dependencies=[Depends(_check_token)])
public = APIRouter()


@api.post(
    "/v1/synth",
    summary="Make sounds",
    response_class=Response,
    responses=openapi.SYNTH_RESPONSES,
    openapi_extra={"requestBody": openapi.SYNTH_BODY},
)
async def synth(request: Request) -> Response:
    """Make one sound or several, from words as JSON or from pictures as a form.

    The same request gives the same sounds, whatever else is asked for at the same time.
    """
    service: Service = request.app.state.service
    began = time.perf_counter()
    wanted = await service.reader.read(request)
    asked, noted = wanted.request, state_of(request)["log"]
    noted |= {"clips": wanted.count, "format": asked.format, "pictures": len(wanted.images)}
    if service.settings.log_queries:
        noted["queries"] = asked.texts
    jobs = service.jobs(wanted)
    most = service.settings.limits.deadline_s
    deadline_s = min(most, asked.deadline_s or most)
    clips = await service.make(jobs, request, deadline_s, time.perf_counter() - began)
    encoded = await service.encode(clips, jobs, asked.format)
    noted |= {
        "rtf": round(max(clip.rtf for clip in clips), 6),
        "queue_s": round(max(job.waited_s for job in jobs), 6),
        "batch": max(job.batch for job in jobs),
    }
    response_format = asked.response_format or ("file" if len(encoded) == 1 else "zip")
    if response_format == "file":
        return file_response(encoded[0])
    return json_response(encoded) if response_format == "json" else zip_response(encoded)


@api.get("/v1/bundle", summary="The voice", responses=openapi.BUNDLE_RESPONSES)
async def bundle(request: Request) -> dict[str, Any]:
    """Say what the voice is and how good it is, and what this server allows."""
    facts: dict[str, Any] = request.app.state.service.facts
    return facts


@api.get("/metrics", summary="For Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """Requests, stage times, real-time factors and the queue, in Prometheus' text format."""
    registry = request.app.state.service.metrics.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


@public.get("/healthz", summary="Whether the server runs")
async def healthz() -> dict[str, str]:
    """Answer, which is all that it says."""
    return {"status": "ok"}


@public.get("/readyz", summary="Whether the voice is ready", responses=openapi.READY_RESPONSES)
async def readyz(request: Request) -> JSONResponse:
    """Say whether sounds are made: 503 while the server stops."""
    ready = request.app.state.service.batcher.ready
    return JSONResponse({"status": "ready" if ready else "stopping"}, 200 if ready else 503)


@public.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Return the page."""
    return FileResponse(STATIC / "index.html", media_type="text/html")
