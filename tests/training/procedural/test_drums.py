"""Physics of drums, cymbals and hand percussion."""

from __future__ import annotations

import numpy as np
import pytest

from clipsynth_training.data.procedural import drums, dsp
from clipsynth_training.data.procedural.model import MAX_SECONDS, SAMPLE_RATE, draw

BY_NAME = {model.concept: model for model in drums.MODELS}


def _render(concept, seed=0, **changes):
    model = BY_NAME[concept]
    parameters = {
        p.name: p.value(0.5) if hasattr(p, "low") else p.options[0] for p in model.parameters
    }
    return model.render({**parameters, **changes}, np.random.default_rng(seed))


def _centroid_hz(x):
    power = np.abs(np.fft.rfft(x)) ** 2
    return float(np.sum(power * np.fft.rfftfreq(len(x), 1 / SAMPLE_RATE)) / np.sum(power))


def _peak_hz(x, low_hz, high_hz):
    size = 1 << 18
    x = x[:size]
    power = np.abs(np.fft.rfft(x * np.hanning(2 * len(x))[len(x) :], size))
    frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    inside = (frequency > low_hz) & (frequency < high_hz)
    return float(frequency[inside][np.argmax(power[inside])])


def _decay_s(x, db):
    """Return when the energy still to come has fallen by ``db`` (Schroeder)."""
    left = np.cumsum(x[::-1] ** 2)[::-1]
    return np.argmax(left < left[0] * 10 ** (-db / 10)) / SAMPLE_RATE


@pytest.mark.parametrize("f0_hz", [45.0, 60.0, 75.0])
def test_kick_settles_at_its_pitch(f0_hz):
    x = _render("kick drum", f0_hz=f0_hz, ring_s=0.9)
    assert _peak_hz(x[8000:], 30.0, 120.0) == pytest.approx(f0_hz, rel=0.06)


def test_kick_sweeps_downwards():
    x = _render("kick drum", f0_hz=50.0, ring_s=0.9)
    ups = np.flatnonzero((x[1:] > 0) & (x[:-1] <= 0))
    gaps = np.diff(ups[ups > 200])
    assert gaps[0] < gaps[4]


@pytest.mark.parametrize("concept", ["tom drum", "timpani", "conga", "woodblock", "claves"])
def test_pitch_is_heard(concept):
    ends = BY_NAME[concept].parameters[0]
    low, high = (_render(concept, f0_hz=f) for f in (ends.low, ends.high))
    assert _centroid_hz(high) > 1.2 * _centroid_hz(low)


@pytest.mark.parametrize("concept", ["tom drum", "bongo", "taiko drum", "timpani", "conga"])
def test_a_harder_blow_is_brighter(concept):
    def mean(intensity):
        return np.mean([_centroid_hz(_render(concept, s, intensity=intensity)) for s in range(6)])

    assert mean(1.0) > mean(0.15)


@pytest.mark.parametrize("concept", ["closed hi-hat", "open hi-hat", "crash cymbal", "tom drum"])
def test_ring_is_heard(concept):
    ends = next(p for p in BY_NAME[concept].parameters if p.name == "ring_s")
    short, long = (_render(concept, ring_s=r) for r in (ends.low, ends.high))
    assert _decay_s(long, 30) > 1.5 * _decay_s(short, 30)


def test_cymbals_reach_the_top_of_hearing():
    for concept in ("closed hi-hat", "crash cymbal"):
        power = np.abs(np.fft.rfft(_render(concept))) ** 2
        frequency = np.linspace(0, SAMPLE_RATE / 2, len(power))
        assert power[frequency > 10_000].sum() > 0.03 * power.sum()


@pytest.mark.parametrize("rate_hz", [14.0, 24.0])
def test_roll_beats_at_its_rate(rate_hz):
    x = _render("drum roll", rate_hz=rate_hz, duration_s=2.0, pattern="steady")
    envelope = np.abs(dsp.lowpass(x, 400.0))[: 2 * SAMPLE_RATE]
    power = np.abs(np.fft.rfft(dsp.lowpass(envelope, 60.0)))  # bins of half a hertz
    assert 0.5 * (16 + np.argmax(power[16:72])) == pytest.approx(rate_hz, rel=0.06)


@pytest.mark.parametrize("model", drums.MODELS, ids=lambda m: m.concept)
def test_draws_are_clean_on_both_sides_of_the_split(model):
    for seed in range(5):
        x = draw(model, np.random.default_rng(seed), test=bool(seed % 2)).samples
        assert np.all(np.isfinite(x))
        assert np.max(np.abs(x)) == pytest.approx(1.0)
        assert np.mean(np.abs(x) > 0.99) < 0.01  # nothing flattened at the top
        assert 0.03 < len(x) / SAMPLE_RATE <= MAX_SECONDS + 1e-3
        assert abs(np.mean(x)) < 0.01
        assert np.max(np.abs(x[-20:])) < 0.003
        assert abs(x[0]) < 0.05
