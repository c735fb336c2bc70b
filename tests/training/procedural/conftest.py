"""What every family of procedural sounds is held to."""

from collections.abc import Callable

import numpy as np
import pytest

from clipsynth_training.data.procedural.model import (
    MAX_SECONDS,
    SAMPLE_RATE,
    Range,
    SoundModel,
    draw,
)


@pytest.fixture
def check_sound() -> Callable[[SoundModel], None]:
    """Return a check that draws a model three times on both sides of the split."""

    def check(model: SoundModel) -> None:
        assert model.source
        assert model.parameters
        for side in (False, True):
            for seed in range(3):
                made = draw(model, np.random.default_rng(seed), test=side)
                again = draw(model, np.random.default_rng(seed), test=side)
                np.testing.assert_array_equal(made.samples, again.samples)
                assert np.all(np.isfinite(made.samples))
                assert 0.01 < len(made.samples) / SAMPLE_RATE <= MAX_SECONDS + 0.01
                assert abs(np.mean(made.samples)) < 0.02 + 40 / len(made.samples)
                assert np.max(np.abs(made.samples[-8:])) < 0.1
                assert np.sqrt(np.mean(made.samples**2)) > 0.003

    return check


@pytest.fixture
def render_at() -> Callable[..., np.ndarray]:
    """Return a renderer of a model at given values, the rest in the middle of their ranges."""

    def render(model: SoundModel, seed: int = 0, **values: float | str) -> np.ndarray:
        middle = {
            p.name: p.value(0.5) if isinstance(p, Range) else p.options[0] for p in model.parameters
        }
        return np.asarray(model.render({**middle, **values}, np.random.default_rng(seed)))

    return render


@pytest.fixture
def peak_hz() -> Callable[[np.ndarray], float]:
    """Return the measure of a sound's strongest frequency."""

    def measure(samples: np.ndarray) -> float:
        size = max(len(samples), 1 << 16)
        return float(np.argmax(np.abs(np.fft.rfft(samples, size))) * SAMPLE_RATE / size)

    return measure


@pytest.fixture
def centroid_hz() -> Callable[[np.ndarray], float]:
    """Return the measure of where a sound's energy lies in frequency."""

    def measure(samples: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(samples)) ** 2
        frequency = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
        return float(np.sum(power * frequency) / np.sum(power))

    return measure


@pytest.fixture
def pick() -> Callable[[tuple[SoundModel, ...], str], SoundModel]:
    """Return the lookup of a model by its concept."""
    return lambda models, concept: next(m for m in models if m.concept == concept)
