"""The options of one synthesis: one table for every door, and what a bundle makes of them.

``OPTIONS`` describes each option once. The command line, CSV columns, HTTP fields, page limits and
Triton inputs are made from it; ``SynthOptions`` and ``SynthKwargs`` are checked against it by test.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from clipsynth_rt.audio.loudness import MAX_LUFS, MIN_LUFS, check_lufs
from clipsynth_rt.bundles.manifest import DENOISER, DISTILLED, Manifest, frame_buckets
from clipsynth_rt.bundles.manifest import MAX_GUIDANCE as MAX_GUIDANCE
from clipsynth_rt.errors import InputError
from clipsynth_rt.text import short

SAMPLERS = ("ddim", "dpmpp_2m")
DENOISER_CHOICES = ("auto", "full", "distilled")
MAX_DURATION_S = 60.0
"""Longest sound; beyond the longest bucket of frames it is sampled window by window."""
MAX_NUM_STEPS = 1000
MAX_SEED = 2**64 - 1
"""Largest seed: one word of the generator's two-word key."""
LOOP_OVERLAP = 1 / 8
"""Share of a loop's length that is sampled beyond its end, and faded into its beginning."""


@dataclass(frozen=True)
class Option:
    """One option of a synthesis.

    Attributes:
        name: In Python, CSV, HTTP and Triton; ``flag`` is its name on the command line.
        type: ``float``, ``int``, ``str`` or ``bool``.
        help: One line.
        default: None is what the bundle says.
        unit: For people, such as ``s``.
        low: Least value, if any.
        high: Largest value, if any.
        above_low: Whether ``low`` itself is out of range.
        choices: The values of a text; empty where any text will do.
        several: Whether a list of texts is taken too.
        metavar: What stands for the value in a usage line.
    """

    name: str
    type: type
    help: str
    default: Any = None
    unit: str = ""
    low: float | None = None
    high: float | None = None
    above_low: bool = False
    choices: tuple[str, ...] = ()
    several: bool = False
    metavar: str | None = None

    @property
    def flag(self) -> str:
        """The name on the command line, such as ``--num-steps``."""
        return "--" + self.name.replace("_", "-")

    def parse(self, text: str) -> Any:
        """Return the value that a cell or a line of text stands for.

        Raises:
            InputError: If it stands for none.
        """
        if self.type is str:
            return text
        if self.type is bool:
            if text.lower() not in (*_YES, *_NO):
                raise InputError(f"{self.name} {short(text)} is not a yes or no")
            return text.lower() in _YES
        try:
            return self.type(text)
        except ValueError as error:
            what = "a whole number" if self.type is int else "a number"
            raise InputError(f"{self.name} {short(text)} is not {what}") from error

    def check(self, value: Any) -> Any:
        """Return a value as this option's type, whatever kind of number it is.

        Raises:
            InputError: If it is of another type, not one of ``choices`` or out of range.
        """
        if value is None and self.default is None:
            return None
        checked = self._typed(value)
        if self.choices and checked not in self.choices:
            raise InputError(
                f"unknown {self.name} {short(checked)}; use one of {', '.join(self.choices)}"
            )
        if self.low is not None and self.high is not None:
            self.check_range(checked, self.low, self.high)
        return checked

    def check_range(self, value: float, low: float, high: float) -> None:
        """Check a number against limits.

        Raises:
            InputError: If it is beyond them, or not a number.
        """
        # written so that NaN, which compares false with everything, is refused too
        if (low < value if self.above_low else low <= value) and value <= high:
            return
        unit = f" {self.unit}" if self.unit else ""
        given = f"{value:g}" if self.type is float else f"{value}"
        if self.above_low:
            raise InputError(f"{self.name} must be above {low:g} and at most {high:g}, got {given}")
        raise InputError(f"{self.name} must be from {low:.4g} to {high:.4g}{unit}, got {given}")

    def _typed(self, value: Any) -> Any:
        is_flag = type(value).__name__ in ("bool", "bool_")
        if self.type is bool and is_flag:
            return bool(value)
        if self.type is int and not is_flag and hasattr(value, "__index__"):
            return operator.index(value)
        if self.type is float and not is_flag and not isinstance(value, (str, bytes)):
            try:
                return float(value)
            except (TypeError, ValueError, OverflowError):
                pass
        if self.type is str:
            if isinstance(value, str):
                return value
            if self.several and isinstance(value, (list, tuple)):
                if all(isinstance(text, str) for text in value):
                    return tuple(value)
                value = next(text for text in value if not isinstance(text, str))
        kinds = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
        raise InputError(f"{self.name} must be {kinds[self.type]}, got {short(value)}")


_YES, _NO = ("1", "yes", "true", "y"), ("0", "no", "false", "n")

OPTIONS: dict[str, Option] = {
    option.name: option
    for option in (
        Option("duration", float, "Length of the sound, up to 60.", unit="s", metavar="SECONDS"),
        Option("num_steps", int, "Denoising steps, 1 to 1000; the voice's if left out."),
        Option(
            "guidance_scale",
            float,
            "Guidance scale, 0 to 30; 1 is off. The full denoiser's.",
            low=0.0,
            high=MAX_GUIDANCE,
            metavar="W",
        ),
        Option("eta", float, "DDIM noise, 0 to 1.", default=0.0, low=0.0, high=1.0),
        Option("negative", str, "What to steer away from.", metavar="TEXT"),
        Option(
            "template",
            str,
            'Such as "a photo of {query}"; several average.',
            several=True,
            metavar="TEXT",
        ),
        Option("sampler", str, "ddim or dpmpp_2m.", default="ddim", choices=SAMPLERS),
        Option(
            "strength",
            float,
            "How far a given sound is changed, up to 1; 0.6.",
            default=0.6,
            low=0.0,
            high=1.0,
            above_low=True,
        ),
        Option("loop", bool, "A seamless loop.", default=False),
        Option(
            "lufs",
            float,
            "Loudness to bring it to, such as -16.",
            low=MIN_LUFS,
            high=MAX_LUFS,
            metavar="L",
        ),
        Option(
            "denoiser",
            str,
            "auto, full or distilled: which network takes the steps.",
            default="auto",
            choices=DENOISER_CHOICES,
        ),
    )
}
"""Every option, in the order in which the doors list them."""

SEED = Option("seed", int, "The i-th sound gets seed + i.", default=0, low=0, high=MAX_SEED)
"""The seed of the noise: one a sound, and so no part of what sounds share."""


@dataclass(frozen=True)
class SynthOptions:
    """Per-call options; None means what the bundle says. ``OPTIONS`` gives the ranges.

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
        loop: Whether the end leads into the beginning.
        lufs: Integrated loudness of the result (needs the extra ``sound``); None leaves the level
            that the model chose.
        denoiser: ``auto`` is the distilled network where it can do what is asked and the full one
            elsewhere; ``full`` and ``distilled`` are what they say.
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
    denoiser: str = "auto"

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> SynthOptions:
        """Return options given by name.

        Raises:
            InputError: If there is no option of a name; the message lists those that there are.
        """
        for name in options:
            if name not in OPTIONS:
                near = difflib.get_close_matches(name, OPTIONS, 1, cutoff=0.5)
                meant = f" (did you mean {near[0]}?)" if near else ""
                raise InputError(
                    f"unknown option {name!r:.60}{meant}; there are {', '.join(OPTIONS)}"
                )
        return cls(**options)

    def checked(self) -> SynthOptions:
        """Return the options as their own types, each within the range that no bundle exceeds.

        Raises:
            InputError: If one is of another type or out of range.
        """
        return SynthOptions(
            **{f.name: OPTIONS[f.name].check(getattr(self, f.name)) for f in fields(self)}
        )


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
    denoiser: str


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
        """Whether each step mixes two conditions."""
        return self.guidance_scale != 1.0

    @property
    def calls_a_step(self) -> int:
        """Evaluations of the denoiser network a step, each under a condition of its own."""
        return 2 if self.guided else 1

    @property
    def init_steps(self) -> int:
        """Steps that run on a given sound, of all ``num_steps``: at least one."""
        return max(1, round(self.num_steps * self.strength))


def resolve_options(
    options: SynthOptions, manifest: Manifest, init_s: float | None = None
) -> ResolvedOptions:
    """Fill in what ``options`` leave to the bundle, and check the rest.

    Args:
        options: The options.
        manifest: The bundle's.
        init_s: Length of the sound to start from, which is the result's where none is given.

    Raises:
        InputError: If a value is of another type, not finite or out of range (the message gives
            the range), or the distilled denoiser is asked for what it cannot do.
        MissingExtraError: If a loudness is given and pyloudnorm is not installed.
    """
    options = options.checked()
    diffusion = manifest.diffusion
    num_frames, num_samples, loop_frames = _length(options, manifest, init_s)
    reason = _why_full(options, manifest, num_frames, init=init_s is not None)
    if options.denoiser == "distilled" and reason:
        raise InputError(f"denoiser distilled: {reason}; use auto or full")
    distilled = options.denoiser != "full" and not reason
    usual_steps = diffusion.distilled_steps[0] if distilled else diffusion.num_steps
    usual_guidance = 1.0 if distilled else diffusion.guidance_scale
    num_steps = usual_steps if options.num_steps is None else options.num_steps
    OPTIONS["num_steps"].check_range(num_steps, 1, diffusion.num_train_timesteps)
    scale = usual_guidance if options.guidance_scale is None else options.guidance_scale
    if options.sampler != "ddim" and options.eta > 0.0:
        raise InputError(f"eta is for the ddim sampler; {options.sampler} is deterministic")
    negative = options.negative
    return ResolvedOptions(
        num_frames=num_frames,
        num_samples=num_samples,
        loop_frames=loop_frames,
        num_steps=num_steps,
        guidance_scale=scale,
        eta=options.eta,
        negative=None if negative is None else check_query(negative, "negative"),
        templates=_templates(options.template, manifest),
        sampler=options.sampler,
        strength=options.strength,
        lufs=None if options.lufs is None else check_lufs(options.lufs),
        distilled=distilled,
    )


def why_full(options: SynthOptions, manifest: Manifest, init_s: float | None = None) -> str:
    """Return which option keeps ``auto`` from the distilled denoiser; nothing where none does.

    Raises:
        InputError: As ``resolve_options``.
    """
    options = options.checked()
    if options.denoiser != "auto" or not manifest.diffusion.distilled_steps:
        return ""
    num_frames, _, _ = _length(options, manifest, init_s)
    return _why_full(options, manifest, num_frames, init=init_s is not None)


def _length(
    options: SynthOptions, manifest: Manifest, init_s: float | None
) -> tuple[int, int, int]:
    """Return num_frames, num_samples and loop_frames of ``ResolvedOptions``."""
    mel, diffusion = manifest.mel, manifest.diffusion
    duration = options.duration
    if duration is None:
        duration = init_s or mel.seconds(diffusion.default_frames)
    OPTIONS["duration"].check_range(duration, mel.seconds(1), MAX_DURATION_S)
    num_frames = mel.frames(duration)
    num_samples, loop_frames = round(duration * mel.sample_rate), 0
    if options.loop:
        loop_frames = max(2, num_frames)
        overlap = round(loop_frames * LOOP_OVERLAP)
        longest = frame_buckets(manifest)[-1]
        if loop_frames < longest:
            # in one go, if it can be
            overlap = min(overlap, longest - loop_frames)
        num_frames = loop_frames + max(1, overlap)
    multiple = diffusion.frames_multiple
    return math.ceil(num_frames / multiple) * multiple, num_samples, loop_frames


def _why_full(options: SynthOptions, manifest: Manifest, num_frames: int, *, init: bool) -> str:
    """Return what the distilled denoiser cannot do of what is asked; nothing if it can.

    Its weights hold one guidance, without a negative, and the few steps of DDIM that it learnt.
    Loops are sampled in one go and are its own; windows of a long sound are not: they agree a
    little more with every step (see ``windows``), and two steps are too few for that.
    """
    steps = manifest.diffusion.distilled_steps
    if not steps:
        return f"the voice {manifest.name} has no distilled denoiser"
    longest = frame_buckets(manifest)[-1]
    reasons = {
        "it has no guidance_scale; its guidance is in its weights": options.guidance_scale
        is not None,
        f"it takes num_steps {' or '.join(map(str, steps))}, not {options.num_steps}": (
            options.num_steps is not None and options.num_steps not in steps
        ),
        "it takes no negative": options.negative is not None,
        f"it has no sampler {options.sampler}": options.sampler != "ddim",
        "it has no eta above 0": options.eta > 0.0,
        "it does not start from a given sound": init,
        f"it makes up to {manifest.mel.seconds(longest):.2f} s": num_frames > longest,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def describe_options(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Return the options as a voice has them, as JSON data: what the page and ``info`` show."""
    ranges = {
        "duration": (manifest.mel.seconds(1), MAX_DURATION_S),
        "num_steps": (1, manifest.diffusion.num_train_timesteps),
    }
    resolved = resolve_options(SynthOptions(), manifest)
    defaults = {
        "duration": resolved.num_samples / manifest.mel.sample_rate,
        "num_steps": resolved.num_steps,
        "guidance_scale": resolved.guidance_scale,
    }
    described: dict[str, dict[str, Any]] = {}
    for name, option in OPTIONS.items():
        low, high = ranges.get(name, (option.low, option.high))
        found = {
            "type": {float: "number", int: "integer", bool: "boolean", str: "string"}[option.type],
            "help": option.help,
            "default": defaults.get(name, option.default),
            "unit": option.unit or None,
            "minimum": low,
            "maximum": high,
            "choices": list(option.choices) or None,
        }
        described[name] = {key: value for key, value in found.items() if value is not None}
    return described


def check_query(query: str, what: str = "query") -> str:
    """Return ``query`` without surrounding blanks.

    Raises:
        InputError: If it is no text, or nothing is left.
    """
    if not isinstance(query, str):
        raise InputError(f"{what} must be a text, got {short(query)}")
    text = query.strip()
    if not text:
        raise InputError(f'{what} is empty; say what to hear, for example "drum"')
    return text


def _templates(template: str | Sequence[str] | None, manifest: Manifest) -> tuple[str, ...]:
    if template is None:
        return manifest.condition.templates
    templates = (template,) if isinstance(template, str) else tuple(template)
    if not templates:
        raise InputError("no template given; leave it out for the bundle's own")
    for text in templates:
        if "{query}" not in text:
            raise InputError(f"template {short(text)} has no {{query}} in it")
    return templates
