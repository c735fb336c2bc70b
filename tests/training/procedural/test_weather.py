import numpy as np
import pytest

from clipsynth_training.data.procedural.weather import MODELS


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.concept)
def test_weather_is_sound(model, check_sound):
    check_sound(model)


@pytest.mark.parametrize("concept", ["rain", "hail", "wind", "waterfall", "boiling water"])
def test_more_intensity_is_louder(concept, pick, render_at):
    quiet, loud = (np.std(render_at(pick(MODELS, concept), intensity=i)) for i in (0.1, 0.9))
    assert loud > 1.5 * quiet


def test_rain_on_a_tent_is_duller_than_on_pavement(pick, render_at, centroid_hz):
    rain = pick(MODELS, "rain")
    tent, pavement = (centroid_hz(render_at(rain, surface=s)) for s in ("tent", "pavement"))
    assert pavement > 2 * tent


def test_far_thunder_is_duller_and_quieter(pick, render_at, centroid_hz):
    near, far = (render_at(pick(MODELS, "thunder"), distance=d) for d in (0.05, 0.95))
    assert centroid_hz(far) < 0.5 * centroid_hz(near)
    assert np.std(far) < np.std(near)


def test_larger_drop_is_lower(pick, render_at, peak_hz):
    small, large = (
        peak_hz(render_at(pick(MODELS, "water drop"), size_mm=s, count=1.0)) for s in (1.2, 5.0)
    )
    assert small > 2.5 * large
