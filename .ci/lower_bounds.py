"""Print the oldest versions that pyproject.toml allows: ``lower_bounds.py EXTRA...``."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def bounds(requirements: list[str]) -> list[str]:
    """Return ``name==version`` for each requirement with a lower bound."""
    found = [re.match(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)", line) for line in requirements]
    return [f"{match[1]}=={match[2]}" for match in found if match]


if __name__ == "__main__":
    wanted = list(PROJECT["dependencies"])
    for extra in sys.argv[1:]:
        wanted += PROJECT["optional-dependencies"][extra]
    sys.stdout.write("\n".join(bounds(wanted)) + "\n")
