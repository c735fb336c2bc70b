"""Each stage alone, at the bundle's default length."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
import pytest

from clipsynth_rt import Synthesizer
from clipsynth_rt.bundles.manifest import DENOISER, DISTILLED
from clipsynth_rt.errors import InputError
from clipsynth_rt.synthesis.schedule import gaussian_noise


def test_text_encoder(benchmark: Any, synthesizer: Synthesizer, facts: dict[str, Any]) -> None:
    facts["templates"] = len(synthesizer.bundle.manifest.condition.templates)
    result = benchmark(synthesizer.encode_text, ["drum"])
    assert result.shape == (1, synthesizer.bundle.manifest.condition.dim)


def test_image_encoder(benchmark: Any, synthesizer: Synthesizer, facts: dict[str, Any]) -> None:
    size = synthesizer.bundle.manifest.condition.image_size
    try:
        synthesizer.load(["image_encoder"])
    except InputError as error:
        pytest.skip(str(error))
    facts["image_size"] = size
    result = benchmark(synthesizer.encode_images, [PIL.Image.new("RGB", (size, size), "teal")])
    assert result.shape == (1, synthesizer.bundle.manifest.condition.dim)


@pytest.mark.parametrize(
    ("denoiser", "guidance_scale"),
    [(DENOISER, 1.0), (DENOISER, 2.0), (DISTILLED, 1.0)],
    ids=["unguided", "guided", "distilled"],
)
def test_denoiser_step(
    benchmark: Any,
    synthesizer: Synthesizer,
    facts: dict[str, Any],
    denoiser: str,
    guidance_scale: float,
) -> None:
    manifest = synthesizer.bundle.manifest
    if denoiser not in manifest.graphs:
        pytest.skip(f"the bundle has no {denoiser}")
    multiple = manifest.diffusion.frames_multiple
    frames = synthesizer.frames_for(-(-manifest.diffusion.default_frames // multiple) * multiple)
    condition = synthesizer.encode_text(["drum"])
    noise = gaussian_noise(0, frames, manifest.mel.n_mels)[None]
    facts.update(
        num_frames=frames,
        guidance_scale=guidance_scale,
        network_calls=1 if guidance_scale == 1.0 else 2,
    )

    def step() -> np.ndarray:
        # one step from noise to mel: one run of the graph
        options: dict[str, Any] = {"num_steps": 1, "guidance_scale": guidance_scale, "noise": noise}
        return synthesizer.sample(condition, [0], frames, denoiser=denoiser, **options)

    assert benchmark(step).shape == noise.shape


def test_vocoder(benchmark: Any, synthesizer: Synthesizer, facts: dict[str, Any]) -> None:
    manifest = synthesizer.bundle.manifest
    frames = synthesizer.frames_for(manifest.diffusion.default_frames)
    mel = synthesizer.sample(synthesizer.encode_text(["drum"]), [0], frames)
    result = benchmark(synthesizer.vocode, mel)
    audio_s = manifest.mel.seconds(frames)
    facts.update(audio_s=audio_s, rtf=benchmark.stats.stats.median / audio_s)
    assert result.shape == (1, frames * manifest.mel.hop_length)
