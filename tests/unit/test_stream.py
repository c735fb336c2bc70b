"""Clips as they are ready, cancellation, and several threads at one synthesizer."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from clipsynth_rt import Synthesizer
from clipsynth_rt.background import BackgroundIterator
from clipsynth_rt.errors import BackendError, CancelledError, InputError, NumericalError

LIMIT_S = 20.0


@pytest.fixture
def synthesizer(tiny_bundle: Path) -> Iterator[Synthesizer]:
    with Synthesizer.from_bundle(tiny_bundle, "cpu", threads=1) as made:
        yield made


def wait_until(true: object) -> None:
    end = time.monotonic() + LIMIT_S
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "clipsynth-background"]


def test_a_stream_is_the_same_sounds_one_by_one(synthesizer: Synthesizer) -> None:
    queries = ["drum", "dog", "rain"]
    with synthesizer.stream(iter(queries), seed=5, num_steps=2) as stream:
        clips = list(stream)
    assert [(clip.query, clip.seed) for clip in clips] == [("drum", 5), ("dog", 6), ("rain", 7)]
    for clip in clips:
        alone = synthesizer.synth(clip.query, seed=clip.seed, num_steps=2)
        np.testing.assert_array_equal(clip.waveform, alone.waveform)
    assert not workers()


def test_the_next_sounds_are_made_meanwhile_and_not_too_many(synthesizer: Synthesizer) -> None:
    taken = []

    def queries() -> Iterator[str]:
        for number in itertools.count():
            taken.append(number)
            yield "drum"

    with synthesizer.stream(queries(), num_steps=1, prefetch=2) as stream:
        next(stream)
        # one used, two that wait, and one that waits for its place
        wait_until(lambda: len(taken) == 4)
        time.sleep(0.3)
        assert len(taken) == 4
    assert not workers()


def test_a_stream_that_is_forgotten_stops(synthesizer: Synthesizer) -> None:
    stream = synthesizer.stream(itertools.repeat("drum"), num_steps=1)
    next(stream)
    del stream
    gc.collect()
    wait_until(lambda: not workers())


def test_an_error_comes_where_its_clip_would_have(synthesizer: Synthesizer) -> None:
    stream = synthesizer.stream(["drum", " ", "dog"], num_steps=1)
    assert next(stream).query == "drum"
    with pytest.raises(InputError, match="query is empty"):
        next(stream)
    assert list(stream) == []
    assert not workers()


def test_what_is_wrong_for_every_clip_is_said_at_once(synthesizer: Synthesizer) -> None:
    for options, message in (
        ({"num_steps": 0}, "num_steps must be"),
        ({"prefetch": 0}, "prefetch must be from 1 to 64, got 0"),
        ({"prefetch": 65}, "prefetch must be"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"seed": None}, "seed must be a whole number"),
        ({"seed": -1}, "seed must be from 0"),
    ):
        with pytest.raises(InputError, match=message):
            synthesizer.stream(["drum"], **options)
    with pytest.raises(InputError, match="takes a list"):
        synthesizer.stream("drum")
    assert not workers()


def test_any_integer_is_the_seed_of_a_stream(synthesizer: Synthesizer) -> None:
    with synthesizer.stream(["drum", "dog"], num_steps=1, seed=np.int64(3)) as stream:
        assert [clip.seed for clip in stream] == [3, 4]


def test_closing_while_another_thread_waits() -> None:
    def nothing(stop: threading.Event) -> Iterator[int]:
        stop.wait(LIMIT_S)
        yield from ()

    iterator = BackgroundIterator(nothing, 1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(list, iterator)
        time.sleep(0.05)
        iterator.close()
        assert waiting.result(LIMIT_S) == []


def test_cancelling_between_steps(synthesizer: Synthesizer) -> None:
    cancel, seen = threading.Event(), []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 3:
            cancel.set()

    with pytest.raises(CancelledError, match="synthesis cancelled"):
        synthesizer.synth("drum", num_steps=100, progress=progress, cancel=cancel)
    assert seen == [(1, 100), (2, 100), (3, 100)]
    # and one that is set from the start does nothing at all
    with pytest.raises(CancelledError):
        synthesizer.synth("drum", cancel=cancel)
    # the synthesizer is as good as before
    cancel.clear()
    assert synthesizer.synth("drum", cancel=cancel).audio_s > 0


def test_progress_may_stop_a_synthesis_with_an_exception_of_its_own(
    synthesizer: Synthesizer,
) -> None:
    class EnoughError(Exception):
        pass

    def progress(done: int, total: int) -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        synthesizer.synth("drum", progress=progress)
    assert synthesizer.synth("drum").audio_s > 0


def test_cancelling_a_stream(synthesizer: Synthesizer) -> None:
    cancel = threading.Event()
    stream = synthesizer.stream(itertools.repeat("drum"), num_steps=1, cancel=cancel)
    next(stream)
    cancel.set()
    with pytest.raises(CancelledError):
        for _ in stream:
            pass
    assert not workers()


def test_leaving_a_stream_ends_the_clip_in_the_making(synthesizer: Synthesizer) -> None:
    num_steps, inside = [], threading.Event()

    def progress(done: int, total: int) -> None:
        num_steps.append(done)
        inside.set()
        time.sleep(0.005)

    with synthesizer.stream(["drum"], num_steps=1000, progress=progress):
        assert inside.wait(LIMIT_S)
    assert len(num_steps) < 900
    assert not workers()


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_threads_that_share_a_synthesizer(tiny_bundle: Path, provider: str) -> None:
    pytest.importorskip("openvino" if provider == "openvino" else "onnxruntime")
    # not loaded yet: the threads also race for the graphs
    asked = [("drum", 1), ("dog", 2), ("rain", 3), ("piano", 4)] * 3
    with Synthesizer.from_bundle(tiny_bundle, provider, threads=1, graphs=()) as shared:
        start = threading.Barrier(4)

        def work(item: tuple[int, tuple[str, int]]) -> np.ndarray:
            if item[0] < 4:
                start.wait(LIMIT_S)
            query, seed = item[1]
            return shared.synth(query, seed=seed, num_steps=3, duration=0.3 * seed).waveform

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(work, enumerate(asked)))
        for (query, seed), waveform in zip(asked, found, strict=True):
            alone = shared.synth(query, seed=seed, num_steps=3, duration=0.3 * seed)
            np.testing.assert_allclose(waveform, alone.waveform, atol=1e-6)


def test_two_synthesizers_in_two_threads(tiny_bundle: Path) -> None:
    def work(query: str) -> list[np.ndarray]:
        with Synthesizer.from_bundle(tiny_bundle, "cpu", threads=1) as own:
            return [own.synth(query, seed=seed, num_steps=3).waveform for seed in range(8)]

    queries = ["drum", "dog"]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(work, queries))
    for query, waveforms in zip(queries, together, strict=True):
        for one, other in zip(waveforms, work(query), strict=True):
            np.testing.assert_array_equal(one, other)


def test_an_error_in_one_thread_leaves_the_others_alone(
    synthesizer: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = synthesizer.synth("dog", num_steps=2).waveform

    def work(query: str) -> np.ndarray | str:
        try:
            return synthesizer.synth(query, num_steps=2).waveform
        except (InputError, NumericalError) as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, [" ", "dog"] * 6))
    assert all("query is empty" in str(found[i]) for i in range(0, 12, 2))
    for i in range(1, 12, 2):
        np.testing.assert_array_equal(found[i], expected)


def test_a_closed_synthesizer_says_so(tiny_bundle: Path) -> None:
    with Synthesizer.from_bundle(tiny_bundle, "cpu") as synthesizer:
        synthesizer.synth("drum", num_steps=1)
    with pytest.raises(BackendError, match="cpu: this synthesizer is closed; open another"):
        synthesizer.synth("drum", num_steps=1)
    synthesizer.close()
