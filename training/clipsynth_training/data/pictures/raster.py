"""Pictures to pixels: SVG through CairoSVG, PNG and WebP through Pillow."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import safe_open

from clipsynth_rt.errors import DataError
from clipsynth_rt.progress import progress
from clipsynth_training.data.pictures.catalogue import Picture

logger = logging.getLogger(__name__)
MARGIN = 0.04
"""Empty share of the square on each side of a picture."""


def rasterise(
    picture: Picture, size: int, background: tuple[int, int, int] = (255, 255, 255)
) -> NDArray[np.uint8]:
    """Draw ``picture`` on a plain background, uint8 [size, size, 3].

    A picture of one undecided colour is drawn in a dark colour that its id picks.

    Raises:
        DataError: If the picture cannot be drawn.
    """
    pixels = rasterise_rgba(picture, size)
    if picture.tint:
        pixels[..., :3] = dark_colour(np.random.default_rng(_seed(picture.id)))
    return composite(pixels, np.asarray(background, np.uint8))


def composite(pixels: NDArray[np.uint8], background: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay RGBA pixels [..., 4] over ``background``, broadcastable to [..., 3]."""
    alpha = pixels[..., 3:].astype(np.float32) / 255.0
    mixed = alpha * pixels[..., :3] + (1.0 - alpha) * background
    return np.rint(mixed).astype(np.uint8)


def dark_colour(random: np.random.Generator) -> NDArray[np.uint8]:
    """Return a random colour, uint8 [3], that stands out on a light background."""
    return random.integers(0, 110, 3).astype(np.uint8)


def rasterise_rgba(picture: Picture, size: int) -> NDArray[np.uint8]:
    """Draw ``picture`` centred, proportions kept, uint8 [size, size, 4] (straight alpha).

    Raises:
        DataError: If the picture cannot be drawn or shows nothing.
    """
    from PIL import Image

    inner = max(1, round(size * (1.0 - 2.0 * MARGIN)))
    try:
        image = _open(picture, inner)
        image = image.crop(image.getchannel("A").getbbox())  # clip art may fill a corner of a page
        scale = inner / max(image.size)
        shape = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        # Pillow resizes RGBa (premultiplied), so that transparent pixels lend no colour.
        drawn = image.convert("RGBa").resize(shape, Image.Resampling.BOX if scale < 0.5 else None)
    except Exception as error:  # the decoders raise a dozen types; each means the same here
        raise DataError(f"{picture.id}: cannot be drawn ({error})") from error
    canvas = Image.new("RGBA", (size, size))
    canvas.paste(drawn.convert("RGBA"), ((size - shape[0]) // 2, (size - shape[1]) // 2))
    pixels = np.array(canvas)
    if pixels[..., 3].max() < 8:
        raise DataError(f"{picture.id}: drawn empty")
    return pixels


def rasterise_all(
    pictures: Sequence[Picture], size: int, cache: Path | None = None
) -> tuple[list[Picture], NDArray[np.uint8]]:
    """Draw many pictures, leaving out those that cannot be drawn.

    Args:
        pictures: What to draw.
        size: Side in pixels.
        cache: A safetensors file that is read where it holds this size and these ids, and
            written otherwise.

    Returns:
        The pictures that were drawn, and uint8 [N, size, size, 4].
    """
    wanted = hashlib.sha256("\n".join(p.id for p in pictures).encode()).hexdigest()
    if cache is not None and cache.is_file():
        with safe_open(cache, "numpy") as stored:
            facts = stored.metadata()
            if facts.get("wanted") == wanted and facts.get("size") == str(size):
                drawn_ids = set(json.loads(facts["ids"]))
                return [p for p in pictures if p.id in drawn_ids], stored.get_tensor("pixels")
    kept: list[Picture] = []
    drawn: list[NDArray[np.uint8]] = []
    with progress("drawing", len(pictures), "picture") as shown:
        for picture in pictures:
            try:
                drawn.append(rasterise_rgba(picture, size))
                kept.append(picture)
            except DataError as error:
                logger.info("left out: %s", error)
            shown.advance()
    if not drawn:
        raise DataError("none of the pictures could be drawn")
    pixels = np.stack(drawn)
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        facts = {"wanted": wanted, "size": str(size), "ids": json.dumps([p.id for p in kept])}
        temporary = cache.with_name(cache.name + ".tmp")
        safetensors.numpy.save_file({"pixels": pixels}, temporary, metadata=facts)
        os.replace(temporary, cache)
    return kept, pixels


def _open(picture: Picture, size: int) -> PIL.Image.Image:
    from PIL import Image

    if picture.path is not None:
        with Image.open(picture.path) as image:
            return image.convert("RGBA")
    import cairosvg

    # Twice the size, then reduced: hairlines of 24-unit icons survive.
    document = picture.svg.replace("currentColor", "#000000").encode()
    png = cairosvg.svg2png(document, output_width=2 * size, output_height=2 * size)
    with Image.open(io.BytesIO(png)) as image:
        return image.convert("RGBA")


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
