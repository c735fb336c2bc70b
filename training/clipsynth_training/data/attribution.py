"""ATTRIBUTION.md of a corpus: who made the sounds and pictures in it, and under which licence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from clipsynth_training.data.pictures.catalogue import Picture
from clipsynth_training.data.sounds import SOURCES

HEAD = """# Attribution

The sounds and pictures of this corpus were made from the works below. They were changed: sounds
were rendered, mixed to mono, resampled and cut; pictures were drawn as pixels, recoloured,
mirrored and cropped.
"""
URLS = {
    "MIT": "https://opensource.org/license/mit",
    "ISC": "https://opensource.org/license/isc-license-txt",
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY-3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
}


def attribution(sources: Iterable[str], pictures: Iterable[Picture]) -> str:
    """Return Markdown that names every sound source and every picture used.

    Args:
        sources: Keys of ``sounds.SOURCES``.
        pictures: Each once.
    """
    lines = [HEAD, "## Sound\n", "| source | Debian package | licence |", "| --- | --- | --- |"]
    for key in sorted(sources):
        source = SOURCES[key]
        lines.append(f"| {source.name} | {source.package} | {_license(source.license)} |")
    used = sorted(pictures, key=lambda picture: (picture.source, picture.id))
    packages = Counter((picture.source, picture.license) for picture in used)
    lines += ["", "## Pictures\n"]
    for (package, license_id), count in packages.items():
        lines += [f"### {package}: {count} under {_license(license_id)}\n"]
        authors: dict[str, list[str]] = {}
        for picture in used:
            if (picture.source, picture.license) == (package, license_id):
                name = picture.id.removeprefix(f"{package}:")
                authors.setdefault(picture.author, []).append(name)
        for author in sorted(authors):
            lines.append(f"- {author}: {', '.join(authors[author])}")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _license(identifier: str) -> str:
    if identifier in URLS:
        return f"[{identifier}]({URLS[identifier]})"
    return identifier.removeprefix("LicenseRef-").replace("-", " ").lower()
