"""Samples of a denoiser in training: the same few conditions and noise, again and again."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from clipsynth_rt.audio.clip import AudioClip, finish
from clipsynth_rt.bundles.manifest import DiffusionSpec, MelSpec
from clipsynth_rt.files import write_atomically
from clipsynth_rt.synthesis.schedule import alpha_sigma, sampling_times
from clipsynth_training.denoiser.conditions import ConditionedMels
from clipsynth_training.denoiser.diffusion import ddim_step, predict_x0
from clipsynth_training.denoiser.unet import UNet
from clipsynth_training.mel import MelSpectrogram
from clipsynth_training.run.log import RunLog
from clipsynth_training.vocoder.griffin_lim import griffin_lim_from_mel
from clipsynth_training.vocoder.network import load_vocoder

NUM_STEPS = 8
SAMPLES = 6
"""Conditions that are sampled where nobody named any."""
_DARKEST, _BRIGHTEST = -1.0, 3.0
_CAPTION = 12


@dataclass(frozen=True)
class SampleSpec:
    """What is sampled as a run goes on.

    Attributes:
        names: What each sample is called.
        condition: Unit embeddings, float32 [B, D].
        every: Steps from one time to the next.
        sounds: WAV files too, by the vocoder of the run's folder, or by Griffin-Lim where the
            folder holds none.
    """

    names: tuple[str, ...]
    condition: Tensor
    every: int = 1000
    sounds: bool = False


def choose_samples(
    data: ConditionedMels,
    clip: Any,
    queries: Sequence[str],
    variant: str,
    labels: Sequence[str],
    every: int,
    sounds: bool = False,
) -> SampleSpec:
    """Choose what a run samples as it goes: ``queries``, or else a few of what it learns from.

    Args:
        data: What it trains on.
        clip: From ``clipsynth_training.clip.encoder.load_clip``.
        queries: Texts, in the encoder's own templates; a few labels, or clips' pictures if empty.
        variant: What conditions training.
        labels: Names that may stand for ``queries``.
        every: Steps between samples.
        sounds: Whether they are made into sound.
    """
    if not queries and variant != "image":
        queries = spread(labels, SAMPLES)
    if queries:
        return SampleSpec(tuple(queries), clip.encode_queries(queries), every, sounds)
    clips = spread(data.usable(variant).tolist(), SAMPLES)
    names = tuple(f"picture of clip {number}" for number in clips)
    return SampleSpec(names, data.image[clips, 0], every, sounds)


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """Return ``count`` items, evenly spread."""
    picked = np.linspace(0, len(items) - 1, min(count, len(items)))
    return [items[round(place)] for place in picked]


@torch.no_grad()
def sample_mels(
    model: UNet, condition: Tensor, spec: DiffusionSpec, frames: int, num_steps: int = NUM_STEPS
) -> Tensor:
    """Return normalised mels, float32 [B, M, F], by DDIM with guidance from noise of seed 0.

    Args:
        model: The denoiser, in evaluation mode.
        condition: Unit embeddings [B, D].
        spec: Supplies schedule, guidance scale and bounds.
        frames: Length F.
        num_steps: Denoiser steps.

    Source:
        Song et al. 2021, arXiv:2010.02502; Ho & Salimans 2022, arXiv:2207.12598.
    """
    device, count, w = condition.device, len(condition), spec.guidance_scale
    both = torch.cat([condition, torch.zeros_like(condition)])

    shape = (count, model.config.n_mels, frames)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    for t, s in pairwise(map(float, sampling_times(num_steps, spec))):
        time = torch.full((2 * count,), t, device=device)
        v_cond, v_uncond = model(x.repeat(2, 1, 1), time, both).float().chunk(2)
        v = v_uncond + w * (v_cond - v_uncond)
        x0 = predict_x0(x, v, *alpha_sigma(t)).clamp(spec.x0_min, spec.x0_max)
        x = ddim_step(x, x0, alpha_sigma(t), alpha_sigma(s))
    return x.cpu()


def write_samples(
    folder: Path,
    step: int,
    model: UNet,
    what: SampleSpec,
    mel: MelSpec,
    diffusion: DiffusionSpec,
    frames: int,
    log: RunLog,
) -> Path:
    """Write ``folder`` / samples / step-N.png, and WAV files if wanted; return the picture.

    Raises:
        OutputError: If they cannot be written.
    """
    target = folder / "samples"
    target.mkdir(parents=True, exist_ok=True)
    mels = sample_mels(model, what.condition, diffusion, frames)
    pixels = draw_mels(mels.numpy(), what.names)
    path = target / f"step-{step:08d}.png"
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    write_atomically(path, encoded.getvalue())
    log.picture(step, "samples", pixels)
    if what.sounds:
        waveforms = _vocode(folder, mels, mel)
        for number, (name, waveform) in enumerate(zip(what.names, waveforms, strict=True)):
            clip = AudioClip(finish(waveform, len(waveform), mel.sample_rate), mel.sample_rate)
            clip.save(target / f"step-{step:08d}-{number}.wav")
            log.sound(step, f"{number} {name}", clip.waveform, mel.sample_rate)
    return path


def draw_mels(mels: NDArray[np.float32], names: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return normalised mels [B, M, F] one below the other with their names, uint8 [H, W, 3]."""
    count, height, width = mels.shape
    level = np.clip((mels - _DARKEST) / (_BRIGHTEST - _DARKEST), 0.0, 1.0)
    grey = (255.0 * level[:, ::-1]).astype(np.uint8)  # low frequencies at the bottom
    page = Image.new("L", (width, count * (height + _CAPTION)), 255)
    draw = ImageDraw.Draw(page)
    for number, (picture, name) in enumerate(zip(grey, names, strict=True)):
        top = number * (height + _CAPTION)
        draw.text((2, top), name.encode("latin-1", "replace").decode("latin-1"), fill=0)
        page.paste(Image.fromarray(picture), (0, top + _CAPTION))
    return np.asarray(page.convert("RGB"))


def _vocode(folder: Path, mels: Tensor, spec: MelSpec) -> NDArray[np.float32]:
    if (folder / "vocoder.json").is_file():
        vocoder, _ = load_vocoder(folder)
        with torch.no_grad():
            return vocoder(mels).numpy()
    return griffin_lim_from_mel(mels, MelSpectrogram(spec)).numpy()
