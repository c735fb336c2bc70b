"""How sure a figure is: 95% intervals by the bootstrap.

Clips are what is resampled; the queries of a protocol are given, not drawn.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap

Interval = list[float]
RESAMPLES = 1000


def mean_interval(values: NDArray[np.generic], resamples: int = RESAMPLES) -> Interval:
    """Return the percentile bootstrap's 95% interval of the mean of ``values`` [N].

    Values that are all the same resample to themselves: for shares of yes and no the Wilson
    interval takes over there, other quantities get an interval of no width.

    Source:
        Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13; Wilson 1927.
    """
    numbers = np.asarray(values, np.float64)
    if len(numbers) < 2 or np.ptp(numbers) == 0.0:
        if np.asarray(values).dtype == bool:
            wilson = binomtest(int(numbers.sum()), len(numbers)).proportion_ci(method="wilson")
            return [float(wilson.low), float(wilson.high)]
        return [float(numbers.mean())] * 2
    found = bootstrap(
        (numbers,), np.mean, n_resamples=resamples, batch=100, method="percentile", rng=0
    )
    return [float(bound) for bound in found.confidence_interval]


def statistic_interval(
    value: float,
    count: int,
    statistic: Callable[[NDArray[np.int64]], float],
    resamples: int = 50,
    lowest: float = 0.0,
) -> Interval:
    """Return the 95% interval ``value`` -+ 1.96 bootstrap standard errors, not below ``lowest``.

    For statistics that resampling biases: a resample repeats clips, so its covariance is that of
    a smaller set, and a Fréchet distance grows. Percentiles would lie above the value itself.

    Args:
        value: The statistic of the whole set.
        count: Clips in the set, at least 2.
        statistic: Of chosen rows, int64 [count].
        resamples: Bootstrap resamples.
        lowest: What the statistic cannot be below.

    Source:
        Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 13.2; 50
        resamples are enough for a standard error (section 6.4).
    """
    found = bootstrap(
        (np.arange(count),), statistic, n_resamples=resamples, vectorized=False,
        method="percentile", rng=0,
    )  # fmt: skip
    half = 1.959964 * float(found.standard_error)
    return [max(lowest, value - half), value + half]
