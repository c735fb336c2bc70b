"""Every procedural sound model, by family."""

from __future__ import annotations

from clipsynth_training.data.procedural import (
    alarms,
    blasts,
    impacts,
    interface,
    retro,
    steps,
    weather,
)
from clipsynth_training.data.procedural.model import SoundModel

FAMILIES = (
    alarms.MODELS,
    blasts.MODELS,
    impacts.MODELS,
    interface.MODELS,
    retro.MODELS,
    steps.MODELS,
    weather.MODELS,
)


def load_models() -> tuple[SoundModel, ...]:
    """Return all models, one concept each, in the order of their families."""
    return tuple(model for family in FAMILIES for model in family)
