import numpy as np
import pytest

from clipsynth_training.data.procedural.blasts import MODELS


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.concept)
def test_blast_is_sound(model, check_sound):
    check_sound(model)


@pytest.mark.parametrize("concept", ["explosion", "gunshot", "cannon"])
def test_far_blast_is_duller_and_quieter(concept, pick, render_at, centroid_hz):
    near, far = (render_at(pick(MODELS, concept), distance=d) for d in (0.05, 0.95))
    assert np.max(np.abs(far)) < 0.5 * np.max(np.abs(near))
    assert centroid_hz(far) < centroid_hz(near)


def test_larger_explosion_lasts_longer(pick, render_at):
    small, large = (len(render_at(pick(MODELS, "explosion"), size=s)) for s in (0.1, 0.9))
    assert large > 1.5 * small
