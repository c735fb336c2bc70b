"""Sirens, alarms and signals.

Source:
    Farnell, "Designing Sound" (2010), practicals 1 to 5 (telephone, DTMF, alarms, police siren);
    ITU-T E.180 (telephone tones).
"""

from __future__ import annotations

import numpy as np

from clipsynth_training.data.procedural import synth_tools as st
from clipsynth_training.data.procedural.model import Choice, Range, SoundModel, Waveform
from clipsynth_training.data.procedural.synth_tools import Parameters, Rng


def _siren(p: Parameters, rng: Rng) -> Waveform:
    f0, rate, pattern = float(p["f0_hz"]), float(p["rate_hz"]), str(p["pattern"])
    duration = 3.9
    cycle = st.phase(rate * {"wail": 0.4, "yelp": 4.0, "hi-lo": 1.0}[pattern], duration) % 1.0
    if pattern == "hi-lo":
        pitch = np.where(cycle < 0.5, 1.33 * f0, f0)
    else:
        pitch = f0 * 2 ** (1.0 - np.abs(2.0 * cycle - 1.0))
    wave = st.bandpass(np.tanh(3.0 * st.sine(pitch, duration)), 400.0, 4000.0)
    return st.finish(wave * st.plateau(duration, 0.05, 0.1))


def _beeps(p: Parameters, rng: Rng) -> Waveform:
    f0, rate = float(p["f0_hz"]), float(p["rate_hz"])
    length = 0.5 / rate
    tone = np.tanh(2.0 * st.sine(f0, length)) * st.plateau(length, 0.004, 0.006)
    return st.finish(st.lay(np.arange(max(2, int(3.5 * rate))) / rate, lambda _: tone))


def _horn(p: Parameters, rng: Rng) -> Waveform:
    f0, duration = float(p["f0_hz"]), float(p["duration_s"])
    chord = st.sum_of(st.saw(f0 * ratio, duration) for ratio in (1.0, 1.26))
    return st.finish(st.lowpass(chord, 9 * f0) * st.plateau(duration, 0.03, 0.08))


def _pitch(low: float, high: float) -> Range:
    return Range("f0_hz", low, high, log=True, attribute="pitch")


def _rate(low: float, high: float) -> Range:
    return Range("rate_hz", low, high, log=True, attribute="rate")


_LENGTH = Range("duration_s", 0.3, 3.5, log=True, attribute="length")
_make = st.family("alarms", "Farnell 2010, Designing Sound, practicals 1-5; ITU-T E.180")

MODELS: tuple[SoundModel, ...] = (
    _make(
        "siren",
        _siren,
        _pitch(350, 900),
        _rate(0.6, 1.6),
        Choice("pattern", ("wail", "yelp", "hi-lo"), "pattern"),
        names=("police siren",),
        steady=True,
    ),
    _make(
        "smoke alarm",
        _beeps,
        _pitch(2500, 3800),
        _rate(1.0, 4.0),
        names=("fire alarm",),
        steady=True,
    ),
    _make(
        "truck backing up",
        _beeps,
        _pitch(900, 1600),
        _rate(0.8, 1.8),
        names=("reversing truck",),
        steady=True,
    ),
    _make("car horn", _horn, _pitch(280, 520), _LENGTH, names=("honking",)),
    _make("ship horn", _horn, _pitch(60, 160), _LENGTH, names=("foghorn",)),
)
