"""Measures and intervals against closed forms and known cases."""

import numpy as np
import pytest
from scipy.stats import norm

from clipsynth_training.evaluate.measures import metrics
from clipsynth_training.evaluate.measures.intervals import mean_interval, statistic_interval
from clipsynth_training.evaluate.measures.metrics import (
    FrechetReference,
    mean_posteriors,
    memorisation,
    nearest_distance,
    posterior_divergence,
    retrieval,
    seed_diversity,
)


def test_the_mean_interval_is_that_of_the_normal_for_many_values():
    values = np.random.default_rng(0).normal(5.0, 2.0, 2000)
    half = norm.ppf(0.975) * values.std() / np.sqrt(len(values))
    low, high = mean_interval(values)
    assert low == pytest.approx(values.mean() - half, abs=0.2 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.2 * half)


def test_values_that_are_all_the_same():
    assert mean_interval(np.full(7, 2.5)) == [2.5, 2.5]
    low, high = mean_interval(np.ones(20, bool))  # Wilson: 20 right of 20 is not certainty
    assert low == pytest.approx(0.8389, abs=1e-3)
    assert high == 1.0


def test_a_statistic_interval_lies_around_its_value():
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    low, high = statistic_interval(values.mean(), 400, lambda rows: values[rows].mean())
    assert low + high == pytest.approx(2 * values.mean())
    assert (high - low) / 2 == pytest.approx(1.96 / np.sqrt(400), rel=0.3)


def test_a_frechet_interval_holds_the_distance_despite_the_bias_of_resampling():
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((300, 20)), generator.standard_normal((60, 20)) + 0.5
    reference = FrechetReference(a)
    value = reference.distance(b)
    low, high = reference.interval(b, value)
    assert 0 < low < value < high < 2 * value
    resampled = [reference.distance(b[generator.integers(60, size=60)]) for _ in range(20)]
    assert np.mean(resampled) > value  # what percentiles would be fooled by


def test_divergence_is_zero_for_the_real_mean_and_known_otherwise():
    real = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    means = mean_posteriors(real, np.array([0, 0, 2]))
    assert np.isnan(means[1]).all()
    made = np.array([[0.5, 0.5, 0.0], [0.25, 0.75, 0.0], [0.9, 0.1, 0.0]])
    found = posterior_divergence(made, np.array([0, 0, 1]), means)
    wanted = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    np.testing.assert_allclose(found, [0.0, wanted], atol=1e-6)  # no real clip of label 1


def test_retrieval_ranks_sounds_for_each_query():
    # two seeds of two labels; in the second collection label 0's query prefers label 1's sound
    posterior = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    found = retrieval(posterior, np.array([0, 0, 1, 1]))
    assert found["queries"] == 2
    assert found["text_to_sound@1"] == pytest.approx(0.5)
    assert found["text_to_sound@5"] == 1.0
    ties = retrieval(np.full((4, 2), 0.5), np.array([0, 0, 1, 1]))
    assert ties["text_to_sound@1"] == 0.0  # a judge that hears nothing finds nothing


def test_diversity_is_the_angle_between_seeds():
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(seed_diversity(rows, np.array([0, 0, 1, 1, 2])), [1.0, 0.0])


def test_copies_are_told_from_new_sounds():
    generator = np.random.default_rng(0)
    train, test, new = (generator.standard_normal((200, 8)) for _ in range(3))
    np.testing.assert_allclose(nearest_distance(2.0 * train[:5], train), 0.0, atol=1e-9)
    copied = memorisation(train[:50] + 1e-3, test, train)
    fresh = memorisation(new, test, train)
    assert copied["nearer_than_real"] > 0.99
    low, high = fresh["nearer_than_real_interval"]
    assert low < fresh["nearer_than_real"] < high
    assert fresh["nearer_than_real"] == pytest.approx(0.5, abs=0.1)


def test_the_kernel_distance_by_its_definition():
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(7, 3)), rng.normal(0.5, 1.0, size=(5, 3))
    reference = metrics.KernelReference(real)
    distances = [np.linalg.norm(a - b) for i, a in enumerate(real) for b in real[:i]]
    assert reference.bandwidth == pytest.approx(np.median(distances))

    def kernel(a, b):
        return np.exp(-np.square(a - b).sum() / (2 * reference.bandwidth**2))

    within_real = np.mean([kernel(a, b) for i, a in enumerate(real) for b in real[:i]])
    within_made = np.mean([kernel(a, b) for i, a in enumerate(made) for b in made[:i]])
    between = np.mean([kernel(a, b) for a in real for b in made])
    expected = 1000 * (within_real + within_made - 2 * between)
    assert reference.distance(made) == pytest.approx(expected)


def test_the_kernel_distance_is_zero_on_average_for_one_distribution_and_grows_with_a_shift():
    rng = np.random.default_rng(1)
    reference = metrics.KernelReference(rng.normal(size=(400, 8)))
    # of few clips as of many: the estimate has no bias
    alike = [reference.distance(rng.normal(size=(20, 8))) for _ in range(200)]
    assert abs(np.mean(alike)) < 4 * np.std(alike) / np.sqrt(200) + 1.0
    assert min(alike) < 0 < max(alike)
    shifted = [reference.distance(rng.normal(shift, 1, size=(200, 8))) for shift in (0.2, 0.5, 1.0)]
    assert 5 * np.std(alike) < shifted[-1]
    assert shifted == sorted(shifted)


def test_the_interval_of_a_kernel_distance_is_as_wide_as_it_scatters():
    rng = np.random.default_rng(2)
    reference = metrics.KernelReference(rng.normal(size=(300, 4)))
    sets = [rng.normal(0.3, 1.0, size=(60, 4)) for _ in range(60)]
    values = [reference.distance(made) for made in sets]
    low, high = reference.interval(sets[0], values[0])
    assert low < values[0] < high
    assert (high - low) / 2 == pytest.approx(1.96 * np.std(values), rel=0.5)


def test_a_kernel_distance_needs_two_clips_that_differ():
    for rows in (np.zeros((1, 3)), np.zeros((4, 3))):
        with pytest.raises(ValueError, match="needs"):
            metrics.KernelReference(rows)
