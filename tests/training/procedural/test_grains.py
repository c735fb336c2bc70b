"""Physics of sounds of many small events."""

from __future__ import annotations

import numpy as np
import pytest

from clipsynth_training.data.procedural import dsp, grains
from clipsynth_training.data.procedural.model import MAX_SECONDS, SAMPLE_RATE, draw

BY_NAME = {model.concept: model for model in grains.MODELS}


def _render(concept, seed=0, **changes):
    model = BY_NAME[concept]
    parameters = {
        p.name: p.value(0.5) if hasattr(p, "low") else p.options[0] for p in model.parameters
    }
    return model.render({**parameters, **changes}, np.random.default_rng(seed))


def _centroid_hz(x):
    power = np.abs(np.fft.rfft(x)) ** 2
    return float(np.sum(power * np.fft.rfftfreq(len(x), 1 / SAMPLE_RATE)) / np.sum(power))


def _onsets(x, apart_s, low_hz=60.0, share=0.3):
    """Count bursts at least ``apart_s`` apart that reach ``share`` of the loudest."""
    hop = 221
    envelope = np.abs(dsp.highpass(x, low_hz))
    envelope = envelope[: len(envelope) // hop * hop].reshape(-1, hop).max(axis=1)
    count, quiet_until = 0, -1
    for index, value in enumerate(envelope):
        if value > share * envelope.max() and index > quiet_until:
            count += 1
            quiet_until = index + int(apart_s * SAMPLE_RATE / hop)
    return count


@pytest.mark.parametrize("surface", ["concrete", "wood", "gravel", "metal"])
@pytest.mark.parametrize("rate_hz", [1.3, 2.0])
def test_steps_are_as_many_as_rate_times_duration(surface, rate_hz):
    x = _render("footsteps", surface=surface, rate_hz=rate_hz, duration_s=3.5, weight=0.6)
    low = dsp.lowpass(x, 250, 2)
    assert _onsets(low, 0.6 / rate_hz) == pytest.approx(np.ceil(3.5 * rate_hz), abs=1)


def test_surfaces_differ_in_colour():
    centre = {s: _centroid_hz(_render("footsteps", surface=s)) for s in grains._SURFACES}
    assert centre["leaves"] > centre["snow"] > centre["concrete"]
    assert centre["gravel"] > centre["mud"]


@pytest.mark.parametrize("surface", ["concrete", "wood", "gravel", "grass"])
def test_a_heavy_step_is_lower(surface):
    def mean(weight):
        parts = [_render("footsteps", s, surface=surface, weight=weight) for s in range(3)]
        return np.mean([_centroid_hz(x) for x in parts])

    assert mean(1.0) < mean(0.0)


def _crest(x):
    return np.max(np.abs(x)) / np.sqrt(np.mean(x**2))


@pytest.mark.parametrize("surface", ["leaves", "tin roof", "pavement", "tent"])
def test_heavy_rain_is_denser(surface):
    light, heavy = (_render("rain", surface=surface, intensity=i) for i in (0.0, 1.0))
    assert _crest(heavy) < _crest(light)


def test_a_tent_is_duller_than_pavement():
    tent, pavement = (_render("rain", surface=s) for s in ("tent", "pavement"))
    assert _centroid_hz(tent) < 0.6 * _centroid_hz(pavement)


def test_a_crowd_is_denser_than_two_people():
    two, crowd = (_render("applause", count=c) for c in (2.0, 110.0))
    assert _crest(crowd) < 0.7 * _crest(two)


@pytest.mark.parametrize("rate_hz", [1.0, 2.5])
def test_claps_come_at_their_rate(rate_hz):
    x = _render("slow clap", rate_hz=rate_hz)
    assert _onsets(x, 0.5 / rate_hz) == pytest.approx(np.ceil(3.8 * rate_hz), abs=1)


def test_typing_follows_its_rate():
    slow, fast = (
        np.mean([_onsets(_render("keyboard typing", s, rate_hz=r), 0.06) for s in range(4)])
        for r in (3.0, 9.0)
    )
    assert fast > 1.8 * slow


@pytest.mark.parametrize("concept", ["paper tear", "velcro", "sanding wood", "pen writing"])
def test_fine_grit_is_brighter(concept):
    ends = next(p for p in BY_NAME[concept].parameters if p.name == "grit_hz")
    coarse, fine = (_render(concept, grit_hz=g) for g in (ends.low, ends.high))
    assert _centroid_hz(fine) > 1.1 * _centroid_hz(coarse)


@pytest.mark.parametrize("model", grains.MODELS, ids=lambda m: m.concept)
def test_draws_are_clean_on_both_sides_of_the_split(model):
    for seed in range(5):
        x = draw(model, np.random.default_rng(seed), test=bool(seed % 2)).samples
        assert np.all(np.isfinite(x))
        assert np.max(np.abs(x)) == pytest.approx(1.0)
        # nothing flattened at the top; a low sound stays near its peak for some samples
        assert np.count_nonzero(np.abs(x) > 0.99) < 0.01 * len(x) + 8
        assert 0.03 < len(x) / SAMPLE_RATE <= MAX_SECONDS + 1e-3
        assert abs(np.mean(x)) < 0.01
        assert np.max(np.abs(x[-20:])) < 0.006
        assert abs(x[0]) < 0.05
