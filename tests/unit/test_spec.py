"""Specs: frames and seconds, and reading what may be wrong."""

from __future__ import annotations

import math
from typing import Any

import pytest

from clipsynth_rt.bundles.manifest import (
    ConditionSpec,
    DiffusionSpec,
    FileSpec,
    GraphSpec,
    MelSpec,
    decode,
    encode,
)
from clipsynth_rt.errors import ManifestError

HOP_S = 256 / 22050


@pytest.mark.parametrize(
    ("seconds", "frames"),
    [(1e-6, 1), (HOP_S, 1), (HOP_S * 1.01, 2), (352 * HOP_S, 352), (4.0, 345), (16 * HOP_S, 16)],
)
def test_frames_hold_the_duration_and_no_frame_more(seconds: float, frames: int) -> None:
    spec = MelSpec(sample_rate=22050, hop_length=256)
    assert spec.frames(seconds) == frames
    assert spec.seconds(frames) >= seconds - 1e-9


@pytest.mark.parametrize("frames", [1, 7, 352, 1376])
def test_seconds_and_frames_agree(frames: int) -> None:
    assert MelSpec().frames(MelSpec().seconds(frames)) == frames


def test_silence_in_a_normalised_mel() -> None:
    spec = MelSpec(floor=1e-5, mean=-6.0, std=3.0)
    assert spec.floor_normalised == pytest.approx((math.log(1e-5) + 6.0) / 3.0)


def condition(**changes: Any) -> dict[str, Any]:
    spec = ConditionSpec("tiny", 4, 77, ("a photo of {query}",), 64, FileSpec("t.json", "00"))
    return {**encode(spec), **changes}


def test_tuples_and_optional_parts_survive_json() -> None:
    data = condition()
    assert data["templates"] == ["a photo of {query}"]
    assert decode(ConditionSpec, data).templates == ("a photo of {query}",)
    assert decode(ConditionSpec, condition(tokenizer=None)).tokenizer is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (condition(dim="4"), r"condition\.dim: expected int, got '4'"),
        (condition(dim=True), r"condition\.dim: expected int, got True"),
        (condition(dim=4.0), r"condition\.dim: expected int, got 4\.0"),
        (condition(templates="a"), r"condition\.templates: expected a list"),
        (condition(templates=[1]), r"condition\.templates\[0\]: expected str"),
        (condition(tokenizer=3), r"condition\.tokenizer: expected an object, got 3"),
        (condition(tokenizer={"path": "x"}), r"condition\.tokenizer\.sha256: missing"),
        ([], r"condition: expected an object, got \[\]"),
    ],
)
def test_wrong_types_are_named_by_their_path(data: Any, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        decode(ConditionSpec, data, "condition")


def test_whole_numbers_are_fine_where_fractions_are_meant() -> None:
    spec = decode(DiffusionSpec, {**encode(DiffusionSpec()), "guidance_scale": 3})
    assert (spec.guidance_scale, type(spec.guidance_scale)) == (3.0, float)


def test_named_dimensions_stay_names() -> None:
    data = {
        "inputs": {"x": {"dtype": "float32", "shape": ["B", 80, "F"]}},
        "outputs": {},
        "files": {},
    }
    assert decode(GraphSpec, data).inputs["x"].shape == ("B", 80, "F")
    data["inputs"]["x"]["shape"] = [None]
    with pytest.raises(ManifestError, match=r"inputs\.x\.shape\[0\]: None is not one of"):
        decode(GraphSpec, data)
