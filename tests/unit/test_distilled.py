"""A second denoiser, distilled to few steps: what plays it, and what does not."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from clipsynth_rt import Synthesizer
from clipsynth_rt.backends.session import Session
from clipsynth_rt.backends.tensorrt.engines import all_engines, clip_engines
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.bundles.manifest import DENOISER, DISTILLED, Manifest, frame_buckets
from clipsynth_rt.errors import ManifestError
from clipsynth_rt.synthesis.captured import clip_inputs
from clipsynth_rt.synthesis.options import ResolvedOptions, SynthOptions, resolve_options
from clipsynth_rt.synthesis.samplers import ddim_update
from clipsynth_rt.synthesis.schedule import gaussian_noise, sampling_times

Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
MANY_STEPS, SCALE = 8, 2.0
"""The tiny bundle's ordinary ones; its distilled steps are 2 and 4."""


@pytest.fixture(scope="module")
def manifest(distilled_bundle: Path) -> Manifest:
    return Bundle.open(distilled_bundle).manifest


@pytest.fixture
def copy(distilled_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(distilled_bundle, tmp_path / "bundle"))


class Recorder(Session):
    """A session that counts its runs."""

    provider = "cpu"

    def __init__(self, session: Any) -> None:
        self._session, self.num_steps = session, []  # type: ignore[var-annotated]

    def run(self, inputs: Any) -> Any:
        self.num_steps.append({name: np.array(value) for name, value in inputs.items()})
        return self._session.run(inputs)


def record(synthesizer: Synthesizer, name: str) -> Recorder:
    recorder = Recorder(synthesizer.session(name))
    synthesizer.sessions._sessions[name] = recorder
    return recorder


# what is distilled, and what is not


@pytest.mark.parametrize(
    ("options", "num_steps"),
    [
        ({}, 2),
        ({"num_steps": 2}, 2),
        ({"num_steps": 4}, 4),
        ({"loop": True}, 2),
        ({"duration": 0.5, "template": "{query}", "strength": 0.3}, 2),
    ],
)
def test_a_plain_wish_is_distilled(
    manifest: Manifest, options: dict[str, Any], num_steps: int
) -> None:
    plan = resolve_options(SynthOptions(**options), manifest)
    assert (plan.distilled, plan.denoiser) == (True, DISTILLED)
    assert (plan.num_steps, plan.guidance_scale) == (num_steps, 1.0)


@pytest.mark.parametrize(
    ("options", "num_steps", "guidance_scale"),
    [
        ({"num_steps": 3}, 3, SCALE),
        ({"num_steps": 8, "guidance_scale": 3.0}, 8, 3.0),
        ({"guidance_scale": 3.0}, MANY_STEPS, 3.0),
        ({"num_steps": 2, "guidance_scale": 1.0}, 2, 1.0),
        ({"num_steps": 2, "guidance_scale": SCALE}, 2, SCALE),
        ({"negative": "dog"}, MANY_STEPS, SCALE),
        ({"sampler": "dpmpp_2m"}, MANY_STEPS, SCALE),
        ({"eta": 0.5}, MANY_STEPS, SCALE),
        ({"num_steps": 2, "eta": 0.5}, 2, SCALE),
        # sampled in windows
        ({"duration": 10.0}, MANY_STEPS, SCALE),
    ],
)
def test_all_else_is_the_ordinary_denoisers(
    manifest: Manifest, options: dict[str, Any], num_steps: int, guidance_scale: float
) -> None:
    plan = resolve_options(SynthOptions(**options), manifest)
    assert (plan.distilled, plan.denoiser) == (False, DENOISER)
    assert (plan.num_steps, plan.guidance_scale) == (num_steps, guidance_scale)


def test_a_variation_of_a_sound_needs_the_steps_between(manifest: Manifest) -> None:
    plan = resolve_options(SynthOptions(), manifest, init_s=1.0)
    assert (plan.distilled, plan.num_steps, plan.guidance_scale) == (False, MANY_STEPS, SCALE)


def test_the_longest_sound_in_one_go_is_distilled(manifest: Manifest) -> None:
    longest = frame_buckets(manifest)[-1]
    seconds = manifest.mel.seconds(longest)
    assert resolve_options(SynthOptions(duration=seconds), manifest).distilled
    assert not resolve_options(SynthOptions(duration=seconds + 0.01), manifest).distilled


def test_a_bundle_without_one_is_as_before(tiny_bundle: Path) -> None:
    plan = resolve_options(SynthOptions(num_steps=2), Bundle.open(tiny_bundle).manifest)
    assert (plan.distilled, plan.denoiser, plan.guidance_scale) == (False, DENOISER, SCALE)
    assert Bundle.open(tiny_bundle).manifest.usual_denoiser == DENOISER


# the manifest


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([], r"distilled_steps: empty, and graphs\.denoiser_step_distilled is there"),
        ([0], "distilled_steps: 0 is not from 1 to 1000"),
        ([1001], "distilled_steps: 1001 is not from 1 to 1000"),
        ([2, 4, 2], r"distilled_steps: \[2, 4, 2\] names a number twice"),
        ([2.0], r"distilled_steps\[0\]: expected int, got 2\.0"),
        ([True], r"distilled_steps\[0\]: expected int, got True"),
        (2, "distilled_steps: expected a list"),
    ],
)
def test_step_counts_that_cannot_be(
    copy: Path, edit_manifest: Edit, counts: Any, message: str
) -> None:
    edit_manifest(copy, lambda m: m["diffusion"].update(distilled_steps=counts))
    with pytest.raises(ManifestError, match=message):
        Bundle.open(copy)


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_both_denoisers_have_one_interface(copy: Path, edit_manifest: Edit, side: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        tensors = manifest["graphs"][DISTILLED][side]
        tensors[f"{min(tensors)}_"] = tensors.pop(min(tensors))

    edit_manifest(copy, change)
    with pytest.raises(ManifestError, match=rf"{DISTILLED}\.{side}: other than denoiser_step's"):
        Bundle.open(copy)


def test_a_manifest_of_schema_1_is_still_read(tiny_copy: Path, edit_manifest: Edit) -> None:
    def older(manifest: dict[str, Any]) -> None:
        manifest["schema_version"] = 1
        del manifest["diffusion"]["distilled_steps"]

    edit_manifest(tiny_copy, older)
    manifest = Bundle.open(tiny_copy).manifest
    assert manifest.diffusion.distilled_steps == ()
    assert Synthesizer.from_bundle(tiny_copy, "cpu", threads=1).synth("drum").network_calls == 16


def test_the_manifest_comes_back_as_it_was_written(manifest: Manifest) -> None:
    assert Manifest.from_dict(json.loads(json.dumps(manifest.to_dict()))) == manifest
    assert manifest.diffusion.distilled_steps == (2, 4)
    assert manifest.usual_denoiser == DISTILLED


# what runs


def test_two_calls_of_the_distilled_graph_and_no_other(
    distilled_bundle: Path, tiny: ModuleType
) -> None:
    synthesizer = Synthesizer.from_bundle(distilled_bundle, "cpu", threads=1)
    recorder = record(synthesizer, DISTILLED)
    clip = synthesizer.synth("drum", seed=3)
    assert len(recorder.num_steps) == clip.network_calls == clip.num_steps == 2
    assert (clip.distilled, clip.guidance_scale) == (True, 1.0)
    assert DENOISER not in synthesizer.loaded
    for call in recorder.num_steps:
        assert call["condition"].shape == (1, 1, tiny.DIM)
        assert call["weights"].tolist() == [1.0]
        assert call["eta"].tolist() == [0.0]
    # the steps are those of plain DDIM
    spec = synthesizer.bundle.manifest.diffusion
    times = sampling_times(2, spec)
    first, second = recorder.num_steps
    np.testing.assert_array_equal(first["x"][0], gaussian_noise(3, 48, tiny.BINS))
    x0 = synthesizer.session(DISTILLED).run(first)["x0"]
    expected = ddim_update(first["x"], x0, times[0], times[1], 0.0, np.zeros_like(x0))
    np.testing.assert_allclose(second["x"], expected, atol=1e-5)


def test_one_synthesizer_plays_both_and_loads_each_when_it_is_needed(
    distilled_bundle: Path,
) -> None:
    synthesizer = Synthesizer.from_bundle(distilled_bundle, "cpu", threads=1)
    assert set(synthesizer.loaded) == {"text_encoder", DISTILLED, "vocoder"}
    few = synthesizer.synth("drum")
    assert DENOISER not in synthesizer.loaded
    many = synthesizer.synth("drum", guidance_scale=SCALE)
    assert DENOISER in synthesizer.loaded
    assert (many.distilled, many.num_steps, many.network_calls) == (False, 8, 16)
    assert not np.allclose(few.waveform, many.waveform, atol=1e-3)
    other = Synthesizer.from_bundle(distilled_bundle, "cpu", threads=1, graphs=())
    other.load_for(num_steps=8)
    assert set(other.loaded) == {"text_encoder", DENOISER, "vocoder"}


def test_the_ordinary_denoiser_is_that_of_a_bundle_without_another(
    tiny_bundle: Path, distilled_bundle: Path
) -> None:
    options: dict[str, Any] = {"num_steps": 8, "guidance_scale": 2.0, "duration": 0.3}
    with (
        Synthesizer.from_bundle(tiny_bundle, "cpu", threads=1) as one,
        Synthesizer.from_bundle(distilled_bundle, "cpu", threads=1, graphs=()) as two,
    ):
        np.testing.assert_array_equal(
            one.synth("dog", **options).waveform, two.synth("dog", **options).waveform
        )
        assert DISTILLED not in two.loaded


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_loops_takes_batches_and_streams(distilled_bundle: Path, provider: str) -> None:
    pytest.importorskip("onnxruntime" if provider == "cpu" else provider)
    with Synthesizer.from_bundle(distilled_bundle, provider, threads=1) as synthesizer:
        synthesizer.warm_up()
        made = synthesizer.synth_batch(["drum", "dog"], seed=4, duration=0.2)
        made += [synthesizer.synth("rain", loop=True)]
        with synthesizer.stream(["snare"], duration=0.2) as stream:
            made += list(stream)
        assert [clip.network_calls for clip in made] == [2, 2, 2, 2]
        assert all(clip.distilled for clip in made)
        assert DENOISER not in synthesizer.loaded
        alone = synthesizer.synth("dog", seed=5, duration=0.2)
        np.testing.assert_allclose(alone.waveform, made[1].waveform, atol=1e-5)


def test_a_long_sound_takes_the_ordinary_denoiser(distilled_bundle: Path) -> None:
    with Synthesizer.from_bundle(distilled_bundle, "cpu", threads=1) as synthesizer:
        clip = synthesizer.synth("rain", duration=4.0, num_steps=2)
        assert not clip.distilled
        assert clip.network_calls == 2 * 2 * len(synthesizer.windows(352))


# engines


def test_the_denoisers_have_engines_of_their_own(distilled_bundle: Path) -> None:
    bundle = Bundle.open(distilled_bundle)
    specs = {spec.label: spec for spec in all_engines(bundle)}
    ours = {label for label in specs if label.startswith(DISTILLED)}
    # two batches of one bucket, and no guidance: that is in the weights
    assert ours == {f"{DISTILLED}-b{batch}-f168-g1" for batch in (1, 4)}
    one, other = (
        clip_engines(bundle, batch=1, frames=168, guided=False, denoiser=name)[1]
        for name in (DISTILLED, DENOISER)
    )
    assert one.label != other.label
    assert one.graph.digest != other.graph.digest


def test_a_captured_clip_is_of_one_denoiser(manifest: Manifest) -> None:
    def key(plan: ResolvedOptions) -> Any:
        condition = np.zeros((1, manifest.condition.dim), np.float32)
        return clip_inputs(manifest, plan, [0], condition)[0]

    plan = resolve_options(SynthOptions(), manifest)
    ordinary = dataclasses.replace(plan, distilled=False)
    assert key(plan) != key(ordinary)
    assert (key(plan).denoiser, key(ordinary).denoiser) == (DISTILLED, DENOISER)


def test_on_engines_the_two_never_mix(distilled_bundle: Path, fake_gpu: Any) -> None:
    with (
        Synthesizer.from_bundle(distilled_bundle, "cpu", threads=1) as cpu,
        Synthesizer.from_bundle(distilled_bundle, "tensorrt-rtx") as gpu,
    ):
        for options in ({}, {"num_steps": 2, "guidance_scale": 1.0}, {"loop": True}):
            want = cpu.synth("drum", seed=7, **options)
            have = gpu.synth("drum", seed=7, **options)
            assert (have.distilled, have.network_calls) == (want.distilled, want.network_calls)
            np.testing.assert_allclose(have.waveform, want.waveform, atol=1e-4)
        assert gpu.engines is not None
        # two steps each, and a graph each; the loop runs step by step
        assert gpu.engines.captures == 2
