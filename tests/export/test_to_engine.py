"""Engines at export: real ones by TensorRT for RTX, which needs no GPU to build."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from clipsynth_export import assemble
from clipsynth_export.graphs import describe_graphs
from clipsynth_export.parity import difference
from clipsynth_export.precision import halve_products, to_fp16
from clipsynth_export.source import load_source
from clipsynth_export.to_engine import export_engines, wants_engines
from clipsynth_export.to_onnx import export_onnx, save_model
from clipsynth_rt import Bundle
from clipsynth_rt.backends.tensorrt import api as trt_api
from clipsynth_rt.backends.tensorrt.engine_cache import EngineCache
from clipsynth_rt.backends.tensorrt.engines import engine_spec
from clipsynth_rt.bundles.bundle import DEFAULT_PATH, GraphFile
from clipsynth_rt.bundles.manifest import FileSpec, GraphSpec
from clipsynth_rt.cli.main import main
from clipsynth_rt.errors import (
    CheckpointError,
    EngineError,
    InputError,
    MissingExtraError,
    install_command,
)
from clipsynth_training.checkpoint import default_checkpoint

GRAPHS = ("text_encoder", "image_encoder", "denoiser_step", "vocoder")


@pytest.fixture(scope="module")
def rtx():
    try:
        return trt_api.load_library("tensorrt-rtx")
    except MissingExtraError as error:
        pytest.skip(str(error))


def test_every_engine_of_an_exported_bundle(rtx, exported, tmp_path):
    lines = []
    cache = EngineCache(tmp_path)
    built = export_engines(exported, ("86",), cache=cache, report=lines.append)
    assert {path.name.split("-")[0] for path in built.paths} == set(GRAPHS)
    assert all(path.stat().st_size > 1000 for path in built.paths)
    assert lines[0].startswith(f"tensorrt-rtx {rtx.version} for 86: {len(built.paths)} engines")
    # all from fp16, though the bundle's default is another
    assert all(b'"precision": "fp16"' in path.read_bytes()[:4096] for path in built.paths)


def test_graphs_of_the_shipped_bundle(rtx, tmp_path):
    bundle = Bundle.open(DEFAULT_PATH)
    cache = EngineCache(tmp_path)
    frames = 352
    for name in GRAPHS:
        spec = engine_spec(bundle, name, frames=frames, conditions=2)
        plan = cache.get(spec, rtx, "86")
        # the weights are in it
        assert len(plan) > 0.5 * spec.graph.path.stat().st_size


def test_turing_takes_graphs_without_fp32_products(rtx, exported, tmp_path):
    graph = Bundle.open(exported).graph("vocoder", "fp32").path
    shapes = {"mel": (1, 16, 16)}
    with pytest.raises(EngineError, match=r"for 75 .*FP32 GEMM.* --precision fp16-products"):
        rtx.build("vocoder", graph.read_bytes(), shapes, "75")
    model = halve_products(onnx.load(graph))
    path = tmp_path / "vocoder.onnx"
    save_model(model, path)
    plan, _ = rtx.build("vocoder", path.read_bytes(), shapes, "75")
    assert len(plan) > 1000
    # products alone: both ends of the graph and what lies between stay
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    before = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    mel = np.random.default_rng(0).standard_normal(shapes["mel"]).astype(np.float32)
    expected, found = (s.run(None, {"mel": mel})[0] for s in (before, session))
    assert difference(expected, found).snr_db > 10.0


@pytest.mark.slow
def test_fp16_engines_of_the_shipped_weights(rtx, tmp_path):
    try:
        source = load_source(default_checkpoint())
    except CheckpointError as error:
        pytest.skip(f"the shipped checkpoint does not load: {error}")
    length = source.clip.context_length
    sizes = {"B": 1, "F": 352, "G": 2, "L": length}
    for graph in describe_graphs(source).values():
        path = tmp_path / f"{graph.name}.onnx"
        save_model(to_fp16(export_onnx(graph), graph.half_scopes, graph.name), path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files = {"fp16": FileSpec(path.name, digest)}
        file = GraphFile(graph.name, "fp16", path, GraphSpec(graph.inputs, graph.outputs, files))
        shapes = {
            name: tuple(sizes.get(size, size) for size in tensor.shape)
            for name, tensor in file.spec.inputs.items()
        }
        plan, _ = rtx.build(graph.name, path.read_bytes(), shapes, "86")
        assert len(plan) > 0.5 * path.stat().st_size


def test_engines_wait_for_fp16_and_a_builder(monkeypatch):
    said = []
    assert wants_engines(False, ["fp16"], (), said.append) is False
    assert wants_engines(None, ["edge"], (), said.append) is False
    with pytest.raises(InputError, match="engines are built from fp16; add --precision fp16"):
        wants_engines(True, ["edge"], (), said.append)
    with pytest.raises(InputError, match="--targets is for engines"):
        wants_engines(False, ["fp16"], ("86",), said.append)
    assert said == []

    def missing(name):
        raise MissingExtraError(name, name)

    monkeypatch.setattr(trt_api, "load_library", missing)
    assert wants_engines(None, ["fp16"], (), said.append) is False
    assert said == [
        f"no engines: tensorrt-rtx is not installed; run: {install_command('tensorrt-rtx')}"
    ]
    with pytest.raises(MissingExtraError):
        wants_engines(True, ["fp16"], (), said.append)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--engines"], "engines are built from fp16; add --precision fp16"),
        (["--precision", "fp16", "--no-engines", "--targets", "86"], "--targets is for engines"),
    ],
)
def test_command_refuses_before_any_work(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["export", *arguments])
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_command_exports_graphs_and_engines(fake_gpu, exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # without the seconds of tracing, which other tests spend
    monkeypatch.setattr(
        assemble, "export_bundle", lambda checkpoint, out, *_, **__: shutil.copytree(exported, out)
    )
    result = CliRunner().invoke(main, ["export", "--precision", "fp16", "--targets", "120"])
    assert result.exit_code == 0, result.output
    plans = list((tmp_path / "engines").glob("*.plan"))
    assert len(plans) == len(fake_gpu.builds) > 4
    assert {build["targets"][0] for build in fake_gpu.builds} == {"SM120"}
    assert f"{len(plans)} engines by tensorrt-rtx 1.0" in result.stdout
    assert Path("clipsynth-bundle-fp16/manifest.json").is_file()


def test_building_needs_no_torch():
    code = (
        "import sys, clipsynth_export.to_engine, clipsynth_rt.backends.tensorrt.backend\n"
        "assert not {'torch', 'onnx', 'onnxruntime'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
