"""ONNX Runtime's CUDA provider, as far as it can be seen without a GPU."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1]))
from threads_for_tests import check_threads

from clipsynth_rt import Bundle, Synthesizer
from clipsynth_rt.errors import BackendError
from clipsynth_rt.synthesis import samplers as sampler
from clipsynth_rt.synthesis.schedule import gaussian_noise

onnxruntime = pytest.importorskip("onnxruntime")
from clipsynth_rt.backends.ort import session as ort  # noqa: E402
from clipsynth_rt.backends.ort import step_loop as ort_loop  # noqa: E402


@pytest.fixture
def cpu(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_bundle(tiny_bundle, "cpu", threads=1)


@pytest.fixture
def step(tiny_bundle: Path) -> ort.OrtSession:
    return ort.OrtSession(Bundle.open(tiny_bundle).graph("denoiser_step"), "cpu", 1)


def fixed(conditions: int, batch: int = 1) -> dict[str, np.ndarray]:
    condition = np.linspace(-1, 1, conditions * batch * 4, dtype=np.float32)
    weights = np.array([2.0, -1.0][:conditions] if conditions == 2 else [1.0], np.float32)
    return {"condition": condition.reshape(conditions, batch, 4), "weights": weights}


def host_step(session: ort.OrtSession, same: dict[str, np.ndarray]) -> Any:
    def step(x: Any, t: float, s: float, eta: float, noise: Any) -> Any:
        scalars = {n: np.array([v], np.float32) for n, v in (("t", t), ("s", s), ("eta", eta))}
        found = session.run({"x": x, "noise": noise, **scalars, **same})
        return found["x_next"], found["x0"]

    return step


@pytest.mark.parametrize("num_steps", [1, 2, 5])
@pytest.mark.parametrize("eta", [0.0, 0.8])
@pytest.mark.parametrize("conditions", [1, 2])
def test_a_loop_on_the_device_is_the_loop_over_arrays(
    step: ort.OrtSession, num_steps: int, eta: float, conditions: int
) -> None:
    x = gaussian_noise(3, 16, 8)[None]
    times = np.linspace(1.0, 0.0, num_steps + 1)

    def noise(i: int) -> np.ndarray:
        return gaussian_noise(3, 16, 8, i)[None]

    for _ in range(2):  # the second time on the same buffers
        with step.loops.loop(x, fixed(conditions)) as device:
            found = sampler.ddim(device, x, times, eta=eta, noise_for_step=noise)
            mel = found.numpy()  # type: ignore[attr-defined]
        want = sampler.ddim(
            host_step(step, fixed(conditions)), x, times, eta=eta, noise_for_step=noise
        )
        np.testing.assert_array_equal(mel, want)


def test_stages_use_the_loop_on_cuda(cpu: Synthesizer, monkeypatch: pytest.MonkeyPatch) -> None:
    want = cpu.synth("drum", num_steps=3).waveform
    session = cpu.session("denoiser_step")
    assert isinstance(session, ort.OrtSession)
    loops = ort_loop.StepLoops(session._session, "cpu", "step", captures=False)
    monkeypatch.setattr(session, "_provider", "cuda")
    monkeypatch.setattr(session, "loops", loops, raising=False)
    monkeypatch.setattr(session, "run", None)  # nothing comes back to the host on the way
    clip = cpu.synth("drum", num_steps=3)
    np.testing.assert_array_equal(clip.waveform, want)
    assert clip.provider == "cuda"


def test_buffers_are_kept_for_the_shapes_used_last(step: ort.OrtSession) -> None:
    released: list[int] = []
    session = step._session
    loops = ort_loop.StepLoops(
        SimpleNamespace(
            io_binding=session.io_binding,
            run_with_iobinding=session.run_with_iobinding,
            release_captured_graph=released.append,
        ),
        "cpu",
        "step",
        captures=True,
    )
    for frames in (8, 16, 24, 32, 8, 40):
        with loops.loop(np.zeros((1, 8, frames), np.float32), fixed(1)):
            pass
    # 16 went, which was used longest ago; its graphs were those of both directions
    assert released == [3, 4]


def test_a_denoiser_is_captured_with_its_shapes_fixed(
    step: ort.OrtSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session for each set of shapes, of which the last few are kept, without shape nodes."""
    monkeypatch.setattr(step, "_captures", True)
    first: Any = None
    for frames, conditions in ((8, 1), (16, 2), (24, 1), (8, 2), (16, 2), (32, 1)):
        mel = gaussian_noise(3, frames, 8)[None]
        with step.loop(mel, fixed(conditions)) as device:
            x, _ = device(mel, 1.0, 0.5, 0.0, mel)
        want = host_step(step, fixed(conditions))(mel, 1.0, 0.5, 0.0, mel)[0]
        np.testing.assert_allclose(x.numpy(), want, atol=1e-6)
        first = first or next(iter(step._shaped))
    assert step._captures is True
    assert len(step._shaped) == ort_loop.MAX_LOOPS
    assert first not in step._shaped
    for loops in map(step._shaped.get, step._shaped):
        parts = loops._session.get_provider_graph_assignment_info()
        nodes = [node.op_type for part in parts for node in part.get_nodes()]
        assert not {"Shape", "Range"} & set(nodes)
        assert all(
            isinstance(size, int) for node in loops._session.get_inputs() for size in node.shape
        )


def test_a_loop_that_fails(step: ort.OrtSession) -> None:
    x = np.zeros((1, 8, 16), np.float32)
    # a batch of two conditions for one mel: the graph refuses it
    with step.loops.loop(x, fixed(1, batch=3)) as device:
        with pytest.raises(BackendError, match=r"^denoiser_step: ") as caught:
            device(x, 1.0, 0.5, 0.0, x)
    assert "\n" not in str(caught.value)


def test_what_the_provider_is_told(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One graph is captured, and one that cannot be is loaded again without, with a warning."""
    told: list[Any] = []
    real = onnxruntime.InferenceSession

    def session(model: Any, options: Any, providers: Any, enable_fallback: int) -> Any:
        assert enable_fallback == 0
        told.append(providers)
        if providers[0][1].get("enable_cuda_graph") == "1":
            raise RuntimeError("This session cannot use the graph capture feature\nmore")
        found = real(model, options, providers=["CPUExecutionProvider"])
        monkeypatch.setattr(found, "get_providers", lambda: ["CUDAExecutionProvider"])
        return found

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    caplog.set_level(logging.WARNING)
    bundle = Bundle.open(tiny_bundle)
    monkeypatch.setattr(ort, "CAPTURED", frozenset({"text_encoder"}))
    ort.OrtSession(bundle.graph("vocoder"), "cuda", 1)
    text = ort.OrtSession(bundle.graph("text_encoder"), "cuda", 1)
    plain = {"cudnn_conv_algo_search": "HEURISTIC", "enable_cuda_graph": "0"}
    assert told == [
        [("CUDAExecutionProvider", plain)],
        [("CUDAExecutionProvider", {**plain, "enable_cuda_graph": "1"})],
        [("CUDAExecutionProvider", plain)],
    ]
    assert "text_encoder: no CUDA graph (" in caplog.text
    assert "cannot use the graph capture feature" in caplog.text
    assert text._captures is False
    # every node of these ran on the CPU, which is said with their names
    assert "nodes do not run on cuda: " in caplog.text
    assert "(Transpose)" in caplog.text
    assert " and " in caplog.text


def test_nodes_elsewhere(step: ort.OrtSession) -> None:
    assert ort.stray_nodes(step._session, "cpu") == []
    strays = ort.stray_nodes(step._session, "cuda")
    assert any(stray.endswith("(Cos)") for stray in strays)
    # a version that does not tell
    assert ort.stray_nodes(SimpleNamespace(), "cuda") == []


def test_no_fallback_in_the_middle_of_a_run(step: ort.OrtSession) -> None:
    assert step._session._enable_fallback is False


def test_cudas_own_words() -> None:
    said = "/src/cuda_call.cc:146 std::conditional_t<THRW> CUDA failure 100: no device ; GPU=-1 ; x"
    assert ort._first_line(RuntimeError(said)) == "CUDA failure 100: no device"


def test_graphs_that_run_once_a_clip_keep_their_buffers(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each set of shapes has its own; the run that makes them captures nothing."""
    session = ort.OrtSession(Bundle.open(tiny_bundle).graph("text_encoder"), "cpu", 1)
    taken: list[tuple[str, str]] = []
    real = session._session

    def note(kind: str) -> Any:
        def run(*arguments: Any) -> Any:
            options = arguments[-1].get_run_config_entry("gpu_graph_id")
            taken.append((kind, options))
            return getattr(real, kind)(*arguments)

        return run

    fake = SimpleNamespace(
        run=note("run"), run_with_iobinding=note("run_with_iobinding"), io_binding=real.io_binding
    )
    released: list[int] = []
    fake.release_captured_graph = released.append
    monkeypatch.setattr(ort_loop, "MAX_RUNS", 2)
    fixed_runs = ort_loop.FixedRuns(fake, "cpu", ["embedding"])
    monkeypatch.setattr(session, "_fixed", fixed_runs, raising=False)
    monkeypatch.setattr(session, "_captures", True)

    def tokens(length: int, start: int) -> dict[str, np.ndarray]:
        ids = np.arange(start, start + length, dtype=np.int64)[None] % 4
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    asked = [tokens(3, 0), tokens(3, 1), tokens(5, 0), tokens(3, 2), tokens(4, 0), tokens(3, 1)]
    found = [session.run(inputs)["embedding"] for inputs in asked]
    for inputs, embedding in zip(asked, found, strict=True):
        want = real.run(["embedding"], inputs)[0]
        np.testing.assert_allclose(embedding, want, atol=1e-6)
    assert taken == [
        ("run", "-1"),
        ("run_with_iobinding", "1"),
        ("run", "-1"),
        ("run_with_iobinding", "1"),
        ("run", "-1"),
        ("run_with_iobinding", "1"),
    ]
    # the one used longest ago went first
    assert released == [2]


def test_threads_share_the_buffers_of_a_loop(step: ort.OrtSession) -> None:
    times = np.linspace(1.0, 0.0, 4)

    def make(seed: int) -> np.ndarray:
        x = gaussian_noise(seed, 16, 8)[None]
        with step.loops.loop(x, fixed(1)) as device:
            return sampler.ddim(device, x, times).numpy().copy()  # type: ignore[attr-defined]

    check_threads(make, [1, 2])


def test_threads_share_the_buffers_of_a_graph(tiny_bundle: Path) -> None:
    session = ort.OrtSession(Bundle.open(tiny_bundle).graph("text_encoder"), "cpu", 1)

    def make(first: int) -> np.ndarray:
        ids = np.arange(first, first + 3, dtype=np.int64)[None] % 4
        return session._fixed.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]

    check_threads(make, [0, 1])


def test_nothing_uses_the_device_while_another_thread_captures(tiny_bundle: Path) -> None:
    """Memory that is taken meanwhile would spoil the capture."""
    step = ort.OrtSession(Bundle.open(tiny_bundle).graph("denoiser_step"), "cpu", 1)
    vocoder = ort.OrtSession(Bundle.open(tiny_bundle).graph("vocoder"), "cpu", 1)
    x, one = np.zeros((1, 8, 16), np.float32), np.ones(1, np.float32)
    inputs = {"x": x, "noise": x, "t": one, "s": 0 * one, "eta": 0 * one, **fixed(1)}
    uses: list[Callable[[], object]] = [lambda: step.run(inputs)]
    uses.append(lambda: vocoder._stop_capturing(ValueError("none")))
    done: list[bool] = []

    def work(use: Callable[[], object]) -> None:
        use()
        done.append(True)

    with pytest.MonkeyPatch.context() as patch:
        for session in (step, vocoder):
            patch.setattr(session, "_provider", "cuda")
        # what _stop_capturing loads is the CPU's all the same
        patch.setattr(vocoder, "_open", lambda *_: vocoder._session)
        threads = [threading.Thread(target=work, args=(use,)) for use in uses]
        with ort_loop.TURNS:
            for thread in threads:
                thread.start()
            time.sleep(0.3)
            assert not done
        for thread in threads:
            thread.join(30)
    assert len(done) == len(uses)


class _Uncapturable:
    """A session that fails where it would capture."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing ; x")


def test_what_cannot_be_captured_is_found_out_in_a_run(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes on without a CUDA graph, with a warning, and with the same result."""
    bundle = Bundle.open(tiny_bundle)
    mel = np.zeros((1, 8, 16), np.float32)
    vocoder = ort.OrtSession(bundle.graph("vocoder"), "cpu", 1)
    step = ort.OrtSession(bundle.graph("denoiser_step"), "cpu", 1)
    want = vocoder.run({"mel": mel})["waveform"]
    want_x = host_step(step, fixed(2))(mel, 1.0, 0.5, 0.0, mel)[0]
    monkeypatch.setattr(vocoder, "_session", _Uncapturable(vocoder._session))
    load = ort._load

    def shaped(*arguments: Any, captures: bool = False) -> Any:
        real = load(*arguments, captures=captures)
        return _Uncapturable(real) if captures else real

    monkeypatch.setattr(ort, "_load", shaped)
    for session in (vocoder, step):
        monkeypatch.setattr(session, "_captures", True)
    # what the graph refuses has nothing to do with its capture
    with pytest.raises(BackendError, match=r"^vocoder: "):
        vocoder.run({"mel": mel[0]})
    assert vocoder._captures is True
    for _ in range(3):
        np.testing.assert_array_equal(vocoder.run({"mel": mel})["waveform"], want)
    with step.loop(mel, fixed(2)) as device:
        x, _ = device(mel, 1.0, 0.5, 0.0, mel)
    np.testing.assert_allclose(x.numpy(), want_x, atol=1e-6)
    assert vocoder._captures is False
    assert step._captures is False
    words = "no CUDA graph (CUDA failure 900: operation not permitted when stream is capturing)"
    said = [record.message for record in caplog.records]
    assert said == [f"vocoder: {words}", f"denoiser_step: {words}"]
