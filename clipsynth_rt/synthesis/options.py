"""What a caller options for one synthesis, and what the bundle makes of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from clipsynth_rt.audio.loudness import check_lufs
from clipsynth_rt.backends.tensorrt.engines import frame_buckets
from clipsynth_rt.bundles.manifest import DENOISER, DISTILLED, Manifest
from clipsynth_rt.bundles.manifest import MAX_GUIDANCE as MAX_GUIDANCE
from clipsynth_rt.errors import InputError

SAMPLERS = ("ddim", "dpmpp_2m")
MAX_DURATION_S = 60.0
"""Longest sound; beyond the longest bucket of frames it is made window by window."""
LOOP_OVERLAP = 1 / 8
"""Share of a loop's length that is made beyond its end, and faded into its beginning."""


@dataclass(frozen=True)
class SynthOptions:
    """Per-call options; None means what the bundle says.

    Attributes:
        duration: Seconds of sound, up to ``MAX_DURATION_S``.
        num_steps: Denoising steps, 1 to 1,000.
        guidance_scale: Scale w, 0 to ``MAX_GUIDANCE``; 1 is off (and twice as fast), 0 ignores
            the query.
        eta: 0 is deterministic DDIM, 1 ancestral sampling.
        negative: What to steer away from; None is the learned null condition.
        template: One template or several to average, each with ``{query}`` in it.
        sampler: One of ``SAMPLERS``.
        strength: How far a sound given as ``init`` is changed: the share of the steps that run
            on it, above 0 (as it is) to 1 (nothing of it is left).
        loop: Whether the end leads into the beginning. The length is rounded to whole frames.
        lufs: Integrated loudness to bring the sound to (needs the extra ``sound``); None leaves
            the level that the model chose.
    """

    duration: float | None = None
    num_steps: int | None = None
    guidance_scale: float | None = None
    eta: float = 0.0
    negative: str | None = None
    template: str | Sequence[str] | None = None
    sampler: str = "ddim"
    strength: float = 0.6
    loop: bool = False
    lufs: float | None = None


class SynthKwargs(TypedDict, total=False):
    """The fields of ``SynthOptions`` as keyword arguments."""

    duration: float | None
    num_steps: int | None
    guidance_scale: float | None
    eta: float
    negative: str | None
    template: str | Sequence[str] | None
    sampler: str
    strength: float
    loop: bool
    lufs: float | None


@dataclass(frozen=True)
class ResolvedOptions:
    """A ``SynthOptions`` with every blank filled in and every value checked.

    Attributes:
        num_frames: Frames to sample, a multiple of the bundle's ``frames_multiple``.
        num_samples: Samples to keep of what is vocoded.
        loop_frames: Frames of a seamless loop, with fewer than ``num_frames``; 0: no loop.
        num_steps: Denoising steps.
        guidance_scale: Scale w.
        eta: Share of fresh noise a step.
        negative: What to steer away from, or None.
        templates: At least one.
        sampler: One of ``SAMPLERS``.
        strength: Share of the steps that run on a given sound.
        lufs: Integrated loudness of the result, or None.
        distilled: Whether the bundle's distilled denoiser makes it: one network call a step.
    """

    num_frames: int
    num_samples: int
    loop_frames: int
    num_steps: int
    guidance_scale: float
    eta: float
    negative: str | None
    templates: tuple[str, ...]
    sampler: str
    strength: float
    lufs: float | None
    distilled: bool = False

    @property
    def denoiser(self) -> str:
        """The graph that takes the steps: ``DISTILLED`` or ``DENOISER``."""
        return DISTILLED if self.distilled else DENOISER

    @property
    def guided(self) -> bool:
        """Whether each step is also asked what the query is told from."""
        return self.guidance_scale != 1.0

    @property
    def calls_a_step(self) -> int:
        """Evaluations of the denoiser network a step, each under a condition of its own."""
        return 2 if self.guided else 1

    @property
    def init_steps(self) -> int:
        """Steps that run on a given sound, of all ``steps``: at least one."""
        return max(1, round(self.num_steps * self.strength))


def resolve_options(
    config: SynthOptions, manifest: Manifest, init_s: float | None = None
) -> ResolvedOptions:
    """Fill in what ``config`` leaves to the bundle, and check the rest.

    A bundle's distilled denoiser makes what it was made for: see ``_is_distilled``. All else is the
    ordinary one's, with its own steps and guidance where none are wished.

    Args:
        config: The options.
        manifest: The bundle's.
        init_s: Length of the sound to start from, which is the result's where none is wished.

    Raises:
        InputError: If a value is not finite or out of range; the message gives the range.
        MissingExtraError: If a loudness is wished and pyloudnorm is not installed.
    """
    diffusion = manifest.diffusion
    if config.sampler not in SAMPLERS:
        raise InputError(f"unknown sampler {config.sampler!r}; use one of {', '.join(SAMPLERS)}")
    num_frames, num_samples, loop_frames = _length(config, manifest, init_s)
    distilled = init_s is None and _is_distilled(config, manifest, num_frames)
    usual_steps = diffusion.distilled_steps[0] if distilled else diffusion.num_steps
    usual_guidance = 1.0 if distilled else diffusion.guidance_scale
    num_steps = usual_steps if config.num_steps is None else config.num_steps
    if not 1 <= num_steps <= diffusion.num_train_timesteps:
        raise InputError(
            f"num_steps must be from 1 to {diffusion.num_train_timesteps}, got {num_steps}"
        )
    guidance_scale = usual_guidance if config.guidance_scale is None else config.guidance_scale
    _in_range("guidance_scale", guidance_scale, 0.0, MAX_GUIDANCE)
    _in_range("eta", config.eta, 0.0, 1.0)
    if config.sampler != "ddim" and config.eta > 0.0:
        raise InputError(f"eta is for the ddim sampler; {config.sampler} is deterministic")
    # written so that NaN is refused too
    if not 0.0 < config.strength <= 1.0:
        raise InputError(f"strength must be above 0 and at most 1, got {config.strength:g}")
    return ResolvedOptions(
        num_frames=num_frames,
        num_samples=num_samples,
        loop_frames=loop_frames,
        num_steps=num_steps,
        guidance_scale=float(guidance_scale),
        eta=float(config.eta),
        negative=None if config.negative is None else check_query(config.negative, "negative"),
        templates=_templates(config.template, manifest),
        sampler=config.sampler,
        strength=float(config.strength),
        lufs=None if config.lufs is None else check_lufs(config.lufs),
        distilled=distilled,
    )


def _length(config: SynthOptions, manifest: Manifest, init_s: float | None) -> tuple[int, int, int]:
    """Return num_frames, num_samples and loop_frames of ``ResolvedOptions``."""
    mel, diffusion = manifest.mel, manifest.diffusion
    duration = config.duration
    if duration is None:
        usual = mel.seconds(diffusion.default_frames)
        # a loop's overlap comes out of the length that the bundle is best at
        duration = init_s or (usual / (1.0 + LOOP_OVERLAP) if config.loop else usual)
    _in_range("duration", duration, mel.seconds(1), MAX_DURATION_S, " s")
    num_frames = mel.frames(duration)
    num_samples, loop_frames = round(duration * mel.sample_rate), 0
    if config.loop:
        loop_frames = max(2, num_frames)
        num_samples = loop_frames * mel.hop_length
        num_frames = loop_frames + max(1, round(loop_frames * LOOP_OVERLAP))
    multiple = diffusion.frames_multiple
    return math.ceil(num_frames / multiple) * multiple, num_samples, loop_frames


def _is_distilled(config: SynthOptions, manifest: Manifest, num_frames: int) -> bool:
    """Return whether the distilled denoiser makes a sound that starts from noise alone.

    Its weights hold one guidance, without a negative, and the few steps of DDIM that it learnt.
    Takes and loops are sampled in one go and are its own; windows of a long sound are not: they
    agree a little more with every step (see ``windows``), and two steps are too few for that.
    """
    own_steps = manifest.diffusion.distilled_steps
    return (
        bool(own_steps)
        and (config.num_steps is None or config.num_steps in own_steps)
        and config.guidance_scale is None
        and config.negative is None
        and config.sampler == "ddim"
        and config.eta == 0.0
        and num_frames <= frame_buckets(manifest)[-1]
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
