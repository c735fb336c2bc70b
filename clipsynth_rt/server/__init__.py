"""``clipsynth-rt serve``: one voice behind HTTP, and the page that plays it.

``create_app`` gives the application for any ASGI server; ``run`` serves it with uvicorn.
"""

from __future__ import annotations

from clipsynth_rt.server.app import create_app as create_app
from clipsynth_rt.server.settings import Limits as Limits
from clipsynth_rt.server.settings import Settings as Settings

__all__ = ["Limits", "Settings", "create_app"]
