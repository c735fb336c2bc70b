import pytest

from clipsynth_training.data.procedural.interface import MODELS


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.concept)
def test_interface_sound_is_sound(model, check_sound):
    check_sound(model)


@pytest.mark.parametrize("f0", [200.0, 1000.0, 4000.0])
def test_beep_follows_its_pitch_and_length(f0, pick, render_at, peak_hz):
    samples = render_at(pick(MODELS, "beep"), f0_hz=f0, duration_s=0.5)
    assert peak_hz(samples) == pytest.approx(f0, rel=0.02)
    assert len(samples) == 22_050


def test_swipe_is_brighter_with_a_brighter_band(pick, render_at, centroid_hz):
    swipe = pick(MODELS, "swipe")
    low, high = (centroid_hz(render_at(swipe, brightness_hz=f)) for f in (1000.0, 5000.0))
    assert high > 2 * low
