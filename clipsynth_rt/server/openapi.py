"""What OpenAPI says beyond the types of the routes."""

from __future__ import annotations

from typing import Any

from clipsynth_rt.server.problems import MEDIA_TYPE, ProblemBody
from clipsynth_rt.server.responses import MEDIA_TYPES
from clipsynth_rt.server.schema import EXAMPLES, SynthRequest

DESCRIPTION = """Say "drum", hear a drum.

    curl http://127.0.0.1:8000/v1/synth --json '{"query": "drum"}' -o drum.wav
    curl http://127.0.0.1:8000/v1/synth -F image=@photo.jpg -F num_steps=16 -o photo.wav
    curl http://127.0.0.1:8000/v1/synth -F query=drum -F init=@knock.wav -F strength=0.5 -o drum.wav

Errors are JSON as of RFC 9457: `code` is for programs, `detail` for people. 429 and 503 say in
`Retry-After` when to come back."""

_JSON = SynthRequest.model_json_schema()
_FILES: dict[str, Any] = {
    "image": {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "description": "Pictures in place of queries.",
    },
    "init": {
        "type": "string",
        "format": "binary",
        "description": "A sound to make variations of, by `strength`.",
    },
}
_ONE_OF = [*_JSON["oneOf"], {"required": ["image"]}]
SCHEMAS: dict[str, Any] = {
    "SynthRequest": _JSON,
    "SynthForm": {
        **_JSON,
        "title": "SynthForm",
        "oneOf": _ONE_OF,
        "properties": {**_FILES, **_JSON["properties"]},
    },
    "Problem": {**ProblemBody.model_json_schema(), "title": "Problem"},
    "Clip": {
        "title": "Clip",
        "type": "object",
        "required": ["query", "seed", "audio_s", "media_type", "sound"],
        "properties": {
            "query": {"type": "string"},
            "seed": {"type": "integer"},
            "num_steps": {"type": "integer"},
            "guidance_scale": {"type": "number"},
            "audio_s": {"type": "number", "description": "Length in seconds."},
            "sample_rate": {"type": "integer"},
            "rtf": {"type": "number", "description": "Seconds spent for each second of sound."},
            "stages_s": {"type": "object", "additionalProperties": {"type": "number"}},
            "queue_s": {"type": "number"},
            "batch": {"type": "integer"},
            "network_calls": {"type": "integer"},
            "distilled": {"type": "boolean"},
            "provider": {"type": "string"},
            "media_type": {"type": "string"},
            "sound": {"type": "string", "format": "byte", "description": "The file, in base64."},
        },
    },
    "Clips": {
        "title": "Clips",
        "type": "object",
        "required": ["clips"],
        "properties": {"clips": {"type": "array", "items": {"$ref": "#/components/schemas/Clip"}}},
    },
}
"""Schemas by name, as clients' generators name their types."""


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


SYNTH_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": _ref("SynthRequest"), "examples": EXAMPLES},
        "multipart/form-data": {"schema": _ref("SynthForm")},
    },
}

HEADERS = {
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
    return {"description": description, "content": {MEDIA_TYPE: {"schema": _ref("Problem")}}}


_BINARY = {"schema": {"type": "string", "format": "binary"}}
SYNTH_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A sound file, or an archive of them, or JSON: see `response_format`.",
        "headers": {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in HEADERS.items()
        },
        "content": {
            **dict.fromkeys((*MEDIA_TYPES.values(), "application/zip"), _BINARY),
            "application/json": {
                "schema": _ref("Clips"),
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
            "application/x-ndjson": {"schema": _ref("Clip")},
        },
    },
    400: _problem("Not JSON, or not a form."),
    403: _problem("Sent by another site's page."),
    408: _problem("The body did not arrive in time."),
    413: _problem("Too large."),
    415: _problem("Another content type than JSON or a form."),
    421: _problem("Addressed by a name that is not this server's."),
    422: _problem("A field is unknown, of the wrong type or out of range, or a file is bad."),
    429: _problem("The queue is full: come back after Retry-After seconds."),
    500: _problem("The voice failed; the log says why."),
    501: _problem("An option needs a library that the server does not have."),
    503: _problem(
        "Not begun within the deadline, no room for another upload, or stopping: come back later."
    ),
    504: _problem("Begun, and not done within the deadline: ask for less."),
}
HEALTH_RESPONSES: dict[int | str, dict[str, Any]] = {
    503: {"description": "The thread that makes sounds died; the process ends."}
}
READY_RESPONSES: dict[int | str, dict[str, Any]] = {503: {"description": "It stops, or failed."}}
TOKEN_RESPONSES: dict[int | str, dict[str, Any]] = {401: _problem("No token, or a wrong one.")}
