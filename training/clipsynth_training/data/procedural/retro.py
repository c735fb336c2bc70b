"""Sounds of old computer games and of science fiction.

Source:
    Pettersson, sfxr (2007), the parameter ranges of its presets; Farnell, "Designing Sound"
    (2010), practicals 33 to 35 (transporter, R2D2, red alert).
"""

from __future__ import annotations

import numpy as np

from clipsynth_training.data.procedural import synth_tools as st
from clipsynth_training.data.procedural.model import Range, SoundModel, Waveform
from clipsynth_training.data.procedural.synth_tools import Parameters, Rng


def _pitch(low: float, high: float) -> Range:
    return Range("f0_hz", low, high, log=True, attribute="pitch")


def _length(low: float, high: float) -> Range:
    return Range("duration_s", low, high, log=True, attribute="length")


def _rate(low: float, high: float) -> Range:
    return Range("rate_hz", low, high, log=True, attribute="rate")


def _two(p: Parameters, second: str = "duration_s") -> tuple[float, float]:
    return float(p["f0_hz"]), float(p[second])


def _voice(pitch: float | Waveform, duration: float, rng: Rng) -> Waveform:
    if rng.random() < 0.6:
        return st.square(pitch, duration, rng.uniform(0.2, 0.5))
    return st.saw(pitch, duration)


def _coin(p: Parameters, rng: Rng) -> Waveform:
    f0, duration = _two(p)
    leap = 2 ** (rng.choice([5, 7, 4]) / 12)
    t = st.times(duration)
    pitch = np.where(t < 0.07, f0, f0 * leap)
    return st.finish(st.square(pitch, duration, 0.5) * st.decay(duration, 1.3 * duration))


def _jump(p: Parameters, rng: Rng) -> Waveform:
    f0, duration = _two(p)
    pitch = st.glide(f0, f0 * rng.uniform(2.0, 3.5), duration)
    wave = st.square(pitch, duration, rng.uniform(0.2, 0.5))
    return st.finish(wave * st.plateau(duration, 0.003, 0.4 * duration))


def _laser(p: Parameters, rng: Rng) -> Waveform:
    f0, duration = _two(p)
    pitch = f0 * rng.uniform(0.05, 0.15) + f0 * st.decay(duration, 1.6 * duration, 1e-4)
    return st.finish(_voice(pitch, duration, rng) * st.decay(duration, 1.8 * duration))


def _power(rising: bool, p: Parameters, rng: Rng) -> Waveform:
    f0, duration = _two(p)
    ends = (f0, f0 * rng.uniform(3.0, 5.0))
    pitch = st.glide(*(ends if rising else ends[::-1]), duration)
    pitch = pitch * (1.0 + 0.06 * np.sign(st.sine(rng.uniform(10.0, 18.0), duration)))
    return st.finish(_voice(pitch, duration, rng) * st.plateau(duration, 0.01, 0.3 * duration))


def _power_up(p: Parameters, rng: Rng) -> Waveform:
    return _power(True, p, rng)


def _power_down(p: Parameters, rng: Rng) -> Waveform:
    return _power(False, p, rng)


def _explosion(p: Parameters, rng: Rng) -> Waveform:
    cutoff, duration = float(p["brightness_hz"]), float(p["duration_s"])
    held = rng.standard_normal(int(duration * 2 * cutoff) + 8)
    clock = st.phase(st.glide(2 * cutoff, 0.6 * cutoff, duration), duration)
    return st.finish(held[clock.astype(int)] * st.decay(duration, 1.2 * duration))


def _blip(p: Parameters, rng: Rng) -> Waveform:
    f0, duration = _two(p)
    return st.finish(_voice(f0, duration, rng) * st.plateau(duration, 0.001, 0.3 * duration))


def _melody(f0: float, rate: float, steps: list[int], rng: Rng) -> Waveform:
    length = 1.0 / rate

    def note(index: int) -> Waveform:
        held = length * (2.5 if index == len(steps) - 1 else 1.0)
        return st.square(f0 * 2 ** (steps[index] / 12), held) * st.plateau(held, 0.003, 0.4 * held)

    return st.finish(st.lay(np.arange(len(steps)) * length, note))


def _game_over(p: Parameters, rng: Rng) -> Waveform:
    steps = [[12, 11, 10, 9, 8], [12, 8, 5, 0], [7, 5, 3, 0], [0, -2, -4, -7]][rng.integers(4)]
    return _melody(*_two(p, "rate_hz"), steps, rng)


def _teleport(p: Parameters, rng: Rng) -> Waveform:
    f0, duration = _two(p)
    rise = st.glide(f0, 5 * f0, duration)
    wobble = 1.0 + 0.3 * st.sine(st.glide(8.0, 40.0, duration), duration)
    tones = st.sum_of(st.sine(rise * ratio * wobble, duration) for ratio in (1.0, 1.51, 2.03))
    return st.finish(tones * st.hump(duration, 0.7))


def _hum(p: Parameters, rng: Rng) -> Waveform:
    f0, beat = _two(p, "rate_hz")
    duration = rng.uniform(2.0, 3.8)
    voices = st.sum_of(st.saw(f0 + shift, duration) for shift in (-beat / 2, 0.0, beat / 2))
    return st.finish(st.lowpass(voices, 8 * f0) * st.plateau(duration, 0.3, 0.4))


def _force_field(p: Parameters, rng: Rng) -> Waveform:
    f0, rate = _two(p, "rate_hz")
    duration = rng.uniform(1.5, 3.5)
    ring = st.sine(f0 + 1.5 * f0 * st.sine(2.02 * f0, duration), duration)
    shimmer = 0.55 + 0.45 * st.sine(rate, duration)
    buzz = st.bandpass(st.saw(f0, duration), 2 * f0, 12 * f0)
    return st.finish((ring + buzz) * shimmer * st.plateau(duration, 0.15, 0.25))


def _ufo(p: Parameters, rng: Rng) -> Waveform:
    f0, rate = _two(p, "rate_hz")
    duration = rng.uniform(1.5, 3.8)
    pitch = f0 * 2 ** (rng.uniform(0.2, 0.5) * st.sine(rate, duration))
    wave = st.sine(pitch, duration) + 0.3 * st.sine(2 * pitch, duration)
    return st.finish(wave * st.plateau(duration, 0.1, 0.2))


def _spell(p: Parameters, rng: Rng) -> Waveform:
    f0, rate = _two(p, "rate_hz")
    count = int(rate * 1.2) + 3
    scale = np.array([0, 2, 4, 7, 9, 12, 14, 16, 19, 21, 24])
    steps = scale[np.linspace(0, 10, count).astype(int)] + rng.integers(0, 2, count) * 12

    def sparkle(index: int) -> Waveform:
        pitch = f0 * 2 ** (steps[index] / 12)
        return st.modes([pitch, 2.76 * pitch], [0.6, 0.25], [1.0, 0.3], 0.6)

    return st.finish(st.lay(st.regular(count, rate, rng, 0.5), sparkle))


def _sonar(p: Parameters, rng: Rng) -> Waveform:
    f0, duration = _two(p)
    tone = st.sine(f0, duration) * st.decay(duration, duration, 0.01)
    echo = st.lay([0.0, 0.23, 0.51], lambda index: tone * 0.35**index)
    return st.finish(echo)


def _alarm(p: Parameters, rng: Rng) -> Waveform:
    f0, rate = _two(p, "rate_hz")
    duration = rng.uniform(1.5, 3.5)
    sweep = st.phase(rate, duration) % 1.0
    tone = st.formants(st.saw(f0 * (1.0 + 0.8 * sweep), duration), [2 * f0, 5 * f0], 3.0)
    return st.finish(tone * np.minimum(1.0, 8 * (1.0 - sweep)) * st.plateau(duration))


def _glitch(p: Parameters, rng: Rng) -> Waveform:
    centre, rate = float(p["brightness_hz"]), float(p["rate_hz"])
    count = max(4, int(rate * rng.uniform(0.6, 1.5)))

    def grain(index: int) -> Waveform:
        length = rng.uniform(0.3, 1.0) / rate
        pitch = centre * 2 ** rng.uniform(-1.0, 1.0)
        tone = st.square(pitch, length, rng.uniform(0.1, 0.5))
        held = np.repeat(st.white(length, rng)[::8], 8)[: len(tone)]
        return rng.uniform(0.3, 1.0) * (tone if rng.random() < 0.6 else held)

    return st.finish(st.lay(st.regular(count, rate, rng, 0.6), grain))


_VOWELS = ((730.0, 1090.0, 2440.0), (530.0, 1840.0, 2480.0), (270.0, 2290.0, 3010.0),
           (570.0, 840.0, 2410.0), (300.0, 870.0, 2240.0))  # fmt: skip


def _robot(p: Parameters, rng: Rng) -> Waveform:
    f0, rate = _two(p, "rate_hz")
    count = max(3, int(rate * rng.uniform(1.0, 2.0)))
    length = 0.85 / rate

    def syllable(index: int) -> Waveform:
        ring = st.saw(f0, length) * (0.6 + 0.4 * st.sine(0.5 * f0, length))
        onset = st.white(length, rng) * st.decay(length, 0.06) * 0.3
        return st.formants(ring + onset, _VOWELS[rng.integers(5)], 7.0) * st.plateau(length)

    return st.finish(st.lay(np.arange(count) / rate, syllable))


def _charge(p: Parameters, rng: Rng) -> Waveform:
    f0, duration = _two(p)
    pitch = st.glide(f0, f0 * rng.uniform(5.0, 9.0), duration)
    pulse = 0.7 + 0.3 * st.sine(st.glide(5.0, 40.0, duration), duration)
    wave = st.saw(pitch, duration) + st.sine(2.01 * pitch, duration)
    return st.finish(wave * pulse * st.glide(0.15, 1.0, duration) * st.plateau(duration))


_game = st.family("games", "Pettersson 2007, sfxr presets")
_scifi = st.family("science fiction", "Farnell 2010, Designing Sound, practicals 33-35")

MODELS: tuple[SoundModel, ...] = (
    _game(
        "retro coin pickup",
        _coin,
        _pitch(500, 1600),
        _length(0.2, 0.8),
        names=("coin sound", "8-bit coin"),
    ),
    _game(
        "retro jump", _jump, _pitch(120, 700), _length(0.1, 0.5), names=("8-bit jump", "game jump")
    ),
    _game(
        "laser gun",
        _laser,
        _pitch(700, 4000),
        _length(0.12, 0.6),
        names=("laser shot", "blaster", "pew pew"),
    ),
    _game(
        "power up",
        _power_up,
        _pitch(150, 600),
        _length(0.3, 1.2),
        names=("level up", "8-bit power up"),
    ),
    _game(
        "power down",
        _power_down,
        _pitch(100, 500),
        _length(0.3, 1.5),
        names=("power down", "shutting down"),
    ),
    _game(
        "retro explosion",
        _explosion,
        Range("brightness_hz", 300, 5000, log=True, attribute="brightness"),
        _length(0.3, 1.8),
        names=("8-bit explosion", "arcade explosion"),
    ),
    _game(
        "blip", _blip, _pitch(200, 2000), _length(0.03, 0.2), names=("menu select", "8-bit blip")
    ),
    _game(
        "game over",
        _game_over,
        _pitch(150, 600),
        _rate(3.0, 9.0),
        names=("losing jingle", "game over sound"),
    ),
    _scifi(
        "teleport",
        _teleport,
        _pitch(150, 700),
        _length(0.6, 2.5),
        names=("teleporter", "beaming up"),
    ),
    _scifi(
        "force field",
        _force_field,
        _pitch(50, 220),
        _rate(1.0, 12.0),
        names=("energy shield",),
        steady=True,
    ),
    _scifi(
        "ufo",
        _ufo,
        _pitch(250, 1200),
        _rate(1.5, 12.0),
        names=("flying saucer", "alien spaceship"),
        steady=True,
    ),
    _scifi(
        "magic spell",
        _spell,
        _pitch(400, 1200),
        _rate(8.0, 30.0),
        names=("magic sparkle", "fairy dust"),
    ),
    _scifi("sonar ping", _sonar, _pitch(500, 2500), _length(0.8, 3.0), names=("submarine sonar",)),
    _scifi(
        "sci-fi alarm",
        _alarm,
        _pitch(200, 900),
        _rate(0.8, 4.0),
        names=("red alert", "spaceship alarm"),
        steady=True,
    ),
    _scifi(
        "glitch",
        _glitch,
        Range("brightness_hz", 200, 4000, log=True, attribute="brightness"),
        _rate(8.0, 50.0),
        names=("digital glitch", "computer malfunction"),
    ),
    _scifi(
        "robot voice",
        _robot,
        _pitch(70, 250),
        _rate(2.5, 8.0),
        names=("robot talking", "talking robot"),
    ),
    _scifi(
        "spaceship hum",
        _hum,
        _pitch(35, 140),
        _rate(0.3, 6.0),
        names=("spaceship engine",),
        steady=True,
    ),
    _scifi(
        "charge up",
        _charge,
        _pitch(60, 300),
        _length(0.7, 3.5),
        names=("weapon charging", "charging up"),
    ),
)
