"""Every file below a folder, through links too."""

from __future__ import annotations

import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)


def files_below(folder: Path) -> list[Path]:
    """Return the files below ``folder`` and its subfolders, sorted.

    Links to folders are followed, each folder once: one that is read already, or that holds the
    link itself, is named in a warning and not read again. So are links to nothing.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    # folders before links to them: a file keeps the name of where it really lies
    waiting: list[Path] = [folder]
    links: list[Path] = []
    while waiting or links:
        place = waiting.pop() if waiting else links.pop(0)
        facts = place.stat()
        if (facts.st_dev, facts.st_ino) in seen:
            logger.warning("%s: a link to a folder that is read already; passed over", place)
            continue
        seen.add((facts.st_dev, facts.st_ino))
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            logger.warning("%s: passed over: %s", place, error.strerror)
            continue
        for entry in entries:
            path = place / entry.name
            if path.is_dir():
                (links if path.is_symlink() else waiting).append(path)
            elif path.is_file():
                found.append(path)
            elif path.is_symlink():
                logger.warning("%s: a link to nothing; passed over", path)
    return sorted(found)
