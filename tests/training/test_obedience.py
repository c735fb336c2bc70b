"""Measures of sounds whose physics is known, and the order that they put sounds into."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from clipsynth_training.evaluate.obedience import obedience
from clipsynth_training.evaluate.obedience.score import (
    Ladder,
    in_order,
    load_ladders,
    queries_of,
)
from clipsynth_training.evaluate.obedience.signals import (
    MEASURES,
    centroid_hz,
    decay_s,
    length_s,
    level_db,
    onset_rate_hz,
    onset_times_s,
    pitch_hz,
)

RATES = (22050, 44100)


def seconds(duration, rate):
    return np.arange(round(duration * rate)) / rate


def sine(hz, duration=1.0, rate=22050, peak=0.5):
    return peak * np.sin(2 * np.pi * hz * seconds(duration, rate) + 0.3)


def noise(duration=1.0, rate=22050, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, round(duration * rate))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("hz", [55.0, 110.0, 440.0, 1234.5, 3000.0])
def test_the_pitch_of_a_sine(hz, rate):
    assert pitch_hz(sine(hz, rate=rate), rate) == pytest.approx(hz, rel=0.01)


@pytest.mark.parametrize("rate", RATES)
def test_the_pitch_of_harmonics_is_their_fundamental_even_where_that_is_missing(rate):
    t = seconds(1.0, rate)
    harmonics = sum(np.sin(2 * np.pi * 200 * k * t) / k for k in range(1, 9))
    assert pitch_hz(harmonics, rate) == pytest.approx(200, rel=0.01)
    missing = sum(np.sin(2 * np.pi * 200 * k * t) for k in (2, 3, 4))
    assert pitch_hz(missing, rate) == pytest.approx(200, rel=0.01)


def test_the_pitch_of_a_decaying_tone_with_noise_and_of_a_short_beep():
    t = seconds(1.0, 22050)
    tone = np.exp(-4 * t) * np.sin(2 * np.pi * 330 * t) + 0.01 * noise()
    assert pitch_hz(tone, 22050) == pytest.approx(330, rel=0.01)
    beep = np.pad(sine(1000, 0.1), (2000, 8000))
    assert pitch_hz(beep, 22050) == pytest.approx(1000, rel=0.01)


def test_noise_and_silence_have_no_pitch():
    assert np.isnan(pitch_hz(noise(), 22050))
    assert np.isnan(pitch_hz(np.zeros(22050), 22050))


@pytest.mark.parametrize("rate", RATES)
def test_length_is_the_time_over_30_db(rate):
    tone = np.pad(sine(500, 0.75, rate), (rate // 4, rate))
    assert length_s(tone, rate) == pytest.approx(0.75, abs=0.02)
    # e^(-t / 0.1) falls by 30 dB in 0.345 s
    t = seconds(2.0, rate)
    decay = np.exp(-t / 0.1) * np.sin(2 * np.pi * 800 * t)
    assert length_s(decay, rate) == pytest.approx(0.1 * np.log(10**1.5), abs=0.02)
    assert length_s(np.zeros(rate), rate) == 0.0


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("per_second", [1.0, 2.5, 8.0, 12.0])
def test_the_rate_of_clicks_and_of_notes(per_second, rate):
    t = seconds(4.0, rate)
    clicks = np.random.default_rng(0).normal(size=len(t)) * np.exp(-60 * (t % (1 / per_second)))
    assert onset_rate_hz(clicks, rate) == pytest.approx(per_second, rel=0.05)
    notes = np.sin(2 * np.pi * 600 * t) * np.exp(-8 * per_second * (t % (1 / per_second)))
    assert onset_rate_hz(notes, rate) == pytest.approx(per_second, rel=0.05)


def test_onsets_are_where_they_are():
    sound = np.zeros(44100)
    for at in (0.0, 0.5, 1.25):
        first = round(at * 22050)
        sound[first : first + 4000] += sine(700, 4000 / 22050) * np.linspace(1, 0, 4000)
    np.testing.assert_allclose(onset_times_s(sound, 22050), [0.0, 0.5, 1.25], atol=0.02)
    assert onset_rate_hz(sine(400, 2.0), 22050) == pytest.approx(0.5, rel=0.01)
    assert onset_times_s(sine(400, 2.0), 22050) == pytest.approx([0.0], abs=0.02)
    assert onset_rate_hz(np.zeros(44100), 22050) == pytest.approx(0.5)


@pytest.mark.parametrize("rate", RATES)
def test_the_centroid_is_the_mean_frequency(rate):
    two = sine(1000, rate=rate) + sine(3000, rate=rate)
    assert centroid_hz(two, rate) == pytest.approx(2000, rel=0.02)
    band = signal.firwin(2047, [2000, 4000], pass_zero=False, fs=rate)
    narrow = signal.convolve(noise(4.0, rate), band, mode="same")
    assert centroid_hz(narrow, rate) == pytest.approx(3000, rel=0.02)
    # silence around it changes nothing
    padded = np.pad(two, (rate, rate))
    assert centroid_hz(padded, rate) == pytest.approx(centroid_hz(two, rate), rel=0.02)


def test_the_level_is_that_of_the_sound_and_not_of_the_silence_around_it():
    tone = sine(500, 1.0, peak=0.1)
    assert level_db(tone, 22050) == pytest.approx(20 * np.log10(0.1 / np.sqrt(2)), abs=0.1)
    padded = np.pad(tone, 22050)
    assert level_db(padded, 22050) == pytest.approx(level_db(tone, 22050), abs=0.2)
    assert level_db(2 * tone, 22050) - level_db(tone, 22050) == pytest.approx(6.02, abs=0.01)
    assert level_db(np.zeros(22050), 22050) == -np.inf


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("tau", [0.03, 0.1, 0.4])
def test_decay_is_the_time_of_60_db(tau, rate):
    t = seconds(4.0, rate)
    for carrier in (np.sin(2 * np.pi * 900 * t), noise(4.0, rate)):
        sound = np.pad(np.exp(-t / tau) * carrier, (rate // 5, 0))
        assert decay_s(sound, rate) == pytest.approx(tau * np.log(1000), rel=0.1)


def test_what_does_not_decay():
    assert np.isnan(decay_s(np.zeros(22050), 22050))
    held = sine(500, 2.0)
    assert decay_s(held, 22050) == np.inf
    assert decay_s(np.pad(held, (0, 22050)), 22050) == np.inf


def test_values_in_order():
    values = np.array([[1.0, 2.0, 1.0, np.nan, np.inf, 1.0], [2.0, 1.0, 1.0, 1.0, np.inf, np.inf]])
    assert in_order(values).tolist() == [1.0, 0.0, 0.5, 0.0, 0.5, 1.0]
    assert in_order(np.array([[1.0, 1.0, 3.0], [2.0, 1.0, 2.0], [3.0, 2.0, 1.0]])).tolist() == [
        1.0, 0.5, 0.0,
    ]  # fmt: skip


def test_the_list_has_what_the_protocol_asks_for():
    ladders = load_ladders()
    pairs = [ladder for ladder in ladders if len(ladder.queries) == 2]
    triples = [ladder for ladder in ladders if len(ladder.queries) == 3]
    assert len(pairs) >= 60
    assert len(triples) == 20
    assert {ladder.attribute for ladder in pairs} >= {
        "pitch", "length", "rate", "brightness", "loudness", "distance", "size",
    }  # fmt: skip
    assert {ladder.measure for ladder in ladders} == set(MEASURES)
    assert len({ladder.queries for ladder in ladders}) == len(ladders)
    for ladder in ladders:
        assert len(set(ladder.queries)) == len(ladder.queries)


def test_a_voice_that_obeys_and_one_that_does_not():
    ladders = [
        Ladder("pitch", "pitch_hz", ("low", "high")),
        Ladder("pitch", "pitch_hz", ("low", "middle", "high")),
        Ladder("loudness", "level_db", ("quiet", "loud")),
        Ladder("loudness", "level_db", ("loud", "quiet")),
    ]
    pitches = {"low": 200.0, "middle": 400.0, "high": 800.0}
    asked = []

    def synthesize(query, seeds):
        asked.append(query)
        peak = 0.05 if query == "quiet" else 0.5
        return [sine(pitches.get(query, 300.0) + seed, peak=peak) for seed in range(seeds)]

    report = obedience(synthesize, 22050, seeds=4, ladders=ladders)
    assert asked == list(queries_of(ladders)) == ["low", "high", "middle", "quiet", "loud"]
    assert report["by_attribute"]["pitch"]["share"] == 1.0
    assert report["by_attribute"]["pitch"]["share_interval"][0] < 0.6  # four of four say little
    assert report["by_attribute"]["loudness"] == {
        "share": 0.5, "share_interval": pytest.approx([0.125, 0.875]), "of": 8, "unmeasured": 0,
    }  # fmt: skip
    assert report["pairs"]["of"] == 12
    assert report["pairs"]["share"] == pytest.approx(8 / 12)
    assert report["triples"]["share"] == 1.0
    assert report["by_pair"]["low < high"] == 1.0


def test_a_sound_without_a_pitch_is_wrong_and_counted():
    ladder = [Ladder("pitch", "pitch_hz", ("low", "high"))]
    report = obedience(lambda _, seeds: [noise()] * seeds, 22050, seeds=2, ladders=ladder)
    assert report["by_attribute"]["pitch"]["unmeasured"] == 2
    assert report["pairs"]["share"] == 0.0
