"""Other words for the open corpus's concepts, to ask a voice by; training never sees them."""

from __future__ import annotations

import functools
import tomllib
from importlib import resources


@functools.lru_cache
def load_paraphrases() -> dict[str, str]:
    """Return paraphrase -> concept, in the order of the list.

    Training must leave every one of them out of its texts.
    """
    source = resources.files("clipsynth_training.evaluate") / "paraphrases.toml"
    listed = tomllib.loads(source.read_text(encoding="utf-8"))
    return {text: concept for concept, texts in listed.items() for text in texts}
