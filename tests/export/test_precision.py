"""Precision as it is written into graphs, and what parity makes of it."""

import dataclasses
import logging
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from clipsynth_export import graphs, parity
from clipsynth_export.assemble import PRECISION_PRESETS, convert
from clipsynth_export.parity import (
    difference,
    measure_parity,
    reference_outputs,
    tolerance_db,
    worst,
)
from clipsynth_export.precision import (
    drop_repeats,
    quantise_static,
    store_blocks,
    store_half,
    store_tables,
    to_fp16,
)
from clipsynth_export.to_onnx import export_onnx, save_model
from clipsynth_rt.backends.ort.session import OrtSession
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.bundles.manifest import GraphSpec
from clipsynth_rt.errors import ExportError, ParityError
from clipsynth_training.clip.image_tower import ImageTower, ImageTowerConfig
from clipsynth_training.clip.published_network import PublishedConfig
from clipsynth_training.vocoder.hifigan import HifiGan, HifiGanConfig


def small_model() -> onnx.ModelProto:
    """Rows of a table, times a matrix."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.standard_normal((64, 32)).astype(np.float32), "table"),
        numpy_helper.from_array(random.standard_normal((32, 40)).astype(np.float32), "matrix"),
        numpy_helper.from_array(np.ones(40, np.float32), "bias"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], name="gather"),
        helper.make_node("MatMul", ["rows", "matrix"], ["product"], name="matmul"),
        helper.make_node("Add", ["product", "bias"], ["y"], name="add"),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["B"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 40])
    graph = helper.make_graph(nodes, "small", [ids], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"ids": np.arange(64)})[0]


def stored(model: onnx.ModelProto) -> dict[str, int]:
    return {weight.name: weight.data_type for weight in model.graph.initializer}


def test_large_weights_are_stored_in_half():
    model = small_model()
    half = store_half(model)
    assert stored(half) == {
        "table.half": TensorProto.FLOAT16,
        "matrix.half": TensorProto.FLOAT16,
        "bias": TensorProto.FLOAT,
    }
    assert half.ByteSize() < 0.6 * model.ByteSize()
    assert stored(model)["table"] == TensorProto.FLOAT  # the model given is not touched
    # two roundings of 2^-12 at most, added up over 32 products
    assert difference(run(model), run(half)).snr_db > 60.0


def test_weights_beyond_half_stay():
    model = small_model()
    big = numpy_helper.to_array(model.graph.initializer[1]) * 1e6
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(big, "matrix"))
    assert stored(store_half(model))["matrix"] == TensorProto.FLOAT
    assert np.isfinite(run(store_half(model))).all()


def test_tables_are_stored_in_int8():
    model = small_model()
    small = store_tables(model)
    assert stored(small)["table.int8"] == TensorProto.INT8
    # 127 levels to the largest value of a row, some 2.4 sigma: 45 dB
    assert 38.0 < difference(run(model), run(small)).snr_db < 60.0


def test_matrices_are_stored_in_blocks_of_int8_that_loading_folds(tmp_path):
    model = small_model()
    blocks = store_blocks(model)
    assert sorted(stored(blocks).values()).count(TensorProto.INT8) == 2
    # a byte a weight, two a block, and some hundred of names
    assert blocks.ByteSize() < 0.45 * model.ByteSize()
    onnx.checker.check_model(blocks, full_check=True)
    # 127 levels to the largest of 32 values, some 2 sigma: 46 dB
    assert 42.0 < difference(run(model), run(blocks)).snr_db < 60.0
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(
        blocks.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    loaded = onnx.load(tmp_path / "loaded.onnx").graph
    kinds = {node.op_type for node in loaded.node}
    assert not kinds & {"Cast", "Div", "Mul", "Reshape"}


def test_openvino_folds_blocks_too():
    openvino = pytest.importorskip("openvino")

    def kinds(model: onnx.ModelProto) -> list[str]:
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU")
        nodes = compiled.get_runtime_model().get_ops()
        return sorted(str(node.get_rt_info()["layerType"]) for node in nodes)

    # what is not folded would be computed anew in every run
    assert kinds(store_blocks(small_model())) == kinds(small_model())


def test_depthwise_kernels_and_small_weights_are_not_stored_in_blocks():
    rng = np.random.default_rng(0)
    shapes = {"depthwise": (256, 1, 3, 3), "small": (64, 32, 1, 1), "large": (64, 256, 1, 1)}
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph([], "g", [], [], weights)
    kinds = stored(store_blocks(helper.make_model(graph), least=4096))
    assert kinds["depthwise.half"] == kinds["small.half"] == TensorProto.FLOAT16
    assert TensorProto.INT8 in kinds.values()
    assert "large.half" not in kinds


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1e3, 1e12])
def test_blocks_of_very_small_and_large_weights(factor):
    model = small_model()
    scaled = numpy_helper.to_array(model.graph.initializer[1]) * np.float32(factor)
    scaled[:4] = 0.0
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(scaled, "matrix"))
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.zeros(40, np.float32), "bias"))
    want, found = run(model), run(store_blocks(model))
    assert np.isfinite(found).all()
    # steps of 1 / 65504 at the finest
    assert np.abs(found - want).max() <= max(0.03 * np.abs(want).max(), 32 * 3.0 / 65504)


def test_scopes_that_match_nothing_are_an_error():
    with pytest.raises(ExportError, match="small: no operator belongs to network"):
        to_fp16(small_model(), ("network",), "small")
    with pytest.raises(ExportError, match="small: no convolution in network"):
        quantise_static(small_model(), ("network",), (), "small")


def test_casts_for_each_reader_become_one():
    """ONNX Runtime's converter before 1.32 writes one for each, all of the same name."""
    model = small_model()
    graph = model.graph
    name = graph.node[0].input[0]
    casts = [helper.make_node("Cast", [name], ["twice"], to=TensorProto.FLOAT) for _ in range(2)]
    reader = helper.make_node("Add", ["twice", "twice"], ["unread"])
    graph.node.extend([*casts, reader])
    with pytest.raises(onnx.checker.ValidationError, match="single static assignment"):
        onnx.checker.check_model(model)
    drop_repeats(graph)
    onnx.checker.check_model(model)
    assert [node.op_type for node in graph.node][-2:] == ["Cast", "Add"]


def element_types(path) -> tuple[onnx.GraphProto, dict[str, int]]:
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return model.graph, types | stored(model)


def test_fp16_step_keeps_its_edges(exported):
    graph, types = element_types(exported / "fp16" / "denoiser_step.onnx")
    halves = {n.op_type for n in graph.node if types.get(n.output[0]) == TensorProto.FLOAT16}
    assert {"Conv", "MatMul", "Gemm"} <= halves
    for node in graph.node:
        if node.op_type in ("InstanceNormalization", "Softmax", "Sin", "Cos", "Clip", "Sqrt"):
            assert types[node.output[0]] == TensorProto.FLOAT, node.name
    makers = {output: node for node in graph.node for output in node.output}

    def behind(name: str) -> set[str]:
        """Everything fp32 that a tensor is made from, up to the first cast."""
        found, queue = set(), [name]
        while queue:
            node = makers.get(queue.pop())
            for source in () if node is None or node.op_type == "Cast" else node.input:
                if source not in found:
                    found.add(source)
                    queue.append(source)
        return found

    # the update sees x and the noise as they came, and its results are not rounded on their way out
    assert {"x", "noise", "t", "s", "eta"} <= behind("x_next")
    assert all(types[name] != TensorProto.FLOAT16 for name in behind("x_next"))


def test_fp16_costs_what_fp16_costs(exported):
    figures = Bundle.open(exported).manifest.parity
    for name in figures["fp32"]:
        assert figures["fp16"][name]["snr_db"] <= figures["fp32"][name]["snr_db"] + 3.0
    # if it were as good as fp32, nothing would have been halved
    assert (
        figures["fp16"]["denoiser_step"]["snr_db"] < figures["fp32"]["denoiser_step"]["snr_db"] - 20
    )


def test_int8_step_has_integer_convolutions(exported):
    graph, _ = element_types(exported / "int8" / "denoiser_step.onnx")
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("QuantizeLinear") >= 2


def test_int8_vocoder_has_integer_products(exported):
    graph, _ = element_types(exported / "int8" / "vocoder.onnx")
    kinds = [node.op_type for node in graph.node]
    # one block of two layers in the miniature; the spectral part and the head stay
    assert kinds.count("MatMulInteger") == 2
    assert kinds.count("MatMul") > 10
    figures = Bundle.open(exported).manifest.parity
    assert figures["int8"]["vocoder"]["snr_db"] < figures["fp32"]["vocoder"]["snr_db"] - 10


def test_a_silent_mel_gives_a_sound_of_numbers(exported, source):
    # bins of exactly zero: the exporter once left out the 1e-8 that kept their phases finite
    session = OrtSession(Bundle.open(exported).graph("vocoder", "fp32"), "cpu", 1)
    graph = onnx.load(exported / "fp32" / "vocoder.onnx").graph
    makers = {name: node for node in graph.node for name in node.output}
    roots = [node for node in graph.node if node.op_type == "Sqrt"]
    assert len(roots) >= 3
    assert all(makers[root.input[0]].op_type in ("Clip", "Max") for root in roots)
    silence = session.run({"mel": np.full((1, source.mel.n_mels, 16), -10.0, np.float32)})[
        "waveform"
    ]
    assert np.isfinite(silence).all()
    assert np.abs(silence).max() < 0.01


@pytest.mark.parametrize(("mixed", "batch", "frames"), [(1, 2, 8), (2, 1, 64), (3, 4, 20)])
def test_dynamic_shapes_beyond_those_of_export(exported, source, mixed, batch, frames):
    description = graphs.denoiser_step(source)
    maker = graphs.TrajectoryMaker(description.module, source.mel.n_mels, seed=9)
    (case,) = maker.steps(source.clip.encode_queries(["drum"] * batch), frames, 1, eta=0.5)
    weights = [1.0] if mixed == 1 else [2.0, -1.0, 0.0][:mixed]
    case["condition"] = case["condition"][:1].repeat(mixed, 1, 1)
    case["weights"] = torch.tensor(weights)
    session = OrtSession(Bundle.open(exported).graph("denoiser_step", "fp32"), "cpu", 1)
    found = session.run({name: value.numpy() for name, value in case.items()})
    with torch.no_grad():
        want = description.module(**case)
    for name, value in zip(("x_next", "x0"), want, strict=True):
        assert difference(value.numpy(), found[name]).snr_db > parity.tolerance_db(
            "fp32", "denoiser_step"
        )
    mel = found["x0"].repeat(2, axis=2)[:, :, :17]  # any length will do for the vocoder
    session = OrtSession(Bundle.open(exported).graph("vocoder", "fp32"), "cpu", 1)
    hop = source.mel.hop_length
    assert session.run({"mel": mel})["waveform"].shape == (batch, mel.shape[2] * hop)


def test_difference_is_measured_right():
    reference = np.array([3.0, -4.0], np.float32)
    found = difference(reference, reference + np.array([0.0, 0.5], np.float32))
    assert found.max_abs == 0.5
    assert found.rms == pytest.approx(0.5 / np.sqrt(2))
    assert found.snr_db == pytest.approx(20.0)  # 25 over 0.25
    assert difference(reference, reference).snr_db == parity.LARGEST_SNR_DB
    broken = difference(reference, np.array([3.0, np.nan], np.float32))
    assert broken.snr_db == -np.inf
    assert worst([found, broken]).max_abs == np.inf
    with pytest.raises(ValueError, match="shapes differ"):
        difference(reference, reference[:1])


def test_damaged_weights_are_found(exported, source, tmp_path):
    description = graphs.image_encoder(source)
    interface = GraphSpec(description.inputs, description.outputs, {})
    references = reference_outputs(description)
    path = exported / "fp32" / "image_encoder.onnx"
    measure_parity(description, references, path, interface, "fp32", 1)
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda w: len(w.raw_data))
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] += 0.1  # one weight of thousands
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "damaged.onnx")
    with pytest.raises(ParityError, match=r"image_encoder \(fp32\): differs .* < 80 dB"):
        measure_parity(description, references, tmp_path / "damaged.onnx", interface, "fp32", 1)
    (tmp_path / "no.onnx").write_bytes(b"no graph")
    with pytest.raises(ExportError, match="is not an ONNX graph"):
        measure_parity(description, references, tmp_path / "no.onnx", interface, "fp32", 1)


def test_every_precision_has_a_tolerance():
    for plan in PRECISION_PRESETS.values():
        for graph, precision in plan.items():
            assert parity.tolerance_db(precision, graph) > 0.0


def test_exporter_failures_are_one_line(source):
    class Branches(torch.nn.Module):
        def forward(self, image):
            return image.sum() if image.sum() > 0 else image  # depends on values

    description = dataclasses.replace(graphs.image_encoder(source), module=Branches())
    with pytest.raises(ExportError, match="image_encoder: the exporter failed") as caught:
        export_onnx(description)
    assert "\n" not in str(caught.value)
    assert logging.getLogger("torch.onnx").level != logging.ERROR


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_hifigan_exports(source, tmp_path, precision):
    torch.manual_seed(5)
    config = HifiGanConfig(
        channels=16,
        block_kernels=(3,),
        dilations=((1, 3),),
        upsample_rates=(8, 8, 4),
        upsample_kernels=(16, 16, 8),
    )
    network = HifiGan(config, source.mel)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    source = dataclasses.replace(source, vocoder=network.fold_().eval())
    mels = [torch.randn(3, source.mel.n_mels, 16), torch.randn(1, source.mel.n_mels, 9)]
    description = graphs.vocoder(source, mels)
    model = convert(export_onnx(description), description, precision, source)
    save_model(model, tmp_path / "vocoder.onnx")
    interface = GraphSpec(description.inputs, description.outputs, {})
    result = measure_parity(
        description, reference_outputs(description), tmp_path / "vocoder.onnx", interface, precision
    )
    # no phases here: convolutions alone, as in the denoiser
    assert result.snr_db > parity.tolerance_db(precision, "denoiser_step")


@pytest.fixture(scope="module")
def published_tower():
    """An image encoder on a published network (random weights), and its fp32 graph."""
    torch.manual_seed(4)
    published = PublishedConfig("tf_efficientnet_lite0")
    tower = ImageTower(ImageTowerConfig(image_size=64, dim=12, published=published)).eval()
    clip = SimpleNamespace(image_tower=tower, image_size=64, dim=12)
    graph = graphs.image_encoder(SimpleNamespace(clip=clip, facts={}))
    return graph, export_onnx(graph)


@pytest.mark.parametrize("precision", ["fp32", "w16", "w8", "fp16", "fp16-products"])
def test_a_published_image_tower_at_every_precision(published_tower, precision):
    graph, model = published_tower
    smaller = convert(model, graph, precision, None)
    onnx.checker.check_model(smaller, full_check=True)
    session = onnxruntime.InferenceSession(
        smaller.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for case in graph.cases:
        with torch.no_grad():
            want = graph.module(case["image"]).numpy()
        found = session.run(None, {"image": case["image"].numpy()})[0]
        assert difference(want, found).snr_db > tolerance_db(precision, graph.name)
    if precision == "w8":
        # weights in a byte each and a sixteenth for the scales; the rest are the exporter's notes
        assert smaller.ByteSize() < 0.35 * model.ByteSize()
