"""What listeners said: scores with confidence intervals, and who wins against whom."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from clipsynth_rt.errors import DataError, InputError
from clipsynth_training.evaluate.listening.kit import REFERENCE
from clipsynth_training.evaluate.measures.intervals import mean_interval

Answers = list[tuple[str, str, dict[str, float]]]
"""(listener, trial, system -> score) of every trial that was answered."""


def score(kit: str | Path, results: Sequence[str | Path]) -> dict[str, Any]:
    """Return the scores of a listening test.

    In MUSHRA a listener who rates the hidden reference below 90 in more than 15% of the trials is
    left out (BS.1534-3, section 4.1.2), and listed.

    Intervals and the sign test count listeners, as the answers of one depend on each other. If
    there is but one listener they count answers, and tell of that listener alone. An interval is
    None for fewer than two, and where all rate alike, which shows no spread; wins and preferences
    that are all for one side have Wilson's.

    Args:
        kit: The folder that ``mushra_kit`` or ``ab_kit`` wrote, with its ``key.json``.
        results: Files that listeners downloaded, one each.

    Returns:
        ``scores`` (system -> mean, 95% interval, ratings), ``wins`` (row beats column, ties count
        half) with ``wins_interval``, ``listeners``, ``excluded``, and for comparisons ``pairs``
        with counts of answers, and the sign test's ``p`` with the ``votes`` that it counts: one a
        listener, for what that listener prefers on average, or every answer of the only one
        (``votes_of`` says which); ties are left out.

    Raises:
        InputError: If a file is unreadable, given twice or of another test, or nobody is left.
        DataError: If a file holds a score that the page cannot give, or a trial twice.
    """
    key = _key(Path(kit) / "key.json")
    mushra = key["kind"] == "mushra"
    answers: Answers = []
    read: set[Path] = set()
    for path in map(Path, results):
        if path.resolve() in read:
            raise InputError(f"{path}: is given twice")
        read.add(path.resolve())
        answers += _answers(path, key)
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
        system: {
            **_summary(by_system[system], shares=not mushra),
            "ratings": len(by_system[system]),
        }
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
    one = report["listeners"] == 1
    lines = [
        f"{report['title']}: "
        + ("1 listener, of whom alone this tells" if one else f"{report['listeners']} listeners")
        + (f"; left out: {', '.join(report['excluded'])}" if report["excluded"] else ""),
        "",
        f"| system | {unit} | 95% interval | ratings |",
        "| --- | ---: | ---: | ---: |",
    ]
    for system, row in report["scores"].items():
        lines.append(
            f"| {system} | {row['mean']:.{digits}f} | {_bounds(row['interval'], digits)} "
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
            interval = report["wins_interval"][a][b]
            percent = None if interval is None else [100 * bound for bound in interval]
            cells.append(f"{100 * share:.0f}% ({_bounds(percent, 0)})")
        lines.append(f"| {a} | {' | '.join(cells)} |")
    if "pairs" in report:
        lines += ["", "| sign test | votes | for the first | for the second | tied | p |"]
        lines += ["| --- | --- | ---: | ---: | ---: | ---: |"]
    for pair in report.get("pairs", ()):
        votes = pair["votes"]
        lines.append(
            f"| {', '.join(pair['systems'])} | {pair['votes_of']} | {votes['first']} "
            f"| {votes['second']} | {votes['none']} | {pair['p']:.2g} |"
        )
    return "\n".join(lines) + "\n"


def _bounds(interval: Sequence[float] | None, digits: int) -> str:
    if interval is None:
        return "–"
    low, high = interval
    return f"{low:.{digits}f}–{high:.{digits}f}"


def _answers(path: Path, key: Mapping[str, Any]) -> Answers:
    result = _json(path, "kit")
    if result["kit"] != key["kit"]:
        raise InputError(f"{path}: is of test {result['kit']}, not of this kit's {key['kit']}")
    answers: Answers = []
    seen: set[str] = set()
    try:
        # with the path, as two listeners may have one name, or one name of file
        listener = f"{result['listener'] or path.stem} ({path})"
        for trial in result["trials"]:
            id_, where = trial["trial"], f"{path}: trial {trial['trial']}"
            names = key["trials"][id_]["clips"]
            given = {names[clip]: value for clip, value in trial["scores"].items()}
            if given.keys() != set(names.values()):
                raise InputError(f"{where} does not score every clip")
            if id_ in seen:
                raise DataError(f"{where} is answered twice")
            seen.add(id_)
            _check(trial["scores"], key["kind"], where)
            answers.append((listener, id_, {name: float(value) for name, value in given.items()}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is no result of this test ({error!r})") from error
    return answers


def _check(scores: Mapping[str, Any], kind: str, where: str) -> None:
    """Refuse scores that the page of ``kind`` cannot give."""
    for clip, value in scores.items():
        said = f"{json.dumps(value):.40}"
        # true is an int; comparisons are written so that NaN is refused too
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind == "mushra" and not (number and 0 <= value <= 100):
            raise DataError(f"{where}: score {said} of clip {clip} is not from 0 to 100")
        if kind == "ab" and not (number and value in (0, 0.5, 1)):
            raise DataError(f"{where}: score {said} of clip {clip} is not 0, 0.5 or 1")
    if kind == "ab" and sum(scores.values()) != 1:
        both = " and ".join(f"{value:g}" for value in scores.values())
        raise DataError(f"{where}: scores {both} are no preference; they must add up to 1")


def _unreliable(answers: Answers) -> list[str]:
    missed: dict[str, list[bool]] = defaultdict(list)
    for listener, _, given in answers:
        missed[listener].append(given[REFERENCE] < 90.0)
    return sorted(name for name, found in missed.items() if np.mean(found) > 0.15)


def _summary(ratings: Sequence[tuple[str, str, float]], shares: bool) -> dict[str, Any]:
    """Return mean and interval; what is resampled are listeners, or trials if there is but one.

    Args:
        ratings: (listener, trial, value) of each.
        shares: Whether values are shares of wins, from 0 to 1.
    """
    several = len({listener for listener, _, _ in ratings}) > 1
    units: dict[str, list[float]] = defaultdict(list)
    for listener, trial, value in ratings:
        units[listener if several else trial].append(value)
    means = np.array([np.mean(values) for values in units.values()])
    if shares and np.isin(means, (0.0, 1.0)).all():
        means = means.astype(bool)  # as yes and no they have an interval even where all agree
    interval: list[float] | None = None
    # one value, or equal ones, do not show how far others would be from them
    if len(means) > 1 and (means.dtype == bool or np.ptp(means) > 0.0):
        interval = mean_interval(means)
    return {"mean": float(np.mean([r[2] for r in ratings])), "interval": interval}


def _wins(answers: Answers, systems: Sequence[str]) -> dict[str, Any]:
    wins: dict[str, dict[str, float]] = {system: {} for system in systems}
    intervals: dict[str, dict[str, list[float] | None]] = {system: {} for system in systems}
    for a in systems:
        for b in systems:
            both = [x for x in answers if a in x[2] and b in x[2]]
            if a == b or not both:
                continue
            beats = [(who, trial, _beats(given, a, b)) for who, trial, given in both]
            found = _summary(beats, shares=True)
            wins[a][b], intervals[a][b] = found["mean"], found["interval"]
    return {"wins": wins, "wins_interval": intervals}


def _beats(given: Mapping[str, float], a: str, b: str) -> float:
    return 0.5 * (1.0 + float(np.sign(given[a] - given[b])))


def _pairs(answers: Answers, systems: Sequence[str]) -> list[dict[str, Any]]:
    pairs = []
    for a, b in itertools.combinations(systems, 2):
        said: dict[str, list[float]] = defaultdict(list)
        for listener, _, given in answers:
            if a in given and b in given:
                said[listener].append(_beats(given, a, b))
        if not said:
            continue
        every = list(itertools.chain(*said.values()))
        several = len(said) > 1
        # answers of one listener are no independent votes, which the test is about
        votes = [0.5 * (1 + np.sign(np.mean(x) - 0.5)) for x in said.values()] if several else every
        counted = _counts(votes)
        decided = counted["first"] + counted["second"]
        p = binomtest(counted["first"], decided).pvalue if decided else 1.0
        pairs.append(
            {
                "systems": [a, b],
                **_counts(every),
                "votes": counted,
                "votes_of": "listeners" if several else "answers of one listener",
                "p": float(p),
            }
        )
    return pairs


def _counts(beats: Sequence[float]) -> dict[str, int]:
    return {"first": beats.count(1.0), "second": beats.count(0.0), "none": beats.count(0.5)}


def _key(path: Path) -> dict[str, Any]:
    key = _json(path, "kit", "kind", "title", "trials")
    try:
        clips = [trial["clips"].values() for trial in key["trials"].values()]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is damaged ({error!r}); take the one of the test") from error
    if key["kind"] not in ("mushra", "ab"):
        raise InputError(f"{path}: is of a test of kind {key['kind']!r}, neither mushra nor ab")
    if key["kind"] == "mushra" and not all(REFERENCE in names for names in clips):
        raise InputError(f"{path}: has a trial without {REFERENCE}; take the one of the test")
    return key


def _json(path: Path, *needs: str) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: is no file of a listening test")
    for name in needs:
        if name not in data:
            raise InputError(f"{path}: is no file of a listening test, or damaged: no {name!r}")
    return data
