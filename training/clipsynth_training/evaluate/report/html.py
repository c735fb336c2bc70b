"""Pages from the templates beside this module."""

from __future__ import annotations

import re
from typing import Any

from clipsynth_rt.errors import MissingExtraError


def file_name(text: str) -> str:
    """Return ``text`` as part of a file name or link."""
    return re.sub(r"[^\w-]+", "_", text).strip("_") or "_"


def render(template: str, **values: Any) -> str:
    """Return a page; values are escaped.

    Raises:
        MissingExtraError: If Jinja is not installed.
    """
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise MissingExtraError("jinja2", "evaluate") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clipsynth_training.evaluate.report", "pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template(template).render(**values)
    return page
