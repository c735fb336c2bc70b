"""Sounds that repeat: footsteps, knocks, ticks, typing, hooves and clapping.

Source:
    Farnell, "Designing Sound" (2010), practicals 29 (footsteps) and 6 (clocks); Cook, "Modeling
    Bill's Gait" (2002), PhISEM crunches; Peltola et al. 2007, "Synthesis of hand clapping sounds".
"""

from __future__ import annotations

import numpy as np

from clipsynth_training.data.procedural import synth_tools as st
from clipsynth_training.data.procedural.model import Choice, Range, SoundModel, Waveform
from clipsynth_training.data.procedural.synth_tools import Parameters, Rng


def _count(p: Parameters, longest_s: float = 3.9) -> tuple[int, float]:
    """Return the number of events and their rate, as many as fit in ``longest_s``."""
    rate = float(p["rate_hz"])
    return max(2, min(int(float(p["count"])), int(longest_s * rate))), rate


def crunch(duration: float, grains: int, low: float, high: float, rng: Rng) -> Waveform:
    """Return noise [T] of many short collisions between two frequencies (PhISEM)."""
    size = len(st.times(duration))
    spikes = np.zeros(size)
    at = (rng.beta(1.3, 2.5, grains) * (size - 1)).astype(int)
    np.add.at(spikes, at, rng.exponential(1.0, grains) * rng.choice([-1.0, 1.0], grains))
    smear = st.white(0.004, rng) * st.decay(0.004, 0.004, 1e-4)
    return st.bandpass(np.convolve(spikes, smear)[:size], low, high)


def _thud(f0: float, t60: float, rng: Rng, length: float = 0.2) -> Waveform:
    ratios = np.array([1.0, 1.7, 2.6]) * rng.uniform(0.95, 1.05, 3)
    return st.modes(f0 * ratios, t60 / ratios, [1.0, 0.6, 0.4], length)


# grains, lowest and highest frequency, level of the crunch; pitch, ring, level of the thud; heel
_GROUND = {
    "gravel": (160, 1500.0, 9000.0, 1.0, 110.0, 0.05, 0.25, 0.2),
    "wood": (4, 500.0, 3000.0, 0.3, 170.0, 0.14, 1.0, 0.5),
    "concrete": (8, 1200.0, 6000.0, 0.4, 240.0, 0.03, 0.5, 0.9),
    "snow": (400, 500.0, 3000.0, 1.0, 80.0, 0.05, 0.2, 0.0),
    "grass": (150, 2500.0, 10000.0, 0.7, 70.0, 0.06, 0.3, 0.0),
    "metal": (5, 2000.0, 8000.0, 0.3, 430.0, 0.5, 0.9, 0.6),
    "leaves": (70, 3000.0, 13000.0, 1.0, 90.0, 0.04, 0.1, 0.0),
    "mud": (50, 250.0, 1400.0, 1.0, 65.0, 0.1, 0.5, 0.0),
}


def _footsteps(p: Parameters, rng: Rng) -> Waveform:
    count, rate = _count(p)
    grains, low, high, rough, f0, t60, thud, heel = _GROUND[str(p["surface"])]
    contact = float(np.clip(0.35 / rate, 0.1, 0.28))
    size = rng.uniform(0.85, 1.2)

    def step(_: int) -> Waveform:
        wave = np.zeros(round(0.5 * 44_100))
        noise = crunch(contact, grains, low, high, rng) * st.hump(contact, 0.25, 0.5)
        wave[: len(noise)] += rough * noise / max(np.max(np.abs(noise)), 1e-9)
        body = _thud(f0 * size * rng.uniform(0.96, 1.04), t60, rng, 0.5)
        wave += 0.6 * thud * body
        knock = st.bandpass(st.white(0.03, rng), 600, 4000) * st.decay(0.03, 0.015)
        wave[: len(knock)] += heel * knock
        toe = round(0.45 * contact * 44_100)  # the ball of the foot follows the heel
        wave[toe : toe + len(knock)] += 0.4 * heel * knock
        return wave * rng.uniform(0.75, 1.0)

    return st.finish(st.lay(st.regular(count, rate, rng, 0.08), step))


def _heartbeat(p: Parameters, rng: Rng) -> Waveform:
    rate, f0 = float(p["rate_hz"]), float(p["f0_hz"])
    count = max(2, int(3.6 * rate))
    gap = float(np.clip(0.33 / rate**0.5, 0.16, 0.38))

    def beat(_: int) -> Waveform:
        def half(index: int) -> Waveform:
            pitch = f0 * (1.0 + 0.25 * index) * (1.0 + st.decay(0.22, 0.1, 1e-4))
            return (1.0, 0.7)[index] * st.sine(pitch, 0.22) * st.decay(0.22, 0.2, 0.012)

        return st.lay([0.0, gap], half)

    wave = st.lay(st.regular(count, rate, rng, 0.02), beat)
    return st.finish(np.tanh(2.0 * wave))


def _knock(p: Parameters, rng: Rng) -> Waveform:
    count, rate = _count(p)
    f0 = float(p["f0_hz"])

    def hit(_: int) -> Waveform:
        ratios = np.array([1.0, 1.58, 2.24, 2.92, 4.1])
        body = st.modes(f0 * ratios, 0.16 / ratios**0.6, [1.0, 0.8, 0.6, 0.4, 0.3], 0.25)
        tap = st.bandpass(st.white(0.25, rng), 800, 3500) * st.decay(0.25, 0.015)
        return (body + 0.8 * tap) * rng.uniform(0.8, 1.0)

    return st.finish(st.lay(st.regular(count, rate, rng, 0.06), hit))


def _clock(p: Parameters, rng: Rng) -> Waveform:
    rate, f0 = float(p["rate_hz"]), float(p["f0_hz"])
    count = max(2, int(3.8 * rate))
    ratios = np.array([1.0, 1.47, 2.09, 2.56])

    def tick(index: int) -> Waveform:
        pitch = f0 * (1.0, 0.82)[index % 2]
        return st.modes(pitch * ratios, [0.05, 0.03, 0.03, 0.02], [1, 0.7, 0.6, 0.4], 0.07)

    return st.finish(st.lay(st.regular(count, rate, rng), tick))


def _typing(p: Parameters, rng: Rng) -> Waveform:
    rate, bright = float(p["rate_hz"]), float(p["brightness_hz"])
    count = max(3, int(3.5 * rate))

    def key(_: int) -> Waveform:
        pitch = bright * rng.uniform(0.8, 1.25)

        def clack(part: int) -> Waveform:
            noise = st.bandpass(st.white(0.05, rng), 0.6 * pitch, 2.5 * pitch)
            ring = st.modes([0.25 * pitch, pitch], 0.03, [0.5, 0.3], 0.05)
            return (1.0, 0.35)[part] * (noise * st.decay(0.05, 0.02) + ring)

        return st.lay([0.0, rng.uniform(0.06, 0.1)], clack) * rng.uniform(0.4, 1.0)

    return st.finish(st.lay(st.regular(count, rate, rng, 0.9), key))


def _gallop(p: Parameters, rng: Rng) -> Waveform:
    rate, f0 = float(p["rate_hz"]), float(p["f0_hz"])
    count = max(2, int(3.6 * rate))
    onsets = (np.arange(count)[:, None] + np.array([0.0, 0.2, 0.4])).ravel() / rate

    def hoof(index: int) -> Waveform:
        body = _thud(f0 * rng.uniform(0.93, 1.07), 0.09, rng, 0.15)
        dirt = st.bandpass(st.white(0.15, rng), 400, 2500) * st.decay(0.15, 0.05)
        return (0.8, 0.7, 1.0)[index % 3] * (body + 0.5 * dirt)

    return st.finish(st.lay(onsets, hoof))


def _applause(p: Parameters, rng: Rng) -> Waveform:
    people, length = int(float(p["count"])), float(p["duration_s"])
    claps = [
        st.bandpass(st.white(0.05, rng), f / 1.5, f * 1.5) * st.decay(0.05, 0.03)
        for f in np.geomspace(600, 2500, 12)
    ]
    starts = np.concatenate(
        [np.arange(rng.uniform(0, 0.3), length, 1 / rng.uniform(2.5, 5.0)) for _ in range(people)]
    )
    starts = np.sort(np.abs(starts + rng.normal(0.0, 0.02, len(starts))))
    wave = st.lay(starts, lambda _: claps[rng.integers(12)] * rng.uniform(0.4, 1.0))
    tail = st.plateau(len(wave) / 44_100, 0.1, 0.5)[: len(wave)]
    return st.finish(wave * tail, 0.3 + 0.1 * np.log2(people))


def _dice(p: Parameters, rng: Rng) -> Waveform:
    count, f0 = int(float(p["count"])), float(p["f0_hz"])
    onsets: list[float] = []
    for _ in range(count):
        gaps = rng.uniform(0.1, 0.2) * rng.uniform(0.68, 0.8) ** np.arange(10)
        onsets.extend(rng.uniform(0.0, 0.12) + np.cumsum(gaps))

    def bounce(index: int) -> Waveform:
        pitch = f0 * rng.uniform(0.8, 1.25)
        level = 0.8 ** (index % 10)
        return level * st.modes(pitch * np.array([1, 1.8, 2.7]), 0.025, [1, 0.7, 0.4], 0.04)

    return st.finish(st.lay(onsets, bounce))


def _machine_gun(p: Parameters, rng: Rng) -> Waveform:
    count, rate = _count(p, 3.0)

    def shot(_: int) -> Waveform:
        noise = st.white(0.35, rng)
        crack = noise * st.decay(0.35, 0.05, 2e-4)
        boom = st.lowpass(noise, 400.0) * st.decay(0.35, 0.3) * 4.0
        return np.tanh(2.0 * crack + boom) * rng.uniform(0.9, 1.0)

    return st.finish(st.lay(st.regular(count, rate, rng, 0.03), shot))


def _rate(low: float, high: float) -> Range:
    return Range("rate_hz", low, high, log=True, attribute="rate")


def _pitch(low: float, high: float) -> Range:
    return Range("f0_hz", low, high, log=True, attribute="pitch")


def _number(low: float, high: float) -> Range:
    return Range("count", low, high + 0.99, attribute="count")


_steps = st.family("footsteps", "Farnell 2010, practical 29; Cook 2002, Modeling Bill's Gait")
_daily = st.family("everyday", "Farnell 2010, Designing Sound, part IV; Peltola et al. 2007")

MODELS: tuple[SoundModel, ...] = (
    _steps(
        "footsteps",
        _footsteps,
        Choice("surface", tuple(_GROUND), "surface"),
        _rate(1.4, 4.0),
        _number(3, 12),
        names=("walking", "running footsteps"),
    ),
    _steps(
        "horse gallop",
        _gallop,
        _rate(1.2, 2.8),
        _pitch(110, 350),
        names=("horse galloping", "horse hooves"),
    ),
    _daily("heartbeat", _heartbeat, _rate(0.8, 2.8), _pitch(38, 90), names=("heart beating",)),
    _daily(
        "door knock",
        _knock,
        _pitch(90, 400),
        _rate(2.0, 7.0),
        _number(2, 7),
        names=("knocking on a door",),
    ),
    _daily(
        "clock ticking",
        _clock,
        _rate(1.0, 6.0),
        _pitch(900, 4500),
        names=("ticking clock",),
        steady=True,
    ),
    _daily(
        "keyboard typing",
        _typing,
        _rate(3.0, 12.0),
        Range("brightness_hz", 1200, 5000, log=True, attribute="brightness"),
        names=("typing on a keyboard",),
        steady=True,
    ),
    _daily(
        "applause",
        _applause,
        Range("count", 3, 60, log=True, attribute="count"),
        Range("duration_s", 1.2, 3.8, log=True, attribute="length"),
        names=("people clapping", "clapping"),
        steady=True,
    ),
    _daily("dice roll", _dice, _number(1, 5), _pitch(1200, 4000), names=("rolling dice",)),
    _daily(
        "machine gun", _machine_gun, _rate(5.0, 16.0), _number(4, 40), names=("automatic gunfire",)
    ),
)
