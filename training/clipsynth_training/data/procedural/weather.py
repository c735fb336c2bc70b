"""Rain, wind, thunder, fire and water.

Source:
    Farnell, "Designing Sound" (2010), practicals 11 to 18 (fire, bubbles, running and pouring
    water, rain, electricity, thunder, wind); van den Doel 2005, "Physically based models for
    liquid sounds"; Minnaert 1933 (a bubble of radius r rings at 3.26 / r hertz).
"""

from __future__ import annotations

import numpy as np
from scipy import signal

from clipsynth_training.data.procedural import synth_tools as st
from clipsynth_training.data.procedural.model import Choice, Range, SoundModel, Waveform
from clipsynth_training.data.procedural.synth_tools import Parameters, Rng


def _spikes(duration: float, rate: float, rng: Rng) -> Waveform:
    """Return impulses [T] at random times, ``rate`` a second, of uneven strength."""
    wave = np.zeros(len(st.times(duration)))
    count = max(1, rng.poisson(rate * duration))
    np.add.at(
        wave,
        rng.integers(0, len(wave), count),
        rng.pareto(2.5, count).clip(0, 6) * rng.choice([-1, 1], count),
    )
    return wave


def _through(spikes: Waveform, response: Waveform) -> Waveform:
    return np.asarray(signal.oaconvolve(spikes, response)[: len(spikes)], np.float64)


def _bubble(radius_mm: float, rng: Rng, rise: float = 0.1) -> Waveform:
    f0 = 3260.0 / radius_mm
    damping = 0.13 * f0 / 10 + 0.0072 * f0**1.5 / 100
    length = min(0.25, 5.0 / damping)
    t = st.times(length)
    pitch = f0 * (1.0 + rise * damping * t)
    return np.asarray(st.sine(pitch, length) * np.exp(-damping * t) * np.minimum(t / 0.002, 1.0))


def _bubbles(duration: float, rate: float, low_mm: float, high_mm: float, rng: Rng) -> Waveform:
    """Return bubbles [T] of random radii; sizes share a dozen grains."""
    wave = np.zeros(len(st.times(duration)))
    for radius in np.geomspace(low_mm, high_mm, 14) * rng.uniform(0.93, 1.07, 14):
        grain = _bubble(radius, rng, rng.uniform(0.0, 0.25))
        wave += _through(_spikes(duration, rate / 14, rng), grain) * (radius / high_mm) ** 0.7
    return wave


# centre of a drop's strike, its width as a ratio, its ring, level of the wash, lowpass of the wash
_RAIN = {
    "tin roof": (2600.0, 2.2, 0.07, 0.15, 6000.0),
    "leaves": (3500.0, 2.0, 0.01, 0.25, 8000.0),
    "window": (1800.0, 1.8, 0.02, 0.15, 5000.0),
    "pavement": (5000.0, 2.5, 0.006, 0.5, 14000.0),
    "tent": (450.0, 2.0, 0.03, 0.12, 2500.0),
}


def _rain(p: Parameters, rng: Rng) -> Waveform:
    intensity = float(p["intensity"])
    centre, width, ring, wash, cutoff = _RAIN[str(p["surface"])]
    duration = rng.uniform(3.0, 4.0)
    wave = np.zeros(len(st.times(duration)))
    for _ in range(6):
        hit = st.white(0.12, rng) * st.decay(0.12, max(ring, 0.006), 2e-4)
        pitch = centre * width ** rng.uniform(-0.7, 0.7)
        hit = st.bandpass(hit, pitch / 1.5, pitch * 1.5)
        if ring > 0.05:  # a sheet of metal rings
            hit += st.modes(pitch * np.array([1.0, 1.53, 2.31]), ring, [0.8, 0.6, 0.4], 0.12)
        wave += _through(_spikes(duration, 2.0 * 150.0**intensity, rng), hit)
    wave /= np.std(wave) + 1e-9
    hiss = st.highpass(st.lowpass(st.white(duration, rng), cutoff, 1), 300.0, 1)
    wave = wave + wash * (0.3 + 5.0 * intensity) * hiss / np.std(hiss)
    gain = 10 ** (1.2 * (intensity - 1.0))
    return st.finish(wave * st.plateau(duration, 0.1, 0.1), gain)


def _hail(p: Parameters, rng: Rng) -> Waveform:
    intensity, f0 = float(p["intensity"]), float(p["f0_hz"])
    duration = rng.uniform(2.5, 4.0)
    wave = np.zeros(len(st.times(duration)))
    for _ in range(10):
        pitch = f0 * 2 ** rng.uniform(-0.7, 0.7)
        hit = st.modes(pitch * np.array([1.0, 1.72, 2.9]), 0.03, [1.0, 0.7, 0.5], 0.06)
        hit += 0.8 * st.white(0.06, rng) * st.decay(0.06, 0.012, 1e-4)
        wave += _through(_spikes(duration, 0.8 * 60.0**intensity, rng), hit)
    return st.finish(wave * st.plateau(duration, 0.02, 0.1), 10 ** (intensity - 1.0))


def _thunder(p: Parameters, rng: Rng) -> Waveform:
    near, length = 1.0 - float(p["distance"]), float(p["duration_s"])
    noise = st.white(length, rng)
    dark = st.lowpass(noise, 90.0 + 250.0 * near, 2)
    dark /= np.std(dark)
    roll = 0.35 + 0.65 * np.abs(st.slow_noise(length, 4.0, rng))
    wave = dark * roll * st.decay(length, 1.6 * length, 0.05 + 0.5 * (1.0 - near))
    cracks = st.lay(
        np.sort(rng.uniform(0.0, 0.25, 12)),
        lambda _: st.highpass(st.white(0.4, rng), 300.0) * st.decay(0.4, rng.uniform(0.08, 0.4)),
    )[: len(wave)]
    wave[: len(cracks)] += 3.0 * near**2 * cracks
    return st.finish(np.tanh(0.7 * wave) * st.plateau(length, 0.003, 0.4), 0.15 + 0.85 * near)


def _wind(p: Parameters, rng: Rng) -> Waveform:
    intensity, howl = float(p["intensity"]), float(p["f0_hz"])
    duration = rng.uniform(3.0, 4.0)
    gust = 0.5 + 0.5 * st.slow_noise(duration, 0.6 + 1.2 * intensity, rng)
    speed = (0.4 + 0.6 * gust) * (0.3 + 0.7 * intensity)
    noise = st.white(duration, rng)
    body = st.lowpass(noise, 250.0 + 700.0 * intensity, 1)
    low, high = st.bandpass(noise, 0.85 * howl, 1.1 * howl), st.bandpass(noise, howl, 1.4 * howl)
    whistle = low * (1.0 - gust) + high * gust
    wave = body / np.std(body) + (0.5 + 2.0 * intensity) * gust * whistle / np.std(whistle)
    return st.finish(wave * speed * st.plateau(duration, 0.3, 0.3), 10 ** (intensity - 1.0))


def _waves(p: Parameters, rng: Rng) -> Waveform:
    intensity, period = float(p["intensity"]), float(p["period_s"])
    duration = 4.0
    t = st.times(duration)
    cycle = (t / period + rng.uniform(0.0, 0.3)) % 1.0
    rise = 0.3
    swell = np.where(cycle < rise, (cycle / rise) ** 2, np.exp(-4.0 * (cycle - rise)))
    noise = st.white(duration, rng)
    roar, foam = st.lowpass(noise, 300 + 500 * intensity, 1), st.highpass(noise, 2500.0, 1)
    wave = roar / np.std(roar) * swell * (0.4 + intensity) + 0.5 * foam * swell**0.6 * 0.6
    return st.finish(wave * st.plateau(duration, 0.15, 0.2), 0.25 + 0.75 * intensity)


def _stream(p: Parameters, rng: Rng) -> Waveform:
    rate, size = float(p["rate_hz"]), float(p["size_mm"])
    duration = rng.uniform(3.0, 4.0)
    wave = _bubbles(duration, rate, 0.4 * size, 1.6 * size, rng)
    wash = st.bandpass(st.white(duration, rng), 400.0, 3000.0)
    wave = wave / np.std(wave) + 0.25 * wash / np.std(wash)
    return st.finish(wave * st.plateau(duration, 0.1, 0.1))


def _waterfall(p: Parameters, rng: Rng) -> Waveform:
    intensity, bright = float(p["intensity"]), float(p["brightness_hz"])
    duration = rng.uniform(3.0, 4.0)
    hiss = st.lowpass(st.white(duration, rng), bright, 1)
    rumble = st.lowpass(st.white(duration, rng), 180.0, 1)
    wave = hiss / np.std(hiss) + intensity * rumble / np.std(rumble)
    wave *= 1.0 + 0.1 * st.slow_noise(duration, 5.0, rng)
    return st.finish(wave * st.plateau(duration, 0.1, 0.1), 10 ** (intensity - 1.0))


def _fire(p: Parameters, rng: Rng) -> Waveform:
    rate, intensity = float(p["rate_hz"]), float(p["intensity"])
    duration = rng.uniform(3.0, 4.0)
    snap = st.white(0.03, rng) * st.decay(0.03, 0.012, 1e-4)
    wave = np.zeros(len(st.times(duration)))
    for _ in range(5):
        centre = rng.uniform(1200.0, 7000.0)
        crack = st.bandpass(snap, centre / 1.6, centre * 1.6)
        wave += _through(_spikes(duration, rate / 5, rng), crack / np.max(np.abs(crack)))
    flames = st.bandpass(st.white(duration, rng), 40.0, 350.0)
    lapping = flames / np.std(flames) * (1.0 + 0.6 * st.slow_noise(duration, 6.0, rng))
    hiss = st.highpass(st.white(duration, rng), 1500.0, 1)
    wave = 0.5 * wave + intensity * (0.25 * lapping + 0.05 * hiss)
    return st.finish(wave * st.plateau(duration, 0.05, 0.1), 0.4 + 0.6 * intensity)


def _drop(p: Parameters, rng: Rng) -> Waveform:
    count, size = int(float(p["count"])), float(p["size_mm"])

    def plink(_: int) -> Waveform:
        radius = size * rng.uniform(0.9, 1.1)
        tap = st.highpass(st.white(0.006, rng), 3000.0) * st.decay(0.006, 0.004)
        parts = [0.15 * tap, _bubble(radius, rng, 0.15)]
        return st.lay([0.0, 0.012], lambda index: parts[index])

    return st.finish(st.lay(st.regular(count, rng.uniform(1.2, 4.0), rng, 0.5), plink))


def _many(p: Parameters, rng: Rng) -> Waveform:
    rate, size = float(p["rate_hz"]), float(p["size_mm"])
    duration = rng.uniform(1.5, 4.0)
    onsets = np.sort(rng.uniform(0.0, duration, max(3, int(rate * duration))))
    wave = st.lay(
        onsets,
        lambda _: (
            _bubble(size * 2 ** rng.uniform(-0.6, 0.6), rng, rng.uniform(0.1, 0.3))
            * rng.uniform(0.3, 1.0)
        ),
    )
    return st.finish(wave)


def _pouring(p: Parameters, rng: Rng) -> Waveform:
    f0, duration = float(p["f0_hz"]), float(p["duration_s"])
    wave = _bubbles(duration, 250.0, 0.8, 4.0, rng)
    wave = wave / np.std(wave) + 0.3 * st.highpass(st.white(duration, rng), 1000.0)
    pitch = st.glide(f0, 2.5 * f0, duration)  # the air column shortens as the vessel fills
    cavity = st.sine(pitch, duration) * st.lowpass(np.abs(wave), 40.0, 1)
    return st.finish((wave + 1.2 * cavity) * st.plateau(duration, 0.05, 0.15))


def _boiling(p: Parameters, rng: Rng) -> Waveform:
    intensity, size = float(p["intensity"]), float(p["size_mm"])
    duration = rng.uniform(2.5, 4.0)
    wave = _bubbles(duration, 15.0 * 25.0**intensity, 0.6 * size, 1.8 * size, rng)
    rumble = st.lowpass(st.white(duration, rng), 500.0, 1)
    wave = wave / np.std(wave) + 0.4 * rumble / np.std(rumble)
    return st.finish(wave * st.plateau(duration, 0.1, 0.1), 0.2 + 0.8 * intensity)


_STRENGTH = Range("intensity", 0.0, 1.0, attribute="intensity")


def _size(low: float, high: float) -> Range:
    return Range("size_mm", low, high, log=True, attribute="size")


def _rate(low: float, high: float) -> Range:
    return Range("rate_hz", low, high, log=True, attribute="rate")


_weather = st.family("weather", "Farnell 2010, Designing Sound, practicals 11-18")
_water = st.family("water", "van den Doel 2005, Physically based models for liquid sounds")

MODELS: tuple[SoundModel, ...] = (
    _weather(
        "rain",
        _rain,
        Choice("surface", tuple(_RAIN), "surface"),
        _STRENGTH,
        names=("rainfall", "raining"),
        steady=True,
    ),
    _weather(
        "hail",
        _hail,
        _STRENGTH,
        Range("f0_hz", 700, 4000, log=True, attribute="pitch"),
        names=("hailstorm",),
        steady=True,
    ),
    _weather(
        "thunder",
        _thunder,
        Range("distance", 0.0, 1.0, attribute="distance"),
        Range("duration_s", 1.5, 4.0, log=True, attribute="length"),
        names=("thunderclap", "thunder rumble"),
    ),
    _weather(
        "wind",
        _wind,
        _STRENGTH,
        Range("f0_hz", 250, 1200, log=True, attribute="pitch"),
        names=("wind blowing", "howling wind"),
        steady=True,
    ),
    _weather(
        "fire crackling",
        _fire,
        _rate(6, 80),
        Range("intensity", 0.2, 1.0, attribute="intensity"),
        names=("campfire", "fireplace"),
        steady=True,
    ),
    _water(
        "waves on a beach",
        _waves,
        _STRENGTH,
        Range("period_s", 2.5, 6.0, log=True, attribute="rate", rising=False),
        names=("ocean waves", "surf"),
        steady=True,
    ),
    _water(
        "stream",
        _stream,
        _rate(40, 500),
        _size(0.8, 5.0),
        names=("babbling brook", "running water"),
        steady=True,
    ),
    _water(
        "waterfall",
        _waterfall,
        _STRENGTH,
        Range("brightness_hz", 600, 7000, log=True, attribute="brightness"),
        names=("rushing water",),
        steady=True,
    ),
    _water(
        "water drop",
        _drop,
        _size(1.0, 6.0),
        Range("count", 1, 6.99, attribute="count"),
        names=("dripping water", "drip"),
    ),
    _water(
        "bubbles",
        _many,
        _rate(6, 60),
        _size(1.5, 9.0),
        names=("bubbling", "underwater bubbles"),
        steady=True,
    ),
    _water(
        "pouring water",
        _pouring,
        Range("f0_hz", 200, 900, log=True, attribute="pitch"),
        Range("duration_s", 1.2, 4.0, log=True, attribute="length"),
        names=("filling a glass", "pouring a drink"),
    ),
    _water(
        "boiling water", _boiling, _STRENGTH, _size(1.5, 6.0), names=("water boiling",), steady=True
    ),
)
