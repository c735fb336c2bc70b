"""What is forgotten, and when it is given back."""

from __future__ import annotations

import pytest

from clipsynth_rt.lru import LRU


def test_what_was_used_longest_ago_is_given_back_first() -> None:
    released: list[str] = []
    kept: LRU[int, str] = LRU(2, released.append)
    for key in (1, 2, 1, 3):
        assert kept.get(key, lambda key=key: f"v{key}") == f"v{key}"  # type: ignore[misc]
    assert released == ["v2"]
    assert list(kept) == [1, 3]
    with pytest.raises(KeyError):
        kept.get(2)
    kept.clear()
    assert (released, len(kept)) == (["v2", "v1", "v3"], 0)


def test_room_is_made_before_a_value_is_and_a_failure_keeps_nothing() -> None:
    released: list[str] = []
    kept: LRU[int, str] = LRU(1, released.append)
    kept.get(1, lambda: "one")

    def fail() -> str:
        assert released == ["one"]
        raise MemoryError

    with pytest.raises(MemoryError):
        kept.get(2, fail)
    assert len(kept) == 0
