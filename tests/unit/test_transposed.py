"""Transposed convolutions that do not overlap, rewritten for TensorRT."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from clipsynth_rt.onnx_editing.transposed import rewrite_transposed

RANDOM = np.random.default_rng(0)


def graph(
    size: int = 2, *, cast: bool = False, bias: bool = True, outputs: int = 3, **facts: Any
) -> bytes:
    """Return a file of one ConvTranspose from 5 channels."""
    kind = np.float16 if cast else np.float32
    weights = {"w": RANDOM.standard_normal((5, outputs, size, size)).astype(kind)}
    if bias:
        weights["b"] = RANDOM.standard_normal(outputs).astype(kind)
    names, nodes = list(weights), []
    if cast:
        names = [f"{name}.wide" for name in weights]
        nodes = [
            helper.make_node("Cast", [name], [f"{name}.wide"], to=TensorProto.FLOAT)
            for name in weights
        ]
    facts = {"kernel_shape": [size, size], "strides": [size, size], **facts}
    nodes.append(helper.make_node("ConvTranspose", ["x", *names], ["y"], name="head", **facts))
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 5, 4, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = helper.make_opsetid("", 18)
    return helper.make_model(made, opset_imports=[opset], ir_version=9).SerializeToString()


def run(data: bytes) -> np.ndarray:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((2, 5, 4, 6)).astype(np.float32)
    return session.run(None, {"x": x})[0]


def operators(data: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(data).graph.node]


@pytest.mark.parametrize(
    "wish", [{}, {"size": 3}, {"cast": True}, {"bias": False}, {"outputs": 1, "cast": True}]
)
def test_what_does_not_overlap_becomes_a_product(wish: dict[str, Any]) -> None:
    before = graph(**wish)
    after = rewrite_transposed(before, "tensorrt")
    assert operators(after)[-2:] == ["Conv", "DepthToSpace"]
    assert "ConvTranspose" not in operators(after)
    np.testing.assert_allclose(run(after), run(before), atol=1e-5)


@pytest.mark.parametrize(
    "facts",
    [{"strides": [1, 1]}, {"pads": [1, 0, 0, 0]}, {"output_padding": [1, 1]}],
    ids=["overlapping", "padded", "padded behind"],
)
def test_what_is_something_else_stays(facts: dict[str, Any]) -> None:
    before = graph(**facts)
    assert rewrite_transposed(before, "tensorrt") == before


def test_what_is_no_graph_stays() -> None:
    for data in (b"", b"ConvTranspose \xff\xff", b"nothing of the kind"):
        assert rewrite_transposed(data, "tensorrt") == data


def test_the_shipped_denoisers_head_is_one() -> None:
    from clipsynth_rt import Bundle
    from clipsynth_rt.bundles.manifest import DENOISERS
    from clipsynth_rt.onnx_editing.dequantize import read_for_gpu

    bundle = Bundle.open()
    for name in DENOISERS:
        data = read_for_gpu(bundle.graph(name), "tensorrt")
        assert "ConvTranspose" in operators(data)
        assert "ConvTranspose" not in operators(rewrite_transposed(data, "tensorrt"))
