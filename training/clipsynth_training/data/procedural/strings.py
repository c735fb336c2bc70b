"""Plucked, struck and bowed strings, springy tongues, and blown pipes.

A plucked string is a delay line with a loss filter in its loop. A whole period depends only on the
period before, so the loop runs over periods and not over samples.

Source:
    Karplus and Strong 1983, CMJ 7(2); Jaffe and Smith 1983, CMJ 7(2); Fletcher and Rossing, "The
    Physics of Musical Instruments", chapters 9 to 12 and 16; Cook, "Real Sound Synthesis".
"""

from __future__ import annotations

import numpy as np

from clipsynth_training.data.procedural import bodies, dsp
from clipsynth_training.data.procedural.bodies import CANTILEVER, STEEL, make_body
from clipsynth_training.data.procedural.dsp import Parameters
from clipsynth_training.data.procedural.model import (
    SAMPLE_RATE,
    Choice,
    Range,
    SoundModel,
    Waveform,
)

_KS = "Karplus and Strong 1983; Jaffe and Smith 1983, CMJ 7(2)"
_ROSSING = "Fletcher and Rossing, The Physics of Musical Instruments"
_COOK = "Cook, Real Sound Synthesis for Interactive Applications"

BRIGHTNESS = Range("brightness", 0.1, 1.0, attribute="brightness")


def _pitch(low: float, high: float) -> Range:
    return Range("f0_hz", low, high, log=True, attribute="pitch")


def _ring(low: float, high: float) -> Range:
    return Range("ring_s", low, high, log=True, attribute="length")


def pluck(
    f0_hz: float,
    t60_s: float,
    brightness: float,
    rng: np.random.Generator,
    *,
    position: float = 0.18,
    loss: float = 0.5,
    duration_s: float | None = None,
) -> Waveform:
    """Return a plucked string.

    Args:
        f0_hz: Pitch, below 4 kHz.
        t60_s: Seconds in which the fundamental falls by 60 dB.
        brightness: Of the pluck, in [0, 1].
        rng: Shape of the pluck.
        position: Where along the string it is plucked.
        loss: How much faster high partials die than low ones, in [0, 1].
        duration_s: Length; ``t60_s`` where none is given.

    Source:
        Jaffe and Smith 1983; Laakso et al. 1996 for the fractional delay.
    """
    period = SAMPLE_RATE / f0_hz
    whole = int(period - 2.0)
    part = period - 2.0 - whole
    order3 = np.array(
        [
            -part * (part - 1) * (part - 2) / 6,
            (part + 1) * (part - 1) * (part - 2) / 2,
            -(part + 1) * part * (part - 2) / 2,
            (part + 1) * part * (part - 1) / 6,
        ]
    )
    side = 0.25 * loss
    smooth = np.array([side, 1.0 - 2.0 * side, side])
    at_f0 = 1.0 - 2.0 * side + 2.0 * side * np.cos(2 * np.pi / period)
    gain = min(10.0 ** (-3.0 / (f0_hz * t60_s)) / at_f0, 0.99999)
    taps = gain * np.convolve(smooth, order3)
    n = dsp.num_samples(t60_s if duration_s is None else duration_s)
    # one period of noise, coloured by how hard and where the string is plucked
    size = whole + 5
    harmonic = np.fft.rfftfreq(size, 1.0 / SAMPLE_RATE) / f0_hz
    cutoff = 1.5 + 22.0 * brightness**1.5
    magnitude = np.abs(np.sin(np.pi * harmonic * position)) + 0.02
    magnitude *= rng.uniform(0.6, 1.0, len(harmonic)) / (1.0 + (harmonic / cutoff) ** 2)
    magnitude /= np.maximum(harmonic, 1.0) ** (1.0 - 0.4 * brightness)
    magnitude[0] = 0.0
    seed = np.fft.irfft(magnitude * np.exp(2j * np.pi * rng.random(len(harmonic))), size)
    line = np.zeros(size + n + whole)
    line[:size] = seed
    for start in range(size, size + n, whole):
        past = line[start - size : start]
        line[start : start + whole] = np.convolve(past, taps, "valid")[:whole]
    return dsp.unit_peak(line[5 : 5 + n])


def _body(
    string: Waveform, peaks: list[tuple[float, float, float]], rng: np.random.Generator
) -> Waveform:
    """Add the resonances of a body: ``(frequency, Q, gain)`` each."""
    out = string.copy()
    for hz, q, gain in peaks:
        out += gain * dsp.resonance(string, hz * rng.uniform(0.94, 1.06), q)
    return out


_GUITAR_BODY = [(102.0, 14.0, 1.1), (205.0, 16.0, 1.0), (390.0, 12.0, 0.6), (2300.0, 2.0, 0.3)]


def _finger(rng: np.random.Generator, low: float, high: float, gain: float) -> Waveform:
    return gain * dsp.unit_peak(dsp.burst(rng, low, high, 0.025))


def _plucked(
    string: Waveform,
    noise: Waveform,
    peaks: list[tuple[float, float, float]],
    rng: np.random.Generator,
) -> Waveform:
    mixed = dsp.place([string, noise], [0.0, 0.0])
    return dsp.finish(_body(mixed, peaks, rng), fade_out_s=0.02)


def _guitar(p: Parameters, rng: np.random.Generator) -> Waveform:
    string = pluck(
        p["f0_hz"], p["ring_s"], p["brightness"], rng, position=rng.uniform(0.12, 0.3), loss=0.35
    )
    return _plucked(string, _finger(rng, 200, 4000, 0.12), _GUITAR_BODY, rng)


def _bass(p: Parameters, rng: np.random.Generator) -> Waveform:
    string = pluck(
        p["f0_hz"], p["ring_s"], 0.15 + 0.6 * p["brightness"], rng, position=0.2, loss=0.6
    )
    return _plucked(string, _finger(rng, 80, 1800, 0.1), [(90.0, 3.0, 0.5), (700.0, 2.0, 0.3)], rng)


def _harp(p: Parameters, rng: np.random.Generator) -> Waveform:
    string = pluck(p["f0_hz"], p["ring_s"], 0.5 * p["brightness"], rng, position=0.42, loss=0.25)
    return _plucked(
        string, _finger(rng, 200, 2000, 0.05), [(180.0, 6.0, 0.4), (420.0, 6.0, 0.3)], rng
    )


def _banjo(p: Parameters, rng: np.random.Generator) -> Waveform:
    string = pluck(
        p["f0_hz"], p["ring_s"], 0.5 + 0.5 * p["brightness"], rng, position=0.1, loss=0.3
    )
    head = [(310.0, 5.0, 0.8), (620.0, 5.0, 0.9), (950.0, 4.0, 0.7), (2600.0, 2.0, 0.8)]
    return _plucked(string, _finger(rng, 500, 9000, 0.35), head, rng)


def _ukulele(p: Parameters, rng: np.random.Generator) -> Waveform:
    string = pluck(
        p["f0_hz"], p["ring_s"], 0.1 + 0.5 * p["brightness"], rng, position=0.25, loss=0.6
    )
    return _plucked(
        string,
        _finger(rng, 300, 3500, 0.15),
        [(200.0, 9.0, 0.8), (410.0, 9.0, 0.9), (720.0, 7.0, 0.4)],
        rng,
    )


def _koto(p: Parameters, rng: np.random.Generator) -> Waveform:
    string = pluck(
        p["f0_hz"], p["ring_s"], 0.3 + 0.6 * p["brightness"], rng, position=0.08, loss=0.3
    )
    return _plucked(
        string, _finger(rng, 1200, 9000, 0.3), [(160.0, 8.0, 0.5), (430.0, 7.0, 0.5)], rng
    )


def _sitar(p: Parameters, rng: np.random.Generator) -> Waveform:
    f0, ring = p["f0_hz"], p["ring_s"]
    string = pluck(f0, ring, 0.4 + 0.6 * p["brightness"], rng, position=0.1, loss=0.25)
    # the flat bridge makes the string buzz as long as it swings widely
    envelope = dsp.lowpass(np.abs(string), 20, 1) + 1e-4
    buzz = dsp.highpass(np.tanh(4.0 * string / envelope) * envelope, 1400, 2)
    formant = dsp.resonance(buzz, 2600.0 * rng.uniform(0.85, 1.2), 1.5)
    mixed = string + 0.9 * buzz + 1.2 * formant
    for ratio in (1.0, 1.125, 1.25, 1.5, 1.875, 2.0):  # sympathetic strings answer
        mixed += 0.12 * dsp.resonance(
            string, f0 * ratio * 2.0 ** (0.003 * rng.standard_normal()), 900.0
        )
    return dsp.finish(mixed, fade_out_s=0.03)


def _harpsichord(p: Parameters, rng: np.random.Generator) -> Waveform:
    f0, ring = p["f0_hz"], p["ring_s"]
    bright = 0.55 + 0.45 * p["brightness"]
    low = pluck(f0, ring, bright, rng, position=0.13, loss=0.18)
    high = pluck(2.002 * f0, 0.7 * ring, bright, rng, position=0.11, loss=0.2)
    jack = dsp.unit_peak(dsp.burst(rng, 900, 7000, 0.03))
    mixed = dsp.place([low, high, jack], [0.004, 0.006, 0.0], [1.0, 0.55, 0.12])
    return dsp.finish(_body(mixed, [(250.0, 4.0, 0.3), (1200.0, 2.0, 0.3)], rng), fade_out_s=0.02)


def _piano(p: Parameters, rng: np.random.Generator) -> Waveform:
    f0 = p["f0_hz"]
    count = int(min(46, 17_000 / f0))
    k = np.arange(1, count + 1)
    stiffness = 1.2e-4 * (f0 / 130.0) ** 0.8
    partial = f0 * k * np.sqrt((1 + stiffness * k**2) / (1 + stiffness))
    hammer = 1.0 / (1.0 + (partial / (500.0 + 3600.0 * p["intensity"])) ** 2) ** 0.8
    gain = (
        hammer * (np.abs(np.sin(np.pi * k / 8.3)) + 0.06) / k**0.25 * rng.uniform(0.7, 1.0, count)
    )
    ring = p["ring_s"] / (1.0 + 0.09 * k * (f0 / 260.0) ** 0.5)
    detune = 1.0 + 0.0005 * rng.standard_normal((2, 1))
    frequency = np.concatenate([partial, *(partial * detune)])
    # strings of one note first move together and lose energy fast, then against each other slowly
    t60 = np.concatenate([0.35 * ring, ring, ring])
    gains = np.concatenate([gain, 0.25 * gain, 0.2 * gain])
    sound = dsp.ring(frequency, t60, gains, p["ring_s"])
    thump = dsp.burst(rng, 60, 500, 0.12, 0.002)
    return dsp.finish(
        dsp.place([dsp.unit_peak(sound), dsp.unit_peak(thump)], [0, 0], [1.0, 0.06]),
        fade_out_s=0.03,
    )


_CHORDS = {
    "major": (0, 7, 12, 16, 19, 24),
    "minor": (0, 7, 12, 15, 19, 24),
    "seventh": (0, 7, 10, 16, 19, 24),
    "suspended": (0, 7, 12, 17, 19, 24),
    "power": (0, 7, 12, 19, 24),
    "minor seventh": (0, 7, 10, 15, 19, 24),
}


def _strum(p: Parameters, rng: np.random.Generator) -> Waveform:
    root, spread = p["f0_hz"], p["spread_s"]
    strings, starts = [], []
    for index, semitone in enumerate(_CHORDS[p["kind"]]):
        f0 = root * 2.0 ** (semitone / 12.0)
        ring = 3.6 / (1.0 + f0 / 900.0)
        string = pluck(f0, ring, p["brightness"], rng, position=rng.uniform(0.12, 0.25), loss=0.35)
        strings.append(string * rng.uniform(0.75, 1.0))
        starts.append(index * spread)
        strings.append(_finger(rng, 900, 7000, 0.12))
        starts.append(index * spread)
    return dsp.finish(_body(dsp.place(strings, starts), _GUITAR_BODY, rng), fade_out_s=0.05)


def _electric_guitar(p: Parameters, rng: np.random.Generator) -> Waveform:
    f0 = p["f0_hz"]
    ring = 2.0 + 1.8 * rng.random()
    notes = [pluck(f0 * r, ring, 0.6, rng, position=0.15, loss=0.25) for r in (1.0, 1.498, 2.0)]
    clean = np.sum(notes, axis=0) * (0.3 + 0.7 * dsp.decay(len(notes[0]), 3.0 * ring))
    drive = 2.0 * 18.0 ** p["drive"]
    driven = np.tanh(drive * dsp.highpass(clean, 90, 1) + 0.2) - np.tanh(0.2)
    speaker = dsp.lowpass(dsp.highpass(driven, 80, 2), 4200, 4)
    speaker += 0.5 * dsp.resonance(speaker, 2400, 2.0)
    length = p["duration_s"]
    out = speaker[: dsp.num_samples(length)]
    return dsp.finish(dsp.fade(out, 0.001, 0.06))


def _rubber_band(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(p["ring_s"])
    drop = 1.0 + 0.35 * dsp.decay(n, 0.35 * p["ring_s"])  # the stretch, and so the pitch, relaxes
    out = np.zeros(n)
    for k in range(1, 14):
        strength = np.abs(np.sin(np.pi * k * 0.28)) / k**0.8 * rng.uniform(0.6, 1.0)
        wobble = p["f0_hz"] * k * drop * (1.0 + 0.004 * k * rng.uniform(-1, 1))
        out += strength * dsp.sine(wobble, n) * dsp.decay(n, p["ring_s"] / (1.0 + 0.22 * k))
    snap = dsp.burst(rng, 500, 8000, 0.02)
    return dsp.finish(dsp.place([dsp.unit_peak(out), dsp.unit_peak(snap)], [0, 0], [1.0, 0.3]))


def _ruler(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(p["ring_s"])
    # the free end is pulled in while it swings: the pitch climbs as 1 / length squared
    free = dsp.contour(n, [(0, 1.0), (1.0, 1.0 / np.sqrt(p["climb"]))])
    f = p["f0_hz"] / free**2
    fall = dsp.decay(n, p["ring_s"])
    phase = np.cumsum(f) * (2 * np.pi / SAMPLE_RATE)
    swing = np.sin(phase) * fall
    # on every downward swing the ruler hits the table edge and its higher modes rattle
    slap = np.diff((swing < -0.1 * fall).astype(float), prepend=0.0).clip(0.0) * fall
    rattle = make_body(
        rng.uniform(280, 480), CANTILEVER[:6] ** 0.9, bodies.PLASTIC, rng, slope=-0.2
    )
    click = dsp.resonate(slap, rattle.strike(rng, 0.9))[:n]
    buzz = dsp.highpass(np.tanh(3.0 * swing) * fall, 150, 1)
    return dsp.finish(0.35 * swing + 0.5 * dsp.unit_peak(click) + 0.35 * buzz)


def _bow_release(p: Parameters, rng: np.random.Generator) -> Waveform:
    ring = p["ring_s"]
    n = dsp.num_samples(ring)
    string = pluck(p["f0_hz"], ring, 0.5, rng, position=0.48, loss=0.8)
    drop = dsp.sine(p["f0_hz"] * (1.0 + 0.5 * dsp.decay(n, 0.1)), n) * dsp.decay(n, 0.7 * ring)
    thud = dsp.burst(rng, 80, 700, 0.09)
    m = dsp.num_samples(0.28)
    centre = dsp.contour(m, [(0, 700), (0.3, 1900), (1, 900)])
    whoosh = dsp.moving_noise(centre, 1.2, rng, 6) * dsp.hump(m, 1.5)
    parts = [string, drop, dsp.unit_peak(thud), dsp.unit_peak(whoosh)]
    return dsp.finish(
        dsp.place(parts, [0, 0, 0, 0.01], [0.6, 0.6, 0.6, 0.35 * (0.3 + p["intensity"])])
    )


def _jaw_harp(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(p["ring_s"])
    f0 = p["f0_hz"]
    k = np.arange(1, int(9000 / f0))
    reed = dsp.ring(
        f0 * k,
        p["ring_s"] / (1 + 0.01 * k),
        1.0 / k**0.35,
        p["ring_s"],
        rng.uniform(0, 0.6, len(k)),
    )[:n]
    sweep = dsp.contour(
        n, [(0, rng.uniform(500, 900)), (rng.uniform(0.3, 0.6), rng.uniform(1400, 2600)), (1, 600)]
    )
    # the mouth's resonance glides over the harmonics: bands of the reed, mixed as it moves
    out = np.zeros(n)
    centres = 400.0 * 2.0 ** np.arange(0, 3.0, 0.25)
    for centre in centres:
        weight = np.exp(-0.5 * (np.log2(sweep / centre) / 0.16) ** 2)
        out += weight * dsp.resonance(reed, centre, 9.0)
    return dsp.finish(out + 0.12 * reed, fade_out_s=0.02)


def _boing(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(p["ring_s"])
    t = dsp.times(n)
    fall = dsp.decay(n, p["ring_s"])
    wobble = 1.0 + 0.35 * np.sin(2 * np.pi * p["rate_hz"] * t * (1 + 0.5 * t / t[-1])) * fall**0.5
    base = p["f0_hz"] * wobble * dsp.contour(n, [(0, 1.0), (1, 1.5)])
    out = np.zeros(n)
    for k, ratio in enumerate((1.0, 2.0, 3.01, 4.2, 5.6, 7.1)):
        out += (
            dsp.sine(base * ratio, n) * dsp.decay(n, p["ring_s"] / (1 + 0.25 * k)) / (1 + 0.7 * k)
        )
    knock = make_body(900, bodies.DISC[:8], STEEL.damped(20.0), rng).strike(rng, 0.6)
    return dsp.finish(dsp.place([dsp.unit_peak(out), dsp.unit_peak(knock)], [0, 0], [1.0, 0.25]))


def _wavetable(harmonics: Waveform, frequency_hz: Waveform) -> Waveform:
    """Return a tone of the given harmonic amplitudes whose pitch follows ``frequency_hz``."""
    size = 4096
    spectrum = np.zeros(size // 2 + 1, complex)
    spectrum[1 : len(harmonics) + 1] = -0.5j * size * harmonics
    table = np.fft.irfft(spectrum, size)
    phase = np.mod(np.cumsum(frequency_hz) / SAMPLE_RATE, 1.0) * size
    return np.asarray(np.interp(phase, np.arange(size + 1), np.append(table, table[0])))


def _bowed(
    p: Parameters,
    rng: np.random.Generator,
    peaks: list[tuple[float, float, float]],
    attack_s: float,
) -> Waveform:
    n = dsp.num_samples(p["duration_s"])
    t = dsp.times(n)
    depth = 0.006 * np.clip((t - 0.25) / 0.4, 0, 1)
    vibrato = 1.0 + depth * np.sin(2 * np.pi * rng.uniform(5.0, 6.3) * t + rng.uniform(0, 6))
    f = (
        p["f0_hz"]
        * vibrato
        * (1.0 + 0.0012 * dsp.drift(n, 9.0, rng))
        * (1 - 0.012 * dsp.decay(n, 0.12))
    )
    k = np.arange(1, int(min(60, 16_000 / p["f0_hz"])))
    # Helmholtz motion is a sawtooth; a slow bow rounds its corner
    corner = 3.0 + 30.0 * p["brightness"] ** 1.5
    saw = _wavetable(1.0 / k / (1.0 + (k / corner) ** 2), f)
    rise = np.minimum(1.0, t / attack_s)
    envelope = (
        rise**1.3
        * (1.0 + 0.06 * dsp.drift(n, 5.0, rng))
        * dsp.contour(n, [(0, 0.9), (0.3, 1), (1, 0.8)])
    )
    gate = np.clip((_wavetable(np.array([1.0]), f) + 0.4), 0, 1)  # rosin noise comes in pulses
    hair = dsp.noise_band(n, rng, 1200, 9000) * (0.25 + gate) * (0.012 + 0.06 * dsp.decay(n, 0.3))
    out = _body((saw + 0.5 * hair * np.std(saw) * 3.0) * envelope, peaks, rng)
    return dsp.finish(dsp.fade(out, 0.01, 0.12), fade_out_s=0.02)


def _violin(p: Parameters, rng: np.random.Generator) -> Waveform:
    peaks = [
        (280.0, 12.0, 0.6),
        (460.0, 12.0, 0.9),
        (560.0, 10.0, 0.8),
        (1150.0, 4.0, 0.6),
        (2600.0, 1.6, 1.2),
    ]
    return _bowed(p, rng, peaks, 0.09)


def _cello(p: Parameters, rng: np.random.Generator) -> Waveform:
    peaks = [
        (105.0, 10.0, 0.6),
        (180.0, 10.0, 0.9),
        (230.0, 9.0, 0.8),
        (500.0, 4.0, 0.5),
        (1300.0, 1.8, 0.9),
    ]
    return _bowed(p, rng, peaks, 0.14)


def _blown(
    p: Parameters,
    rng: np.random.Generator,
    harmonics: list[float],
    breath: float,
    attack_s: float,
    vibrato: float,
) -> Waveform:
    n = dsp.num_samples(p["duration_s"])
    t = dsp.times(n)
    wave = np.sin(2 * np.pi * rng.uniform(4.4, 5.6) * t + rng.uniform(0, 6)) * np.clip(
        (t - 0.2) / 0.5, 0, 1
    )
    f = p["f0_hz"] * (
        1
        + 0.3 * vibrato * 0.01 * wave
        + 0.0015 * dsp.drift(n, 6.0, rng)
        - 0.02 * dsp.decay(n, 0.12)
    )
    pressure = np.minimum(1, t / attack_s) * (
        1 + 0.12 * vibrato * wave + 0.04 * dsp.drift(n, 8.0, rng)
    )
    tone = _wavetable(np.array(harmonics), f) * pressure**1.3
    hiss = dsp.noise_band(n, rng, 300, 14000) * 0.25
    tuned = dsp.resonance(dsp.white(n, rng), p["f0_hz"], 25.0) * 4.0
    tuned += dsp.resonance(dsp.white(n, rng), 2.0 * p["f0_hz"], 25.0) * 2.0
    chiff = 1.0 + 2.5 * dsp.decay(n, 0.15)
    out = tone + breath * (0.3 * hiss + tuned) * pressure * chiff
    return dsp.finish(dsp.fade(out, 0.004, 0.07), fade_out_s=0.01)


def _flute(p: Parameters, rng: np.random.Generator) -> Waveform:
    return _blown(
        p, rng, [1, 0.45, 0.22, 0.12, 0.05, 0.03, 0.015], 0.10 + 0.15 * p["breath"], 0.06, 1.0
    )


def _recorder(p: Parameters, rng: np.random.Generator) -> Waveform:
    return _blown(p, rng, [1, 0.08, 0.22, 0.03, 0.05, 0.01], 0.04 + 0.10 * p["breath"], 0.03, 0.3)


def _pan_flute(p: Parameters, rng: np.random.Generator) -> Waveform:
    return _blown(p, rng, [1, 0.05, 0.28, 0.02, 0.08], 0.25 + 0.4 * p["breath"], 0.05, 0.7)


def _bottle_blow(p: Parameters, rng: np.random.Generator) -> Waveform:
    return _blown(p, rng, [1, 0.06, 0.05, 0.01], 0.3 + 0.5 * p["breath"], 0.12, 0.0)


def _human_whistle(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(p["duration_s"])
    t = dsp.times(n)
    shape = {
        "rising": [(0, 0.72), (0.25, 0.75), (1, 1.3)],
        "falling": [(0, 1.35), (0.3, 1.25), (1, 0.7)],
        "steady": [(0, 0.97), (0.1, 1.0), (1, 1.0)],
        "wolf": [(0, 0.65), (0.38, 1.35), (0.46, 1.35), (0.5, 0.8), (0.7, 1.2), (1, 0.55)],
        "two-note": [(0, 1.0), (0.45, 1.0), (0.5, 1.33), (1, 1.33)],
    }[p["pattern"]]
    bend = dsp.lowpass(np.concatenate([np.full(4000, shape[0][1]), dsp.contour(n, shape)]), 12, 1)[
        4000:
    ]
    f = (
        p["f0_hz"]
        * bend
        * (1 + 0.004 * np.sin(2 * np.pi * 5.3 * t) + 0.002 * dsp.drift(n, 12.0, rng))
    )
    gap = (
        1.0
        if p["pattern"] not in ("wolf", "two-note")
        else dsp.contour(n, [(0, 1), (0.455, 1), (0.475, 0.03), (0.5, 1), (1, 1)])
    )
    envelope = np.minimum(1, t / 0.04) * (1 + 0.08 * dsp.drift(n, 9.0, rng)) * gap
    tone = dsp.sine(f, n) + 0.03 * dsp.sine(2 * f, n)
    air = (
        dsp.moving_noise(np.broadcast_to(f, n), 0.5, rng, 6) * 0.08
        + dsp.noise_band(n, rng, 2000, 12000) * 0.006
    )
    return dsp.finish(dsp.fade((tone + air) * envelope, 0.01, 0.05))


def _didgeridoo(p: Parameters, rng: np.random.Generator) -> Waveform:
    n = dsp.num_samples(4.1)
    t = dsp.times(n)
    k = np.arange(1, int(5000 / p["f0_hz"]))
    f = p["f0_hz"] * (1 + 0.004 * dsp.drift(n, 4.0, rng))
    buzz = _wavetable(np.where(k % 2 == 1, 1.0, 0.45) / k**0.7, f)
    buzz *= 1 + 0.35 * np.sin(2 * np.pi * p["rate_hz"] * t + rng.uniform(0, 6))
    mouth = np.sin(2 * np.pi * 0.5 * p["rate_hz"] * t + rng.uniform(0, 6)) + 0.4 * dsp.drift(
        n, 2.0, rng
    )
    sweep = 900.0 * 2.0 ** (0.75 * mouth)
    out = dsp.lowpass(buzz, 500, 1)
    for centre in 450.0 * 2.0 ** np.arange(0, 2.4, 0.3):
        out += (
            1.6
            * np.exp(-0.5 * (np.log2(sweep / centre) / 0.2) ** 2)
            * dsp.resonance(buzz, centre, 7.0)
        )
    out += dsp.noise_band(n, rng, 300, 3000) * 0.03
    return dsp.finish_steady(out)


MODELS: tuple[SoundModel, ...] = (
    SoundModel(
        "acoustic guitar",
        "strings",
        (_pitch(82, 660), BRIGHTNESS, _ring(1.2, 3.9)),
        _guitar,
        ("guitar pluck", "guitar note", "plucked guitar string"),
        _KS,
    ),
    SoundModel(
        "bass guitar",
        "strings",
        (_pitch(41, 165), BRIGHTNESS, _ring(0.8, 3.5)),
        _bass,
        ("bass note", "bass pluck", "plucked bass"),
        _KS,
    ),
    SoundModel(
        "harp",
        "strings",
        (_pitch(110, 1200), _ring(1.2, 3.9), BRIGHTNESS),
        _harp,
        ("harp note", "harp pluck"),
        _KS,
    ),
    SoundModel(
        "banjo",
        "strings",
        (_pitch(146, 780), _ring(0.35, 1.3), BRIGHTNESS),
        _banjo,
        ("banjo note", "banjo pluck"),
        _KS,
    ),
    SoundModel(
        "ukulele",
        "strings",
        (_pitch(262, 880), _ring(0.6, 1.8), BRIGHTNESS),
        _ukulele,
        ("ukulele note", "ukulele pluck"),
        _KS,
    ),
    SoundModel(
        "koto",
        "strings",
        (_pitch(130, 880), _ring(0.8, 2.8), BRIGHTNESS),
        _koto,
        ("koto note", "japanese zither"),
        _KS,
    ),
    SoundModel(
        "sitar",
        "strings",
        (_pitch(110, 520), _ring(1.4, 3.9), BRIGHTNESS),
        _sitar,
        ("sitar note", "sitar twang"),
        _KS,
    ),
    SoundModel(
        "harpsichord",
        "strings",
        (_pitch(110, 900), _ring(0.9, 3.2), BRIGHTNESS),
        _harpsichord,
        ("harpsichord note",),
        _KS,
    ),
    SoundModel(
        "piano",
        "strings",
        (_pitch(55, 1300), Range("intensity", 0.1, 1.0, attribute="intensity"), _ring(1.2, 4.0)),
        _piano,
        ("piano note", "piano key"),
        _ROSSING,
    ),
    SoundModel(
        "guitar strum",
        "strings",
        (
            Choice("kind", tuple(_CHORDS), "kind"),
            _pitch(82, 175),
            Range("spread_s", 0.008, 0.06, log=True, attribute="rate", rising=False),
            BRIGHTNESS,
        ),
        _strum,
        ("guitar chord", "strummed guitar chord"),
        _KS,
    ),
    SoundModel(
        "electric guitar",
        "strings",
        (
            _pitch(82, 330),
            Range("drive", 0.0, 1.0, attribute="intensity"),
            Range("duration_s", 0.6, 3.2, attribute="length"),
        ),
        _electric_guitar,
        ("power chord", "distorted guitar"),
        _KS,
    ),
    SoundModel(
        "rubber band",
        "strings",
        (_pitch(90, 420), _ring(0.25, 0.9)),
        _rubber_band,
        ("rubber band twang", "plucked rubber band"),
        _KS,
    ),
    SoundModel(
        "ruler twang",
        "strings",
        (_pitch(22, 80), _ring(0.5, 1.8), Range("climb", 1.3, 4.5, log=True)),
        _ruler,
        ("ruler on a desk", "vibrating ruler"),
        _ROSSING,
    ),
    SoundModel(
        "bow and arrow",
        "strings",
        (_pitch(70, 190), _ring(0.25, 0.8), Range("intensity", 0.15, 1.0, attribute="intensity")),
        _bow_release,
        ("arrow shot", "bow release", "bowstring twang"),
        _KS,
    ),
    SoundModel(
        "jaw harp",
        "strings",
        (_pitch(55, 130), _ring(0.6, 2.2)),
        _jaw_harp,
        ("mouth harp", "jew's harp twang"),
        _COOK,
    ),
    SoundModel(
        "boing",
        "strings",
        (_pitch(90, 380), _ring(0.4, 1.6), Range("rate_hz", 6, 18, log=True, attribute="rate")),
        _boing,
        ("spring boing", "cartoon spring", "bouncy spring"),
        _COOK,
    ),
    SoundModel(
        "violin",
        "strings",
        (_pitch(196, 1200), Range("duration_s", 0.5, 3.6, attribute="length"), BRIGHTNESS),
        _violin,
        ("violin note", "bowed violin"),
        _ROSSING,
    ),
    SoundModel(
        "cello",
        "strings",
        (_pitch(65, 420), Range("duration_s", 0.7, 3.8, attribute="length"), BRIGHTNESS),
        _cello,
        ("cello note", "bowed cello"),
        _ROSSING,
    ),
    SoundModel(
        "flute",
        "winds",
        (
            _pitch(262, 1600),
            Range("duration_s", 0.5, 3.2, attribute="length"),
            Range("breath", 0.0, 1.0),
        ),
        _flute,
        ("flute note",),
        _COOK,
    ),
    SoundModel(
        "recorder",
        "winds",
        (
            _pitch(523, 1900),
            Range("duration_s", 0.4, 2.6, attribute="length"),
            Range("breath", 0.0, 1.0),
        ),
        _recorder,
        ("recorder note",),
        _COOK,
    ),
    SoundModel(
        "pan flute",
        "winds",
        (
            _pitch(260, 1300),
            Range("duration_s", 0.35, 2.4, attribute="length"),
            Range("breath", 0.0, 1.0),
        ),
        _pan_flute,
        ("panpipes", "pan pipe note"),
        _COOK,
    ),
    SoundModel(
        "blowing over a bottle",
        "winds",
        (
            _pitch(95, 420),
            Range("duration_s", 0.5, 2.6, attribute="length"),
            Range("breath", 0.0, 1.0),
        ),
        _bottle_blow,
        ("bottle blow", "blown bottle"),
        _COOK,
    ),
    SoundModel(
        "whistling",
        "winds",
        (
            Choice("pattern", ("rising", "falling", "steady", "wolf", "two-note"), "pattern"),
            _pitch(900, 2300),
            Range("duration_s", 0.35, 1.6, log=True, attribute="length"),
        ),
        _human_whistle,
        ("human whistle", "person whistling", "whistle"),
        _COOK,
    ),
    SoundModel(
        "didgeridoo",
        "winds",
        (_pitch(50, 95), Range("rate_hz", 1.0, 5.0, log=True, attribute="rate")),
        _didgeridoo,
        ("didgeridoo drone",),
        _ROSSING,
        steady=True,
    ),
)
