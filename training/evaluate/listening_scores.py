"""What listeners said: scores with confidence intervals, and who wins against whom."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from clipsynth_rt.errors import InputError
from clipsynth_rt.training.evaluate.intervals import mean_interval
from clipsynth_rt.training.evaluate.listening import REFERENCE

Answers = list[tuple[str, str, dict[str, float]]]
"""(listener, trial, system -> score) of every trial that was answered."""


def score(kit: str | Path, results: Sequence[str | Path]) -> dict[str, Any]:
    """Return the scores of a listening test.

    In MUSHRA a listener who rates the hidden reference below 90 in more than 15% of the trials is
    left out (BS.1534-3, section 4.1.2), and listed.

    Args:
        kit: The folder that ``mushra_kit`` or ``ab_kit`` wrote, with its ``key.json``.
        results: Files that listeners downloaded, one each.

    Returns:
        ``scores`` (system -> mean, 95% interval, ratings), ``wins`` (row beats column, ties count
        half) with ``wins_interval``, ``listeners``, ``excluded``, and for comparisons ``pairs``
        with counts and the sign test's ``p``.

    Raises:
        InputError: If a file is unreadable or of another test, or nobody is left.
    """
    key = _json(Path(kit) / "key.json", "kit")
    mushra = key["kind"] == "mushra"
    answers: Answers = []
    for path in results:
        answers += _answers(Path(path), key)
    excluded = _unreliable(answers) if mushra else []
    kept = [answer for answer in answers if answer[0] not in excluded]
    if not kept:
        raise InputError(f"no listener is left to score; excluded: {', '.join(excluded) or 'none'}")
    systems = sorted({system for _, _, given in kept for system in given})
    by_system: dict[str, list[tuple[str, str, float]]] = defaultdict(list)
    for listener, trial, given in kept:
        for system, value in given.items():
            by_system[system].append((listener, trial, value))
    scores = {
        system: {**_summary(by_system[system]), "ratings": len(by_system[system])}
        for system in systems
    }
    report: dict[str, Any] = {
        "kind": key["kind"],
        "title": key["title"],
        "listeners": len({listener for listener, _, _ in kept}),
        "excluded": excluded,
        "scores": dict(sorted(scores.items(), key=lambda item: -item[1]["mean"])),
        **_wins(kept, systems),
    }
    if not mushra:
        report["pairs"] = _pairs(kept, systems)
    return report


def markdown(report: Mapping[str, Any]) -> str:
    """Return a report of ``score`` as tables."""
    unit = "score, 0 to 100" if report["kind"] == "mushra" else "share of preferences"
    digits = 1 if report["kind"] == "mushra" else 3
    lines = [
        f"{report['title']}: {report['listeners']} listeners"
        + (f"; left out: {', '.join(report['excluded'])}" if report["excluded"] else ""),
        "",
        f"| system | {unit} | 95% interval | ratings |",
        "| --- | ---: | ---: | ---: |",
    ]
    for system, row in report["scores"].items():
        low, high = row["interval"]
        lines.append(
            f"| {system} | {row['mean']:.{digits}f} | {low:.{digits}f}–{high:.{digits}f} "
            f"| {row['ratings']} |"
        )
    names = list(report["scores"])
    lines += ["", f"| row beats column | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for a in names:
        cells = []
        for b in names:
            share = report["wins"][a].get(b)
            if share is None:
                cells.append("")
                continue
            low, high = report["wins_interval"][a][b]
            cells.append(f"{100 * share:.0f}% ({100 * low:.0f}–{100 * high:.0f})")
        lines.append(f"| {a} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _answers(path: Path, key: Mapping[str, Any]) -> Answers:
    result = _json(path, "kit")
    if result["kit"] != key["kit"]:
        raise InputError(f"{path}: is of test {result['kit']}, not of this kit's {key['kit']}")
    answers: Answers = []
    try:
        listener = f"{result['listener'] or path.stem} ({path.stem})"
        for trial in result["trials"]:
            names = key["trials"][trial["trial"]]["clips"]
            given = {names[clip]: float(value) for clip, value in trial["scores"].items()}
            if given.keys() != set(names.values()):
                raise InputError(f"{path}: trial {trial['trial']} does not score every clip")
            answers.append((listener, trial["trial"], given))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is no result of this test ({error!r})") from error
    return answers


def _unreliable(answers: Answers) -> list[str]:
    missed: dict[str, list[bool]] = defaultdict(list)
    for listener, _, given in answers:
        missed[listener].append(given[REFERENCE] < 90.0)
    return sorted(name for name, found in missed.items() if np.mean(found) > 0.15)


def _summary(ratings: Sequence[tuple[str, str, float]]) -> dict[str, Any]:
    """Return mean and interval; what is resampled are listeners, or trials if there is but one."""
    several = len({listener for listener, _, _ in ratings}) > 1
    units: dict[str, list[float]] = defaultdict(list)
    for listener, trial, value in ratings:
        units[listener if several else trial].append(value)
    means = np.array([np.mean(values) for values in units.values()])
    return {"mean": float(np.mean([r[2] for r in ratings])), "interval": mean_interval(means)}


def _wins(answers: Answers, systems: Sequence[str]) -> dict[str, Any]:
    wins: dict[str, dict[str, float]] = {system: {} for system in systems}
    intervals: dict[str, dict[str, list[float]]] = {system: {} for system in systems}
    for a in systems:
        for b in systems:
            both = [x for x in answers if a in x[2] and b in x[2]]
            if a == b or not both:
                continue
            found = _summary([(who, trial, _beats(given, a, b)) for who, trial, given in both])
            wins[a][b], intervals[a][b] = found["mean"], found["interval"]
    return {"wins": wins, "wins_interval": intervals}


def _beats(given: Mapping[str, float], a: str, b: str) -> float:
    return 0.5 * (1.0 + float(np.sign(given[a] - given[b])))


def _pairs(answers: Answers, systems: Sequence[str]) -> list[dict[str, Any]]:
    pairs = []
    for number, a in enumerate(systems):
        for b in systems[number + 1 :]:
            said = [_beats(x[2], a, b) for x in answers if a in x[2] and b in x[2]]
            if not said:
                continue
            for_a, for_b = said.count(1.0), said.count(0.0)
            p = binomtest(for_a, for_a + for_b).pvalue if for_a + for_b else 1.0
            counts = {"first": for_a, "second": for_b, "none": said.count(0.5)}
            pairs.append({"systems": [a, b], **counts, "p": float(p)})
    return pairs


def _json(path: Path, needs: str) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if not isinstance(data, dict) or needs not in data:
        raise InputError(f"{path}: is no file of a listening test")
    return data
