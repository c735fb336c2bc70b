"""Fixtures that every kind of test shares."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent


def _load_by_path(path: Path) -> ModuleType:
    # tests are no package (--import-mode=importlib), so a helper script is loaded by its path
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The script that builds the tiny bundle, with its sizes and weights."""
    pytest.importorskip("onnx")
    return _load_by_path(HERE / "make_tiny_bundle.py")


@pytest.fixture(scope="session")
def tiny_bundle(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working bundle of a few kilobytes. Read only: take ``tiny_copy`` to damage one."""
    return tiny.make_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="session")
def distilled_bundle(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with a second denoiser, distilled to 2 steps or 4. Read only."""
    return tiny.make_tiny_bundle(tmp_path_factory.mktemp("distilled") / "bundle", (2, 4))


@pytest.fixture
def tiny_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle of one's own."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def edit_manifest() -> Callable[[Path, Callable[[dict[str, Any]], object]], None]:
    """Change a bundle's manifest.json in place."""

    def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
        path = bundle / "manifest.json"
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return edit


@pytest.fixture(scope="session")
def gpu_double() -> ModuleType:
    """CUDA and TensorRT without a GPU."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    return _load_by_path(HERE / "gpu_double.py")


@pytest.fixture
def fake_cuda(gpu_double: ModuleType) -> Any:
    """CUDA's runtime over host memory."""
    return gpu_double.Cuda()


@pytest.fixture
def fake_gpu(
    gpu_double: ModuleType, fake_cuda: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Any:
    """Make the provider tensorrt-rtx run on the double; its module has ``builds`` and ``cuda``."""
    from clipsynth_rt.backends.tensorrt import api as trt_api
    from clipsynth_rt.backends.tensorrt import cuda
    from clipsynth_rt.errors import MissingExtraError

    module = gpu_double.Tensorrt(fake_cuda)
    library = trt_api.TensorRTApi("tensorrt-rtx", module)
    device = cuda.Device(fake_cuda)

    def load(name: str) -> trt_api.TensorRTApi:
        if name != library.name:
            raise MissingExtraError(name, name)
        return library

    monkeypatch.setattr(trt_api, "load_library", load)
    monkeypatch.setattr(trt_api, "check_installed", load)
    monkeypatch.setattr(cuda, "open_device", lambda: device)
    monkeypatch.setenv("CLIPSYNTH_RT_CACHE", str(tmp_path / "engines"))
    return module


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache out of the tests, and the tests' graphs out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPSYNTH_RT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def no_cpu_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if neither ONNX Runtime nor OpenVINO were installed."""
    for module, backend in (("onnxruntime", "ort"), ("openvino", "openvino")):
        monkeypatch.setitem(sys.modules, module, None)
        package = f"clipsynth_rt.backends.{backend}"
        monkeypatch.delitem(sys.modules, f"{package}.session", raising=False)
        if package in sys.modules:
            monkeypatch.delattr(sys.modules[package], "session", raising=False)


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in float32 on processors with bfloat16 too: what is compared is not rounded twice."""
    monkeypatch.setattr("clipsynth_training.run.autocast.cpu_has_bfloat16", lambda: False)
