import pytest

from clipsynth_training.data.procedural.retro import MODELS


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.concept)
def test_retro_sound_is_sound(model, check_sound):
    check_sound(model)


@pytest.mark.parametrize("f0", [250.0, 1500.0])
def test_blip_follows_its_pitch(f0, pick, render_at, peak_hz):
    samples = render_at(pick(MODELS, "blip"), f0_hz=f0, duration_s=0.2)
    assert peak_hz(samples) == pytest.approx(f0, rel=0.03)


@pytest.mark.parametrize(
    ("concept", "rises"), [("retro jump", True), ("power down", False), ("charge up", True)]
)
def test_sweep_goes_its_way(concept, rises, pick, render_at, centroid_hz):
    samples = render_at(pick(MODELS, concept))
    third = len(samples) // 3
    assert (centroid_hz(samples[-third:]) > centroid_hz(samples[:third])) == rises


def test_retro_explosion_is_brighter_with_a_faster_clock(pick, render_at, centroid_hz):
    explosion = pick(MODELS, "retro explosion")
    low, high = (centroid_hz(render_at(explosion, brightness_hz=f)) for f in (400.0, 4000.0))
    assert high > 2 * low
