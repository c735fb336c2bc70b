"""How often sounds are in the order that their queries name."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsynth_training.evaluate.measures.metrics import mean_and_interval
from clipsynth_training.evaluate.obedience.signals import MEASURES, Samples

Synthesize = Callable[[str, int], Sequence[Samples]]
"""A query and a number of seeds to as many waveforms, of seeds 0, 1, ..."""


@dataclass(frozen=True)
class Ladder:
    """Queries that differ in one attribute, least first.

    Attributes:
        attribute: What differs.
        measure: Name of the function of ``signals`` that tells how much of it a sound has.
        queries: Two or three.
    """

    attribute: str
    measure: str
    queries: tuple[str, ...]


@functools.cache
def load_ladders() -> tuple[Ladder, ...]:
    """Return the pairs and triples of ``pairs.toml``."""
    source = resources.files("clipsynth_training.evaluate.obedience") / "pairs.toml"
    listed: dict[str, Any] = tomllib.loads(source.read_text(encoding="utf-8"))
    return tuple(
        Ladder(attribute, group["measure"], tuple(queries))
        for attribute, group in listed.items()
        for queries in (*group["pairs"], *group.get("triples", ()))
    )


def queries_of(ladders: Sequence[Ladder]) -> tuple[str, ...]:
    """Return every query once, in order."""
    return tuple(dict.fromkeys(query for ladder in ladders for query in ladder.queries))


def obedience(
    synthesize: Synthesize,
    sample_rate: int,
    seeds: int = 8,
    ladders: Sequence[Ladder] | None = None,
) -> dict[str, Any]:
    """Measure how often sounds are in the order that their queries name.

    Sounds of one seed are compared with each other. Equal ones count half, and a sound that has
    none of what is measured (no pitch) counts as wrong.

    Args:
        synthesize: Makes the sounds; each query is asked once.
        sample_rate: Of the sounds, in Hz.
        seeds: Sounds a query.
        ladders: Those of ``pairs.toml`` if None.

    Returns:
        ``pairs`` and ``triples``: share in the right order with its interval, ``of`` comparisons;
        chance is 1/2 and 1/6. ``by_attribute``: the same of each attribute's pairs, with
        ``unmeasured``, the number of comparisons that lack a value. ``by_pair``: the share of
        each pair.
    """
    chosen = load_ladders() if ladders is None else ladders
    needed: dict[str, set[str]] = {}
    for ladder in chosen:
        for query in ladder.queries:
            needed.setdefault(query, set()).add(ladder.measure)
    values: dict[tuple[str, str], NDArray[np.float64]] = {}
    for query, measures in needed.items():
        sounds = synthesize(query, seeds)
        for measure in measures:
            values[query, measure] = np.array(
                [MEASURES[measure](sound, sample_rate) for sound in sounds], np.float64
            )
    return _report(chosen, values)


def _report(
    ladders: Sequence[Ladder], values: Mapping[tuple[str, str], NDArray[np.float64]]
) -> dict[str, Any]:
    by_attribute: dict[str, list[NDArray[np.float64]]] = {}
    unmeasured: dict[str, int] = {}
    by_pair: dict[str, float] = {}
    triples: list[NDArray[np.float64]] = []
    for ladder in ladders:
        found = np.stack([values[query, ladder.measure] for query in ladder.queries])
        right = in_order(found)
        if len(ladder.queries) > 2:
            triples.append(right)
            continue
        by_attribute.setdefault(ladder.attribute, []).append(right)
        lacking = int(np.isnan(found).any(axis=0).sum())
        unmeasured[ladder.attribute] = unmeasured.get(ladder.attribute, 0) + lacking
        by_pair[" < ".join(ladder.queries)] = float(right.mean())
    report: dict[str, Any] = {}
    whole = {"pairs": [r for rows in by_attribute.values() for r in rows], "triples": triples}
    for name, rows in whole.items():
        if rows:
            report[name] = _share(rows)
    report["by_attribute"] = {
        name: {**_share(rows), "unmeasured": unmeasured[name]}
        for name, rows in by_attribute.items()
    }
    report["by_pair"] = by_pair
    return report


def in_order(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for values [K, N] how far each column ascends: 1, 1/2 with a tie, or 0."""
    with np.errstate(invalid="ignore"):  # infinity less infinity
        steps = np.sign(np.diff(values, axis=0))
    steps = np.where(values[1:] == values[:-1], 0.0, steps)
    score = np.where(steps > 0.0, 1.0, np.where(steps == 0.0, 0.5, 0.0))
    return np.asarray(score.prod(axis=0), np.float64)


def _share(rows: Sequence[NDArray[np.float64]]) -> dict[str, Any]:
    values = np.concatenate(rows)
    # the interval of a share of yes and no has a width even where all are alike
    exact = values.astype(bool) if np.isin(values, (0.0, 1.0)).all() else values
    return {**mean_and_interval("share", exact), "of": len(values)}
