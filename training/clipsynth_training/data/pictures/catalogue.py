"""Pictures of the open corpus: public-domain clip art, emoji and icons, with names and licences.

Every picture comes from a Debian or npm package that anyone can fetch (``fetch_sources.sh``).
Each npm package states its licence; one that is not in ``PERMISSIVE`` is refused.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from clipsynth_rt.errors import DataError
from clipsynth_training.data.pictures.sets import (
    OPENCLIPART,
    PERMISSIVE,
    PICTURE_SETS,
    PictureSet,
    base_name,
    wanted,
)

logger = logging.getLogger(__name__)
_SKIPPED_FOLDERS = ("special/", "shapes/", "signs_and_symbols/flags/", "unsorted/duplicates/")


class HasPictureTerms(Protocol):
    """A concept as far as pictures go (``sounds.Concept``)."""

    @property
    def picture(self) -> Sequence[str]:
        """Search terms, read by ``pictures_for``."""


@dataclass(frozen=True)
class Picture:
    """One picture and where it came from.

    Attributes:
        id: ``<package>:<name>``, unique.
        source: Debian or npm package.
        license: SPDX identifier.
        author: Who drew it.
        names: What it shows, best name first: lower-case words.
        keywords: Weaker words: emoji keywords, categories, folders.
        group: Variants of one drawing share it; a group is never split.
        path: A PNG or WebP file, or None.
        svg: An SVG document, or "".
        tint: Whether it is drawn in one colour that the page decides.
    """

    id: str
    source: str
    license: str
    author: str
    names: tuple[str, ...]
    keywords: tuple[str, ...]
    group: str
    path: Path | None = None
    svg: str = ""
    tint: bool = False


def find_pictures(source_dir: str | Path = "/") -> list[Picture]:
    """Return every usable picture below ``source_dir``, in a fixed order.

    Args:
        source_dir: Holds ``usr/share/openclipart`` and ``npm/<package>/package``; the file
            system's root where the packages are installed.

    Raises:
        DataError: If a package is missing (the message says which to install) or its licence
            is not permissive.
    """
    root = Path(source_dir)
    emoji = EmojiNames(root)
    pictures = list(_openclipart(root))
    for entry in PICTURE_SETS:
        folder = npm_folder(root, entry.package)
        reader = _iconify if (folder / "icons.json").is_file() else _emoji_files
        pictures += reader(folder, entry, emoji)
    return pictures


def pictures_for(concept: HasPictureTerms, pictures: Iterable[Picture]) -> list[Picture]:
    """Return the pictures that show ``concept``, by its search terms.

    A term is words that must all occur in one of the picture's names; ``-word`` must not occur
    in that name, and a term that begins with ``=`` must be the whole name. Plurals and running
    numbers do not count: ``=car`` finds "cars 2" and not "car wash"; ``drum -oil`` finds "war
    drum" and not "oil drum".
    """
    terms = [_Term(term) for term in concept.picture]
    return [p for p in pictures if any(t.finds(n) for n in p.names for t in terms)]


class _Term:
    def __init__(self, text: str) -> None:
        parts = text.removeprefix("=").split()
        self.whole = text.startswith("=")
        self.exact = _letters(text)
        self.forbidden = {w for p in parts if p.startswith("-") for w in words(p)}
        self.needed = {w for p in parts if not p.startswith("-") for w in words(p)}

    def finds(self, name: str) -> bool:
        if self.whole:
            return _letters(name) == self.exact
        have = words(name)
        return self.needed <= have and not self.forbidden & have


def assign_splits(
    pictures: Sequence[Picture], concepts: Iterable[HasPictureTerms] = ()
) -> dict[str, str]:
    """Assign every picture to training, validation or test, variants of one drawing together.

    About 78 %, 7 % and 15 % by hash of the group. A concept with two drawings or more then gets
    at least one for training and one for test, so that its test clips show what training never
    saw.

    Returns:
        Picture id -> ``"train"``, ``"validation"`` or ``"test"``.
    """
    rank = {picture.group: _rank(picture.group) for picture in pictures}
    split = {
        group: "test" if value < 0.15 else "validation" if value < 0.22 else "train"
        for group, value in rank.items()
    }
    fixed: set[str] = set()
    matched = [sorted({p.group for p in pictures_for(c, pictures)}) for c in concepts]
    # The concepts with the fewest drawings choose first; what they chose is not taken back.
    for groups in sorted((g for g in matched if len(g) > 1), key=len):
        for need in ("train", "test"):
            if not any(split[group] == need for group in groups):
                movable = [g for g in groups if g not in fixed and split[g] != need]
                if movable:
                    split[min(movable, key=rank.__getitem__)] = need
            fixed.update([g for g in groups if split[g] == need][:1])
    return {picture.id: split[picture.group] for picture in pictures}


@functools.cache  # every concept asks for the words of every name
def words(text: str) -> frozenset[str]:
    """Return the lower-case words of ``text`` without numbers, plurals cut to their singular."""
    return frozenset(_singular(word) for word in _letters(text))


def npm_folder(source_dir: Path, package: str) -> Path:
    """Return the unpacked folder of an npm package.

    Raises:
        DataError: If it is neither unpacked in ``npm/`` nor installed in ``node_modules/``.
    """
    for folder in (
        source_dir / "npm" / package / "package",
        source_dir / "node_modules" / package,
    ):
        if (folder / "package.json").is_file():
            return folder
    raise DataError(
        f"{source_dir / 'npm' / package}: not found; fetch the npm package {package} "
        "(bash training/clipsynth_training/data/fetch_sources.sh DIR) and give --source-dir DIR"
    )


class EmojiNames:
    """Names and keywords of emoji, by slug and by code points (unicode-emoji-json, emojilib)."""

    def __init__(self, source_dir: Path) -> None:
        data = npm_folder(source_dir, "unicode-emoji-json") / "data-by-emoji.json"
        more = npm_folder(source_dir, "emojilib") / "dist" / "emoji-en-US.json"
        keywords = _read_json(more)
        self.by_slug: dict[str, tuple[str, ...]] = {}
        self.by_squashed: dict[str, str] = {}
        self.by_code: dict[str, str] = {}
        for emoji, facts in _read_json(data).items():
            slug = facts["slug"].replace("_", "-")
            self.by_slug[slug] = tuple(_humanise(k) for k in keywords.get(emoji, ()))
            self.by_squashed[slug.replace("-", "")] = slug
            self.by_code[_codes(f"{ord(c):x}" for c in emoji)] = slug


def _iconify(folder: Path, entry: PictureSet, emoji: EmojiNames) -> Iterator[Picture]:
    data, info = _read_json(folder / "icons.json"), _read_json(folder / "info.json")
    license_id = _permissive(entry.package, info["license"]["spdx"])
    categories: dict[str, list[str]] = {}
    for category, members in _read_json(folder / "metadata.json").get("categories", {}).items():
        for member in members:
            categories.setdefault(member, []).append(category.lower())
    aliases: dict[str, list[str]] = {}
    for alias, facts in data.get("aliases", {}).items():
        if not facts.keys() - {"parent"}:  # a turned or mirrored alias is another picture
            aliases.setdefault(facts["parent"], []).append(alias)
    for slug, icon in data["icons"].items():
        if icon.get("hidden") or not wanted(slug, entry):
            continue
        base = base_name(slug)
        base = emoji.by_squashed.get(base, base)  # fxemoji writes names without hyphens
        names = _unique(_humanise(name) for name in (base, *map(base_name, aliases.get(slug, ()))))
        keywords = _unique((*emoji.by_slug.get(base, ()), *categories.get(slug, ())))
        yield Picture(
            id=f"{entry.package}:{slug}",
            source=entry.package,
            license=license_id,
            author=info.get("author", {}).get("name", entry.package),
            names=names,
            keywords=keywords,
            group=f"{entry.family}:{re.sub(r'(-[0-9]+)+$', '', base)}",
            svg=_svg(data, icon),
            tint="currentColor" in icon["body"],
        )


def _emoji_files(folder: Path, entry: PictureSet, emoji: EmojiNames) -> Iterator[Picture]:
    info = _read_json(folder / "package.json")
    license_id = _permissive(entry.package, info["license"])
    for path in sorted((folder / "assets").glob("*.webp")):
        slug = emoji.by_code.get(_codes(path.stem.split("-")))
        if slug is None or not wanted(slug, entry):
            continue
        yield Picture(
            id=f"{entry.package}:{slug}",
            source=entry.package,
            license=license_id,
            author="Microsoft Corporation" if entry.family == "fluent" else str(info["author"]),
            names=(_humanise(slug),),
            keywords=_unique(emoji.by_slug[slug]),
            group=f"{entry.family}:{slug}",
            path=path,
        )


def _openclipart(root: Path) -> Iterator[Picture]:
    from PIL import Image

    folder = root / "usr" / "share" / "openclipart" / "png"
    if not folder.is_dir():
        raise DataError(
            f"{folder}: not found; install the Debian package {OPENCLIPART}, or fetch it "
            "(bash training/clipsynth_training/data/fetch_sources.sh DIR) and give --source-dir DIR"
        )
    seen: set[bytes] = set()
    for path in sorted(folder.rglob("*.png")):
        relative = path.relative_to(folder).as_posix()
        digest = hashlib.sha256(path.read_bytes()).digest()
        if relative.startswith(_SKIPPED_FOLDERS) or digest in seen:
            continue
        seen.add(digest)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(path) as image:
                    facts = {key: str(image.info.get(key, "")) for key in ("Title", "Author")}
        except (OSError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            logger.info("left out: %s: %s", path, error)
            continue
        file_name = _clip_art_name(path.stem, facts["Author"])
        title = _humanise(facts["Title"])
        names = _unique(name for name in (title, file_name) if len(name) > 2)
        if names:
            yield Picture(
                id=f"{OPENCLIPART}:{relative[:-4]}",
                source=OPENCLIPART,
                license="LicenseRef-Public-Domain",
                author=facts["Author"] or "openclipart.org",
                names=names,
                keywords=_unique(_humanise(part) for part in Path(relative).parent.parts),
                group=f"openclipart:{file_name or title}",
                path=path,
            )


def _clip_art_name(stem: str, author: str) -> str:
    """Cut the author, whole or clipped, and the running number from a clip-art file name."""
    parts = re.findall(r"[a-z]+", stem.lower())
    surnames = re.findall(r"[a-z]+", author.lower())
    while parts and len(parts) > 1 and any(name.startswith(parts[-1]) for name in surnames):
        parts.pop()
    return " ".join(parts)


def _svg(data: dict[str, Any], icon: dict[str, Any]) -> str:
    def size(key: str, default: int) -> float:
        return float(icon.get(key, data.get(key, default)))

    box = (size("left", 0), size("top", 0), size("width", 16), size("height", 16))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{" ".join(f"{v:g}" for v in box)}" width="{box[2]:g}" height="{box[3]:g}">'
        f"{icon['body']}</svg>"
    )


def _permissive(package: str, license_id: str) -> str:
    if license_id not in PERMISSIVE:
        raise DataError(
            f"{package}: licence {license_id} does not allow shipped weights; take it out of "
            f"PICTURE_SETS (allowed: {', '.join(sorted(PERMISSIVE))})"
        )
    return license_id


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch its package again") from error


@functools.cache
def _letters(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z]+", text.lower()))


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _humanise(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+(?:['’][a-z]+)?", text.lower()))


def _unique(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item for item in items if item))


def _codes(points: Iterable[str]) -> str:
    return "-".join(p.lower().lstrip("0") for p in points if p.lower() != "fe0f")


def _rank(group: str) -> float:
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8]) / 2**64
