"""The open corpus: the same seed gives the same files, and test shows what training never saw."""

import csv
import json
import os

import av
import numpy as np
import pytest

from clipsynth_rt.errors import DataError, OutputError
from clipsynth_training.data import openav, sounds
from clipsynth_training.data.pictures.catalogue import Picture
from clipsynth_training.data.shards import ShardSet, to_int16
from clipsynth_training.data.stills import FRAME_SIZE
from clipsynth_training.data.videos import prepare

RED = "#e01010"


def picture(name, number, colour=RED, svg=None):
    body = svg or f'<circle cx="16" cy="16" r="{6 + number}" fill="{colour}"/>'
    return Picture(
        id=f"icons:{name}-{number}",
        source="icons",
        license="CC-BY-4.0",
        author="Ann Artist",
        names=(name,),
        keywords=(),
        group=f"icons:{name}-{number}",
        svg=f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{body}</svg>',
    )


PICTURES = [
    *(picture("drum", number) for number in range(4)),
    *(picture("flute", number) for number in range(2)),
    picture("gong", 0),
    picture("drum", 9, svg="<circle"),  # cannot be drawn
    picture("kettle", 0),  # no concept shows it
]
CONCEPTS = tuple(
    sounds.Concept(name, (), (name,), "melodic", programs=("0:0",))
    for name in ("drum", "flute", "gong")
)


class FakeRenderer:
    """A tone of its own for every clip; the plan in ``silent`` cannot be rendered."""

    silent = ""

    def __init__(self, source_dir=None):
        pass

    def render(self, plan):
        if plan.id == self.silent:
            raise DataError(f"{plan.id}: silent")
        times = np.arange(sounds.NUM_SAMPLES) / 22050
        return (0.5 * np.sin((500 + int(plan.id[:4], 16) % 4000) * times)).astype(np.float32)


@pytest.fixture(autouse=True)
def _small_world(monkeypatch, request):
    if "real_sources" in request.fixturenames:
        return
    monkeypatch.setattr(openav, "load_concepts", lambda: CONCEPTS)
    monkeypatch.setattr(openav, "find_pictures", lambda root: PICTURES)
    monkeypatch.setattr(openav, "Renderer", FakeRenderer)
    openav._renderer.cache_clear()
    openav._drawings.cache_clear()


def labels(folder):
    with (folder / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def read(path):
    with av.open(str(path)) as container:
        sound = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    with av.open(str(path)) as container:
        if not container.streams.video:
            return np.concatenate(sound), None
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.concatenate(sound), np.stack(frames)


def test_the_same_seed_gives_the_same_corpus_to_the_byte(tmp_path):
    openav.build(tmp_path / "a", None, 30, seed=3, workers=1)
    openav.build(tmp_path / "b", None, 30, seed=3, workers=1)
    openav.build(tmp_path / "c", None, 30, seed=4, workers=1)
    first = contents(tmp_path / "a")
    assert len(first) == 30 + 4  # with labels, attribution, report and identity
    assert first == contents(tmp_path / "b")
    assert not {name for name in contents(tmp_path / "c") if name in first and "mp4" in name}


def test_a_video_holds_the_rendered_sound_and_the_picture(tmp_path):
    openav.build(tmp_path, None, 30, seed=0, workers=1)
    plans = {plan.id: plan for plan in sounds.plan_clips(CONCEPTS, 30, 0)}
    for row in labels(tmp_path):
        sound, frames = read(tmp_path / row["split"] / f"{row['id']}.mp4")
        np.testing.assert_array_equal(sound, to_int16(FakeRenderer().render(plans[row["id"]])))
        if row["variants"] == "text":
            assert (row["concept"], frames, row["picture"]) == ("gong", None, "")
            continue
        assert frames.shape == (17, FRAME_SIZE, FRAME_SIZE, 3)
        middle = frames[:, 56:72, 56:72].mean(axis=(1, 2))
        assert (middle[:, 0] > middle[:, 1:].max(axis=1) + 60).all()  # red, whatever the jitter
        assert np.abs(np.diff(frames.astype(int), axis=0)).max() > 0  # it zooms


def test_names_say_nothing_and_labels_say_all(tmp_path):
    openav.build(tmp_path, None, 30, seed=0, workers=1)
    rows = labels(tmp_path)
    assert tuple(rows[0]) == openav.LABELS
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.mp4")}
    assert files == {f"{row['split']}/{row['id']}.mp4" for row in rows}
    assert not any(concept.name in name for name in files for concept in CONCEPTS)
    row = next(row for row in rows if row["concept"] == "flute")
    assert row["source"].endswith("#0:0")
    assert row["license"] == "MIT"
    assert row["picture_license"] == "CC-BY-4.0"


def test_test_pictures_are_shown_in_test_alone(tmp_path):
    openav.build(tmp_path, None, 60, seed=0, workers=1)
    shown = {True: set(), False: set()}
    for row in labels(tmp_path):
        shown[row["split"] == "test"].add(row["picture"])
    assert shown[True] & shown[False] <= {""}
    assert len(shown[True] - {""}) >= 2
    assert "icons:drum-9" not in shown[True] | shown[False]


def test_report_and_attribution_name_what_was_used(tmp_path):
    report = openav.build(tmp_path, None, 60, seed=0, workers=1)
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert sum(report["clips"].values()) == 60
    assert report["concepts_without_pictures"] == ["gong"]
    assert report["pictures_undrawn"] == ["icons:drum-9"]
    text = (tmp_path / "ATTRIBUTION.md").read_text()
    assert "| FluidR3 GM | fluid-soundfont-gm | [MIT]" in text
    assert "### icons: 6 under [CC-BY-4.0](https://creativecommons.org/licenses/by/4.0/)" in text
    assert "- Ann Artist: drum-0, drum-1, drum-2, drum-3, flute-0, flute-1" in text
    assert "kettle" not in text
    assert "sonic" not in text.lower()


def test_a_sound_that_cannot_be_rendered_is_counted(tmp_path, monkeypatch):
    plan = sounds.plan_clips(CONCEPTS, 30, 0)[7]
    monkeypatch.setattr(FakeRenderer, "silent", plan.id)
    report = openav.build(tmp_path, None, 30, seed=0, workers=1)
    assert report["skipped"] == {"not_rendered": 1}
    assert plan.id not in {row["id"] for row in labels(tmp_path)}
    assert not (tmp_path / plan.split / f"{plan.id}.mp4").exists()


def test_a_stopped_build_goes_on(tmp_path, monkeypatch):
    openav.build(tmp_path / "whole", None, 30, seed=0, workers=1)
    rendered = []

    class Stops(FakeRenderer):
        def render(self, plan):
            if len(rendered) == 12:
                raise KeyboardInterrupt
            rendered.append(plan.id)
            return super().render(plan)

    monkeypatch.setattr(openav, "Renderer", Stops)
    openav._renderer.cache_clear()
    with pytest.raises(KeyboardInterrupt):
        openav.build(tmp_path / "part", None, 30, seed=0, workers=1)
    assert len(list((tmp_path / "part").rglob("*.mp4"))) == 12
    assert not (tmp_path / "part" / "labels.csv").exists()
    rendered[:] = ["another"]
    openav._renderer.cache_clear()
    monkeypatch.setattr(openav, "Renderer", FakeRenderer)
    openav.build(tmp_path / "part", None, 30, seed=0, workers=1)
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")


def test_a_folder_of_another_corpus_is_left_alone(tmp_path):
    openav.build(tmp_path, None, 30, seed=0, workers=1)
    before = contents(tmp_path)
    with pytest.raises(DataError, match="holds a corpus of seed 0, not 1"):
        openav.build(tmp_path, None, 30, seed=1, workers=1)
    assert contents(tmp_path) == before
    (tmp_path / "corpus.json").write_text("[]")
    with pytest.raises(DataError, match=r"corpus\.json: damaged"):
        openav.build(tmp_path, None, 30, seed=0, workers=1)


def test_nothing_is_written_where_nothing_can_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file: cannot be written to"):
        openav.build(tmp_path / "file", None, 30, seed=0, workers=1)


def test_a_full_disk_stops_the_build_without_a_half_video(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left on device"):
        openav.build(tmp_path, None, 30, seed=0, workers=1)
    assert not list(tmp_path.rglob("*.mp4*"))


@pytest.fixture
def real_sources():
    folder = os.environ.get("CLIPSYNTH_SOURCE_DIR")
    try:
        sounds.Renderer(folder)
        openav.find_pictures(folder or "/")
    except DataError as error:
        pytest.skip(f"no sources of the open corpus (set CLIPSYNTH_SOURCE_DIR): {error}")
    return folder


@pytest.mark.slow
def test_real_sources_become_a_corpus_and_shards(tmp_path, monkeypatch, real_sources):
    wanted = [c for c in sounds.load_concepts() if c.name in ("flute", "dog", "rain")]
    monkeypatch.setattr(openav, "load_concepts", lambda: tuple(wanted))
    openav._renderer.cache_clear()
    report = openav.build(tmp_path / "corpus", real_sources, 36, seed=0, workers=1)
    assert sum(report["clips"].values()) == 36
    assert report["concepts_without_pictures"] == []
    plans = {plan.id: plan for plan in sounds.plan_clips(wanted, 36, 0)}
    renderer = sounds.Renderer(real_sources)
    row = labels(tmp_path / "corpus")[0]
    sound, frames = read(tmp_path / "corpus" / row["split"] / f"{row['id']}.mp4")
    np.testing.assert_array_equal(sound, to_int16(renderer.render(plans[row["id"]])))
    assert frames.std() > 10
    prepare(tmp_path / "corpus" / "train", tmp_path / "shards", workers=1)
    shards = ShardSet.open(tmp_path / "shards")
    assert sorted(shards.ids) == sorted(i for i, plan in plans.items() if plan.split == "train")
    assert shards.mels().astype(np.float32).std() > 0.3
