"""Graphs that multiply integers on a CPU, in floating point for GPUs."""

from __future__ import annotations

import re
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from clipsynth_export.to_triton import write_repository
from clipsynth_rt import Bundle
from clipsynth_rt.backends.tensorrt import api as trt_api
from clipsynth_rt.errors import BundleError, HashMismatchError, MissingExtraError, install_command
from clipsynth_rt.onnx_editing.dequantize import read_for_gpu

GRAPHS = ("denoiser_step", "vocoder")
SIZES = {"B": 1, "G": 1, "F": 64, "L": 8}


def inputs_of(spec):
    rng = np.random.default_rng(7)
    shapes = {name: [SIZES.get(n, n) for n in tensor.shape] for name, tensor in spec.inputs.items()}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def outputs(model, spec):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, inputs_of(spec))[0]


def snr_db(reference, found):
    return 10 * np.log10(np.mean(reference**2) / np.mean((reference - found) ** 2))


@pytest.mark.parametrize("name", GRAPHS)
def test_only_the_rounding_of_weights_is_left(exported, name):
    bundle = Bundle.open(exported)
    integer = bundle.graph(name, "int8")
    wide = read_for_gpu(integer, "gpu")
    operators = {node.op_type for node in onnx.load_model_from_string(wide).graph.node}
    assert not [kind for kind in operators if "Quantize" in kind or "Integer" in kind]
    onnx.checker.check_model(onnx.load_model_from_string(wide), full_check=True)
    reference = outputs(bundle.graph(name, "fp32").read(), integer.spec)
    before = snr_db(reference, outputs(integer.read(), integer.spec))
    after = snr_db(reference, outputs(wide, integer.spec))
    assert after > max(25.0, before + 3.0)


@pytest.mark.parametrize("name", GRAPHS)
def test_real_engines_are_built_of_integer_graphs(exported, name):
    try:
        rtx = trt_api.load_library("tensorrt-rtx")
    except MissingExtraError as error:
        pytest.skip(str(error))
    graph = Bundle.open(exported).graph(name, "int8")
    shapes = {key: value.shape for key, value in inputs_of(graph.spec).items()}
    plan, _ = rtx.build(name, read_for_gpu(graph, "tensorrt-rtx"), shapes, "86")
    assert plan.startswith(b"vtrt")


def test_other_graphs_stay_as_they_are(exported):
    for precision in ("fp32", "w16"):
        graph = Bundle.open(exported).graph("vocoder", precision)
        assert read_for_gpu(graph, "gpu") == graph.read()


def test_what_is_missing_or_damaged_is_named(exported, tmp_path, monkeypatch):
    graph = Bundle.open(exported).graph("vocoder", "int8")
    path = tmp_path / "vocoder.onnx"
    path.write_bytes(b"\x08\x08junk")
    with pytest.raises(BundleError, match=r"vocoder\.onnx: is not an ONNX graph"):
        read_for_gpu(replace(graph, path=path, sha256=None), "gpu")
    with pytest.raises(HashMismatchError):
        read_for_gpu(replace(graph, path=path), "gpu")
    model = onnx.load_model_from_string(graph.read())
    kept = [weight for weight in model.graph.initializer if "quantized" not in weight.name]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=r"vocoder\.onnx: quantised otherwise than clipsynth-rt"):
        read_for_gpu(replace(graph, path=path, sha256=None), "gpu")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=re.escape(install_command("gpu"))):
        read_for_gpu(graph, "gpu")


@pytest.mark.parametrize("place", ["cpu", "gpu", "tensorrt"])
def test_triton_gets_floats_for_a_gpu_alone(exported, tmp_path, place):
    bundle, on_gpu = Bundle.open(exported), {} if place == "cpu" else {place: True}
    write_repository(bundle, tmp_path / "models", {"vocoder": "int8"}, **on_gpu)
    model = onnx.load(tmp_path / "models" / "clipsynth_vocoder" / "1" / "model.onnx")
    integers = any(node.op_type == "MatMulInteger" for node in model.graph.node)
    assert integers is (place == "cpu")
