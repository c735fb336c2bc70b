"""Struck and broken bodies of metal, wood, stone and glass.

Source:
    Cook, "Real Sound Synthesis" (2002), chapter 4 (modal synthesis); Fletcher and Rossing, "The
    Physics of Musical Instruments" (1998), chapters 2, 3, 20 and 21 (bars, plates, gongs, bells).
"""

from __future__ import annotations

import numpy as np

from clipsynth_training.data.procedural import synth_tools as st
from clipsynth_training.data.procedural.model import Range, Render, SoundModel, Waveform
from clipsynth_training.data.procedural.synth_tools import Parameters, Rng

BAR = (1.0, 2.756, 5.404, 8.933, 13.34)
PLATE = (1.0, 1.52, 2.08, 2.72, 3.41, 4.16, 5.3, 6.9)
BELL = (0.5, 1.0, 1.183, 1.506, 2.0, 2.514, 2.662, 3.011, 4.166, 5.43)
GONG = (1.0, 1.32, 1.73, 2.18, 2.61, 3.07, 3.66, 4.31, 5.2, 6.4)
GLASS = (1.0, 2.32, 4.25, 6.63, 9.38)


def _strike(
    f0: float, t60: float, ratios: tuple[float, ...], tilt: float, rng: Rng, tap: float = 0.2
) -> Waveform:
    """Return a body struck once: higher modes are weaker by ``tilt`` and ring for less time."""
    ratio = np.array(ratios) * rng.uniform(0.985, 1.015, len(ratios))
    gains = ratio**-tilt * rng.uniform(0.5, 1.0, len(ratios))
    length = min(1.05 * t60 + 0.03, 4.0)
    wave = st.modes(f0 * ratio, t60 / ratio**0.5, gains, length)
    noise = st.highpass(st.white(0.02, rng), f0) * st.decay(0.02, 0.012, 2e-4)
    wave[: len(noise)] += tap * noise
    return wave


def _struck(ratios: tuple[float, ...], tilt: float, tap: float) -> Render:
    def render(p: Parameters, rng: Rng) -> Waveform:
        return st.finish(_strike(float(p["f0_hz"]), float(p["ring_s"]), ratios, tilt, rng, tap))

    return render


def _gong(p: Parameters, rng: Rng) -> Waveform:
    f0, ring = float(p["f0_hz"]), float(p["ring_s"])
    wave = _strike(f0, ring, GONG, 0.5, rng, 0.05)
    length = len(wave) / 44_100
    bloom = np.minimum(st.times(length) / 0.25, 1.0)[: len(wave)]  # energy climbs to high modes
    high = st.modes(f0 * rng.uniform(5, 14, 14), 0.6 * ring, 0.2, length)[: len(wave)]
    return st.finish(wave + bloom * high)


def _scatter(
    count: int, spread: float, f0: float, ring: float, ratios: tuple[float, ...], rng: Rng
) -> Waveform:
    onsets = np.sort(spread * rng.beta(1.0, 2.5, count))

    def piece(_: int) -> Waveform:
        pitch = f0 * 2 ** rng.uniform(-0.8, 0.8)
        return rng.uniform(0.2, 1.0) * _strike(pitch, ring * rng.uniform(0.5, 1), ratios, 0.4, rng)

    return st.lay(onsets - onsets[0], piece)


def _breaking(ring: float, ratios: tuple[float, ...]) -> Render:
    def render(p: Parameters, rng: Rng) -> Waveform:
        f0, count = float(p["f0_hz"]), int(float(p["count"]))
        crash = st.highpass(st.white(0.25, rng), 0.6 * f0) * st.decay(0.25, 0.2, 3e-4)
        shards = _scatter(count, rng.uniform(0.5, 1.2), f0, ring, ratios, rng)
        shards = shards / np.max(np.abs(shards))
        parts = [crash / np.max(np.abs(crash)), shards]
        return st.finish(st.lay([0.0, 0.01], lambda index: parts[index]))

    return render


def _jingling(ring: float, seconds: float) -> Render:
    def render(p: Parameters, rng: Rng) -> Waveform:
        f0, rate = float(p["f0_hz"]), float(p["rate_hz"])
        count = max(3, int(rate * seconds))
        onsets = st.regular(count, rate, rng, 1.5)
        return st.finish(
            st.lay(
                onsets,
                lambda _: (
                    rng.uniform(0.3, 1.0)
                    * _strike(f0 * 2 ** rng.uniform(-0.4, 0.4), ring, PLATE, 0.2, rng)
                ),
            )
        )

    return render


def _marble(p: Parameters, rng: Rng) -> Waveform:
    f0, bounce = float(p["f0_hz"]), float(p["bounce"])
    speeds = bounce ** np.arange(int(min(30, np.log(0.02) / np.log(bounce))))
    onsets = np.concatenate([[0.0], np.cumsum(0.5 * speeds[:-1])])  # air time goes as the speed
    return st.finish(st.lay(onsets, lambda i: speeds[i] * _strike(f0, 0.04, GLASS, 0.8, rng, 0.3)))


def _slam(p: Parameters, rng: Rng) -> Waveform:
    f0, intensity = float(p["f0_hz"]), float(p["intensity"])
    body = _strike(f0, 0.35, PLATE, 0.9, rng)
    noise = st.lowpass(st.white(0.4, rng), 600.0 + 4000.0 * intensity) * st.decay(0.4, 0.2)
    latch = 0.3 * _strike(1800.0, 0.06, PLATE, 0.3, rng)
    parts = [body, noise * (0.5 + intensity), latch]
    return st.finish(st.lay([0.0, 0.0, 0.025], lambda i: parts[i]), 0.25 + 0.75 * intensity)


def _creak(p: Parameters, rng: Rng) -> Waveform:
    f0, duration = float(p["f0_hz"]), float(p["duration_s"])
    pitch = f0 * 2 ** (0.6 * st.slow_noise(duration, 2.5, rng))  # stick-slip of the hinge
    pulses = st.highpass(st.saw(pitch, duration), 200.0)
    wood = st.formants(
        pulses, list(np.array([420.0, 980.0, 1750.0, 2900.0]) * rng.uniform(0.8, 1.3)), 9
    )
    return st.finish(wood * (0.6 + 0.4 * st.slow_noise(duration, 5.0, rng)) * st.hump(duration))


def _pitch(low: float, high: float) -> Range:
    return Range("f0_hz", low, high, log=True, attribute="pitch")


def _ring(low: float, high: float) -> Range:
    return Range("ring_s", low, high, log=True, attribute="length")


def _count(low: float, high: float) -> Range:
    return Range("count", low, high, log=True, attribute="count")


_RATE = Range("rate_hz", 6.0, 30.0, log=True, attribute="rate")
_make = st.family(
    "impacts", "Cook 2002, Real Sound Synthesis, chapter 4; Fletcher and Rossing 1998"
)

MODELS: tuple[SoundModel, ...] = (
    _make(
        "glass breaking",
        _breaking(0.25, GLASS),
        _pitch(1500, 5000),
        _count(10, 60),
        names=("glass shattering",),
    ),
    _make(
        "plate breaking",
        _breaking(0.08, PLATE),
        _pitch(900, 3000),
        _count(5, 30),
        names=("smashing a plate",),
    ),
    _make(
        "glass clink",
        _struck(GLASS, 0.8, 0.2),
        _pitch(800, 3500),
        _ring(0.3, 2.0),
        names=("clinking glass",),
    ),
    _make(
        "metal hit",
        _struck(PLATE, 0.3, 0.4),
        _pitch(200, 1800),
        _ring(0.2, 2.5),
        names=("metal clang",),
    ),
    _make(
        "wood hit",
        _struck(BAR, 0.9, 0.5),
        _pitch(120, 900),
        _ring(0.05, 0.25),
        names=("hitting wood",),
    ),
    _make(
        "woodblock",
        _struck(BAR[:3], 1.3, 0.3),
        _pitch(500, 2000),
        _ring(0.06, 0.2),
        names=("wood block",),
    ),
    _make(
        "stone hit",
        _struck(PLATE, 0.4, 1.0),
        _pitch(700, 3000),
        _ring(0.02, 0.09),
        names=("rock hit",),
    ),
    _make(
        "bell", _struck(BELL, 0.5, 0.1), _pitch(600, 2800), _ring(0.8, 3.5), names=("hand bell",)
    ),
    _make(
        "church bell",
        _struck(BELL, 0.4, 0.05),
        _pitch(130, 500),
        _ring(2.5, 4.0),
        names=("bell tower",),
    ),
    _make("gong", _gong, _pitch(60, 260), _ring(2.5, 4.0), names=("gong hit",)),
    _make(
        "anvil",
        _struck(BAR, 0.2, 0.6),
        _pitch(600, 2200),
        _ring(0.5, 2.5),
        names=("hammer on anvil",),
    ),
    _make(
        "sword clash",
        _struck(BAR + GONG, 0.1, 0.8),
        _pitch(700, 2200),
        _ring(0.4, 1.8),
        names=("swords clashing",),
    ),
    _make(
        "bottle",
        _struck(GLASS, 1.1, 0.2),
        _pitch(400, 1600),
        _ring(0.1, 0.6),
        names=("bottle clank",),
    ),
    _make(
        "coins jingling", _jingling(0.25, 1.4), _pitch(3000, 6500), _RATE, names=("jingling coins",)
    ),
    _make(
        "chain rattling", _jingling(0.07, 1.8), _pitch(900, 3000), _RATE, names=("rattling chains",)
    ),
    _make(
        "marble bouncing",
        _marble,
        _pitch(1500, 5000),
        Range("bounce", 0.6, 0.88, attribute="length"),
        names=("bouncing ball",),
    ),
    _make(
        "door slam",
        _slam,
        _pitch(60, 220),
        Range("intensity", 0.0, 1.0, attribute="intensity"),
        names=("slamming door",),
    ),
    _make(
        "door creak",
        _creak,
        _pitch(30, 220),
        Range("duration_s", 0.6, 3.5, log=True, attribute="length"),
        names=("creaking door",),
    ),
)
