"""The corpus's plan, and its rendering where the soundfonts are."""

import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from clipsynth_rt.errors import DataError
from clipsynth_training.data.sounds import (
    NUM_SAMPLES,
    SOURCES,
    Renderer,
    find_source,
    load_concepts,
    plan_clips,
)


@pytest.fixture(scope="module")
def plans():
    return plan_clips(load_concepts(), 6000, seed=0)


def test_about_a_hundred_concepts_with_the_ones_that_users_ask_for_first():
    names = [concept.name for concept in load_concepts()]
    assert 100 <= len(names) == len(set(names)) <= 120
    asked = {"drum", "piano", "violin", "flute", "guitar", "dog", "rain", "thunder", "siren"}
    assert asked <= set(names)
    for concept in load_concepts():
        assert concept.programs or concept.drum_keys or concept.samples or concept.style == "beat"


def test_same_seed_same_plan(plans):
    assert plans == plan_clips(load_concepts(), 6000, seed=0)
    assert plans != plan_clips(load_concepts(), 6000, seed=1)
    assert len({plan.id for plan in plans}) == len(plans) == 6000


def test_every_concept_is_in_every_split(plans):
    found = defaultdict(set)
    for plan in plans:
        found[plan.concept].add(plan.split)
    assert all(splits == {"train", "validation", "test"} for splits in found.values())


def test_test_clips_use_velocities_pitches_and_tunings_of_their_own(plans):
    used = {"train": defaultdict(set), "test": defaultdict(set)}
    melodic = {c.name for c in load_concepts() if c.style == "melodic"}
    for plan in plans:
        side = "test" if plan.split == "test" else "train"
        for event in plan.events:
            used[side]["velocity"].add(event.velocity)
            if plan.concept in melodic:
                used[side][plan.concept].add(event.key)
        used[side]["tuning"].add(plan.tuning_cents)
    for kind in ("velocity", "tuning", *melodic):
        assert used["test"][kind], kind
        assert not used["train"][kind] & used["test"][kind], kind


def test_too_few_clips_are_refused():
    with pytest.raises(DataError, match="ask for at least"):
        plan_clips(load_concepts(), 10, seed=0)


def test_a_missing_source_is_named_with_its_package(tmp_path):
    with pytest.raises(DataError, match="apt-get install fluid-soundfont-gs"):
        find_source("fluid-gs", tmp_path)


def source_dir() -> Path | None:
    """Return where the soundfonts are: $CLIPSYNTH_SOURCE_DIR or the system."""
    for root in (os.environ.get("CLIPSYNTH_SOURCE_DIR"), "/"):
        if root and all((Path(root) / source.path).exists() for source in SOURCES.values()):
            return Path(root)
    return None


@pytest.mark.skipif(source_dir() is None, reason="soundfonts not found; set CLIPSYNTH_SOURCE_DIR")
def test_a_clip_sounds_the_same_whatever_was_rendered_before(plans):
    pytest.importorskip("fluidsynth")
    some = [plans[i] for i in range(0, 6000, 700)]
    forward, backward = Renderer(source_dir()), Renderer(source_dir())
    first = [forward.render(plan) for plan in some]
    second = [backward.render(plan) for plan in reversed(some)][::-1]
    for a, b in zip(first, second, strict=True):
        assert a.shape == (NUM_SAMPLES,)
        assert a.dtype == np.float32
        assert 0.5 < np.abs(a).max() <= 0.9001
        np.testing.assert_array_equal(a, b)
