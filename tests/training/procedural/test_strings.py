"""Physics of strings and pipes."""

from __future__ import annotations

import numpy as np
import pytest

from clipsynth_training.data.procedural import strings
from clipsynth_training.data.procedural.model import MAX_SECONDS, SAMPLE_RATE, draw

BY_NAME = {model.concept: model for model in strings.MODELS}


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


@pytest.mark.parametrize("f0_hz", [55.0, 110.0, 329.63, 987.77])
def test_plucked_string_is_in_tune(f0_hz):
    x = strings.pluck(f0_hz, 3.0, 0.5, np.random.default_rng(0))
    assert abs(1200 * np.log2(_peak_hz(x, 0.9 * f0_hz, 1.1 * f0_hz) / f0_hz)) < 4


@pytest.mark.parametrize("t60_s", [0.6, 1.5, 3.0])
def test_fundamental_falls_60_db_in_the_time_asked(t60_s):
    f0 = 220.0
    x = strings.pluck(f0, t60_s, 0.3, np.random.default_rng(0))
    t = np.arange(len(x)) / SAMPLE_RATE
    turned = x * np.exp(-2j * np.pi * f0 * t)
    period = round(SAMPLE_RATE / f0)
    early, late = (
        np.abs(np.mean(turned[s : s + 8 * period])) for s in (0, round(0.5 * t60_s * SAMPLE_RATE))
    )
    assert 20 * np.log10(early / late) == pytest.approx(30.0, abs=2.0)


def test_a_pluck_in_the_middle_has_no_second_harmonic():
    x = strings.pluck(200.0, 2.0, 0.8, np.random.default_rng(0), position=0.5)
    power = np.abs(np.fft.rfft(x, SAMPLE_RATE))
    assert power[395:406].max() < 0.1 * power[195:206].max()
    assert power[395:406].max() < 0.3 * power[595:606].max()


@pytest.mark.parametrize("concept", ["acoustic guitar", "harp", "bass guitar", "violin", "cello"])
def test_brightness_is_heard(concept):
    dull, bright = (_render(concept, brightness=b) for b in (0.1, 1.0))
    assert _centroid_hz(bright) > 1.15 * _centroid_hz(dull)


@pytest.mark.parametrize("concept", ["violin", "flute", "recorder", "piano"])
def test_note_sounds_at_its_pitch(concept):
    f0 = 600.0
    x = _render(concept, f0_hz=f0)
    assert abs(1200 * np.log2(_peak_hz(x, 500.0, 700.0) / f0)) < 15  # vibrato and an onset scoop


def test_piano_strings_are_stiff():
    x = _render("piano", f0_hz=130.0, intensity=1.0)
    tenth = _peak_hz(x, 1290.0, 1330.0)
    assert 10.02 * 130.0 < tenth < 10.2 * 130.0


def test_minor_and_major_differ_in_the_third():
    major, minor = (
        np.abs(np.fft.rfft(_render("guitar strum", kind=k, f0_hz=100.0), 4 * SAMPLE_RATE))
        for k in ("major", "minor")
    )
    thirds = {"major": 100 * 2 ** (16 / 12), "minor": 100 * 2 ** (15 / 12)}
    at = {k: slice(int(4 * f) - 6, int(4 * f) + 6) for k, f in thirds.items()}
    assert major[at["major"]].max() > 2 * major[at["minor"]].max()
    assert minor[at["minor"]].max() > 2 * minor[at["major"]].max()


def test_whistle_rises_and_falls_as_asked():
    for pattern, sign in (("rising", 1), ("falling", -1)):
        x = _render("whistling", pattern=pattern)
        third = len(x) // 3
        ends = [_peak_hz(part, 300.0, 4000.0) for part in (x[:third], x[-third:])]
        assert sign * (ends[1] - ends[0]) > 0


@pytest.mark.parametrize("model", strings.MODELS, ids=lambda m: m.concept)
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
