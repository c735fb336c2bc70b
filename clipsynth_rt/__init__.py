"""clipsynth-rt: text-to-sound on the edge (CLIPSynth, Dong et al. 2023, as a runtime).

Public names load on first use: ``import clipsynth_rt`` itself costs milliseconds, and code that
only reads specs or errors never pays for what it does not touch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from clipsynth_rt import errors as errors
from clipsynth_rt.errors import ClipSynthError as ClipSynthError

if TYPE_CHECKING:
    from clipsynth_rt.audio.clip import AudioClip as AudioClip
    from clipsynth_rt.audio.provenance import read_tag as read_tag
    from clipsynth_rt.bundles.bundle import Bundle as Bundle
    from clipsynth_rt.bundles.manifest import Manifest as Manifest
    from clipsynth_rt.synthesis.options import SynthOptions as SynthOptions
    from clipsynth_rt.synthesis.synthesizer import Synthesizer as Synthesizer

__version__ = "0.2.0"

_LAZY = {
    "AudioClip": "clipsynth_rt.audio.clip",
    "Bundle": "clipsynth_rt.bundles.bundle",
    "Manifest": "clipsynth_rt.bundles.manifest",
    "SynthOptions": "clipsynth_rt.synthesis.options",
    "Synthesizer": "clipsynth_rt.synthesis.synthesizer",
    "read_tag": "clipsynth_rt.audio.provenance",
}

__all__ = [  # noqa: RUF022  (what one reaches for first comes first)
    "Synthesizer",
    "AudioClip",
    "Bundle",
    "Manifest",
    "SynthOptions",
    "read_tag",
    "ClipSynthError",
    "errors",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
