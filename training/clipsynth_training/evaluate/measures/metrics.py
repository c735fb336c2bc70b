"""Measures of a set of sounds, from classifier posteriors and embeddings alone.

Letters: N clips generated, K clips to compare with, E embedding size, C labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.spatial.distance import cdist, pdist
from scipy.stats import mannwhitneyu

from clipsynth_training.evaluate.measures.intervals import mean_interval, statistic_interval

Rows = NDArray[np.floating]
Labels = NDArray[np.integer]


class FrechetReference:
    """The Gaussian of embeddings [K, E] that others are compared with.

    Source:
        Heusel et al. 2017, arXiv:1706.08500; on audio embeddings Kilgour et al. 2019,
        arXiv:1812.08466.

    Raises:
        ValueError: If there are fewer than two rows.
    """

    def __init__(self, embedding: Rows) -> None:
        _two(embedding)
        self.mean = embedding.mean(axis=0, dtype=np.float64)
        covariance = np.cov(embedding, rowvar=False)
        values, vectors = linalg.eigh(covariance)
        self._root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
        self._trace = float(np.trace(covariance))

    def distance(self, embedding: Rows) -> float:
        """Return the Fréchet distance of the Gaussian fitted to embeddings [N, E].

        Raises:
            ValueError: If there are fewer than two rows.
        """
        _two(embedding)
        covariance = np.cov(embedding, rowvar=False)
        # tr sqrt(AB) = sum of sqrt of the eigenvalues of sqrt(A) B sqrt(A), which is symmetric
        cross = linalg.eigvalsh(self._root @ covariance @ self._root)
        trace = self._trace + np.trace(covariance) - 2.0 * np.sqrt(np.maximum(cross, 0.0)).sum()
        shift = np.square(self.mean - embedding.mean(axis=0, dtype=np.float64)).sum()
        return float(shift + max(trace, 0.0))

    def interval(self, embedding: Rows, value: float) -> list[float]:
        """Return the distance's 95% interval, by resampling the rows of ``embedding``."""
        resamples = 50 if embedding.shape[1] <= 512 else 20  # eigenvalues cost E^3
        return statistic_interval(
            value, len(embedding), lambda rows: self.distance(embedding[rows]), resamples
        )


class KernelReference:
    """Embeddings [K, E] that others are compared with by a kernel: KAD, the kernel audio distance.

    The squared maximum mean discrepancy under a Gaussian kernel, without bias, times ``SCALE``. It
    assumes no shape of the distributions and needs fewer clips than a Fréchet distance.

    Attributes:
        bandwidth: Of the kernel: the median distance between two of the embeddings.

    Source:
        Chung et al. 2025, arXiv:2502.15602; Gretton et al. 2012, JMLR 13, lemma 6 (the unbiased
        estimate).

    Raises:
        ValueError: If there are fewer than two rows, or all are the same.
    """

    SCALE = 1000.0

    def __init__(self, embedding: Rows) -> None:
        _two(embedding)
        self._rows = np.asarray(embedding, np.float64)
        self.bandwidth = float(np.median(pdist(self._rows)))
        if self.bandwidth == 0.0:
            raise ValueError("a kernel distance needs clips that differ")
        own = self._kernel(self._rows, self._rows)
        self._within = _off_diagonal_mean(own)

    def distance(self, embedding: Rows) -> float:
        """Return the distance of embeddings [N, E]; near zero, and as often below, if alike.

        Raises:
            ValueError: If there are fewer than two rows.
        """
        _two(embedding)
        rows = np.asarray(embedding, np.float64)
        between = self._kernel(rows, self._rows).mean()
        own = _off_diagonal_mean(self._kernel(rows, rows))
        return float(self.SCALE * (own + self._within - 2.0 * between))

    def interval(self, embedding: Rows, value: float) -> list[float]:
        """Return the distance's 95% interval, by resampling the rows of ``embedding``."""
        rows = np.asarray(embedding, np.float64)
        own, between = self._kernel(rows, rows), self._kernel(rows, self._rows).mean(axis=1)
        count = len(rows)

        def resampled(chosen: NDArray[np.int64]) -> float:
            # pairs of one clip with itself are left out, however often it was drawn
            weights = np.bincount(chosen, minlength=count).astype(np.float64)
            pairs = np.square(weights.sum()) - np.square(weights).sum()
            within = (weights @ own @ weights - np.square(weights).sum()) / max(pairs, 1.0)
            mean = weights @ between / weights.sum()
            return float(self.SCALE * (within + self._within - 2.0 * mean))

        low, high = statistic_interval(value, count, resampled, lowest=-np.inf)
        return [low, high]

    def _kernel(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        squares = cdist(a, b, "sqeuclidean")
        return np.asarray(np.exp(-squares / (2.0 * self.bandwidth**2)), np.float64)


def _off_diagonal_mean(kernel: NDArray[np.float64]) -> float:
    count = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))


def _two(embedding: Rows) -> None:
    if len(embedding) < 2:
        raise ValueError("a distance of distributions needs at least two clips on each side")


def frechet_distance(a: Rows, b: Rows) -> float:
    """Return the Fréchet distance between Gaussians fitted to embeddings [N, E] and [K, E].

    Raises:
        ValueError: If either set has fewer than two rows.
    """
    return FrechetReference(a).distance(b)


def accuracy(posterior: Rows, target: Labels, labels: Sequence[str]) -> dict[str, Any]:
    """Return how often the classifier names the target, overall and by concept.

    Args:
        posterior: [N, C].
        target: Index of the right label, [N].
        labels: Names of the C labels.

    Returns:
        ``clips``, ``top1``, ``top5``, their 95% intervals ``top1_interval`` and
        ``top5_interval``, and ``by_concept`` with ``right``, ``of`` and the ``most_heard`` label
        of each concept.
    """
    order = np.argsort(-posterior, axis=1)
    right = order[:, 0] == target
    top5 = (order[:, :5] == target[:, None]).any(axis=1)
    by_concept = {}
    for index in np.unique(target).tolist():
        rows = target == index
        heard = np.bincount(order[rows, 0], minlength=len(labels)).argmax()
        by_concept[labels[index]] = {
            "right": int(right[rows].sum()),
            "of": int(rows.sum()),
            "most_heard": labels[int(heard)],
        }
    return {
        "clips": len(right),
        **mean_and_interval("top1", right),
        **mean_and_interval("top5", top5),
        "by_concept": by_concept,
    }


def mean_and_interval(name: str, values: NDArray[np.generic]) -> dict[str, Any]:
    """Return ``name``: the mean of ``values``, and ``name_interval``: its 95% interval."""
    return {
        name: float(np.mean(np.asarray(values, np.float64))),
        f"{name}_interval": mean_interval(values),
    }


def mean_posteriors(posterior: Rows, target: Labels) -> NDArray[np.float64]:
    """Return the mean posterior of the clips of each label, [C, C]; NaN where there are none."""
    means = np.full((posterior.shape[1],) * 2, np.nan)
    for index in np.unique(target):
        means[index] = posterior[target == index].mean(axis=0, dtype=np.float64)
    return means


def posterior_divergence(
    posterior: Rows, target: Labels, reference: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return KL(reference of the target || posterior) of each clip, in nats, [N].

    The published measure pairs a generated clip with the real clip of its caption; a query names
    a concept, so it is paired with the mean posterior of the concept's real clips.

    Args:
        posterior: [N, C].
        target: [N].
        reference: From ``mean_posteriors`` of real clips; clips whose row is NaN are left out.

    Source:
        Yang et al. 2022, arXiv:2207.09983; Kreuk et al. 2022, arXiv:2209.15352.
    """
    wanted = reference[target]
    known = ~np.isnan(wanted[:, 0])
    p = np.clip(wanted[known], 1e-10, None)
    q = np.clip(posterior[known].astype(np.float64), 1e-10, None)
    return np.asarray((p * np.log(p / q)).sum(axis=1), np.float64)


def trials(target: Labels) -> Iterator[NDArray[np.int64]]:
    """Yield rows that hold each label once: the first clip of every label, the second, ..."""
    rows = {index: np.flatnonzero(target == index) for index in np.unique(target)}
    for number in range(min(len(found) for found in rows.values())):
        yield np.array([found[number] for found in rows.values()])


def retrieval(posterior: Rows, target: Labels) -> dict[str, Any]:
    """Return how well queries find their own sounds: recall at 1 and 5 over one clip a query.

    A query ranks all queries' sounds by the posterior of its label; its own should come first.
    Each seed is a collection of its own.

    Returns:
        ``text_to_sound@1``, ``text_to_sound@5``, their intervals, and ``queries``.

    Source:
        Oncescu et al. 2021, arXiv:2105.02192 (text to audio retrieval, R@k).
    """
    ranks = []
    queries = 0
    for rows in trials(target):
        queries = len(rows)
        scores = posterior[rows][:, target[rows]]  # [sounds, queries]
        # ties count against the query
        ranks.append((scores >= np.diag(scores)).sum(axis=0))
    rank = np.concatenate(ranks)
    found: dict[str, Any] = {"queries": queries}
    for k in (1, 5):
        found |= mean_and_interval(f"text_to_sound@{k}", rank <= k)
    return found


def seed_diversity(embedding: Rows, target: Labels) -> NDArray[np.float64]:
    """Return the mean cosine distance between two clips of the same label, one a label.

    Labels with a single clip are left out.

    Source:
        Zhu et al. 2017, arXiv:1711.11586, section 5 (distance between pairs of outputs).
    """
    groups = (embedding[target == index] for index in np.unique(target))
    return np.array([pdist(rows, "cosine").mean() for rows in groups if len(rows) > 1])


def nearest_distance(embedding: Rows, others: Rows) -> NDArray[np.float64]:
    """Return the cosine distance of each of [N, E] to the nearest of [K, E], [N]."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (embedding, others))
    parts = [1.0 - (part @ b.T).max(axis=1) for part in np.array_split(a, len(a) // 512 + 1)]
    return np.asarray(np.maximum(np.concatenate(parts), 0.0), np.float64)


def memorisation(generated: Rows, real_test: Rows, train: Rows) -> dict[str, Any]:
    """Return how near generated clips come to training clips, beside unseen real ones.

    Returns:
        ``nearest_train`` (mean cosine distance) of generated clips with its interval,
        ``nearest_train_real_test``, and ``nearer_than_real``: how often a generated clip lies
        nearer to its nearest training clip than an unseen real clip does; 0.5 is right, towards
        1 is copying.

    Source:
        Meehan et al. 2020, arXiv:2004.05675 (the data-copying test).
    """
    made, real = nearest_distance(generated, train), nearest_distance(real_test, train)
    above = mannwhitneyu(real, made).statistic / (len(real) * len(made))
    return {
        **mean_and_interval("nearest_train", made),
        "nearest_train_real_test": float(real.mean()),
        "nearer_than_real": float(above),
        "nearer_than_real_interval": mean_interval(_share_above(made, real)),
    }


def _share_above(made: NDArray[np.float64], real: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each generated clip the share of real clips that lie further; ties count half."""
    ordered = np.sort(real)
    sides = [np.searchsorted(ordered, made, side) for side in ("left", "right")]
    return np.asarray(1.0 - np.mean(sides, axis=0) / len(real), np.float64)
