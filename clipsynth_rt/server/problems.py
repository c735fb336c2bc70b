"""Errors as responses: one JSON shape for all of them (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from clipsynth_rt.errors import ClipSynthError, InputError

MEDIA_TYPE = "application/problem+json"


class ProblemBody(BaseModel):
    """What an error's body holds (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "title": "Unprocessable Entity",
                "status": 422,
                "code": "invalid",
                "detail": "num_steps: at most 50, got 1000",
                "field": "num_steps",
                "request_id": "0f8fad5bd9cb469fa16570867728950e",
            }
        }
    )

    title: str
    status: int
    code: str
    detail: str
    field: str | None = None
    request_id: str


class ProblemError(Exception):
    """A response that is an error.

    Args:
        status: HTTP status.
        code: For programs: a word that stays the same when the text does not.
        detail: For people: what is wrong and what to do, in one line.
        field: The request's field that is wrong.
        headers: To send along.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.field = status, code, field
        self.detail = " ".join(detail.split())
        self.headers = dict(headers or {})

    def response(self, request_id: str) -> JSONResponse:
        """Return the response."""
        body: dict[str, Any] = {
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "request_id": request_id,
        }
        if self.field is not None:
            body["field"] = self.field
        return JSONResponse(body, self.status, self.headers, MEDIA_TYPE)


def invalid(detail: str, field: str | None = None) -> ProblemError:
    """Return the problem of a value that cannot be."""
    return ProblemError(422, "invalid", detail if field is None else f"{field}: {detail}", field)


def busy(detail: str, code: str, retry_s: int, status: int = 429) -> ProblemError:
    """Return the problem of a server that has too much to do."""
    headers = {"Retry-After": str(retry_s)}
    return ProblemError(status, code, f"{detail}; try again in {retry_s} s", headers=headers)


def from_error(error: ClipSynthError) -> ProblemError:
    """Return the problem for an error of the synthesis."""
    if isinstance(error, InputError):
        return invalid(str(error))
    # messages name paths of this machine: they are for the log
    return ProblemError(500, "failed", "the sound could not be made; the server's log says why")


def from_validation(error: ValidationError) -> ProblemError:
    """Return the problem for the first thing that is wrong with a request."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return ProblemError(400, "malformed", first["msg"])
    # a union's branches are named in the path; the field is what stands first
    field = str(first["loc"][0]) if first["loc"] else None
    if first["type"] == "extra_forbidden":
        return invalid("there is no such field; see /openapi.json", field)
    message = first["msg"][:1].lower() + first["msg"][1:]
    return invalid(message.replace("input should", "should"), field)


def state_of(request: Request) -> dict[str, Any]:
    """Return what is noted about a request: ``request_id``, and ``log`` for its line."""
    noted: dict[str, Any] = request.scope["clipsynth"]
    return noted


def problem_response(request: Request, error: Exception) -> JSONResponse:
    """Respond with a problem, and note its code for the log and the metrics."""
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        if headers.get("Allow") == "GET":
            headers["Allow"] = "GET, HEAD"  # see RequestMiddleware
        details = {
            404: f"there is no {request.url.path:.100}; see /openapi.json",
            405: f"{request.method:.20} is not allowed here; use {headers.get('Allow', '')}",
        }
        detail = details.get(error.status_code, str(error.detail))
        code = {404: "not_found", 405: "method"}.get(error.status_code, "invalid")
        problem = ProblemError(error.status_code, code, detail, headers=headers)
    else:
        assert isinstance(error, ProblemError)
        problem = error
    noted = state_of(request)
    noted["problem"] = problem.code
    return problem.response(noted["request_id"])
