import numpy as np
import pytest

from clipsynth_training.data.procedural.model import SAMPLE_RATE
from clipsynth_training.data.procedural.steps import MODELS


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.concept)
def test_repeating_sound_is_sound(model, check_sound):
    check_sound(model)


@pytest.mark.parametrize("count", [3, 6])
def test_knocks_are_as_many_as_asked(count, pick, render_at):
    samples = render_at(pick(MODELS, "door knock"), count=float(count), rate_hz=3.0)
    level = np.abs(samples)
    starts = np.flatnonzero(level > 0.4)
    assert 1 + np.sum(np.diff(starts) > 0.15 * SAMPLE_RATE) == count


def test_footsteps_come_faster_at_a_run(pick, render_at):
    steps = pick(MODELS, "footsteps")
    walk, run = (len(render_at(steps, rate_hz=r, count=6.0)) for r in (1.5, 3.5))
    assert walk > 1.5 * run


def test_footsteps_on_leaves_are_brighter_than_on_wood(pick, render_at, centroid_hz):
    steps = pick(MODELS, "footsteps")
    leaves, wood = (centroid_hz(render_at(steps, surface=s)) for s in ("leaves", "wood"))
    assert leaves > 2 * wood


def test_more_hands_are_louder(pick, render_at):
    few, many = (render_at(pick(MODELS, "applause"), count=c) for c in (4.0, 50.0))
    assert np.std(many) > 1.5 * np.std(few)
