"""Hits of known shape: what begins late, is cut, or trails silence."""

from __future__ import annotations

import numpy as np
import pytest

from clipsynth_training.evaluate.one_shots import one_shots
from clipsynth_training.evaluate.one_shots.score import CHECKS, check_hit, load_hits

RATES = (22050, 44100)


def hit(seconds=1.0, tau=0.1, rate=22050):
    t = np.arange(round(seconds * rate)) / rate
    return np.exp(-t / tau) * np.sin(2 * np.pi * 300 * t + 1.0)


def failed(sound, rate=22050):
    return {name for name, passed in check_hit(sound, rate).items() if not passed}


@pytest.mark.parametrize("rate", RATES)
def test_a_whole_hit_passes(rate):
    # 60 dB down after 0.69 s
    assert failed(hit(0.75, rate=rate), rate) == set()
    # a click of 5 ms
    assert failed(hit(0.06, 0.002, rate), rate) == set()
    # with a fade over the last 10 ms
    faded = hit(0.6, rate=rate)
    fade = round(0.01 * rate)
    faded[-fade:] *= np.linspace(1, 0, fade)
    assert failed(faded, rate) == set()


@pytest.mark.parametrize("rate", RATES)
def test_a_late_beginning(rate):
    late = np.pad(hit(0.75, rate=rate), (round(0.02 * rate), 0))
    assert failed(late, rate) == {"starts_at_once"}
    just = np.pad(hit(0.75, rate=rate), (round(0.008 * rate), 0))
    assert failed(just, rate) == set()
    t = np.arange(rate) / rate
    swell = np.minimum(1.0, t / 0.3) * np.exp(-np.maximum(t - 0.3, 0) / 0.08)
    assert "starts_at_once" in failed(swell * np.sin(2 * np.pi * 300 * t), rate)


@pytest.mark.parametrize("rate", RATES)
def test_a_tail_that_is_cut(rate):
    cut = hit(0.2, rate=rate)  # 17 dB down where it ends
    assert failed(cut, rate) == {"ends_by_itself", "no_cut_edge"}
    # the same within a longer clip
    gated = np.pad(cut, (0, round(0.05 * rate)))
    assert failed(gated, rate) == {"no_cut_edge"}


@pytest.mark.parametrize("rate", RATES)
def test_silence_after_the_tail(rate):
    long = np.pad(hit(0.75, rate=rate), (0, rate // 5))
    assert failed(long, rate) == {"no_silence_after"}
    assert failed(np.pad(hit(0.75, rate=rate), (0, rate // 50)), rate) == set()


def test_silence_is_no_hit():
    assert failed(np.zeros(22050)) == set(CHECKS)
    assert failed(np.zeros(0)) == set(CHECKS)


def test_a_report_of_good_and_bad_hits():
    def synthesize(query, seeds):
        good = hit(0.75)
        return [good if query == "drum" or seed == 0 else hit(0.2) for seed in range(seeds)]

    report = one_shots(synthesize, 22050, seeds=4, hits=["drum", "gunshot"])
    assert report["clips"] == 8
    assert report["usable"] == pytest.approx(5 / 8)
    assert report["starts_at_once"] == 1.0
    assert report["starts_at_once_interval"][0] < 0.8
    assert report["no_cut_edge"] == pytest.approx(5 / 8)
    assert report["by_hit"] == {"drum": 1.0, "gunshot": 0.25}


def test_there_are_forty_hits():
    assert len(load_hits()) == len(set(load_hits())) == 40
