"""Pictures, and files that are none."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from clipsynth_rt.errors import InputError
from clipsynth_rt.synthesis.images import MAX_PIXELS, load_image

RED, GREEN, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def test_shape_and_range(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (40, 30), (255, 128, 0)).save(tmp_path / "a.png")
    pixels = load_image(tmp_path / "a.png", 16)
    assert pixels.shape == (3, 16, 16)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels.mean(axis=(1, 2)), [1.0, 128 / 255, 0.0], atol=1e-6)


def test_centre_crop() -> None:
    # red and blue margins around a green square
    image = PIL.Image.new("RGB", (48, 16), "lime")
    image.paste("red", (0, 0, 15, 16))
    image.paste("blue", (33, 0, 48, 16))
    np.testing.assert_allclose(load_image(image, 16).mean(axis=(1, 2)), GREEN, atol=0.01)


def test_exif_orientation(tmp_path: Path) -> None:
    image = PIL.Image.new("RGB", (16, 16), "red")
    image.paste("blue", (0, 8, 16, 16))
    exif = PIL.Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "a.png", exif=exif)
    pixels = load_image(tmp_path / "a.png", 16)
    np.testing.assert_allclose(pixels[:, :4].mean(axis=(1, 2)), BLUE, atol=0.01)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white(mode: str) -> None:
    image = PIL.Image.new("RGBA", (16, 16), (0, 0, 0, 0)).convert(mode)
    if mode == "P":
        image.info["transparency"] = image.getpixel((0, 0))
    np.testing.assert_allclose(load_image(image, 8), 1.0)


def test_sixteen_bit_grey_is_scaled() -> None:
    image = PIL.Image.fromarray(np.full((16, 16), 32768, np.uint16))
    np.testing.assert_allclose(load_image(image, 8), 128 / 255, atol=1e-6)


def test_sixteen_bit_grey_in_32_bits_is_scaled(tmp_path: Path) -> None:
    # a PGM of 16 bits, which Pillow opens in mode I
    (tmp_path / "a.pgm").write_bytes(b"P5 16 16 65535\n" + b"\x80\x00" * 256)
    np.testing.assert_allclose(load_image(tmp_path / "a.pgm", 8), 128 / 255, atol=1e-6)
    for value, level in ((-5, 0), (32768, 128), (2**31 - 1, 255)):
        PIL.Image.fromarray(np.full((16, 16), value, np.int32)).save(tmp_path / "a.tiff")
        np.testing.assert_allclose(load_image(tmp_path / "a.tiff", 8), level / 255, atol=1e-6)


def test_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such image file"):
        load_image(tmp_path / "absent.png", 16)
    with pytest.raises(InputError, match="no such image file"):
        load_image(tmp_path, 16)


@pytest.mark.parametrize("data", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_not_an_image(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read as an image") as caught:
        load_image(path, 16)
    assert str(path) in str(caught.value)


def test_cut_off_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    noise = np.random.Generator(np.random.Philox(0)).integers(0, 255, (64, 64, 3), np.uint8)
    PIL.Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="cannot be read as an image"):
        load_image(path, 16)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size, in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [int(MAX_PIXELS**0.5) + 1, 10_000, 100_000])
def test_enormous(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))
    with pytest.raises(InputError, match="pixels"):
        load_image(path, 16)


def test_numbers_of_8_bits_in_a_mode_of_32_are_grey_levels() -> None:
    image = PIL.Image.new("L", (16, 16), 200).convert("I")
    np.testing.assert_allclose(load_image(image, 16), 200 / 255, atol=1e-6)


def plainly(image: PIL.Image.Image, size: int) -> np.ndarray:
    """What ``load_image`` means, with every step on the whole picture."""
    rgba = PIL.ImageOps.exif_transpose(image).convert("RGBA")
    paper = PIL.Image.new("RGBA", rgba.size, "white")
    square = PIL.ImageOps.fit(
        PIL.Image.alpha_composite(paper, rgba).convert("RGB"), (size, size),
        PIL.Image.Resampling.BICUBIC,
    )  # fmt: skip
    return np.asarray(square, np.float32).transpose(2, 0, 1) / 255


def landscape(width: int, height: int) -> PIL.Image.Image:
    """Smooth shades and hard edges."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    discs = np.hypot((x * 6) % 1 - 0.5, (y * 6) % 1 - 0.5) < 0.3
    shades = np.stack([x, y, np.where(discs, 0.9, 0.2), np.where(discs, 1.0, y)], -1)
    return PIL.Image.fromarray((255 * np.clip(shades, 0, 1)).astype(np.uint8), "RGBA")


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "LA", "L", "P", "CMYK"])
@pytest.mark.parametrize("shape", [(1501, 1003), (700, 2011), (97, 61), (20, 30)])
def test_a_picture_reduced_in_bands_is_the_picture(mode: str, shape: tuple[int, int]) -> None:
    image = landscape(*shape)
    image = image.convert(mode) if mode != "CMYK" else image.convert("RGB").convert("CMYK")
    difference = np.abs(load_image(image, 64) - plainly(image, 64))
    assert difference.max() < 0.08
    assert difference.mean() < 0.006


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation_of_a_large_jpeg(tmp_path: Path, turn: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = turn
    landscape(1600, 1200).convert("RGB").save(tmp_path / "a.jpg", exif=exif, quality=95)
    with PIL.Image.open(tmp_path / "a.jpg") as image:
        expected = plainly(image, 32)
    difference = np.abs(load_image(tmp_path / "a.jpg", 32) - expected)
    assert difference.mean() < 0.01


MEMORY = """
import resource, sys
import PIL.Image
import PIL.ImageOps
from clipsynth_rt.synthesis.images import load_image
load_image(PIL.Image.new("RGB", (64, 64)), 64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_image(sys.argv[1], 64)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
@pytest.mark.parametrize(
    ("name", "mode", "most"), [("a.png", "RGB", 85), ("a.jpg", "RGB", 20), ("a.png", "RGBA", 85)]
)
def test_a_picture_takes_little_more_memory_than_it_decodes_to(
    tmp_path: Path, name: str, mode: str, most: float
) -> None:
    # 16 million pixels of four bytes are 61 MiB; five copies took 310
    PIL.Image.new(mode, (4000, 4000), (9, 99, 200)).save(tmp_path / name)
    command = [sys.executable, "-c", MEMORY, str(tmp_path / name)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(run.stdout) < most
