"""One adapter for TensorRT and TensorRT for RTX; the second really builds, without a GPU."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clipsynth_rt import Bundle
from clipsynth_rt.backends.tensorrt import api as trt_api
from clipsynth_rt.backends.tensorrt import cuda
from clipsynth_rt.backends.tensorrt.engine_cache import EngineCache
from clipsynth_rt.backends.tensorrt.engines import all_engines, engine_spec
from clipsynth_rt.backends.tensorrt.prebuild import build_engines
from clipsynth_rt.errors import (
    EngineError,
    InputError,
    MissingExtraError,
    ProviderUnavailableError,
    install_command,
)


@pytest.fixture
def rtx() -> trt_api.TensorRTApi:
    try:
        return trt_api.load_library("tensorrt-rtx")
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.fixture
def fresh() -> Any:
    trt_api.load_library.cache_clear()
    yield
    trt_api.load_library.cache_clear()


def test_real_engines_of_every_graph_of_a_bundle(
    rtx: trt_api.TensorRTApi, tiny_bundle: Path, tmp_path: Path
) -> None:
    cache = EngineCache(tmp_path)
    specs = all_engines(Bundle.open(tiny_bundle))
    shares: list[float] = []
    built = build_engines(specs, rtx, ["86"], cache, lambda done, *_: shares.append(done))
    assert built.failures == []
    paths = built.paths
    assert {path.name.split("-")[0] for path in paths} == {
        "text_encoder",
        "image_encoder",
        "denoiser_step",
        "vocoder",
    }
    assert shares == sorted(shares)
    assert len(shares) > len(specs) + 1  # told within builds too
    for spec in specs:
        plan = cache.read(spec, rtx, "86")
        assert plan is not None
        assert plan.startswith(b"vtrt")  # the library's own mark, checked again when it loads


def test_real_builds_are_the_same_twice(
    rtx: trt_api.TensorRTApi, tiny_bundle: Path, tmp_path: Path
) -> None:
    spec = engine_spec(Bundle.open(tiny_bundle), "vocoder", frames=168)
    plans = [EngineCache(tmp_path / name).get(spec, rtx, "86") for name in "ab"]
    assert plans[0] == plans[1]


def test_real_targets(rtx: trt_api.TensorRTApi) -> None:
    assert {"80", "86", "89", "120"} <= set(rtx.targets)
    assert rtx.targets_for((8, 9)) == ("89", "portable")
    # one that this version does not list gets the portable engine
    assert rtx.targets_for((9, 0)) == ("portable",)
    rtx.check_targets(("80", "portable"))
    with pytest.raises(InputError, match="unknown target '42'"):
        rtx.check_targets(("86", "42"))


@pytest.mark.parametrize(
    ("model", "shapes", "message"),
    [
        (b"not a graph", {"mel": (1, 8, 168)}, "Failed to parse the ONNX model"),
        (None, {"mel": (1, 9, 168)}, r"input mel is \[-1, 8, -1\] and \[1, 9, 168\] was asked"),
        (None, {"sound": (1, 8, 168)}, r"its inputs are mel and manifest\.json says sound"),
    ],
)
def test_real_refusals(
    rtx: trt_api.TensorRTApi, tiny_bundle: Path, model: bytes | None, shapes: Any, message: str
) -> None:
    data = model or (tiny_bundle / "fp32" / "vocoder.onnx").read_bytes()
    with pytest.raises(EngineError, match=rf"vocoder: tensorrt-rtx .*{message}") as caught:
        rtx.build("vocoder", data, shapes, "86")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("quantised", [False, True])
def test_a_real_int8_table(rtx: trt_api.TensorRTApi, quantised: bool) -> None:
    """Looked up first and scaled afterwards, or the other way round: both build."""
    onnx = pytest.importorskip("onnx")
    np = pytest.importorskip("numpy")
    helper, kinds = onnx.helper, onnx.TensorProto
    table = (np.arange(400 * 64) % 255 - 127).astype(np.int8).reshape(400, 64)
    constants = [
        onnx.numpy_helper.from_array(table, "table"),
        onnx.numpy_helper.from_array(np.float32(0.01), "scale"),
    ]
    if quantised:
        nodes = [
            helper.make_node("DequantizeLinear", ["table", "scale"], ["wide"]),
            helper.make_node("Gather", ["wide", "ids"], ["rows"]),
        ]
    else:
        nodes = [
            helper.make_node("Gather", ["table", "ids"], ["narrow"]),
            helper.make_node("Cast", ["narrow"], ["wide"], to=kinds.FLOAT),
            helper.make_node("Mul", ["wide", "scale"], ["rows"]),
        ]
    graph = helper.make_graph(
        nodes,
        "tables",
        [helper.make_tensor_value_info("ids", kinds.INT64, ["B"])],
        [helper.make_tensor_value_info("rows", kinds.FLOAT, ["B", 64])],
        constants,
    )
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    onnx.checker.check_model(model)
    plan, _ = rtx.build("tables", model.SerializeToString(), {"ids": (3,)}, "86")
    assert len(plan) > table.size


def test_a_real_plan_without_a_gpu_or_cut_short(
    rtx: trt_api.TensorRTApi, tiny_bundle: Path, tmp_path: Path
) -> None:
    spec = engine_spec(Bundle.open(tiny_bundle), "vocoder", frames=168)
    plan = EngineCache(tmp_path).get(spec, rtx, "86")
    for broken in (plan[:-100], b"junk" * 1000):
        with pytest.raises(EngineError, match=r"cannot load its engine .*Serialization assertion"):
            rtx.deserialise("vocoder", broken)


def test_tensorrt_builds_for_its_own_gpu(gpu_double: Any, fake_cuda: Any) -> None:
    library = trt_api.TensorRTApi("tensorrt", gpu_double.Tensorrt(fake_cuda, rtx=False))
    assert library.targets == ()
    assert library.targets_for((9, 0)) == ("90",)
    with pytest.raises(InputError, match="targets are for tensorrt-rtx"):
        library.check_targets(("86",))


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("name", trt_api.LIBRARIES)
def test_not_installed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for module in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=re.escape(install_command(name))):
        trt_api.load_library(name)
    assert "pip install" in trt_api.describe_library(name)


@pytest.mark.usefixtures("fresh")
def test_libraries_that_do_not_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "libtensorrt_rtx.so.1.0"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(trt_api, "is_installed", lambda name: True)
    monkeypatch.setattr(trt_api, "_rtx_libraries", lambda: [broken])
    with pytest.raises(ProviderUnavailableError, match=r"tensorrt-rtx does not load .*libtensorrt"):
        trt_api.load_library("tensorrt-rtx")


@pytest.mark.usefixtures("fresh")
def test_bindings_of_another_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trt_api, "is_installed", lambda name: True)
    monkeypatch.setattr(trt_api, "_rtx_libraries", lambda: [tmp_path / "libtensorrt_rtx.so.1.6.2"])
    monkeypatch.setattr(trt_api.ctypes, "CDLL", lambda *_, **__: None)
    module = SimpleNamespace(__version__="1.7.1.116")
    monkeypatch.setattr(trt_api.importlib, "import_module", lambda name: module)
    with pytest.raises(ProviderUnavailableError, match=r"bindings are 1\.7\.1\.116 and .* 1\.6\.2"):
        trt_api.load_library("tensorrt-rtx")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("cudaErrorInsufficientDriver", "insufficient for CUDA runtime; install or update the"),
        ("cudaErrorNoDevice", "no CUDA-capable device is detected"),
    ],
)
def test_no_usable_gpu(gpu_double: Any, fake_cuda: Any, error: str, message: str) -> None:
    fake_cuda.failing["cudaGetDeviceCount"] = gpu_double.Error[error]
    with pytest.raises(ProviderUnavailableError, match=message) as caught:
        cuda.Device(fake_cuda)
    assert "\n" not in str(caught.value)


def test_without_cuda_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda.open_device.cache_clear()
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(MissingExtraError, match="cuda-bindings is not installed"):
        cuda.open_device()


def test_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda.open_device.cache_clear()
    monkeypatch.setattr(cuda, "is_installed", lambda name: True)
    monkeypatch.setattr(cuda, "_DRIVER", "libno-such-driver.so.1")
    with pytest.raises(ProviderUnavailableError, match=r"no NVIDIA driver here .*no-such-driver"):
        cuda.open_device()


def test_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cuda.is_installed("json.decoder")
    assert not cuda.is_installed("json.no_such_part")
    assert not cuda.is_installed("no_such_package.part")
    monkeypatch.setitem(sys.modules, "json", None)
    assert not cuda.is_installed("json")
    assert not cuda.is_installed("json.decoder")


def test_device_memory_is_counted(fake_cuda: Any) -> None:
    device = cuda.Device(fake_cuda)
    first, second = device.alloc(1000), device.alloc(500)
    device.free(first)
    assert (device.allocated, device.peak) == (500, 1500)
    assert device.memory_in_use() == 500
    device.free(second)
    assert device.driver() == "13.1"


def test_the_double_has_nothing_that_cuda_has_not(gpu_double: Any) -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    names = [name for name in vars(gpu_double.Cuda) if name.startswith("cuda")]
    assert len(names) > 15
    for name in names:
        assert hasattr(runtime, name), name
    for kind in gpu_double.KINDS:
        assert hasattr(runtime.cudaMemcpyKind, kind)
    assert hasattr(runtime.cudaStreamCaptureMode, "cudaStreamCaptureModeThreadLocal")
    for error in gpu_double.Error:
        assert int(getattr(runtime.cudaError_t, error.name)) == error


def test_the_double_has_nothing_that_tensorrt_for_rtx_has_not(
    rtx: trt_api.TensorRTApi, gpu_double: Any
) -> None:
    real = rtx.module
    pairs = {
        gpu_double.Engine: real.ICudaEngine,
        gpu_double.Context: real.IExecutionContext,
        gpu_double.RuntimeConfig: real.IRuntimeConfig,
        gpu_double.RuntimeCache: real.IRuntimeCache,
    }
    own = {"strategy", "data"}
    for double, theirs in pairs.items():
        for name in vars(double):
            assert name.startswith("_") or name in own or hasattr(theirs, name), name
    assert hasattr(real.ICudaEngine, "num_io_tensors")
    assert hasattr(real.ExecutionContextAllocationStrategy, "USER_MANAGED")
    assert hasattr(real.BuilderFlag, "REQUIRE_USER_ALLOCATION")
    for name in ("Builder", "OnnxParser", "Runtime", "ILogger", "IProgressMonitor"):
        assert hasattr(real, name)
