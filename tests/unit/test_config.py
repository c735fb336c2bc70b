"""What a caller may wish for, and what is refused."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import pytest

from clipsynth_rt.bundle import Bundle
from clipsynth_rt.config import SynthConfig, make_plan
from clipsynth_rt.errors import InputError
from clipsynth_rt.spec import Manifest


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Any) -> Manifest:
    return Bundle.open(tiny_bundle).manifest


def test_none_is_what_the_bundle_says(manifest: Manifest, tiny: ModuleType) -> None:
    plan = make_plan(SynthConfig(), manifest)
    assert plan.steps == tiny.DIFFUSION.num_steps
    assert plan.guidance == tiny.DIFFUSION.guidance_scale
    assert plan.templates == ("a photo of {query}", "the sound of {query}")
    # 44 frames asked for, in whole multiples of 8
    assert plan.num_frames == 48
    assert plan.num_samples == 44 * 256


@pytest.mark.parametrize(
    ("seconds", "frames", "samples"),
    [(0.25, 24, 5512), (8 * 256 / 22050, 8, 2048), (8 * 256 / 22050 + 1e-3, 16, 2070)],
)
def test_duration_is_exact_in_samples(
    manifest: Manifest, seconds: float, frames: int, samples: int
) -> None:
    plan = make_plan(SynthConfig(duration_s=seconds), manifest)
    assert (plan.num_frames, plan.num_samples) == (frames, samples)
    assert plan.num_frames * 256 >= plan.num_samples


def test_the_longest_clip_stays_within_the_limit(manifest: Manifest, tiny: ModuleType) -> None:
    # 172 frames at most, of which 168 are whole multiples of 8
    longest = 168 * 256 / 22050
    assert make_plan(SynthConfig(duration_s=longest), manifest).num_frames == 168
    with pytest.raises(InputError, match="duration must be from"):
        make_plan(SynthConfig(duration_s=longest + 1e-4), manifest)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0, 1e9])
def test_impossible_durations(manifest: Manifest, value: float) -> None:
    with pytest.raises(InputError, match=r"duration must be from .* to .* s, got"):
        make_plan(SynthConfig(duration_s=value), manifest)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 30.1])
def test_impossible_guidance(manifest: Manifest, value: float) -> None:
    with pytest.raises(InputError, match="guidance must be from 0 to 30, got"):
        make_plan(SynthConfig(guidance=value), manifest)


@pytest.mark.parametrize("value", [math.nan, -0.1, 1.1])
def test_impossible_eta(manifest: Manifest, value: float) -> None:
    with pytest.raises(InputError, match="eta must be from 0 to 1, got"):
        make_plan(SynthConfig(eta=value), manifest)


@pytest.mark.parametrize("value", [0, -1, 1001])
def test_impossible_steps(manifest: Manifest, value: int) -> None:
    with pytest.raises(InputError, match=f"steps must be from 1 to 1000, got {value}"):
        make_plan(SynthConfig(steps=value), manifest)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SynthConfig(sampler="euler"), "unknown sampler 'euler'"),
        (SynthConfig(sampler="dpmpp_2m", eta=0.5), "eta is for the ddim sampler"),
        (SynthConfig(template="a photo"), r"template 'a photo' has no \{query\}"),
        (SynthConfig(template=[]), "no template given"),
        (SynthConfig(negative="  "), "negative is empty"),
    ],
)
def test_wishes_that_make_no_sense(manifest: Manifest, config: SynthConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_plan(config, manifest)
