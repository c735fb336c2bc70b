"""What else a concept may be called: where it is from, and what is left out."""

import dataclasses

import pytest

from clipsynth_rt.errors import DataError
from clipsynth_training.data.phrasings.make import (
    BY_HAND,
    EMOJI,
    SENSES,
    UNLIKE_THEIR_STYLE,
    collect,
    held_out,
    resembles,
    select,
    to_toml,
)
from clipsynth_training.data.phrasings.wordnet import WordNet
from clipsynth_training.data.sounds import load_concepts
from clipsynth_training.denoiser.conditions import (
    NAME_SHARE,
    TEXT_TEMPLATES,
    load_phrasings,
    phrasings,
)

CONCEPTS = {concept.name: concept for concept in load_concepts()}


@pytest.fixture
def wordnet(tmp_path):
    """Two meanings of a word in the layout of wndb(5WN)."""
    lines = [
        "06 n 02 drum 0 membranophone 0 001 @ 00000001 n 0000 | played by beating",
        "06 n 03 barrel 0 drum 1 oil_drum 0 001 @ 00000002 n 0000 | a vessel",
    ]
    data, offsets = b"  1 licence\n", []
    for line in lines:
        offsets.append(len(data))
        data += f"{len(data):08d} {line}\n".encode()
    (tmp_path / "data.noun").write_bytes(data)
    places = " ".join(f"{offset:08d}" for offset in offsets)
    (tmp_path / "index.noun").write_text(f"  1 licence\ndrum n 2 2 @ ~ 2 1 {places}  \n")
    return WordNet(tmp_path)


def test_wordnet_gives_meanings_in_order(wordnet):
    senses = wordnet.senses("Drum")
    assert [sense.lemmas for sense in senses] == [
        ("drum", "membranophone"),
        ("barrel", "drum", "oil drum"),
    ]
    assert senses[1].gloss == "a vessel"
    assert wordnet.senses("piano") == []


def test_a_missing_wordnet_is_named(tmp_path):
    with pytest.raises(DataError, match="apt-get install wordnet-base"):
        WordNet(tmp_path)


def test_only_the_meaning_that_sounds_is_collected(wordnet):
    found = collect([CONCEPTS["drum"]], wordnet)["drum"]
    assert "membranophone" in found
    assert "oil drum" not in found
    assert "drum beat" in found


def test_what_is_known_shared_or_held_out_is_dropped(tmp_path):
    concepts = [
        dataclasses.replace(CONCEPTS["dog"], keywords=("puppy",)),
        dataclasses.replace(CONCEPTS["drum"], keywords=("drums",)),
    ]
    found = {
        "dog": ["hound", "Hound", "a puppy", "pet", "noise maker", "howling dogs"],
        "drum": ["dog", "noise maker", "snare rattle", "tom-tom"],
    }
    path = tmp_path / "held_out.toml"
    path.write_text('"dog" = ["a dog that howls at night"]\n"drum" = ["rattling snares"]\n')
    assert select(found, concepts, held_out(path)) == {"dog": ["hound"], "drum": ["tom-tom"]}
    assert held_out(tmp_path / "none.toml") == set()


@pytest.mark.parametrize(
    ("text", "other", "same"),
    [
        ("ovation", "a standing ovation", True),
        ("a person whistling a tune", "the man whistles tunes", True),
        ("humming", "hum", True),
        ("rain on a roof", "rain on the window", False),
        ("woof", "dog", False),
    ],
)
def test_resemblance_to_what_is_held_out(text, other, same):
    assert resembles(text, [other]) == same


def test_the_table_that_ships_is_of_concepts_and_says_nothing_twice():
    table = load_phrasings()
    assert len(table) > 90
    assert table.keys() <= CONCEPTS.keys()
    texts = [text for listed in table.values() for text in listed]
    assert len(set(texts)) == len(texts)
    assert select(table, CONCEPTS.values(), set()) == table
    for names in (SENSES, EMOJI, BY_HAND, UNLIKE_THEIR_STYLE):
        assert set(names) <= CONCEPTS.keys()
    assert table["robot"] == [t for t in table["robot"] if t in to_toml(table)]


def test_a_name_keeps_its_share_of_its_phrasings():
    for name in CONCEPTS:
        texts = phrasings(name)
        plain = {template.format(query=name) for template in TEXT_TEMPLATES}
        assert sum(text in plain for text in texts) / len(texts) > 0.75 * NAME_SHARE
        assert texts[0] == f"a photo of {name}"
    assert phrasings("doorbell of mine") == [
        template.format(query="doorbell of mine") for template in TEXT_TEMPLATES
    ]
    assert "a photo of membranophone" in phrasings("drum")
