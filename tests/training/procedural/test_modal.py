"""Physics of struck, scraped and broken things."""

from __future__ import annotations

import numpy as np
import pytest

from clipsynth_training.data.procedural import bodies, dsp, modal
from clipsynth_training.data.procedural.model import MAX_SECONDS, SAMPLE_RATE, draw

BY_NAME = {model.concept: model for model in modal.MODELS}


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
    size = 1 << 19
    power = np.abs(np.fft.rfft(x * np.hanning(2 * len(x))[len(x) :], size))
    frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    inside = (frequency > low_hz) & (frequency < high_hz)
    return float(frequency[inside][np.argmax(power[inside])])


def _decay_s(x, db):
    """Return when the energy still to come has fallen by ``db`` (Schroeder)."""
    left = np.cumsum(x[::-1] ** 2)[::-1]
    return np.argmax(left < left[0] * 10 ** (-db / 10)) / SAMPLE_RATE


def test_ring_is_the_sum_of_damped_sines():
    t = dsp.times(4000)
    expected = 0.7 * np.sin(2 * np.pi * 440 * t) * 10 ** (-3 * t / 0.5)
    expected += 0.2 * np.sin(2 * np.pi * 1234.5 * t + 1.0) * 10 ** (-3 * t / 0.1)
    got = dsp.ring([440, 1234.5], [0.5, 0.1], [0.7, 0.2], 4000 / SAMPLE_RATE, [0.0, 1.0])
    np.testing.assert_allclose(got, expected, atol=1e-9)


def test_mode_ratios_are_those_of_the_textbook():
    # Fletcher and Rossing: bar 2.756, 5.404; cantilever 6.267; membrane 1.594, 2.136; ring 2.83
    np.testing.assert_allclose(bodies.BAR[1:3], [2.756, 5.404], rtol=1e-3)
    np.testing.assert_allclose(bodies.CANTILEVER[1], 6.267, rtol=1e-3)
    np.testing.assert_allclose(bodies.MEMBRANE[1:3], [1.594, 2.136], rtol=1e-3)
    np.testing.assert_allclose(bodies.CUP[1], 2.828, rtol=1e-3)


@pytest.mark.parametrize("f0_hz", [180.0, 523.25, 1200.0])
def test_pipe_rings_at_its_pitch(f0_hz):
    x = _render("pipe hit", f0_hz=f0_hz, ring_s=3.0)
    cents = 1200 * np.log2(_peak_hz(x, 0.8 * f0_hz, 1.25 * f0_hz) / f0_hz)
    assert abs(cents) < 8  # pairs of modes split by up to 2.6 cents, and a window's width


@pytest.mark.parametrize("ring_s", [0.5, 1.0, 2.0])
def test_lowest_mode_falls_60_db_in_the_time_asked(ring_s):
    f0 = 400.0
    x = _render("pipe hit", f0_hz=f0, ring_s=ring_s)
    low = dsp.lowpass(x, 1.5 * f0, 4)
    # 20 dB of an exponential take a third of 60 dB
    assert _decay_s(low, 20) == pytest.approx(ring_s / 3, rel=0.25)


def test_materials_order_decay_as_they_do_in_life():
    at = np.array([800.0])
    t60 = [m.t60_s(at)[0] for m in (bodies.PLASTIC, bodies.WOOD, bodies.CERAMIC, bodies.STEEL)]
    assert t60 == sorted(t60)


@pytest.mark.parametrize(
    "concept", ["knock on wood", "metal clang", "anvil hit", "glass clink", "stone hit"]
)
def test_a_harder_blow_is_louder_and_brighter(concept):
    soft = _render(concept, intensity=0.2)
    hard = _render(concept, intensity=1.0)
    assert np.max(np.abs(hard)) > 1.5 * np.max(np.abs(soft))
    assert _centroid_hz(hard) > _centroid_hz(soft)


def test_bounces_shrink_by_the_restitution():
    when, speed = dsp.bounces(0.2, 0.7)
    gaps = np.diff(when)
    np.testing.assert_allclose(gaps[1:] / gaps[:-1], 0.7, rtol=1e-9)
    np.testing.assert_allclose(speed[1:] / speed[:-1], 0.7, rtol=1e-9)


@pytest.mark.parametrize("count", [2.0, 4.0, 6.0])
def test_door_is_knocked_as_often_as_asked(count):
    x = _render("door knock", count=count, rate_hz=3.0, f0_hz=120.0)
    click = np.abs(dsp.highpass(x, 900, 4))
    frames = click[: len(click) // 441 * 441].reshape(-1, 441).max(axis=1)
    onsets = np.sum((frames[1:] > 0.25 * frames.max()) & (frames[:-1] <= 0.25 * frames.max()))
    assert onsets + (frames[0] > 0.25 * frames.max()) == count


def test_a_large_pane_breaks_lower_and_longer():
    small = _render("glass shattering", size=0.0)
    large = _render("glass shattering", size=1.0)
    assert _centroid_hz(large) < _centroid_hz(small)
    assert _decay_s(large, 40) > _decay_s(small, 40)


@pytest.mark.parametrize("model", modal.MODELS, ids=lambda m: m.concept)
def test_draws_are_clean_on_both_sides_of_the_split(model):
    for seed in range(5):
        rendering = draw(model, np.random.default_rng(seed), test=bool(seed % 2))
        x = rendering.samples
        assert np.all(np.isfinite(x))
        assert np.max(np.abs(x)) == pytest.approx(1.0)
        # nothing flattened at the top; a low sound stays near its peak for some samples
        assert np.count_nonzero(np.abs(x) > 0.99) < 0.001 * len(x) + 8
        assert 0.03 < len(x) / SAMPLE_RATE <= MAX_SECONDS + 1e-3
        assert abs(np.mean(x)) < 0.01
        assert np.max(np.abs(x[-20:])) < 0.006
        assert abs(x[0]) < 0.05


@pytest.mark.parametrize("model", modal.MODELS[::8], ids=lambda m: m.concept)
def test_the_same_generator_gives_the_same_sound(model):
    one, two = (draw(model, np.random.default_rng(7), test=False).samples for _ in range(2))
    np.testing.assert_array_equal(one, two)
