"""Pictures: finding, naming, matching, splitting and drawing them."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import safe_open

sys.path.append(str(Path(__file__).parent))
from pictures_for_tests import EMOJI_SET, ICON_SET, make_sources

from clipsynth_rt.errors import DataError
from clipsynth_training.data.pictures import catalogue as module
from clipsynth_training.data.pictures.catalogue import assign_splits, find_pictures, pictures_for
from clipsynth_training.data.pictures.raster import rasterise, rasterise_all, rasterise_rgba
from clipsynth_training.data.sounds import load_concepts


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PICTURE_SETS", (EMOJI_SET, ICON_SET))
    return make_sources(tmp_path)


@pytest.fixture
def found(source):
    return {picture.id: picture for picture in find_pictures(source)}


def concept(*terms):
    return SimpleNamespace(picture=terms)


def test_finds_each_drawing_once_and_leaves_signs_styles_and_skin_tones(found):
    assert sorted(found) == [
        "@test/emoji:dog-face",
        "@test/emoji:drum",
        "@test/emoji:nothing",
        "@test/emoji:oil-drum",
        "@test/icons:car-2",
        "@test/icons:drum",
        "@test/icons:drum-duotone",
        "openclipart-png:animals/sheep_dog_jane_doe_01",
        "openclipart-png:animals/sheep_dog_jane_doe_02",
    ]


def test_names_keywords_and_licences(found):
    dog = found["@test/emoji:dog-face"]
    assert dog.names == ("dog face", "puppy")  # the mirrored alias is another picture
    assert dog.keywords == ("dog face", "woof", "animals")
    assert (dog.license, dog.author, dog.tint) == ("Apache-2.0", "A. Painter", False)
    art = found["openclipart-png:animals/sheep_dog_jane_doe_01"]
    assert art.names == ("sheep dog",)  # the author is cut from the file name
    assert (art.license, art.author) == ("LicenseRef-Public-Domain", "Jane Doe")
    assert found["@test/icons:drum"].tint


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (["drum -oil"], {"@test/emoji:drum", "@test/icons:drum", "@test/icons:drum-duotone"}),
        (["=dog"], set()),
        (["=puppy"], {"@test/emoji:dog-face"}),
        (["=car"], {"@test/icons:car-2"}),
        (["cars"], {"@test/icons:car-2"}),
        (["=cars"], set()),
        (["dog sheep", "oil drum"], {"sheep", "oil"}),
        ([], set()),
    ],
)
def test_terms(found, terms, expected):
    ids = {picture.id for picture in pictures_for(concept(*terms), found.values())}
    if expected == {"sheep", "oil"}:
        expected = {key for key in found if "sheep" in key or "oil" in key}
    assert ids == expected


def test_every_term_of_the_corpus_is_well_formed():
    for entry in load_concepts():
        assert entry.picture, entry.name
        for term in entry.picture:
            assert any(not word.startswith("-") for word in term.split()), (entry.name, term)


def test_split_keeps_variants_together_and_gives_each_concept_both_sides(found):
    concepts = [concept("drum -oil"), concept("dog")]
    split = assign_splits(list(found.values()), concepts)
    first, second = (i for i in found if "sheep" in i)
    assert split[first] == split[second]
    assert split["@test/icons:drum"] == split["@test/icons:drum-duotone"]
    for entry in concepts:
        sides = {split[p.id] for p in pictures_for(entry, found.values())}
        assert {"train", "test"} <= sides
    assert split == assign_splits(list(found.values()), concepts)


def test_split_shares_are_near_what_the_docstring_says():
    many = [
        module.Picture(str(i), "s", "MIT", "a", (f"n{i}",), (), f"group{i}") for i in range(4000)
    ]
    sides = list(assign_splits(many).values())
    # Three standard deviations of a binomial share at 4000 draws are 0.02 at most.
    assert sides.count("train") / 4000 == pytest.approx(0.78, abs=0.02)
    assert sides.count("test") / 4000 == pytest.approx(0.15, abs=0.02)


@pytest.mark.parametrize("package", ["@test/icons", "emojilib"])
def test_missing_npm_package_is_named(source, package):
    folder = source / "npm" / package / "package" / "package.json"
    folder.unlink()
    with pytest.raises(DataError, match=f"npm package {package} .*fetch_sources"):
        find_pictures(source)


def test_missing_clip_art_names_the_debian_package(source):
    (source / "usr").rename(source / "elsewhere")
    with pytest.raises(DataError, match="Debian package openclipart-png"):
        find_pictures(source)


@pytest.mark.parametrize("license_id", ["CC-BY-SA-4.0", "GPL-3.0", "CC-BY-NC-4.0"])
def test_share_alike_and_noncommercial_sets_are_refused(source, license_id):
    path = source / "npm/@test/icons/package/info.json"
    path.write_text(json.dumps({"license": {"spdx": license_id}}))
    with pytest.raises(DataError, match=f"@test/icons: licence {license_id} does not allow"):
        find_pictures(source)


def test_damaged_json_is_one_line_naming_the_file(source):
    (source / "npm/@test/emoji/package/icons.json").write_text("{")
    with pytest.raises(DataError, match=r"icons\.json: cannot be read"):
        find_pictures(source)


def test_drawn_in_its_colours_on_the_background(found):
    pixels = rasterise(found["@test/emoji:drum"], 32, background=(0, 0, 255))
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    assert pixels[16, 16].tolist() == [255, 0, 0]
    assert pixels[0, 0].tolist() == [0, 0, 255]


def test_undecided_colour_is_dark_and_steady(found):
    first, second = (rasterise(found["@test/icons:drum"], 24) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first[12, 12].max() < 128


def test_empty_page_around_clip_art_is_cut(found):
    alpha = rasterise_rgba(found["openclipart-png:animals/sheep_dog_jane_doe_01"], 50)[..., 3]
    assert alpha[25, 5] == 255  # the square fills the picture, not the right half of a page


def test_pictures_that_show_nothing_are_left_out_and_the_rest_is_kept(found, tmp_path):
    cache = tmp_path / "cache" / "drawn.safetensors"
    kept, pixels = rasterise_all(list(found.values()), 16, cache)
    assert "@test/emoji:nothing" not in {p.id for p in kept}
    assert pixels.shape == (len(found) - 1, 16, 16, 4)
    changed = cache.stat().st_mtime_ns
    again, same = rasterise_all(list(found.values()), 16, cache)
    assert cache.stat().st_mtime_ns == changed
    assert again == kept
    np.testing.assert_array_equal(same, pixels)
    rasterise_all(list(found.values()), 8, cache)  # another size: drawn anew
    with safe_open(cache, "numpy") as stored:
        assert stored.get_tensor("pixels").shape[1] == 8


def test_nothing_drawable_is_an_error(found):
    with pytest.raises(DataError, match="could be drawn"):
        rasterise_all([found["@test/emoji:nothing"]], 16)
