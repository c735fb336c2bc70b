"""Convert graphs that multiply in int8, made for CPUs, to float32 for GPUs.

TensorRT reads no uint8 activations, and ONNX Runtime multiplies integers on a GPU in few operators;
both are faster in floating point there. Only the rounding of activations
is undone: the int8 weights keep their values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from clipsynth_rt.bundles.bundle import GraphFile
from clipsynth_rt.errors import BundleError
from clipsynth_rt.onnx_editing.parse import parse

INTEGER_PRECISION = "int8"
"""The precision whose graphs multiply integers."""


def read_for_gpu(graph: GraphFile, extra: str) -> bytes:
    """Return a graph's file as ``GraphFile.read`` does, its products in floating point.

    Args:
        graph: A graph of a bundle.
        extra: What installs ``onnx`` beside the backend that asks.

    Raises:
        BundleError: As ``GraphFile.read``, or if the file is no ONNX graph, or one that was
            quantised in another way.
        HashMismatchError: As ``GraphFile.read``.
        MissingExtraError: If the graph multiplies integers and ``onnx`` is not installed.
    """
    data = graph.read()
    if graph.precision != INTEGER_PRECISION:
        return data
    model = parse(data, extra)
    if model is None:
        raise BundleError(f"{graph.path}: not an ONNX graph")
    try:
        return bytes(dequantize(model).SerializeToString())
    except KeyError as error:
        raise BundleError(
            f"{graph.path}: quantised otherwise than clipsynth-rt export does ({error} is no "
            "constant); export it again"
        ) from error


def dequantize(model: Any) -> Any:
    """Return an ONNX model without quantised activations, its int8 weights as float32.

    Quantising and dequantising at once is left out. ``MatMulInteger`` becomes a ``MatMul`` with the
    same whole numbers, and the scale of its input 1: the scaling that follows stays as it is.

    Raises:
        KeyError: If weights are no constants.

    Source:
        ONNX operators QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear and MatMulInteger.
    """
    from onnx import ModelProto, helper, numpy_helper

    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    constants = {weight.name: weight for weight in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    same: dict[str, str] = {}
    nodes, added = [], {}

    def constant(name: str) -> Any:
        return numpy_helper.to_array(constants[name])

    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            source, result = node.input[0], node.output[0]
            if source in constants:
                axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
                added[result] = _dequantised(*map(constant, node.input), axis=axis)
            else:
                floating = makers[source].input[0]
                same[result] = same.get(floating, floating)
        elif node.op_type == "DynamicQuantizeLinear":
            same[node.output[0]] = same.get(node.input[0], node.input[0])
            added[node.output[1]] = np.ones((), np.float32)
        elif node.op_type == "MatMulInteger":
            weight = f"{node.input[1]}.wide"
            values = constant(node.input[1]).astype(np.float32)
            zero = constant(node.input[3]) if len(node.input) > 3 else 0
            added[weight] = values - zero
            inputs = [node.input[0], weight]
            nodes.append(helper.make_node("MatMul", inputs, node.output, name=node.name))
        elif node.op_type != "QuantizeLinear":
            nodes.append(node)
    for node in nodes:
        for i, name in enumerate(node.input):
            node.input[i] = same.get(name, name)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [weight for weight in graph.initializer if weight.name in used]
    kept += [numpy_helper.from_array(values, name) for name, values in added.items()]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    # of the types before, in part
    del graph.value_info[:]
    return copy


def _dequantised(values: Any, scale: Any, zero: Any = None, *, axis: int) -> Any:
    """Return (values - zero) * scale, with one scale, or one for each row of ``axis``."""
    shape = [-1 if i == axis else 1 for i in range(values.ndim)] if scale.size > 1 else [1]
    wide = values.astype(np.float32)
    if zero is not None:
        wide = wide - zero.astype(np.float32).reshape(shape)
    return np.asarray(wide * scale.reshape(shape), np.float32)
