"""Whether a hit can be put into a game as it is: it starts at once, and ends by itself."""

from clipsynth_training.evaluate.one_shots.score import one_shots

__all__ = ["one_shots"]
