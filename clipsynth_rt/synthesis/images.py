"""Pictures to what the image encoder reads."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

_MAX_BYTES = 256_000_000
"""Most that is read from a pipe."""
_ORIENTATION = 0x0112
"""EXIF's tag for how a picture is turned."""
_TRANSPARENT_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
MAX_PIXELS = 64_000_000
"""Largest picture that is decoded: a small file can unpack to gigabytes."""


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
    import PIL.Image
    import PIL.ImageOps

    width, height = image.size
    if width * height > max_pixels:
        raise InputError(
            f"image of {width} x {height} pixels; at most {max_pixels:,}, make it smaller"
        )
    # JPEG decodes to a fraction of its size for nothing; twice the result's is sharp enough
    image.draft("RGB", (2 * size, 2 * size))
    if image.getexif().get(_ORIENTATION, 1) != 1:  # it copies what is upright, too
        image = PIL.ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # convert() would clip 16-bit grey to white instead of scaling it
        grey = np.asarray(image)
        # mode I has room for more than 16 bits, and may hold 8
        if image.mode != "I" or grey.max() > 255:
            grey = grey >> 8
        image = PIL.Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
    square, bicubic = (size, size), PIL.Image.Resampling.BICUBIC
    # to the result's size before anything is copied: a copy of a large picture is 4 bytes a pixel
    if image.mode not in _TRANSPARENT_MODES and "transparency" not in image.info:
        if image.mode not in ("RGB", "L"):
            image = image.convert("RGB")
        return PIL.ImageOps.fit(image, square, bicubic).convert("RGB")
    # weighted by its opacity, so that laying it on white afterwards gives the same
    small = PIL.ImageOps.fit(image.convert("RGBA"), square, bicubic)
    paper = PIL.Image.new("RGBA", square, "white")
    return PIL.Image.alpha_composite(paper, small).convert("RGB")
