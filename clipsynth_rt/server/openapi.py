"""What OpenAPI says beyond what the routes' types do."""

from __future__ import annotations

from typing import Any

from clipsynth_rt.server.problems import MEDIA_TYPE, ProblemBody
from clipsynth_rt.server.responses import MEDIA_TYPES
from clipsynth_rt.server.schema import EXAMPLES, SynthRequest

DESCRIPTION = """Say "drum", hear a drum.

    curl http://127.0.0.1:8000/v1/synth --json '{"query": "drum"}' -o drum.wav
    curl http://127.0.0.1:8000/v1/synth -F image=@photo.jpg -F num_steps=16 -o photo.wav

Errors are JSON as of RFC 9457: `code` is for programs, `detail` for people. 429 and 503 say in
`Retry-After` when to come back."""

_SCHEMA = SynthRequest.model_json_schema()
_FORM: dict[str, Any] = {
    **_SCHEMA,
    "title": "SynthForm",
    "properties": {
        "image": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "description": "Pictures that ask in place of words.",
        },
        **_SCHEMA["properties"],
    },
}
SYNTH_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": _SCHEMA, "examples": EXAMPLES},
        "multipart/form-data": {"schema": _FORM},
    },
}

_HEADERS = {
    "Clipsynth-Seed": "The sound's seed.",
    "Clipsynth-Num-Steps": "Denoising steps.",
    "Clipsynth-Guidance-Scale": "Guidance scale.",
    "Clipsynth-Audio-Seconds": "Its length.",
    "Clipsynth-Rtf": "Real-time factor: seconds spent for each second of sound.",
    "Clipsynth-Provider": "Where the graphs ran.",
    "Clipsynth-Network-Calls": "Evaluations of the denoiser.",
    "Clipsynth-Distilled": "Whether the voice's distilled denoiser made it: true or false.",
    "Clipsynth-Batch": "Sounds made together; times are equal shares.",
    "Server-Timing": "Milliseconds of queue, text, denoise, vocode and write.",
    "X-Request-Id": "As sent, or a new one; it stands in the server's log.",
}


def _problem(description: str) -> dict[str, Any]:
    schema = ProblemBody.model_json_schema()
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}


_BINARY = {"schema": {"type": "string", "format": "binary"}}
SYNTH_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A sound file, or an archive of them, or JSON: see `response_format`.",
        "headers": {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in _HEADERS.items()
        },
        "content": {
            **dict.fromkeys((*MEDIA_TYPES.values(), "application/zip"), _BINARY),
            "application/json": {
                "schema": {"type": "object"},
                "example": {
                    "clips": [
                        {
                            "query": "drum",
                            "seed": 0,
                            "audio_s": 4.09,
                            "rtf": 0.14,
                            "media_type": "audio/wav",
                            "sound": "UklGR...",
                        }
                    ]
                },
            },
        },
    },
    400: _problem("Not JSON, or not a form."),
    401: _problem("No token, or a wrong one."),
    403: _problem("Sent by another site's page."),
    408: _problem("The body did not arrive in time."),
    413: _problem("Too large."),
    415: _problem("Another content type than JSON or a form."),
    421: _problem("Addressed by a name that is not this server's."),
    422: _problem("A field is unknown, of the wrong type or out of range, or a picture is bad."),
    429: _problem("The queue is full: come back after Retry-After seconds."),
    500: _problem("The voice failed; the log says why."),
    501: _problem("A wish needs a library that the server does not have."),
    503: _problem(
        "Not begun within the deadline, no room for another upload, or stopping: come back later."
    ),
    504: _problem("Begun, and not done within the deadline: ask for less."),
}
READY_RESPONSES: dict[int | str, dict[str, Any]] = {503: {"description": "It stops."}}
BUNDLE_RESPONSES: dict[int | str, dict[str, Any]] = {401: _problem("No token, or a wrong one.")}
