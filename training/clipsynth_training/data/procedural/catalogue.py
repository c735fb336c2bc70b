"""Every procedural sound model, by family."""

from __future__ import annotations

from clipsynth_training.data.procedural import (
    alarms,
    bells,
    blasts,
    drums,
    grains,
    impacts,
    interface,
    modal,
    retro,
    steps,
    strings,
    water,
    weather,
)
from clipsynth_training.data.procedural.model import SoundModel

FAMILIES = (
    alarms.MODELS,
    bells.MODELS,
    blasts.MODELS,
    drums.MODELS,
    grains.MODELS,
    impacts.MODELS,
    interface.MODELS,
    modal.MODELS,
    retro.MODELS,
    steps.MODELS,
    strings.MODELS,
    water.MODELS,
    weather.MODELS,
)


def load_models() -> tuple[SoundModel, ...]:
    """Return all models, in the order of their families; a concept may have several."""
    return tuple(model for family in FAMILIES for model in family)
