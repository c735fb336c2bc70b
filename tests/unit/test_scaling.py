"""The scaling note's sums."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import scaling

FOUND: dict[str, Any] = {
    "measured": "2026-01-01",
    "machine": "a machine",
    "device": "cuda",
    "encoder": "lit",
    "videos": 300,
    "prepare_videos_per_second": 20.0,
    "embed_pictures_per_second": 1000.0,
    "pictures_a_clip": 3,
    "bytes_a_clip": 250_000.0,
    "training": {"paper": {"clips_per_second": 500.0, "wait_share": 0.013}},
}


def test_hours_and_cost_follow_from_the_rates() -> None:
    lines = scaling.table(FOUND, 2.0).splitlines()
    assert "400,000 clips and 100 GB" in lines[0]
    # 200,000 / 20 s; 1,200,000 / 1000 s; 50 x 400,000 / 500 s
    assert lines[4:] == [
        "| decode, cut and analyse | 2.8 | 6 |",
        "| embed 3 pictures a clip (`lit`) | 0.3 | 1 |",
        "| train `paper`, 50 epochs (waits 1.3% of the time) | 11.1 | 22 |",
    ]
    assert "cost" not in scaling.table(FOUND, None)


def test_the_note_has_its_block_and_says_where_it_is_not_measured() -> None:
    note = scaling.NOTE.read_text()
    assert scaling.table(FOUND, None) in scaling.fill(note, scaling.table(FOUND, None))
    assert "Not yet measured" in scaling.table(None, None)
    with pytest.raises(SystemExit, match="expected one block"):
        scaling.fill("nothing", "")


def test_stand_ins_are_videos_that_can_be_prepared(tmp_path: Path) -> None:
    from clipsynth_training.data.clips import CutSpec, read_video

    scaling.make_videos(tmp_path / "videos", 2)
    first, second = sorted((tmp_path / "videos").iterdir())
    clips = read_video(first, CutSpec())
    assert len(clips.mel) == scaling.CLIPS_A_VIDEO
    assert first.read_bytes() != second.read_bytes()
