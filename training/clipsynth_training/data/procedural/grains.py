"""Sounds of many small events: footsteps, rain, applause, fire, paper, typing and food.

Each is a random stream of short grains. What differs is the grain, how grains arrive in time, and
the body that they excite.

Source:
    Cook 1997, "Physically Informed Sonic Modeling", CMJ 21(3); Cook 2002, "Modeling Bill's gait";
    Farnell, "Designing Sound"; Peltola et al. 2007, "Synthesis of hand clapping sounds".
"""

from __future__ import annotations

import numpy as np

from clipsynth_training.data.procedural import bodies, dsp
from clipsynth_training.data.procedural.bodies import (
    HARDWOOD,
    PLASTIC,
    SHEET,
    STEEL,
    WOOD,
    make_body,
)
from clipsynth_training.data.procedural.dsp import Parameters
from clipsynth_training.data.procedural.model import (
    SAMPLE_RATE,
    Choice,
    Range,
    SoundModel,
    Waveform,
)

_COOK = "Cook 1997, Physically Informed Sonic Modeling, CMJ 21(3)"
_GAIT = "Cook 2002, Modeling Bill's gait, AES 22nd conference; Farnell, Designing Sound"
_FARNELL = "Farnell, Designing Sound, part IV"
_CLAPS = "Peltola, Erkut, Cook and Valimaki 2007, Synthesis of hand clapping sounds"

_STEADY_S = 4.1


def _mix(*parts: tuple[Waveform, float]) -> Waveform:
    """Add waveforms at given root mean square levels."""
    out = np.zeros(max(len(x) for x, _ in parts))
    for x, gain in parts:
        out[: len(x)] += gain * dsp.level(x)
    return out


def _peaks(*parts: tuple[Waveform, float, float]) -> Waveform:
    """Place waveforms ``(waveform, start in seconds, peak)``."""
    return dsp.place(
        [dsp.unit_peak(x) for x, _, _ in parts],
        [s for _, s, _ in parts],
        np.array([g for _, _, g in parts]),
    )


def _course(n: int, rng: np.random.Generator, rate_hz: float, depth: float) -> Waveform:
    return np.clip(1.0 + depth * dsp.drift(n, rate_hz, rng), 0.05, 3.0)


def _chips(
    rng: np.random.Generator, count: int, low_hz: float, high_hz: float, t60_s: tuple[float, float]
) -> list[Waveform]:
    """Return grains, each with a few resonances of its own between two frequencies."""
    grains = []
    for _ in range(count):
        pitch = low_hz * (high_hz / low_hz) ** rng.random(4)
        fall = rng.uniform(*t60_s, 4)
        grain = dsp.ring(pitch, fall, rng.uniform(0.3, 1.0, 4))
        n = min(len(grain), dsp.num_samples(0.0015))
        grain[:n] += 0.5 * rng.standard_normal(n) * np.linspace(1.0, 0.0, n)
        grains.append(dsp.unit_peak(grain))
    return grains


def _snaps(
    rng: np.random.Generator, count: int, low_hz: float, high_hz: float, t60_s: tuple[float, float]
) -> list[Waveform]:
    """Return bursts of noise, each in a band of its own between two frequencies."""
    grains = []
    for _ in range(count):
        centre = low_hz * (high_hz / low_hz) ** rng.random()
        grains.append(
            dsp.unit_peak(dsp.burst(rng, centre / 1.6, centre * 1.6, rng.uniform(*t60_s), 0.0002))
        )
    return grains


# Footsteps


def _crunch(
    rng: np.random.Generator, grains: list[Waveform], count: int, length_s: float, toe_s: float
) -> Waveform:
    """Return grains under one foot: the heel goes down, then the ball."""
    heel = rng.gamma(1.6, 0.25 * toe_s, count // 2)
    toe = toe_s + rng.gamma(1.8, 0.22 * length_s, count - count // 2)
    when = np.concatenate([heel, toe])
    return dsp.scatter(grains, when, rng.exponential(0.4, count) + 0.05, rng)


def _two_blows(
    rng: np.random.Generator, body: bodies.Body, strength: float, toe_s: float, contact: float
) -> Waveform:
    heel = body.strike(rng, strength, contact=contact)
    toe = body.strike(rng, 0.6 * strength, contact=1.5 * contact)
    return dsp.place([heel, toe], [0.0, toe_s], [1.0, 0.5])


def _thud(rng: np.random.Generator, hz: float, t60_s: float) -> Waveform:
    n = dsp.num_samples(t60_s)
    tone = dsp.sine(hz * (1 + 0.4 * dsp.decay(n, 0.06)), n) * dsp.attack_decay(n, 0.003, t60_s)
    return tone + 0.4 * dsp.burst(rng, 50, 350, t60_s, 0.004)


def _step_bank(
    surface: str,
    weight: float,
    toe_s: float,
    rng: np.random.Generator,
    count: int = 5,
    span_s: float = 0.3,
) -> list[Waveform]:
    """Return a few different steps on one surface, soft ground giving way for ``span_s``.

    A heavy step is louder low down.
    """
    thud_hz = 115.0 * 2.0 ** (-0.9 * weight)
    steps = []
    if surface == "wood":
        boards = make_body(
            190.0 * 2.0 ** (-0.9 * weight), bodies.box(24, rng), WOOD, rng, slope=-0.5
        )
    if surface == "metal":
        plates = make_body(
            330.0 * 2.0 ** (-0.9 * weight),
            bodies.plate(34, 0.7),
            SHEET.damped(4.0),
            rng,
            pairs=0.006,
            slope=-0.2,
        )
    if surface == "gravel":
        chips = _chips(rng, 40, 1300.0, 9000.0, (0.004, 0.014))
    if surface == "leaves":
        chips = _snaps(rng, 28, 1500.0, 11000.0, (0.003, 0.02))
    for _ in range(count):
        thud = dsp.unit_peak(_thud(rng, thud_hz * rng.uniform(0.93, 1.07), 0.11))
        low = 0.2 + 0.6 * weight
        if surface == "wood":
            blow = _two_blows(rng, boards, 0.5 + 0.4 * weight, toe_s, 3.0)
            step = _peaks(
                (blow, 0, 1.0), (thud, 0, 0.5 * low), (dsp.burst(rng, 900, 6000, 0.012), 0, 0.12)
            )
        elif surface == "metal":
            blow = _two_blows(rng, plates, 0.5 + 0.4 * weight, toe_s, 2.5)
            step = _peaks((blow, 0, 1.0), (thud, 0, 0.5 * low))
        elif surface == "concrete":
            heel, toe = (dsp.burst(rng, 350, 4500, t, 0.0006) for t in (0.045, 0.06))
            scuff = dsp.burst(rng, 1500, 8000, 0.09, 0.02)
            step = _peaks((heel, 0, 0.8), (toe, toe_s, 0.4), (scuff, toe_s, 0.10), (thud, 0, low))
        elif surface == "gravel":
            stones = _crunch(rng, chips, int(70 + 60 * weight), 0.7 * span_s, toe_s)
            bed = dsp.burst(rng, 400, 3500, 0.85 * span_s, 0.02)
            step = _peaks((stones, 0, 1.0), (bed, 0.01, 0.35), (thud, 0, 0.6 * low))
        elif surface == "snow":
            n = dsp.num_samples(1.05 * span_s)
            # crystals break in quick succession: a creak in the noise
            pulse = np.clip(
                np.sin(2 * np.pi * np.cumsum(150.0 + 90.0 * dsp.drift(n, 14.0, rng)) / SAMPLE_RATE),
                0,
                1,
            )
            press_down = dsp.contour(n, [(0, 0), (0.08, 1), (0.3, 0.5), (0.5, 0.8), (1, 0)])
            press = dsp.noise_band(n, rng, 500, 3800) * (0.35 + pulse) * press_down
            press += (
                0.4
                * dsp.noise_band(n, rng, 3000, 9000)
                * dsp.hump(n, 1.5)
                * _course(n, rng, 90, 0.6)
            )
            step = _peaks((press, 0, 1.0), (thud, 0.02, 0.5 * low))
        elif surface == "grass":
            n = dsp.num_samples(0.85 * span_s)
            swish = dsp.noise_band(n, rng, 1500, 9000) * dsp.hump(n, 1.3) * _course(n, rng, 60, 0.6)
            step = _peaks((swish, 0, 0.55), (dsp.lowpass(thud, 220), 0.01, 0.9 * low))
        elif surface == "leaves":
            crackle = _crunch(rng, chips, int(60 + 50 * weight), 0.8 * span_s, toe_s)
            n = dsp.num_samples(span_s)
            swish = dsp.noise_band(n, rng, 2500, 11000) * dsp.hump(n)
            step = _peaks((crackle, 0, 1.0), (swish, 0, 0.18), (thud, 0, 0.4 * low))
        elif surface == "mud":
            n = dsp.num_samples(span_s)
            squelch = dsp.moving_noise(
                dsp.contour(n, [(0, 500), (0.5, 350), (1, 1300)]), 1.2, rng, 6
            )
            squelch *= dsp.contour(n, [(0, 0.6), (0.25, 1), (0.6, 0.4), (0.85, 0.8), (1, 0)])
            squelch *= _course(n, rng, 70, 0.7)
            suck = dsp.sine(dsp.contour(2600, [(0, 350), (1, 1100)]), 2600) * dsp.hump(2600)
            step = _peaks((squelch, 0, 0.9), (suck, 0.55 * span_s, 0.35), (thud, 0, low))
        else:  # sand
            n = dsp.num_samples(span_s)
            hiss = dsp.noise_band(n, rng, 700, 6500) * dsp.contour(
                n, [(0, 0), (0.12, 1), (0.4, 0.5), (0.55, 0.7), (1, 0)]
            )
            step = _peaks(
                (hiss * _course(n, rng, 50, 0.4), 0, 0.8), (dsp.lowpass(thud, 250), 0, 0.9 * low)
            )
        steps.append(dsp.fade(step, 0.0005, 0.01))
    return steps


_SURFACES = ("gravel", "wood", "concrete", "snow", "grass", "metal", "leaves", "mud", "sand")


def _walk(
    surface: str, rate_hz: float, weight: float, duration_s: float, rng: np.random.Generator
) -> Waveform:
    toe = 0.13 / rate_hz if rate_hz < 2.6 else 0.06 / rate_hz  # a runner lands almost flat
    steps = _step_bank(surface, weight, toe, rng, span_s=min(0.3, 0.6 / rate_hz))
    when = dsp.beats(rate_hz, duration_s, 0.05, rng)
    side = np.where(np.arange(len(when)) % 2, 0.88, 1.0)  # one foot is heavier
    return dsp.finish(dsp.scatter(steps, when, side * rng.uniform(0.8, 1.0, len(when)), rng))


def _footsteps(p: Parameters, rng: np.random.Generator) -> Waveform:
    return _walk(p["surface"], p["rate_hz"], p["weight"], p["duration_s"], rng)


def _running(p: Parameters, rng: np.random.Generator) -> Waveform:
    return _walk(p["surface"], p["rate_hz"], 0.3 + 0.7 * p["weight"], 3.7, rng)


def _snow_walk(p: Parameters, rng: np.random.Generator) -> Waveform:
    return _walk("snow", p["rate_hz"], p["weight"], 3.7, rng)


def _high_heels(p: Parameters, rng: np.random.Generator) -> Waveform:
    when = dsp.beats(p["rate_hz"], 3.7, 0.05, rng)
    tile = make_body(p["f0_hz"], bodies.box(14, rng), bodies.STONE.damped(1.3), rng)
    steps = []
    for _ in range(5):
        heel = tile.strike(rng, rng.uniform(0.6, 0.8), contact=1.5)
        sole = dsp.burst(rng, 500, 4000, 0.03, 0.001)
        steps.append(
            _peaks(
                (heel, 0, 1.0), (sole, 0.12 / p["rate_hz"], 0.2), (_thud(rng, 140, 0.06), 0, 0.2)
            )
        )
    return dsp.finish(dsp.scatter(steps, when, rng.uniform(0.8, 1.0, len(when)), rng))


def _marching(p: Parameters, rng: np.random.Generator) -> Waveform:
    steps = _step_bank(p["surface"], 0.7, 0.05, rng, 8)
    people = round(p["count"])
    beat = dsp.beats(p["rate_hz"], 3.7, 0.02, rng)
    when = (beat[:, None] + np.abs(rng.normal(0.0, 0.018, (len(beat), people)))).ravel()
    return dsp.finish(dsp.scatter(steps, when, rng.uniform(0.3, 1.0, len(when)), rng))


_GAITS = {
    "walk": (1.0, (0.0, 0.25, 0.5, 0.75)),
    "trot": (1.5, (0.0, 0.02, 0.5, 0.52)),
    "canter": (1.7, (0.0, 0.27, 0.30, 0.55)),
    "gallop": (2.3, (0.0, 0.13, 0.30, 0.44)),
}


_GROUNDS = {
    "cobblestones": ("concrete", 1.0),
    "wood": ("wood", 0.8),
    "dirt": ("sand", 0.35),
    "grass": ("grass", 0.15),
    "sand": ("sand", 0.05),
}


def _horse(p: Parameters, rng: np.random.Generator) -> Waveform:
    strides, phases = _GAITS[p["pattern"]]
    strides *= p["rate_scale"]
    surface, hard = _GROUNDS[p["surface"]]
    hoof = make_body(
        rng.uniform(420, 700), np.array([1.0, 1.5, 2.2, 3.1, 4.3, 6.0]), HARDWOOD.damped(1.6), rng
    )
    soft = _step_bank(surface, 0.9, 0.01, rng)
    steps = [
        _peaks(
            (hoof.strike(rng, rng.uniform(0.5, 0.9), contact=1.5), 0, 0.15 + 0.85 * hard),
            (s, 0, 0.7 - 0.4 * hard),
        )
        for s in soft
    ]
    count = int(3.8 * strides)
    when = ((np.arange(count)[:, None] + np.array(phases)) / strides).ravel()
    when = np.abs(when + 0.006 * rng.standard_normal(len(when)))
    return dsp.finish(dsp.scatter(steps, when, rng.uniform(0.65, 1.0, len(when)), rng))


# Weather


def _rain_grains(surface: str, rng: np.random.Generator) -> tuple[list[Waveform], Waveform | None]:
    """Return drops, and the response of what they fall on."""
    if surface == "leaves":
        return _snaps(rng, 28, 900.0, 6500.0, (0.006, 0.022)), None
    if surface == "pavement":
        return _snaps(rng, 28, 1800.0, 9500.0, (0.004, 0.014)), None
    if surface == "puddle":
        drops = [
            dsp.sine(f * (1 + 6.0 * np.arange(m) / SAMPLE_RATE), m)
            * dsp.attack_decay(m, 0.0005, 0.025)
            for f, m in zip(rng.uniform(1200, 4500, 30), np.full(30, 1100), strict=True)
        ]
        return drops + _snaps(rng, 20, 3000.0, 9000.0, (0.003, 0.01)), None
    click = _snaps(rng, 20, 1500.0, 9000.0, (0.002, 0.006))
    if surface == "tin roof":
        sheet = make_body(
            rng.uniform(220, 420), bodies.plate(60, 0.6), SHEET.damped(9.0), rng, slope=0.1
        )
        return click, sheet.response()
    if surface == "window":
        pane = make_body(
            rng.uniform(300, 480), bodies.plate(30, 0.8), bodies.GLASS.damped(22.0), rng, slope=-0.1
        )
        return click, pane.response()
    cloth = bodies.Material(7.0, 50.0, 0.001, 0.2)
    canvas = make_body(rng.uniform(130, 230), bodies.MEMBRANE[:24], cloth, rng, slope=-0.3)
    return click, canvas.response()


def _rain(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(_STEADY_S)
    grains, response = _rain_grains(p["surface"], rng)
    rate = 60.0 * 40.0 ** p["intensity"]
    when = dsp.arrivals(rate, _STEADY_S, rng)
    gain = np.minimum(rng.lognormal(-1.0, 0.8, len(when)), 1.5)
    drops = dsp.scatter(grains, when, gain, rng, _STEADY_S)
    if response is not None:
        drops = _mix((dsp.resonate(drops, response)[:n], 1.0), (drops, 0.35))
    bed = dsp.tilted(n, rng, -2.0)
    bed = dsp.bandpass(bed, 500, 12000, 1) * _course(n, rng, 1.5, 0.08)
    return dsp.finish_steady(_mix((drops, 1.0), (bed, 0.06 + 0.5 * p["intensity"] ** 2)))


def _hail(p: Parameters, rng: np.random.Generator) -> Waveform:
    rate = 12.0 * 25.0 ** p["intensity"]
    when = dsp.arrivals(rate, 4.0, rng)
    stones = _chips(rng, 30, 1600.0 * 2.0 ** (-p["size"]), 7000.0, (0.006, 0.02))
    roof = make_body(rng.uniform(160, 320), bodies.plate(40, 0.6), SHEET.damped(10.0), rng)
    again = when + rng.uniform(0.04, 0.12, len(when))  # every stone bounces once
    gain = np.minimum(rng.lognormal(-0.8, 0.7, len(when)), 1.8)
    hits = dsp.scatter(stones, np.append(when, again), np.append(gain, 0.25 * gain), rng, _STEADY_S)
    ringing = dsp.resonate(hits, roof.response())[: len(hits)]
    return dsp.finish_steady(_mix((hits, 1.0), (ringing, 0.7)))


# People


def _clap_grain(rng: np.random.Generator, centre_hz: float) -> Waveform:
    palm = dsp.burst(rng, centre_hz / 1.4, centre_hz * 1.4, rng.uniform(0.025, 0.05), 0.0005)
    edge = dsp.burst(rng, 1500, 14000, 0.012, 0.0002)
    return _peaks((palm, 0, 0.9), (edge, 0, 0.4))


def _applause(p: Parameters, rng: np.random.Generator) -> Waveform:
    people = max(2, round(p["count"]))
    when, gain = [], []
    for _ in range(people):
        rate = p["rate_hz"] * rng.uniform(0.8, 1.2)
        own = dsp.beats(rate, 4.0, 0.15, rng) + rng.random() / rate
        when.append(own)
        gain.append(rng.uniform(0.3, 1.0) * rng.uniform(0.7, 1.0, len(own)))
    hands = [_clap_grain(rng, rng.uniform(650, 2400)) for _ in range(min(40, 3 * people))]
    return dsp.finish_steady(
        dsp.scatter(hands, np.concatenate(when), np.concatenate(gain), rng, _STEADY_S)
    )


def _hand_clap(p: Parameters, rng: np.random.Generator) -> Waveform:
    clap = _clap_grain(rng, p["centre_hz"])
    body = dsp.burst(rng, 250, p["centre_hz"], 0.08, 0.0008)
    return dsp.finish(_peaks((clap, 0, 0.4 + 0.6 * p["intensity"]), (body, 0, 0.35)))


def _slow_clap(p: Parameters, rng: np.random.Generator) -> Waveform:
    claps = [_clap_grain(rng, p["centre_hz"] * rng.uniform(0.93, 1.07)) for _ in range(5)]
    when = dsp.beats(p["rate_hz"], 3.8, 0.06, rng)
    return dsp.finish(dsp.scatter(claps, when, rng.uniform(0.75, 1.0, len(when)), rng))


def _finger_snap(p: Parameters, rng: np.random.Generator) -> Waveform:
    slide = dsp.burst(rng, 2500, 9000, 0.03, 0.02)
    n = dsp.num_samples(0.06)
    pop = dsp.sine(p["f0_hz"], n) * dsp.decay(n, 0.035) + 0.5 * dsp.sine(
        1.8 * p["f0_hz"], n
    ) * dsp.decay(n, 0.02)
    crack = dsp.burst(rng, 1200, 12000, 0.02, 0.0001)
    return dsp.finish(
        _peaks((slide, 0, 0.06), (pop, 0.03, 0.7), (crack, 0.03, 0.3 + 0.6 * p["intensity"]))
    )


def _crunch_food(p: Parameters, rng: np.random.Generator) -> Waveform:
    low = 350.0 * 2.5 ** p["crisp"]
    cells = _snaps(rng, 28, low, 9.0 * low, (0.003, 0.018))
    bites = round(p["count"])
    sounds, starts = [], []
    for bite in range(bites):
        first = bite == 0
        length = rng.uniform(0.22, 0.34) if first else rng.uniform(0.14, 0.2)
        count = int((60 if first else 40) * (0.5 + p["crisp"]))
        when = rng.beta(1.3, 2.2, count) * length
        sound = dsp.scatter(cells, when, rng.exponential(0.4, count), rng)
        sound = (
            sound if first else dsp.lowpass(sound, 1800 + 3000 * p["crisp"], 2)
        )  # heard through a closed mouth
        sounds.append(dsp.unit_peak(sound) * (1.0 if first else 0.5))
        starts.append(bite / p["rate_hz"] * rng.uniform(0.95, 1.05) + (0.15 if bite else 0))
    return dsp.finish(dsp.place(sounds, starts))


# Fire and heat


def _fire(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(_STEADY_S)
    crackles = _snaps(rng, 28, 900.0, 9000.0, (0.002, 0.02))
    when = dsp.arrivals(p["rate_hz"], 4.0, rng)
    fine = dsp.scatter(
        crackles, when, np.minimum(rng.lognormal(-1.2, 0.9, len(when)), 2.0), rng, _STEADY_S
    )
    # pops come in flurries
    pops = dsp.arrivals(0.8 + 0.05 * p["rate_hz"], 3.8, rng)
    flurry = np.concatenate([t + rng.exponential(0.04, rng.integers(2, 8)) for t in pops])
    loud = dsp.scatter(
        _snaps(rng, 20, 500.0, 5000.0, (0.008, 0.04)),
        flurry,
        np.minimum(rng.exponential(0.8, len(flurry)), 2.0),
        rng,
        _STEADY_S,
    )
    lap = dsp.lowpass(dsp.tilted(n, rng, -4.0), 350, 2) * _course(n, rng, 7.0, 0.5)
    hiss = dsp.noise_band(n, rng, 1500, 9000) * _course(n, rng, 4.0, 0.4)
    return dsp.finish_steady(
        _mix(
            (fine, 0.8), (loud, 0.7), (lap, 0.15 + 1.0 * p["size"]), (hiss, 0.07 + 0.12 * p["size"])
        )
    )


def _firework_crackle(p: Parameters, rng: np.random.Generator) -> Waveform:
    length = p["duration_s"]
    count = int(p["rate_hz"] * length)
    when = rng.beta(1.3, 2.0, count) * length
    pops = _snaps(rng, 30, 900.0, 7000.0, (0.006, 0.04))
    crackle = dsp.scatter(pops, when, rng.lognormal(-0.7, 0.6, count), rng)
    echo = dsp.lowpass(crackle, 2500, 1)
    n = dsp.num_samples(1.2)
    boom = dsp.lowpass(rng.standard_normal(n), 130) * dsp.attack_decay(n, 0.003, 1.0)
    return dsp.finish(_peaks((boom, 0, 0.9), (crackle, 0.15, 0.9), (echo, 0.22, 0.3)))


def _sizzle(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(_STEADY_S)
    rate = 150.0 * 9.0 ** p["intensity"]
    when = dsp.arrivals(rate, _STEADY_S, rng)
    spits = _snaps(rng, 24, 2000.0, 13000.0, (0.001, 0.008))
    grains = dsp.scatter(
        spits, when, np.minimum(rng.lognormal(-1.0, 0.9, len(when)), 2.0), rng, _STEADY_S
    )
    hiss = dsp.bandpass(dsp.tilted(n, rng, -1.5), p["low_hz"], 13000, 1) * _course(
        n, rng, 11.0, 0.25
    )
    return dsp.finish_steady(_mix((grains, 0.7), (hiss, 0.3 + 0.9 * p["intensity"])))


def _match(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(p["duration_s"])
    strike = dsp.noise_band(dsp.num_samples(0.16), rng, 1800, 9000)
    strike *= dsp.hump(len(strike), 0.6) * _course(len(strike), rng, 180, 0.6)
    flare = dsp.moving_noise(
        dsp.contour(n, [(0, 1500), (0.1, 4500), (0.4, 2200), (1, 700)]), 2.5, rng, 6
    )
    flare *= dsp.contour(n, [(0, 0), (0.07, 1), (0.3, 0.5), (1, 0)]) * _course(n, rng, 20, 0.3)
    spit = dsp.scatter(
        _snaps(rng, 20, 1500, 9000, (0.002, 0.012)),
        0.1 + rng.exponential(0.15, 40),
        rng.exponential(0.4, 40),
        rng,
        p["duration_s"],
    )
    return dsp.finish(
        _peaks((strike, 0, 0.45), (flare, 0.13, 0.5 + 0.5 * p["intensity"]), (spit, 0.1, 0.4))
    )


def _popcorn(p: Parameters, rng: np.random.Generator) -> Waveform:
    kernels = []
    for _ in range(16):
        n = dsp.num_samples(0.05)
        thump = dsp.sine(rng.uniform(320, 800) * (1 + 0.8 * dsp.decay(n, 0.02)), n) * dsp.decay(
            n, 0.045
        )
        kernels.append(_peaks((thump, 0, 0.7), (dsp.burst(rng, 900, 7000, 0.02, 0.0002), 0, 0.7)))
    pot = make_body(p["f0_hz"], bodies.plate(24, 0.9), SHEET.damped(10.0), rng)
    when = dsp.arrivals(p["rate_hz"], 4.0, rng)
    pops = dsp.scatter(kernels, when, rng.lognormal(-0.4, 0.4, len(when)), rng, _STEADY_S)
    n = len(pops)
    ringing = dsp.resonate(pops, pot.response())[:n]
    sizzle = dsp.noise_band(n, rng, 2500, 11000) * _course(n, rng, 10, 0.3)
    return dsp.finish_steady(_mix((pops, 1.0), (ringing, 0.6), (sizzle, 0.08)))


# Desk and paper


def _key_sound(rng: np.random.Generator, f0_hz: float, depth: float) -> Waveform:
    cap = make_body(f0_hz, np.array([1.0, 1.6, 2.4, 3.3, 4.7]), PLASTIC, rng, slope=-0.1)
    down = _peaks(
        (cap.strike(rng, 0.7), 0, 1.0),
        (dsp.burst(rng, 250, 900, 0.04, 0.001), 0.001, 0.5 * depth),
        (dsp.burst(rng, 2500, 10000, 0.01, 0.0002), 0, 0.35),
    )
    up = cap.strike(rng, 0.5)
    return _peaks((down, 0.0, 1.0), (up, rng.uniform(0.055, 0.1), 0.35))


def _typing(p: Parameters, rng: np.random.Generator) -> Waveform:
    keys = [_key_sound(rng, p["f0_hz"] * rng.uniform(0.8, 1.25), p["depth"]) for _ in range(12)]
    gaps = rng.gamma(3.0, 1.0 / 3.0, int(4.2 * p["rate_hz"]) + 2) / p["rate_hz"]
    when = np.cumsum(gaps) - gaps[0]
    when = when[when < 3.9]
    return dsp.finish_steady(
        dsp.scatter(keys, when, rng.uniform(0.5, 1.0, len(when)), rng, float(when[-1]) + 0.2)
    )


def _typewriter(p: Parameters, rng: np.random.Generator) -> Waveform:
    keys = []
    for _ in range(8):
        arm = make_body(
            p["f0_hz"] * rng.uniform(0.85, 1.2),
            bodies.BAR[:6] ** 0.8,
            STEEL.damped(55.0),
            rng,
            longest_s=0.08,
        )
        platen = dsp.burst(rng, 300, 3500, 0.04, 0.0003)
        lever = dsp.burst(rng, 1500, 7000, 0.015)
        keys.append(_peaks((lever, 0, 0.2), (arm.strike(rng, 0.9), 0.03, 0.7), (platen, 0.03, 0.9)))
    gaps = rng.gamma(5.0, 0.2, int(4.2 * p["rate_hz"]) + 2) / p["rate_hz"]
    when = np.cumsum(gaps) - gaps[0]
    when = when[when < 3.6]
    mix = dsp.scatter(keys, when, rng.uniform(0.7, 1.0, len(when)), rng)
    if p["bell"] > 0.6:
        bell = make_body(
            2600.0 * rng.uniform(0.8, 1.3),
            bodies.CUP[:5],
            bodies.BRASS.damped(3.0),
            rng,
            longest_s=0.9,
        )
        mix = dsp.place(
            [mix, 0.35 * dsp.unit_peak(bell.strike(rng, 0.5))], [0, float(when[-1]) + 0.05]
        )
    return dsp.finish(mix, fade_out_s=0.03)


def _mouse_click(p: Parameters, rng: np.random.Generator) -> Waveform:
    switch = make_body(p["f0_hz"], np.array([1.0, 1.7, 2.6, 3.9]), PLASTIC.damped(1.4), rng)
    down = _peaks(
        (switch.strike(rng, 0.9, contact=0.3), 0, 1.0),
        (dsp.burst(rng, 3000, 14000, 0.006, 0.0001), 0, 0.6),
    )
    up = _peaks(
        (switch.strike(rng, 0.7, contact=0.3), 0, 1.0),
        (dsp.burst(rng, 4000, 15000, 0.004, 0.0001), 0, 0.6),
    )
    sounds, starts, gains = [], [], []
    for click in range(round(p["count"])):
        at = click * rng.uniform(0.17, 0.21)
        sounds += [down, up]
        starts += [at, at + p["held_s"]]
        gains += [1.0, 0.6]
    return dsp.finish(dsp.place(sounds, starts, np.array(gains)))


def _pen(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(4.0)
    # speed peaks within each stroke; the tip lifts between words
    phase = np.cumsum(p["rate_hz"] * _course(n, rng, 3.0, 0.35)) / SAMPLE_RATE
    speed = np.abs(np.sin(np.pi * phase)) ** 1.2
    word = (dsp.drift(n, 1.6, rng) > -0.75).astype(float)
    word = dsp.lowpass(word, 40, 1)
    scratch = dsp.moving_noise(p["grit_hz"] * (0.5 + speed), 1.6, rng, 6) * speed * word
    taps = dsp.scatter(
        [dsp.burst(rng, 700, 5000, 0.012) for _ in range(6)],
        np.flatnonzero(np.diff(np.floor(phase)) > 0) / SAMPLE_RATE,
        rng.uniform(0.2, 1.0),
        rng,
        4.0,
    )
    table = dsp.resonance(scratch, rng.uniform(350, 700), 3.0)
    return dsp.finish(_mix((scratch, 1.0), (table, 0.25), (taps * word, 0.12)))


def _paper_crumple(p: Parameters, rng: np.random.Generator) -> Waveform:
    length = p["duration_s"]
    n = dsp.num_samples(length)
    folds = _snaps(rng, 50, 900.0, 9000.0, (0.003, 0.025))
    # folding energies follow a power law: few loud buckles among many faint ones
    count = int(length * 90.0 * 4.0 ** p["intensity"])
    when = np.sort(rng.random(count)) * length
    squeeze = np.interp(
        when, np.linspace(0, length, n), _course(n, rng, 4.0, 0.7) * dsp.hump(n, 0.5)
    )
    gain = (1.0 - rng.random(count)) ** -0.5
    mix = dsp.scatter(folds, when, np.minimum(gain, 8.0) * squeeze, rng)
    rub = dsp.noise_band(n, rng, 2000, 11000) * dsp.hump(n, 0.7) * _course(n, rng, 9.0, 0.5)
    return dsp.finish(_mix((mix, 1.0), (rub, 0.15)))


def _paper_tear(p: Parameters, rng: np.random.Generator) -> Waveform:
    length = p["duration_s"]
    n = dsp.num_samples(length)
    speed = dsp.contour(n, [(0, 0.4), (0.2, 0.8), (0.8, 1.2), (1, 0.7)]) * _course(
        n, rng, 12.0, 0.3
    )
    fibres = np.cumsum(speed * 420.0 / length**0.5) / SAMPLE_RATE
    count = int(fibres[-1])
    when = np.searchsorted(fibres, np.arange(count) + rng.uniform(-0.6, 0.6, count)).clip(0, n - 1)
    force = np.zeros(n)
    np.add.at(force, when, rng.exponential(1.0, count))
    snap = dsp.burst(rng, p["grit_hz"] / 2.5, 3.0 * p["grit_hz"], 0.007, 0.0001)
    rip = dsp.resonate(force, snap)
    hiss = dsp.noise_band(n, rng, 0.7 * p["grit_hz"], 14000) * speed
    return dsp.finish(_mix((rip, 1.0), (hiss, 0.5)))


def _page_turn(p: Parameters, rng: np.random.Generator) -> Waveform:
    length = p["duration_s"]
    n = dsp.num_samples(length)
    swish = dsp.moving_noise(
        dsp.contour(n, [(0, 2500), (0.4, 5000), (0.8, 3000), (1, 1500)]) * (0.5 + p["crisp"]),
        2.0,
        rng,
        7,
    )
    swish *= dsp.contour(n, [(0, 0), (0.15, 0.4), (0.4, 0.25), (0.75, 1), (1, 0)]) * _course(
        n, rng, 60.0, 0.5
    )
    folds = _snaps(rng, 20, 1200.0, 7000.0, (0.004, 0.02))
    crackle = dsp.scatter(folds, rng.random(int(14 + 30 * p["crisp"])) * length, 1.0, rng)
    flap = dsp.burst(rng, 150, 1200, 0.07, 0.004)
    return dsp.finish(_peaks((swish, 0, 1.0), (crackle, 0, 0.3), (flap, 0.75 * length, 0.3)))


def _cards(p: Parameters, rng: np.random.Generator) -> Waveform:
    length = p["duration_s"]
    n = dsp.num_samples(length)
    speed = dsp.contour(n, [(0, 0.5), (0.5, 1.0), (1.0, 1.5)])
    flips = np.cumsum(speed * 52.0 / length) / SAMPLE_RATE / float(np.mean(speed))
    when = np.searchsorted(
        flips, np.arange(int(flips[-1])) * 1.0 + rng.uniform(-0.3, 0.3, int(flips[-1]))
    )
    card = [dsp.burst(rng, 900, 9000, rng.uniform(0.008, 0.016), 0.0003) for _ in range(10)]
    riffle = dsp.scatter(card, when.clip(0, n) / SAMPLE_RATE, rng.uniform(0.5, 1.0, len(when)), rng)
    m = dsp.num_samples(0.35)
    slide = dsp.noise_band(m, rng, 1200, 8000) * dsp.hump(m) * _course(m, rng, 40, 0.4)
    tap = dsp.burst(rng, 250, 3500, 0.04, 0.0006)
    gap = 0.03 + 0.3 * p["slack"]
    return dsp.finish(
        _peaks((riffle, 0, 1.0), (slide, length + gap, 0.3), (tap, length + gap + 0.38, 0.5))
    )


def _dice(p: Parameters, rng: np.random.Generator) -> Waveform:
    cubes = []
    for _ in range(10):
        body = make_body(
            p["f0_hz"] * rng.uniform(0.8, 1.25),
            np.array([1.0, 1.4, 1.9, 2.8, 3.7]),
            PLASTIC.damped(1.3),
            rng,
        )
        cubes.append(body.strike(rng, rng.uniform(0.5, 1.0), contact=0.4))
    table = make_body(rng.uniform(140, 260), bodies.plate(24, 0.7), WOOD, rng, slope=-0.6)
    hit_times, gains = [], []
    for _ in range(round(p["count"])):
        hits, speed = dsp.bounces(rng.uniform(0.10, 0.2), rng.uniform(0.62, 0.76), 0.014)
        jitter = 1.0 + 0.2 * rng.uniform(-1, 1, len(hits))
        hit_times.append(rng.uniform(0, 0.07) + hits * jitter)
        gains.append(speed * rng.uniform(0.6, 1.0, len(hits)))
    when, gain = np.concatenate(hit_times), np.concatenate(gains)
    clicks = dsp.scatter([dsp.unit_peak(c) for c in cubes], when, gain, rng)
    knocks = dsp.scatter([dsp.unit_peak(table.strike(rng, 0.7)) for _ in range(4)], when, gain, rng)
    return dsp.finish(dsp.place([clicks, knocks], [0, 0], [1.0, 0.6]))


# Nature and materials


def _leaves_rustle(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(_STEADY_S)
    gust = np.clip(
        0.6
        + 0.5 * np.sin(2 * np.pi * p["rate_hz"] * dsp.times(n) + rng.uniform(0, 6))
        + 0.25 * dsp.drift(n, 3.0, rng),
        0.05,
        2.0,
    )
    rate = 150.0 * 10.0 ** p["intensity"]
    when = dsp.arrivals(rate, _STEADY_S, rng)
    gain = (
        rng.lognormal(-1.0, 0.7, len(when)) * gust[(when * SAMPLE_RATE).astype(int).clip(0, n - 1)]
    )
    leaves = dsp.scatter(_snaps(rng, 28, 1800.0, 9500.0, (0.006, 0.04)), when, gain, rng, _STEADY_S)
    wash = dsp.bandpass(dsp.tilted(n, rng, -2.0), 1500, 10000, 1) * gust
    return dsp.finish_steady(_mix((leaves, 1.0), (wash, 0.2 + 0.5 * p["intensity"])))


def _sand(p: Parameters, rng: np.random.Generator) -> Waveform:
    length = p["duration_s"]
    n = dsp.num_samples(length)
    flow = dsp.contour(n, [(0, 0), (0.08, 1), (0.85, 0.8), (1, 0)]) * _course(n, rng, 7.0, 0.15)
    bed = dsp.bandpass(dsp.tilted(n, rng, -1.0), p["low_hz"], 14000, 1)
    when = dsp.arrivals(900.0, length, rng)
    ticks = dsp.scatter(
        _snaps(rng, 28, 2500.0, 12000.0, (0.001, 0.005)),
        when,
        rng.exponential(0.5, len(when)),
        rng,
        length,
    )
    return dsp.finish(_mix((bed * flow, 1.0), (ticks * flow, 0.4)))


def _gravel_fall(p: Parameters, rng: np.random.Generator) -> Waveform:
    length = p["duration_s"]
    low = 1800.0 * 2.0 ** (-1.6 * p["size"])
    stones = _chips(rng, 50, low, 4.5 * low, (0.006, 0.022))
    count = int(length * (500.0 - 330.0 * p["size"]))
    when = rng.beta(1.5, 1.8, count) * length
    mix = dsp.scatter(stones, when, np.minimum(rng.lognormal(-0.8, 0.8, count), 2.0), rng)
    n = dsp.num_samples(length)
    bed = dsp.noise_band(n, rng, 250, 4000) * dsp.hump(n)
    return dsp.finish(_mix((mix, 1.0), (bed, 0.25)))


def _bubble_wrap(p: Parameters, rng: np.random.Generator) -> Waveform:
    pops = []
    for _ in range(10):
        n = dsp.num_samples(0.03)
        thump = dsp.sine(
            p["f0_hz"] * rng.uniform(0.85, 1.2) * (1 + dsp.decay(n, 0.01)), n
        ) * dsp.decay(n, 0.025)
        pops.append(_peaks((thump, 0, 0.8), (dsp.burst(rng, 1500, 12000, 0.012, 0.0001), 0, 0.8)))
    when = dsp.arrivals(p["rate_hz"], 3.6, rng)
    crinkle = dsp.scatter(
        _snaps(rng, 20, 2000, 8000, (0.004, 0.02)), dsp.arrivals(20.0, 3.6, rng), 0.06, rng
    )
    return dsp.finish(
        dsp.place([dsp.scatter(pops, when, rng.uniform(0.6, 1.0, len(when)), rng), crinkle], [0, 0])
    )


def _zipper(p: Parameters, rng: np.random.Generator) -> Waveform:
    length = p["duration_s"]
    n = dsp.num_samples(length)
    rise = {
        "opening": [(0, 0.6), (0.6, 1.1), (1, 1.25)],
        "closing": [(0, 0.9), (0.5, 1.0), (1, 1.5)],
    }[p["kind"]]
    speed = dsp.contour(n, rise) * _course(n, rng, 6.0, 0.12)
    teeth = np.cumsum(speed * p["teeth"] / length) / SAMPLE_RATE
    count = int(teeth[-1])
    when = np.searchsorted(teeth, np.arange(count) + 0.15 * rng.uniform(-1, 1, count)).clip(
        0, n - 1
    )
    force = np.zeros(n)
    np.add.at(force, when, rng.uniform(0.6, 1.0, count) * speed[when])
    slider = make_body(
        rng.uniform(1400, 2600),
        np.array([1.0, 1.7, 2.5, 3.9, 5.1]),
        PLASTIC.damped(1.5),
        rng,
        slope=0.4,
    )
    buzz = dsp.resonate(
        dsp.resonate(force, dsp.burst(rng, 1500, 14000, 0.003, 0.0001)), slider.response()
    )
    cloth = dsp.noise_band(n, rng, 1500, 9000) * speed
    stop = dsp.burst(rng, 1200, 9000, 0.02, 0.0003)
    body = _mix((buzz, 1.0), (cloth, 0.3))
    return dsp.finish(_peaks((body, 0, 1.0), (stop, length, 0.4)))


def _velcro(p: Parameters, rng: np.random.Generator) -> Waveform:
    length = p["duration_s"]
    n = dsp.num_samples(length)
    speed = dsp.contour(n, [(0, 0.3), (0.3, 0.8), (0.9, 1.4), (1, 0.6)]) * _course(
        n, rng, 25.0, 0.4
    )
    hooks = rng.random(int(2600 * length**0.5))
    when = np.interp(np.sort(hooks), np.cumsum(speed) / np.sum(speed), np.arange(n) / SAMPLE_RATE)
    grains = _snaps(rng, 28, 1200.0, p["grit_hz"] * 1.6, (0.0015, 0.006))
    rip = dsp.scatter(grains, when, rng.exponential(0.6, len(when)), rng)
    return dsp.finish(rip)


def _broom(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(4.0)
    phase = np.mod(p["rate_hz"] * dsp.times(n), 1.0)
    stroke = np.interp(phase, [0, 0.12, 0.45, 0.6, 1.0], [0.05, 0.9, 1.0, 0.05, 0.05])
    sweep = (
        dsp.moving_noise(p["grit_hz"] * (0.5 + stroke), 2.2, rng, 7)
        * stroke
        * _course(n, rng, 35, 0.35)
    )
    grit = dsp.scatter(
        _snaps(rng, 20, 1500, 8000, (0.002, 0.01)), dsp.arrivals(120.0, 4.0, rng), 1.0, rng, 4.0
    )
    return dsp.finish_steady(_mix((sweep, 1.0), (grit * stroke, 0.25)))


def _sandpaper(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(4.0)
    speed = np.abs(np.sin(np.pi * p["rate_hz"] * dsp.times(n))) ** 0.7
    rub = (
        dsp.moving_noise(p["grit_hz"] * (0.3 + speed), 1.8, rng, 7)
        * speed
        * _course(n, rng, 60, 0.2)
    )
    block = make_body(rng.uniform(250, 500), bodies.box(16, rng), WOOD, rng, slope=-0.2)
    return dsp.finish_steady(_mix((rub, 1.0), (dsp.resonate(rub, block.response())[:n], 0.5)))


def _cloth(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(p["duration_s"])
    moves = np.clip(0.4 + 0.8 * dsp.drift(n, p["rate_hz"], rng), 0.02, 2.5) * dsp.hump(n, 0.3)
    rub = dsp.moving_noise(1800.0 * (0.5 + moves), 2.6, rng, 7) * moves * _course(n, rng, 50, 0.3)
    flap = dsp.lowpass(dsp.white(n, rng), 350, 1) * moves**2
    return dsp.finish(_mix((rub, 1.0), (flap, 0.5)))


def _chip_bag(p: Parameters, rng: np.random.Generator) -> Waveform:
    length = p["duration_s"]
    n = dsp.num_samples(length)
    count = int(length * 120.0 * 4.0 ** p["intensity"])
    when = np.sort(rng.random(count)) * length
    squeeze = np.interp(when, np.linspace(0, length, n), _course(n, rng, 3.5, 0.9))
    foil = _chips(rng, 50, 2200.0, 12000.0, (0.002, 0.012))
    mix = dsp.scatter(foil, when, np.minimum((1 - rng.random(count)) ** -0.55, 8.0) * squeeze, rng)
    return dsp.finish(dsp.fade(mix, 0.002, 0.03))


def _scissors(p: Parameters, rng: np.random.Generator) -> Waveform:
    sounds, starts = [], []
    blade = make_body(p["f0_hz"], bodies.BAR[:6], STEEL.damped(14.0), rng, slope=0.2, longest_s=0.3)
    for index in range(round(p["count"])):
        n = dsp.num_samples(0.45 / p["rate_hz"])
        slide = dsp.moving_noise(np.linspace(3000, 8000, n), 1.5, rng, 5) * dsp.contour(
            n, [(0, 0.1), (0.9, 1), (1, 0)]
        )
        wet = dsp.unit_peak(dsp.resonate(slide, blade.response())) + dsp.unit_peak(
            np.append(slide, np.zeros(len(blade.response()) - 1))
        )
        sounds += [0.4 * wet, dsp.unit_peak(blade.strike(rng, 0.6))]
        starts += [index / p["rate_hz"], index / p["rate_hz"] + 0.42 / p["rate_hz"]]
    return dsp.finish(dsp.place(sounds, starts))


_INTENSITY = Range("intensity", 0.0, 1.0, attribute="intensity")
_SIZE = Range("size", 0.0, 1.0, attribute="size")
_STEPS = Range("rate_hz", 1.1, 3.4, log=True, attribute="rate")
_WEIGHT = Range("weight", 0.0, 1.0, attribute="intensity")


def _pitch(low: float, high: float) -> Range:
    return Range("f0_hz", low, high, log=True, attribute="pitch")


def _length(low: float, high: float) -> Range:
    return Range("duration_s", low, high, log=True, attribute="length")


def _rate(low: float, high: float) -> Range:
    return Range("rate_hz", low, high, log=True, attribute="rate")


def _grit(low: float, high: float) -> Range:
    return Range("grit_hz", low, high, log=True, attribute="brightness")


def _count(low: float, high: float) -> Range:
    return Range("count", low, high, attribute="count")


MODELS: tuple[SoundModel, ...] = (
    SoundModel(
        "footsteps",
        "footsteps",
        (Choice("surface", _SURFACES, "surface"), _STEPS, _WEIGHT, _length(1.8, 3.9)),
        _footsteps,
        ("walking", "steps", "person walking"),
        _GAIT,
        steady=True,
    ),
    SoundModel(
        "running footsteps",
        "footsteps",
        (Choice("surface", _SURFACES, "surface"), _rate(2.5, 4.2), _WEIGHT),
        _running,
        ("running", "person running", "sprinting"),
        _GAIT,
        steady=True,
    ),
    SoundModel(
        "walking in snow",
        "footsteps",
        (_STEPS, _WEIGHT),
        _snow_walk,
        ("snow footsteps", "crunching snow"),
        _GAIT,
        steady=True,
    ),
    SoundModel(
        "high heels",
        "footsteps",
        (_rate(1.3, 3.2), _pitch(600, 1600)),
        _high_heels,
        ("high heels walking", "heels clicking"),
        _GAIT,
        steady=True,
    ),
    SoundModel(
        "marching",
        "footsteps",
        (
            Choice("surface", ("gravel", "concrete", "wood", "grass", "snow", "metal"), "surface"),
            Range("count", 4, 24, log=True, attribute="count"),
            _rate(1.6, 2.4),
        ),
        _marching,
        ("soldiers marching", "marching troops"),
        _GAIT,
        steady=True,
    ),
    SoundModel(
        "horse hooves",
        "footsteps",
        (
            Choice("pattern", tuple(_GAITS), "pattern"),
            Choice("surface", tuple(_GROUNDS), "surface"),
            Range("rate_scale", 0.85, 1.2, attribute="rate"),
        ),
        _horse,
        ("horse galloping", "horse trotting", "hoofbeats"),
        _GAIT,
        steady=True,
    ),
    SoundModel(
        "rain",
        "weather",
        (
            Choice(
                "surface", ("leaves", "tin roof", "window", "pavement", "tent", "puddle"), "surface"
            ),
            _INTENSITY,
        ),
        _rain,
        ("rainfall", "raining", "rain falling"),
        _FARNELL,
        steady=True,
    ),
    SoundModel(
        "hail",
        "weather",
        (_INTENSITY, _SIZE),
        _hail,
        ("hailstorm", "hailstones on a roof"),
        _COOK,
        steady=True,
    ),
    SoundModel(
        "applause",
        "people",
        (Range("count", 2, 120, log=True, attribute="count"), _rate(2.6, 5.2)),
        _applause,
        ("clapping audience", "crowd clapping", "audience applause"),
        _CLAPS,
        steady=True,
    ),
    SoundModel(
        "hand clap",
        "people",
        (Range("centre_hz", 700, 2200, log=True, attribute="pitch"), _INTENSITY),
        _hand_clap,
        ("single clap", "one clap"),
        _CLAPS,
    ),
    SoundModel(
        "slow clap",
        "people",
        (_rate(0.8, 4.0), Range("centre_hz", 700, 2000, log=True, attribute="pitch")),
        _slow_clap,
        ("one person clapping", "clapping hands"),
        _CLAPS,
        steady=True,
    ),
    SoundModel(
        "finger snap",
        "people",
        (_pitch(1300, 3000), _INTENSITY),
        _finger_snap,
        ("snapping fingers", "finger click"),
        _CLAPS,
    ),
    SoundModel(
        "eating an apple",
        "food",
        (_count(1.6, 5.4), Range("crisp", 0.0, 1.0, attribute="brightness"), _rate(1.5, 2.6)),
        _crunch_food,
        ("crunching", "biting an apple", "eating chips", "crunch"),
        _COOK,
    ),
    SoundModel(
        "fire crackling",
        "fire",
        (Range("rate_hz", 12, 130, log=True, attribute="intensity"), _SIZE),
        _fire,
        ("campfire", "fireplace", "bonfire"),
        _FARNELL,
        steady=True,
    ),
    SoundModel(
        "firework crackle",
        "fire",
        (_rate(25, 160), _length(0.9, 3.2)),
        _firework_crackle,
        ("fireworks", "firecracker", "crackling fireworks"),
        _COOK,
    ),
    SoundModel(
        "sizzling",
        "food",
        (_INTENSITY, Range("low_hz", 1500, 4500, log=True, attribute="brightness")),
        _sizzle,
        ("frying pan", "frying", "sizzling bacon"),
        _COOK,
        steady=True,
    ),
    SoundModel(
        "match strike",
        "fire",
        (_length(0.7, 2.2), _INTENSITY),
        _match,
        ("lighting a match", "striking a match"),
        _FARNELL,
    ),
    SoundModel(
        "popcorn",
        "food",
        (_rate(2, 28), Range("f0_hz", 400, 1100, log=True)),
        _popcorn,
        ("popcorn popping", "making popcorn"),
        _COOK,
        steady=True,
    ),
    SoundModel(
        "keyboard typing",
        "desk",
        (_rate(2.5, 13), _pitch(700, 2200), Range("depth", 0.0, 1.0)),
        _typing,
        ("typing", "computer keyboard", "typing on a keyboard"),
        _COOK,
        steady=True,
    ),
    SoundModel(
        "typewriter",
        "desk",
        (_rate(2.0, 9.0), Range("f0_hz", 1300, 2800, log=True), Range("bell", 0.0, 1.0)),
        _typewriter,
        ("typing on a typewriter", "old typewriter"),
        _COOK,
    ),
    SoundModel(
        "mouse click",
        "desk",
        (
            _pitch(1700, 4200),
            Range("held_s", 0.05, 0.14, log=True, attribute="length"),
            _count(0.6, 2.4),
        ),
        _mouse_click,
        ("computer mouse", "clicking a mouse", "button click"),
        _COOK,
    ),
    SoundModel(
        "pen writing",
        "desk",
        (_rate(2.5, 8.0), _grit(1800, 5500)),
        _pen,
        ("writing on paper", "pencil writing", "handwriting"),
        _FARNELL,
        steady=True,
    ),
    SoundModel(
        "paper crumple",
        "paper",
        (_length(0.5, 2.8), _INTENSITY),
        _paper_crumple,
        ("crumpling paper", "crinkling paper"),
        _COOK,
    ),
    SoundModel(
        "paper tear",
        "paper",
        (_length(0.25, 2.0), _grit(1800, 4500)),
        _paper_tear,
        ("tearing paper", "ripping paper"),
        _COOK,
    ),
    SoundModel(
        "page turn",
        "paper",
        (_length(0.3, 1.0), Range("crisp", 0.0, 1.0, attribute="brightness")),
        _page_turn,
        ("turning a page", "book page"),
        _FARNELL,
    ),
    SoundModel(
        "card shuffle",
        "paper",
        (_length(0.4, 1.6), Range("slack", 0.0, 1.0)),
        _cards,
        ("shuffling cards", "riffle shuffle"),
        _COOK,
    ),
    SoundModel(
        "dice roll",
        "small objects",
        (_count(0.6, 5.4), _pitch(1500, 3600)),
        _dice,
        ("rolling dice", "dice on a table"),
        _COOK,
    ),
    SoundModel(
        "leaves rustling",
        "nature",
        (_INTENSITY, Range("rate_hz", 0.25, 1.2, log=True, attribute="rate")),
        _leaves_rustle,
        ("rustling leaves", "bushes rustling", "foliage"),
        _FARNELL,
        steady=True,
    ),
    SoundModel(
        "sand pouring",
        "nature",
        (_length(0.7, 3.8), Range("low_hz", 1500, 5000, log=True, attribute="brightness")),
        _sand,
        ("pouring sand", "hourglass", "pouring salt"),
        _COOK,
    ),
    SoundModel(
        "gravel falling",
        "nature",
        (_SIZE, _length(0.6, 3.4)),
        _gravel_fall,
        ("pouring gravel", "pebbles falling", "debris"),
        _COOK,
    ),
    SoundModel(
        "bubble wrap",
        "small objects",
        (_rate(1.2, 14), _pitch(450, 1300)),
        _bubble_wrap,
        ("popping bubble wrap",),
        _COOK,
    ),
    SoundModel(
        "zipper",
        "cloth",
        (
            _length(0.25, 1.3),
            Range("teeth", 50, 160, log=True),
            Choice("kind", ("opening", "closing"), "kind"),
        ),
        _zipper,
        ("zip", "zipping up a jacket"),
        _FARNELL,
    ),
    SoundModel(
        "velcro",
        "cloth",
        (_length(0.25, 1.4), _grit(3500, 8000)),
        _velcro,
        ("velcro rip", "opening velcro"),
        _COOK,
    ),
    SoundModel(
        "sweeping broom",
        "household",
        (_rate(0.8, 2.6), _grit(1500, 4500)),
        _broom,
        ("broom", "sweeping the floor"),
        _FARNELL,
        steady=True,
    ),
    SoundModel(
        "sanding wood",
        "household",
        (_rate(1.5, 6.0), _grit(1800, 6000)),
        _sandpaper,
        ("sandpaper", "sanding"),
        _FARNELL,
        steady=True,
    ),
    SoundModel(
        "cloth rustle",
        "cloth",
        (_rate(2.0, 10.0), _length(0.5, 3.2)),
        _cloth,
        ("clothes rustling", "fabric movement"),
        _FARNELL,
    ),
    SoundModel(
        "chip bag",
        "food",
        (_INTENSITY, _length(0.7, 3.2)),
        _chip_bag,
        ("crinkling a bag", "plastic bag rustling", "crisp packet"),
        _COOK,
    ),
    SoundModel(
        "scissors",
        "household",
        (_rate(1.2, 5.0), _count(0.6, 5.4), Range("f0_hz", 1400, 3400, log=True)),
        _scissors,
        ("scissors cutting", "snipping"),
        _FARNELL,
    ),
)
