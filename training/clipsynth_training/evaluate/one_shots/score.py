"""How a hit begins and ends."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsynth_training.evaluate.measures.metrics import mean_and_interval

Samples = NDArray[np.floating]
START_S, START_DB = 0.010, -20.0
"""A hit reaches 20 dB below its peak within 10 ms."""
END_DB, FADE_S = -40.0, 0.010
"""A tail that ends by itself is 40 dB down before the last 10 ms, where a fade may lie."""
SILENCE_DB, SILENCE_S = -60.0, 0.100
"""What follows the last frame within 60 dB of the peak is silence: 100 ms of it at most."""
EDGE_DB, EDGE_FALL_DB, EDGE_S, EDGE_AFTER_S = -40.0, 40.0, 0.010, 0.050
"""A cut edge: from within 40 dB of the peak, the level falls by 40 dB in 10 ms, later than 50 ms
after the peak. A click may be as short as that by itself."""
_FRAME_S = 0.0025
CHECKS = ("starts_at_once", "ends_by_itself", "no_silence_after", "no_cut_edge")


@functools.cache
def load_hits() -> tuple[str, ...]:
    """Return the queries of ``hits.toml``."""
    source = resources.files("clipsynth_training.evaluate.one_shots") / "hits.toml"
    return tuple(tomllib.loads(source.read_text(encoding="utf-8"))["hits"])


def check_hit(sound: Samples, rate: int) -> dict[str, bool]:
    """Return which of ``CHECKS`` a sound [T] passes; silence passes none."""
    samples = np.abs(np.asarray(sound, np.float64))
    peak = samples.max(initial=0.0)
    if peak == 0.0:
        return dict.fromkeys(CHECKS, False)
    begins = int(np.flatnonzero(samples >= peak * 10.0 ** (START_DB / 20.0))[0])
    levels = _levels(samples / peak, rate)
    ends = levels[: max(1, len(levels) - round(FADE_S / _FRAME_S))]
    loud = np.flatnonzero(levels >= SILENCE_DB)
    silence = (len(levels) - 1 - int(loud[-1])) * _FRAME_S if len(loud) else 0.0
    return {
        "starts_at_once": begins / rate < START_S,
        "ends_by_itself": bool(ends[-round(FADE_S / _FRAME_S) :].max() <= END_DB),
        "no_silence_after": silence <= SILENCE_S,
        "no_cut_edge": not _has_edge(levels),
    }


def one_shots(
    synthesize: Callable[[str, int], Sequence[Samples]],
    sample_rate: int,
    seeds: int = 8,
    hits: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Measure how often hits begin and end as a hit does.

    Args:
        synthesize: A query and a number of seeds to as many waveforms [T].
        sample_rate: Of the sounds, in Hz.
        seeds: Sounds a query.
        hits: Queries; those of ``hits.toml`` if None.

    Returns:
        ``clips``; share with its interval of ``usable`` sounds, which pass every check, and of each
        check; ``by_hit``: the share of usable sounds of each query.
    """
    queries = load_hits() if hits is None else hits
    passed = {
        query: [check_hit(sound, sample_rate) for sound in synthesize(query, seeds)]
        for query in queries
    }
    every = [row for rows in passed.values() for row in rows]
    report: dict[str, Any] = {"clips": len(every)}
    report |= mean_and_interval("usable", np.array([all(row.values()) for row in every]))
    for check in CHECKS:
        report |= mean_and_interval(check, np.array([row[check] for row in every]))
    report["by_hit"] = {
        query: float(np.mean([all(row.values()) for row in rows])) for query, rows in passed.items()
    }
    return report


def _levels(samples: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """Return the peak of each frame, in dB, [N]; a part of a frame at the end counts as one."""
    size = max(1, round(_FRAME_S * rate))
    padded = np.pad(samples, (0, -len(samples) % size))
    peaks = padded.reshape(-1, size).max(axis=1)
    return np.asarray(20.0 * np.log10(np.maximum(peaks, 1e-9)), np.float64)


def _has_edge(levels: NDArray[np.float64]) -> bool:
    step = round(EDGE_S / _FRAME_S)
    first = int(levels.argmax()) + round(EDGE_AFTER_S / _FRAME_S)
    # what follows the sound is silence
    later = np.concatenate([levels, np.full(step, -180.0)])
    falls = levels[first:] - later[first + step : first + step + len(levels[first:])]
    return bool(((levels[first:] >= EDGE_DB) & (falls >= EDGE_FALL_DB)).any())
