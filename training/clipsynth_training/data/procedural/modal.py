"""Struck, dropped, scraped, rolled and broken things of wood, metal, glass, stone and plastic.

Source:
    van den Doel and Pai 1998; van den Doel, Kry and Pai 2001, "FoleyAutomatic"; Cook 1997,
    "Physically Informed Sonic Modeling"; Farnell, "Designing Sound", part IV.
"""

from __future__ import annotations

import numpy as np

from clipsynth_training.data.procedural import bodies, dsp
from clipsynth_training.data.procedural.bodies import (
    BAR,
    BRASS,
    CANTILEVER,
    CERAMIC,
    CUP,
    DISC,
    GLASS,
    HARDWOOD,
    PLASTIC,
    SHEET,
    STEEL,
    STONE,
    TUBE,
    WOOD,
    Material,
    make_body,
)
from clipsynth_training.data.procedural.dsp import Parameters
from clipsynth_training.data.procedural.model import SAMPLE_RATE, Range, SoundModel, Waveform

_PAI = "van den Doel and Pai 1998, The sounds of physical shapes"
_FOLEY = "van den Doel, Kry and Pai 2001, FoleyAutomatic"
_COOK = "Cook 1997, Physically Informed Sonic Modeling, CMJ 21(3)"
_FARNELL = "Farnell, Designing Sound, part IV"

INTENSITY = Range("intensity", 0.15, 1.0, attribute="intensity")


def _pitch(low: float, high: float) -> Range:
    return Range("f0_hz", low, high, log=True, attribute="pitch")


def _ringing(low: float, high: float) -> Range:
    return Range("ring_s", low, high, log=True, attribute="length")


def _rings_for(material: Material, f0_hz: float, ring_s: float) -> Material:
    """Return the material damped so that the lowest mode takes ``ring_s`` to fall by 60 dB."""
    return material.damped(float(material.t60_s(np.array(f0_hz))) / ring_s)


# Blows


def _wood_knock(p: Parameters, rng: np.random.Generator) -> Waveform:
    body = make_body(p["f0_hz"], bodies.box(22, rng), WOOD, rng, slope=-0.6)
    return dsp.finish(body.strike(rng, p["intensity"]))


def _door_knock(p: Parameters, rng: np.random.Generator) -> Waveform:
    count = round(p["count"])
    door = make_body(p["f0_hz"], bodies.plate(34, 0.48), WOOD.damped(0.8), rng, slope=-0.55)
    when = np.arange(count) / p["rate_hz"] * (1.0 + 0.03 * rng.standard_normal(count))
    knocks = [door.strike(rng, p["intensity"] * rng.uniform(0.8, 1.0), contact=1.6) for _ in when]
    thud = dsp.sine(0.55 * p["f0_hz"], dsp.num_samples(0.16)) * dsp.decay(
        dsp.num_samples(0.16), 0.16
    )
    knocks = [dsp.place([k, thud * 0.25 * np.max(np.abs(k))], [0.0, 0.0]) for k in knocks]
    return dsp.finish(dsp.place(knocks, when))


def _metal_clang(p: Parameters, rng: np.random.Generator) -> Waveform:
    material = _rings_for(SHEET, p["f0_hz"], p["ring_s"])
    ratios = bodies.plate(44, rng.uniform(0.5, 0.9))
    body = make_body(p["f0_hz"], ratios, material, rng, pairs=0.004, slope=-0.15)
    return dsp.finish(body.strike(rng, p["intensity"]))


def _anvil(p: Parameters, rng: np.random.Generator) -> Waveform:
    material = _rings_for(STEEL, p["f0_hz"], p["ring_s"])
    ratios = np.concatenate([[1.0], np.sort(rng.uniform(1.3, 11.0, 20))])
    body = make_body(p["f0_hz"], ratios, material, rng, pairs=0.002)
    blow = body.strike(rng, p["intensity"])
    second = body.strike(rng, 0.3 * p["intensity"])  # the hammer rebounds once
    return dsp.finish(dsp.place([blow, second], [0.0, rng.uniform(0.07, 0.16)], [1.0, 0.35]))


def _pipe(p: Parameters, rng: np.random.Generator) -> Waveform:
    material = _rings_for(STEEL, p["f0_hz"], p["ring_s"])
    body = make_body(p["f0_hz"], TUBE, material, rng, roughness=0.004, pairs=0.0015)
    return dsp.finish(body.strike(rng, p["intensity"]))


def _hammer_nail(p: Parameters, rng: np.random.Generator) -> Waveform:
    count = round(p["count"])
    plank = make_body(0.13 * p["f0_hz"], bodies.box(20, rng), WOOD, rng, slope=-0.5)
    blows = []
    for index in range(count):
        free = 1.0 - 0.3 * index / max(count, 1)  # the free length shortens, the pitch rises
        nail = make_body(
            p["f0_hz"] / free**2, CANTILEVER[:6] ** 0.6, STEEL.damped(12.0), rng, longest_s=0.25
        )
        force = p["intensity"] * rng.uniform(0.75, 1.0)
        blows.append(
            dsp.place([nail.strike(rng, force), plank.strike(rng, force)], [0.0, 0.0], [1.0, 0.6])
        )
    gaps = (1.0 + 0.05 * rng.standard_normal(count)) / p["rate_hz"]
    return dsp.finish(dsp.place(blows, np.cumsum(gaps) - gaps[0]))


def _glass_clink(p: Parameters, rng: np.random.Generator) -> Waveform:
    material = _rings_for(GLASS, p["f0_hz"], p["ring_s"])
    one = make_body(p["f0_hz"], CUP, material, rng, pairs=0.004)
    other = make_body(p["f0_hz"] * rng.uniform(1.05, 1.4), CUP, material, rng, pairs=0.004)
    force = p["intensity"]
    return dsp.finish(dsp.place([one.strike(rng, force), other.strike(rng, force)], [0.0, 0.0]))


def _bell_like_cup(p: Parameters, rng: np.random.Generator) -> Waveform:
    material = _rings_for(CERAMIC, p["f0_hz"], p["ring_s"])
    body = make_body(p["f0_hz"], CUP, material, rng, pairs=0.01)
    return dsp.finish(body.strike(rng, p["intensity"]))


def _stone_hit(p: Parameters, rng: np.random.Generator) -> Waveform:
    ratios = np.concatenate([[1.0], np.sort(rng.uniform(1.2, 8.0, 14))])
    one = make_body(p["f0_hz"], ratios, STONE, rng)
    other = make_body(p["f0_hz"] * rng.uniform(1.1, 1.5), ratios, STONE, rng)
    force = p["intensity"]
    return dsp.finish(dsp.place([one.strike(rng, force), other.strike(rng, force)], [0.0, 0.0005]))


def _sword_clash(p: Parameters, rng: np.random.Generator) -> Waveform:
    parts, starts = [], []
    for _ in range(2):
        f0 = p["f0_hz"] * rng.uniform(0.8, 1.25)
        blade = make_body(
            f0,
            BAR**0.9,
            _rings_for(STEEL, f0, p["ring_s"]),
            rng,
            roughness=0.03,
            pairs=0.006,
            slope=0.25,
        )
        parts.append(blade.strike(rng, p["intensity"]))
        starts.append(0.0)
        grind = dsp.noise_band(dsp.num_samples(0.22), rng, 2500, 15000) * dsp.attack_decay(
            dsp.num_samples(0.22), 0.03, 0.2
        )
        slide = dsp.resonate(grind, blade.response()[:8000])
        parts.append(0.25 * p["intensity"] * dsp.unit_peak(slide))
        starts.append(0.008)
    return dsp.finish(dsp.place(parts, starts))


def _door_slam(p: Parameters, rng: np.random.Generator) -> Waveform:
    door = make_body(p["f0_hz"], bodies.plate(40, 0.5), WOOD, rng, slope=-0.5)
    n = dsp.num_samples(0.5)
    air = dsp.lowpass(rng.standard_normal(n), 2.1 * p["f0_hz"]) * dsp.attack_decay(n, 0.006, 0.35)
    latch = make_body(rng.uniform(1800, 3200), DISC, STEEL.damped(25.0), rng)
    force = p["intensity"]
    sounds = [door.strike(rng, force, contact=2.0), 2.0 * force * dsp.unit_peak(air)]
    starts, gains = [0.004, 0.0], [1.6, 0.7]
    for index in range(rng.integers(3, 7)):  # the latch and the panels rattle after the blow
        sounds.append(latch.strike(rng, 0.6 * force))
        starts.append(0.02 + 0.035 * index * rng.uniform(0.7, 1.2))
        gains.append(0.3 * 0.6**index)
        sounds.append(door.strike(rng, 0.4 * force))
        starts.append(0.03 + 0.05 * index * rng.uniform(0.7, 1.2))
        gains.append(0.6 * 0.5**index)
    return dsp.finish(dsp.place(sounds, starts, gains))


# Dropped and bouncing


def _drop(
    body_of: bodies.Body | list[bodies.Body],
    strength: float,
    gap_s: float,
    restitution: float,
    rng: np.random.Generator,
    *,
    floor: bodies.Body | None = None,
    floor_gain: float = 0.5,
    contact: float = 1.0,
) -> Waveform:
    when, speed = dsp.bounces(gap_s, restitution)
    faces = body_of if isinstance(body_of, list) else [body_of]
    sounds, starts, gains = [], [], []
    for start, v in zip(when, speed, strict=True):
        face = faces[rng.integers(len(faces))]
        force = strength * v
        sounds.append(face.strike(rng, force, contact=contact))
        starts.append(start)
        gains.append(rng.uniform(0.7, 1.0))
        if floor is not None:
            sounds.append(floor.strike(rng, force, contact=contact))
            starts.append(start)
            gains.append(floor_gain)
    return dsp.finish(dsp.place(sounds, starts, gains))


def _floor(rng: np.random.Generator) -> bodies.Body:
    return make_body(rng.uniform(110, 200), bodies.plate(24, 0.7), WOOD, rng, slope=-0.8)


def _coin_drop(p: Parameters, rng: np.random.Generator) -> Waveform:
    coin = make_body(p["f0_hz"], DISC, BRASS.damped(3.0), rng, pairs=0.004, longest_s=0.6)
    when, speed = dsp.bounces(p["height_s"], rng.uniform(0.45, 0.6), 0.05)
    sounds = [coin.strike(rng, 0.9 * v) for v in speed]
    # a coin that settles rolls on its edge ever faster (Euler's disc)
    turns = 4.5 * np.cumsum(np.linspace(1.0, 0.16, 34)) / 34 * rng.uniform(0.2, 0.45)
    fall = np.linspace(0.45, 0.05, 34)
    sounds += [coin.strike(rng, 0.6 * v, contact=1.5) for v in fall]
    starts = np.concatenate([when, when[-1] + turns])
    gains = np.concatenate([0.3 + 0.7 * speed, fall])
    return dsp.finish(dsp.place(sounds, starts, gains))


def _plastic_cup(p: Parameters, rng: np.random.Generator) -> Waveform:
    cups = [
        make_body(p["f0_hz"] * r, CUP[:7] ** 0.85, PLASTIC, rng, roughness=0.05, slope=-0.3)
        for r in (1.0, 1.13, 0.91)
    ]
    return _drop(cups, 0.8, p["height_s"], rng.uniform(0.55, 0.68), rng)


def _tin_can(p: Parameters, rng: np.random.Generator) -> Waveform:
    cans = [
        make_body(p["f0_hz"] * r, bodies.plate(26, 0.7), SHEET.damped(5.0), rng, slope=-0.1)
        for r in (1.0, 1.2, 0.86)
    ]
    return _drop(cans, 0.9, p["height_s"], rng.uniform(0.5, 0.65), rng)


def _pebble(p: Parameters, rng: np.random.Generator) -> Waveform:
    ratios = np.concatenate([[1.0], np.sort(rng.uniform(1.2, 6.0, 10))])
    faces = [make_body(p["f0_hz"] * r, ratios, STONE, rng) for r in (1.0, 1.1, 0.93)]
    return _drop(faces, 0.8, p["height_s"], rng.uniform(0.4, 0.58), rng)


def _marble(p: Parameters, rng: np.random.Generator) -> Waveform:
    ball = make_body(p["f0_hz"], np.array([1.0, 1.5, 2.1, 2.7, 3.1]), GLASS.damped(18.0), rng)
    return _drop(
        ball, 0.8, p["height_s"], rng.uniform(0.72, 0.84), rng, floor=_floor(rng), floor_gain=0.12
    )


def _ping_pong(p: Parameters, rng: np.random.Generator) -> Waveform:
    ball = make_body(p["f0_hz"], CUP[:5] ** 0.7, PLASTIC, rng, slope=-0.4)
    return _drop(ball, 0.7, p["height_s"], rng.uniform(0.76, 0.86), rng, contact=0.8)


def _basketball(p: Parameters, rng: np.random.Generator) -> Waveform:
    rubber = Material(q=9.0, loss_per_s=14.0, contact_s=0.0011, click=0.5)
    ball = make_body(p["f0_hz"], np.array([1.0, 1.9, 2.6, 4.4, 7.0, 9.5]), rubber, rng, slope=-0.9)
    when, speed = dsp.bounces(p["height_s"], rng.uniform(0.72, 0.82), 0.08)
    sounds = []
    for v in speed:
        n = dsp.num_samples(0.25)
        ping = dsp.sine(rng.uniform(0.99, 1.01) * 7.3 * p["f0_hz"], n) * dsp.decay(n, 0.22)
        sounds.append(dsp.place([ball.strike(rng, 0.8 * v), 0.03 * v * ping], [0.0, 0.001]))
    return dsp.finish(dsp.place(sounds, when))


def _plank(p: Parameters, rng: np.random.Generator) -> Waveform:
    planks = [
        make_body(p["f0_hz"] * r, BAR**0.8, HARDWOOD.damped(1.5), rng, roughness=0.03, slope=-0.3)
        for r in (1.0, 1.03)
    ]
    return _drop(
        planks,
        p["intensity"],
        rng.uniform(0.12, 0.22),
        rng.uniform(0.4, 0.55),
        rng,
        floor=_floor(rng),
        floor_gain=0.8,
    )


def _metal_plate_drop(p: Parameters, rng: np.random.Generator) -> Waveform:
    f0 = p["f0_hz"]
    material = _rings_for(SHEET, f0, p["ring_s"])
    disc = make_body(
        f0, np.concatenate([DISC, DISC[2:10] * 1.41]), material, rng, pairs=0.006, roughness=0.02
    )
    turns = np.cumsum(np.linspace(0.13, 0.022, 22)) * rng.uniform(0.7, 1.3)
    fall = np.linspace(0.7, 0.1, 22)
    spots = [dsp.unit_peak(disc.strike(rng, 0.4)) for _ in range(4)]
    sounds = [dsp.unit_peak(disc.strike(rng, 1.0)), *(spots[i] for i in rng.integers(4, size=22))]
    return dsp.finish(
        dsp.place(sounds, np.concatenate([[0.0], 0.1 + turns]), np.concatenate([[1.0], fall]))
    )


def _rocks(p: Parameters, rng: np.random.Generator) -> Waveform:
    rocks = []
    for _ in range(18):
        f0 = 900.0 * 2.0 ** (-2.6 * p["size"]) * rng.lognormal(0.0, 0.45)
        ratios = np.concatenate([[1.0], np.sort(rng.uniform(1.2, 9.0, 12))])
        rocks.append(
            make_body(f0, ratios, STONE, rng, slope=-0.2).strike(
                rng, rng.uniform(0.4, 1), contact=2
            )
        )
    rate = 10.0 + 40.0 * p["intensity"]
    length = rng.uniform(1.6, 3.6)
    when = dsp.arrivals(rate, length, rng)
    strength = rng.exponential(0.5, len(when)) * np.interp(
        when / length, [0, 0.15, 1], [1, 0.9, 0.1]
    )
    rumble = dsp.lowpass(rng.standard_normal(dsp.num_samples(length)), 140)
    rumble *= dsp.contour(len(rumble), [(0, 0), (0.08, 1), (1, 0)])
    mix = dsp.scatter(rocks, when, strength, rng)
    return dsp.finish(
        dsp.place([dsp.unit_peak(mix), dsp.unit_peak(rumble)], [0, 0], [1, 0.5 * p["size"]])
    )


# Many small things


def _jingle(
    things: list[Waveform],
    p: Parameters,
    rng: np.random.Generator,
    rate_hz: float,
    t60_s: float,
    gate: float = 0.0,
) -> Waveform:
    length = p["duration_s"]
    shakes = dsp.beats(p["rate_hz"], length, 0.25, rng)
    when, strength = dsp.shaken(shakes, length, rate_hz, t60_s, rng)
    first = np.array([0.0])
    return dsp.finish(
        dsp.scatter(
            things,
            np.concatenate([first, when]),
            np.concatenate([first + 1.0, np.maximum(strength, gate)]),
            rng,
        )
    )


def _coins_jingling(p: Parameters, rng: np.random.Generator) -> Waveform:
    coins = []
    for _ in range(16):
        f0 = 5200.0 * 2.0 ** (-1.0 * p["size"]) * rng.choice([0.85, 1.0, 1.18, 1.37])
        body = make_body(f0, DISC, BRASS.damped(9.0), rng, pairs=0.006, longest_s=0.25)
        coins.append(body.strike(rng, rng.uniform(0.4, 1.0)))
    return _jingle(coins, p, rng, 70.0, 0.45)


def _keys(p: Parameters, rng: np.random.Generator) -> Waveform:
    keys = []
    for _ in range(18):
        f0 = 3600.0 * 2.0 ** (-1.0 * p["size"]) * rng.uniform(0.8, 1.5)
        body = make_body(
            f0, BAR[:5] ** 0.75, BRASS.damped(14.0), rng, roughness=0.06, longest_s=0.22
        )
        keys.append(body.strike(rng, rng.uniform(0.4, 1.0)))
    return _jingle(keys, p, rng, 45.0, 0.5)


def _chain(p: Parameters, rng: np.random.Generator) -> Waveform:
    links = []
    for _ in range(18):
        f0 = 2400.0 * 2.0 ** (-2.0 * p["size"]) * rng.uniform(0.85, 1.3)
        body = make_body(
            f0, CUP[:8] ** 0.8, STEEL.damped(45.0), rng, roughness=0.06, longest_s=0.16
        )
        links.append(body.strike(rng, rng.uniform(0.3, 1.0)))
    return _jingle(links, p, rng, 90.0, 0.7)


def _cutlery(p: Parameters, rng: np.random.Generator) -> Waveform:
    pieces = []
    for _ in range(16):
        f0 = p["f0_hz"] * rng.uniform(0.7, 1.7)
        body = make_body(
            f0, BAR[:7] ** 0.85, STEEL.damped(14.0), rng, roughness=0.05, pairs=0.01, longest_s=0.45
        )
        pieces.append(body.strike(rng, rng.uniform(0.3, 1.0)))
    return _jingle(pieces, p, rng, 26.0, 0.8)


def _box_of_glass(p: Parameters, rng: np.random.Generator) -> Waveform:
    bottles = []
    for _ in range(12):
        f0 = p["f0_hz"] * rng.uniform(0.8, 1.4)
        body = make_body(f0, CUP, GLASS.damped(5.0), rng, pairs=0.006, longest_s=0.4)
        bottles.append(body.strike(rng, rng.uniform(0.3, 1.0)))
    return _jingle(bottles, p, rng, 22.0, 0.8)


def _screws(p: Parameters, rng: np.random.Generator) -> Waveform:
    screws = []
    for _ in range(20):
        f0 = 4200.0 * 2.0 ** (-1.2 * p["size"]) * rng.uniform(0.7, 1.5)
        body = make_body(
            f0, BAR[:4] ** 0.7, STEEL.damped(60.0), rng, roughness=0.08, longest_s=0.08
        )
        screws.append(body.strike(rng, rng.uniform(0.2, 1.0)))
    tin = make_body(rng.uniform(500, 900), bodies.plate(20, 0.8), SHEET.damped(9.0), rng)
    mix = _jingle(screws, p, rng, 150.0, 0.5)
    return dsp.finish(
        mix + 0.5 * dsp.level(dsp.resonate(mix, tin.response())[: len(mix)]) * np.std(mix)
    )


# Scraped and rolled


def _strokes(p: Parameters, rng: np.random.Generator, duration_s: float) -> Waveform:
    """Return the speed of a hand that goes back and forth, in [0, 1]."""
    n = dsp.num_samples(duration_s)
    phase = p["rate_hz"] * dsp.times(n) + 0.08 * dsp.drift(n, 2.0, rng)
    level = np.clip(1.0 + 0.2 * dsp.drift(n, 8.0, rng), 0.2, 1.6)
    return np.asarray(np.abs(np.sin(np.pi * phase)) ** 0.8 * level)


def _scrape(
    body: bodies.Body,
    speed: Waveform,
    grit_hz: float,
    rng: np.random.Generator,
    dry: float = 0.35,
) -> Waveform:
    force = dsp.moving_noise(grit_hz * (0.15 + speed), 1.8, rng) * speed
    force = dsp.unit_peak(force)
    wet = dsp.resonate(force, body.response())[: len(force) + 6000]
    wet = dsp.unit_peak(wet)
    wet[: len(force)] += dry * force
    return dsp.finish(wet)


def _metal_scrape(p: Parameters, rng: np.random.Generator) -> Waveform:
    body = make_body(p["f0_hz"], bodies.plate(40, 0.6), SHEET.damped(3.0), rng, slope=0.1)
    speed = dsp.hump(dsp.num_samples(p["duration_s"]), 0.7)
    speed = speed * np.clip(1.0 + 0.35 * dsp.drift(len(speed), 14.0, rng), 0.1, 2.0)
    return _scrape(body, speed, p["grit_hz"], rng)


def _stone_drag(p: Parameters, rng: np.random.Generator) -> Waveform:
    ratios = np.concatenate([[1.0], np.sort(rng.uniform(1.2, 14.0, 20))])
    f0 = 420.0 * 2.0 ** (-2.2 * p["size"])
    body = make_body(f0, ratios, STONE.damped(0.8), rng, slope=-0.3)
    n = dsp.num_samples(p["duration_s"])
    speed = dsp.contour(n, [(0, 0), (0.06, 1), (0.85, 0.9), (1, 0)])
    speed = speed * np.clip(1.0 + 0.5 * dsp.drift(n, 20.0, rng), 0.05, 2.5)
    grit = _scrape(body, speed, 1400.0, rng, dry=0.25)
    n = len(grit)
    rumble = dsp.lowpass(rng.standard_normal(n), 110) * np.interp(
        np.arange(n), np.arange(len(speed)), speed
    )
    return dsp.finish(dsp.unit_peak(grit) + 0.6 * p["size"] * dsp.unit_peak(rumble))


def _knife_sharpening(p: Parameters, rng: np.random.Generator) -> Waveform:
    blade = make_body(p["f0_hz"], BAR, STEEL.damped(9.0), rng, slope=0.3, longest_s=0.5)
    n = dsp.num_samples(p["duration_s"])
    phase = np.mod(p["rate_hz"] * dsp.times(n), 1.0)
    stroke = np.where(phase < 0.6, np.sin(np.pi * np.clip(phase / 0.6, 0, 1)) ** 0.5, 0.0)
    force = (
        dsp.moving_noise((3500.0 + 4500.0 * phase) * (p["f0_hz"] / 1100.0) ** 0.6, 1.3, rng)
        * stroke
    )
    wet = dsp.unit_peak(dsp.resonate(force, blade.response())[:n]) + 0.8 * dsp.unit_peak(force)
    return dsp.finish(wet, fade_out_s=0.02)


def _sword_draw(p: Parameters, rng: np.random.Generator) -> Waveform:
    blade = make_body(
        p["f0_hz"],
        BAR**0.92,
        _rings_for(STEEL, p["f0_hz"], 1.4),
        rng,
        roughness=0.02,
        pairs=0.005,
        slope=0.35,
    )
    n = dsp.num_samples(p["duration_s"])
    speed = dsp.contour(n, [(0, 0.1), (0.1, 0.5), (0.85, 1.0), (1, 0.0)])
    force = dsp.unit_peak(
        dsp.moving_noise(2500.0 + 6500.0 * np.linspace(0, 1, n), 1.4, rng) * speed
    )
    wet = dsp.unit_peak(dsp.resonate(force, blade.response()))
    release = blade.strike(rng, 0.7)
    return dsp.finish(
        dsp.place(
            [wet, force, dsp.unit_peak(release)], [0, 0, 0.93 * p["duration_s"]], [0.8, 0.6, 0.6]
        )
    )


def _creak(
    p: Parameters,
    rng: np.random.Generator,
    material: Material,
    f0_hz: float,
    slope: float,
    jitter: float = 0.10,
    glide: float = 0.4,
) -> Waveform:
    n = dsp.num_samples(p["duration_s"])
    body = make_body(f0_hz, bodies.box(20, rng), material, rng, slope=slope)
    # the joint slips whenever the twist exceeds friction: pulses whose rate follows the speed
    course = 0.35 + 0.65 * dsp.hump(n, 0.6) * np.clip(
        1.0 + glide * dsp.drift(n, 3.0, rng), 0.2, 2.0
    )
    slips = np.cumsum(p["rate_hz"] * course) / SAMPLE_RATE
    count = int(slips[-1])
    when = np.searchsorted(slips, np.arange(1, count + 1) + jitter * rng.standard_normal(count))
    when = np.clip(when, 0, n - 1)
    force = np.zeros(n)
    gap = np.diff(when, prepend=when[0] - 400).clip(1, 2000) / 2000.0
    np.add.at(force, when, (0.3 + gap) * rng.uniform(0.75, 1.0, count))
    force *= dsp.contour(n, [(0, 0.3), (0.1, 1), (0.8, 0.8), (1, 0.2)])
    grain = dsp.burst(rng, 600, 9000, 0.004, 0.0002)
    force = dsp.resonate(force, grain)
    return dsp.finish(dsp.resonate(force, body.response()))


def _wood_creak(p: Parameters, rng: np.random.Generator) -> Waveform:
    return _creak(p, rng, HARDWOOD, p["f0_hz"], -0.15)


def _door_creak(p: Parameters, rng: np.random.Generator) -> Waveform:
    # a dry hinge slips fast enough that its pulses fuse to a squeak
    squeak = _creak(p, rng, HARDWOOD.damped(1.5), 330.0, 0.1, jitter=0.012, glide=0.22)
    return dsp.finish(dsp.bandpass(squeak, 250, 9000, 1))


def _bottle_roll(p: Parameters, rng: np.random.Generator) -> Waveform:
    return _roll(p, rng, make_body(p["f0_hz"], CUP, GLASS.damped(4.0), rng, pairs=0.004), 2600.0)


def _barrel_roll(p: Parameters, rng: np.random.Generator) -> Waveform:
    return _roll(
        p, rng, make_body(p["f0_hz"], bodies.box(26, rng), WOOD.damped(0.5), rng, slope=-0.4), 700.0
    )


def _can_roll(p: Parameters, rng: np.random.Generator) -> Waveform:
    return _roll(
        p, rng, make_body(p["f0_hz"], bodies.plate(30, 0.7), SHEET.damped(4.0), rng), 2200.0
    )


def _roll(p: Parameters, rng: np.random.Generator, body: bodies.Body, grit_hz: float) -> Waveform:
    n = dsp.num_samples(p["duration_s"])
    speed = np.linspace(1.0, 0.35, n) ** 0.7
    angle = np.cumsum(p["rate_hz"] * speed) / SAMPLE_RATE
    # the surface is the same at every turn: bumps recur with the rotation
    profile = np.convolve(np.tile(rng.standard_normal(48), 3), np.ones(3) / 3, "same")[48:96]
    bump = np.interp(np.mod(angle, 1.0) * 48, np.arange(49), np.append(profile, profile[0]))
    force = dsp.lowpass(rng.standard_normal(n), grit_hz, 1) * (0.25 + np.abs(bump)) * speed
    jumps = dsp.arrivals(5.0 * p["rate_hz"], p["duration_s"], rng)
    force[np.minimum((jumps * SAMPLE_RATE).astype(int), n - 1)] += rng.exponential(2.5, len(jumps))
    force *= dsp.contour(n, [(0, 0), (0.04, 1), (0.8, 0.8), (1, 0.0)])
    return dsp.finish(dsp.resonate(force, body.response()) + 0.0)


# Broken


def _shards(
    material: Material,
    f0_hz: float,
    ratios: bodies.Ratios,
    count: int,
    spread_s: float,
    rng: np.random.Generator,
    longest_s: float,
) -> Waveform:
    kinds = []
    for _ in range(26):
        f0 = f0_hz * rng.lognormal(0.0, 0.45)
        body = make_body(f0, ratios, material, rng, roughness=0.06, pairs=0.01, longest_s=longest_s)
        kinds.append(body.strike(rng, rng.uniform(0.3, 1.0)))
    first = rng.exponential(spread_s / 3.2, count) + 0.015
    again = first + rng.uniform(0.05, 0.2, count)  # each shard bounces once or twice
    third = again + rng.uniform(0.03, 0.12, count)
    size = rng.exponential(1.0, count)
    when = np.concatenate([first, again, third])
    gain = np.concatenate([size, 0.5 * size, 0.25 * size]) * np.exp(-1.1 * when / spread_s)
    return dsp.scatter(kinds, when, gain, rng)


def _glass_shatter(p: Parameters, rng: np.random.Generator) -> Waveform:
    spread = 0.45 + 1.0 * p["size"]
    f0 = 5200.0 * 2.0 ** (-1.6 * p["size"])
    count = int(40 + 120 * p["intensity"])
    ratios = bodies.plate(12, 0.7) ** 0.8
    fall = _shards(GLASS.damped(4.0), f0, ratios, count, spread, rng, 0.45)
    crack = dsp.burst(rng, 900, 16000, 0.16 + 0.1 * p["size"], 0.0004)
    pane = make_body(
        1100.0 * 2 ** (-1.5 * p["size"]), bodies.plate(30, 0.8), GLASS.damped(6.0), rng
    )
    blow = dsp.unit_peak(pane.strike(rng, p["intensity"]))
    hiss = dsp.burst(rng, 5000, 18000, spread, 0.02)
    sounds = [dsp.unit_peak(crack), blow, dsp.unit_peak(fall), dsp.unit_peak(hiss)]
    return dsp.finish(
        dsp.place(sounds, [0, 0, 0, 0.01], [0.5 + 0.4 * p["intensity"], 0.6, 0.9, 0.10])
    )


def _plate_break(p: Parameters, rng: np.random.Generator) -> Waveform:
    f0 = 2600.0 * 2.0 ** (-1.5 * p["size"])
    count = int(8 + 26 * p["intensity"])
    fall = _shards(
        CERAMIC.damped(3.0), f0, DISC[:9] ** 0.85, count, 0.4 + 0.4 * p["size"], rng, 0.3
    )
    crack = dsp.burst(rng, 400, 9000, 0.09, 0.0003)
    whole = make_body(0.5 * f0, DISC, CERAMIC.damped(4.0), rng).strike(rng, p["intensity"])
    sounds = [dsp.unit_peak(crack), dsp.unit_peak(whole), dsp.unit_peak(fall)]
    return dsp.finish(dsp.place(sounds, [0, 0, 0], [0.5 + 0.4 * p["intensity"], 0.8, 0.8]))


def _crate_break(p: Parameters, rng: np.random.Generator) -> Waveform:
    f0 = 420.0 * 2.0 ** (-1.5 * p["size"])
    kinds = []
    for _ in range(20):
        f = f0 * rng.lognormal(0.3, 0.45)
        body = make_body(f, BAR**0.75, WOOD, rng, roughness=0.06, slope=-0.2)
        kinds.append(body.strike(rng, rng.uniform(0.4, 1.0)))
    splinters = [dsp.burst(rng, 700, 9000, rng.uniform(0.008, 0.03), 0.0002) for _ in range(10)]
    n_pieces = int(10 + 22 * p["intensity"])
    spread = 0.25 + 0.45 * p["size"]
    when = rng.exponential(spread / 1.6, n_pieces)
    fall = dsp.scatter(kinds, when, rng.exponential(0.7, n_pieces) * np.exp(-when / spread), rng)
    cracks = rng.exponential(0.06, 4 * n_pieces)
    tear = dsp.scatter(
        splinters, cracks, rng.exponential(0.4, len(cracks)) * np.exp(-cracks / 0.12), rng
    )
    blow = make_body(f0 * 0.5, bodies.box(26, rng), WOOD, rng, slope=-0.4).strike(
        rng, p["intensity"], contact=2
    )
    sounds = [dsp.unit_peak(blow), dsp.unit_peak(tear), dsp.unit_peak(fall)]
    return dsp.finish(dsp.place(sounds, [0, 0, 0.01], [1.0, 0.35 + 0.35 * p["intensity"], 0.7]))


def _twig(p: Parameters, rng: np.random.Generator) -> Waveform:
    f0 = 2600.0 * 2.0 ** (-2.3 * p["size"])
    stick = make_body(f0, BAR[:6] ** 0.7, WOOD.damped(1.8), rng, roughness=0.06, slope=-0.1)
    fibres = [dsp.burst(rng, 1200, 12000, rng.uniform(0.004, 0.012), 0.0001) for _ in range(8)]
    count = int(4 + 22 * p["intensity"])
    before = rng.random(count) ** 0.4 * (0.05 + 0.12 * p["size"])
    crackle = dsp.scatter(
        fibres, before, rng.exponential(0.18, count) * (0.3 + before / before.max()), rng
    )
    snap = dsp.place([stick.strike(rng, 1.0), stick.strike(rng, 0.8)], [0, 0.004])
    crack = dsp.burst(rng, 800, 15000, 0.03, 0.0001)
    return dsp.finish(
        dsp.place(
            [crackle, dsp.unit_peak(snap), dsp.unit_peak(crack)],
            [0, before.max(), before.max()],
            [0.35, 1.0, 0.8],
        )
    )


def _latch(p: Parameters, rng: np.random.Generator) -> Waveform:
    bolt = make_body(
        p["f0_hz"], BAR[:6] ** 0.8, STEEL.damped(45.0), rng, roughness=0.05, longest_s=0.12
    )
    case = make_body(0.2 * p["f0_hz"], bodies.box(16, rng), WOOD, rng, slope=-0.4)
    gap = p["gap_s"]
    sounds = [bolt.strike(rng, 0.5), bolt.strike(rng, 0.9), case.strike(rng, 0.8)]
    n = dsp.num_samples(gap)
    slide = dsp.noise_band(n, rng, 1500, 8000) * dsp.hump(n) * 0.06 * np.max(np.abs(sounds[1]))
    return dsp.finish(dsp.place([*sounds, slide], [0, gap, gap + 0.001, 0], [0.7, 1.0, 0.7, 1.0]))


_SIZE = Range("size", 0.0, 1.0, attribute="size")
_SHAKES = Range("rate_hz", 1.5, 6.0, log=True, attribute="rate")
_LENGTH = Range("duration_s", 0.5, 3.4, log=True, attribute="length")
_HEIGHT = Range("height_s", 0.16, 0.42, log=True, attribute="length")

MODELS: tuple[SoundModel, ...] = (
    SoundModel(
        "knock on wood",
        "impacts",
        (_pitch(140, 900), INTENSITY),
        _wood_knock,
        ("wood hit", "wooden knock", "tapping wood"),
        _PAI,
    ),
    SoundModel(
        "door knock",
        "impacts",
        (
            Range("rate_hz", 2.2, 7.5, log=True, attribute="rate"),
            Range("count", 1.6, 6.4, attribute="count"),
            _pitch(75, 190),
            INTENSITY,
        ),
        _door_knock,
        ("knocking on a door", "knock knock"),
        _FARNELL,
    ),
    SoundModel(
        "metal clang",
        "impacts",
        (_pitch(110, 1100), _ringing(0.35, 3.6), INTENSITY),
        _metal_clang,
        ("metal hit", "clank", "metallic impact"),
        _PAI,
    ),
    SoundModel(
        "anvil hit",
        "impacts",
        (_pitch(650, 1900), _ringing(0.8, 3.5), INTENSITY),
        _anvil,
        ("hammer on anvil", "blacksmith hammer"),
        _PAI,
    ),
    SoundModel(
        "pipe hit",
        "impacts",
        (_pitch(160, 1300), _ringing(0.5, 3.6), INTENSITY),
        _pipe,
        ("metal pipe", "steel pipe clang"),
        _PAI,
    ),
    SoundModel(
        "hammer on nail",
        "impacts",
        (
            Range("rate_hz", 1.5, 4.5, log=True, attribute="rate"),
            Range("count", 1.6, 6.4, attribute="count"),
            _pitch(1100, 2800),
            INTENSITY,
        ),
        _hammer_nail,
        ("hammering", "hammering a nail"),
        _PAI,
    ),
    SoundModel(
        "glass clink",
        "impacts",
        (_pitch(1300, 4600), _ringing(0.4, 2.6), INTENSITY),
        _glass_clink,
        ("glasses clinking", "cheers", "wine glass toast"),
        _PAI,
    ),
    SoundModel(
        "ceramic cup tap",
        "impacts",
        (_pitch(900, 3200), _ringing(0.12, 0.7), INTENSITY),
        _bell_like_cup,
        ("teacup clink", "mug tap", "ceramic clink"),
        _PAI,
    ),
    SoundModel(
        "stone hit",
        "impacts",
        (_pitch(500, 3200), INTENSITY),
        _stone_hit,
        ("rocks knocking together", "stone impact"),
        _PAI,
    ),
    SoundModel(
        "sword clash",
        "impacts",
        (_pitch(500, 1700), _ringing(0.6, 2.6), INTENSITY),
        _sword_clash,
        ("swords clashing", "blades clashing", "sword hit"),
        _PAI,
    ),
    SoundModel(
        "door slam",
        "impacts",
        (_pitch(55, 130), INTENSITY),
        _door_slam,
        ("slamming door", "door closing hard"),
        _FARNELL,
    ),
    SoundModel(
        "coin drop",
        "drops",
        (_pitch(2600, 6000), Range("height_s", 0.1, 0.3, log=True, attribute="length")),
        _coin_drop,
        ("dropping a coin", "coin on a table"),
        _PAI,
    ),
    SoundModel(
        "plastic cup drop",
        "drops",
        (_pitch(420, 1500), _HEIGHT),
        _plastic_cup,
        ("plastic cup falling", "plastic clatter"),
        _PAI,
    ),
    SoundModel(
        "tin can drop",
        "drops",
        (_pitch(500, 1500), _HEIGHT),
        _tin_can,
        ("can falling", "dropping a tin can"),
        _PAI,
    ),
    SoundModel(
        "pebble drop",
        "drops",
        (_pitch(1400, 4200), _HEIGHT),
        _pebble,
        ("small stone falling", "pebble bouncing"),
        _PAI,
    ),
    SoundModel(
        "marble bouncing",
        "drops",
        (_pitch(3200, 7500), _HEIGHT),
        _marble,
        ("marble drop", "glass ball bouncing"),
        _PAI,
    ),
    SoundModel(
        "ping pong ball",
        "drops",
        (_pitch(900, 2200), _HEIGHT),
        _ping_pong,
        ("table tennis ball bouncing", "ping pong ball bouncing"),
        _PAI,
    ),
    SoundModel(
        "basketball bouncing",
        "drops",
        (_pitch(65, 130), Range("height_s", 0.35, 0.8, log=True, attribute="length")),
        _basketball,
        ("ball bounce", "dribbling a basketball"),
        _PAI,
    ),
    SoundModel(
        "wooden plank drop",
        "drops",
        (_pitch(110, 420), INTENSITY),
        _plank,
        ("plank falling", "wood falling on the floor"),
        _PAI,
    ),
    SoundModel(
        "metal lid drop",
        "drops",
        (_pitch(260, 900), _ringing(0.4, 2.2)),
        _metal_plate_drop,
        ("pot lid falling", "metal plate wobbling", "dropped metal tray"),
        _PAI,
    ),
    SoundModel(
        "rocks falling",
        "drops",
        (_SIZE, INTENSITY),
        _rocks,
        ("rockslide", "falling rocks", "rubble"),
        _COOK,
    ),
    SoundModel(
        "coins jingling",
        "small objects",
        (_SHAKES, _SIZE, _LENGTH),
        _coins_jingling,
        ("coins in a pocket", "shaking coins", "bag of coins"),
        _COOK,
    ),
    SoundModel(
        "keys jingling",
        "small objects",
        (_SHAKES, _SIZE, _LENGTH),
        _keys,
        ("key ring", "bunch of keys", "shaking keys"),
        _COOK,
    ),
    SoundModel(
        "chain rattling",
        "small objects",
        (_SHAKES, _SIZE, _LENGTH),
        _chain,
        ("chains", "rattling chain", "metal chain"),
        _COOK,
    ),
    SoundModel(
        "cutlery",
        "small objects",
        (_SHAKES, _pitch(1100, 2600), _LENGTH),
        _cutlery,
        ("silverware rattling", "forks and knives", "cutlery drawer"),
        _COOK,
    ),
    SoundModel(
        "box of glass",
        "small objects",
        (_SHAKES, _pitch(1300, 3600), _LENGTH),
        _box_of_glass,
        ("bottles rattling", "glasses rattling", "crate of bottles"),
        _COOK,
    ),
    SoundModel(
        "screws in a tin",
        "small objects",
        (_SHAKES, _SIZE, _LENGTH),
        _screws,
        ("tin of nails", "shaking screws", "nuts and bolts rattling"),
        _COOK,
    ),
    SoundModel(
        "metal scrape",
        "friction",
        (
            _LENGTH,
            Range("grit_hz", 1500, 7000, log=True, attribute="brightness"),
            _pitch(250, 1200),
        ),
        _metal_scrape,
        ("scraping metal", "metal scratch"),
        _FOLEY,
    ),
    SoundModel(
        "stone dragging",
        "friction",
        (_SIZE, Range("duration_s", 0.9, 3.8, log=True, attribute="length")),
        _stone_drag,
        ("stone door sliding", "stone grinding", "heavy stone sliding"),
        _FOLEY,
    ),
    SoundModel(
        "knife sharpening",
        "friction",
        (
            Range("rate_hz", 0.9, 3.2, log=True, attribute="rate"),
            _pitch(700, 1800),
            Range("duration_s", 1.2, 3.8, attribute="length"),
        ),
        _knife_sharpening,
        ("sharpening a blade", "whetstone"),
        _FOLEY,
    ),
    SoundModel(
        "sword being drawn",
        "friction",
        (Range("duration_s", 0.22, 0.9, log=True, attribute="length"), _pitch(500, 1500)),
        _sword_draw,
        ("unsheathing a sword", "drawing a blade"),
        _FOLEY,
    ),
    SoundModel(
        "wood creak",
        "friction",
        (
            Range("rate_hz", 18, 110, log=True, attribute="rate"),
            Range("duration_s", 0.5, 2.6, log=True, attribute="length"),
            _pitch(180, 600),
        ),
        _wood_creak,
        ("creaking wood", "floorboard creak"),
        _FARNELL,
    ),
    SoundModel(
        "door creak",
        "friction",
        (
            Range("rate_hz", 140, 620, log=True, attribute="pitch"),
            Range("duration_s", 0.6, 3.2, log=True, attribute="length"),
        ),
        _door_creak,
        ("creaky door", "squeaky hinge", "old door opening"),
        _FARNELL,
    ),
    SoundModel(
        "bottle rolling",
        "friction",
        (Range("rate_hz", 1.5, 6.0, log=True, attribute="rate"), _pitch(900, 2800), _LENGTH),
        _bottle_roll,
        ("glass bottle rolling", "rolling bottle"),
        _FOLEY,
    ),
    SoundModel(
        "barrel rolling",
        "friction",
        (
            Range("rate_hz", 0.8, 3.0, log=True, attribute="rate"),
            _pitch(70, 200),
            Range("duration_s", 1.2, 3.9, attribute="length"),
        ),
        _barrel_roll,
        ("wooden barrel rolling",),
        _FOLEY,
    ),
    SoundModel(
        "can rolling",
        "friction",
        (Range("rate_hz", 1.5, 6.0, log=True, attribute="rate"), _pitch(500, 1500), _LENGTH),
        _can_roll,
        ("tin can rolling", "empty can rolling"),
        _FOLEY,
    ),
    SoundModel(
        "glass shattering",
        "breaking",
        (_SIZE, INTENSITY),
        _glass_shatter,
        ("breaking glass", "window smash", "shattered glass"),
        _COOK,
    ),
    SoundModel(
        "plate breaking",
        "breaking",
        (_SIZE, INTENSITY),
        _plate_break,
        ("ceramic smash", "dish breaking", "pot smashing"),
        _COOK,
    ),
    SoundModel(
        "wooden crate break",
        "breaking",
        (_SIZE, INTENSITY),
        _crate_break,
        ("wood breaking", "crate smash", "wood splintering"),
        _COOK,
    ),
    SoundModel(
        "twig snap",
        "breaking",
        (_SIZE, INTENSITY),
        _twig,
        ("branch snapping", "stick breaking", "snapping twig"),
        _COOK,
    ),
    SoundModel(
        "lock click",
        "impacts",
        (_pitch(1300, 3400), Range("gap_s", 0.03, 0.22, log=True, attribute="length")),
        _latch,
        ("door latch", "bolt sliding", "unlocking a door"),
        _FARNELL,
    ),
)
