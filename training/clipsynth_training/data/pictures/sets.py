"""Which picture packages the corpus uses, in which styles, and under which licences."""

from __future__ import annotations

import re
from dataclasses import dataclass

PERMISSIVE = frozenset(
    {"MIT", "ISC", "Apache-2.0", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "LicenseRef-Public-Domain"}
)
KEYWORD_PACKAGES = ("unicode-emoji-json", "emojilib")
OPENCLIPART = "openclipart-png"


@dataclass(frozen=True)
class PictureSet:
    """One npm package of pictures.

    Attributes:
        package: npm name.
        family: Sets of one artist share drawings in several styles; the split into training and
            test keeps a drawing of one family on one side.
        keep: Styles (name suffixes) to take; "" is the unadorned name. None takes every name.
        interface: Whether the set is made for user interfaces, where a name such as
            ``bell-off`` draws a sign over the thing; such names are left out.
    """

    package: str
    family: str
    keep: tuple[str, ...] | None = None
    interface: bool = False


PICTURE_SETS = (
    PictureSet("@iconify-json/noto", "noto"),
    PictureSet("@iconify-json/noto-v1", "noto-v1"),
    PictureSet("@iconify-json/twemoji", "twemoji"),
    PictureSet("@iconify-json/emojione", "emojione"),
    PictureSet("@iconify-json/fxemoji", "fxemoji"),
    PictureSet("@iconify-json/fluent-emoji-flat", "fluent"),
    PictureSet("@iconify-json/fluent-emoji-high-contrast", "fluent"),
    PictureSet("@lobehub/fluent-emoji-3d", "fluent"),
    PictureSet("@iconify-json/streamline-emojis", "streamline-emojis"),
    PictureSet("@iconify-json/streamline-ultimate-color", "streamline-ultimate"),
    PictureSet("@iconify-json/streamline-freehand-color", "streamline-freehand"),
    PictureSet("@iconify-json/streamline-plump-color", "streamline-plump"),
    PictureSet("@iconify-json/streamline-color", "streamline"),
    PictureSet("@iconify-json/streamline-kameleon-color", "streamline-kameleon"),
    PictureSet("@iconify-json/flat-color-icons", "flat-color", interface=True),
    PictureSet("@iconify-json/icon-park", "icon-park", interface=True),
    PictureSet("@iconify-json/meteocons", "meteocons", keep=("fill",)),
    PictureSet("@iconify-json/game-icons", "game-icons"),
    PictureSet("@iconify-json/mdi", "mdi", keep=("", "variant"), interface=True),
    PictureSet("@iconify-json/ph", "ph", keep=("fill", "duotone"), interface=True),
    PictureSet("@iconify-json/tabler", "tabler", interface=True),
    PictureSet("@iconify-json/lucide", "lucide", interface=True),
    PictureSet("@iconify-json/lucide-lab", "lucide", interface=True),
    PictureSet("@iconify-json/fa6-solid", "fa", interface=True),
    PictureSet("@iconify-json/mingcute", "mingcute", keep=("fill",), interface=True),
    PictureSet("@iconify-json/healthicons", "healthicons", keep=("",), interface=True),
    PictureSet("@iconify-json/maki", "maki", keep=("",)),
    PictureSet("@iconify-json/temaki", "temaki"),
)

# Style suffixes of the icon sets above: none of these words names what the picture shows.
STYLES = (
    "outline-24px", "24px", "outline", "negative", "bold", "light", "thin", "fill", "filled",
    "line", "duotone", "duo", "flat", "variant", "rounded", "sharp", "stroked-11", "stroked-15",
    "11", "15",
)  # fmt: skip
_STYLE = re.compile(rf"-({'|'.join(STYLES)})$")
_SKIN = re.compile(
    r"skin-tone|-(medium-)?(light|dark)(-(medium-)?(light|dark))*$|-medium(-light|-dark)?$"
)
_SIGNS = frozenset(
    "off slash plus minus check checked remove alert cancel x add edit search cog settings sync "
    "lock unlock question exclamation import export share pin up down left right brand letter "
    "alpha numeric number badge dollar euro rupee arrow delete error disabled pause refresh".split()
)


def wanted(slug: str, entry: PictureSet) -> bool:
    """Say whether the picture ``slug`` of a set shows a thing, in a style to keep."""
    if slug.startswith(("flag-", "regional-indicator", "brand-")) or _SKIN.search(slug):
        return False
    style = _STYLE.search(slug)
    if entry.keep is not None and (style.group(1) if style else "") not in entry.keep:
        return False
    return not (entry.interface and _SIGNS & set(base_name(slug).split("-")))


def base_name(slug: str) -> str:
    """Return ``slug`` without its style."""
    cut = _STYLE.sub("", slug)
    return cut or slug
