"""Physics of bells, chimes and tuned bars."""

from __future__ import annotations

import numpy as np
import pytest

from clipsynth_training.data.procedural import bells, bodies, dsp
from clipsynth_training.data.procedural.model import MAX_SECONDS, SAMPLE_RATE, draw

BY_NAME = {model.concept: model for model in bells.MODELS}


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


def test_church_bell_has_the_partials_of_a_church_bell():
    f0 = 400.0
    x = _render("church bell", f0_hz=f0, ring_s=4.0)
    for ratio in (0.5, 1.0, 1.183, 1.506, 2.0):
        found = _peak_hz(x, 0.96 * ratio * f0, 1.04 * ratio * f0)
        assert abs(1200 * np.log2(found / (ratio * f0))) < 20  # ratios scatter by 0.2 %


@pytest.mark.parametrize(
    "concept", ["xylophone", "marimba", "glockenspiel", "vibraphone", "kalimba", "steel drum"]
)
def test_note_sounds_at_its_pitch(concept):
    f0 = 700.0
    x = _render(concept, f0_hz=f0)
    assert abs(1200 * np.log2(_peak_hz(x, 500.0, 900.0) / f0)) < 5


def test_glockenspiel_overtone_is_that_of_a_free_bar():
    x = _render("glockenspiel", f0_hz=1000.0, brightness=1.0)
    assert _peak_hz(x, 2000.0, 3500.0) == pytest.approx(1000.0 * bodies.BAR[1], rel=0.01)


@pytest.mark.parametrize("ring_s", [0.5, 1.0, 2.0])
def test_hand_bell_falls_60_db_in_the_time_asked(ring_s):
    x = _render("hand bell", f0_hz=900.0, ring_s=ring_s)
    assert len(x) / SAMPLE_RATE == pytest.approx(ring_s, rel=0.15)
    # split pairs beat, which bends the fall of the lowest mode
    assert _decay_s(dsp.lowpass(x, 1300.0, 4), 30) == pytest.approx(ring_s / 2, rel=0.25)


def test_hard_mallets_are_brighter():
    for concept in ("xylophone", "marimba", "glockenspiel", "tubular bell", "gong"):
        soft, hard = (_render(concept, brightness=b) for b in (0.1, 1.0))
        assert _centroid_hz(hard) > _centroid_hz(soft)


def test_ship_bell_is_struck_as_often_as_asked():
    few, many = (_render("ship bell", count=c) for c in (1.0, 4.0))
    assert len(many) > len(few)


def test_gong_builds_up_its_high_modes():
    x = _render("gong", f0_hz=100.0, brightness=1.0)
    high = np.abs(np.diff(x, 2))
    first, later = (np.mean(high[s : s + 2000]) for s in (400, 8000))
    assert later > first


@pytest.mark.parametrize("model", bells.MODELS, ids=lambda m: m.concept)
def test_draws_are_clean_on_both_sides_of_the_split(model):
    for seed in range(5):
        x = draw(model, np.random.default_rng(seed), test=bool(seed % 2)).samples
        assert np.all(np.isfinite(x))
        assert np.max(np.abs(x)) == pytest.approx(1.0)
        assert np.mean(np.abs(x) > 0.99) < 0.02  # nothing flattened at the top
        assert 0.03 < len(x) / SAMPLE_RATE <= MAX_SECONDS + 1e-3
        assert abs(np.mean(x)) < 0.01
        assert np.max(np.abs(x[-20:])) < 0.003
        assert abs(x[0]) < 0.05
