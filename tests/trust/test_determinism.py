"""The same query and seed: the same noise everywhere, and the same sound within a stated bound."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsynth_rt import Synthesizer
from clipsynth_rt.backends.session import Session
from clipsynth_rt.synthesis.captured import clip_inputs
from clipsynth_rt.synthesis.options import SynthOptions, resolve_options
from clipsynth_rt.synthesis.schedule import gaussian_noise

pytest.importorskip("onnxruntime")
THREADS = (1, 2, 4)
TOLERANCE = 1e-4
"""Largest difference of a sample between thread counts, 80 dB under full scale. ONNX Runtime 1.32
gave none on two cores; a thread more may split a sum elsewhere, which the steps then magnify."""


def test_the_bits_of_the_noise_are_fixed() -> None:
    """Before log and cos, which differ in the last place between C libraries."""
    generator = np.random.Philox(key=np.array([7, 3], np.uint64))
    raw = generator.random_raw(1000).astype("<u8").tobytes()
    assert hashlib.sha256(raw).hexdigest() == (
        "893a13b26921f3ba74f1514d1cd3ff5eb6c9a9aed3ea72828cc9661fce781993"
    )
    assert gaussian_noise(7, 5, 4, 3).shape == (4, 5)


@pytest.mark.parametrize("which", ["tiny", "shipped"])
def test_thread_counts(which: str, tiny_bundle: Path) -> None:
    bundle = tiny_bundle if which == "tiny" else None
    sounds = []
    for threads in THREADS:
        with Synthesizer.from_bundle(bundle, "cpu", threads=threads) as synthesizer:
            clip = synthesizer.synth("drum", duration=0.7, num_steps=4, seed=5)
            again = synthesizer.synth("drum", duration=0.7, num_steps=4, seed=5)
        # one thread count, one sound: to the bit
        np.testing.assert_array_equal(again.waveform, clip.waveform)
        sounds.append(clip.waveform)
    for other in sounds[1:]:
        np.testing.assert_allclose(other, sounds[0], atol=TOLERANCE, rtol=0)


def first_noise(synthesizer: Synthesizer, seed: int) -> np.ndarray:
    """Return the x that the denoiser is given first."""
    session: Any = synthesizer.session("denoiser_step")
    seen: list[np.ndarray] = []

    class Recorder(Session):
        provider = session.provider

        def run(self, inputs: Any) -> Any:
            seen.append(np.array(inputs["x"]))
            return session.run(inputs)

    synthesizer.sessions._sessions["denoiser_step"] = Recorder()
    synthesizer.synth("drum", seed=seed, num_steps=1)
    return seen[0]


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_the_same_noise_on_every_provider(provider: str, tiny_bundle: Path) -> None:
    if provider == "openvino":
        pytest.importorskip("openvino")
    synthesizer = Synthesizer.from_bundle(tiny_bundle, provider, threads=1)
    plan = resolve_options(SynthOptions(), synthesizer.bundle.manifest)
    wanted = gaussian_noise(9, plan.num_frames, synthesizer.bundle.manifest.mel.n_mels)
    np.testing.assert_array_equal(first_noise(synthesizer, 9)[0], wanted)


def test_the_same_noise_on_engines(tiny_bundle: Path) -> None:
    """TensorRT's clips begin with it; their bucket may be longer."""
    manifest = Synthesizer.from_bundle(tiny_bundle, "cpu", graphs=()).bundle.manifest
    plan = resolve_options(SynthOptions(), manifest)
    condition = np.zeros((1, manifest.condition.dim), np.float32)
    _, inputs = clip_inputs(manifest, plan, [9], condition)
    wanted = gaussian_noise(9, plan.num_frames, manifest.mel.n_mels)
    np.testing.assert_array_equal(inputs["x"][0][:, : plan.num_frames], wanted)
