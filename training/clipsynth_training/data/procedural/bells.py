"""Bells, chimes and tuned bars.

Source:
    Fletcher and Rossing, "The Physics of Musical Instruments", chapters 19 to 21; Rossing, "Science
    of Percussion Instruments"; van den Doel and Pai 1998 for the bank of modes.
"""

from __future__ import annotations

import numpy as np

from clipsynth_training.data.procedural import dsp
from clipsynth_training.data.procedural.bodies import (
    BAR,
    BRASS,
    CANTILEVER,
    CUP,
    DISC,
    HARDWOOD,
    STEEL,
    Body,
    Material,
    Ratios,
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

_ROSSING = "Fletcher and Rossing, The Physics of Musical Instruments, chapters 19 to 21"
_COOK = "Cook 1997, Physically Informed Sonic Modeling, CMJ 21(3)"

CHURCH = np.array(
    [0.5, 1.0, 1.183, 1.506, 2.0, 2.514, 2.662, 3.011, 4.166, 5.433, 6.796, 8.215, 9.6, 11.1]
)
"""Partials of a church bell to its strike note: hum, prime, tierce, quint, nominal and above."""

PENTATONIC = 2.0 ** (np.array([0, 2, 4, 7, 9, 12, 14, 16, 19, 21]) / 12.0)
"""Ratios of a scale that has no discords."""


def _pitch(low: float, high: float) -> Range:
    return Range("f0_hz", low, high, log=True, attribute="pitch")


def _ring(low: float, high: float) -> Range:
    return Range("ring_s", low, high, log=True, attribute="length")


BRIGHTNESS = Range("brightness", 0.1, 1.0, attribute="brightness")
INTENSITY = Range("intensity", 0.15, 1.0, attribute="intensity")
RATE = Range("rate_hz", 1.5, 6.0, log=True, attribute="rate")


def _tuned(
    f0_hz: float,
    ratios: Ratios,
    ring_s: float,
    rng: np.random.Generator,
    *,
    fall: float = 0.8,
    gains: Ratios | None = None,
    pairs: float = 0.0,
    material: Material = BRASS,
) -> Body:
    """Return a body whose mode at ratio r rings for ``ring_s / r ** fall`` seconds."""
    body = make_body(f0_hz, ratios, material, rng, roughness=0.002, pairs=pairs)
    t60 = np.minimum(ring_s * (body.frequencies_hz / f0_hz) ** -fall, 4.05)
    gain = body.gains
    if gains is not None:
        given = np.concatenate([gains, gains * 0.5]) if pairs else gains
        gain = np.resize(given, len(gain)) * np.exp(0.15 * rng.standard_normal(len(gain)))
    return Body(body.frequencies_hz, t60, gain, material)


def _church_bell(p: Parameters, rng: np.random.Generator) -> Waveform:
    gains = np.array([0.7, 0.9, 0.8, 0.35, 1.0, 0.45, 0.4, 0.6, 0.4, 0.3, 0.22, 0.16, 0.1, 0.08])
    hum_first = CHURCH / CHURCH[0]
    bell = _tuned(
        0.5 * p["f0_hz"], hum_first, p["ring_s"], rng, fall=0.55, gains=gains, pairs=0.0016
    )
    return dsp.finish(bell.strike(rng, p["intensity"], contact=1.1))


def _hand_bell(p: Parameters, rng: np.random.Generator) -> Waveform:
    ratios = np.array([1.0, 3.0, 3.9, 5.4, 7.6, 9.2, 12.0])
    gains = np.array([1.0, 0.5, 0.12, 0.25, 0.12, 0.1, 0.05])
    bell = _tuned(p["f0_hz"], ratios, p["ring_s"], rng, gains=gains, pairs=0.0012)
    return dsp.finish(bell.strike(rng, 0.6, contact=0.25 * _mallet(p)))


def _desk_bell(p: Parameters, rng: np.random.Generator) -> Waveform:
    bell = _tuned(p["f0_hz"], CUP[:8], p["ring_s"], rng, pairs=0.002, fall=0.6)
    plunger = dsp.burst(rng, 600, 5000, 0.02)
    sounds = [dsp.unit_peak(bell.strike(rng, 0.7)), dsp.unit_peak(plunger)]
    return dsp.finish(dsp.place(sounds, [0.012, 0.0], [1.0, 0.12]))


def _repeated(
    body: Body, when: Waveform, gains: Waveform, rng: np.random.Generator, strength: float
) -> Waveform:
    """Strike one body many times: its response to a train of blows, faster than blow by blow."""
    blow = body.strike(rng, strength)
    n = dsp.num_samples(float(when[-1])) + 1
    force = np.zeros(n)
    np.add.at(force, np.minimum((when * SAMPLE_RATE).astype(int), n - 1), gains)
    return dsp.resonate(force, blow)


def _bicycle_bell(p: Parameters, rng: np.random.Generator) -> Waveform:
    bell = _tuned(p["f0_hz"], CUP[:7], 1.4, rng, pairs=0.006, fall=0.5)
    when = []
    for start in np.arange(round(p["count"])) * rng.uniform(0.28, 0.42):
        hits = rng.integers(4, 8)
        when.append(start + np.arange(hits) / p["rate_hz"] * (1 + 0.05 * rng.standard_normal(hits)))
    train = np.sort(np.abs(np.concatenate(when)))
    return dsp.finish(_repeated(bell, train, rng.uniform(0.5, 1.0, len(train)), rng, 0.8))


def _electric_bell(p: Parameters, rng: np.random.Generator) -> Waveform:
    ratios = DISC[:11] ** 0.95
    bell = _tuned(p["f0_hz"], ratios, 1.1, rng, pairs=0.004, fall=0.4, material=STEEL)
    when = dsp.beats(p["rate_hz"], p["duration_s"], 0.04, rng)
    gains = rng.uniform(0.8, 1.0, len(when))
    return dsp.finish(_repeated(bell, when, gains, rng, 0.9))


def _ship_bell(p: Parameters, rng: np.random.Generator) -> Waveform:
    bell = _tuned(0.5 * p["f0_hz"], CHURCH[:12] / CHURCH[0], 3.0, rng, fall=0.6, pairs=0.002)
    count = round(p["count"])
    when = np.array([(i // 2) * 1.15 + (i % 2) * 0.36 for i in range(count)])  # struck in pairs
    when *= rng.uniform(0.9, 1.1)
    return dsp.finish(_repeated(bell, when, rng.uniform(0.85, 1.0, count), rng, 0.7))


def _sleigh_bells(p: Parameters, rng: np.random.Generator) -> Waveform:
    jingles = []
    for _ in range(20):
        f0 = p["f0_hz"] * rng.uniform(0.8, 1.5)
        bell = make_body(f0, CUP[:6] ** 0.8, BRASS.damped(8.0), rng, pairs=0.008, longest_s=0.3)
        jingles.append(bell.strike(rng, rng.uniform(0.4, 1.0)))
    shakes = dsp.beats(p["rate_hz"], p["duration_s"], 0.06, rng)
    when, strength = dsp.shaken(shakes, p["duration_s"], 170.0, 0.35, rng)
    return dsp.finish(dsp.scatter(jingles, when, strength, rng))


def _wind_chimes(p: Parameters, rng: np.random.Generator) -> Waveform:
    tubes = []
    for ratio in PENTATONIC[: rng.integers(5, 8)]:
        tube = _tuned(p["f0_hz"] * ratio, BAR[:6], 2.6, rng, fall=0.7, pairs=0.001)
        tubes.append(tube.strike(rng, rng.uniform(0.4, 0.8), contact=3.0))
    gusts = np.clip(1.0 + 0.7 * dsp.drift(400, 0.004 * SAMPLE_RATE, rng), 0.1, 2.5)
    when = dsp.arrivals(p["rate_hz"], 3.4, rng)
    gains = rng.exponential(0.5, len(when)) * np.interp(when, np.linspace(0, 3.4, 400), gusts)
    when = np.concatenate([[0.0], when])
    return dsp.finish(
        dsp.scatter(tubes, when, np.concatenate([[0.6], gains]), rng, 4.1), fade_out_s=0.3
    )


def _gong(p: Parameters, rng: np.random.Generator) -> Waveform:
    f0 = p["f0_hz"]
    ratios = np.concatenate([[1.0, 1.98, 2.02], np.sort(rng.uniform(1.4, 80.0, 170))])
    frequency = f0 * ratios
    gain = ratios**-0.55 * rng.uniform(0.3, 1.0, len(ratios))
    gain[:3] = [1.2, 0.8, 0.7]
    t60 = np.minimum(p["ring_s"] * ratios**-0.25, 4.05)
    phase = rng.uniform(0, 2 * np.pi, len(ratios))
    # energy climbs from low modes to high ones in the first tenths of a second
    onset = 0.02 + 0.5 * p["brightness"] * np.minimum(ratios / 45.0, 1.0)
    bright = gain * (0.15 + p["brightness"]) ** (ratios / 32.0)
    length = float(t60.max())
    sound = dsp.ring(frequency, t60, bright, length, phase)
    sound -= dsp.ring(frequency, np.minimum(onset * 1.5, t60 * 0.8), bright, length, phase)
    thump = dsp.ring([f0, 1.6 * f0], [0.4, 0.25], [0.8, 0.4], length)
    return dsp.finish(dsp.unit_peak(sound) + 0.15 * thump, fade_out_s=0.05)


def _triangle(p: Parameters, rng: np.random.Generator) -> Waveform:
    ratios = np.concatenate([[1.0], BAR[1:6] * 0.9, np.sort(rng.uniform(2.0, 14.0, 18))])
    gains = np.concatenate([[0.35], rng.uniform(0.4, 1.0, len(ratios) - 1)])
    rod = _tuned(
        p["f0_hz"], ratios, p["ring_s"], rng, fall=0.25, gains=gains, pairs=0.0015, material=STEEL
    )
    return dsp.finish(rod.strike(rng, 0.85))


def _cowbell(p: Parameters, rng: np.random.Generator) -> Waveform:
    ratios = np.array([1.0, 1.48, 2.55, 3.2, 4.1, 5.3, 6.6, 8.0, 9.7])
    gains = np.array([1.0, 0.95, 0.25, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1])
    bell = _tuned(p["f0_hz"], ratios, p["ring_s"], rng, fall=0.6, gains=gains, pairs=0.003)
    return dsp.finish(bell.strike(rng, p["intensity"], contact=1.5))


def _singing_bowl(p: Parameters, rng: np.random.Generator) -> Waveform:
    ratios = np.array([1.0, 2.71, 4.98, 7.77, 11.0])
    gains = np.array([1.0, 0.55, 0.3, 0.15, 0.08])
    if p["kind"] == "struck":
        bowl = _tuned(p["f0_hz"], ratios, 4.05, rng, fall=0.45, gains=gains, pairs=0.006)
        return dsp.finish(bowl.strike(rng, 0.5, contact=8.0), fade_out_s=0.1)
    n = dsp.num_samples(4.1)
    swell = 1.0 - dsp.decay(n, 4.0)
    beat = rng.uniform(1.2, 3.5)
    out = np.zeros(n)
    for index, (ratio, gain) in enumerate(
        zip(ratios[:3], gains[:3] * [1.0, 0.35, 0.1], strict=True)
    ):
        depth = 1.0 + 0.35 * np.sin(
            2 * np.pi * beat * (1 + index) * dsp.times(n) + rng.uniform(0, 6)
        )
        out += gain * depth * dsp.sine(p["f0_hz"] * ratio, n)
    rub = dsp.noise_band(n, rng, 1500, 6000) * 0.012
    return dsp.fade((out + rub) * swell, 0.02, 0.3)


def _bar_note(
    p: Parameters,
    rng: np.random.Generator,
    ratios: list[float],
    gains: list[float],
    fall: float,
    material: Material,
    contact: float,
) -> Body:
    return _tuned(
        p["f0_hz"],
        np.array(ratios),
        p["ring_s"],
        rng,
        fall=fall,
        gains=np.array(gains),
        material=material,
    )


def _mallet(p: Parameters) -> float:
    """Return relative contact time: a soft mallet for little brightness."""
    return float(6.0 * 8.0 ** (1.0 - p["brightness"]))


def _xylophone(p: Parameters, rng: np.random.Generator) -> Waveform:
    note = _bar_note(p, rng, [1, 3, 6.0, 10.2], [1, 0.55, 0.3, 0.15], 1.3, HARDWOOD, 1.0)
    return dsp.finish(note.strike(rng, 0.6, contact=0.12 * _mallet(p)))


def _marimba(p: Parameters, rng: np.random.Generator) -> Waveform:
    note = _bar_note(p, rng, [1, 3.98, 9.2, 16.0], [1, 0.5, 0.25, 0.1], 1.0, HARDWOOD, 1.0)
    return dsp.finish(note.strike(rng, 0.5, contact=0.15 * _mallet(p)))


def _glockenspiel(p: Parameters, rng: np.random.Generator) -> Waveform:
    note = _bar_note(p, rng, list(BAR[:5]), [1, 0.45, 0.25, 0.12, 0.06], 0.8, STEEL, 1.0)
    return dsp.finish(note.strike(rng, 0.7, contact=0.12 * _mallet(p)))


def _vibraphone(p: Parameters, rng: np.random.Generator) -> Waveform:
    note = _bar_note(p, rng, [1, 3.99, 9.8, 17.0], [1, 0.5, 0.22, 0.08], 0.7, BRASS, 1.0)
    sound = note.strike(rng, 0.5, contact=0.3 * _mallet(p))
    fans = 1.0 + 0.35 * np.sin(2 * np.pi * p["rate_hz"] * dsp.times(len(sound)) + rng.uniform(0, 6))
    return dsp.finish(sound * fans)


def _tubular(p: Parameters, rng: np.random.Generator) -> Waveform:
    # modes 4, 5 and 6 stand near 2 : 3 : 4, heard as a strike note an octave below mode 4
    f1 = 2.0 * p["f0_hz"] / BAR[3]
    gains = np.array([0.12, 0.25, 0.5, 1.0, 0.95, 0.8, 0.4, 0.2, 0.1])
    tube = _tuned(f1, BAR[:9], 4.05, rng, fall=0.0, gains=gains, pairs=0.0006, material=STEEL)
    t60 = np.minimum(p["ring_s"] * (tube.frequencies_hz / p["f0_hz"]).clip(1.0) ** -0.6, 4.05)
    tube = Body(tube.frequencies_hz, t60, tube.gains, STEEL)
    return dsp.finish(tube.strike(rng, p["brightness"], contact=2.0))


def _kalimba_body(f0_hz: float, ring_s: float, rng: np.random.Generator) -> Waveform:
    tine = _tuned(
        f0_hz,
        CANTILEVER[:4],
        ring_s,
        rng,
        fall=1.0,
        gains=np.array([1.0, 0.14, 0.06, 0.02]),
        material=STEEL,
    )
    sound = dsp.unit_peak(tine.strike(rng, 0.5, contact=3.0))
    thumb = dsp.burst(rng, 180, 1600, 0.05)
    return dsp.place([sound, dsp.unit_peak(thumb)], [0.0, 0.0], [1.0, 0.12])


def _kalimba(p: Parameters, rng: np.random.Generator) -> Waveform:
    return dsp.finish(_kalimba_body(p["f0_hz"], p["ring_s"], rng))


def _music_box(p: Parameters, rng: np.random.Generator) -> Waveform:
    length = 2.9
    when = dsp.beats(p["rate_hz"], length, 0.02, rng)
    step = np.clip(np.cumsum(rng.integers(-2, 3, len(when))) + 4, 0, 9)
    notes, starts = [], []
    for start, index in zip(when, step, strict=True):
        tine = _tuned(
            p["f0_hz"] * PENTATONIC[index],
            CANTILEVER[:4],
            1.6,
            rng,
            fall=0.8,
            gains=np.array([1.0, 0.3, 0.12, 0.05]),
            material=STEEL,
        )
        notes.append(dsp.unit_peak(tine.strike(rng, 0.6)) * rng.uniform(0.6, 1.0))
        starts.append(start)
        notes.append(0.05 * dsp.unit_peak(dsp.burst(rng, 2500, 9000, 0.02)))
        starts.append(max(0.0, start - 0.03))
    return dsp.finish(dsp.place(notes, starts), fade_out_s=0.05)


def _steel_drum(p: Parameters, rng: np.random.Generator) -> Waveform:
    ratios = np.array([1.0, 2.0, 3.01, 4.03, 5.1, 6.1, 7.3, 8.6])
    gains = np.array([1.0, 0.9, 0.35, 0.45, 0.2, 0.16, 0.1, 0.08])
    note = _tuned(p["f0_hz"], ratios, p["ring_s"], rng, fall=0.5, gains=gains, pairs=0.003)
    sound = note.strike(rng, 0.5, contact=2.0 + 1.2 * _mallet(p))
    late = note.strike(rng, 0.7, contact=2.0)
    rise = 1.0 - dsp.decay(len(late), 0.12)  # the shell answers with its overtones a little later
    sound = dsp.unit_peak(sound)
    return dsp.finish(
        sound + 0.3 * p["brightness"] * dsp.unit_peak(dsp.highpass(late * rise, 2.5 * p["f0_hz"]))
    )


MODELS: tuple[SoundModel, ...] = (
    SoundModel(
        "church bell",
        "bells",
        (_pitch(160, 720), _ring(2.2, 5.5), INTENSITY),
        _church_bell,
        ("bell tower", "cathedral bell", "bell toll"),
        _ROSSING,
    ),
    SoundModel(
        "hand bell",
        "bells",
        (_pitch(500, 2200), _ring(0.8, 3.6), BRIGHTNESS),
        _hand_bell,
        ("small bell", "bell ding"),
        _ROSSING,
    ),
    SoundModel(
        "desk bell",
        "bells",
        (_pitch(1500, 3400), _ring(0.9, 3.0)),
        _desk_bell,
        ("reception bell", "hotel bell", "service bell"),
        _ROSSING,
    ),
    SoundModel(
        "bicycle bell",
        "bells",
        (
            _pitch(1500, 3400),
            Range("count", 0.6, 3.4, attribute="count"),
            Range("rate_hz", 12, 26, log=True, attribute="rate"),
        ),
        _bicycle_bell,
        ("bike bell",),
        _ROSSING,
    ),
    SoundModel(
        "school bell",
        "bells",
        (
            _pitch(650, 1900),
            Range("rate_hz", 10, 26, log=True, attribute="rate"),
            Range("duration_s", 0.9, 3.2, attribute="length"),
        ),
        _electric_bell,
        ("electric bell", "ringing school bell", "fire bell"),
        _ROSSING,
    ),
    SoundModel(
        "ship bell",
        "bells",
        (_pitch(550, 1300), Range("count", 0.6, 4.4, attribute="count")),
        _ship_bell,
        ("ship's bell", "boat bell", "bell struck in pairs"),
        _ROSSING,
    ),
    SoundModel(
        "sleigh bells",
        "bells",
        (
            Range("rate_hz", 2.0, 7.0, log=True, attribute="rate"),
            _pitch(2000, 3800),
            Range("duration_s", 0.8, 3.6, attribute="length"),
        ),
        _sleigh_bells,
        ("jingle bells",),
        _COOK,
    ),
    SoundModel(
        "wind chimes",
        "bells",
        (Range("rate_hz", 2.0, 9.0, log=True, attribute="rate"), _pitch(420, 1500)),
        _wind_chimes,
        ("wind chime", "chimes in the wind"),
        _COOK,
        steady=True,
    ),
    SoundModel(
        "gong",
        "bells",
        (_pitch(60, 240), BRIGHTNESS, _ring(2.2, 4.5)),
        _gong,
        ("gong hit", "tam-tam"),
        _ROSSING,
    ),
    SoundModel(
        "triangle",
        "bells",
        (_pitch(900, 1900), _ring(1.0, 4.0)),
        _triangle,
        ("triangle hit", "musical triangle"),
        _ROSSING,
    ),
    SoundModel(
        "cowbell",
        "bells",
        (_pitch(380, 900), _ring(0.15, 0.9), INTENSITY),
        _cowbell,
        ("cow bell",),
        _ROSSING,
    ),
    SoundModel(
        "singing bowl",
        "bells",
        (_pitch(130, 720), Choice("kind", ("struck", "rubbed"), "kind")),
        _singing_bowl,
        ("tibetan bowl", "meditation bowl"),
        _ROSSING,
    ),
    SoundModel(
        "xylophone",
        "tuned percussion",
        (_pitch(500, 2400), BRIGHTNESS, _ring(0.25, 0.8)),
        _xylophone,
        ("xylophone note", "wooden xylophone"),
        _ROSSING,
    ),
    SoundModel(
        "marimba",
        "tuned percussion",
        (_pitch(110, 900), BRIGHTNESS, _ring(0.45, 1.6)),
        _marimba,
        ("marimba note",),
        _ROSSING,
    ),
    SoundModel(
        "glockenspiel",
        "tuned percussion",
        (_pitch(780, 3200), BRIGHTNESS, _ring(0.8, 3.2)),
        _glockenspiel,
        ("glockenspiel note", "orchestra bells"),
        _ROSSING,
    ),
    SoundModel(
        "vibraphone",
        "tuned percussion",
        (
            _pitch(175, 1200),
            Range("rate_hz", 2.0, 8.0, log=True, attribute="rate"),
            BRIGHTNESS,
            _ring(1.5, 3.9),
        ),
        _vibraphone,
        ("vibraphone note", "vibes"),
        _ROSSING,
    ),
    SoundModel(
        "tubular bell",
        "tuned percussion",
        (_pitch(260, 700), _ring(1.6, 4.0), BRIGHTNESS),
        _tubular,
        ("tubular bells", "chime", "grandfather clock chime"),
        _ROSSING,
    ),
    SoundModel(
        "kalimba",
        "tuned percussion",
        (_pitch(200, 1100), _ring(0.5, 2.2)),
        _kalimba,
        ("thumb piano", "mbira"),
        _ROSSING,
    ),
    SoundModel(
        "music box",
        "tuned percussion",
        (Range("rate_hz", 2.0, 8.0, log=True, attribute="rate"), _pitch(420, 1100)),
        _music_box,
        ("music box melody", "wind-up music box"),
        _ROSSING,
    ),
    SoundModel(
        "steel drum",
        "tuned percussion",
        (_pitch(180, 900), BRIGHTNESS, _ring(0.5, 1.8)),
        _steel_drum,
        ("steelpan", "steel pan note"),
        _ROSSING,
    ),
)
