"""Reading a request's body: its kind, its size, and the pictures in it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

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
T = TypeVar("T")


@dataclass
class ParsedRequest:
    """A request that was read and is within the limits.

    Attributes:
        request: Its fields.
        images: Pictures that ask in place of words, already of the encoder's size.
        count: How many sounds.
    """

    request: schema.SynthRequest
    count: int
    images: list[Image] = field(default_factory=list)


class RequestReader:
    """Reads bodies, large ones a few at a time so that their memory is bounded.

    Args:
        limits: Of sizes and times.
        image_size: Side of the image encoder's square, in pixels.
        executor: Where pictures are decoded.
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
            "for pictures",
        )

    @asynccontextmanager
    async def _room(self) -> AsyncIterator[None]:
        """Hold one of the places for forms, which clients who are slow may all have."""
        # as long as a form may take to arrive: each place has changed hands by then
        most = min(self._limits.read_s, self._limits.deadline_s)
        try:
            async with asyncio.timeout(most):
                await self._uploads.acquire()
        except TimeoutError as error:
            problem = busy("other uploads take all the room", "uploads", math.ceil(most), 503)
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

        wanted = schema.from_json(await self._in_time(join()))
        return ParsedRequest(wanted, schema.check(wanted, 0, self._limits))

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
            texts, files = [], []
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    if name != "image":
                        raise invalid("there is no such file field; use image", name[:60])
                    files.append(value)
                elif name == "image":
                    raise invalid("must be a file, not text", name)
                else:
                    texts.append((name, value))
            wanted = schema.from_form(texts)
            count = schema.check(wanted, len(files), limits)
            return ParsedRequest(wanted, count, [await self._decode(file) for file in files])
        finally:
            await form.close()

    async def _decode(self, file: UploadFile) -> Image:
        loop = asyncio.get_running_loop()

        def decode() -> Image:
            return square_image(
                file.file,
                self._image_size,
                max_pixels=self._limits.image_pixels,
                formats=IMAGE_FORMATS,
            )

        try:
            return await loop.run_in_executor(self._executor, decode)
        except InputError as error:
            raise ProblemError(422, "image", str(error), "image") from error

    async def _in_time(self, reading: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(reading, self._limits.read_s)
        except TimeoutError as error:
            detail = f"the request did not arrive within {self._limits.read_s:g} s"
            raise ProblemError(408, "too_slow", detail, headers={"Connection": "close"}) from error


async def limited(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """Yield a body's parts, of ``most`` bytes together.

    Raises:
        ProblemError: If there are more.
    """
    too_much = ProblemError(413, "too_large", f"the request is over {most:,} bytes; send less")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise too_much
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise too_much
        yield part
