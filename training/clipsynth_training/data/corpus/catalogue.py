"""The concepts of the corpus's second edition: each with every source that has it."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from clipsynth_rt.files import read_toml
from clipsynth_training.data.corpus.sources import (
    ProceduralSource,
    RecordingSource,
    SoundfontSource,
    Source,
)
from clipsynth_training.data.procedural.catalogue import load_models
from clipsynth_training.data.procedural.model import SoundModel
from clipsynth_training.data.recordings.ledger import Recording, load_recordings
from clipsynth_training.data.sounds import Concept, Renderer, load_concepts

_DRUM_STYLES = ("hit", "beat")
_MUSIC = "music"


@dataclass(frozen=True)
class CorpusConcept:
    """One thing that can be heard.

    Attributes:
        name: The query that names it.
        group: Where a list of concepts shows it.
        names: Other names that hold for every clip of it.
        picture: Search terms for pictures, as ``pictures_for`` reads them.
        sources: At least one.
    """

    name: str
    group: str
    names: tuple[str, ...]
    picture: tuple[str, ...]
    sources: tuple[Source, ...]


@functools.cache
def canonical_name(name: str) -> str:
    """Return the corpus's name for what a source calls a concept."""
    return _aliases().get(name, name)


def load_corpus_concepts(cache: Path, source_dir: Path | None) -> tuple[CorpusConcept, ...]:
    """Return every concept with its sources, by group and name.

    Args:
        cache: Folder that ``clipsynth_training.data.recordings`` filled.
        source_dir: Root of the soundfonts; None for the system's folders.

    Raises:
        DataError: If a soundfont is missing.
        MissingExtraError: If pyfluidsynth is not installed.
    """
    return merge_sources(
        load_models(),
        load_recordings(),
        [concept for concept in load_concepts() if _is_musical(concept)],
        cache,
        Renderer(source_dir),
    )


def merge_sources(
    models: Iterable[SoundModel],
    recordings: Iterable[Recording],
    instruments: Iterable[Concept],
    cache: Path,
    renderer: Renderer,
) -> tuple[CorpusConcept, ...]:
    """Return one concept for each canonical name, with all of its sources."""
    found: dict[str, dict[str, list[object]]] = {}

    def entry(name: str) -> dict[str, list[object]]:
        keys = ("models", "recordings", "instruments")
        return found.setdefault(canonical_name(name), {key: [] for key in keys})

    for model in models:
        entry(model.concept)["models"].append(model)
    for recording in recordings:
        entry(recording.concept)["recordings"].append(recording)
    for instrument in instruments:
        entry(instrument.name)["instruments"].append(instrument)
    concepts = [_concept(name, parts, cache, renderer) for name, parts in found.items()]
    return tuple(sorted(concepts, key=lambda concept: (concept.group, concept.name)))


def _concept(
    name: str, parts: dict[str, list[object]], cache: Path, renderer: Renderer
) -> CorpusConcept:
    models = [m for m in parts["models"] if isinstance(m, SoundModel)]
    recordings = [r for r in parts["recordings"] if isinstance(r, Recording)]
    instruments = [c for c in parts["instruments"] if isinstance(c, Concept)]
    sources: list[Source] = [ProceduralSource(model) for model in models]
    musical = bool(instruments) or any(r.group == _MUSIC for r in recordings)
    if recordings:
        sources.append(RecordingSource(cache, tuple(recordings), musical=musical))
    sources += [SoundfontSource(concept, renderer) for concept in instruments]
    others = [m.concept for m in models] + [r.concept for r in recordings]
    others += [word for model in models for word in model.names]
    others += [word for concept in instruments for word in (concept.name, *concept.keywords)]
    groups = [m.group for m in models] + [r.group for r in recordings] + [_MUSIC] * len(instruments)
    return CorpusConcept(
        name,
        groups[0],
        tuple(word for word in dict.fromkeys(others) if word != name),
        tuple(dict.fromkeys(term for c in instruments for term in c.picture)) or (f"={name}",),
        tuple(sources),
    )


def _is_musical(concept: Concept) -> bool:
    """Return whether a soundfont is worth its sound: instruments, not chip-like effects."""
    if concept.style == "effect":
        return False
    return bool(concept.drum_keys) if concept.style in _DRUM_STYLES else bool(concept.programs)


@functools.cache
def _aliases() -> dict[str, str]:
    table = read_toml(resources.files("clipsynth_training.data.corpus") / "aliases.toml")
    return dict(table["concept"])
