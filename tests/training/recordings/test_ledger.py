"""The ledger agrees with itself."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict

import pytest

from clipsynth_rt.errors import InputError
from clipsynth_training.data.recordings import ledger
from clipsynth_training.data.recordings.ledger import credits, load_recordings, parse_ledger
from clipsynth_training.data.recordings.packages import PACKAGES

HEAD = ",".join(ledger.COLUMNS)
ROW = f"freedoom,a/b.wav,{'0' * 64},A,CC0-1.0,,thunder,weather,loud;far,0.5,,train,t1,2.0,44100"


@pytest.fixture(scope="module")
def recordings() -> tuple[ledger.Recording, ...]:
    return load_recordings()


def test_every_recording_is_permissive_named_and_once(recordings):
    assert len(recordings) > 700
    assert {r.license for r in recordings} <= set(ledger.LICENSES)
    assert {r.package for r in recordings} <= set(PACKAGES)
    assert all(r.concept == r.concept.strip().lower() for r in recordings)
    assert len({r.sha256 for r in recordings}) == len(recordings)
    assert len({(r.package, r.path) for r in recordings}) == len(recordings)
    assert all(len(r.sha256) == 64 for r in recordings)


def test_takes_and_source_pages_stand_on_one_side_of_the_split(recordings):
    sides = defaultdict(set)
    for r in recordings:
        sides["take", r.take].add(r.split)
        if "/sounds/" in r.source:  # the page of one recording, not of a collection
            sides["source", r.source].add(r.split)
    assert {key for key, splits in sides.items() if len(splits) > 1} == set()


def test_a_concept_is_never_held_out_as_a_whole(recordings):
    total = Counter(r.concept for r in recordings)
    test = Counter(r.concept for r in recordings if r.split == "test")
    assert all(total[concept] >= 4 and test[concept] <= total[concept] / 2 for concept in test)
    assert 0.1 < sum(test.values()) / len(recordings) < 0.25


def test_a_concept_has_one_group(recordings):
    groups = defaultdict(set)
    for r in recordings:
        groups[r.concept].add(r.group)
    assert {concept for concept, found in groups.items() if len(found) > 1} == set()


def test_share_alike_and_doubtful_recordings_are_left_out(recordings):
    paths = "\n".join(f"{r.package}/{r.path}" for r in recordings)
    for left_out in (
        "opensfx.cat/24.wav",
        "loop_amen",
        "/Skin.ocg/",
        "heavy rocket hit",
        "explosion huge",
        "default_dirt_footstep",
        "explore_farm_animals",
        "memory-sound",
        "xpanes_",
        "DSPLPAIN",
    ):
        assert left_out not in paths


def test_parse_reads_a_row():
    (recording,) = parse_ledger([HEAD, ROW])
    assert recording.names == ("loud", "far")
    assert (recording.start_s, recording.end_s, recording.rate) == (0.5, None, 44100)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("CC0-1.0", "GPL-3.0", "license"),
        ("weather", "politics", "group"),
        (",train,", ",both,", "split"),
        ("a/b.wav", "../b.wav", "no path below"),
        ("a/b.wav", "/b.wav", "no path below"),
        ("thunder", "", "concept is empty"),
        (",0.5,", ",x,", "could not convert"),
        (",0.5,", ",3.0,", "contradict"),
        (",44100", "", "columns"),
    ],
)
def test_parse_names_line_and_fault(old, new, message):
    with pytest.raises(InputError, match=f"line 2.*{message}"):
        list(parse_ledger([HEAD, ROW.replace(old, new)]))


def test_parse_refuses_other_columns():
    with pytest.raises(InputError, match="columns must be"):
        list(parse_ledger(["a,b", "1,2"]))


def test_credits_name_every_author_with_package_and_licence(recordings):
    text = credits(recordings)
    assert all(f"- {r.author}: " in text for r in recordings)
    assert "### openclonk-data: " in text
    one = dataclasses.replace(recordings[0], source="https://example.org/1")
    assert "<https://example.org/1>" in credits([one])
