import numpy as np
import pytest

from clipsynth_training.data.procedural.impacts import MODELS


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.concept)
def test_impact_is_sound(model, check_sound):
    check_sound(model)


@pytest.mark.parametrize("f0", [600.0, 1800.0])
def test_woodblock_follows_its_pitch(f0, pick, render_at, peak_hz):
    samples = render_at(pick(MODELS, "woodblock"), f0_hz=f0)
    assert peak_hz(samples) == pytest.approx(f0, rel=0.05)


def test_longer_ring_is_longer(pick, render_at):
    short, long = (len(render_at(pick(MODELS, "metal hit"), ring_s=r)) for r in (0.3, 2.0))
    assert long > 4 * short


def test_harder_slam_is_louder(pick, render_at):
    soft, hard = (np.std(render_at(pick(MODELS, "door slam"), intensity=i)) for i in (0.1, 0.9))
    assert hard > 1.5 * soft
