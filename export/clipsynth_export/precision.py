"""Precision, written into the graph: no runtime flag decides what a bundle computes in.

- ``fp32``: as exported.
- ``w16``: large weights are stored in fp16 and cast back when the graph is loaded; arithmetic is
  fp32. Half the size for next to nothing.
- ``fp16``: arithmetic in fp16 within the networks. Inputs, outputs, the timestep embedding,
  normalisation statistics, softmax, the sampler's update and the vocoder's spectral part are fp32.
- ``fp16-products``: as ``fp16``, and every other matrix product and convolution in fp16 too; what
  lies between them stays fp32. For GPUs that TensorRT for RTX has no fp32 products for (Turing).
- ``w8``: as ``w16``, and embedding tables in int8, which are half of the text encoder. Its matrix
  products stay: quantised with their inputs (dynamic int8) they are 9.8 dB from fp32, a cosine of
  0.95 between embeddings, and with their inputs left alone 21 dB, where the tables cost 35 dB.
  The matrices and kernels of the denoisers and the image encoder are int8 in blocks, which is half
  of them: see ``store_blocks``.
- ``int8``: for CPUs, the denoiser's convolutions by ranges learnt beforehand, or the light
  vocoder's matrix products with their inputs, by the range of each. GPUs get the same weights in
  floating point: see clipsynth_rt/onnx_editing/dequantize.py.
"""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    RemoveUnusedNodesPass,
    TopologicalSortPass,
)
from onnxruntime import quantization
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from clipsynth_export.graphs import Case
from clipsynth_export.to_onnx import in_scope, node_scope
from clipsynth_rt.errors import ExportError

BLOCK = 32
"""Values that share a scale where weights are stored in int8: one in fp16 is 6% more."""
LEAST_OF_IMAGES = 20_000
"""Values from which the image encoder's weights are stored in blocks. The smaller ones are of its
first layers, which add 1% to its file in fp16 and 6 dB of error in int8."""
LEAST_HALVED = 1024
"""Weights with fewer values than this stay fp32 where only storage is at stake."""
_LARGEST_HALF = float(np.finfo(np.float16).max)

# Sums over many values, and functions that overflow or lose their argument in fp16.
_FLOAT_OPERATORS = (
    "InstanceNormalization GroupNormalization LayerNormalization BatchNormalization Softmax "
    "ReduceMean ReduceSum ReduceL2 ReduceSumSquare GlobalAveragePool Exp Log Sin Cos Sqrt Pow "
    "Reciprocal"
).split()
_PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
_FLOAT_SCOPES = ("network.time",)
"""The sines of the timestep: t * 1000 has no fraction left in fp16."""


def store_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store large fp32 weights as fp16, each followed by a cast that loading folds away.

    Source:
        ONNX Runtime's constant folding (graph optimisation level "basic").
    """
    model = _copy(model)
    graph = model.graph
    casts = []
    for weight in graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(weight)
        if values.size < LEAST_HALVED or np.abs(values).max() > _LARGEST_HALF:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    _prepend(graph, casts)
    return model


def to_fp16(model: onnx.ModelProto, scopes: tuple[str, ...], name: str) -> onnx.ModelProto:
    """Compute in fp16 within ``scopes``, and in fp32 everywhere else.

    Args:
        model: fp32, with the exporter's notes.
        scopes: Submodules that may be fp16.
        name: For messages.

    Raises:
        ExportError: If no node lies in ``scopes``.
    """
    model = _copy(model)
    floats, halves = [], 0
    scope_of: dict[str, str] = {}
    for node in model.graph.node:
        scope = node_scope(node)
        if scope is None:  # written by an optimisation: belongs to what it reads
            scope = next((scope_of[name] for name in node.input if name in scope_of), "")
        scope_of.update(dict.fromkeys(node.output, scope))
        half = in_scope(scope, scopes) and not in_scope(scope, _FLOAT_SCOPES)
        halves += half
        if not half:
            floats.append(node.name)
    if not halves:
        raise ExportError(f"{name}: no operator belongs to {', '.join(scopes)}; nothing to halve")
    with _quiet():
        model = convert_float_to_float16(
            model,
            keep_io_types=True,
            op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_FLOAT_OPERATORS],
            node_block_list=floats,
        )
    # the converter notes fp16 for weights that it then leaves as they are
    del model.graph.value_info[:]
    drop_repeats(model.graph)
    _drop_round_trips(model.graph)
    return _tidied(model)


def halve_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """Compute every matrix product and convolution in fp16, between casts where it was fp32."""
    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        result = node.output[0]
        if node.op_type not in _PRODUCTS or types.get(result) == TensorProto.FLOAT16:
            nodes.append(node)
            continue
        for i, name in enumerate(node.input):
            node.input[i] = f"{result}.half{i}"
            cast = helper.make_node("Cast", [name], [node.input[i]], to=TensorProto.FLOAT16)
            nodes.append(cast)
        node.output[0] = f"{result}.half"
        back = helper.make_node("Cast", [node.output[0]], [result], to=TensorProto.FLOAT)
        nodes += [node, back]
    del graph.node[:]
    graph.node.extend(nodes)
    # of the types before, in part
    del graph.value_info[:]
    return store_half(model)


def store_tables(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store embedding tables as int8, one scale a row, and other large weights as fp16."""
    model = _copy(model)
    _quantise_tables(model.graph)
    return store_half(model)


def fits_blocks(shape: Sequence[int], least: int) -> bool:
    """Return whether a weight of this shape is stored in blocks, if it has ``least`` values.

    Depthwise kernels are not: they are small, and a block would span channels of very different
    ranges.
    """
    depthwise = len(shape) == 4 and shape[1] == 1
    size = math.prod(shape)
    return len(shape) > 1 and size >= least and size % BLOCK == 0 and not depthwise


def store_blocks(model: onnx.ModelProto, least: int = LEAST_HALVED) -> onnx.ModelProto:
    """Store large matrices and kernels as int8 with a scale a block, other weights as fp16.

    Depthwise kernels are among the others, and what has fewer than ``least`` values.

    Loading folds the scaling away, as it does the casts of ``store_half``: arithmetic is fp32. The
    shipped denoiser is 51 dB from PyTorch at worst; four guided steps are 47 to 52 dB from those
    with fp16 weights, and 40 to 45 with one scale an output channel.

    Source:
        Dettmers & Zettlemoyer 2023, arXiv:2212.09720, section 3 (block-wise quantisation).
    """
    model = _copy(model)
    graph = model.graph
    nodes: list[onnx.NodeProto] = []
    for number, weight in enumerate(list(graph.initializer)):
        values = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or not fits_blocks(values.shape, least):
            continue
        # short names: those of the weights, six times over, are 1% of the file
        name, short, blocks = weight.name, f"b{number}", values.reshape(-1, BLOCK)
        largest = np.maximum(np.abs(blocks).max(axis=1, keepdims=True), 127.0 / _LARGEST_HALF)
        # divided by, where dequantisation multiplies: OpenVINO would take that for weights to keep
        # as they are, and scale them anew in every run
        scale = (127.0 / largest).astype(np.float16)
        if not (scale > 0.0).all():  # beyond what fp16 has a scale for
            continue
        # by the scale as it is stored, so that its own rounding costs nothing
        stored = np.clip(np.rint(blocks * scale.astype(np.float32)), -127, 127).astype(np.int8)
        weight.CopyFrom(numpy_helper.from_array(stored, f"{short}.int8"))
        shape = np.array(values.shape, np.int64)
        graph.initializer.append(numpy_helper.from_array(scale, f"{short}.scale"))
        graph.initializer.append(numpy_helper.from_array(shape, f"{short}.shape"))
        nodes += [
            helper.make_node("Cast", [f"{short}.int8"], [f"{short}.cast"], to=TensorProto.FLOAT),
            helper.make_node("Cast", [f"{short}.scale"], [f"{short}.levels"], to=TensorProto.FLOAT),
            helper.make_node("Div", [f"{short}.cast", f"{short}.levels"], [f"{short}.blocks"]),
            helper.make_node("Reshape", [f"{short}.blocks", f"{short}.shape"], [name]),
        ]
    _prepend(graph, nodes)
    return store_half(model)


def quantise_static(
    model: onnx.ModelProto, scopes: tuple[str, ...], calibration: Sequence[Case], name: str
) -> onnx.ModelProto:
    """Quantise the convolutions within ``scopes`` to int8, by the ranges seen in ``calibration``.

    Weights get one scale an output channel; activations are uint8, one scale a tensor. 1x1
    convolutions stay: there are few multiplications in them, and they carry the skips.

    Raises:
        ExportError: If there is no such convolution.
    """
    chosen = [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv"
        and in_scope(node_scope(node) or "", scopes)
        and max(_kernel(node)) > 1
    ]
    if not chosen:
        raise ExportError(f"{name}: no convolution in {', '.join(scopes)}; nothing to quantise")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            _copy(model),
            path,
            _Reader(calibration),
            quant_format=quantization.QuantFormat.QDQ,
            nodes_to_quantize=chosen,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return store_half(onnx.load(path))


def quantise_products(
    model: onnx.ModelProto, scopes: tuple[str, ...], name: str
) -> onnx.ModelProto:
    """Quantise the matrix products within ``scopes`` to int8, their inputs as they come.

    Weights get one scale an output channel; activations are uint8, one scale a tensor and run.

    Raises:
        ExportError: If there is no such product.
    """
    weights = {weight.name for weight in model.graph.initializer}
    chosen = [
        node.name
        for node in model.graph.node
        if node.op_type == "MatMul"
        and node.input[1] in weights
        and in_scope(node_scope(node) or "", scopes)
    ]
    if not chosen:
        where = ", ".join(scopes) or "it"
        raise ExportError(f"{name}: no matrix product in {where} to quantise; choose small or fp32")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        quantization.quantize_dynamic(
            _copy(model),
            path,
            nodes_to_quantize=chosen,
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
        )
        return store_half(onnx.load(path))


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # untyped library
    def __init__(self, cases: Sequence[Case]) -> None:
        self._cases = iter(cases)

    def get_next(self) -> dict[str, Any] | None:
        case = next(self._cases, None)
        return None if case is None else {name: value.numpy() for name, value in case.items()}


def _kernel(conv: onnx.NodeProto) -> tuple[int, ...]:
    return next(tuple(a.ints) for a in conv.attribute if a.name == "kernel_shape")


def _quantise_tables(graph: onnx.GraphProto) -> None:
    """Store embedding tables in int8; the rows that are looked up are scaled back."""
    weights = {weight.name: weight for weight in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        table = weights.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or table.data_type != TensorProto.FLOAT or len(table.dims) != 2:
            nodes.append(node)
            continue
        name, indices, result = table.name, node.input[1], node.output[0]
        values = numpy_helper.to_array(table)
        scale = np.maximum(np.abs(values).max(axis=1, keepdims=True), 1e-12) / 127.0
        table.CopyFrom(
            numpy_helper.from_array(np.rint(values / scale).astype(np.int8), f"{name}.int8")
        )
        graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}.scale"))
        nodes += [
            helper.make_node("Gather", [f"{name}.int8", indices], [f"{result}.int8"], axis=0),
            helper.make_node("Gather", [f"{name}.scale", indices], [f"{result}.scale"], axis=0),
            helper.make_node("Cast", [f"{result}.int8"], [f"{result}.cast"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{result}.cast", f"{result}.scale"], [result]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def drop_repeats(graph: onnx.GraphProto) -> None:
    """Keep one of the casts that the converter of ONNX Runtime before 1.32 makes for each reader.

    They share their names, and a graph in which two nodes have the same output is none.
    """
    seen: set[str] = set()
    kept = []
    for node in graph.node:
        repeats = node.op_type == "Cast" and node.output[0] in seen
        seen.update(node.output)
        if not repeats:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _drop_round_trips(graph: onnx.GraphProto) -> None:
    """Undo casts from fp32 to fp16 and straight back, which the converter puts between neighbours.

    They would round what is meant to stay fp32: the sampler's x, the statistics of a norm.
    """
    makers = {output: node for node in graph.node for output in node.output}
    outputs = {value.name for value in graph.output}
    source: dict[str, str] = {}
    for node in graph.node:
        if node.op_type != "Cast" or node.attribute[0].i != TensorProto.FLOAT:
            continue
        before = makers.get(node.input[0])
        if before is None or before.op_type != "Cast":
            continue
        # other casts to fp16 may have come from integers
        if before.name.endswith("_cast_to_fp16_node") or before.name.startswith("graph_input_cast"):
            source[node.output[0]] = before.input[0]
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = source.get(name, name)
    for name in outputs & source.keys():
        maker = makers[name]
        maker.CopyFrom(helper.make_node("Identity", [source[name]], [name], name=maker.name))


def _tidied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model without unused nodes and repeated expressions, in topological order."""
    passes = onnx_ir.passes.Sequential(
        RemoveUnusedNodesPass(), CommonSubexpressionEliminationPass(), TopologicalSortPass()
    )
    return onnx_ir.to_proto(passes(onnx_ir.from_proto(model)).model)


def _prepend(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the converters write to the root logger; their failures are raised."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
