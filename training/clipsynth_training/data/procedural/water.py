"""Water: drips, pours, streams, splashes and fizz, built from bubbles.

A bubble rings at 3 / radius hertz (Minnaert) and dies by radiation and heat; near the surface its
pitch rises. Streams are many bubbles whose radii follow a power law, over the hiss of drops too
small to be told apart.

Source:
    Minnaert 1933, "On musical air-bubbles and the sounds of running water"; van den Doel 2005,
    "Physically-based models for liquid sounds", ACM TAP 2(4); Farnell, "Designing Sound".
"""

from __future__ import annotations

import numpy as np

from clipsynth_training.data.procedural import bodies, dsp
from clipsynth_training.data.procedural.dsp import Parameters
from clipsynth_training.data.procedural.model import SAMPLE_RATE, Range, SoundModel, Waveform

_DOEL = "Minnaert 1933; van den Doel 2005, Physically-based models for liquid sounds"
_FARNELL = "Farnell, Designing Sound, part IV"


def minnaert_hz(radius_m: float) -> float:
    """Return the frequency of an air bubble in water at the surface's pressure."""
    return 3.26 / radius_m


def bubble(radius_m: float, rise: float) -> Waveform:
    """Return one bubble.

    Args:
        radius_m: Radius; 1 mm rings at 3.3 kHz.
        rise: How fast the pitch rises, relative to the decay; 0 deep down, 0.1 at the surface.

    Source:
        van den Doel 2005, equations 3 to 6.
    """
    f0 = minnaert_hz(radius_m)
    loss = 0.13 / radius_m + 0.0072 * radius_m**-1.5
    t60 = min(np.log(1000.0) / loss, 0.35)
    n = dsp.num_samples(t60)
    t = dsp.times(n)
    frequency = np.minimum(f0 * (1.0 + rise * loss * t), 19_000.0)
    attack = min(0.0015, 0.5 / f0)
    return dsp.sine(frequency, n) * dsp.attack_decay(n, attack, t60)


def radii(
    count: int, least_m: float, greatest_m: float, rng: np.random.Generator, slope: float = 1.6
) -> Waveform:
    """Return radii of a power law: many small bubbles, few large."""
    low, high = least_m ** (1.0 - slope), greatest_m ** (1.0 - slope)
    return np.asarray((low + (high - low) * rng.random(count)) ** (1.0 / (1.0 - slope)))


def bubbles(
    when_s: Waveform,
    least_m: float,
    greatest_m: float,
    rng: np.random.Generator,
    duration_s: float,
    *,
    gains: Waveform | float = 1.0,
    surface: float = 0.5,
    slope: float = 1.6,
    kinds: int = 32,
) -> Waveform:
    """Return bubbles at their times, louder the larger they are."""
    grains = []
    for radius in radii(kinds, least_m, greatest_m, rng, slope):
        rise = rng.uniform(0.02, 0.14) if rng.random() < surface else 0.0
        grains.append((radius / greatest_m) ** 0.6 * bubble(radius, rise))
    strength = gains * rng.random(len(when_s)) ** 1.5
    return dsp.scatter(grains, when_s, strength, rng, duration_s)


def _course(n: int, rng: np.random.Generator, rate_hz: float, depth: float) -> Waveform:
    return np.clip(1.0 + depth * dsp.drift(n, rate_hz, rng), 0.1, 2.5)


def _mix(*parts: tuple[Waveform, float]) -> Waveform:
    """Add waveforms at given root mean square levels."""
    n = max(len(x) for x, _ in parts)
    out = np.zeros(n)
    for x, gain in parts:
        out[: len(x)] += gain * dsp.level(x)
    return out


def _drip(p: Parameters, rng: np.random.Generator) -> Waveform:
    radius = 3.26 / p["f0_hz"]
    click = dsp.burst(rng, 1500, 12000, 0.006, 0.0001)
    plop = bubble(radius, rng.uniform(0.10, 0.2))
    second = bubble(radius * rng.uniform(0.5, 0.8), 0.12)
    sounds = [dsp.unit_peak(click), plop, second]
    late = p["late_s"]
    return dsp.finish(
        dsp.place(sounds, [0.0, late, late + rng.uniform(0.02, 0.06)], [0.12, 1.0, 0.25])
    )


def _dripping(p: Parameters, rng: np.random.Generator) -> Waveform:
    when = dsp.beats(p["rate_hz"], 4.0, 0.12, rng)
    sounds = [
        _drip({"f0_hz": p["f0_hz"] * rng.uniform(0.85, 1.15), "late_s": 0.02}, rng)
        * rng.uniform(0.6, 1.0)
        for _ in when
    ]
    wet = dsp.place(sounds, when, 1.0, 4.1)
    return dsp.finish_steady(wet)


def _bucket(p: Parameters, rng: np.random.Generator) -> Waveform:
    when = dsp.beats(p["rate_hz"], 4.0, 0.2, rng)
    pail = bodies.make_body(p["f0_hz"], bodies.plate(24, 0.8), bodies.SHEET.damped(4.0), rng)
    hits, starts = [], []
    for start in when:
        hits += [
            dsp.unit_peak(pail.strike(rng, rng.uniform(0.3, 0.8))),
            bubble(3.26 / rng.uniform(500, 1100), 0.12),
        ]
        starts += [start, start + rng.uniform(0.01, 0.03)]
    gains = np.resize([1.0, 0.5 * p["fill"] + 0.05], len(hits))
    return dsp.finish_steady(dsp.place(hits, starts, gains, 4.1))


def _bubbling(p: Parameters, rng: np.random.Generator) -> Waveform:
    large = 0.0022 * 4.0 ** p["size"]
    when = dsp.arrivals(p["rate_hz"], 4.0, rng)
    return dsp.finish_steady(bubbles(when, 0.35 * large, large, rng, 4.1, surface=0.8, slope=1.2))


def _blowing_bubbles(p: Parameters, rng: np.random.Generator) -> Waveform:
    # a straw sends bubbles one after the other, each about as large as the last
    n = dsp.num_samples(p["duration_s"])
    rate = p["rate_hz"] * _course(n, rng, 3.0, 0.25)
    beats = np.cumsum(rate) / SAMPLE_RATE
    when = np.searchsorted(
        beats, np.arange(int(beats[-1])) + rng.uniform(-0.2, 0.2, int(beats[-1]))
    )
    radius = 0.0085 * (8.0 / p["rate_hz"]) ** 0.35
    out = bubbles(
        np.sort(when.clip(0)) / SAMPLE_RATE,
        0.7 * radius,
        1.2 * radius,
        rng,
        p["duration_s"] + 0.2,
        surface=0.9,
        slope=1.2,
    )
    small = bubbles(
        dsp.arrivals(6 * p["rate_hz"], p["duration_s"], rng),
        0.0008,
        0.003,
        rng,
        p["duration_s"] + 0.2,
        surface=0.6,
    )
    return dsp.finish(_mix((out, 1.0), (small, 0.25)))


def _flow(
    rng: np.random.Generator,
    duration_s: float,
    *,
    rate: float,
    least: float,
    greatest: float,
    hiss: tuple[float, float],
    hiss_level: float,
    slope: float = 1.7,
    pulse_hz: float = 3.0,
    depth: float = 0.3,
) -> Waveform:
    n = dsp.num_samples(duration_s)
    rate = min(rate, 3200.0)
    when = dsp.arrivals(rate, duration_s, rng)
    course = _course(n, rng, pulse_hz, depth)
    gains = course[(when * SAMPLE_RATE).astype(int).clip(0, n - 1)]
    wet = bubbles(when, least, greatest, rng, duration_s, gains=gains, slope=slope, kinds=64)
    spray = dsp.noise_band(n, rng, *hiss) * _course(n, rng, 12.0, 0.2) * course
    return _mix((wet, 1.0), (spray, hiss_level))


def _pouring(p: Parameters, rng: np.random.Generator) -> Waveform:
    length = p["duration_s"]
    flow = _flow(
        rng,
        length,
        rate=300.0 + 1500.0 * p["intensity"],
        least=0.0007,
        greatest=0.003 + 0.004 * p["intensity"],
        hiss=(1500.0, 11000.0),
        hiss_level=0.25,
    )
    n = len(flow)
    # the air column above the water shortens as the glass fills: its resonance climbs
    climb = dsp.contour(n, [(0, 1.0), (1, 2.2)]) * p["f0_hz"]
    column = dsp.moving_noise(climb, 0.22, rng, 8) * _course(n, rng, 14.0, 0.3)
    out = _mix((flow, 1.0), (column, 0.55)) * dsp.contour(
        n, [(0, 0), (0.05, 1), (0.92, 0.9), (1, 0)]
    )
    return dsp.finish(out)


def _stream(p: Parameters, rng: np.random.Generator) -> Waveform:
    big = 0.0025 + 0.006 * p["size"]
    out = _flow(
        rng,
        4.1,
        rate=150.0 * 10.0 ** p["intensity"],
        least=0.0008,
        greatest=big,
        hiss=(600.0, 9000.0),
        hiss_level=0.10 + 0.35 * p["intensity"],
        pulse_hz=2.0,
    )
    return dsp.finish_steady(out)


def _waterfall(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(4.1)
    roar = dsp.lowpass(dsp.tilted(n, rng, -3.0), 900.0 * 5.0 ** (1.0 - p["distance"]), 1)
    rumble = dsp.noise_band(n, rng, 60, 320)
    spray = dsp.noise_band(n, rng, 2000, 14000) * _course(n, rng, 9.0, 0.12)
    wet = bubbles(dsp.arrivals(1500.0, 4.1, rng), 0.001, 0.008, rng, 4.1)
    near = 1.0 - p["distance"]
    out = _mix(
        (roar, 1.0),
        (rumble, 0.2 + 0.8 * p["size"]),
        (spray, 0.1 + 0.45 * near),
        (wet, 0.15 + 0.4 * near),
    )
    return dsp.finish_steady(out)


def _splash_body(size: float, strength: float, rng: np.random.Generator) -> Waveform:
    length = 0.35 + 1.1 * size
    dull = 2.0 ** (0.4 - 1.1 * size)  # a large body throws large drops
    n = dsp.num_samples(length)
    slap = dsp.burst(rng, 150, (2500 + 5000 * strength) * dull, 0.05 + 0.08 * size, 0.001)
    centre = dsp.contour(n, [(0, 1600.0), (0.2, 3400.0), (1, 2200.0)]) * dull
    crown = dsp.moving_noise(centre, 2.2, rng, 7) * dsp.attack_decay(n, 0.02 + 0.05 * size, length)
    cavity_radius = 0.006 * 4.0**size
    cavity = bubble(cavity_radius, 0.15)
    count = int(40 + 260 * size)
    fall = 0.06 + rng.gamma(2.2, 0.12 * (0.5 + size), count)
    drops = bubbles(
        fall, 0.0008, 0.0055, rng, length + 0.4, gains=np.exp(-fall / (0.3 + 0.3 * size))
    )
    sounds = [dsp.unit_peak(slap), dsp.unit_peak(crown), cavity, dsp.unit_peak(drops)]
    return dsp.place(
        sounds, [0, 0.005, 0.03 + 0.05 * size, 0.0], [0.3 + 0.5 * strength, 0.6, 0.6, 0.6]
    )


def _splash(p: Parameters, rng: np.random.Generator) -> Waveform:
    return dsp.finish(_splash_body(p["size"], p["intensity"], rng))


def _stone_in_water(p: Parameters, rng: np.random.Generator) -> Waveform:
    radius = 0.0035 * 4.0 ** p["size"]
    plunk = bubble(radius, rng.uniform(0.12, 0.22))
    tail = bubbles(0.05 + rng.exponential(0.12, 25), 0.0012, 0.5 * radius, rng, 0.9)
    slap = dsp.unit_peak(dsp.burst(rng, 400, 7000, 0.03, 0.0004))
    return dsp.finish(
        dsp.place(
            [slap, dsp.unit_peak(plunk), tail],
            [0, 0.02 + 0.03 * p["size"], 0],
            [0.15 + 0.35 * p["intensity"], 1.0, 0.3],
        )
    )


def _waves(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(4.1)
    # each wave swells, breaks into foam and draws back over the sand
    period = 1.0 / p["rate_hz"]
    phase = np.mod(dsp.times(n) / period + rng.random(), 1.0)
    swell = np.interp(phase, [0, 0.3, 0.42, 0.7, 1.0], [0.12, 0.5, 1.0, 0.35, 0.12])
    foam = np.interp(phase, [0, 0.32, 0.5, 0.85, 1.0], [0.1, 0.1, 1.0, 0.25, 0.1])
    roar = dsp.lowpass(dsp.tilted(n, rng, -4.0), 1100, 1) * swell
    hiss = dsp.tilted(n, rng, -1.0)
    hiss = dsp.bandpass(hiss, 800, 10000, 1) * foam * _course(n, rng, 10.0, 0.15)
    fizz = bubbles(dsp.arrivals(1500.0, 4.1, rng), 0.0006, 0.003, rng, 4.1) * foam
    return dsp.finish_steady(_mix((roar, 0.4 + 0.8 * p["size"]), (hiss, 0.8), (fizz, 0.2)))


def _boiling(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(4.1)
    rate = 25.0 * 16.0 ** p["intensity"]
    wet = bubbles(dsp.arrivals(rate, 4.0, rng), 0.003, 0.012, rng, 4.1, surface=0.9, slope=1.3)
    small = bubbles(dsp.arrivals(3 * rate, 4.0, rng), 0.0009, 0.003, rng, 4.1)
    rumble = dsp.noise_band(n, rng, 80, 500) * _course(n, rng, 18.0, 0.4)
    pot = bodies.make_body(p["f0_hz"], bodies.CUP[:6], bodies.SHEET.damped(7.0), rng)
    rattle = dsp.resonate(rumble, pot.response())[:n]
    hiss = dsp.noise_band(n, rng, 2500, 12000)
    return dsp.finish_steady(
        _mix((wet, 1.0), (small, 0.35), (rumble, 0.35), (rattle, 0.15), (hiss, 0.05))
    )


def _underwater(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(4.1)
    rumble = dsp.lowpass(dsp.tilted(n, rng, -5.0), p["cutoff_hz"], 2) * _course(n, rng, 0.7, 0.3)
    groups = dsp.arrivals(p["rate_hz"], 3.7, rng)
    when = np.concatenate([g + np.sort(rng.exponential(0.09, rng.integers(4, 14))) for g in groups])
    wet = bubbles(when, 0.004, 0.013, rng, 4.1, surface=0.5, slope=1.2)
    wet = dsp.lowpass(wet, 3.0 * p["cutoff_hz"], 2)
    return dsp.finish_steady(_mix((rumble, 1.0), (wet, 0.7)))


def _flush(p: Parameters, rng: np.random.Generator) -> Waveform:
    length = 4.1
    n = dsp.num_samples(length)
    surge = dsp.contour(
        n, [(0, 0.02), (0.06, 0.9), (0.45 * p["swirl"], 1.0), (0.8, 0.35), (1, 0.04)]
    )
    rush = dsp.moving_noise(
        dsp.contour(n, [(0, 500), (0.15, 1500), (0.6, 1000), (1, 500)]), 2.4, rng, 5
    )
    fill = dsp.noise_band(n, rng, 2500, 9000) * dsp.contour(n, [(0, 0.1), (0.5, 0.5), (1, 0.4)])
    gulps = 2.0 + np.sort(rng.uniform(-1.2, 1.2, 40))
    wet = bubbles(gulps, 0.006, 0.018, rng, length, surface=0.8, slope=1.1)
    small = bubbles(dsp.arrivals(700.0, length, rng), 0.001, 0.006, rng, length) * surge
    lever = bodies.make_body(
        rng.uniform(700, 1500), bodies.BAR[:5], bodies.STEEL.damped(30.0), rng
    ).strike(rng, 0.7)
    out = _mix(
        (rush * surge, 1.0), (small, 0.6), (wet, 0.35 + 0.4 * p["intensity"]), (fill * surge, 0.15)
    )
    out = out * dsp.contour(n, [(0, 0.2), (0.05, 1), (0.85, 0.7), (1, 0.0)])
    return dsp.finish(
        dsp.place([dsp.unit_peak(out), dsp.unit_peak(lever)], [0.05, 0], [1.0, 0.3]),
        fade_out_s=0.05,
    )


def _tap(p: Parameters, rng: np.random.Generator) -> Waveform:
    basin = bodies.make_body(p["f0_hz"], bodies.plate(26, 0.7), bodies.SHEET.damped(10.0), rng)
    flow = _flow(
        rng,
        4.1,
        rate=600.0 + 2400.0 * p["intensity"],
        least=0.0007,
        greatest=0.0035,
        hiss=(1200.0, 13000.0),
        hiss_level=0.5 + 0.8 * p["intensity"],
        depth=0.12,
        pulse_hz=8.0,
    )
    ringing = dsp.resonate(flow, basin.response())[: len(flow)]
    return dsp.finish_steady(_mix((flow, 1.0), (ringing, 0.5)))


def _shower(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(4.1)
    jets = dsp.noise_band(n, rng, p["low_hz"], 15000) * _course(n, rng, 15.0, 0.1)
    patter = [dsp.burst(rng, 700, 9000, rng.uniform(0.006, 0.014), 0.0003) for _ in range(24)]
    drops = dsp.scatter(
        patter, dsp.arrivals(400.0 + 1600.0 * p["intensity"], 4.1, rng), 1.0, rng, 4.1
    )
    wet = bubbles(dsp.arrivals(500.0, 4.1, rng), 0.001, 0.004, rng, 4.1)
    return dsp.finish_steady(_mix((jets, 0.4 + 0.6 * p["intensity"]), (drops, 0.8), (wet, 0.3)))


def _fizz(p: Parameters, rng: np.random.Generator) -> Waveform:
    length = p["duration_s"]
    n = dsp.num_samples(length)
    fall = dsp.contour(n, [(0, 1.0), (0.15, 0.8), (1, 0.08)])
    pops = [dsp.burst(rng, 1800, 13000, rng.uniform(0.002, 0.007), 0.0001) for _ in range(24)]
    when = rng.beta(0.8, 1.7, int(length * 200.0 * 8.0 ** p["intensity"])) * length
    grains = dsp.scatter(pops, when, rng.exponential(0.4, len(when)), rng, length)
    ping = bubbles(when[::5], 0.0003, 0.0012, rng, length)
    hiss = dsp.noise_band(n, rng, 3000, 13000) * fall
    return dsp.finish(_mix((grains, 1.0), (ping * fall, 0.3), (hiss, 0.3 + 0.3 * p["intensity"])))


def _can_open(p: Parameters, rng: np.random.Generator) -> Waveform:
    can = bodies.make_body(
        rng.uniform(900, 1500), bodies.plate(16, 0.8), bodies.SHEET.damped(12.0), rng
    )
    click, crack = can.strike(rng, 0.5), can.strike(rng, 1.0)
    n = dsp.num_samples(p["hiss_s"])
    gas = dsp.moving_noise(dsp.contour(n, [(0, 6500), (0.3, 5200), (1, 3800)]), 1.8, rng, 6)
    gas *= dsp.attack_decay(n, 0.004, p["hiss_s"] * 1.1)
    fizz = _fizz({"duration_s": 0.7 + p["hiss_s"], "intensity": p["fizz"]}, rng)
    sounds = [dsp.unit_peak(click), dsp.unit_peak(crack), dsp.unit_peak(gas), dsp.unit_peak(fizz)]
    return dsp.finish(
        dsp.place(sounds, [0, 0.07, 0.075, 0.15], [0.35, 0.7, 0.9, 0.15 + 0.2 * p["fizz"]])
    )


def _swimming(p: Parameters, rng: np.random.Generator) -> Waveform:
    when = dsp.beats(p["rate_hz"], 3.7, 0.12, rng)
    strokes = [
        dsp.unit_peak(_splash_body(0.25 + 0.4 * p["intensity"] * rng.uniform(0.6, 1), 0.4, rng))
        for _ in range(4)
    ]
    hits = dsp.scatter(strokes, when, rng.uniform(0.6, 1.0, len(when)), rng, 4.1)
    n = dsp.num_samples(4.1)
    wash = dsp.lowpass(dsp.tilted(n, rng, -4.0), 1200, 1) * _course(n, rng, p["rate_hz"], 0.4)
    wet = bubbles(dsp.arrivals(120.0, 4.0, rng), 0.0015, 0.008, rng, 4.1)
    return dsp.finish_steady(_mix((hits, 1.0), (wash, 0.25), (wet, 0.3)))


def _puddle_steps(p: Parameters, rng: np.random.Generator) -> Waveform:
    when = dsp.beats(p["rate_hz"], 3.8, 0.06, rng)
    steps = []
    for _ in range(4):
        splash = _splash_body(0.08 + 0.25 * p["intensity"], 0.5, rng)
        thud = dsp.burst(rng, 70, 400, 0.09, 0.003)
        steps.append(dsp.place([dsp.unit_peak(splash), dsp.unit_peak(thud)], [0, 0], [1.0, 0.3]))
    return dsp.finish_steady(dsp.scatter(steps, when, rng.uniform(0.7, 1.0, len(when)), rng, 4.1))


def _gutter(p: Parameters, rng: np.random.Generator) -> Waveform:
    pipe = bodies.make_body(p["f0_hz"], bodies.TUBE, bodies.SHEET.damped(9.0), rng)
    flow = _flow(
        rng,
        4.1,
        rate=120.0 + 900.0 * p["intensity"],
        least=0.001,
        greatest=0.006,
        hiss=(700.0, 7000.0),
        hiss_level=0.15 + 0.35 * p["intensity"],
    )
    hollow = dsp.resonate(flow, pipe.response())[: len(flow)]
    drops = dsp.scatter(
        [dsp.unit_peak(pipe.strike(rng, 0.5)) for _ in range(4)],
        dsp.arrivals(8.0, 4.0, rng),
        1.0,
        rng,
        4.1,
    )
    return dsp.finish_steady(_mix((flow, 1.0), (hollow, 0.8), (drops, 0.3)))


def _drain(p: Parameters, rng: np.random.Generator) -> Waveform:
    length = p["duration_s"]
    n = dsp.num_samples(length)
    gulp_rate = p["rate_hz"] * dsp.contour(n, [(0, 0.7), (1, 1.5)]) * _course(n, rng, 3.0, 0.3)
    beats = np.cumsum(gulp_rate) / SAMPLE_RATE
    samples = np.searchsorted(
        beats, np.arange(int(beats[-1])) + rng.uniform(-0.25, 0.25, int(beats[-1]))
    )
    when = np.asarray(np.sort(samples.clip(0, n - 1)) / SAMPLE_RATE)
    gulps = bubbles(when, 0.008, 0.02, rng, length + 0.3, surface=1.0, slope=1.1)
    small = bubbles(dsp.arrivals(120.0, length, rng), 0.0015, 0.006, rng, length + 0.3)
    suck = dsp.moving_noise(dsp.contour(n, [(0, 500), (1, 1100)]), 0.8, rng, 6) * _course(
        n, rng, p["rate_hz"], 0.6
    )
    suck = suck * dsp.contour(n, [(0, 0), (0.05, 1), (0.85, 1), (1, 0)])
    return dsp.finish(_mix((gulps, 1.0), (small, 0.35), (suck, 0.35)))


_INTENSITY = Range("intensity", 0.0, 1.0, attribute="intensity")
_SIZE = Range("size", 0.0, 1.0, attribute="size")


def _pitch(low: float, high: float) -> Range:
    return Range("f0_hz", low, high, log=True, attribute="pitch")


MODELS: tuple[SoundModel, ...] = (
    SoundModel(
        "water drip",
        "water",
        (_pitch(500, 2800), Range("late_s", 0.008, 0.05, log=True)),
        _drip,
        ("water drop", "droplet", "drip"),
        _DOEL,
    ),
    SoundModel(
        "dripping water",
        "water",
        (Range("rate_hz", 0.8, 7.0, log=True, attribute="rate"), _pitch(500, 2400)),
        _dripping,
        ("leaky tap", "dripping faucet", "cave drips"),
        _DOEL,
        steady=True,
    ),
    SoundModel(
        "drops in a bucket",
        "water",
        (
            Range("rate_hz", 0.9, 7.0, log=True, attribute="rate"),
            _pitch(320, 1100),
            Range("fill", 0.0, 1.0),
        ),
        _bucket,
        ("dripping into a metal bucket", "leak in a bucket"),
        _DOEL,
        steady=True,
    ),
    SoundModel(
        "bubbles",
        "water",
        (Range("rate_hz", 6, 90, log=True, attribute="rate"), _SIZE),
        _bubbling,
        ("bubbling", "bubbling liquid", "bubbling potion"),
        _DOEL,
        steady=True,
    ),
    SoundModel(
        "blowing bubbles through a straw",
        "water",
        (
            Range("rate_hz", 8, 32, log=True, attribute="rate"),
            Range("duration_s", 0.7, 3.2, attribute="length"),
        ),
        _blowing_bubbles,
        ("straw bubbles", "gurgling"),
        _DOEL,
    ),
    SoundModel(
        "pouring water",
        "water",
        (_INTENSITY, Range("duration_s", 0.9, 4.0, attribute="length"), _pitch(300, 900)),
        _pouring,
        ("pouring a drink", "filling a glass", "pouring liquid"),
        _DOEL,
    ),
    SoundModel(
        "stream",
        "water",
        (_INTENSITY, _SIZE),
        _stream,
        ("brook", "creek", "babbling brook", "small river"),
        _DOEL,
        steady=True,
    ),
    SoundModel(
        "waterfall",
        "water",
        (Range("distance", 0.0, 1.0, attribute="distance"), _SIZE),
        _waterfall,
        ("cascade", "rushing water"),
        _FARNELL,
        steady=True,
    ),
    SoundModel(
        "splash",
        "water",
        (_SIZE, Range("intensity", 0.1, 1.0, attribute="intensity")),
        _splash,
        ("water splash", "jumping into water"),
        _DOEL,
    ),
    SoundModel(
        "stone thrown in water",
        "water",
        (_SIZE, Range("intensity", 0.1, 1.0, attribute="intensity")),
        _stone_in_water,
        ("plop", "stone dropped in a pond", "plunk"),
        _DOEL,
    ),
    SoundModel(
        "waves on a beach",
        "water",
        (Range("rate_hz", 0.22, 0.6, log=True, attribute="rate"), _SIZE),
        _waves,
        ("ocean waves", "sea waves", "surf"),
        _FARNELL,
        steady=True,
    ),
    SoundModel(
        "boiling water",
        "water",
        (_INTENSITY, Range("f0_hz", 500, 1300, log=True)),
        _boiling,
        ("water boiling in a pot", "boiling pot", "cauldron"),
        _DOEL,
        steady=True,
    ),
    SoundModel(
        "underwater",
        "water",
        (
            Range("cutoff_hz", 180, 700, log=True, attribute="brightness"),
            Range("rate_hz", 0.5, 3.0, log=True, attribute="rate"),
        ),
        _underwater,
        ("underwater ambience", "diving", "submerged"),
        _DOEL,
        steady=True,
    ),
    SoundModel(
        "toilet flush",
        "water",
        (_INTENSITY, Range("swirl", 0.4, 1.0)),
        _flush,
        ("flushing a toilet",),
        _FARNELL,
    ),
    SoundModel(
        "running tap",
        "water",
        (_INTENSITY, Range("f0_hz", 160, 600, log=True)),
        _tap,
        ("faucet running", "kitchen sink", "tap water"),
        _DOEL,
        steady=True,
    ),
    SoundModel(
        "shower",
        "water",
        (_INTENSITY, Range("low_hz", 800, 4500, log=True, attribute="brightness")),
        _shower,
        ("shower running", "spraying water"),
        _DOEL,
        steady=True,
    ),
    SoundModel(
        "soda fizz",
        "water",
        (_INTENSITY, Range("duration_s", 0.9, 4.0, attribute="length")),
        _fizz,
        ("fizzing drink", "carbonation", "fizz"),
        _DOEL,
    ),
    SoundModel(
        "opening a can",
        "water",
        (Range("hiss_s", 0.12, 0.7, log=True, attribute="length"), Range("fizz", 0.0, 1.0)),
        _can_open,
        ("soda can opening", "beer can opening"),
        _FARNELL,
    ),
    SoundModel(
        "swimming",
        "water",
        (Range("rate_hz", 0.8, 3.0, log=True, attribute="rate"), _INTENSITY),
        _swimming,
        ("swimming strokes", "paddling"),
        _DOEL,
        steady=True,
    ),
    SoundModel(
        "walking through puddles",
        "water",
        (Range("rate_hz", 1.2, 3.4, log=True, attribute="rate"), _INTENSITY),
        _puddle_steps,
        ("footsteps in water", "wading", "splashing footsteps"),
        _DOEL,
        steady=True,
    ),
    SoundModel(
        "rain gutter",
        "water",
        (_INTENSITY, Range("f0_hz", 180, 600, log=True)),
        _gutter,
        ("water in a drainpipe", "downspout"),
        _DOEL,
        steady=True,
    ),
    SoundModel(
        "sink draining",
        "water",
        (
            Range("rate_hz", 5, 16, log=True, attribute="rate"),
            Range("duration_s", 0.9, 3.4, attribute="length"),
        ),
        _drain,
        ("gurgling drain", "water going down the drain"),
        _DOEL,
    ),
)
