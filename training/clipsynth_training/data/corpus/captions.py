"""What may be said of a clip: its name, other names, and its attributes in many phrasings.

Captions are made from the parameters that a clip was rendered from, so they are true of it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import pairwise
from typing import Any

import numpy as np

from clipsynth_rt.files import read_toml

BARE_SHARE = 0.3
"""Share of captions that name the thing and nothing else, as most queries do."""

MOST_ATTRIBUTES = 3
"""Attributes that one caption states at most; people rarely say more."""

LEVELS = {
    "pitch": ("low", "middle", "high"),
    "length": ("short", "middle", "long"),
    "rate": ("slow", "middle", "fast"),
    "brightness": ("dark", None, "bright"),
    "intensity": ("weak", None, "strong"),
    "loudness": ("quiet", None, "loud"),
    "distance": ("near", None, "far"),
    "size": ("small", None, "large"),
    "count": ("few", None, "many"),
}
"""Names of the lower, middle and upper third of an attribute; None: the middle is not said."""

_FRAMES = (
    "{noun}",
    "{noun}",
    "{noun}",
    "the sound of {noun}",
    "{noun} sound",
    "{noun} sound effect",
)
"""Around the noun with its adjectives. Bare forms are the most usual."""

_COUNTED_FRAMES = ("a {noun}", "sound of a {noun}", "the sound of a {noun}")
"""For nouns that take an article."""

_UNCOUNTED = frozenset(
    "rain thunder applause wind water fire static steam traffic hail breath glass machinery".split()
)


def level_of(attribute: str, position: float) -> str | None:
    """Return the level's name of a position in [0, 1], or None where nothing is said of it.

    Args:
        attribute: One of ``LEVELS``.
        position: Where the value lies in the concept's range; 0 is the attribute's low end.
    """
    return LEVELS[attribute][min(2, int(position * 3.0))]


def write_caption(
    names: Sequence[str],
    attributes: Mapping[str, str],
    rng: np.random.Generator,
    *,
    held_out: bool = False,
) -> str:
    """Return one caption.

    Args:
        names: What the thing is called, its concept first.
        attributes: Attribute -> level (``pitch`` -> ``low``) or word (``surface`` -> ``gravel``).
        rng: Chooses the words.
        held_out: Whether to use the words that training never meets.
    """
    # the plain name as often as all other names together
    noun = str(names[0] if len(names) == 1 or rng.random() < 0.5 else rng.choice(names[1:]))
    chosen: list[str] = []
    if attributes and rng.random() >= BARE_SHARE:
        count = int(rng.integers(1, min(MOST_ATTRIBUTES, len(attributes)) + 1))
        chosen = [str(name) for name in rng.choice(sorted(attributes), count, replace=False)]
    before: list[str] = []
    after: list[str] = []
    for name in chosen:
        place, text = _words(name, attributes[name], rng, held_out=held_out)
        (before if place == "before" else after).append(text)
    noun = " ".join([*before, noun])
    frames = (*_FRAMES, *_COUNTED_FRAMES) if _takes_article(noun) else _FRAMES
    caption = str(rng.choice(frames)).format(noun=noun)
    joined = ", ".join([caption, *after]) if rng.random() < 0.6 else " ".join([caption, *after])
    return _with_article(joined)


def held_out_words() -> frozenset[str]:
    """Return every word and phrase that training never meets."""
    found: set[str] = set()
    for levels in _load().values():
        for words in levels.values():
            found |= set(words["held_out"]["before"]) | set(words["held_out"]["after"])
    return frozenset(found)


def _words(
    attribute: str, level: str, rng: np.random.Generator, *, held_out: bool
) -> tuple[str, str]:
    """Return where a word stands, ``before`` or ``after`` the noun, and the word."""
    if attribute not in _load():
        if attribute == "surface":
            return "after", f"on {level}"
        return ("before", level) if rng.random() < 0.7 else ("after", level)
    words = _load()[attribute][level]
    places = words["held_out"] if held_out else words
    options = [(place, text) for place in ("before", "after") for text in places[place]]
    if not options:  # a level without held-out words is said as in training
        return _words(attribute, level, rng, held_out=False)
    place, text = options[int(rng.integers(len(options)))]
    return place, text


def _takes_article(noun: str) -> bool:
    last = noun.rpartition(" ")[2]
    return not last.endswith(("s", "ing")) and last not in _UNCOUNTED


def _with_article(text: str) -> str:
    """Write ``an`` where ``a`` stands before a vowel."""
    parts = text.split(" ")
    for i, (word, following) in enumerate(pairwise(parts)):
        if word == "a" and following[:1].lower() in "aeiou":
            parts[i] = "an"
    return " ".join(parts)


@functools.cache
def _load() -> dict[str, dict[str, dict[str, Any]]]:
    return read_toml(resources.files("clipsynth_training.data.corpus") / "words.toml")
