"""Which engines there are, and the cache of their plans."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from clipsynth_rt import Bundle
from clipsynth_rt.backends.tensorrt import api as trt_api
from clipsynth_rt.backends.tensorrt import engine_cache as plans
from clipsynth_rt.backends.tensorrt.engine_cache import EngineCache, engine_key, load_engine
from clipsynth_rt.backends.tensorrt.engines import (
    EngineSpec,
    all_engines,
    clip_engines,
    engine_spec,
)
from clipsynth_rt.backends.tensorrt.prebuild import (
    build_engines,
    choose_builder,
    estimate_s,
    prebuild,
)
from clipsynth_rt.bundles.manifest import frame_bucket, frame_buckets
from clipsynth_rt.cache import default_cache
from clipsynth_rt.errors import BundleError, EngineError, InputError, OutputError


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture
def vocoder(bundle: Bundle) -> EngineSpec:
    return engine_spec(bundle, "vocoder", frames=168)


@pytest.fixture
def trt(gpu_double: Any, fake_cuda: Any) -> Any:
    return gpu_double.Tensorrt(fake_cuda)


@pytest.fixture
def library(trt: Any) -> trt_api.TensorRTApi:
    return trt_api.TensorRTApi("tensorrt-rtx", trt)


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def shipped(max_frames: int, multiple: int = 8) -> Any:
    from types import SimpleNamespace

    from clipsynth_rt.bundles.manifest import DiffusionSpec, MelSpec

    diffusion = DiffusionSpec(max_frames=max_frames, frames_multiple=multiple, default_frames=8)
    return SimpleNamespace(diffusion=diffusion, mel=MelSpec())


@pytest.mark.parametrize(
    ("max_frames", "multiple", "expected"),
    [
        (1376, 8, (176, 352, 704)),
        (704, 8, (176, 352, 704)),
        (500, 8, (176, 352, 496)),
        (172, 8, (168,)),
        (1376, 64, (192, 384, 704)),
    ],
)
def test_buckets(max_frames: int, multiple: int, expected: tuple[int, ...]) -> None:
    assert frame_buckets(shipped(max_frames, multiple)) == expected


@pytest.mark.parametrize(("frames", "bucket"), [(1, 176), (176, 176), (177, 352), (704, 704)])
def test_the_smallest_bucket_that_holds_a_clip(frames: int, bucket: int) -> None:
    assert frame_bucket(frames, shipped(1376)) == bucket


def test_no_bucket() -> None:
    with pytest.raises(InputError, match="no engine holds 705 frames; the longest is 704"):
        frame_bucket(705, shipped(1376))


def test_shapes(bundle: Bundle) -> None:
    text, step, vocoder = clip_engines(bundle, batch=4, frames=168, guided=True)
    assert text.shapes == {"input_ids": (4, 12), "attention_mask": (4, 12)}
    assert step.shapes["condition"] == (2, 4, 4)
    assert step.shapes["weights"] == (2,)
    assert step.shapes["x"] == step.shapes["noise"] == (4, 8, 168)
    assert step.shapes["t"] == (1,)
    assert vocoder.shapes == {"mel": (4, 8, 168)}
    assert [spec.label for spec in (text, step, vocoder)] == [
        "text_encoder-b4",
        "denoiser_step-b4-f168-g2",
        "vocoder-b4-f168",
    ]


def test_every_engine_once(bundle: Bundle) -> None:
    labels = [spec.label for spec in all_engines(bundle)]
    assert len(set(labels)) == len(labels)
    # text 2, image 1, denoiser 2 batches x 2 halves, vocoder 2: one bucket
    assert len(labels) == 2 + 1 + 4 + 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "vocoder", "frames": 40}, "no engine for 40 frames; there are 168"),
        ({"name": "vocoder", "frames": 168, "batch": 3}, "no engine for a batch of 3"),
        ({"name": "siren"}, "has no siren"),
        ({"name": "vocoder", "precision": "fp8", "frames": 168}, "has no fp8 vocoder"),
    ],
)
def test_engines_that_do_not_exist(bundle: Bundle, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        engine_spec(bundle, **options)


def test_a_dimension_that_nobody_knows(tiny_copy: Path, edit_manifest: Any) -> None:
    edit_manifest(
        tiny_copy,
        lambda m: m["graphs"]["vocoder"]["inputs"]["mel"].update(shape=["B", 8, "Q"]),
    )
    with pytest.raises(BundleError, match="input mel has a dimension Q"):
        engine_spec(Bundle.open(tiny_copy), "vocoder", frames=168)


def test_fp16_is_taken_where_there_is_one(tiny_copy: Path, edit_manifest: Any) -> None:
    def add(manifest: dict[str, Any]) -> None:
        files = manifest["graphs"]["vocoder"]["files"]
        files["fp16"] = dict(files["fp32"])

    edit_manifest(tiny_copy, add)
    bundle = Bundle.open(tiny_copy)
    _, step, vocoder = clip_engines(bundle, batch=1, frames=168, guided=False)
    assert (step.graph.precision, vocoder.graph.precision) == ("fp32", "fp16")
    _, _, chosen = clip_engines(bundle, {"vocoder": "fp32"}, batch=1, frames=168, guided=False)
    assert chosen.graph.precision == "fp32"


def test_the_key_has_everything_that_a_plan_depends_on(
    bundle: Bundle,
    vocoder: EngineSpec,
    gpu_double: Any,
    fake_cuda: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def make(name: str, version: str) -> trt_api.TensorRTApi:
        return trt_api.TensorRTApi(name, gpu_double.Tensorrt(fake_cuda, version))

    library = make("tensorrt-rtx", "1.0")
    key = engine_key(vocoder, library, "86")
    assert key == engine_key(engine_spec(bundle, "vocoder", frames=168), library, "86")
    others = {
        "target": engine_key(vocoder, library, "89"),
        "version": engine_key(vocoder, make("tensorrt-rtx", "1.1"), "86"),
        "builder": engine_key(vocoder, make("tensorrt", "1.0"), "86"),
        "shapes": engine_key(engine_spec(bundle, "vocoder", batch=4, frames=168), library, "86"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(plans, "RECIPE", plans.RECIPE + 1)
        others["recipe"] = engine_key(vocoder, library, "86")
    graph = dataclasses.replace(vocoder.graph, sha256="0" * 64)
    others["onnx"] = engine_key(EngineSpec(graph, 1, 168, 0, vocoder.shapes), library, "86")
    assert len({key, *others.values()}) == 1 + len(others)


def test_a_plan_is_built_once(
    vocoder: EngineSpec, library: trt_api.TensorRTApi, trt: Any, cache: EngineCache
) -> None:
    assert not cache.has(vocoder, library, "86")
    plan = cache.get(vocoder, library, "86")
    assert cache.get(vocoder, library, "86") == plan
    assert len(trt.builds) == 1
    # strongly typed, memory from the caller, one target, static shapes
    (build,) = trt.builds
    assert build["flags"] == 1 << 1
    assert build["flag_set"] == ["user-allocation"]
    assert build["targets"] == {0: "SM86"}
    assert build["shapes"] == {"mel": [1, 8, 168]}
    assert sorted(p.suffix for p in cache.folder.iterdir()) == [".lock", ".plan"]


def test_a_portable_plan_names_no_target(
    vocoder: EngineSpec, library: trt_api.TensorRTApi, trt: Any, cache: EngineCache
) -> None:
    cache.get(vocoder, library, "portable")
    assert trt.builds[0]["targets"] == {}


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other", "header"])
def test_a_damaged_plan_is_built_again_with_a_message(
    vocoder: EngineSpec,
    library: trt_api.TensorRTApi,
    trt: Any,
    cache: EngineCache,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    plan = cache.get(vocoder, library, "86")
    path = cache.path(vocoder, library, "86")
    data = path.read_bytes()
    path.write_bytes(
        {
            "cut": data[:-10],
            "flip": data[:-1] + bytes([data[-1] ^ 1]),
            "empty": b"",
            "other": b"PK" + data,
            "header": data.replace(b"{", b"[", 1),
        }[damage]
    )
    caplog.set_level(logging.WARNING)
    assert cache.get(vocoder, library, "86") == plan
    assert len(trt.builds) == 2
    assert caplog.text.count("not a whole engine") >= 1
    assert path.read_bytes()[-len(plan) :] == plan


def test_a_plan_that_does_not_load_is_built_again(
    vocoder: EngineSpec,
    library: trt_api.TensorRTApi,
    trt: Any,
    cache: EngineCache,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # whole, and yet of another build of the library: only loading tells
    real = library.build
    monkeypatch.setattr(library, "build", lambda *a: (b"{}\nof another GPU", b""))
    cache.get(vocoder, library, "86")
    monkeypatch.setattr(library, "build", real)
    caplog.set_level(logging.WARNING)
    engine = load_engine(vocoder, library, ["86"], cache)
    assert engine.get_tensor_shape("waveform") == (1, 168 * 256)
    assert "cannot load its engine (Serialization assertion failed" in caplog.text
    assert "building it again" in caplog.text
    assert len(trt.builds) == 1
    # for good
    assert cache.read(vocoder, library, "86") is not None
    load_engine(vocoder, library, ["86"], cache)
    assert len(trt.builds) == 1


def test_a_file_that_was_not_checked_has_a_key_of_its_own(
    bundle: Bundle, vocoder: EngineSpec, library: trt_api.TensorRTApi
) -> None:
    # its maker vouches for it, and the manifest's hash is another file's
    graph = dataclasses.replace(vocoder.graph, path=bundle.graph("image_encoder").path, sha256=None)
    other = dataclasses.replace(vocoder, graph=graph)
    assert engine_key(other, library, "86") != engine_key(vocoder, library, "86")
    same = dataclasses.replace(vocoder, graph=dataclasses.replace(vocoder.graph, sha256=None))
    assert engine_key(same, library, "86") == engine_key(vocoder, library, "86")


def test_an_engine_of_another_graph(
    bundle: Bundle, vocoder: EngineSpec, library: trt_api.TensorRTApi, cache: EngineCache
) -> None:
    other = bundle.graph("image_encoder")
    graph = type(other)("vocoder", "fp32", other.path, vocoder.graph.spec)
    spec = EngineSpec(graph, 1, 168, 0, vocoder.shapes)
    with pytest.raises(EngineError, match=r"its inputs are image and manifest\.json says mel"):
        load_engine(spec, library, ["86"], cache)


def test_a_build_that_fails_leaves_nothing(
    vocoder: EngineSpec, library: trt_api.TensorRTApi, trt: Any, cache: EngineCache
) -> None:
    trt.refusal = "FP32 GEMM is not supported.\nIn compileGraph at /_src/x.cpp:2012"
    with pytest.raises(EngineError, match=r"cannot build it for 86 \(FP32 GEMM") as caught:
        cache.get(vocoder, library, "86")
    assert "\n" not in str(caught.value)
    assert [p.name for p in cache.folder.iterdir()] == ["build.lock"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing_half_written(
    vocoder: EngineSpec,
    library: trt_api.TensorRTApi,
    cache: EngineCache,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OutputError, match=r"No space left on device.*CLIPSYNTH_RT_CACHE") as caught:
        cache.get(vocoder, library, "86")
    assert "\n" not in str(caught.value)
    assert [p.name for p in cache.folder.iterdir()] == ["build.lock"]


def test_a_folder_that_cannot_be_written(
    vocoder: EngineSpec, library: trt_api.TensorRTApi, trt: Any, tmp_path: Path
) -> None:
    # a file where the folder should be: permissions do not stop the superuser
    (tmp_path / "engines").write_text("")
    with pytest.raises(OutputError, match="engines cannot be kept here"):
        EngineCache(tmp_path / "engines").get(vocoder, library, "86")
    assert trt.builds == []


def test_a_read_only_folder_still_plays_what_is_built(
    vocoder: EngineSpec,
    library: trt_api.TensorRTApi,
    cache: EngineCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = cache.get(vocoder, library, "86")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert cache.get(vocoder, library, "86") == plan
    with pytest.raises(OutputError, match="Permission denied"):
        cache.get(vocoder, library, "89")


def test_two_processes_build_one_plan(tiny_bundle: Path, tmp_path: Path) -> None:
    """Both want the same plan; one builds it while the other waits and takes it."""
    code = f"""
import sys, time, logging
from clipsynth_rt import Bundle
from clipsynth_rt.backends.tensorrt.engines import engine_spec
from clipsynth_rt.backends.tensorrt.engine_cache import EngineCache

class TensorRTApi:
    name, version = "tensorrt-rtx", "1.0"
    def build(self, name, model, shapes, target, known, progress):
        print("built", flush=True)
        time.sleep(1.0)
        return b"plan" * 100000, b""

logging.basicConfig(stream=sys.stdout, format="%(message)s")
spec = engine_spec(Bundle.open({str(tiny_bundle)!r}), "vocoder", frames=168)
assert EngineCache({str(tmp_path / "engines")!r}).get(spec, TensorRTApi(), "86") == b"plan" * 100000
"""
    workers = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert "".join(outputs).count("built") == 1
    assert len(list((tmp_path / "engines").glob("*.plan"))) == 1


def test_a_lock_is_waited_for_aloud(
    vocoder: EngineSpec,
    library: trt_api.TensorRTApi,
    cache: EngineCache,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import threading

    fcntl = pytest.importorskip("fcntl")
    cache.folder.mkdir()
    handle = os.open(cache.folder / "build.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    caplog.set_level(logging.WARNING)
    worker = threading.Thread(target=cache.get, args=(vocoder, library, "86"))
    worker.start()
    deadline = time.monotonic() + 20
    while "waiting for another process" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "waiting for another process" in caplog.text
    assert not cache.has(vocoder, library, "86")
    os.close(handle)
    worker.join(20)
    assert cache.has(vocoder, library, "86")


def test_progress_and_estimate(
    bundle: Bundle, library: trt_api.TensorRTApi, trt: Any, cache: EngineCache
) -> None:
    specs = all_engines(bundle, batches=[1])
    assert estimate_s(specs, library, ["86"], cache) == (len(specs), None)
    told: list[tuple[float, int, str]] = []
    paths = build_engines(specs, library, ["86"], cache, lambda *facts: told.append(facts)).paths
    assert all(path.is_file() for path in paths)
    done = [share for share, _, _ in told]
    assert done == sorted(done)
    assert done[0] == 0.0
    assert done[-1] == len(specs)
    # within an engine too
    assert {0.25, 0.5, 0.75} <= set(done)
    assert {label for _, _, label in told} == {f"{spec.label} for 86" for spec in specs}
    header = json.loads(paths[0].read_bytes().split(b"\n")[1])
    assert header["builder"] == "tensorrt-rtx 1.0"
    assert estimate_s(specs, library, ["86"], cache) == (0, 0.0)
    # another target: builds of before say how long
    missing, seconds = estimate_s(specs, library, ["86", "89"], cache)
    assert missing == len(specs)
    assert seconds is not None
    assert seconds >= 0.0


def test_the_portable_plan_plays_where_there_is_no_better(
    vocoder: EngineSpec, library: trt_api.TensorRTApi, trt: Any, cache: EngineCache
) -> None:
    cache.get(vocoder, library, "portable")
    load_engine(vocoder, library, ["86", "portable"], cache)
    assert len(trt.builds) == 1
    # the GPU's own goes first where there is one
    cache.get(vocoder, library, "86")
    cache.path(vocoder, library, "portable").write_bytes(b"never read")
    load_engine(vocoder, library, ["86", "portable"], cache)
    assert len(trt.builds) == 2


def test_one_engine_that_fails_does_not_stop_the_others(
    bundle: Bundle, library: trt_api.TensorRTApi, trt: Any, cache: EngineCache
) -> None:
    real = library.build

    def build(name: str, *rest: Any) -> Any:
        trt.refusal = "FP32 GEMM is not supported" if name == "text_encoder" else ""
        return real(name, *rest)

    library.build = build  # type: ignore[method-assign]
    specs = all_engines(bundle, batches=[1])
    built = build_engines(specs, library, ["80", "86"], cache)
    assert len(built.paths) == 2 * (len(specs) - 1)
    assert len(built.failures) == 2
    with pytest.raises(EngineError, match=r"^2 of 10 engines .*text_encoder-b1 for 80: .*GEMM"):
        built.check()


def test_building_ahead_needs_a_builder_and_a_target(
    tiny_bundle: Path, fake_gpu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from clipsynth_rt.backends.tensorrt import cuda
    from clipsynth_rt.errors import ProviderUnavailableError

    bundle = Bundle.open(tiny_bundle)
    # with a GPU: its own
    built = prebuild(bundle, batches=[1])
    assert {path.name.split("-tensorrt-rtx-")[1][:3] for path in built.paths} == {"86-"}
    library, targets = choose_builder("auto", ["80", "120"])
    assert (library.name, targets) == ("tensorrt-rtx", ("80", "120"))
    with pytest.raises(InputError, match="unknown target '42'"):
        choose_builder("auto", ["42"])
    with pytest.raises(InputError, match="unknown builder 'cpu'"):
        choose_builder("cpu", [])

    def no_gpu() -> None:
        raise ProviderUnavailableError("no CUDA-capable device is detected")

    monkeypatch.setattr(cuda, "open_device", no_gpu)
    assert choose_builder("auto", [])[1] == ("portable",)
    monkeypatch.setattr(
        trt_api, "load_library", lambda name: trt_api.TensorRTApi("tensorrt", fake_gpu)
    )
    with pytest.raises(ProviderUnavailableError, match=r"tensorrt builds for the GPU .* no CUDA"):
        choose_builder("tensorrt", [])


def test_timing_cache_of_tensorrt(
    vocoder: EngineSpec, bundle: Bundle, gpu_double: Any, fake_cuda: Any, cache: EngineCache
) -> None:
    module = gpu_double.Tensorrt(fake_cuda, rtx=False)
    library = trt_api.TensorRTApi("tensorrt", module)
    cache.get(vocoder, library, "86")
    (timing,) = cache.folder.glob("timing-*.cache")
    assert timing.read_bytes() == b"timing+"
    cache.get(engine_spec(bundle, "vocoder", batch=4, frames=168), library, "86")
    assert timing.read_bytes() == b"timing++"
    # of another device: started anew, not an error
    timing.write_bytes(b"garbage")
    cache.get(engine_spec(bundle, "image_encoder"), library, "86")
    assert timing.read_bytes() == b"timing+"


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLIPSYNTH_RT_CACHE", str(tmp_path / "mine"))
    assert default_cache() == tmp_path / "mine"
    monkeypatch.delenv("CLIPSYNTH_RT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "clipsynth-rt" / "engines"
