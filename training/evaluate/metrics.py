"""Measures of a set of sounds: accuracy under a classifier, and Fréchet distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.stats import binomtest


def frechet_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Return the Fréchet distance between Gaussians fitted to embeddings [N, E] and [K, E].

    Source:
        Heusel et al. 2017, arXiv:1706.08500; on audio embeddings Kilgour et al. 2019,
        arXiv:1812.08466.

    Raises:
        ValueError: If either set has fewer than two rows.
    """
    if len(a) < 2 or len(b) < 2:
        raise ValueError("a Fréchet distance needs at least two clips on each side")
    mean_a, mean_b = a.mean(axis=0, dtype=np.float64), b.mean(axis=0, dtype=np.float64)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # tr sqrt(AB) = sum of sqrt of the eigenvalues of sqrt(A) B sqrt(A), which is symmetric
    values, vectors = linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    cross = linalg.eigvalsh(root @ cov_b @ root)
    trace = np.trace(cov_a) + np.trace(cov_b) - 2.0 * np.sqrt(np.maximum(cross, 0.0)).sum()
    return float(np.square(mean_a - mean_b).sum() + max(trace, 0.0))


def accuracy(
    posterior: NDArray[np.floating], target: NDArray[np.integer], labels: Sequence[str]
) -> dict[str, Any]:
    """Return how often the classifier names the target, overall and by concept.

    Args:
        posterior: [N, C].
        target: Index of the right label, [N].
        labels: Names of the C labels.

    Returns:
        ``clips``, ``top1``, ``top1_interval`` (Wilson, 95%), ``top5``, and ``by_concept`` with
        ``right``, ``of`` and the ``most_heard`` label of each concept.
    """
    order = np.argsort(-posterior, axis=1)
    right = order[:, 0] == target
    top5 = (order[:, :5] == target[:, None]).any(axis=1)
    interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    by_concept = {}
    for index in np.unique(target):
        rows = target == index
        heard = np.bincount(order[rows, 0], minlength=len(labels)).argmax()
        by_concept[labels[index]] = {
            "right": int(right[rows].sum()),
            "of": int(rows.sum()),
            "most_heard": labels[heard],
        }
    return {
        "clips": len(right),
        "top1": float(right.mean()),
        "top1_interval": [float(interval.low), float(interval.high)],
        "top5": float(top5.mean()),
        "by_concept": by_concept,
    }
