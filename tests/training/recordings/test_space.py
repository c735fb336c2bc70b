"""Physics of distance and rooms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from clipsynth_rt.errors import InputError
from clipsynth_training.data.procedural.model import SAMPLE_RATE
from clipsynth_training.data.procedural.space import (
    ROOMS,
    absorb_in_air,
    distance_word,
    impulse_response,
    place,
)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(SAMPLE_RATE)


def level_db(samples: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(samples)))


def test_doubling_the_distance_takes_six_decibels(noise):
    sections = signal.butter(4, 500, fs=SAMPLE_RATE, output="sos")  # where air absorbs nothing
    low = signal.sosfilt(sections, noise)
    near, far = (place(low, np.random.default_rng(1), d, "dry") for d in (5.0, 10.0))
    assert level_db(near) - level_db(far) == pytest.approx(6.02, abs=0.1)
    assert level_db(place(low, np.random.default_rng(1), 1.0, "dry")) == pytest.approx(
        level_db(low), abs=0.05
    )


def test_air_takes_high_frequencies_first(noise):
    far = absorb_in_air(noise, 100.0)
    assert len(far) == len(noise)

    def band(samples, low, high):
        sections = signal.butter(4, (low, high), "bandpass", fs=SAMPLE_RATE, output="sos")
        return level_db(signal.sosfilt(sections, samples))

    # ISO 9613-1, 20 °C and 50 %: about 0.5 dB at 1 kHz and 16 dB at 10 kHz over 100 m
    assert band(noise, 900, 1100) - band(far, 900, 1100) == pytest.approx(0.5, abs=0.2)
    assert band(noise, 9500, 10500) - band(far, 9500, 10500) == pytest.approx(16, abs=4)


@pytest.mark.parametrize("name", ["small room", "hall", "cave", "outdoors"])
def test_reverberation_equals_direct_sound_at_the_critical_distance(name):
    room = ROOMS[name]
    response = impulse_response(room, np.random.default_rng(2))
    assert np.sum(response**2) == pytest.approx(1 / room.critical_m**2)
    assert not response[: round(room.pre_delay_s * SAMPLE_RATE)].any()


@pytest.mark.parametrize("name", ["small room", "hall", "cave"])
def test_reverberation_time_is_that_of_the_room(name):
    room = ROOMS[name]
    response = impulse_response(room, np.random.default_rng(3))
    sections = signal.butter(4, (700, 1600), "bandpass", fs=SAMPLE_RATE, output="sos")
    energy = np.cumsum(signal.sosfilt(sections, response)[::-1] ** 2)[::-1]  # Schroeder 1965
    curve = 10 * np.log10(energy / energy[0])
    at = [np.argmax(curve < -drop) / SAMPLE_RATE for drop in (5, 25)]
    expected = min(room.reverberation_s, 3.0)
    assert 3 * (at[1] - at[0]) == pytest.approx(expected, rel=0.12)


def test_direct_to_reverberant_ratio_falls_with_distance():
    click = np.zeros(2000)
    click[0] = 1.0
    ratios = []
    for distance in (1.0, 4.0, 16.0):
        heard = place(click, np.random.default_rng(4), distance, "hall")
        delay = round(ROOMS["hall"].pre_delay_s * SAMPLE_RATE)
        ratios.append(level_db(heard[:delay]) - level_db(heard[delay:]))
    assert ratios[0] - ratios[1] == pytest.approx(12, abs=1.5)
    assert ratios[1] - ratios[2] == pytest.approx(12, abs=1.5)


def test_a_room_rings_on_and_a_dry_sound_does_not(noise):
    assert len(place(noise, np.random.default_rng(0), 2.0, "dry")) == len(noise)
    heard = place(noise, np.random.default_rng(0), 2.0, "cave")
    assert len(heard) > len(noise) + SAMPLE_RATE
    assert np.isfinite(heard).all()


def test_place_is_decided_by_its_generator(noise):
    first, again, other = (
        place(noise, np.random.default_rng(seed), 3.0, "hall") for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("distance", "room", "message"),
    [(1.0, "bathroom", "not known"), (0.0, "dry", "not between"), (1e9, "dry", "not between")],
)
def test_place_refuses_what_it_does_not_know(noise, distance, room, message):
    with pytest.raises(InputError, match=message):
        place(noise, np.random.default_rng(0), distance, room)


def test_place_refuses_a_distance_that_is_no_number(noise):
    with pytest.raises(InputError, match="nan is not between"):
        place(noise, np.random.default_rng(0), float("nan"), "dry")


def test_distance_words():
    assert [distance_word(d) for d in (0.5, 3, 20, 200)] == ["close", "", "distant", "far away"]
