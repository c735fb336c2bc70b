"""Distance and room: how a dry, close sound arrives at a listener.

The direct sound falls by 6 dB a doubling of the distance and loses high frequencies to the air. The
reverberation of a room is equally loud everywhere in it, so the distance decides their ratio; both
are equally loud at the critical distance.

Source:
    Kuttruff, "Room Acoustics", chapters 3 and 5 (diffuse field, Sabine's reverberation and the
    critical distance); ISO 9613-1 for the absorption of air, fitted at 20 °C and 50 % humidity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import fft, signal

from clipsynth_rt.errors import InputError
from clipsynth_training.data.procedural.model import SAMPLE_RATE, Waveform

MIN_DISTANCE_M, MAX_DISTANCE_M = 0.3, 500.0
REFERENCE_M = 1.0
"""Distance at which the direct sound keeps its level."""

_DECAY_DB = 60.0
_EDGES_HZ = (500.0, 2000.0, 6000.0)
_MAX_TAIL_S = 3.0


@dataclass(frozen=True)
class Room:
    """A space by its reverberation.

    Attributes:
        reverberation_s: Time in which reverberation falls by 60 dB at middle frequencies; 0 for
            none.
        critical_m: Distance at which reverberation is as loud as the direct sound.
        pre_delay_s: Time from the direct sound to the first reflections.
        tilt: Reverberation time below 500 Hz, to 2 kHz, to 6 kHz and above, relative to
            ``reverberation_s``; walls and air absorb high frequencies.
        phrase: What a caption says, such as ``in a hall``.
    """

    reverberation_s: float
    critical_m: float
    pre_delay_s: float
    tilt: tuple[float, float, float, float]
    phrase: str


# critical distance 0.057 sqrt(V / T60): V = 40, 8000 and 20000 m³
ROOMS = {
    "dry": Room(0.0, math.inf, 0.0, (1.0, 1.0, 1.0, 1.0), ""),
    "small room": Room(0.35, 0.6, 0.003, (1.1, 1.0, 0.9, 0.7), "in a small room"),
    "hall": Room(1.9, 3.7, 0.018, (1.2, 1.0, 0.75, 0.45), "in a hall"),
    "cave": Room(3.2, 4.5, 0.025, (1.4, 1.0, 0.6, 0.3), "in a cave"),
    # scattering by ground and trees: late, weak and dull
    "outdoors": Room(0.9, 40.0, 0.04, (1.2, 1.0, 0.6, 0.3), "outdoors"),
}


def place(samples: Waveform, rng: np.random.Generator, distance_m: float, room: str) -> Waveform:
    """Return a sound as it is heard at a distance in a room.

    Args:
        samples: Mono [T] at ``SAMPLE_RATE``, dry and close.
        rng: Draws the reflections of the room.
        distance_m: From ``MIN_DISTANCE_M`` to ``MAX_DISTANCE_M``.
        room: A key of ``ROOMS``.

    Returns:
        float64 [T + tail]. The level is real: at ``REFERENCE_M`` the direct sound is as in
        ``samples``.

    Raises:
        InputError: If the room is not known or the distance is out of range.
    """
    if room not in ROOMS:
        raise InputError(f"room {room!r} is not known; choose from {', '.join(ROOMS)}")
    if not MIN_DISTANCE_M <= distance_m <= MAX_DISTANCE_M:
        raise InputError(
            f"distance_m {distance_m} is not between {MIN_DISTANCE_M} and {MAX_DISTANCE_M}"
        )
    samples = np.asarray(samples, np.float64)
    direct = absorb_in_air(samples, distance_m) * (REFERENCE_M / distance_m)
    response = impulse_response(ROOMS[room], rng)
    if not len(response):
        return direct
    reverberation = signal.oaconvolve(absorb_in_air(samples, distance_m), response)
    reverberation[: len(direct)] += direct
    return np.asarray(reverberation)


def impulse_response(room: Room, rng: np.random.Generator) -> Waveform:
    """Return the reverberation of a room [T], without the direct sound; empty if there is none.

    Its energy is that of the direct sound at the room's critical distance. Each band of noise
    decays by its own time.
    """
    if room.reverberation_s <= 0.0:
        return np.zeros(0)
    times = [min(room.reverberation_s * factor, _MAX_TAIL_S) for factor in room.tilt]
    length = fft.next_fast_len(round(max(times) * SAMPLE_RATE), real=True)
    delay = round(room.pre_delay_s * SAMPLE_RATE)
    spectrum = fft.rfft(rng.standard_normal(length))
    frequency = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    band = np.searchsorted(_EDGES_HZ, frequency)
    t = np.arange(length) / SAMPLE_RATE
    response = np.zeros(delay + length)
    for index, time in enumerate(times):
        noise = fft.irfft(np.where(band == index, spectrum, 0), length)
        response[delay:] += noise * 10 ** (-_DECAY_DB / 20 * t / time)
    return response * (REFERENCE_M / room.critical_m / math.sqrt(np.sum(response**2)))


def absorb_in_air(samples: Waveform, distance_m: float) -> Waveform:
    """Return ``samples`` [T] after ``distance_m`` through air, without the loss by spreading."""
    if not len(samples):
        return samples
    # the filter's response is short: 256 zeros keep its end off the beginning
    size = fft.next_fast_len(len(samples) + 256, real=True)
    frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    loss_db = 0.0048 * distance_m * (frequency / 1000.0) ** 1.55
    gain = 10 ** (-np.minimum(loss_db, 120.0) / 20)
    return np.asarray(fft.irfft(fft.rfft(samples, size) * gain, size)[: len(samples)])


def distance_word(distance_m: float) -> str:
    """Return what a listener calls a distance; empty where it is not worth a word."""
    if distance_m <= 0.7:
        return "close"
    if distance_m < 15.0:
        return ""
    return "distant" if distance_m < 60.0 else "far away"
