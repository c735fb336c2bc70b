"""Reading a request's body: its kind, its size, and the pictures and the sound in it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from clipsynth_rt.audio.clip import AudioClip
from clipsynth_rt.audio.load import read_clip
from clipsynth_rt.errors import InputError
from clipsynth_rt.server import schema
from clipsynth_rt.server.problems import ProblemError, busy, invalid
from clipsynth_rt.server.settings import Limits
from clipsynth_rt.synthesis.images import square_image

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MAX_FIELDS = 64
_UPLOADS = 4
"""Forms that are read at once."""
_TRIM_PIXELS = 4_000_000
"""Decoded pixels from which on memory is given back to the system."""
T = TypeVar("T")
F = TypeVar("F")


@dataclass
class ParsedRequest:
    """A request that was read and is within the limits.

    Attributes:
        request: Its fields.
        count: How many sounds.
        images: Pictures in place of queries, already of the encoder's size.
        init: The sound to make variations of, if any.
    """

    request: schema.SynthRequest
    count: int
    images: list[Image] = field(default_factory=list)
    init: AudioClip | None = None


class RequestReader:
    """Reads bodies, large ones a few at a time so that their memory is bounded.

    Args:
        limits: Of sizes and times.
        image_size: Side of the image encoder's square, in pixels.
        executor: Where pictures and sounds are decoded.
    """

    def __init__(self, limits: Limits, image_size: int, executor: Executor) -> None:
        self._limits, self._image_size, self._executor = limits, image_size, executor
        self._uploads = asyncio.Semaphore(_UPLOADS)

    async def read(self, request: Request) -> ParsedRequest:
        """Read what is asked for.

        Raises:
            ProblemError: If the body is of another kind, too large, too slow, malformed, or asks
                for what is not allowed, or if other uploads leave no room in time.
            ClientDisconnect: If the client left.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            return await self._read_json(request)
        if kind == "multipart/form-data":
            async with self._room():
                return await self._read_form(request)
        raise ProblemError(
            415,
            "content_type",
            f"content type {kind[:60] or 'missing'}; use application/json, or multipart/form-data "
            "for files",
        )

    @asynccontextmanager
    async def _room(self) -> AsyncIterator[None]:
        """Hold one of the places for forms, which clients who are slow may all have."""
        # as long as a form may take to arrive: each place has changed hands by then
        longest = min(self._limits.read_s, self._limits.deadline_s)
        try:
            async with asyncio.timeout(longest):
                await self._uploads.acquire()
        except TimeoutError as error:
            problem = busy("other uploads take all the room", "uploads", math.ceil(longest), 503)
            # what was not read does not come before another request
            problem.headers["Connection"] = "close"
            raise problem from error
        try:
            yield
        finally:
            self._uploads.release()

    async def _read_json(self, request: Request) -> ParsedRequest:
        async def join() -> bytes:
            return b"".join([part async for part in limited(request, self._limits.json_bytes)])

        request_fields = schema.from_json(await self._in_time(join()))
        return ParsedRequest(request_fields, schema.check(request_fields, 0, self._limits))

    async def _read_form(self, request: Request) -> ParsedRequest:
        limits = self._limits
        parser = MultiPartParser(
            request.headers,
            limited(request, limits.upload_bytes),
            max_files=limits.clips,
            max_fields=MAX_FIELDS,
            max_part_size=limits.json_bytes,
        )
        # pictures stay in memory: no temporary folder is needed, and none keeps what was uploaded
        parser.spool_max_size = limits.upload_bytes + 1
        try:
            form = await self._in_time(parser.parse())
        except (MultiPartException, KeyError, UnicodeError) as error:
            reason = getattr(error, "message", None) or "no boundary, or a part that is not text"
            raise ProblemError(400, "malformed", f"not a form: {reason}") from error
        try:
            texts, files = [], {"image": list[UploadFile](), "init": list[UploadFile]()}
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    if name not in files:
                        raise invalid("there is no such file field; use image or init", name[:60])
                    files[name].append(value)
                elif name in files:
                    raise invalid("must be a file, not text", name)
                else:
                    texts.append((name, value))
            images, inits = files["image"], files["init"]
            if len(inits) > 1:
                raise invalid(f"one sound to start from, got {len(inits)}", "init")
            request_fields = schema.from_form(texts)
            count = schema.check(request_fields, len(images), limits, init=bool(inits))
            init = await self._decode(self._read_init, inits[0]) if inits else None
            decoded = await self._decode(self._read_images, images) if images else []
            return ParsedRequest(request_fields, count, decoded, init)
        finally:
            await form.close()

    async def _decode(self, read: Callable[[F], T], files: F) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, read, files)

    def _read_images(self, files: Sequence[UploadFile]) -> list[Image]:
        limits = self._limits
        pixels = sum(map(_count_pixels, files))
        if pixels > limits.form_pixels:
            raise ProblemError(
                422,
                "image",
                f"image: {len(files)} pictures of {pixels:,} pixels together; at most "
                f"{limits.form_pixels:,} a request, make them smaller",
                "image",
            )
        try:
            return [
                square_image(
                    file.file,
                    self._image_size,
                    max_pixels=limits.image_pixels,
                    formats=IMAGE_FORMATS,
                )
                for file in files
            ]
        except InputError as error:
            raise ProblemError(422, "image", str(error), "image") from error
        finally:
            if pixels > _TRIM_PIXELS:
                trim_memory()

    def _read_init(self, file: UploadFile) -> AudioClip:
        try:
            return read_clip(file.file, self._limits.duration)
        except InputError as error:
            # the message's first word is where the sound comes from
            _, _, reason = str(error).partition(": ")
            raise ProblemError(422, "init", f"init: {reason}", "init") from error

    async def _in_time(self, reading: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(reading, self._limits.read_s)
        except TimeoutError as error:
            detail = f"the request did not arrive within {self._limits.read_s:g} s"
            raise ProblemError(408, "too_slow", detail, headers={"Connection": "close"}) from error


async def limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """Yield a body's parts, of ``max_bytes`` together.

    Raises:
        ProblemError: If there are more.
    """
    too_much = ProblemError(413, "too_large", f"the request is over {max_bytes:,} bytes; send less")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise too_much
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise too_much
        yield part


def _count_pixels(file: UploadFile) -> int:
    """Return the pixels of a picture from its header, 0 where it has none that can be read."""
    import PIL.Image

    # what is wrong is said where it is decoded
    with contextlib.suppress(Exception), PIL.Image.open(file.file, formats=IMAGE_FORMATS) as image:
        return int(image.width * image.height)
    return 0


def trim_memory() -> None:
    """Give freed memory back to the system, where the C library can (glibc)."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, TypeError, AttributeError):
        return None
    return trim
