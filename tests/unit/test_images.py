"""Pictures, and files that are none."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
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
