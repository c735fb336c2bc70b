"""Lines on how far long work is, where no terminal shows a bar."""

from __future__ import annotations

import logging

import pytest

from clipsynth_rt import progress as module
from clipsynth_rt.progress import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_at_a_steady_pace_with_rate_and_time_left(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, module.__name__)
    with progress("drawing", 1200, "picture", done=200) as shown:
        for _ in range(1000):
            clock[0] += 0.125
            shown.advance()
    first, *rest, last = caplog.messages
    # 40 pictures in 5 s, and 960 are left
    assert first == "drawing: 240 of 1,200 pictures, 8 a second, 2 min left"
    assert rest[0] == "drawing: 480 of 1,200 pictures, 8 a second, 90 s left"
    assert len(rest) == 3
    assert last == "drawing: 1,200 of 1,200 pictures in 2 min"


def test_slow_work_says_seconds_each(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, module.__name__)
    with progress("cutting", 100, "video") as shown:
        clock[0] += 40.0
        shown.advance()
    assert caplog.messages[0] == "cutting: 1 of 100 videos, 40 s each, 66 min left"


def test_short_work_says_nothing(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, module.__name__)
    with progress("cutting", 3, "video") as shown:
        for _ in range(3):
            clock[0] += 1.0
            shown.advance()
    assert caplog.messages == []
