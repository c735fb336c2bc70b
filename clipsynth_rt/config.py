"""What a caller wishes for one synthesis, and what the bundle makes of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from clipsynth_rt.errors import InputError
from clipsynth_rt.spec import MAX_GUIDANCE, Manifest

SAMPLERS = ("ddim", "dpmpp_2m")


@dataclass(frozen=True)
class SynthConfig:
    """Per-call wishes; None means what the bundle says.

    Attributes:
        duration_s: Seconds of sound; the longest is the bundle's ``diffusion.max_frames``.
        steps: Denoising steps, 1 to 1,000.
        guidance: Scale w, 0 to ``MAX_GUIDANCE``; 1 is off (and twice as fast), 0 ignores the query.
        eta: 0 is deterministic DDIM, 1 ancestral sampling.
        negative: What to steer away from; None is the learned null condition.
        template: One template or several to average, each with ``{query}`` in it.
        sampler: One of ``SAMPLERS``.
    """

    duration_s: float | None = None
    steps: int | None = None
    guidance: float | None = None
    eta: float = 0.0
    negative: str | None = None
    template: str | Sequence[str] | None = None
    sampler: str = "ddim"


class SynthWishes(TypedDict, total=False):
    """The fields of ``SynthConfig`` as keyword arguments."""

    duration_s: float | None
    steps: int | None
    guidance: float | None
    eta: float
    negative: str | None
    template: str | Sequence[str] | None
    sampler: str


@dataclass(frozen=True)
class SynthPlan:
    """A ``SynthConfig`` with every blank filled in and every value checked.

    Attributes:
        num_frames: Frames to sample, a multiple of the bundle's ``frames_multiple``.
        num_samples: Samples to keep of what is vocoded.
        steps: Denoising steps.
        guidance: Scale w.
        eta: Share of fresh noise a step.
        negative: What to steer away from, or None.
        templates: At least one.
        sampler: One of ``SAMPLERS``.
    """

    num_frames: int
    num_samples: int
    steps: int
    guidance: float
    eta: float
    negative: str | None
    templates: tuple[str, ...]
    sampler: str


def make_plan(config: SynthConfig, manifest: Manifest) -> SynthPlan:
    """Fill in what ``config`` leaves to the bundle, and check the rest.

    Raises:
        InputError: If a value is not finite or out of range; the message gives the range.
    """
    mel, diffusion = manifest.mel, manifest.diffusion
    if config.sampler not in SAMPLERS:
        raise InputError(f"unknown sampler {config.sampler!r}; use one of {', '.join(SAMPLERS)}")
    steps = diffusion.num_steps if config.steps is None else config.steps
    if not 1 <= steps <= diffusion.num_train_timesteps:
        raise InputError(f"steps must be from 1 to {diffusion.num_train_timesteps}, got {steps}")
    guidance = diffusion.guidance_scale if config.guidance is None else config.guidance
    _in_range("guidance", guidance, 0.0, MAX_GUIDANCE)
    _in_range("eta", config.eta, 0.0, 1.0)
    if config.sampler != "ddim" and config.eta > 0.0:
        raise InputError(f"eta is for the ddim sampler; {config.sampler} is deterministic")
    longest = mel.seconds(diffusion.max_frames - diffusion.max_frames % diffusion.frames_multiple)
    duration_s = config.duration_s
    if duration_s is None:
        duration_s = mel.seconds(diffusion.default_frames)
    _in_range("duration", duration_s, mel.seconds(1), longest, " s")
    multiple = diffusion.frames_multiple
    return SynthPlan(
        num_frames=math.ceil(mel.frames(duration_s) / multiple) * multiple,
        num_samples=round(duration_s * mel.sample_rate),
        steps=steps,
        guidance=float(guidance),
        eta=float(config.eta),
        negative=None if config.negative is None else check_query(config.negative, "negative"),
        templates=_templates(config.template, manifest),
        sampler=config.sampler,
    )


def check_query(query: str, what: str = "query") -> str:
    """Return ``query`` without surrounding blanks.

    Raises:
        InputError: If nothing is left.
    """
    text = query.strip()
    if not text:
        raise InputError(f'{what} is empty; say what to hear, for example "drum"')
    return text


def _in_range(name: str, value: float, low: float, high: float, unit: str = "") -> None:
    # written so that NaN, which compares false with everything, is refused too
    if not low <= value <= high:
        raise InputError(f"{name} must be from {low:.4g} to {high:.4g}{unit}, got {value:g}")


def _templates(template: str | Sequence[str] | None, manifest: Manifest) -> tuple[str, ...]:
    if template is None:
        return manifest.condition.templates
    templates = (template,) if isinstance(template, str) else tuple(template)
    if not templates:
        raise InputError("no template given; leave it out for the bundle's own")
    for text in templates:
        if "{query}" not in text:
            raise InputError(f"template {text!r} has no {{query}} in it")
    return templates
