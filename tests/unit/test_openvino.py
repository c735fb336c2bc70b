"""The OpenVINO backend against ONNX Runtime, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from clipsynth_rt import Synthesizer
from clipsynth_rt.backends import choice as backends
from clipsynth_rt.bundles.bundle import Bundle, GraphFile
from clipsynth_rt.bundles.manifest import GraphSpec, TensorSpec
from clipsynth_rt.errors import BackendError, BundleError, ProviderUnavailableError

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")
from clipsynth_rt.backends import cache_file as entries
from clipsynth_rt.backends.openvino import cache as openvino_cache
from clipsynth_rt.backends.openvino import session as ov
from clipsynth_rt.backends.ort import session as ort


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLIPSYNTH_RT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def vocoder(bundle: Bundle) -> GraphFile:
    return bundle.graph("vocoder")


def step_inputs(bundle: Bundle, batch: int, frames: int, conditions: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    bins, dim = bundle.manifest.mel.n_mels, bundle.manifest.condition.dim
    return {
        "x": rng.standard_normal((batch, bins, frames)).astype(np.float32),
        "noise": np.zeros((batch, bins, frames), np.float32),
        "condition": rng.standard_normal((conditions, batch, dim)).astype(np.float32),
        "weights": np.array([2.0, -1.0][:conditions], np.float32),
        "t": np.array([0.7], np.float32),
        "s": np.array([0.4], np.float32),
        "eta": np.zeros(1, np.float32),
    }


def test_probe_runs_a_graph() -> None:
    assert ov.probe() == ""


@pytest.mark.parametrize(("batch", "frames", "conditions"), [(1, 16, 1), (2, 16, 2), (1, 32, 2)])
def test_a_step_is_the_one_of_onnx_runtime(
    bundle: Bundle, batch: int, frames: int, conditions: int
) -> None:
    graph = bundle.graph("denoiser_step")
    inputs = step_inputs(bundle, batch, frames, conditions)
    found = ov.OpenVinoSession(graph, 1).run(inputs)
    expected = ort.OrtSession(graph, "cpu", 1).run(inputs)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # bfloat16 has 8 bits: two steps of the last one, of the largest value
        bound = np.abs(value).max() / 64 if ov.has_bfloat16() else 1e-4
        np.testing.assert_allclose(found[name], value, atol=bound)


def test_all_but_the_denoiser_keep_float32(bundle: Bundle, vocoder: GraphFile) -> None:
    assert ov.precision_of("vocoder") == ov.precision_of("text_encoder") == "f32"
    mel = np.random.default_rng(0).standard_normal((2, 8, 6)).astype(np.float32)
    found = ov.OpenVinoSession(vocoder, 1).run({"mel": mel})["waveform"]
    expected = ort.OrtSession(vocoder, "cpu", 1).run({"mel": mel})["waveform"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_precision_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ov, "has_bfloat16", lambda: True)
    assert ov.precision_of("denoiser_step") == "bf16"
    monkeypatch.setattr(ov, "has_bfloat16", lambda: False)
    assert ov.precision_of("denoiser_step") == "f32"


def test_few_shapes_are_kept(vocoder: GraphFile) -> None:
    session = ov.OpenVinoSession(vocoder, 1)
    for frames in (2, 3, 4, 5, 6, 2, 6):
        waveform = session.run({"mel": np.zeros((1, 8, frames), np.float32)})["waveform"]
        assert waveform.shape == (1, 256 * frames)
    assert len(session._compiled) == ov.MAX_SHAPES


def test_a_prepared_session_compiles_nothing_more(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = ov.OpenVinoSession(bundle.graph("denoiser_step"), 1)
    inputs = step_inputs(bundle, 1, 16, 2)
    session.prepare({name: value.shape for name, value in inputs.items()})
    monkeypatch.setattr(session, "_read", lambda: pytest.fail("compiled again"))
    session.run(inputs)
    with pytest.raises(BackendError, match="denoiser_step: "):
        ov.OpenVinoSession(bundle.graph("denoiser_step"), 1).prepare({"y": (1,)})


def test_prompts_of_any_length_take_one_compilation(bundle: Bundle) -> None:
    graph = bundle.graph("text_encoder")
    session = ov.OpenVinoSession(graph, 1)
    for length in (3, 7):
        ids = np.ones((1, length), np.int64)
        inputs = {"input_ids": ids, "attention_mask": ids}
        found, expected = session.run(inputs), ort.OrtSession(graph, "cpu", 1).run(inputs)
        np.testing.assert_allclose(found["embedding"], expected["embedding"], atol=1e-5)
    assert len(session._compiled) == 1


def test_threads_do_not_share_results(vocoder: GraphFile) -> None:
    session = ov.OpenVinoSession(vocoder, 1)
    rng = np.random.default_rng(1)
    mels = [rng.standard_normal((1, 8, 4)).astype(np.float32) for _ in range(4)]
    expected = [session.run({"mel": mel})["waveform"] for mel in mels]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            found = session.run({"mel": mels[number]})["waveform"]
            if not np.allclose(found, expected[number], atol=1e-6):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    "inputs",
    [{}, {"mel": np.zeros((1, 7, 3), np.float32)}, {"other": np.zeros(1, np.float32)}],
    ids=["none", "shape", "name"],
)
def test_wrong_inputs(vocoder: GraphFile, inputs: dict[str, Any]) -> None:
    with pytest.raises(BackendError, match=r"^vocoder: ") as caught:
        ov.OpenVinoSession(vocoder, 1).run(inputs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "dtype", "name", "message"),
    [
        (("B", 8, "F"), "float32", "mels", "inputs are mel and"),
        (("B", 8, "F"), "float16", "mel", "input mel is float32"),
        (("B", 9, "F"), "float32", "mel", "input mel is float32"),
        (("B", 8), "float32", "mel", "input mel is"),
        ((1, 8, "F"), "float32", "mel", "input mel is"),
    ],
)
def test_a_graph_that_is_not_what_the_manifest_says(
    vocoder: GraphFile, shape: tuple[Any, ...], dtype: str, name: str, message: str
) -> None:
    spec = GraphSpec({name: TensorSpec(dtype, shape)}, vocoder.spec.outputs, vocoder.spec.files)
    with pytest.raises(BundleError, match=message) as caught:
        ov.OpenVinoSession(GraphFile("vocoder", "fp32", vocoder.path, spec), 1)
    assert str(vocoder.path) in str(caught.value)


def test_a_file_that_is_no_graph(vocoder: GraphFile, tmp_path: Path) -> None:
    path = tmp_path / "vocoder.onnx"
    # a weight of four values and the bytes of none
    weight = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[4], raw_data=b"")
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4])
    node = onnx.helper.make_node("Relu", ["w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [], [output], [weight])
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(BundleError, match=r"vocoder\.onnx: OpenVINO .* cannot load it") as caught:
        ov.OpenVinoSession(GraphFile("vocoder", "fp32", path, vocoder.spec), 1)
    assert "\n" not in str(caught.value)


def test_auto_takes_it_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    real, gpu = backends.probe, ("tensorrt", "tensorrt-rtx", "cuda")
    monkeypatch.setattr(backends, "probe", lambda name: "none" if name in gpu else real(name))
    monkeypatch.setattr(ov, "has_bfloat16", lambda: True)
    assert backends.choose("auto").provider == "openvino"
    monkeypatch.setattr(ov, "has_bfloat16", lambda: False)
    choice = backends.choose("auto")
    assert choice.provider == "cpu"
    assert "no bfloat16" in choice.not_taken["openvino"]
    # alone it is better than nothing
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert backends.choose("auto").provider == "openvino"


def test_a_provider_that_does_not_work_is_an_error(
    vocoder: GraphFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ov, "probe", lambda: "no plugin")
    with pytest.raises(ProviderUnavailableError, match="openvino is not available: no plugin"):
        backends.open_session(vocoder, "openvino")


def test_a_sound_is_the_one_of_onnx_runtime(tiny_bundle: Path) -> None:
    options = {"duration": 0.5, "num_steps": 4}
    clips = [
        Synthesizer.from_bundle(tiny_bundle, provider=provider, threads=1).synth("drum", **options)
        for provider in ("openvino", "cpu")
    ]
    assert [clip.provider for clip in clips] == ["openvino", "cpu"]
    found, expected = (clip.waveform for clip in clips)
    assert np.corrcoef(found, expected)[0, 1] > 0.99


def kept(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.blob"))


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ov.OpenVinoSession, "_read", lambda session: pytest.fail(f"{session.name} was read")
    )


def test_the_next_process_loads_what_was_compiled(
    bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mel = np.random.default_rng(0).standard_normal((1, 8, 6)).astype(np.float32)
    ids = np.ones((1, 5), np.int64)
    runs: dict[str, dict[str, Any]] = {
        "vocoder": {"mel": mel},
        "text_encoder": {"input_ids": ids, "attention_mask": ids},
    }
    first = {name: ov.OpenVinoSession(bundle.graph(name), 1).run(x) for name, x in runs.items()}
    assert len(kept(cache)) == 2
    forbid_reading(monkeypatch)
    for name, inputs in runs.items():
        session = ov.OpenVinoSession(bundle.graph(name), 1)
        # there from the start, whatever will be asked for
        assert len(session._compiled) == 1
        for output, value in session.run(inputs).items():
            np.testing.assert_array_equal(value, first[name][output])


def test_the_form_that_was_used_last_is_loaded_first(vocoder: GraphFile) -> None:
    for frames in (4, 6, 4):
        ov.OpenVinoSession(vocoder, 1).run({"mel": np.zeros((1, 8, frames), np.float32)})
    assert list(ov.OpenVinoSession(vocoder, 1)._compiled) == [(("mel", (1, 8, 4)),)]


@pytest.mark.parametrize("harm", ["cut", "changed", "empty", "not of OpenVINO"])
def test_a_damaged_entry_is_compiled_again(
    vocoder: GraphFile, cache: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    inputs = {"mel": np.ones((1, 8, 4), np.float32)}
    expected = ov.OpenVinoSession(vocoder, 1).run(inputs)["waveform"]
    (path,) = kept(cache)
    whole = path.read_bytes()
    if harm == "not of OpenVINO":
        entries.write_cache_file(path, whole.splitlines(keepends=True)[0], {}, b"something else")
    else:
        changed = whole[:-1] + bytes([whole[-1] ^ 1])
        path.write_bytes({"cut": whole[:-9], "changed": changed, "empty": b""}[harm])
    found = ov.OpenVinoSession(vocoder, 1).run(inputs)["waveform"]
    np.testing.assert_array_equal(found, expected)
    assert "compiling it again" in caplog.text
    assert entries.read_cache_file(path, whole.splitlines(keepends=True)[0])[1]


def test_what_a_form_depends_on_is_in_its_name(vocoder: GraphFile, cache: Path) -> None:
    def name(**other: Any) -> str:
        environment = {"version": "1", "device": "a"} | other
        return (
            openvino_cache.CompiledCache(vocoder, environment, cache).path({"mel": (1, 8, 4)}).name
        )

    spec = GraphSpec(vocoder.spec.inputs, {}, vocoder.spec.files)
    # another processor's kernels are of no use in a home folder that machines share
    assert ov._environment().keys() >= {"version", "FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES"}
    other = openvino_cache.CompiledCache(
        GraphFile("vocoder", vocoder.precision, vocoder.path, spec), {"version": "1", "device": "a"}
    )
    names = {name(), name(version="2"), name(device="b"), other.path({"mel": (1, 8, 4)}).name}
    assert len(names) == 4


def test_stale_and_old_forms_make_room(
    vocoder: GraphFile, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = openvino_cache.CompiledCache(vocoder, {"version": "1"}, cache)
    assert before.is_writable()
    before.keep({"mel": (1, 8, 1)}, b"of an older OpenVINO")
    now = openvino_cache.CompiledCache(vocoder, {"version": "2"}, cache)
    now.keep({"mel": (1, 8, 1)}, b"1" * 1000)
    assert kept(cache) == [now.path({"mel": (1, 8, 1)})]
    monkeypatch.setattr(openvino_cache, "MAX_BYTES", 2500)
    for frames in (2, 3):
        os.utime(now.path({"mel": (1, 8, 1)}), (frames, frames))
        now.keep({"mel": (1, 8, frames)}, b"2" * 1000)
    assert kept(cache) == sorted(now.path({"mel": (1, 8, n)}) for n in (2, 3))


def test_a_cache_that_cannot_be_written_costs_only_time(
    vocoder: GraphFile, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_bytes(b"a file where the folder should be")
    waveform = ov.OpenVinoSession(vocoder, 1).run({"mel": np.zeros((1, 8, 4), np.float32)})
    assert waveform["waveform"].shape == (1, 1024)
    assert caplog.text == ""


def test_processes_that_compile_at_once_leave_one_whole_form(
    bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import sys, numpy as np; from clipsynth_rt.bundles.bundle import Bundle; "
        "from clipsynth_rt.backends.openvino.session import OpenVinoSession as S; "
        "S(Bundle.open(sys.argv[1]).graph('vocoder'), 1).run({'mel': np.zeros((1, 8, 4), 'f4')})"
    )
    line = [sys.executable, "-c", code, str(bundle.path)]
    started = [subprocess.Popen(line) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    assert [path.suffix for path in cache.iterdir()] == [".blob"]
    forbid_reading(monkeypatch)
    assert len(ov.OpenVinoSession(bundle.graph("vocoder"), 1)._compiled) == 1
