"""Write phrasings.toml, what else a concept may be called.

    apt-get install wordnet-base
    python -m clipsynth_training.data.phrasings.make --source-dir SOURCES

From WordNet the synonyms of each concept's meaning, from emojilib the keywords of its emoji, and
below by hand what sounds do, which neither knows. What another concept is called, and whatever a
held-out list of paraphrases holds, is left out: those measure how a voice takes words that it was
not taught. The table is committed, so training needs none of this.
"""

from __future__ import annotations

import argparse
import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from clipsynth_rt.files import write_text
from clipsynth_training.checkpoint import default_checkpoint
from clipsynth_training.clip.encoder import Clip, load_clip
from clipsynth_training.data.phrasings.wordnet import WordNet
from clipsynth_training.data.pictures.catalogue import EmojiNames
from clipsynth_training.data.sounds import Concept, load_concepts

TABLE = Path(__file__).with_name("phrasings.toml")
HELD_OUT = Path(__file__).parents[2] / "evaluate" / "paraphrases.toml"
_ARTICLES = ("a ", "an ", "the ")
_EMPTY = frozenset(
    "a an and at by for from in into is it its of on one or out over s some the to up who with "
    "someone somebody person people man men woman women that this there being are".split()
)
_ENDINGS = re.compile(r"(ings?|ers?|ed|es|s|e)$")

# Meanings in WordNet: (noun, which of its meanings). A concept that is not here has the first
# meaning of its name.
SENSES: Mapping[str, tuple[tuple[str, int], ...]] = {
    "bagpipes": (("bagpipe", 0),),
    "bass guitar": (("bass guitar", 0),),
    "bell": (("bell", 0), ("bell", 2)),
    "bird": (("birdsong", 0), ("bird", 0)),
    "bubbles": (("bubble", 0),),
    "car crash": (("collision", 0), ("smash-up", 0)),
    "choir": (("choir", 0),),
    "conga": (),
    "cymbal": (("cymbal", 0),),
    "dulcimer": (("dulcimer", 1),),
    "electric piano": (),
    "footsteps": (("footstep", 0), ("footfall", 0)),
    "french horn": (("french horn", 0),),
    "guitar": (("guitar", 0), ("acoustic guitar", 0)),
    "hand clap": (),
    "heartbeat": (("heartbeat", 0),),
    "horse": (("horse", 0), ("hoofbeat", 0)),
    "laughter": (("laughter", 0), ("cackle", 2)),
    "maracas": (("maraca", 0),),
    "organ": (("organ", 2),),
    "church organ": (("organ", 4),),
    "pan flute": (("panpipe", 0),),
    "punch": (("punch", 0),),
    "recorder": (("recorder", 3),),
    "scream": (("scream", 0),),
    "sea": (("surf", 0), ("sea", 0)),
    "siren": (("siren", 2), ("siren", 3)),
    "sleigh bells": (("sleigh bell", 0),),
    "stream": (("stream", 0), ("brook", 0)),
    "synthesizer": (("synthesizer", 1),),
    "taiko drum": (),
    "thunder": (("thunder", 1), ("thunderclap", 0)),
    "tom drum": (("tom-tom", 0),),
    "triangle": (("triangle", 4),),
    "trumpet": (("trumpet", 0),),
    "viola": (("viola", 2),),
    "whistling": (("whistling", 1),),
    "wind": (("wind", 0), ("gust", 0)),
    "wind chimes": (("wind chime", 0),),
}

# Emoji whose keywords may name a concept: slugs of unicode-emoji-json.
EMOJI: Mapping[str, tuple[str, ...]] = {
    "bird": ("bird",),
    "car": ("automobile", "oncoming-automobile"),
    "dog": ("dog-face", "dog"),
    "helicopter": ("helicopter",),
    "horse": ("horse",),
    "jet plane": ("airplane",),
    "laughter": ("face-with-tears-of-joy", "rolling-on-the-floor-laughing"),
    "rain": ("cloud-with-rain", "umbrella-with-rain-drops"),
    "robot": ("robot",),
    "scream": ("face-screaming-in-fear",),
    "sea": ("water-wave",),
    "siren": ("police-car-light", "ambulance", "police-car", "fire-engine"),
    "spaceship": ("flying-saucer", "rocket"),
    "telephone": ("telephone", "telephone-receiver"),
    "thunder": ("cloud-with-lightning", "cloud-with-lightning-and-rain"),
    "train": ("locomotive", "train"),
    "wind": ("wind-face", "leaf-fluttering-in-wind"),
    "drum": ("drum",),
    "explosion": ("collision", "bomb"),
    "applause": ("clapping-hands",),
    "punch": ("oncoming-fist", "boxing-glove"),
    "heartbeat": ("beating-heart",),
    "footsteps": ("footprints", "person-walking"),
    "gunshot": ("water-pistol",),
    "bell": ("bell",),
}
MIN_FIT = 0.25
"""Least cosine of an emoji's keyword and its concept's name; it must fit no concept better."""

# What one says of a sound by how it is made.
PATTERNS: Mapping[str, tuple[str, ...]] = {
    "melodic": ("{name} note", "{name} music"),
    "hit": ("{name} hit", "striking the {name}"),
    "beat": ("{name} beat", "{name} rhythm"),
    "effect": ("{name} noise", "{name} sound effect"),
}

UNLIKE_THEIR_STYLE = frozenset(
    ("choir", "crow", "metronome", "orchestra hit", "record scratch", "robot", "timbales")
)

# Keywords and synonyms that mean something else to most, or too much.
TOO_WIDE = frozenset(
    "air alert angry animal attack bones communication congrats dial dog2 doge drop eggbeater "
    "equestrian fearful feet flight happy happytears hike horror lick machine move nasa passenger "
    "patrol pedestrian pet poke praise scared shoot shuttle slug song step syrinx terrorism "
    "train2 transportation trump tsunami tympan tympanum vehicle weather".split()
) | {"sweet potato", "face with tears of joy", "leaf fluttering in wind", "oncoming fist"}

BY_HAND: Mapping[str, tuple[str, ...]] = {
    "drum": ("drum roll", "percussion", "a drummer at the drums"),
    "bass drum": ("boom of a bass drum", "deep thumping drum"),
    "snare drum": ("military snare", "rattling snare"),
    "hi-hat": ("hats", "ticking hi-hat"),
    "cymbal": ("crashing cymbals", "splash of a cymbal"),
    "hand clap": ("clap of the hands", "handclap"),
    "record scratch": ("vinyl scratch", "scratching a record"),
    "metronome": ("tick tock", "clicking beat"),
    "referee whistle": ("whistle blow", "coach's whistle"),
    "rain": ("pouring rain", "drizzle", "rain on a roof", "downpour"),
    "thunder": ("rumbling sky", "rolling thunder", "lightning strike"),
    "wind": ("breeze", "windy weather", "wind blowing", "blustery day"),
    "stream": ("babbling water", "creek", "water running over stones"),
    "bubbles": ("gurgling", "bubbling", "blub blub"),
    "sea": ("waves on a beach", "breaking waves", "shore", "tide"),
    "dog": ("hound", "woof", "a dog that barks", "canine"),
    "horse": ("hoofbeats", "trotting horse", "pony", "clip clop"),
    "bird": ("chirping", "twitter of birds", "songbird"),
    "crow": ("caw", "rook", "crows cawing"),
    "telephone": ("a phone that rings", "telephone bell", "dialling phone"),
    "creaking door": ("creak", "rusty hinge", "an old door opening"),
    "door slam": ("a door banged shut", "bang of a door"),
    "wind chimes": ("tinkling chimes",),
    "car": ("driving car", "vehicle", "engine running"),
    "car brakes": ("screech of tyres", "skid", "braking hard"),
    "car crash": ("crashing cars", "wreck", "pile-up"),
    "siren": ("emergency vehicle", "fire engine", "wailing siren"),
    "train": ("train passing", "rail", "steam engine"),
    "jet plane": ("plane taking off", "airliner", "jet fighter"),
    "spaceship": ("spacecraft", "alien ship", "space rocket"),
    "helicopter": ("rotor blades", "whirring helicopter"),
    "laughter": ("giggle", "chuckling", "people who laugh", "ha ha ha"),
    "scream": ("yell", "a person screaming", "shout of terror"),
    "punch": ("blow", "smack", "thump of a fist"),
    "heartbeat": ("pulse", "thumping heart"),
    "footsteps": ("someone walking", "tread", "footfalls"),
    "applause": ("ovation", "clapping audience", "a crowd that claps"),
    "gunshot": ("firing a gun", "shooting", "bang of a gun"),
    "machine gun": ("burst of gunfire", "automatic rifle"),
    "laser gun": ("blaster", "pew pew", "laser beam"),
    "explosion": ("blast of a bomb", "boom", "blowing up"),
    "robot": ("droid", "mechanical voice", "cyborg"),
    "choir": ("people singing", "choral singing", "singing voices"),
    "whistling": ("a person whistling a tune",),
    "synthesizer": ("electronic music", "synth sound"),
    "distorted guitar": ("rock guitar", "fuzz guitar"),
    "electric guitar": ("amplified guitar",),
    "guitar": ("strummed guitar", "nylon string guitar"),
    "organ": ("rock organ", "drawbar organ"),
    "church organ": ("organ in a cathedral",),
    "string orchestra": ("strings", "violins playing together"),
    "pizzicato strings": ("pizzicato", "plucking of strings"),
    "orchestra hit": ("orchestra stab", "tutti chord"),
    "bagpipes": ("bagpipe", "pipes of scotland"),
    "kalimba": ("african thumb piano",),
    "shamisen": ("three-stringed japanese lute",),
    "koto": ("japanese plucked strings",),
    "taiko drum": ("big japanese drum",),
    "double bass": ("jazz bass", "bass fiddle"),
    "synth bass": ("electronic bass",),
    "brass band": ("brass players", "trumpets and trombones"),
    "music box": ("tinkling music box",),
}


def normalised(text: str) -> str:
    """Return ``text`` as it is compared: lower case, single spaces, no article at the start."""
    text = " ".join(text.lower().replace("-", " ").split())
    for article in _ARTICLES:
        text = text.removeprefix(article)
    return text


def content(text: str) -> frozenset[str]:
    """Return the words that carry a text's meaning, without their endings."""
    words = set(re.findall(r"[a-z0-9]+", text.lower())) - _EMPTY
    return frozenset(
        _undoubled(_ENDINGS.sub("", word)) if len(word) > 3 else word for word in words
    )


def _undoubled(stem: str) -> str:
    return stem[:-1] if len(stem) > 2 and stem[-1] == stem[-2] else stem


def collect(concepts: Iterable[Concept], wordnet: WordNet) -> dict[str, list[str]]:
    """Return what each source calls each concept, unchecked."""
    found = {}
    for concept in concepts:
        patterns = () if concept.name in UNLIKE_THEIR_STYLE else PATTERNS[concept.style]
        texts = [pattern.format(name=concept.name) for pattern in patterns]
        for noun, which in SENSES.get(concept.name, ((concept.name, 0),)):
            texts += [
                lemma.lower() for s in wordnet.senses(noun)[which : which + 1] for lemma in s.lemmas
            ]
        texts += BY_HAND.get(concept.name, ())
        found[concept.name] = texts
    return found


def emoji_keywords(
    concepts: tuple[Concept, ...], emoji: EmojiNames, clip: Clip
) -> dict[str, list[str]]:
    """Return the keywords of each concept's emoji that fit it, and no other concept better."""
    names = [concept.name for concept in concepts]
    known = clip.encode_queries(names)
    kept: dict[str, list[str]] = {}
    for name, slugs in EMOJI.items():
        keywords = list(dict.fromkeys(k for slug in slugs for k in emoji.by_slug[slug]))
        fit = clip.encode_queries(keywords) @ known.T
        for keyword, row in zip(keywords, fit, strict=True):
            best = int(row.argmax())
            if names[best] == name and row[best] >= MIN_FIT and keyword.isascii():
                kept.setdefault(name, []).append(keyword)
    return kept


def held_out(path: Path) -> set[str]:
    """Return every text of a held-out list; none if there is no list."""
    if not path.is_file():
        return set()
    texts: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                texts.append(key)
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(tomllib.loads(path.read_text(encoding="utf-8")))
    return set(texts)


def resembles(text: str, others: Iterable[str]) -> bool:
    """Say whether ``text`` says nothing but what one of ``others`` says, or all that it says."""
    mine = content(text)
    return any(mine <= theirs or theirs <= mine for theirs in map(content, others) if theirs)


def select(
    found: Mapping[str, Iterable[str]], concepts: Iterable[Concept], left_out: set[str]
) -> dict[str, list[str]]:
    """Drop what is known already, is said of two concepts, or resembles what is held out."""
    concepts = tuple(concepts)
    left_out = left_out - {concept.name for concept in concepts}
    known = {normalised(text) for c in concepts for text in (c.name, *c.keywords)}
    said = Counter(text for texts in found.values() for text in {normalised(t) for t in texts})
    table = {}
    for name, texts in found.items():
        distinct = {normalised(text): text for text in reversed(list(texts))}
        kept = [
            text
            for text in dict.fromkeys(texts)
            if distinct[normalised(text)] == text
            and normalised(text) not in known | TOO_WIDE
            and not resembles(text, left_out)
            and said[normalised(text)] == 1
        ]
        if kept:
            table[name] = kept
    return table


def to_toml(table: Mapping[str, Iterable[str]]) -> str:
    """Return the table as TOML."""
    lines = [
        "# What else a concept may be called, for text augmentation. Written by make_phrasings.py",
        "# from WordNet 3.0, emojilib and its own list: change that, not this.",
        *(f"{json.dumps(name)} = {json.dumps(list(texts))}" for name, texts in table.items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source-dir", type=Path, default=Path("/"), help="from data fetch")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--held-out", type=Path, default=HELD_OUT, help="texts to leave out")
    parser.add_argument("-o", "--out", type=Path, default=TABLE)
    arguments = parser.parse_args()
    concepts = load_concepts()
    found = collect(concepts, WordNet(arguments.wordnet))
    emoji = EmojiNames(arguments.source_dir)
    for name, keywords in emoji_keywords(concepts, emoji, load_clip(default_checkpoint())).items():
        found[name] += keywords
    table = select(found, concepts, held_out(arguments.held_out))
    write_text(arguments.out, to_toml(table))
    print(f"{arguments.out}: {sum(map(len, table.values()))} phrasings of {len(table)} concepts")  # noqa: T201


if __name__ == "__main__":
    main()
