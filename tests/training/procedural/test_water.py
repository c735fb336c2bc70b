"""Physics of bubbles and of what they make up."""

from __future__ import annotations

import numpy as np
import pytest

from clipsynth_training.data.procedural import dsp, water
from clipsynth_training.data.procedural.model import MAX_SECONDS, SAMPLE_RATE, draw

BY_NAME = {model.concept: model for model in water.MODELS}


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


@pytest.mark.parametrize("radius_m", [0.001, 0.003, 0.01])
def test_bubble_rings_as_minnaert_says(radius_m):
    # 3 gamma p / rho: 3.26 m/s at one atmosphere, so 1 mm rings at 3.26 kHz
    expected = np.sqrt(3 * 1.4 * 101_325 / 1000) / (2 * np.pi * radius_m)
    x = water.bubble(radius_m, 0.0)
    assert _peak_hz(x, 0.7 * expected, 1.4 * expected) == pytest.approx(expected, rel=0.02)


def test_a_bubble_near_the_surface_rises_in_pitch():
    x = water.bubble(0.006, 0.15)
    half = len(x) // 2
    assert _peak_hz(x[half:], 200, 2000) > 1.1 * _peak_hz(x[:half], 200, 2000)


def test_radii_follow_a_power_law():
    radii = water.radii(20_000, 0.001, 0.01, np.random.default_rng(0))
    assert 0.001 <= radii.min()
    assert radii.max() <= 0.01
    # the integral of r ** -1.6 between the limits
    total = 0.001**-0.6 - 0.01**-0.6
    assert np.mean(radii < 0.002) == pytest.approx((0.001**-0.6 - 0.002**-0.6) / total, abs=0.02)
    assert np.mean(radii > 0.005) == pytest.approx((0.005**-0.6 - 0.01**-0.6) / total, abs=0.02)


@pytest.mark.parametrize("rate_hz", [1.5, 4.0])
def test_drips_come_at_their_rate(rate_hz):
    x = _render("dripping water", rate_hz=rate_hz)
    assert _onsets(x, 0.5 / rate_hz) == pytest.approx(4.0 * rate_hz, abs=1.5)


@pytest.mark.parametrize("concept", ["stream", "stone thrown in water", "bubbles", "splash"])
def test_large_is_lower(concept):
    small, large = (_render(concept, size=s) for s in (0.0, 1.0))
    assert _centroid_hz(large) < _centroid_hz(small)


def test_a_glass_that_fills_climbs_in_pitch():
    x = _render("pouring water", f0_hz=400.0, duration_s=3.0, intensity=0.2)
    third = len(x) // 3
    lows = [_centroid_hz(dsp.lowpass(part, 1200, 4)) for part in (x[:third], x[-third:])]
    assert lows[1] > lows[0]


def test_a_far_waterfall_is_duller():
    near, far = (_render("waterfall", distance=d) for d in (0.0, 1.0))
    assert _centroid_hz(far) < 0.6 * _centroid_hz(near)


@pytest.mark.parametrize("model", water.MODELS, ids=lambda m: m.concept)
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
