"""Fields of a request for sounds, read from JSON or from a form."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clipsynth_rt.server.problems import from_validation, invalid
from clipsynth_rt.server.settings import Limits
from clipsynth_rt.synthesis.options import OPTIONS, SynthKwargs

MAX_TEMPLATES = 8
Seed = Annotated[int, Field(ge=0, lt=2**63)]

EXAMPLES: dict[str, dict[str, Any]] = {
    "one sound": {"value": {"query": "drum"}},
    "everything": {
        "value": {
            "query": "dog barking",
            "seed": 3,
            "num_steps": 16,
            "guidance_scale": 3.0,
            "duration": 1.5,
            "negative": "cat",
            "template": "a photo of {query}",
            "sampler": "ddim",
            "format": "flac",
        }
    },
    "several sounds": {
        "value": {
            "queries": ["violin", "flute"],
            "seed": [1, 2],
            "format": "ogg",
            "response_format": "zip",
        }
    },
}


def _field(name: str, **bounds: float) -> Any:
    """Return an option of ``OPTIONS`` as a field: its default, its range and its help.

    Args:
        name: The option's.
        **bounds: Of an option whose range is the bundle's to say.
    """
    option = OPTIONS[name]
    low, high = option.low, option.high
    if low is not None and high is not None:
        bounds |= {"gt" if option.above_low else "ge": low, "le": high}
    return Field(option.default, description=option.help, **bounds)  # type: ignore[call-overload]


class SynthRequest(BaseModel):
    """One sound or several; what is left out is what the voice does best."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        # what the schema says is what the server takes: one of the two, and not {}
        json_schema_extra={
            "oneOf": [
                {
                    "required": ["query"],
                    "properties": {
                        "query": {"type": "string", "pattern": r"\S"},
                        "queries": {"type": "null"},
                    },
                },
                {
                    "required": ["queries"],
                    "properties": {
                        "query": {"type": "null"},
                        "queries": {"type": "array", "minItems": 1},
                    },
                },
            ]
        },
    )

    query: str | None = Field(None, description="What to hear.")
    queries: list[str] | None = Field(None, description="Several, in place of `query`.")
    seed: Seed | list[Seed] = Field(
        0, description="One for each sound; a single number gives the i-th sound seed + i."
    )
    duration: float | None = _field("duration", gt=0)
    num_steps: int | None = _field("num_steps", ge=1)
    guidance_scale: float | None = _field("guidance_scale")
    eta: float = _field("eta")
    negative: str | None = _field("negative")
    template: str | list[str] | None = _field("template")
    sampler: Literal["ddim", "dpmpp_2m"] = _field("sampler")
    strength: float = _field("strength")
    loop: bool = _field("loop")
    lufs: float | None = _field("lufs")
    denoiser: Literal["auto", "full", "distilled"] = _field("denoiser")
    format: Literal["wav", "flac", "ogg", "mp3"] = Field("wav", description="Of the sound files.")
    response_format: Literal["file", "zip", "json", "ndjson"] | None = Field(
        None,
        description="A sound file; an archive with a manifest.json; JSON with base64; or a line of "
        "JSON for each sound, sent as soon as it is made. A file for one sound and an archive for "
        "several if left out.",
    )
    deadline_s: float | None = Field(
        None, gt=0, description="Give up after so many seconds; never more than the server's."
    )

    @property
    def texts(self) -> list[str]:
        """The queries, one or several."""
        return [self.query] if self.query is not None else list(self.queries or [])

    @property
    def options(self) -> SynthKwargs:
        """The options of ``synth_batch``."""
        fields = type(self).model_fields
        given = {name: getattr(self, name) for name in OPTIONS if name in fields}
        return cast(SynthKwargs, given)

    def seeds(self, count: int) -> list[int]:
        """Return the seed of each of ``count`` sounds.

        Raises:
            ProblemError: If there are others than sounds.
        """
        if isinstance(self.seed, int):
            return [self.seed + i for i in range(count)]
        if len(self.seed) != count:
            raise invalid(f"{len(self.seed)} seeds for {count} sounds", "seed")
        return self.seed


def from_json(body: bytes) -> SynthRequest:
    """Read a JSON body.

    Raises:
        ProblemError: If it is not JSON, or a field is unknown or of the wrong type or range.
    """
    try:
        # some editors begin a file with a byte order mark (RFC 8259 lets a reader skip it)
        return SynthRequest.model_validate_json(body.removeprefix(BOM_UTF8), strict=True)
    except ValidationError as error:
        raise from_validation(error) from error


def from_form(fields: Sequence[tuple[str, str]]) -> SynthRequest:
    """Read the text fields of a form; one that is repeated is a list.

    Raises:
        ProblemError: As ``from_json``.
    """
    data: dict[str, Any] = {}
    for name, value in fields:
        if name not in data:
            data[name] = value
        elif isinstance(data[name], list):
            data[name].append(value)
        else:
            data[name] = [data[name], value]
    if isinstance(data.get("queries"), str):
        data["queries"] = [data["queries"]]
    try:
        return SynthRequest.model_validate(data)
    except ValidationError as error:
        raise from_validation(error) from error


def check(request: SynthRequest, num_images: int, limits: Limits, *, init: bool = False) -> int:
    """Check a request against the server's limits, and return how many sounds it asks for.

    What the voice itself allows is checked when the options are resolved.

    Args:
        request: The request.
        num_images: Pictures that came with it.
        limits: The server's.
        init: Whether a sound to start from came with it.

    Raises:
        ProblemError: If it asks for too much, or for nothing.
    """
    given = [request.query is not None, request.queries is not None, num_images > 0]
    if sum(given) != 1:
        raise invalid("give query, queries or images, one of the three", "query")
    count = num_images or len(request.texts)
    if not 1 <= count <= limits.clips:
        raise invalid(f"from 1 to {limits.clips} sounds a request, got {count}", "queries")
    templates = [request.template] if isinstance(request.template, str) else request.template or []
    if len(templates) > MAX_TEMPLATES:
        raise invalid(f"at most {MAX_TEMPLATES}, got {len(templates)}", "template")
    texts = [("query", text) for text in request.texts]
    texts += [("template", text) for text in templates] + [("negative", request.negative or "")]
    for field, text in texts:
        if len(text) > limits.query_chars:
            raise invalid(f"at most {limits.query_chars} characters, got {len(text)}", field)
    if "strength" in request.model_fields_set and not init:
        raise invalid("is for a sound given as init (multipart/form-data)", "strength")
    if request.response_format == "file" and count > 1:
        raise invalid(
            f"one sound file cannot hold {count} sounds; use zip or json", "response_format"
        )
    return count
