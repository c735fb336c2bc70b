"""Whether a sound has the attributes that its query names, measured by signal processing."""

from clipsynth_training.evaluate.obedience.score import obedience

__all__ = ["obedience"]
