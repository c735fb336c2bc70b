"""Drums, cymbals and hand percussion.

Source:
    Fletcher and Rossing, "The Physics of Musical Instruments", chapters 18 to 20; Cook 1997 for
    shaken instruments; Farnell, "Designing Sound"; Peltola et al. 2007 for hand claps.
"""

from __future__ import annotations

import numpy as np

from clipsynth_training.data.procedural import bodies, dsp
from clipsynth_training.data.procedural.bodies import (
    BRASS,
    HARDWOOD,
    MEMBRANE,
    WOOD,
    Material,
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

_ROSSING = "Fletcher and Rossing, The Physics of Musical Instruments, chapters 18 to 20"
_COOK = "Cook 1997, Physically Informed Sonic Modeling, CMJ 21(3)"
_CLAPS = "Peltola, Erkut, Cook and Valimaki 2007, Synthesis of hand clapping sounds"

INTENSITY = Range("intensity", 0.15, 1.0, attribute="intensity")
BRIGHTNESS = Range("brightness", 0.1, 1.0, attribute="brightness")


def _pitch(low: float, high: float) -> Range:
    return Range("f0_hz", low, high, log=True, attribute="pitch")


def _ring(low: float, high: float) -> Range:
    return Range("ring_s", low, high, log=True, attribute="length")


def _head(
    f0_hz: float,
    ring_s: float,
    strength: float,
    rng: np.random.Generator,
    *,
    bend: float = 0.06,
    modes: int = 14,
    slope: float = 0.7,
    centre: float = 0.3,
    cutoff_hz: float = 1500.0,
) -> Waveform:
    """Return a blow on a drumhead, whose pitch falls as its tension relaxes.

    Args:
        f0_hz: Pitch once relaxed.
        ring_s: Seconds in which the lowest mode falls by 60 dB.
        strength: Of the blow: level, brightness and how far the pitch bends.
        rng: Where the blow lands.
        bend: Relative rise of pitch at the hardest blow.
        modes: How many modes of the membrane sound.
        slope: How much faster high modes die.
        centre: 1 for a blow at the centre, which excites few high modes.
        cutoff_hz: Where the stick's softness takes over.
    """
    n = dsp.num_samples(ring_s)
    glide = 1.0 + bend * strength * dsp.decay(n, 0.35 * ring_s)
    base = np.cumsum(f0_hz * glide) * (2 * np.pi / SAMPLE_RATE)
    out = np.zeros(n)
    cutoff = cutoff_hz * 3.0**strength
    ratios = MEMBRANE[:modes] * (1 + 0.01 * rng.standard_normal(modes))
    ratios[0] = 1.0
    for index, ratio in enumerate(ratios):
        if index == 0:
            gain = 1.0
        else:
            gain = rng.uniform(0.3, 0.8) * (1.0 - 0.8 * centre) * rng.choice([-1.0, 1.0])
            gain /= ratio**0.6
        gain /= 1.0 + (ratio * f0_hz / cutoff) ** 2
        length = ring_s / ratio**slope
        m = min(n, dsp.num_samples(length))
        out[:m] += gain * np.sin(ratio * base[:m]) * dsp.decay(m, length)
    return out


def _stick(
    rng: np.random.Generator, strength: float, low: float, high: float, t60: float
) -> Waveform:
    return dsp.unit_peak(dsp.burst(rng, low, high * 2.0 ** (strength - 0.5), t60, 0.0002))


def _kick(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(p["ring_s"])
    f0 = p["f0_hz"]
    sweep = f0 * (1.0 + 1.2 * dsp.decay(n, 0.10) + 2.5 * dsp.decay(n, 0.025))
    shell = dsp.sine(sweep, n) * dsp.attack_decay(n, 0.002, p["ring_s"])
    head = _head(1.9 * f0, 0.5 * p["ring_s"], 0.5, rng, centre=0.8)
    beater = _stick(rng, p["brightness"], 400, 3500, 0.02)
    air = dsp.unit_peak(dsp.burst(rng, 60, 400, 0.1, 0.002))
    sounds = [shell, head, beater, air]
    return dsp.finish(
        dsp.place(sounds, [0, 0, 0, 0], [1.0, 0.12, 0.08 + 0.4 * p["brightness"], 0.15])
    )


def _snare_hit(
    f0: float, ring: float, wires: float, strength: float, rng: np.random.Generator
) -> Waveform:
    head = dsp.unit_peak(_head(f0, ring, strength, rng, bend=0.08, modes=12, centre=0.4))
    second = dsp.unit_peak(_head(1.62 * f0, 0.7 * ring, strength, rng, modes=6))
    low = dsp.burst(rng, 900, 6000, 0.20 + 0.3 * wires, 0.001)
    high = dsp.burst(rng, 4000, 16000, 0.15 + 0.28 * wires, 0.001)
    buzz = dsp.place([low, high], [0.001, 0.001], [0.6, 0.55])
    stick = _stick(rng, strength, 1000, 12000, 0.012)
    sounds = [head, second, dsp.unit_peak(buzz), stick]
    mix = dsp.place(sounds, [0, 0, 0, 0], [0.75, 0.3, 0.35 + 0.6 * wires, 0.45])
    return mix * (0.15 + 0.85 * strength)


def _snare(p: Parameters, rng: np.random.Generator) -> Waveform:
    return dsp.finish(_snare_hit(p["f0_hz"], 0.28, p["wires"], p["intensity"], rng))


def _drum_roll(p: Parameters, rng: np.random.Generator) -> Waveform:
    hits = [_snare_hit(p["f0_hz"], 0.2, 0.5, rng.uniform(0.55, 0.75), rng) for _ in range(8)]
    length = p["duration_s"]
    when = dsp.beats(p["rate_hz"], length, 0.12, rng)
    course = {"steady": (0.8, 0.8), "growing": (0.15, 1.0), "fading": (1.0, 0.12)}[p["pattern"]]
    gains = np.linspace(*course, len(when)) * rng.uniform(0.75, 1.0, len(when))
    return dsp.finish(dsp.scatter(hits, when, gains, rng))


def _tom(p: Parameters, rng: np.random.Generator) -> Waveform:
    head = dsp.unit_peak(_head(p["f0_hz"], p["ring_s"], p["intensity"], rng, bend=0.18, centre=0.5))
    stick = _stick(rng, p["intensity"], 500, 6000, 0.015)
    return dsp.finish(dsp.place([head, stick], [0, 0], [1.0, 0.1 + 0.25 * p["intensity"]]))


def _hand_drum(p: Parameters, rng: np.random.Generator, slap_hz: float, cavity: float) -> Waveform:
    strength = p["intensity"]
    head = dsp.unit_peak(
        _head(
            p["f0_hz"],
            p["ring_s"],
            strength,
            rng,
            bend=0.05,
            modes=18,
            centre=0.1,
            cutoff_hz=slap_hz,
        )
    )
    skin = dsp.unit_peak(dsp.burst(rng, 600, slap_hz * 3.0, 0.03, 0.0004))
    n = dsp.num_samples(0.2)
    air = dsp.sine(0.55 * p["f0_hz"], n) * dsp.decay(n, 0.2)
    return dsp.finish(dsp.place([head, skin, air], [0, 0, 0], [1.0, 0.08 + 0.5 * strength, cavity]))


def _bongo(p: Parameters, rng: np.random.Generator) -> Waveform:
    return _hand_drum(p, rng, 2600.0, 0.05)


def _conga(p: Parameters, rng: np.random.Generator) -> Waveform:
    return _hand_drum(p, rng, 1700.0, 0.25)


def _djembe(p: Parameters, rng: np.random.Generator) -> Waveform:
    strength = p["intensity"]
    kind = p["kind"]
    bass = {"bass": 1.0, "tone": 0.15, "slap": 0.05}[kind]
    f0 = p["f0_hz"]
    n = dsp.num_samples(0.5)
    cavity = dsp.sine(f0 * (1 + 0.1 * dsp.decay(n, 0.1)), n) * dsp.decay(n, 0.45)
    tone = dsp.unit_peak(
        _head(4.2 * f0, 0.3, strength, rng, modes=16, cutoff_hz=2500.0, centre=0.1)
    )
    slap = dsp.unit_peak(dsp.burst(rng, 900, 9000, 0.07, 0.0003))
    gains = [
        bass,
        {"bass": 0.12, "tone": 1.0, "slap": 0.55}[kind],
        {"bass": 0.05, "tone": 0.12, "slap": 0.8}[kind] * (0.4 + 0.6 * strength),
    ]
    return dsp.finish(dsp.place([cavity, tone, slap], [0, 0, 0], gains))


def _timpani(p: Parameters, rng: np.random.Generator) -> Waveform:
    # air loading draws the radial modes of a kettle towards 1 : 1.5 : 1.98 : 2.44
    ratios = np.array([0.85, 1.0, 1.5, 1.98, 2.44, 2.9, 3.4, 4.1])
    t60 = p["ring_s"] * np.array([0.25, 1.0, 0.85, 0.7, 0.5, 0.4, 0.3, 0.2])
    soft = 1.0 / (1.0 + (ratios * p["f0_hz"] / (280.0 + 700.0 * p["intensity"])) ** 2)
    gains = np.array([0.5, 1.0, 0.8, 0.55, 0.4, 0.3, 0.25, 0.2]) * soft * rng.uniform(0.8, 1.0, 8)
    sound = dsp.unit_peak(dsp.ring(p["f0_hz"] * ratios, t60, gains))
    thump = dsp.unit_peak(dsp.burst(rng, 50, 450 + 900 * p["intensity"], 0.09, 0.003))
    return dsp.finish(dsp.place([sound, thump], [0, 0], [1.0, 0.3]))


def _tabla(p: Parameters, rng: np.random.Generator) -> Waveform:
    # the loaded head of a tabla is nearly harmonic
    f0 = p["f0_hz"]
    ratios = np.array([1.0, 2.0, 3.01, 4.0, 5.03, 6.1])
    gains = np.array([0.55, 1.0, 0.6, 0.35, 0.25, 0.12]) * rng.uniform(0.7, 1.0, 6)
    n = dsp.num_samples(p["ring_s"])
    bend = 1.0 + p["bend"] * (1.0 - dsp.decay(n, 0.25))  # the heel of the hand slides
    phase = np.cumsum(f0 * bend) * (2 * np.pi / SAMPLE_RATE)
    out = np.zeros(n)
    for ratio, gain in zip(ratios, gains, strict=True):
        out += gain * np.sin(ratio * phase) * dsp.decay(n, p["ring_s"] / ratio**0.6)
    tap = dsp.unit_peak(dsp.burst(rng, 900, 9000, 0.02, 0.0002))
    return dsp.finish(dsp.place([dsp.unit_peak(out), tap], [0, 0], [1.0, 0.3]))


def _taiko(p: Parameters, rng: np.random.Generator) -> Waveform:
    head = dsp.unit_peak(
        _head(
            p["f0_hz"],
            p["ring_s"],
            p["intensity"],
            rng,
            bend=0.12,
            modes=20,
            centre=0.6,
            cutoff_hz=500,
        )
    )
    shell = make_body(rng.uniform(260, 420), bodies.box(14, rng), WOOD, rng, slope=-0.5)
    slap = dsp.unit_peak(dsp.burst(rng, 200, 1200 + 3000 * p["intensity"], 0.06, 0.0006))
    wood = dsp.unit_peak(shell.strike(rng, p["intensity"]))
    return dsp.finish(dsp.place([head, slap, wood], [0, 0, 0], [1.0, 0.3, 0.12]))


def _cymbal(
    low_hz: float,
    ring_s: float,
    brightness: float,
    rng: np.random.Generator,
    *,
    build_s: float,
    num_modes: int = 150,
    noise: float = 0.8,
) -> Waveform:
    """Return a cymbal: dense modes, and noise where they are too dense to be told apart.

    Energy moves from low modes to high ones just after the blow, so the high bands build up over
    ``build_s``; then they die first.
    """
    n = dsp.num_samples(min(ring_s, 4.05))
    frequency = low_hz * (1.0 + rng.uniform(0.0, 1.0, num_modes) ** 1.3 * (14_000.0 / low_hz))
    t60 = np.minimum(ring_s * (frequency / 1000.0).clip(0.6) ** -0.30, 4.05)
    gain = rng.uniform(0.2, 1.0, num_modes) * (frequency / 3000.0).clip(0.15) ** (-0.9 + brightness)
    phase = rng.uniform(0, 2 * np.pi, num_modes)
    out = dsp.level(dsp.ring(frequency, t60, gain, n / SAMPLE_RATE, phase))
    hiss = np.zeros(n)
    source = rng.standard_normal(n)
    for centre in (1600.0, 3000.0, 5200.0, 8000.0, 11500.0, 15500.0):
        band = dsp.bandpass(source, centre / 1.3, centre * 1.3, 1)
        share = (centre / 5000.0) ** (-1.0 + 1.5 * brightness)
        rise = build_s * (centre / 8000.0)
        envelope = dsp.attack_decay(n, max(rise, 0.0005), ring_s * (centre / 2000.0) ** -0.35)
        hiss += share * band * envelope
    hiss = dsp.level(hiss)
    return dsp.unit_peak(
        dsp.highpass(out * dsp.attack_decay(n, 0.001, 3 * ring_s) + noise * hiss, 250, 2)
    )


def _hihat_closed(p: Parameters, rng: np.random.Generator) -> Waveform:
    cymbal = _cymbal(p["f0_hz"], p["ring_s"], p["brightness"], rng, build_s=0.0)
    stick = _stick(rng, 0.6, 3000, 14000, 0.01)
    return dsp.finish(dsp.place([dsp.highpass(cymbal, 2500, 2), stick], [0, 0], [1.0, 0.3]))


def _hihat_open(p: Parameters, rng: np.random.Generator) -> Waveform:
    cymbal = dsp.highpass(
        _cymbal(p["f0_hz"], p["ring_s"], p["brightness"], rng, build_s=0.008), 1500, 2
    )
    # the halves touch and sizzle
    sizzle = 1.0 + 0.5 * np.abs(dsp.drift(len(cymbal), 220.0, rng))
    return dsp.finish(cymbal * sizzle)


def _crash(p: Parameters, rng: np.random.Generator) -> Waveform:
    cymbal = _cymbal(p["f0_hz"], p["ring_s"], p["brightness"], rng, build_s=0.05, noise=1.0)
    stick = _stick(rng, 0.6, 500, 8000, 0.03)
    return dsp.finish(dsp.place([cymbal, stick], [0, 0], [1.0, 0.25]), fade_out_s=0.03)


def _ride(p: Parameters, rng: np.random.Generator) -> Waveform:
    wash = _cymbal(p["f0_hz"], p["ring_s"], p["brightness"], rng, build_s=0.03, noise=0.6)
    ping_f = rng.uniform(2600, 4600, 7)
    ping = dsp.ring(ping_f, rng.uniform(0.3, 0.8, 7), rng.uniform(0.3, 1.0, 7))
    tick = _stick(rng, 0.8, 3000, 13000, 0.012)
    bell = 0.15 + 0.6 * p["bell"]
    return dsp.finish(
        dsp.place([wash, dsp.unit_peak(ping), tick], [0, 0, 0], [0.5, bell, 0.5]), fade_out_s=0.03
    )


def _one_clap(rng: np.random.Generator, centre_hz: float, t60_s: float) -> Waveform:
    body = dsp.burst(rng, centre_hz / 1.5, centre_hz * 1.5, t60_s, 0.0004)
    crack = dsp.burst(rng, 500, 14000, 0.35 * t60_s, 0.0002)
    return dsp.unit_peak(dsp.place([body, crack], [0, 0], [0.8, 0.5]))


def _drum_clap(p: Parameters, rng: np.random.Generator) -> Waveform:
    hands = round(p["count"])
    when = np.concatenate(
        [[0.0], np.sort(rng.uniform(0.004, 0.012 + 0.018 * p["spread"], hands - 1))]
    )
    claps = [
        _one_clap(rng, p["centre_hz"] * rng.uniform(0.8, 1.25), rng.uniform(0.03, 0.05))
        for _ in when
    ]
    tail = dsp.burst(rng, p["centre_hz"] / 1.6, 2.2 * p["centre_hz"], 0.22, 0.006)
    sounds = [*claps, dsp.unit_peak(tail)]
    return dsp.finish(
        dsp.place(sounds, np.append(when, 0.012), np.append(rng.uniform(0.6, 1.0, hands), 0.3))
    )


def _rimshot(p: Parameters, rng: np.random.Generator) -> Waveform:
    rim = make_body(p["f0_hz"], np.array([1.0, 1.55, 2.3, 3.4, 4.7, 6.2]), WOOD.damped(0.9), rng)
    snare = _snare_hit(rng.uniform(180, 260), 0.15, 0.3, p["intensity"], rng)
    blow = dsp.unit_peak(rim.strike(rng, p["intensity"], contact=0.35))
    return dsp.finish(dsp.place([blow, dsp.unit_peak(snare)], [0, 0], [1.0, 0.6 * p["intensity"]]))


def _tambourine(p: Parameters, rng: np.random.Generator) -> Waveform:
    jingles = []
    for _ in range(14):
        f0 = p["f0_hz"] * rng.uniform(0.85, 1.4)
        pair = make_body(f0, bodies.DISC[:8], BRASS.damped(11.0), rng, pairs=0.01, longest_s=0.18)
        jingles.append(pair.strike(rng, rng.uniform(0.4, 1.0)))
    length = p["duration_s"]
    shakes = dsp.beats(p["rate_hz"], length, 0.08, rng)
    when, strength = dsp.shaken(shakes, length, 220.0, 0.28, rng)
    slap = dsp.unit_peak(_head(240.0, 0.1, 0.7, rng, centre=0.2))
    mix = dsp.scatter(jingles, when, strength, rng)
    slaps = dsp.scatter([slap], shakes, 1.0, rng)
    return dsp.finish(dsp.place([dsp.unit_peak(mix), slaps], [0, 0], [1.0, 0.10]))


def _grain_rattle(
    p: Parameters, rng: np.random.Generator, rate_hz: float, q: float, second: float, t60: float
) -> Waveform:
    length = p["duration_s"]
    shakes = dsp.beats(p["rate_hz"], length, 0.05, rng)
    back = shakes + 0.5 / p["rate_hz"]  # beads hit the far side too
    when, strength = dsp.shaken(np.sort(np.append(shakes, back)), length, rate_hz, t60, rng)
    n = dsp.num_samples(length + 0.08)
    force = np.zeros(n)
    np.add.at(
        force, (when * SAMPLE_RATE).astype(int), strength * rng.choice([-1.0, 1.0], len(when))
    )
    bead = dsp.burst(rng, 1500, 18000, 0.004, 0.0001)
    force = dsp.resonate(force, bead)[:n]
    shell = dsp.resonance(force, p["f0_hz"], q) + 0.5 * dsp.resonance(force, second * p["f0_hz"], q)
    return dsp.finish(3.0 * shell + 0.12 * force)


def _shaker(p: Parameters, rng: np.random.Generator) -> Waveform:
    return _grain_rattle(p, rng, 1400.0, 1.3, 1.7, 0.16)


def _maracas(p: Parameters, rng: np.random.Generator) -> Waveform:
    return _grain_rattle(p, rng, 320.0, 4.0, 1.8, 0.12)


def _woodblock(p: Parameters, rng: np.random.Generator) -> Waveform:
    block = make_body(p["f0_hz"], np.array([1.0, 1.42, 2.11, 2.95, 4.3]), HARDWOOD, rng, slope=-0.6)
    return dsp.finish(block.strike(rng, p["intensity"], contact=1.3))


def _claves(p: Parameters, rng: np.random.Generator) -> Waveform:
    stick = make_body(
        p["f0_hz"], bodies.BAR[:5], Material(130.0, 12.0, 0.0001, 0.12), rng, slope=-0.8
    )
    return dsp.finish(stick.strike(rng, p["intensity"]))


def _guiro(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(p["duration_s"])
    speed = dsp.contour(n, [(0, 0.6), (0.3, 0.9), (1.0, 1.3)])
    teeth = np.cumsum(speed * p["rate_hz"]) / SAMPLE_RATE
    count = int(teeth[-1])
    when = np.searchsorted(teeth, np.arange(count) + 0.12 * rng.standard_normal(count)).clip(
        0, n - 1
    )
    force = np.zeros(n)
    force[when] = rng.uniform(0.5, 1.0, len(when)) * np.interp(when, [0, n], [0.6, 1.0])
    gourd = make_body(
        p["f0_hz"], bodies.box(12, rng), Material(14.0, 60.0, 0.0003, 0.2), rng, slope=-0.6
    )
    tick = dsp.burst(rng, 1500, 12000, 0.004, 0.0001)
    return dsp.finish(dsp.resonate(dsp.resonate(force, tick), gourd.response()))


def _rainstick(p: Parameters, rng: np.random.Generator) -> Waveform:
    length = p["duration_s"]
    count = int(length * p["density_hz"])
    when = rng.beta(1.4, 2.0, count) * length
    beads = [
        dsp.ring(rng.uniform(1800, 6000, 3), rng.uniform(0.006, 0.02, 3), rng.uniform(0.3, 1, 3))
        for _ in range(24)
    ]
    mix = dsp.scatter(beads, when, rng.exponential(0.4, count), rng, length + 0.05)
    tube = dsp.resonance(mix, 1100, 2.0) + 0.5 * dsp.resonance(mix, 2700, 2.0)
    return dsp.finish(mix + 0.6 * tube)


_SHAKE = Range("rate_hz", 2.0, 8.0, log=True, attribute="rate")
_LENGTH = Range("duration_s", 0.4, 3.4, log=True, attribute="length")

MODELS: tuple[SoundModel, ...] = (
    SoundModel(
        "kick drum",
        "drums",
        (_pitch(38, 78), _ring(0.18, 0.9), BRIGHTNESS),
        _kick,
        ("bass drum", "kick"),
        _ROSSING,
    ),
    SoundModel(
        "snare drum",
        "drums",
        (_pitch(140, 300), Range("wires", 0.0, 1.0, attribute="length"), INTENSITY),
        _snare,
        ("snare", "snare hit"),
        _ROSSING,
    ),
    SoundModel(
        "drum roll",
        "drums",
        (
            Choice("pattern", ("steady", "growing", "fading"), "pattern"),
            Range("rate_hz", 13, 30, log=True, attribute="rate"),
            Range("f0_hz", 150, 280, log=True),
            Range("duration_s", 1.0, 3.8, attribute="length"),
        ),
        _drum_roll,
        ("snare roll",),
        _ROSSING,
    ),
    SoundModel(
        "tom drum",
        "drums",
        (_pitch(65, 260), _ring(0.3, 1.3), INTENSITY),
        _tom,
        ("tom", "tom-tom"),
        _ROSSING,
    ),
    SoundModel(
        "bongo",
        "drums",
        (_pitch(210, 560), _ring(0.10, 0.45), INTENSITY),
        _bongo,
        ("bongo hit", "bongo drum"),
        _ROSSING,
    ),
    SoundModel(
        "conga",
        "drums",
        (_pitch(125, 320), _ring(0.18, 0.7), INTENSITY),
        _conga,
        ("conga hit", "conga drum"),
        _ROSSING,
    ),
    SoundModel(
        "djembe",
        "drums",
        (Choice("kind", ("bass", "tone", "slap"), "kind"), _pitch(62, 110), INTENSITY),
        _djembe,
        ("djembe hit", "african drum"),
        _ROSSING,
    ),
    SoundModel(
        "timpani",
        "drums",
        (_pitch(72, 190), _ring(0.9, 3.4), INTENSITY),
        _timpani,
        ("kettledrum", "timpani hit"),
        _ROSSING,
    ),
    SoundModel(
        "tabla",
        "drums",
        (_pitch(110, 420), _ring(0.25, 1.1), Range("bend", 0.0, 0.5)),
        _tabla,
        ("tabla hit", "indian drum"),
        _ROSSING,
    ),
    SoundModel(
        "taiko drum",
        "drums",
        (_pitch(45, 130), _ring(0.5, 1.8), INTENSITY),
        _taiko,
        ("taiko", "japanese drum", "war drum"),
        _ROSSING,
    ),
    SoundModel(
        "closed hi-hat",
        "drums",
        (_ring(0.05, 0.18), BRIGHTNESS, Range("f0_hz", 300, 700, log=True)),
        _hihat_closed,
        ("hi-hat", "closed hat"),
        _ROSSING,
    ),
    SoundModel(
        "open hi-hat",
        "drums",
        (_ring(0.35, 1.4), BRIGHTNESS, Range("f0_hz", 300, 700, log=True)),
        _hihat_open,
        ("open hat",),
        _ROSSING,
    ),
    SoundModel(
        "crash cymbal",
        "drums",
        (_ring(1.4, 4.5), BRIGHTNESS, Range("f0_hz", 220, 520, log=True)),
        _crash,
        ("cymbal crash", "cymbal"),
        _ROSSING,
    ),
    SoundModel(
        "ride cymbal",
        "drums",
        (
            _ring(1.2, 3.8),
            Range("bell", 0.0, 1.0),
            Range("f0_hz", 220, 520, log=True),
            Range("brightness", 0.1, 0.8),
        ),
        _ride,
        ("ride", "ride cymbal ping"),
        _ROSSING,
    ),
    SoundModel(
        "clap",
        "drums",
        (
            Range("centre_hz", 800, 1900, log=True, attribute="pitch"),
            Range("count", 1.6, 6.4, attribute="count"),
            Range("spread", 0.0, 1.0),
        ),
        _drum_clap,
        ("hand claps", "drum machine clap"),
        _CLAPS,
    ),
    SoundModel(
        "rimshot",
        "drums",
        (_pitch(420, 1300), INTENSITY),
        _rimshot,
        ("rim shot", "side stick"),
        _ROSSING,
    ),
    SoundModel(
        "tambourine",
        "percussion",
        (_SHAKE, _pitch(2600, 5200), _LENGTH),
        _tambourine,
        ("tambourine shake",),
        _COOK,
    ),
    SoundModel(
        "shaker",
        "percussion",
        (_SHAKE, _pitch(2800, 6500), _LENGTH),
        _shaker,
        ("egg shaker", "cabasa"),
        _COOK,
    ),
    SoundModel(
        "maracas",
        "percussion",
        (_SHAKE, _pitch(2200, 5200), _LENGTH),
        _maracas,
        ("maraca", "rattle"),
        _COOK,
    ),
    SoundModel(
        "woodblock",
        "percussion",
        (_pitch(450, 1900), INTENSITY),
        _woodblock,
        ("wood block", "temple block"),
        _ROSSING,
    ),
    SoundModel(
        "claves", "percussion", (_pitch(1500, 3400), INTENSITY), _claves, ("clave",), _ROSSING
    ),
    SoundModel(
        "guiro",
        "percussion",
        (
            Range("rate_hz", 45, 220, log=True, attribute="rate"),
            Range("duration_s", 0.15, 0.9, log=True, attribute="length"),
            _pitch(900, 2400),
        ),
        _guiro,
        ("guiro scrape", "washboard"),
        _COOK,
    ),
    SoundModel(
        "rainstick",
        "percussion",
        (
            Range("density_hz", 150, 1500, log=True, attribute="intensity"),
            Range("duration_s", 1.4, 4.0, attribute="length"),
        ),
        _rainstick,
        ("rain stick",),
        _COOK,
    ),
)
