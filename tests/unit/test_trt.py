"""Clips in one CUDA graph, on a GPU that is none: what is captured, replayed and given back."""

from __future__ import annotations

import gc
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1]))
from threads_for_tests import check_threads

from clipsynth_rt import AudioClip, Bundle, Synthesizer
from clipsynth_rt.backends import choice as backends
from clipsynth_rt.backends.tensorrt import backend as trt
from clipsynth_rt.backends.tensorrt import cuda
from clipsynth_rt.backends.tensorrt.backend import TrtBackend
from clipsynth_rt.backends.tensorrt.captured import ClipKey
from clipsynth_rt.errors import BackendError, EngineError, InputError, ProviderUnavailableError

ONE = {"template": "a photo of {query}"}
TWO = {"template": ["a photo of {query}", "the sound of {query}"]}


@pytest.fixture
def cpu(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_bundle(tiny_bundle, "cpu", threads=1)


@pytest.fixture
def gpu(tiny_bundle: Path, fake_gpu: Any) -> Any:
    with Synthesizer.from_bundle(tiny_bundle, "tensorrt-rtx") as synthesizer:
        yield synthesizer
    assert fake_gpu.cuda.left() == {"device": 0, "pinned": 0, "graphs": 0, "streams": 0}


# the tiny bundle's clips are at most 168 frames: its one bucket
WHOLE_S = 168 * 256 / 22050


@pytest.mark.parametrize(
    "options",
    [
        ONE,
        {**ONE, "num_steps": 1},
        {**ONE, "num_steps": 3, "guidance_scale": 1.0},
        {**ONE, "guidance_scale": 0.0},
        {**ONE, "eta": 0.7, "num_steps": 4},
        {**ONE, "negative": "rain"},
        TWO,
        {**ONE, "sampler": "dpmpp_2m", "num_steps": 3},
    ],
    ids=["default", "one step", "unguided", "w0", "eta", "negative", "templates", "dpmpp"],
)
def test_a_captured_clip_is_the_cpus(gpu: Synthesizer, cpu: Synthesizer, options: Any) -> None:
    found = gpu.synth("drum", duration=WHOLE_S, seed=5, **options)
    want = cpu.synth("drum", duration=WHOLE_S, seed=5, **options)
    assert found.provider == "tensorrt-rtx"
    # the same graphs on the same processor: only the batch and the padding of tokens differ
    np.testing.assert_allclose(found.waveform, want.waveform, atol=1e-5)
    assert np.abs(found.waveform).max() > 0.01


def test_an_image_comes_in_as_a_condition(gpu: Synthesizer, cpu: Synthesizer) -> None:
    from PIL import Image

    picture = Image.new("RGB", (20, 20), "teal")
    found, want = (
        s.synth(image=picture, duration=WHOLE_S, num_steps=2).waveform for s in (gpu, cpu)
    )
    np.testing.assert_allclose(found, want, atol=1e-5)


@pytest.mark.parametrize("count", [2, 4, 5])
def test_batches_are_filled_up_and_split(gpu: Synthesizer, cpu: Synthesizer, count: int) -> None:
    queries = ["drum", "piano", "dog", "rain", "snare"][:count]
    found = gpu.synth_batch(queries, duration=WHOLE_S, seed=1, num_steps=2, **ONE)
    want = cpu.synth_batch(queries, duration=WHOLE_S, seed=1, num_steps=2, **ONE)
    for one, other in zip(found, want, strict=True):
        assert (one.query, one.seed) == (other.query, other.seed)
        np.testing.assert_allclose(one.waveform, other.waveform, atol=1e-5)


def test_a_short_clip_is_cut_from_its_bucket(gpu: Synthesizer) -> None:
    long = gpu.synth("drum", duration=WHOLE_S, **ONE).waveform
    short = gpu.synth("drum", duration=0.5, **ONE).waveform
    assert short.shape == (11025,)
    # but for the fade at its end
    np.testing.assert_array_equal(short[:10000], long[:10000])


def test_nothing_but_the_key_captures_anew(gpu: Synthesizer, fake_gpu: Any) -> None:
    gpu.synth("drum", **ONE)
    engines = gpu.engines
    assert engines is not None
    assert engines.captures == 1
    before = fake_gpu.cuda.names().count("cudaMalloc")
    gpu.synth("piano", seed=9, guidance_scale=3.5, negative=None, duration=0.4, **ONE)
    gpu.synth("dog", guidance_scale=7.0, **ONE)
    assert engines.captures == 1
    assert fake_gpu.cuda.names().count("cudaMalloc") == before
    gpu.synth("drum", guidance_scale=1.0, **ONE)
    gpu.synth("drum", num_steps=2, **ONE)
    gpu.synth("drum", eta=0.5, **ONE)
    gpu.synth("drum", **TWO)
    assert engines.captures == 5


def test_a_clip_replayed_is_one_launch(gpu: Synthesizer, fake_gpu: Any) -> None:
    gpu.synth("drum", **ONE)
    start = len(fake_gpu.cuda.calls)
    gpu.synth("piano", **ONE)
    assert fake_gpu.cuda.names()[start:] == ["cudaGraphLaunch", "cudaStreamSynchronize"]


def test_the_order_of_a_capture(gpu: Synthesizer, fake_gpu: Any) -> None:
    start = len(fake_gpu.cuda.calls)
    gpu.synth("drum", num_steps=2, **ONE)
    kinds = {"embedding": "text", "x_next": "step", "waveform": "vocoder"}
    names = [
        next(kind for output, kind in kinds.items() if output in details)
        if name == "enqueue"
        else name.removeprefix("cuda")
        for name, details in fake_gpu.cuda.calls[start:]
        if name not in ("cudaMalloc", "cudaHostAlloc", "cudaMemGetInfo")
    ]
    clip = ["MemcpyAsync", "text", "step", "step", "vocoder", "MemcpyAsync"]
    assert names == [
        *clip,  # before a capture: the first run compiles and allocates
        "StreamSynchronize",
        "StreamBeginCapture",
        *clip,
        "StreamEndCapture",
        "GraphInstantiate",
        "GraphDestroy",
        "GraphUpload",
        "StreamSynchronize",
        "GraphLaunch",
        "StreamSynchronize",
    ]


def test_without_cuda_graphs_the_sound_is_the_same(
    gpu: Synthesizer, tiny_bundle: Path, fake_gpu: Any
) -> None:
    want = gpu.synth("drum", **ONE).waveform
    assert gpu.engines is not None
    with Synthesizer.from_bundle(tiny_bundle, "tensorrt-rtx") as other:
        assert other.engines is not None
        other.engines.use_graphs = False
        start = len(fake_gpu.cuda.calls)
        found = other.synth("drum", **ONE).waveform
        assert "cudaStreamBeginCapture" not in fake_gpu.cuda.names()[start:]
    np.testing.assert_array_equal(found, want)


def test_the_clip_used_longest_ago_goes_first(gpu: Synthesizer, fake_gpu: Any) -> None:
    engines = gpu.engines
    assert engines is not None
    for num_steps in (1, 2, 3, 4):
        gpu.synth("drum", num_steps=num_steps, **ONE)
    gpu.synth("drum", num_steps=1, **ONE)
    held = fake_gpu.cuda.used()
    gpu.synth("drum", num_steps=5, **ONE)
    assert engines.captures == 5
    assert len(fake_gpu.cuda.executables) == trt.MAX_GRAPHS
    # as many buffers as before, but for one more row of times
    assert fake_gpu.cuda.used() <= held + 2 * 4096
    gpu.synth("drum", num_steps=1, **ONE)
    assert engines.captures == 5
    gpu.synth("drum", num_steps=2, **ONE)
    assert engines.captures == 6


def test_close_gives_everything_back_and_says_so(gpu: Synthesizer, fake_gpu: Any) -> None:
    gpu.synth("drum", **ONE)
    gpu.encode_text(["drum"])
    assert gpu.engines is not None
    assert gpu.engines.peak_device_bytes > 0
    gpu.close()
    assert fake_gpu.cuda.used() == 0
    gpu.close()
    with pytest.raises(BackendError, match="is closed"):
        gpu.synth("drum", **ONE)


def test_a_forgotten_synthesizer_gives_everything_back(tiny_bundle: Path, fake_gpu: Any) -> None:
    synthesizer = Synthesizer.from_bundle(tiny_bundle, "tensorrt-rtx")
    synthesizer.synth("drum", **ONE)
    assert fake_gpu.cuda.used() > 0
    del synthesizer
    gc.collect()
    assert fake_gpu.cuda.left() == {"device": 0, "pinned": 0, "graphs": 0, "streams": 0}


def test_out_of_device_memory(gpu: Synthesizer, cpu: Synthesizer, fake_gpu: Any) -> None:
    fake_gpu.cuda.total = 60_000
    with pytest.raises(BackendError, match="out of memory; free device memory") as caught:
        gpu.synth("drum", **ONE)
    assert "\n" not in str(caught.value)
    assert fake_gpu.cuda.used() == 0
    # the process goes on: with another provider, or with the same one once there is memory
    assert cpu.synth("drum", **ONE).provider == "cpu"
    fake_gpu.cuda.total = 1 << 30
    assert gpu.synth("drum", **ONE).provider == "tensorrt-rtx"


def test_a_capture_that_fails_leaves_the_stream_usable(gpu: Synthesizer, fake_gpu: Any) -> None:
    failing = fake_gpu.cuda.failing
    error = type(fake_gpu.cuda.cudaGetDeviceCount()[0]).cudaErrorStreamCaptureUnsupported
    failing["cudaGraphInstantiate"] = error
    with pytest.raises(BackendError, match="not permitted when stream is capturing"):
        gpu.synth("drum", **ONE)
    assert fake_gpu.cuda.left() == {"device": 0, "pinned": 0, "graphs": 0, "streams": 1}
    failing.clear()
    gpu.synth("drum", **ONE)


def test_an_engine_that_cannot_be_captured(gpu: Synthesizer, fake_gpu: Any) -> None:
    fake_gpu.capturable = False
    with pytest.raises(EngineError, match="text_encoder-b1: tensorrt-rtx cannot capture"):
        gpu.synth("drum", **ONE)
    assert fake_gpu.cuda.used() == 0


def test_wrong_inputs_of_a_clip(gpu: Synthesizer) -> None:
    assert gpu.engines is not None
    key = ClipKey(168, 1, 2, guided=False)
    good = {
        name: np.zeros(shape, dtype)
        for name, (shape, dtype) in gpu.engines.clip(key).inputs.items()
    }
    with pytest.raises(InputError, match="inputs differ in eta"):
        gpu.engines.play(key, {n: v for n, v in good.items() if n != "eta"})
    with pytest.raises(InputError, match=r"x is float32 \[2, 2\] instead of"):
        gpu.engines.play(key, {**good, "x": np.zeros((2, 2), np.float32)})
    with pytest.raises(InputError, match="weights is float64"):
        gpu.engines.play(key, {**good, "weights": np.zeros(1)})


def test_wrong_inputs_of_a_graph(gpu: Synthesizer) -> None:
    vocoder = gpu.session("vocoder")
    with pytest.raises(InputError, match="inputs are none and should be mel"):
        vocoder.run({})
    with pytest.raises(InputError, match=r"mel is \[1, 7, 168\]"):
        vocoder.run({"mel": np.zeros((1, 7, 168), np.float32)})
    with pytest.raises(InputError, match="no engine for 40 frames; there are 168"):
        vocoder.run({"mel": np.zeros((1, 8, 40), np.float32)})
    step = gpu.session("denoiser_step")
    inputs = {"t": np.zeros(1, np.float32), "s": np.zeros(1, np.float32)}
    mel = np.zeros((2, 8, 168), np.float32)
    inputs |= {"x": mel, "noise": mel[:1], "eta": np.zeros(1, np.float32)}
    inputs |= {"weights": np.ones(1, np.float32), "condition": np.zeros((1, 2, 4), np.float32)}
    with pytest.raises(InputError, match=r"noise is \[1, 8, 168\]"):
        step.run(inputs)


def test_a_clip_that_no_bucket_holds_is_made_in_windows(
    tiny_copy: Path, fake_gpu: Any, edit_manifest: Any
) -> None:
    edit_manifest(tiny_copy, lambda m: m["diffusion"].update(max_frames=1376))
    clips = []
    for provider in ("tensorrt-rtx", "cpu"):
        with Synthesizer.from_bundle(tiny_copy, provider) as synthesizer:
            clips.append(synthesizer.synth("drum", duration=9.0, num_steps=2))
            labels = set(synthesizer.engines._players) if synthesizer.engines else set()
            assert not any("denoiser_step-b1-f704" in label for label in labels)
    # the same windows and the same noise everywhere
    np.testing.assert_allclose(clips[0].waveform, clips[1].waveform, atol=1e-5)
    assert clips[0].audio_s == 9.0


@pytest.mark.parametrize("options", [{"loop": True}, {"init": "given", "strength": 0.5}])
def test_what_a_captured_clip_cannot_do_goes_step_by_step(
    tiny_bundle: Path, fake_gpu: Any, options: dict[str, Any]
) -> None:
    if "init" in options:
        sound = np.random.default_rng(0).normal(scale=0.1, size=8000).astype(np.float32)
        options = {**options, "init": AudioClip(sound, 22050)}
    clips = []
    for provider in ("tensorrt-rtx", "cpu"):
        with Synthesizer.from_bundle(tiny_bundle, provider) as synthesizer:
            clips.append(synthesizer.synth("drum", num_steps=4, **options))
    np.testing.assert_allclose(clips[0].waveform, clips[1].waveform, atol=1e-5)
    assert clips[0].network_calls == clips[1].network_calls


def test_two_synthesizers_in_two_threads(tiny_bundle: Path, fake_gpu: Any) -> None:
    queries = ["drum", "piano"]
    found: dict[str, list[np.ndarray]] = {query: [] for query in queries}
    with (
        Synthesizer.from_bundle(tiny_bundle, "tensorrt-rtx") as one,
        Synthesizer.from_bundle(tiny_bundle, "tensorrt-rtx") as two,
    ):
        assert one.engines is not None
        assert two.engines is not None
        assert int(one.engines.stream) != int(two.engines.stream)
        one.synth("drum", **ONE)
        two.synth("piano", **ONE)

        def work(synthesizer: Synthesizer, query: str) -> None:
            for _ in range(5):
                found[query].append(synthesizer.synth(query, **ONE).waveform)

        threads = [
            threading.Thread(target=work, args=pair)
            for pair in zip((one, two), queries, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for query in queries:
        assert len(found[query]) == 5
        for again in found[query][1:]:
            np.testing.assert_array_equal(found[query][0], again)
    assert not np.array_equal(found["drum"][0], found["piano"][0])


def test_two_threads_share_a_synthesizer(gpu: Synthesizer) -> None:
    check_threads(lambda query: gpu.synth(query, **ONE).waveform, ["drum", "piano"])


def test_auto_takes_engines_only_where_they_are_built(tiny_bundle: Path, fake_gpu: Any) -> None:
    with Synthesizer.from_bundle(tiny_bundle, "auto") as before:
        assert before.provider in ("cpu", "openvino")
        assert "run clipsynth-rt build" in before.choice.not_taken["tensorrt-rtx"]
        assert "tensorrt is not installed" in before.choice.not_taken["tensorrt"]
    with Synthesizer.from_bundle(tiny_bundle, "tensorrt-rtx") as builds:
        builds.warm_up()
        builds.synth("drum", **ONE)
    with Synthesizer.from_bundle(tiny_bundle, "auto") as after:
        assert after.provider == "tensorrt-rtx"
        assert after.choice.not_taken.keys() == {"tensorrt"}


def test_a_named_provider_that_does_not_load(
    tiny_bundle: Path, fake_gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProviderUnavailableError, match=r"tensorrt is not available.*pip install"):
        Synthesizer.from_bundle(tiny_bundle, "tensorrt")

    def no_gpu() -> None:
        raise ProviderUnavailableError("cudaGetDeviceCount: no CUDA-capable device is detected")

    monkeypatch.setattr(trt.cuda, "open_device", no_gpu)
    with pytest.raises(ProviderUnavailableError, match="no CUDA-capable device is detected"):
        Synthesizer.from_bundle(tiny_bundle, "tensorrt-rtx")


def test_a_backend_of_its_own(tiny_bundle: Path, fake_gpu: Any, tmp_path: Path) -> None:
    backend = TrtBackend(Bundle.open(tiny_bundle), "tensorrt-rtx", cache=tmp_path / "mine")
    with backend:
        assert backend.targets == ("86", "portable")
        key = ClipKey(168, 4, 1, guided=True, from_text=False)
        inputs = {n: np.zeros(s, d) for n, (s, d) in backend.clip(key).inputs.items()}
        inputs["times"][0, 0] = 1.0
        assert backend.play(key, inputs).shape == (4, 168 * 256)
    assert len(list((tmp_path / "mine").glob("*.plan"))) == 2


def test_kernels_are_compiled_once_a_machine(
    tiny_bundle: Path, fake_gpu: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def speak() -> None:
        with Synthesizer.from_bundle(tiny_bundle, "tensorrt-rtx") as synthesizer:
            synthesizer.synth("drum", **ONE)
            # one engine of the three, apart: its kernels are known by then
            synthesizer.encode_text(["drum"], ["a photo of {query}"])

    speak()
    assert fake_gpu.compiled == 3
    kept = sorted((tmp_path / "engines").glob("*.kernels"))
    assert len(kept) == 3
    speak()
    assert fake_gpu.compiled == 3
    # of another driver: compiled again, and kept
    kept[0].write_bytes(b"garbage")
    speak()
    assert fake_gpu.compiled == 4
    assert kept[0].read_bytes().startswith(b"kernels of ")


def test_kernels_that_cannot_be_kept(
    tiny_bundle: Path,
    fake_gpu: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from clipsynth_rt.backends.tensorrt import engine_cache as plans
    from clipsynth_rt.cache import default_cache
    from clipsynth_rt.errors import OutputError

    with Synthesizer.from_bundle(tiny_bundle, "tensorrt-rtx") as synthesizer:
        synthesizer.synth("drum", num_steps=1, **ONE)

    def full(path: Path, data: bytes) -> None:
        raise OutputError(f"{path}: cannot be written (No space left on device)")

    for path in default_cache().glob("*.kernels"):
        path.unlink()
    monkeypatch.setattr(plans, "write_atomically", full)
    with Synthesizer.from_bundle(tiny_bundle, "tensorrt-rtx") as synthesizer:
        assert synthesizer.synth("drum", num_steps=1, **ONE).provider == "tensorrt-rtx"
    assert "will be compiled again next time" in caplog.text


def test_tensorrt_itself_takes_the_same_path(
    tiny_bundle: Path, gpu_double: Any, fake_cuda: Any, tmp_path: Path
) -> None:
    """It has no targets, no kernel cache and a timing cache; all else is one code path."""
    library = trt.trt_api.TensorRTApi("tensorrt", gpu_double.Tensorrt(fake_cuda, rtx=False))
    device = trt.cuda.Device(fake_cuda)
    backend = TrtBackend(
        Bundle.open(tiny_bundle), "tensorrt", cache=tmp_path, library=library, device=device
    )
    with backend:
        assert backend.targets == ("86",)
        key = ClipKey(168, 1, 1, guided=False, from_text=False)
        inputs = {n: np.zeros(s, d) for n, (s, d) in backend.clip(key).inputs.items()}
        inputs["times"][0, 0] = 1.0
        assert backend.play(key, inputs).shape == (1, 168 * 256)
    assert not list(tmp_path.glob("*.kernels"))
    assert len(list(tmp_path.glob("timing-tensorrt-1.0-86.cache"))) == 1
    assert fake_cuda.left() == {"device": 0, "pinned": 0, "graphs": 0, "streams": 0}


def test_a_gpu_that_the_library_does_not_play_on(
    gpu_double: Any, fake_gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found out before there is anything to build, in the library's own words."""
    hopper = cuda.Device(gpu_double.Cuda(compute_capability=(9, 0)))
    monkeypatch.setattr(cuda, "open_device", lambda: hopper)
    # one that is not listed may play the portable engine all the same
    assert backends.probe("tensorrt-rtx") == ""
    fake_gpu.unplayable = "The engine cannot run on this GPU, which has compute capability 9.0."
    problem = backends.probe("tensorrt-rtx")
    assert problem.endswith("(The engine cannot run on this GPU, which has compute capability 9.0)")
    with pytest.raises(ProviderUnavailableError, match="cannot run on this GPU"):
        backends.choose("tensorrt-rtx")
    assert "cannot run on this GPU" in backends.choose("auto").not_taken["tensorrt-rtx"]
    # one that it lists is not asked
    assert len(fake_gpu.builds) == 4
    monkeypatch.setattr(cuda, "open_device", lambda: cuda.Device(fake_gpu.cuda))
    assert backends.probe("tensorrt-rtx") == ""
    assert len(fake_gpu.builds) == 4
