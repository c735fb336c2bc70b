"""The sound of the open corpus: what to render, and the rendering.

A plan is drawn from a seed and holds every parameter of a clip, so the same seed gives the same
corpus on any machine with the same soundfonts. Test clips use pitches, tunings and velocities
that no training clip uses.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import math
import tomllib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy import signal

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.errors import DataError, MissingExtraError

NUM_SAMPLES = 352 * MelSpec().hop_length
"""Length of a clip in samples: 352 frames, 4.087 s."""

RENDER_RATE = 44100  # the soundfonts' own rate; decimated by 2, so that nothing aliases


@dataclass(frozen=True)
class SoundSource:
    """One file or folder of sounds, where it lies below a root, and what licence it has."""

    name: str
    path: str
    package: str
    license: str


SOURCES = {
    "fluid-gm": SoundSource(
        "FluidR3 GM", "usr/share/sounds/sf2/FluidR3_GM.sf2", "fluid-soundfont-gm", "MIT"
    ),
    "fluid-gs": SoundSource(
        "FluidR3 GS", "usr/share/sounds/sf2/FluidR3_GS.sf2", "fluid-soundfont-gs", "MIT"
    ),
    "musescore": SoundSource(
        "MuseScore General",
        "usr/share/sounds/sf3/MuseScore_General_Full.sf3",
        "musescore-general-soundfont",
        "MIT",
    ),
    "sonic-pi": SoundSource(
        "Sonic Pi samples", "usr/share/sonic-pi/samples", "sonic-pi-samples", "CC0-1.0"
    ),
}

DRUM_BANK = 128
DRUM_KITS = (0, 8, 16, 24, 25, 32, 40, 48)
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Concept:
    """One thing that can be heard, and where its sound and pictures come from.

    Attributes:
        name: The query that names it.
        keywords: Other names.
        picture: Search terms for pictures; every word of a term must occur.
        style: ``melodic``, ``hit``, ``beat`` or ``effect``.
        programs: ``bank:preset`` of the soundfonts.
        key_range: Lowest and highest MIDI key of those programs.
        drum_keys: Keys of the General MIDI drum kits.
        samples: File stems of Sonic Pi.
        polyphonic: Whether chords are idiomatic.
        weight: Clips relative to other concepts.
    """

    name: str
    keywords: tuple[str, ...]
    picture: tuple[str, ...]
    style: str
    programs: tuple[str, ...] = ()
    key_range: tuple[int, ...] = (48, 72)
    drum_keys: tuple[int, ...] = ()
    samples: tuple[str, ...] = ()
    polyphonic: bool = False
    weight: int = 1


@dataclass(frozen=True)
class Event:
    """One note or trigger: seconds from the start, MIDI key, velocity 1-127, seconds held."""

    onset_s: float
    key: int
    velocity: int
    held_s: float


@dataclass(frozen=True)
class ClipPlan:
    """Everything that decides how one clip sounds."""

    id: str
    split: str
    concept: str
    kind: str
    source: str
    license: str
    preset: str
    events: tuple[Event, ...]
    tuning_cents: int
    reverb: bool


@functools.cache
def load_concepts() -> tuple[Concept, ...]:
    """Return the concepts of ``concepts.toml`` in file order."""
    text = resources.files("clipsynth_training.data").joinpath("concepts.toml").read_text()
    entries: list[dict[str, Any]] = tomllib.loads(text)["concept"]
    return tuple(Concept(**_frozen(entry)) for entry in entries)


def _frozen(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


def plan_clips(concepts: Sequence[Concept], num_clips: int, seed: int) -> list[ClipPlan]:
    """Draw ``num_clips`` clips, spread over concepts by weight.

    Of each concept's clips 84% are for training, 6% for validation and 10% for test, with at
    least one of each.

    Raises:
        DataError: If there are too few clips to give every concept one of each split.
    """
    total = sum(c.weight for c in concepts)
    if num_clips < 3 * total:
        raise DataError(
            f"{num_clips} clips cannot cover {len(concepts)} concepts in three splits; "
            f"ask for at least {3 * total}"
        )
    bounds = np.rint(np.cumsum([0] + [c.weight for c in concepts]) * num_clips / total)
    plans = []
    for concept, start, stop in zip(concepts, bounds[:-1], bounds[1:], strict=True):
        count = int(stop - start)
        num_test, num_val = max(1, round(0.10 * count)), max(1, round(0.06 * count))
        for index in range(count):
            split = SPLITS[(index < num_val + num_test) + (index < num_test)]
            plans.append(_plan_clip(concept, split, index, seed))
    return plans


def _plan_clip(concept: Concept, split: str, index: int, seed: int) -> ClipPlan:
    name = f"{seed}/{concept.name}/{split}/{index}"
    rng = np.random.default_rng([seed, zlib.crc32(concept.name.encode()), index])
    kind, source, preset = _choose_source(concept, rng)
    cells = _Allowed(concept, split, rng)
    if preset.startswith(f"{DRUM_BANK}:"):
        keys: tuple[int, ...] = concept.drum_keys
        maker = _beat if concept.style == "beat" else _hits
    elif kind == "sample":
        keys, maker = (60,), _triggers if preset.startswith("loop_") else _hits
    else:
        keys = cells.keys()
        maker = {"melodic": _melody, "hit": _hits, "effect": _triggers}[concept.style]
    kind, events = maker(concept, keys, cells, rng)
    return ClipPlan(
        id=hashlib.sha256(name.encode()).hexdigest()[:16],
        split=split,
        concept=concept.name,
        kind=kind,
        source=source,
        license=SOURCES[source].license,
        preset=preset,
        events=tuple(events),
        tuning_cents=cells.tuning(),
        reverb=bool(rng.random() < 0.5),
    )


def _choose_source(concept: Concept, rng: np.random.Generator) -> tuple[str, str, str]:
    """Pick (kind, source, preset) of one clip, evenly over what the concept has."""
    kinds = [("preset", len(concept.programs)), ("sample", len(concept.samples))]
    kinds.append(("kit", 2 * len(concept.drum_keys) + 6 * (concept.style == "beat")))
    weights = np.array([min(count, 6) for _, count in kinds], float)
    kind = kinds[rng.choice(3, p=weights / weights.sum())][0]
    if kind == "sample":
        return kind, "sonic-pi", str(rng.choice(concept.samples))
    if kind == "kit":
        font = ("fluid-gm", "musescore")[rng.integers(2)]
        return kind, font, f"{DRUM_BANK}:{rng.choice(DRUM_KITS)}"
    preset = str(rng.choice(concept.programs))
    bank, program = (int(part) for part in preset.split(":"))
    if bank and program >= 120:
        return kind, "fluid-gs", preset
    if preset == "8:0":  # a variation that FluidR3 GM does not have
        return kind, "musescore", preset
    return kind, ("fluid-gm", "musescore")[rng.integers(2)], preset


class _Allowed:
    """What a split may use: pitch classes, tunings and velocities are parted between them."""

    def __init__(self, concept: Concept, split: str, rng: np.random.Generator) -> None:
        held_out = np.random.default_rng(zlib.crc32(concept.name.encode())).permutation(12)[:2]
        self._classes = set(map(int, held_out))
        self._test = split == "test"
        self._range = concept.key_range
        self._rng = rng
        self._pitched = concept.style == "melodic"

    def keys(self) -> tuple[int, ...]:
        low, high = self._range
        return tuple(k for k in range(low, high + 1) if (k % 12 in self._classes) == self._test)

    def velocity(self, low: int = 45, high: int = 127) -> int:
        value = int(self._rng.integers(low, high + 1)) // 5 * 5
        if self._test:
            return value + 2
        return min(126, value + int(self._rng.choice([0, 1, 3, 4])))  # 127 is a test velocity

    def tuning(self) -> int:
        """Cents; melodic sounds vary by key already and stay near concert pitch."""
        step = int(self._rng.integers(-1, 2) if self._pitched else self._rng.integers(-5, 6))
        return step * (10 if self._pitched else 50) + (5 if self._test else 0)


def _melody(
    concept: Concept, keys: tuple[int, ...], cells: _Allowed, rng: np.random.Generator
) -> tuple[str, list[Event]]:
    kind = rng.choice(
        ["note", "phrase", "chord"], p=[0.35, 0.4, 0.25] if concept.polyphonic else [0.4, 0.6, 0.0]
    )
    start = float(rng.uniform(0.02, 0.15))
    centre = int(rng.integers(len(keys)))
    if kind == "note":
        held = float(rng.uniform(0.6, 3.6))
        return "note", [Event(start, keys[centre], cells.velocity(), held)]
    if kind == "chord":
        events = []
        beat = float(rng.choice([1.0, 1.3, 2.0, 4.0]))
        for number in range(math.ceil(3.9 / beat)):
            chosen = sorted(
                {int(np.clip(centre + step, 0, len(keys) - 1)) for step in rng.integers(-9, 10, 3)}
            )
            events += [
                Event(start + number * beat, keys[i], cells.velocity(), beat * 0.92) for i in chosen
            ]
        return "chord", events
    beat = float(rng.choice([0.2, 0.25, 0.3, 0.4, 0.5, 0.65]))
    legato = float(rng.choice([0.5, 0.9, 1.0]))
    events, now = [], start
    while now < 3.9:
        length = beat * float(rng.choice([1, 1, 1, 2, 2, 3]))
        events.append(Event(now, keys[centre], cells.velocity(), length * legato))
        centre = int(np.clip(centre + rng.integers(-4, 5), 0, len(keys) - 1))
        now += length
    return "phrase", events


def _hits(
    concept: Concept, keys: tuple[int, ...], cells: _Allowed, rng: np.random.Generator
) -> tuple[str, list[Event]]:
    start = float(rng.uniform(0.02, 0.15))
    if rng.random() < 0.25:
        return "hit", [Event(start, int(rng.choice(keys)), cells.velocity(70), 2.0)]
    beat = float(rng.choice([0.125, 0.18, 0.25, 0.33, 0.5, 0.75]))
    pattern = rng.random(int(rng.choice([4, 6, 8]))) < 0.75
    pattern[0] = True
    order = rng.choice(keys, len(pattern))
    events = []
    for number in range(int(3.9 / beat)):
        slot = number % len(pattern)
        if pattern[slot]:
            velocity = cells.velocity(90) if slot == 0 else cells.velocity(55, 105)
            events.append(Event(start + number * beat, int(order[slot]), velocity, beat))
    return "rhythm", events


def _beat(
    concept: Concept, keys: tuple[int, ...], cells: _Allowed, rng: np.random.Generator
) -> tuple[str, list[Event]]:
    """Return a bar or two of a drum kit: kick, snare, hi-hat, now and then a fill or a crash."""
    step = float(rng.choice([60, 70, 80, 90, 100, 110, 120, 132, 145])) ** -1 * 15.0
    kick = {0, 8} | set(map(int, rng.choice(16, int(rng.integers(0, 4)), replace=False)))
    snare = {4, 12} | ({int(rng.integers(16))} if rng.random() < 0.4 else set())
    every = int(rng.choice([1, 2, 2, 4]))
    hat, open_at = int(rng.choice([42, 42, 51])), int(rng.choice([-1, 6, 14]))
    fill = int(rng.choice([0, 0, 4, 8]))
    kick_key, snare_key = int(rng.choice([35, 36])), int(rng.choice([38, 40]))
    start, events = float(rng.uniform(0.02, 0.1)), []
    if rng.random() < 0.3:
        events.append(Event(start, 49, cells.velocity(80), 2.0))
    for number in range(int(3.95 / step)):
        slot, now = number % 16, start + number * step
        if fill and number % 32 >= 32 - fill:
            key = int(rng.choice([38, 41, 45, 48, 50]))
            events.append(Event(now, key, cells.velocity(80), step))
            continue
        if slot in kick:
            events.append(Event(now, kick_key, cells.velocity(90), step))
        if slot in snare:
            events.append(Event(now, snare_key, cells.velocity(85), step))
        if slot % every == 0:
            key = 46 if slot == open_at else hat
            events.append(Event(now, key, cells.velocity(50, 100), step))
    return "beat", events


def _triggers(
    concept: Concept, keys: tuple[int, ...], cells: _Allowed, rng: np.random.Generator
) -> tuple[str, list[Event]]:
    start, key = float(rng.uniform(0.02, 0.12)), int(rng.choice(keys))
    if rng.random() < 0.5:
        return "effect", [Event(start, key, cells.velocity(80), float(rng.uniform(2.5, 4.0)))]
    gap = float(rng.uniform(0.7, 2.0))
    return "effects", [
        Event(start + n * gap, key, cells.velocity(70), gap) for n in range(int(3.9 / gap) + 1)
    ]


def find_source(key: str, source_dir: str | Path | None) -> Path:
    """Return the path of a sound source, below ``source_dir`` or on the system.

    Raises:
        DataError: If it is not there; the message names the Debian package to install.
    """
    source = SOURCES[key]
    roots = [Path(source_dir)] if source_dir is not None else [Path("/")]
    for root in roots:
        for path in (root / source.path, root / Path(source.path).name):
            if path.exists():
                return path
    raise DataError(
        f"{source.name}: {roots[0] / source.path} is not there; run: apt-get install "
        f"{source.package} (or: clipsynth-rt data fetch DIR, then --source-dir DIR)"
    )


class Renderer:
    """Plays plans: FluidSynth for soundfonts, resampling for samples. One a process.

    Args:
        source_dir: Root below which sources lie as Debian unpacks them; None for the system's.

    Raises:
        DataError: If a source is missing.
        MissingExtraError: If pyfluidsynth is not installed.
    """

    def __init__(self, source_dir: str | Path | None = None) -> None:
        self._paths = {key: find_source(key, source_dir) for key in SOURCES}
        self._fluid = _load_fluidsynth()
        self._keepers: dict[str, _Keeper] = {}

    def render(self, plan: ClipPlan) -> NDArray[np.float32]:
        """Return the clip as float32 [NUM_SAMPLES], mono, 22,050 Hz, its peak at 0.9.

        Raises:
            DataError: If the source has no such preset or sample, or the clip is silent.
        """
        mono = signal.resample_poly(self.play(plan), 1, 2)[:NUM_SAMPLES]
        peak = float(np.abs(mono).max())
        if peak < 1e-4:
            raise DataError(f"{plan.source} {plan.preset}: silent ({plan.concept}, {plan.id})")
        fade = np.minimum(1.0, np.arange(NUM_SAMPLES)[::-1] / 441.0)  # 20 ms: no click at the cut
        return np.asarray(mono * (0.9 / peak) * fade, np.float32)

    def play(
        self, plan: ClipPlan, seconds: float = NUM_SAMPLES / MelSpec().sample_rate
    ) -> NDArray[np.float32]:
        """Return a plan's sound as it is played, float32 [T] at ``RENDER_RATE``, mono.

        Raises:
            DataError: If the source has no such preset or sample.
        """
        count = round(seconds * RENDER_RATE)
        if plan.source == "sonic-pi":
            return self._sample(plan, count)
        return self._soundfont(plan, count)

    def _soundfont(self, plan: ClipPlan, count: int) -> NDArray[np.float32]:
        # A fresh synthesizer for every clip: FluidSynth's reverb, LFOs and block position outlive
        # system_reset, and a clip must not depend on what was played before it.
        settings = {
            "synth.reverb.active": int(plan.reverb),
            "synth.chorus.active": 0,
            "synth.dynamic-sample-loading": 1,  # loads one preset of a 148 MB font, in 20 ms
            "synth.polyphony": 128,
        }
        path = str(self._paths[plan.source])
        if plan.source not in self._keepers:
            self._keepers[plan.source] = _Keeper(self._fluid, path)
        self._keepers[plan.source].keep(plan.preset)
        synth = self._fluid.Synth(gain=0.4, samplerate=float(RENDER_RATE), channels=16, **settings)
        try:
            return self._play(synth, synth.sfload(path), plan, count)
        finally:
            synth.delete()

    def _play(self, synth: Any, font: int, plan: ClipPlan, count: int) -> NDArray[np.float32]:
        bank, program = _bank_and_program(plan.preset)
        # channel 9 is the drum channel of General MIDI
        channel = 9 if bank == DRUM_BANK else 0
        if synth.program_select(channel, font, bank, program) != 0:
            raise DataError(f"{self._paths[plan.source]}: has no preset {plan.preset}")
        synth.pitch_bend(channel, round(plan.tuning_cents / 200 * 8192) if plan.tuning_cents else 0)
        if abs(plan.tuning_cents) > 200:  # beyond the wheel's default range of two semitones
            synth.pitch_bend(channel, 0)
            synth.cc(channel, 101, 0), synth.cc(channel, 100, 0), synth.cc(channel, 6, 12)
            synth.pitch_bend(channel, round(plan.tuning_cents / 1200 * 8192))
        parts, now = [], 0
        for time, on, event in _timeline(plan.events):
            at = min(round(time * RENDER_RATE), count)
            parts.append(self._write(synth, at - now))
            now = at
            if on:
                synth.noteon(channel, event.key, event.velocity)
            else:
                synth.noteoff(channel, event.key)
        parts.append(self._write(synth, count - now))
        return np.concatenate(parts)

    def _write(self, synth: Any, count: int) -> NDArray[np.float32]:
        left = np.zeros(max(count, 0), np.float32)
        right = np.zeros_like(left)
        if count > 0:
            # write_float: 16 bits would be dithered before the clip is normalised
            pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (left, right)]
            self._fluid._fl.fluid_synth_write_float(
                ctypes.c_void_p(synth.synth), count, pointers[0], 0, 1, pointers[1], 0, 1
            )
        return (left + right) * 0.5

    def _sample(self, plan: ClipPlan, count: int) -> NDArray[np.float32]:
        sound = _read_sample(self._paths["sonic-pi"] / f"{plan.preset}.flac")
        out = np.zeros(count, np.float32)
        ratio = 2.0 ** (plan.tuning_cents / 1200)
        shifted = signal.resample(sound, max(1, round(len(sound) / ratio))).astype(np.float32)
        for event in plan.events:
            at = round(event.onset_s * RENDER_RATE)
            part = shifted[: max(0, len(out) - at)]
            out[at : at + len(part)] += part * (event.velocity / 127.0)
        return out


class _Keeper:
    """A synthesizer that plays nothing, and keeps the presets last used in memory.

    FluidSynth shares samples between the synthesizers of a process for as long as one of them
    uses them; without a second one, each clip of MuseScore's piano would decode Vorbis for a
    second.
    """

    PRESETS = 8

    def __init__(self, fluid: Any, path: str) -> None:
        settings = {"synth.dynamic-sample-loading": 1}
        self._synth = fluid.Synth(samplerate=float(RENDER_RATE), channels=16, **settings)
        self._font = self._synth.sfload(path)
        self._channels: dict[str, int] = {}  # preset -> MIDI channel, the last used last

    def keep(self, preset: str) -> None:
        """Load ``preset``, and let go of the one that was used longest ago."""
        channel = self._channels.pop(preset, None)
        if channel is None:
            bank, program = _bank_and_program(preset)
            free = len(self._channels)
            if free == self.PRESETS:
                free = self._channels.pop(next(iter(self._channels)))
            channel = free
            self._synth.program_select(channel, self._font, bank, program)
        self._channels[preset] = channel


def _bank_and_program(preset: str) -> tuple[int, int]:
    bank, program = preset.split(":")
    return int(bank), int(program)


def _timeline(events: Sequence[Event]) -> Iterator[tuple[float, bool, Event]]:
    """Yield (seconds, note on?, event) in order; offs come first where times are equal."""
    marks = [(e.onset_s + e.held_s, False, e) for e in events]
    marks += [(e.onset_s, True, e) for e in events]
    return iter(sorted(marks, key=lambda mark: (mark[0], mark[1], mark[2].key)))


@functools.lru_cache(maxsize=64)
def _read_sample(path: Path) -> NDArray[np.float32]:
    if not path.is_file():
        raise DataError(f"{path}: no such sample; is sonic-pi-samples complete?")
    sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = sound.mean(axis=1)[: 5 * rate]
    if rate != RENDER_RATE:
        mono = signal.resample_poly(mono, RENDER_RATE, rate)
    return np.asarray(mono, np.float32)


def _load_fluidsynth() -> Any:
    try:
        import fluidsynth
    except ImportError as error:
        if "FluidSynth library" in str(error):
            raise DataError(
                "libfluidsynth is not on this system; run: apt-get install libfluidsynth3"
            ) from error
        raise MissingExtraError("fluidsynth", "train") from error
    return fluidsynth
