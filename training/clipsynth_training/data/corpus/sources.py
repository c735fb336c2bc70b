"""Where the sound of a concept comes from: procedural models, recordings and soundfonts.

A source draws one clip at a time for one side of the split and says what is true of it. Whole
recordings, (soundfont, kit) pairs, pitch classes and parameter regions stand on one side only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.errors import DataError
from clipsynth_training.data.corpus.captions import LEVELS, level_of
from clipsynth_training.data.procedural.model import (
    MAX_SECONDS,
    SAMPLE_RATE,
    Choice,
    Range,
    SoundModel,
    Value,
    draw,
)
from clipsynth_training.data.procedural.space import ROOMS, distance_word, place
from clipsynth_training.data.recordings.ledger import Recording
from clipsynth_training.data.recordings.reading import read_recording
from clipsynth_training.data.recordings.variation import vary
from clipsynth_training.data.sounds import SOURCES, ClipPlan, Concept, Event, Renderer

TEST_SPLIT = "test"

_FADE_S = 0.01
_SHORT_S, _LONG_S = 0.45, 2.5
_SILENCE_DB = -60.0

# how a recording's words map to attributes; words that are no attribute stay names
_WORDS = {
    "high pitched": ("pitch", "high"),
    "low pitched": ("pitch", "low"),
    "high": ("pitch", "high"),
    "low": ("pitch", "low"),
    "deep": ("pitch", "low"),
    "muffled": ("brightness", "dark"),
    "bright": ("brightness", "bright"),
    "quiet": ("loudness", "quiet"),
    "loud": ("loudness", "loud"),
    "close": ("distance", "near"),
    "distant": ("distance", "far"),
    "far away": ("distance", "far"),
    "slow": ("rate", "slow"),
    "fast": ("rate", "fast"),
    "light": ("intensity", "weak"),
    "soft": ("intensity", "weak"),
    "gentle": ("intensity", "weak"),
    "heavy": ("intensity", "strong"),
    "strong": ("intensity", "strong"),
    "small": ("size", "small"),
    "big": ("size", "large"),
    "large": ("size", "large"),
    "in a small room": ("room", "small_room"),
    "in a hall": ("room", "hall"),
    "in a cave": ("room", "cave"),
    "outdoors": ("room", "outdoors"),
    "short": ("length", "short"),
    "long": ("length", "long"),
}


@dataclass(frozen=True)
class Clip:
    """One drawn sound and what is true of it.

    Attributes:
        samples: float32 [T] at ``SAMPLE_RATE``, as long as the sound is, at most ``MAX_SECONDS``.
        attributes: Attribute -> level or word, for captions.
        parameters: What it was made from, for ``labels.csv``.
        origin: File, preset or model that it comes from.
        license: SPDX identifier.
        names: Other names that are true of this clip.
    """

    samples: NDArray[np.float32]
    attributes: dict[str, str]
    parameters: dict[str, Value]
    origin: str
    license: str
    names: tuple[str, ...] = ()


class Source(Protocol):
    """Clips of one concept from one kind of source."""

    @property
    def kind(self) -> str:
        """What kind of source it is, as labels name it."""

    def splits(self) -> frozenset[str]:
        """Return ``train``, ``test`` or both."""

    def draw(self, split: str, rng: np.random.Generator) -> Clip:
        """Return one clip of a split.

        Raises:
            DataError: If it cannot be made.
        """


@dataclass(frozen=True)
class ProceduralSource:
    """A sound model of our own."""

    model: SoundModel
    kind: str = "procedural"

    def splits(self) -> frozenset[str]:
        """Return both: each side has parameter cells of its own."""
        return frozenset(("train", TEST_SPLIT))

    def draw(self, split: str, rng: np.random.Generator) -> Clip:
        """Render one set of parameters, then place it in a room and set its level."""
        try:
            rendering = draw(self.model, rng, test=split == TEST_SPLIT)
        except ValueError as error:
            raise DataError(str(error)) from error
        attributes: dict[str, str] = {}
        for parameter in self.model.parameters:
            if isinstance(parameter, Choice):
                attributes[parameter.attribute] = str(rendering.parameters[parameter.name])
            elif parameter.attribute in LEVELS:
                position = rendering.positions[parameter.name]
                level = level_of(
                    parameter.attribute, position if parameter.rising else 1 - position
                )
                if level is not None:
                    attributes.setdefault(parameter.attribute, level)
        samples, more = _placed(rendering.samples, rng, steady=self.model.steady)
        return Clip(
            samples,
            _with_length(attributes, samples, parameters=self.model.parameters) | more,
            rendering.parameters,
            f"procedural/{self.model.concept}",
            "Apache-2.0",
            self.model.names,
        )


@dataclass(frozen=True)
class RecordingSource:
    """Recordings of one concept; each is varied anew, and stays on its side of the split."""

    cache: Path
    recordings: Sequence[Recording]
    musical: bool = False
    kind: str = "recording"

    def splits(self) -> frozenset[str]:
        """Return the sides that have a recording."""
        return frozenset(recording.split for recording in self.recordings)

    def draw(self, split: str, rng: np.random.Generator) -> Clip:
        """Vary one recording."""
        own = [recording for recording in self.recordings if recording.split == split]
        recording = own[int(rng.integers(len(own)))]
        samples = _excerpt(read_recording(self.cache, recording), rng)
        varied, words = vary(samples, rng, recording.names, musical=self.musical)
        attributes = {}
        names = []
        for word in words:
            if word in _WORDS:
                attribute, level = _WORDS[word]
                attributes[attribute] = level
            else:
                names.append(word)
        trimmed = _finish(varied.astype(np.float64), peak=None)
        return Clip(
            trimmed,
            _with_length(attributes, trimmed),
            {},
            f"{recording.package}/{recording.path}",
            recording.license,
            tuple(names),
        )


@dataclass(frozen=True)
class SoundfontSource:
    """Single notes and hits of General MIDI programs and drum kits."""

    concept: Concept
    renderer: Renderer
    kind: str = "soundfont"
    _held_out: frozenset[int] = field(default=frozenset(), repr=False)

    def splits(self) -> frozenset[str]:
        """Return both: pitch classes, or (soundfont, kit) pairs, are parted between them."""
        return frozenset(("train", TEST_SPLIT))

    def draw(self, split: str, rng: np.random.Generator) -> Clip:
        """Play one note or hit, as long as it is held and rings."""
        test = split == TEST_SPLIT
        font, preset, keys = self._preset(rng, test=test)
        low, high = min(keys), max(keys)
        key = int(rng.choice(keys))
        velocity = int(rng.integers(30, 127))
        pitched = self.concept.style == "melodic"
        held_s = float(np.exp(rng.uniform(math.log(0.12), math.log(3.2)))) if pitched else 3.5
        plan = ClipPlan(
            id="",
            split=split,
            concept=self.concept.name,
            kind="note",
            source=font,
            license=SOURCES[font].license,
            preset=preset,
            events=(Event(0.0, key, velocity, held_s),),
            tuning_cents=int(rng.integers(-3, 4)) * 10,
            reverb=False,
        )
        samples = self.renderer.play(plan, seconds=MAX_SECONDS).astype(np.float64)
        attributes: dict[str, str] = {}
        if pitched and high - low >= 12:
            attributes["pitch"] = str(level_of("pitch", (key - low) / (high - low)))
            attributes["length"] = str(
                level_of("length", math.log(held_s / 0.12) / math.log(3.2 / 0.12))
            )
        if level := level_of("intensity", (velocity - 30) / 97):
            attributes["intensity"] = level
        peak = float(np.abs(samples).max())
        if peak < 1e-4:
            raise DataError(f"{font} {preset}: silent at key {key}")
        placed, more = _placed(samples / peak, rng, steady=False)
        return Clip(
            placed,
            attributes | more,
            {"key": float(key), "velocity": float(velocity), "held_s": held_s, "program": preset},
            f"{font}#{preset}",
            SOURCES[font].license,
            self.concept.keywords,
        )

    def _preset(self, rng: np.random.Generator, *, test: bool) -> tuple[str, str, tuple[int, ...]]:
        """Return soundfont, preset and the keys of one side of the split."""
        if self.concept.drum_keys:
            kits = _kits(self.concept.name, test=test)
            font, kit = kits[int(rng.integers(len(kits)))]
            return font, f"128:{kit}", self.concept.drum_keys
        preset = str(rng.choice(self.concept.programs))
        font = ("fluid-gm", "musescore")[int(rng.integers(2))]
        bank, program = (int(part) for part in preset.split(":"))
        if bank and program >= 120:
            font = "fluid-gs"
        elif preset == "8:0":  # a variation that FluidR3 GM does not have
            font = "musescore"
        low, high = self.concept.key_range
        held_out = _held_out_classes(self.concept.name)
        keys = tuple(k for k in range(low, high + 1) if (k % 12 in held_out) == test)
        return font, preset, keys


def _kits(concept: str, *, test: bool) -> list[tuple[str, int]]:
    """Return the (soundfont, kit) pairs of one side of the split."""
    # kits that share their samples between programs would stand on both sides: one pair each
    pairs = [
        (font, kit) for font in ("fluid-gm", "musescore") for kit in (0, 8, 16, 24, 25, 32, 40)
    ]
    held_out = _generator(concept).permutation(len(pairs))[:3]
    return [pair for number, pair in enumerate(pairs) if (number in held_out) == test]


def _held_out_classes(concept: str) -> frozenset[int]:
    return frozenset(int(k) for k in _generator(concept).permutation(12)[:2])


def _generator(concept: str) -> np.random.Generator:
    return np.random.default_rng(list(concept.encode()))


def _placed(
    samples: NDArray[np.float64], rng: np.random.Generator, *, steady: bool
) -> tuple[NDArray[np.float32], dict[str, str]]:
    """Return a dry sound in a room, at a distance and a level, and what is true of it then."""
    attributes: dict[str, str] = {}
    if rng.random() < 0.4:
        room = str(rng.choice(list(ROOMS)))
        furthest = {"small room": 4.0, "hall": 25.0, "cave": 25.0}.get(room, 150.0)
        distance_m = float(np.exp(rng.uniform(math.log(0.5), math.log(furthest))))
        length = len(samples)
        samples = place(samples, rng, distance_m, room)
        if steady:  # no end of its own that would ring on
            samples = samples[:length]
        attributes["room"] = room.replace(" ", "_")
        if word := distance_word(distance_m):
            attributes["distance"] = "near" if word == "close" else "far"
    draw_level = rng.random()
    if draw_level < 0.15 and attributes.get("distance") != "near":
        attributes["loudness"] = "quiet"
        peak = 10 ** (rng.uniform(-26.0, -17.0) / 20)
    elif draw_level < 0.3 and attributes.get("distance") != "far":
        attributes["loudness"] = "loud"
        peak = 1.0
        # louder than its peak allows: soft clipping, as a recording that is driven hard
        samples = np.tanh(samples / np.abs(samples).max() * rng.uniform(1.5, 3.0))
    else:
        far = attributes.get("distance") == "far"
        peak = 10 ** (rng.uniform(-20.0, -12.0) / 20 if far else rng.uniform(-9.0, -2.0) / 20)
    return _finish(samples, peak), attributes


def _finish(samples: NDArray[np.float64], peak: float | None) -> NDArray[np.float32]:
    """Return a sound that ends when it has fallen by 60 dB, at a peak, without clicks.

    Raises:
        DataError: If it is silent.
    """
    top = float(np.max(np.abs(samples), initial=0.0))
    if not math.isfinite(top) or top < 1e-5:
        raise DataError("silent or not finite")
    if peak is not None:
        samples = samples * (peak / top)
        top = peak
    loud = np.flatnonzero(np.abs(samples) > top * 10 ** (_SILENCE_DB / 20))
    end = min(int(loud[-1]) + round(_FADE_S * SAMPLE_RATE), len(samples))
    end = min(end, round(MAX_SECONDS * SAMPLE_RATE))
    begin = max(0, int(loud[0]) - round(0.002 * SAMPLE_RATE))
    cut = samples[begin:end].astype(np.float32)
    fade = min(round(_FADE_S * SAMPLE_RATE), len(cut))
    cut[len(cut) - fade :] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    return cut


def _excerpt(samples: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a stretch of ``MAX_SECONDS`` of a longer recording, faded in where it is cut."""
    longest = round(MAX_SECONDS * SAMPLE_RATE)
    if len(samples) <= longest:
        return samples
    begin = int(rng.integers(len(samples) - longest + 1)) if rng.random() < 0.7 else 0
    cut = samples[begin : begin + longest].copy()
    fade = round(_FADE_S * SAMPLE_RATE)
    if begin:
        cut[:fade] *= np.linspace(0.0, 1.0, fade, dtype=np.float32)
    peak = float(np.abs(cut).max())
    return samples[:longest] if peak < 1e-3 else cut


def _with_length(
    attributes: dict[str, str],
    samples: NDArray[np.float32],
    parameters: Sequence[Range | Choice] = (),
) -> dict[str, str]:
    """Add the length in absolute terms where no parameter says it."""
    if "length" in attributes or any(p.attribute == "length" for p in parameters):
        return attributes
    seconds = len(samples) / SAMPLE_RATE
    if seconds < _SHORT_S:
        return attributes | {"length": "short"}
    return attributes | {"length": "long"} if seconds > _LONG_S else attributes
