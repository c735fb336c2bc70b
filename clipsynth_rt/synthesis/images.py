"""Pictures to what the image encoder reads."""

from __future__ import annotations

import io
import math
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

_MAX_BYTES = 256_000_000
"""Most that is read from a pipe."""
MAX_PIXELS = 64_000_000
"""Largest picture that is decoded: a small file can unpack to gigabytes."""
_SPARE = 3
"""Pixels for each of the result's before the last, bicubic reduction; the steps before it average.

Pillow's documentation of ``resize`` calls a gap of 3 practically indistinguishable from none.
"""
_BAND_PIXELS = 1_000_000
"""Pixels that are converted at a time."""
_ORIENTATION = 0x0112
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""EXIF's orientation -> ``PIL.Image.Transpose``, as ``PIL.ImageOps.exif_transpose`` has it."""
_Box = tuple[float, float, float, float]


def load_image(source: str | Path | Image, size: int) -> NDArray[np.float32]:
    """Return a picture as CLIP sees it, float32 [3, size, size], RGB in [0, 1].

    Args:
        source: A file that Pillow reads, or a Pillow image.
        size: Side of the result in pixels.

    Raises:
        InputError: As ``square_image``.
    """
    pixels = np.asarray(square_image(source, size), np.float32) / np.float32(255.0)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def square_image(
    source: str | Path | BinaryIO | Image,
    size: int,
    *,
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] | None = None,
) -> Image:
    """Return a picture as the image encoder's square, in RGB; that square is its own square.

    Turned upright as its EXIF says, transparency laid on white, cut to the central square, and
    resized (bicubic).

    Args:
        source: A file's path, an open file, or a Pillow image.
        size: Side of the result in pixels.
        max_pixels: Of the picture; checked before anything is decoded.
        formats: Pillow's names of the formats to read, such as ``PNG``; None is all.

    Raises:
        InputError: If the file cannot be read as a picture, or has over ``max_pixels``.

    Source:
        Radford et al. 2021, arXiv:2103.00020 (centre crop and bicubic resize).
    """
    import PIL.Image

    if isinstance(source, PIL.Image.Image):
        return _prepare(source, size, max_pixels)
    where = "image"
    if isinstance(source, (str, Path)):
        where = str(source)
        if not os.path.exists(source) or os.path.isdir(source):
            raise InputError(f"{source}: no such image file")
        if not os.path.isfile(source):
            source = _piped(source)
    try:
        with warnings.catch_warnings():
            # Pillow only warns up to twice its own limit; ours decides
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(source, formats=formats) as image:
                return _prepare(image, size, max_pixels)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except PIL.Image.DecompressionBombError as error:
        raise InputError(
            f"{where}: image of over {max_pixels:,} pixels; make it smaller"
        ) from error
    except PIL.UnidentifiedImageError as error:
        kinds = f"; use {', '.join(formats)}" if formats else ""
        raise InputError(f"{where}: cannot be read as an image{kinds}") from error
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more for bad files
    except Exception as error:
        raise InputError(f"{where}: cannot be read as an image ({error})") from error


def _piped(path: str | Path) -> BinaryIO:
    """Return what a named pipe gives as what Pillow can seek in.

    Raises:
        InputError: If it cannot be read, or gives too much.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read as an image ({error.strerror})") from error
    if len(data) > _MAX_BYTES:
        raise InputError(f"{path}: over {_MAX_BYTES // 1_000_000} MB; make it smaller")
    return io.BytesIO(data)


def _prepare(image: Image, size: int, max_pixels: int) -> Image:
    """Return the square, in little more memory than the decoded picture takes."""
    import PIL.Image

    width, height = image.size
    if width * height > max_pixels:
        raise InputError(
            f"image of {width} x {height} pixels; at most {max_pixels:,}, make it smaller"
        )
    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    # a JPEG is decoded at a half, a quarter or an eighth; any other format whole
    image.draft(None, (_SPARE * size, _SPARE * size))
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    factor = max(1, side // (_SPARE * size))
    small, box = _reduce(image, factor, (left, top, left + side, top + side))
    square = small.resize((size, size), PIL.Image.Resampling.BICUBIC, box)
    return square if turn is None else square.transpose(PIL.Image.Transpose(turn))


def _reduce(image: Image, factor: int, box: _Box) -> tuple[Image, _Box]:
    """Return the part of a picture around ``box`` as RGB on white, and ``box`` in it.

    It is reduced by ``factor``, band after band: a conversion of the whole picture would hold
    copies of it, of four bytes a pixel each.
    """
    import PIL.Image

    highest: Any = image.getextrema()[1] if image.mode == "I" else 0
    deep = highest > 255
    left = int(box[0]) // factor * factor
    right = min(image.width, -(-math.ceil(box[2]) // factor) * factor)
    first = int(box[1]) // factor * factor
    last = min(image.height, -(-math.ceil(box[3]) // factor) * factor)
    small = PIL.Image.new("RGB", (-(-(right - left) // factor), -(-(last - first) // factor)))
    rows = max(1, _BAND_PIXELS // (factor * (right - left))) * factor
    for start in range(first, last, rows):
        band = _on_white(image.crop((left, start, right, min(start + rows, last))), deep=deep)
        small.paste(band.reduce(factor) if factor > 1 else band, (0, (start - first) // factor))
    x, y = left / factor, first / factor
    return small, (
        box[0] / factor - x,
        box[1] / factor - y,
        min(box[2] / factor - x, small.width),
        min(box[3] / factor - y, small.height),
    )


def _on_white(image: Image, *, deep: bool) -> Image:
    """Return a picture as RGB, transparency laid on white.

    Args:
        image: Of any mode.
        deep: Whether mode I holds more than 8 bits.
    """
    import PIL.Image

    if image.mode.startswith("I"):
        # convert() would clip 16-bit grey to white instead of scaling it
        grey = np.asarray(image)
        if image.mode != "I" or deep:
            grey = grey >> 8
        image = PIL.Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    rgba = image.convert("RGBA")
    paper = PIL.Image.new("RGBA", rgba.size, "white")
    return PIL.Image.alpha_composite(paper, rgba).convert("RGB")
