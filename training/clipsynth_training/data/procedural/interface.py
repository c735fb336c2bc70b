"""Sounds of user interfaces: beeps, clicks, chimes and notices.

Source:
    Farnell, "Designing Sound" (2010), practicals 1 to 4 (beeps, telephone tones, alerts).
"""

from __future__ import annotations

import numpy as np

from clipsynth_training.data.procedural import synth_tools as st
from clipsynth_training.data.procedural.model import Range, SoundModel, Waveform
from clipsynth_training.data.procedural.synth_tools import Parameters, Rng

_FARNELL = "Farnell 2010, Designing Sound, practicals 1-4"
_PITCH = Range("f0_hz", 150.0, 5000.0, log=True, attribute="pitch")
_CHIME = Range("f0_hz", 350.0, 1800.0, log=True, attribute="pitch")
_LENGTH = Range("duration_s", 0.05, 1.0, log=True, attribute="length")


def _beep(p: Parameters, rng: Rng) -> Waveform:
    duration, f0 = float(p["duration_s"]), float(p["f0_hz"])
    tone = st.sine(f0, duration) + rng.uniform(0.0, 0.2) * st.sine(3 * f0, duration)
    return st.finish(tone * st.plateau(duration, 0.004, 0.008))


def _click(p: Parameters, rng: Rng) -> Waveform:
    f0, t60 = float(p["f0_hz"]), float(p["decay_s"])
    ratios = np.array([1.0, 1.9, 2.7]) * rng.uniform(0.95, 1.05, 3)
    body = st.modes(f0 * ratios, t60 / ratios, [1.0, 0.5, 0.3], t60 + 0.01)
    return st.finish(body + 0.3 * st.white(t60 + 0.01, rng) * st.decay(t60 + 0.01, 0.004))


def _notes(f0: float, steps: list[float], gap: float, ring: float, rng: Rng) -> Waveform:
    bright = rng.uniform(0.1, 0.5)

    def note(index: int) -> Waveform:
        ratios = np.array([1.0, 2.0, 3.0, 4.2])
        gains = [1.0, bright, 0.4 * bright, 0.3 * bright]
        pitch = f0 * 2 ** (steps[index] / 12)
        return st.modes(pitch * ratios, ring / ratios**0.7, gains, ring) * st.decay(
            ring, 10.0, 0.002
        )

    return st.finish(st.lay(np.arange(len(steps)) * gap, note))


def _notification(p: Parameters, rng: Rng) -> Waveform:
    steps = [[0.0, 5.0], [0.0, -4.0], [0.0, 7.0, 12.0], [0.0, 4.0]][rng.integers(4)]
    return _notes(float(p["f0_hz"]), steps, 0.12, float(p["duration_s"]), rng)


def _chime(p: Parameters, rng: Rng) -> Waveform:
    steps = [[0.0, 4.0, 7.0, 12.0], [0.0, 4.0, 7.0], [0.0, 7.0, 12.0]][rng.integers(3)]
    return _notes(float(p["f0_hz"]), steps, 1.0 / float(p["rate_hz"]), 0.9, rng)


def _error(p: Parameters, rng: Rng) -> Waveform:
    f0, duration = float(p["f0_hz"]), float(p["duration_s"])
    drop = rng.uniform(0.65, 0.8)
    half = duration / 2

    def buzz(index: int) -> Waveform:
        return st.square(f0 * drop**index, half * 0.9) * st.plateau(half * 0.9)

    return st.finish(st.lowpass(st.lay([0.0, half], buzz), 10 * f0))


def _pop(p: Parameters, rng: Rng) -> Waveform:
    f0, duration = float(p["f0_hz"]), float(p["duration_s"])
    pitch = st.glide(f0, f0 * rng.uniform(1.8, 2.6), duration)
    return st.finish(st.sine(pitch, duration) * st.decay(duration, duration, 0.002))


def _swipe(p: Parameters, rng: Rng) -> Waveform:
    duration, centre = float(p["duration_s"]), float(p["brightness_hz"])
    rising = rng.random() < 0.5
    noise = st.white(duration, rng)
    low = st.bandpass(noise, 0.4 * centre, 0.8 * centre)
    high = st.bandpass(noise, 1.2 * centre, 2.2 * centre)
    mix = st.glide(0.0, 1.0, duration, log=False)
    mix = mix if rising else 1.0 - mix
    return st.finish((low * (1.0 - mix) + high * mix) * st.hump(duration, 0.55, 1.5))


def _shutter(p: Parameters, rng: Rng) -> Waveform:
    gap, centre = float(p["gap_s"]), float(p["brightness_hz"])

    def clack(index: int) -> Waveform:
        noise = st.white(0.09, rng) * st.decay(0.09, 0.05 + 0.03 * index)
        ring = st.modes(centre * np.array([0.5, 1.0, 1.7]), 0.03, [0.8, 1.0, 0.6], 0.09)
        return (0.7 + 0.3 * index) * (st.bandpass(noise, 0.4 * centre, 3 * centre) + 0.4 * ring)

    wave = st.lay([0.0, gap, gap + 0.018], clack)
    wind = st.bandpass(st.white(len(wave) / 44_100, rng), centre, 2 * centre)
    return st.finish(wave + 0.03 * wind[: len(wave)])


def _countdown(p: Parameters, rng: Rng) -> Waveform:
    f0, rate = float(p["f0_hz"]), float(p["rate_hz"])
    last = 4 if rng.random() < 0.5 or rate < 1.2 else 3

    def note(index: int) -> Waveform:
        final = index == last - 1
        length = 0.6 if final else 0.12
        return st.sine(f0 * (2.0 if final else 1.0), length) * st.plateau(length, 0.004, 0.02)

    return st.finish(st.lay(np.arange(last) / rate, note))


_model = st.family("interface", _FARNELL)
_RATE = Range("rate_hz", 4.0, 14.0, log=True, attribute="rate")
_BRIGHT = Range("brightness_hz", 900.0, 6000.0, log=True, attribute="brightness")

MODELS: tuple[SoundModel, ...] = (
    _model("beep", _beep, _PITCH, _LENGTH, names=("electronic beep", "bleep")),
    _model(
        "click",
        _click,
        Range("f0_hz", 800.0, 6000.0, log=True, attribute="pitch"),
        Range("decay_s", 0.015, 0.08, log=True, attribute="length"),
        names=("button click", "mouse click"),
    ),
    _model(
        "notification sound",
        _notification,
        _CHIME,
        Range("duration_s", 0.3, 1.5, log=True, attribute="length"),
        names=("message alert", "notification"),
    ),
    _model("success chime", _chime, _CHIME, _RATE, names=("success sound", "level complete")),
    _model(
        "error sound",
        _error,
        Range("f0_hz", 80.0, 400.0, log=True, attribute="pitch"),
        Range("duration_s", 0.2, 0.9, log=True, attribute="length"),
        names=("wrong answer buzzer", "error beep"),
    ),
    _model(
        "pop",
        _pop,
        Range("f0_hz", 200.0, 1500.0, log=True, attribute="pitch"),
        Range("duration_s", 0.04, 0.2, log=True, attribute="length"),
        names=("bubble pop", "pop sound"),
    ),
    _model(
        "swipe",
        _swipe,
        _BRIGHT,
        Range("duration_s", 0.12, 0.8, log=True, attribute="length"),
        names=("whoosh", "swoosh"),
    ),
    _model(
        "camera shutter",
        _shutter,
        _BRIGHT,
        Range("gap_s", 0.04, 0.25, log=True, attribute="length"),
        names=("camera click", "taking a photo"),
    ),
    _model(
        "countdown beep",
        _countdown,
        Range("f0_hz", 300.0, 1500.0, log=True, attribute="pitch"),
        Range("rate_hz", 1.0, 3.0, log=True, attribute="rate"),
        names=("race start beeps", "countdown timer"),
    ),
)
