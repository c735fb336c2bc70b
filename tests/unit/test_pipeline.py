"""The whole of synthesis on the tiny bundle, whose arithmetic is known."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import pytest

from clipsynth_rt import Synthesizer
from clipsynth_rt.audio.provenance import read_tag
from clipsynth_rt.backends.session import Array, Session
from clipsynth_rt.errors import BackendError, HashMismatchError, InputError, NumericalError
from clipsynth_rt.synthesis.samplers import ddim_update
from clipsynth_rt.synthesis.schedule import alpha_sigma, gaussian_noise, sampling_times
from clipsynth_rt.synthesis.synthesizer import MAX_BATCH

pytest.importorskip("onnxruntime")


@pytest.fixture
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_bundle(tiny_bundle, provider="cpu", threads=1)


class Recorder(Session):
    """A session that notes what another one is given."""

    provider = ""

    def __init__(self, session: Any) -> None:
        self.session, self.calls = session, []
        self.provider = session.provider

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        self.calls.append(dict(inputs))
        return self.session.run(inputs)


@pytest.fixture
def record(synthesizer: Synthesizer) -> Callable[[str], Recorder]:
    def wrap(name: str) -> Recorder:
        recorder = Recorder(synthesizer.session(name))
        synthesizer.sessions._sessions[name] = recorder
        return recorder

    return wrap


def test_a_clip_and_its_facts(synthesizer: Synthesizer) -> None:
    clip = synthesizer.synth("drum", duration=0.5, num_steps=4, guidance_scale=3.0, seed=7)
    assert clip.waveform.shape == (11025,)
    assert clip.waveform.dtype == np.float32
    assert 0.0 < np.abs(clip.waveform).max() <= 0.98
    assert (clip.query, clip.seed, clip.num_steps, clip.guidance_scale) == ("drum", 7, 4, 3.0)
    assert (clip.sample_rate, clip.provider, clip.audio_s) == (22050, "cpu", 0.5)
    assert list(clip.stages_s) == ["text", "denoise", "vocode"]
    assert clip.rtf == pytest.approx(sum(clip.stages_s.values()) / 0.5)


def numpy_mel(
    tiny: ModuleType, condition: Array, seed: int, frames: int, num_steps: int, w: float
) -> Array:
    """The tiny denoiser, guidance and sampler again, without ONNX."""
    projection = tiny.weights("projection", tiny.DIM, tiny.BINS, scale=2.0)
    x = gaussian_noise(seed, frames, tiny.BINS)
    times = sampling_times(num_steps, tiny.DIFFUSION)
    for t, s in itertools.pairwise(times):
        alpha, sigma = alpha_sigma(t)

        def x0_for(row: Array) -> Array:
            v = 0.3 * x + 0.1 * t + (row @ projection)[:, None]  # noqa: B023 (called at once)
            return alpha * x - sigma * v  # noqa: B023

        null = x0_for(np.zeros_like(condition))
        x0 = null + w * (x0_for(condition) - null)
        x0 = np.clip(x0, tiny.DIFFUSION.x0_min, tiny.DIFFUSION.x0_max)
        x = ddim_update(x, x0, t, s, 0.0, x)
    return x


@pytest.mark.parametrize("w", [0.0, 1.0, 2.0, 7.5])
def test_sampling_is_the_arithmetic_it_says(
    synthesizer: Synthesizer, tiny: ModuleType, w: float
) -> None:
    condition = synthesizer.encode_text(["drum"])
    mel = synthesizer.sample(condition, [3], 16, num_steps=5, guidance_scale=w)
    # float32 in the graph, float64 here
    np.testing.assert_allclose(mel[0], numpy_mel(tiny, condition[0], 3, 16, 5, w), atol=1e-4)


def test_text_embedding_averages_templates(synthesizer: Synthesizer, tiny: ModuleType) -> None:
    table = tiny.weights("words", len(tiny.WORDS) + 2, tiny.DIM)
    ids = {word: i + 2 for i, word in enumerate(tiny.WORDS)}

    def embed(prompt: str) -> Array:
        total = sum(table[ids[word]] for word in prompt.split())
        return total / np.linalg.norm(total)

    mean = embed("a photo of drum") + embed("the sound of drum")
    expected = mean / np.linalg.norm(mean)
    np.testing.assert_allclose(synthesizer.encode_text(["drum"])[0], expected, atol=1e-6)
    alone = synthesizer.encode_text([" drum "], ["the {query} sound"])[0]
    np.testing.assert_allclose(alone, embed("the drum sound"), atol=1e-6)


def test_braces_in_a_query_are_just_characters(synthesizer: Synthesizer) -> None:
    assert np.isfinite(synthesizer.encode_text(["{0} {drum} {query}"])).all()


def test_the_same_seed_gives_the_same_clip(synthesizer: Synthesizer) -> None:
    first, again, other = (synthesizer.synth("dog", seed=seed).waveform for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("sampler", "eta"), [("ddim", 0.0), ("ddim", 0.7), ("dpmpp_2m", 0.0)])
def test_a_clip_does_not_depend_on_its_batch(
    synthesizer: Synthesizer, sampler: str, eta: float
) -> None:
    # more than one part of MAX_BATCH
    queries = (["drum", "piano", "dog", "rain", "drum"] * 3)[: MAX_BATCH + 3]
    options: dict[str, Any] = {"num_steps": 3, "eta": eta, "negative": "rain", "sampler": sampler}
    clips = synthesizer.synth_batch(queries, seed=40, **options)
    assert [clip.seed for clip in clips] == list(range(40, 40 + len(queries)))
    for clip, query in zip(clips, queries, strict=True):
        alone = synthesizer.synth(query, seed=clip.seed, **options)
        # float rounding only
        np.testing.assert_allclose(clip.waveform, alone.waveform, atol=1e-6)
        assert clip.query == query


def test_seeds_one_a_clip(synthesizer: Synthesizer) -> None:
    clips = synthesizer.synth_batch(["drum", "drum", "drum"], seed=[5, 9, 5])
    np.testing.assert_allclose(clips[0].waveform, clips[2].waveform, atol=1e-6)
    assert not np.allclose(clips[0].waveform, clips[1].waveform, atol=1e-3)
    with pytest.raises(InputError, match="2 seeds for 1 clips"):
        synthesizer.synth_batch(["drum"], seed=[1, 2])


def test_any_integer_is_a_seed(synthesizer: Synthesizer, tmp_path: Path) -> None:
    clip = synthesizer.synth("drum", seed=7)
    for seed in (np.int64(7), np.uint8(7), np.array(7)):
        same = synthesizer.synth("drum", seed=seed)
        np.testing.assert_array_equal(same.waveform, clip.waveform)
        assert type(same.seed) is int
    for seeds in (np.arange(6, 8), [np.int32(6), 7], range(6, 8)):
        *_, last = synthesizer.synth_batch(["dog", "drum"], seed=seeds)
        np.testing.assert_allclose(last.waveform, clip.waveform, atol=1e-6)
        tag = read_tag(last.save(tmp_path / "a.wav"))
        assert tag is not None
        assert tag["seed"] == 7
    assert synthesizer.synth("drum", seed=True).seed == 1


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        (1.5, "seed must be a whole number or a list of them, got 1.5"),
        (None, "seed must be a whole number or a list of them, got None"),
        (np.float32(2), "seed must be a whole number"),
        (np.array(2.0), "seed must be a whole number"),
        ("7", "seed must be a whole number, got '7'"),
        ([1.5], "seed must be a whole number, got 1.5"),
        (np.array([1.0]), "seed must be a whole number, got"),
        ([[1]], r"seed must be a whole number, got \[1\]"),
        (-1, "seed must be from 0 to"),
        ([2**64], "seed must be from 0 to"),
    ],
)
def test_what_is_no_seed_is_said_before_any_work(
    synthesizer: Synthesizer, record: Callable[[str], Recorder], seed: Any, message: str
) -> None:
    text = record("text_encoder")
    with pytest.raises(InputError, match=message):
        synthesizer.synth_batch(["drum"], seed=seed)
    assert text.calls == []


def test_guidance_runs_both_halves_in_one_batch(
    synthesizer: Synthesizer, record: Callable[[str], Recorder]
) -> None:
    recorder = record("denoiser_step")
    clip = synthesizer.synth("drum", num_steps=6, guidance_scale=2.5)
    assert len(recorder.calls) == 6
    assert clip.network_calls == 12
    call = recorder.calls[0]
    assert call["condition"].shape == (2, 1, 4)
    assert not call["condition"][1].any()
    assert call["weights"].tolist() == [2.5, -1.5]
    assert [float(c["t"][0]) for c in recorder.calls] == pytest.approx(
        [1 - i / 6 for i in range(6)]
    )
    assert float(recorder.calls[-1]["s"][0]) == 0.0


def test_no_guidance_runs_one_half(
    synthesizer: Synthesizer, record: Callable[[str], Recorder]
) -> None:
    recorder = record("denoiser_step")
    clip = synthesizer.synth("drum", num_steps=6, guidance_scale=1.0)
    assert clip.network_calls == len(recorder.calls) == 6
    assert recorder.calls[0]["condition"].shape == (1, 1, 4)
    assert recorder.calls[0]["weights"].tolist() == [1.0]


def test_negative_query(synthesizer: Synthesizer, record: Callable[[str], Recorder]) -> None:
    recorder = record("denoiser_step")
    synthesizer.synth_batch(["drum", "dog"], negative="rain", num_steps=1)
    rain = synthesizer.encode_text(["rain"])[0]
    np.testing.assert_array_equal(recorder.calls[0]["condition"][1], [rain, rain])


def test_negative_without_guidance_warns(
    synthesizer: Synthesizer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        synthesizer.synth("drum", negative="rain", guidance_scale=1.0, num_steps=1)
    assert [r.getMessage() for r in caplog.records] == [
        "negative query has no effect at guidance 1"
    ]


def test_fresh_noise_only_where_eta_asks_for_it(
    synthesizer: Synthesizer, record: Callable[[str], Recorder]
) -> None:
    recorder = record("denoiser_step")
    synthesizer.synth("drum", num_steps=2, eta=0.0)
    assert not any(call["noise"].any() for call in recorder.calls)
    recorder.calls.clear()
    synthesizer.synth("drum", num_steps=2, eta=1.0, seed=4)
    for stream, call in enumerate(recorder.calls, start=1):
        np.testing.assert_array_equal(call["noise"][0], gaussian_noise(4, 48, 8, stream))


def test_a_longer_clip_begins_with_the_same_noise(
    synthesizer: Synthesizer, record: Callable[[str], Recorder]
) -> None:
    recorder = record("denoiser_step")
    for duration in (0.25, 1.0):
        synthesizer.synth("drum", duration=duration, num_steps=1)
    short, long = (call["x"] for call in recorder.calls)
    assert short.shape == (1, 8, 24)
    np.testing.assert_array_equal(short, long[:, :, :24])


@pytest.mark.parametrize("num_steps", [1, 1000])
def test_the_fewest_and_the_most_steps(synthesizer: Synthesizer, num_steps: int) -> None:
    clip = synthesizer.synth("drum", num_steps=num_steps, duration=0.1)
    assert clip.num_steps == num_steps
    assert np.abs(clip.waveform).max() > 0.0


def test_an_image_in_place_of_text(tiny_bundle: Path, tmp_path: Path) -> None:
    synthesizer = Synthesizer.from_bundle(tiny_bundle, "cpu", graphs=())
    synthesizer.load_for(image=True)
    assert set(synthesizer.loaded) == {"image_encoder", "denoiser_step", "vocoder"}
    path = tmp_path / "red.png"
    PIL.Image.new("RGB", (50, 40), "red").save(path)
    clip = synthesizer.synth(image=path, seed=2)
    assert clip.query == "red.png"
    # a picture needs no text encoder
    assert "text_encoder" not in synthesizer.loaded
    blue = PIL.Image.new("RGB", (50, 40), "blue")
    both = synthesizer.synth_batch(images=[path, blue], seed=[2, 2])
    np.testing.assert_allclose(both[0].waveform, clip.waveform, atol=1e-6)
    assert not np.allclose(both[0].waveform, both[1].waveform, atol=1e-3)


def test_text_needs_no_image_encoder(synthesizer: Synthesizer) -> None:
    synthesizer.synth("drum", num_steps=1)
    assert "image_encoder" not in synthesizer.loaded


def test_progress_reaches_the_end_once(synthesizer: Synthesizer) -> None:
    seen: list[tuple[int, int]] = []
    count = MAX_BATCH + 2
    synthesizer.synth_batch(["drum"] * count, num_steps=3, progress=lambda *at: seen.append(at))
    total = 3 * count
    assert [done for done, _ in seen] == [MAX_BATCH, 2 * MAX_BATCH, 3 * MAX_BATCH, 26, 28, total]
    assert {of for _, of in seen} == {total}


@pytest.mark.parametrize("query", ["", "  ", "\n\t"])
def test_blank_queries(synthesizer: Synthesizer, query: str) -> None:
    with pytest.raises(InputError, match="query is empty"):
        synthesizer.synth(query)


def test_text_or_image_but_not_both_or_neither(synthesizer: Synthesizer) -> None:
    for arguments in ({}, {"query": "drum", "image": "a.png"}):
        with pytest.raises(InputError, match="one of the two"):
            synthesizer.synth(**arguments)
    with pytest.raises(InputError, match="one of the two"):
        synthesizer.synth_batch()
    with pytest.raises(InputError, match="takes a list"):
        synthesizer.synth_batch("drum")


class Broken(Session):
    """A session whose outputs are spoilt."""

    provider = "cpu"

    def __init__(self, session: Any, spoil: Callable[[Array], Array]) -> None:
        self.session, self.spoil = session, spoil

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return {name: self.spoil(value) for name, value in self.session.run(inputs).items()}


@pytest.mark.parametrize("graph", ["text_encoder", "denoiser_step", "vocoder"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_an_error_never_silence(
    synthesizer: Synthesizer, graph: str, value: float
) -> None:
    def spoil(array: Array) -> Array:
        array = array.copy()
        array.flat[0] = value
        return array

    synthesizer.sessions._sessions[graph] = Broken(synthesizer.session(graph), spoil)
    with pytest.raises(NumericalError):
        synthesizer.synth("drum")


@pytest.mark.parametrize("graph", ["denoiser_step", "vocoder"])
def test_an_output_of_another_length_is_an_error(synthesizer: Synthesizer, graph: str) -> None:
    session = Broken(synthesizer.session(graph), lambda array: array[..., :-8])
    synthesizer.sessions._sessions[graph] = session
    with pytest.raises(BackendError, match="instead of"):
        synthesizer.synth("drum", num_steps=1)


def test_a_damaged_graph_is_found_when_the_bundle_is_opened(tiny_copy: Path) -> None:
    path = tiny_copy / "fp32" / "vocoder.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(HashMismatchError, match=r"vocoder\.onnx"):
        Synthesizer.from_bundle(tiny_copy)
