"""Explosions, shots, blows and the ground moving.

Source:
    Farnell, "Designing Sound" (2010), practicals 46 and 47 (guns, explosions); Reed 1977, blast
    waves (the Friedlander pulse).
"""

from __future__ import annotations

import numpy as np

from clipsynth_training.data.procedural import synth_tools as st
from clipsynth_training.data.procedural.model import Range, SoundModel, Waveform
from clipsynth_training.data.procedural.synth_tools import Parameters, Rng


def _rumble(cutoff: float, duration: float, t60: float, rng: Rng) -> Waveform:
    noise = st.lowpass(st.white(duration, rng), cutoff)
    return noise / np.std(noise) * st.decay(duration, t60, 0.004)


def _blast(size: float, near: float, sharp: float, rng: Rng) -> Waveform:
    """Return a blast wave, its thump and the rumble after it; sizes in [0, 1]."""
    duration = 0.6 + 2.2 * size
    t = st.times(duration)
    width = 0.001 + 0.012 * size
    pulse = (1.0 - t / width) * np.exp(-t / width)
    crack = st.highpass(st.white(duration, rng), 300.0) * st.decay(duration, 0.08 + 0.2 * size)
    pitch = (110.0 - 60.0 * size) * (1.0 + st.decay(duration, 0.3, 1e-4))
    thump = st.sine(pitch, duration) * st.decay(duration, 0.5 + 0.8 * size)
    tail = _rumble(120.0 + 900.0 * near * (1.0 - 0.5 * size), duration, 0.9 * duration, rng)
    wave = near * (2.0 * pulse + sharp * crack) + 0.8 * thump + 0.5 * tail
    return np.tanh(1.5 * wave) * st.plateau(duration, 0.001, 0.3)


def _explosion(p: Parameters, rng: Rng) -> Waveform:
    near = 1.0 - float(p["distance"])
    return st.finish(_blast(float(p["size"]), near, 0.6, rng), 0.2 + 0.8 * near)


def _gunshot(p: Parameters, rng: Rng) -> Waveform:
    near = 1.0 - float(p["distance"])
    return st.finish(_blast(0.3 * float(p["size"]), near, 2.0, rng), 0.2 + 0.8 * near)


def _cannon(p: Parameters, rng: Rng) -> Waveform:
    near = 1.0 - float(p["distance"])
    return st.finish(_blast(0.5 + 0.4 * float(p["size"]), near, 0.2, rng), 0.2 + 0.8 * near)


def _punch(p: Parameters, rng: Rng) -> Waveform:
    f0, intensity = float(p["f0_hz"]), float(p["intensity"])
    pitch = f0 * (0.6 + st.decay(0.3, 0.15, 1e-4))
    slap = st.bandpass(st.white(0.3, rng), 500.0, 1500.0 + 3500.0 * intensity)
    wave = st.sine(pitch, 0.3) * st.decay(0.3, 0.25) + 1.5 * slap * st.decay(0.3, 0.07)
    return st.finish(np.tanh(2.0 * wave), 0.25 + 0.75 * intensity)


def _balloon(p: Parameters, rng: Rng) -> Waveform:
    f0, ring = 340.0 / float(p["size_m"]), float(p["ring_s"])
    burst = st.white(ring + 0.05, rng) * st.decay(ring + 0.05, ring, 2e-4)
    return st.finish(burst + 2.0 * st.modes([f0], ring, 1.0, ring + 0.05))


def _earthquake(p: Parameters, rng: Rng) -> Waveform:
    intensity, cutoff = float(p["intensity"]), float(p["brightness_hz"])
    duration = rng.uniform(3.0, 4.0)
    ground = st.lowpass(st.white(duration, rng), cutoff)
    shake = 0.6 + 0.4 * st.slow_noise(duration, 3.0 + 6.0 * intensity, rng)
    return st.finish(ground * shake * st.hump(duration, 0.4, 0.5), 0.2 + 0.8 * intensity)


_NEAR = Range("distance", 0.0, 1.0, attribute="distance")
_SIZE = Range("size", 0.0, 1.0, attribute="size")
_HARD = Range("intensity", 0.0, 1.0, attribute="intensity")
_make = st.family("blasts", "Farnell 2010, Designing Sound, practicals 46-47")

MODELS: tuple[SoundModel, ...] = (
    _make("explosion", _explosion, _NEAR, _SIZE, names=("blast", "bomb")),
    _make("gunshot", _gunshot, _NEAR, _SIZE, names=("gun shot", "pistol shot")),
    _make("cannon", _cannon, _NEAR, _SIZE, names=("cannon fire",)),
    _make("punch", _punch, Range("f0_hz", 60, 220, log=True, attribute="pitch"), _HARD),
    _make(
        "balloon pop",
        _balloon,
        Range("size_m", 0.15, 0.6, log=True, attribute="size"),
        Range("ring_s", 0.05, 0.3, log=True, attribute="length"),
        names=("balloon bursting",),
    ),
    _make(
        "earthquake rumble",
        _earthquake,
        _HARD,
        Range("brightness_hz", 50, 300, log=True, attribute="brightness"),
        names=("earthquake",),
    ),
)
