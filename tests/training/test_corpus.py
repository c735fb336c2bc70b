"""The corpus's second edition: captions that are true, sides that stay apart, whole clips."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from clipsynth_rt.errors import DataError
from clipsynth_training.data.corpus import build
from clipsynth_training.data.corpus.captions import (
    LEVELS,
    held_out_words,
    level_of,
    write_caption,
)
from clipsynth_training.data.corpus.catalogue import CorpusConcept, canonical_name, merge_sources
from clipsynth_training.data.corpus.sources import ProceduralSource
from clipsynth_training.data.procedural.catalogue import load_models
from clipsynth_training.data.procedural.model import SAMPLE_RATE

MODELS = {model.concept: model for model in load_models()}


def captions(attributes: dict[str, str], *, held_out: bool = False, count: int = 200) -> list[str]:
    rng = np.random.default_rng(0)
    return [write_caption(("bell",), attributes, rng, held_out=held_out) for _ in range(count)]


def test_the_thirds_of_a_range_have_names() -> None:
    assert [level_of("pitch", p) for p in (0.0, 0.5, 1.0)] == ["low", "middle", "high"]
    assert level_of("loudness", 0.5) is None


def test_a_bare_name_is_said_often_and_attributes_too() -> None:
    said = captions({"pitch": "low"})
    bare = sum("bell" in text and len(text.split()) <= 4 for text in said)
    assert any(text == "bell" for text in said)
    assert 0.2 < sum("low" in t or "deep" in t or "bass" in t for t in said) / len(said) < 0.8
    assert bare > 20


def test_held_out_words_never_meet_training() -> None:
    attributes = {name: levels[0] for name, levels in LEVELS.items()}
    held_out = held_out_words()
    assert held_out
    for text in captions(attributes, count=600):
        assert not any(f" {word} " in f" {text.replace(',', ' ')} " for word in held_out), text
    asked = captions({"pitch": "low"}, held_out=True)
    assert any("lower-pitched" in t or "down low" in t or "deep pitch" in t for t in asked)


def test_articles_agree() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        text = write_caption(("air horn", "footsteps"), {"loudness": "loud"}, rng)
        assert " a air" not in f" {text}"
        assert "a footsteps" not in text


def test_attributes_of_a_procedural_clip_are_those_of_its_parameters() -> None:
    source = ProceduralSource(MODELS["beep"])
    seen = set()
    for seed in range(40):
        clip = source.draw("train", np.random.default_rng(seed))
        pitch = float(clip.parameters["f0_hz"])
        spectrum = np.abs(np.fft.rfft(clip.samples * np.hanning(len(clip.samples))))
        measured = np.argmax(spectrum) * SAMPLE_RATE / len(clip.samples)
        if clip.attributes["pitch"] == "low":
            assert measured < 800
        if clip.attributes["pitch"] == "high":
            assert measured > 1000
        seen.add(clip.attributes["pitch"])
        assert pitch > 0
    assert seen == {"low", "middle", "high"}


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_clip_ends_by_itself_and_is_not_clipped(split: str) -> None:
    for name in ("door slam", "laser gun", "rain", "heartbeat"):
        clip = ProceduralSource(MODELS[name]).draw(split, np.random.default_rng(5))
        assert np.abs(clip.samples).max() <= 1.0
        assert abs(clip.samples[-1]) < 1e-3
        assert 0.03 < len(clip.samples) / SAMPLE_RATE <= 4.1


def test_one_thing_has_one_name() -> None:
    assert canonical_name("glass shattering") == canonical_name("glass breaking")
    assert canonical_name("beep") == "beep"


def small(names: tuple[str, ...], tmp_path: Path) -> dict[str, CorpusConcept]:
    found = merge_sources([MODELS[name] for name in names], [], [], tmp_path, None)
    return {concept.name: concept for concept in found}


def test_every_concept_has_clips_on_every_side(tmp_path: Path) -> None:
    concepts = small(("beep", "rain", "heartbeat"), tmp_path)
    plans = build.plan_clips(list(concepts.values()), 30, seed=0)
    assert len({plan.id for plan in plans}) == len(plans)
    for name in concepts:
        assert {p.split for p in plans if p.concept == name} == {"train", "validation", "test"}
    with pytest.raises(DataError, match="ask for at least 9"):
        build.plan_clips(list(concepts.values()), 8, seed=0)


def test_a_corpus_has_captions_and_says_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    concepts = small(("beep", "laser gun"), tmp_path)
    monkeypatch.setattr(build, "_concepts", lambda cache, source_dir: concepts)
    report = build.build(tmp_path / "corpus", tmp_path, num_clips=12, workers=1)
    with (tmp_path / "corpus" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert report["clips_by_kind"] == {"procedural": len(rows)}
    assert report["skipped"] == {}
    for row in rows:
        assert (tmp_path / "corpus" / row["split"] / f"{row['id']}.mp4").is_file()
        assert json.loads(row["captions"])
        assert json.loads(row["parameters"])
        assert row["license"] == "Apache-2.0"
    again = build.build(tmp_path / "again", tmp_path, num_clips=12, workers=1)
    assert again == report
    first, second = (tmp_path / n / "labels.csv" for n in ("corpus", "again"))
    assert first.read_bytes() == second.read_bytes()
