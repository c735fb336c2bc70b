"""Loading graphs, and refusing providers and graphs that are not what they claim."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from clipsynth_rt import machine
from clipsynth_rt.backends import choice as backends
from clipsynth_rt.backends.interface import PROBE
from clipsynth_rt.bundles.bundle import Bundle, GraphFile
from clipsynth_rt.bundles.manifest import GraphSpec, TensorSpec
from clipsynth_rt.errors import (
    BackendError,
    BundleError,
    InputError,
    MissingExtraError,
    ProviderUnavailableError,
    install_command,
)

onnxruntime = pytest.importorskip("onnxruntime")
from clipsynth_rt.backends.ort import session as ort  # noqa: E402

HAS_CUDA = ort.probe("cuda") == ""


@pytest.fixture
def vocoder(tiny_bundle: Path) -> GraphFile:
    return Bundle.open(tiny_bundle).graph("vocoder")


def altered(graph: GraphFile, **changes: Any) -> GraphFile:
    """The same file under another promise."""
    sides = {"inputs": graph.spec.inputs, "outputs": graph.spec.outputs, **changes}
    spec = GraphSpec(sides["inputs"], sides["outputs"], graph.spec.files)
    return GraphFile(graph.name, graph.precision, graph.path, spec)


def test_probe_is_a_valid_graph() -> None:
    model = onnx.load_from_string(PROBE)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Add"]


def test_run(vocoder: GraphFile) -> None:
    session = backends.open_session(vocoder, "cpu", 1)
    assert session.provider == "cpu"
    outputs = session.run({"mel": np.zeros((2, 8, 3), np.float32)})
    assert {name: value.shape for name, value in outputs.items()} == {"waveform": (2, 768)}


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"mel": np.zeros((1, 7, 3), np.float32)},
        {"mel": np.zeros((1, 8, 3), np.float64)},
        {"other": np.zeros(1, np.float32)},
    ],
    ids=["none", "shape", "type", "name"],
)
def test_wrong_inputs(vocoder: GraphFile, inputs: dict[str, Any]) -> None:
    session = backends.open_session(vocoder, "cpu", 1)
    with pytest.raises(BackendError, match=r"^vocoder: ") as caught:
        session.run(inputs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": {"mels": TensorSpec("float32", ("B", 8, "F"))}}, "inputs are mel and"),
        ({"inputs": {"mel": TensorSpec("float16", ("B", 8, "F"))}}, "input mel is float32"),
        (
            {"inputs": {"mel": TensorSpec("float32", ("B", 9, "F"))}},
            r"says float32 \['B', 9, 'F'\]",
        ),
        ({"inputs": {"mel": TensorSpec("float32", ("B", 8))}}, "input mel is"),
        ({"inputs": {"mel": TensorSpec("float32", (1, 8, "F"))}}, "input mel is"),
        ({"inputs": {"mel": TensorSpec("float32", ("B", "M", "F"))}}, "input mel is"),
        ({"outputs": {"sound": TensorSpec("float32", ("B", "T"))}}, "outputs are waveform and"),
        ({"outputs": {"waveform": TensorSpec("float32", ("B", 1, "T"))}}, "output waveform is"),
    ],
)
def test_a_graph_that_is_not_what_the_manifest_says(
    vocoder: GraphFile, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        backends.open_session(altered(vocoder, **changes), "cpu", 1)
    assert str(vocoder.path) in str(caught.value)


def test_a_file_that_is_no_graph(vocoder: GraphFile, tmp_path: Path) -> None:
    path = tmp_path / "vocoder.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(BundleError, match=r"vocoder\.onnx: is not an ONNX graph"):
        backends.open_session(GraphFile("vocoder", "fp32", path, vocoder.spec), "cpu", 1)
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(BundleError, match=r"vocoder\.onnx: ONNX Runtime .* cannot load it"):
        backends.open_session(GraphFile("vocoder", "fp32", path, vocoder.spec), "cpu", 1)


def test_unknown_provider_and_threads(vocoder: GraphFile) -> None:
    with pytest.raises(InputError, match="unknown provider 'tpu'"):
        backends.choose_provider("tpu")
    for threads in (0, -1, 5000):
        with pytest.raises(InputError, match="threads must be from 1"):
            backends.open_session(vocoder, "cpu", threads)


@pytest.mark.skipif(HAS_CUDA, reason="this machine has CUDA")
def test_cuda_where_there_is_none(vocoder: GraphFile) -> None:
    with pytest.raises(ProviderUnavailableError, match="provider cuda is not available"):
        backends.open_session(vocoder, "cuda")
    assert backends.choose_provider("auto") in ("cpu", "openvino")


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="no CUDA here")
def test_cuda_agrees_with_the_cpu(vocoder: GraphFile) -> None:
    mel = {"mel": np.linspace(-1, 1, 8 * 16, dtype=np.float32).reshape(1, 8, 16)}
    cuda, cpu = (backends.open_session(vocoder, name).run(mel) for name in ("cuda", "cpu"))
    # TF32 off by default; sums of eight in another order
    np.testing.assert_allclose(cuda["waveform"], cpu["waveform"], atol=1e-5)


def test_a_provider_that_silently_becomes_the_cpu(
    vocoder: GraphFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what ONNX Runtime does where CUDA is built in and its libraries are missing: it lists the
    # provider, raises nothing, and runs on the CPU
    real = onnxruntime.InferenceSession
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda model, options, _, **more: real(model, options, ["CPUExecutionProvider"], **more),
    )
    ort.probe.cache_clear()
    try:
        with pytest.raises(ProviderUnavailableError, match="cuda did not load"):
            backends.open_session(vocoder, "cuda")
        assert backends.choose_provider("auto") in ("cpu", "openvino")
    finally:
        ort.probe.cache_clear()


@pytest.mark.usefixtures("no_cpu_backend")
def test_without_onnxruntime() -> None:
    with pytest.raises(MissingExtraError, match=re.escape(install_command("cpu"))):
        backends.choose_provider("auto")


def test_threads_default_to_the_cores_this_process_may_use() -> None:
    cores = machine.physical_cores()
    assert 1 <= cores
    assert ort.session_options().intra_op_num_threads == cores
    assert ort.session_options(3).intra_op_num_threads == 3
