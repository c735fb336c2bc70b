"""A picture source of a few kilobytes, in the layout that fetch_sources.sh makes."""

import json
from pathlib import Path

from PIL import Image, PngImagePlugin

from clipsynth_training.data.pictures.sets import PictureSet

EMOJI_SET = PictureSet("@test/emoji", "emoji")
ICON_SET = PictureSet("@test/icons", "icons", keep=("", "duotone"), interface=True)
SQUARE = '<path fill="{}" d="M2 2h12v12H2z"/>'


def make_sources(root: Path) -> Path:
    """Write the sources below ``root`` and return it."""
    _npm(
        root,
        "@test/emoji",
        "Apache-2.0",
        {
            "drum": SQUARE.format("red"),
            "oil-drum": SQUARE.format("blue"),
            "dog-face": SQUARE.format("green"),
            "dog-face-dark-skin-tone": SQUARE.format("brown"),
            "nothing": '<path fill="none" d="M0 0h1v1z"/>',
        },
        aliases={"puppy": {"parent": "dog-face"}, "god": {"parent": "dog-face", "hFlip": True}},
        categories={"Animals": ["dog-face"]},
    )
    _npm(
        root,
        "@test/icons",
        "MIT",
        {
            "drum": SQUARE.format("currentColor"),
            "drum-duotone": SQUARE.format("currentColor"),
            "drum-bold": SQUARE.format("currentColor"),
            "drum-off": SQUARE.format("currentColor"),
            "car-2": SQUARE.format("currentColor"),
        },
    )
    _write(root / "npm/unicode-emoji-json/package/package.json", {"license": "MIT"})
    _write(
        root / "npm/unicode-emoji-json/package/data-by-emoji.json",
        {"🥁": {"slug": "drum"}, "🐶": {"slug": "dog_face"}},
    )
    _write(root / "npm/emojilib/package/package.json", {"license": "MIT"})
    _write(root / "npm/emojilib/package/dist/emoji-en-US.json", {"🐶": ["dog_face", "woof"]})
    clip_art = root / "usr/share/openclipart/png/animals"
    _png(clip_art / "sheep_dog_jane_doe_01.png", "Sheep dog", "Jane Doe", (0, 0, 0))
    _png(clip_art / "sheep_dog_jane_doe_02.png", "Sheep dog", "Jane Doe", (0, 0, 9))
    _png(clip_art / "zz_copy.png", "Copy", "Jane Doe", (0, 0, 0))
    return root


def _npm(root, package, license_id, bodies, aliases=None, categories=None):
    folder = root / "npm" / package / "package"
    _write(folder / "package.json", {"license": license_id})
    info = {"license": {"spdx": license_id}, "author": {"name": "A. Painter"}}
    _write(folder / "info.json", info)
    _write(folder / "metadata.json", {"categories": categories or {}})
    icons = {name: {"body": body} for name, body in bodies.items()}
    data = {"icons": icons, "aliases": aliases or {}, "width": 16, "height": 16}
    _write(folder / "icons.json", data)


def _write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def _png(path, title, author, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGBA", (40, 20), (0, 0, 0, 0))
    image.paste((*colour, 255), (20, 0, 40, 20))  # a square in one half of the page
    facts = PngImagePlugin.PngInfo()
    if path.name.startswith("zz_copy"):  # the same bytes as the first, under another name
        path.write_bytes((path.parent / "sheep_dog_jane_doe_01.png").read_bytes())
        return
    facts.add_text("Title", title)
    facts.add_text("Author", author)
    image.save(path, pnginfo=facts)
