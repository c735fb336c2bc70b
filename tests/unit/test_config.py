"""What a caller may wish for, and what is refused."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import pytest

from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.bundles.manifest import Manifest, frame_buckets
from clipsynth_rt.errors import InputError
from clipsynth_rt.synthesis.options import MAX_DURATION_S, SynthOptions, resolve_options


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Any) -> Manifest:
    return Bundle.open(tiny_bundle).manifest


def test_none_is_what_the_bundle_says(manifest: Manifest, tiny: ModuleType) -> None:
    plan = resolve_options(SynthOptions(), manifest)
    assert plan.num_steps == tiny.DIFFUSION.num_steps
    assert plan.guidance_scale == tiny.DIFFUSION.guidance_scale
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
    plan = resolve_options(SynthOptions(duration=seconds), manifest)
    assert (plan.num_frames, plan.num_samples) == (frames, samples)
    assert plan.num_frames * 256 >= plan.num_samples


def test_the_longest_clip(manifest: Manifest) -> None:
    # a minute is 5167.97 frames, whatever the bundle samples in one go
    plan = resolve_options(SynthOptions(duration=MAX_DURATION_S), manifest)
    assert (plan.num_frames, plan.num_samples) == (5168, 60 * 22050)
    with pytest.raises(InputError, match="duration must be from"):
        resolve_options(SynthOptions(duration=MAX_DURATION_S + 1e-4), manifest)


def test_a_loop_keeps_its_length_and_samples_some_beyond_its_end(manifest: Manifest) -> None:
    plan = resolve_options(SynthOptions(duration=1.0, loop=True), manifest)
    # 86.13 frames, an eighth more, and rounded up to a multiple of 8
    assert (plan.loop_frames, plan.num_samples, plan.num_frames) == (87, 22050, 104)
    # the usual length is what it is without a loop
    plain, usual = (resolve_options(SynthOptions(loop=loop), manifest) for loop in (False, True))
    assert usual.num_samples == plain.num_samples == 44 * 256
    assert (usual.loop_frames, usual.num_frames) == (44, 56)


def test_a_loop_near_the_longest_window_is_sampled_in_one(manifest: Manifest) -> None:
    longest = frame_buckets(manifest)[-1]
    seconds = manifest.mel.seconds(longest - 8)
    plan = resolve_options(SynthOptions(duration=seconds, loop=True), manifest)
    assert (plan.loop_frames, plan.num_frames) == (longest - 8, longest)


def test_a_sound_to_start_from_gives_its_length(manifest: Manifest) -> None:
    assert resolve_options(SynthOptions(), manifest, 1.5).num_samples == round(1.5 * 22050)
    assert resolve_options(SynthOptions(duration=1.0), manifest, 1.5).num_samples == 22050
    plan = resolve_options(SynthOptions(num_steps=8, strength=0.01), manifest)
    assert plan.init_steps == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0, 1e9])
def test_impossible_durations(manifest: Manifest, value: float) -> None:
    with pytest.raises(InputError, match=r"duration must be from .* to .* s, got"):
        resolve_options(SynthOptions(duration=value), manifest)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 30.1])
def test_impossible_guidance(manifest: Manifest, value: float) -> None:
    with pytest.raises(InputError, match="guidance_scale must be from 0 to 30, got"):
        resolve_options(SynthOptions(guidance_scale=value), manifest)


@pytest.mark.parametrize("value", [math.nan, -0.1, 1.1])
def test_impossible_eta(manifest: Manifest, value: float) -> None:
    with pytest.raises(InputError, match="eta must be from 0 to 1, got"):
        resolve_options(SynthOptions(eta=value), manifest)


@pytest.mark.parametrize("value", [0, -1, 1001])
def test_impossible_steps(manifest: Manifest, value: int) -> None:
    with pytest.raises(InputError, match=f"num_steps must be from 1 to 1000, got {value}"):
        resolve_options(SynthOptions(num_steps=value), manifest)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SynthOptions(sampler="euler"), "unknown sampler 'euler'"),
        (SynthOptions(sampler="dpmpp_2m", eta=0.5), "eta is for the ddim sampler"),
        (SynthOptions(template="a photo"), r"template 'a photo' has no \{query\}"),
        (SynthOptions(template=[]), "no template given"),
        (SynthOptions(negative="  "), "negative is empty"),
    ],
)
def test_wishes_that_make_no_sense(manifest: Manifest, config: SynthOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_options(config, manifest)
