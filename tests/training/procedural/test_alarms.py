import pytest

from clipsynth_training.data.procedural.alarms import MODELS


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.concept)
def test_alarm_is_sound(model, check_sound):
    check_sound(model)


def test_smoke_alarm_follows_its_pitch(pick, render_at, peak_hz):
    samples = render_at(pick(MODELS, "smoke alarm"), f0_hz=3000.0, rate_hz=1.0)
    assert peak_hz(samples) == pytest.approx(3000.0, rel=0.02)
