"""Rewrite transposed convolutions without overlap as products that every GPU has a kernel for.

TensorRT for RTX has none for a transposed convolution to few channels. With a kernel as large as
its stride each output is of one input, so a 1x1 convolution and DepthToSpace give the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from clipsynth_rt.onnx_editing.parse import parse

_OPERATOR = "ConvTranspose"
_DEPTH_TO_SPACE_MODES = 11
"""The first ONNX opset in which DepthToSpace has a mode."""


def rewrite_transposed(data: bytes, extra: str) -> bytes:
    """Return an ONNX file without the transposed convolutions that do not overlap.

    Those over two axes, with square kernels and constant weights, are rewritten; others stay. A
    file in which nothing is rewritten, or that is no ONNX graph, is returned as it is.

    Args:
        data: ONNX file.
        extra: What installs ``onnx`` beside the backend that asks.

    Raises:
        MissingExtraError: If there are any and ``onnx`` is not installed.

    Source:
        ONNX operators ConvTranspose, Conv and DepthToSpace.
    """
    if _OPERATOR.encode() not in data:
        return data
    model = parse(data, extra)
    if model is None:
        return data
    from onnx import helper, numpy_helper

    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset < _DEPTH_TO_SPACE_MODES:
        return data
    graph = model.graph
    constants = {weight.name: weight for weight in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}

    def constant(name: str) -> Any:
        """Return a constant's values, cast or not; None if it is no constant."""
        if name in constants:
            return numpy_helper.to_array(constants[name])
        maker = makers.get(name)
        if maker is None or maker.op_type != "Cast" or maker.input[0] not in constants:
            return None
        kind = next(a.i for a in maker.attribute if a.name == "to")
        return constant(maker.input[0]).astype(helper.tensor_dtype_to_np_dtype(kind))

    nodes: list[Any] = []
    for node in graph.node:
        weight = constant(node.input[1]) if node.op_type == _OPERATOR else None
        if weight is None or not _is_apart(node, weight):
            nodes.append(node)
            continue
        biased = len(node.input) > 2 and node.input[2] != ""
        bias = constant(node.input[2]) if biased else None
        if biased and bias is None:
            nodes.append(node)
            continue
        size, output = weight.shape[2], node.output[0]
        added = {f"{output}.weight": _as_rows(weight)}
        if bias is not None:
            added[f"{output}.bias"] = np.repeat(bias, size * size)
        graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in added.items())
        deep, name = f"{output}.deep", node.name or output
        nodes += [
            helper.make_node(
                "Conv", [node.input[0], *added], [deep], name=name, kernel_shape=[1, 1]
            ),
            helper.make_node(
                "DepthToSpace", [deep], [output], name=f"{name}.space", blocksize=size, mode="CRD"
            ),
        ]
    if len(nodes) == len(graph.node):
        return data
    del graph.node[:]
    graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def _as_rows(weight: Any) -> Any:
    """Return weights [I, O, k, k] as [O * k * k, I, 1, 1], in the order of DepthToSpace's CRD."""
    return np.ascontiguousarray(weight.transpose(1, 2, 3, 0).reshape(-1, weight.shape[0], 1, 1))


def _is_apart(node: Any, weight: Any) -> bool:
    """Return whether a ConvTranspose is one whose outputs do not overlap, and a square one."""
    from onnx import helper

    facts = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    size = list(weight.shape[2:])
    return (
        len(size) == 2
        and size[0] == size[1]
        and list(facts.get("strides", [1, 1])) == size
        and not any(facts.get("pads", []))
        and not any(facts.get("output_padding", []))
        and all(d == 1 for d in facts.get("dilations", []))
        and facts.get("group", 1) == 1
        and facts.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        and "output_shape" not in facts
    )
