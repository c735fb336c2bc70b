"""From a described graph to a checked fp32 ONNX model."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch

from clipsynth_export.graphs import GraphDescription
from clipsynth_rt import __version__
from clipsynth_rt.errors import ExportError

OPSET = 18
"""The oldest that holds all that is used here, for the sake of older runtimes."""
_OUTPUT = "graph_output."
_SCOPES = "pkg.torch.onnx.name_scopes"


def export_onnx(graph: GraphDescription) -> onnx.ModelProto:
    """Trace a graph into ONNX, fp32, dynamic where its description says so.

    The model still carries the exporter's notes, which ``node_scope`` reads; ``save_model`` leaves
    them out.

    Raises:
        ExportError: If the exporter or ONNX's checker refuses the graph.
    """
    example = tuple(graph.cases[0][name] for name in graph.inputs)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                graph.module,
                example,
                input_names=list(graph.inputs),
                # the exporter does not see to it that no other tensor has an output's name
                output_names=[f"{_OUTPUT}{name}" for name in graph.outputs],
                dynamic_shapes=tuple(graph.dynamic_shapes().values()),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    # the exporter wraps whatever goes wrong, some of it over many lines
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(f"{graph.name}: the exporter failed ({reason:.200})") from error
    assert program is not None  # dynamo gives one
    model = program.model_proto
    model.graph.name = graph.name
    _name_outputs(model.graph, graph)
    _name_dimensions(model, graph)
    check_model(model, graph.name)
    return model


def check_model(model: onnx.ModelProto, name: str) -> None:
    """Run ONNX's checker and shape inference.

    Raises:
        ExportError: If they refuse the model.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"{name}: not a valid ONNX graph ({reason:.200})") from error


def node_scope(node: onnx.NodeProto) -> str | None:
    """Return the submodule that a node came from, such as ``network.down.0.blocks.1.conv_in``.

    Empty for what the wrapper itself does, None for what an optimisation wrote.
    """
    for note in node.metadata_props:
        if note.key == _SCOPES:
            # a list of nested modules, outermost first, then the operator's own name
            names = [part.strip(" '\"") for part in note.value.strip("[]").split(",")]
            return names[-2] if len(names) > 1 else ""
    return None


def in_scope(scope: str, prefixes: tuple[str, ...]) -> bool:
    """Return whether ``scope`` is one of ``prefixes`` or within one."""
    return any(scope == prefix or scope.startswith(f"{prefix}.") for prefix in prefixes)


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a model without the exporter's notes, which name the files of this machine.

    Raises:
        ExportError: If it is over 2 GB, the limit of one ONNX file.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    model.producer_name, model.producer_version = "clipsynth-rt", __version__
    model.doc_string = ""
    del model.metadata_props[:]
    model.graph.doc_string = ""
    del model.graph.metadata_props[:]
    # intermediate shapes: a runtime infers them again, and they are half of a small file
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for values in (model.graph.input, model.graph.output, model.graph.initializer):
        for value in values:
            value.doc_string = ""
            del value.metadata_props[:]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.write_bytes(model.SerializeToString())
    except ValueError as error:
        raise ExportError(f"{path.name}: over 2 GB, more than one ONNX file holds") from error


def _name_outputs(model: onnx.GraphProto, graph: GraphDescription) -> None:
    """Give the outputs their names, and any other tensor of such a name another one."""
    names = {name: f"{name}.inner" for name in graph.outputs}
    names |= {f"{_OUTPUT}{name}": name for name in graph.outputs}
    for node in model.node:
        for side in (node.input, node.output):
            for i, name in enumerate(side):
                side[i] = names.get(name, name)
    for values in (model.output, model.value_info, model.initializer):
        for value in values:
            value.name = names.get(value.name, value.name)


def _name_dimensions(model: onnx.ModelProto, graph: GraphDescription) -> None:
    """Give the dynamic dimensions the manifest's letters in place of the exporter's formulas."""
    sides = ((model.graph.input, graph.inputs), (model.graph.output, graph.outputs))
    for values, specs in sides:
        for value in values:
            dims = value.type.tensor_type.shape.dim
            for dim, size in zip(dims, specs[value.name].shape, strict=True):
                if isinstance(size, str):
                    dim.dim_param = size


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's remarks on its own internals; its failures are raised."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
