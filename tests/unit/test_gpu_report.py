"""The script for a GPU machine, run on the double: a report whole, with what could not be done."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_report.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("gpu_report", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def voice(tiny_copy: Path, edit_manifest: Any) -> str:
    """The tiny bundle, as if its graphs were there in fp16 too."""

    def add(manifest: dict[str, Any]) -> None:
        for graph in manifest["graphs"].values():
            graph["files"]["fp16"] = dict(graph["files"]["fp32"])

    edit_manifest(tiny_copy, add)
    return str(tiny_copy)


def test_report(
    script: ModuleType,
    voice: str,
    fake_gpu: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "report.json"
    # a subprocess has no double, and PyTorch no GPU here
    monkeypatch.setattr(script.sections, "gpu_tests", lambda *_: {"exit_code": 0})
    line = ["gpu_report.py", "-o", str(out), "--bundle", voice, "--repeats", "1", "--in-process"]
    monkeypatch.setattr(script.sys, "argv", [*line, "--checkpoint", str(tmp_path / "absent")])
    script.main()
    report = json.loads(out.read_text())
    assert report["device"]["name"] == "Double"
    assert report["providers"]["tensorrt-rtx"] == "ok"
    assert "pip install" in report["providers"]["tensorrt"]
    assert report["build"]["tensorrt-rtx"]["failures"] == []
    for found in report["parity"].values():
        assert found["provider"] == "tensorrt-rtx"
        for name in ("text_encoder", "step", "step_guided", "vocoder", "clip"):
            # the double computes with the graphs that it is compared with
            assert found[name]["snr_db"] > 80.0
    merged = report["manifest_parity"]
    assert merged.keys() == {f"{p} on tensorrt-rtx, Double" for p in ("fp16", "fp32")}
    for graphs in merged.values():
        assert graphs.keys() == {"text_encoder", "denoiser_step", "vocoder"}
        for figures in graphs.values():
            assert figures.keys() == {"max_abs", "rms", "snr_db"}
    assert report["latency"].keys() == {"tensorrt-rtx", "tensorrt-rtx, no CUDA graph"}
    for run, graphs in zip(report["latency"].values(), (True, False), strict=True):
        assert run["cuda_graphs"] is graphs
        assert {row["stage"] for row in run["rows"]} == {
            "text_encoder",
            "step",
            "vocoder",
            "clip",
        }
        assert run["peak_device_mb"] > 0
    only = report["device_only"]["tensorrt-rtx"]
    assert {"4 steps, CUDA graph", "4 steps, enqueued"} <= only.keys()
    # what cannot be done is in the report in its own words
    assert "no such checkpoint folder" in report["pytorch_eager"]["problem"]
    assert "load_source" in report["pytorch_eager"]["where"][-1]
    assert fake_gpu.cuda.left()["device"] == 0


def run_script(*options: str) -> None:
    subprocess.run([sys.executable, str(SCRIPT), *options], check=True, capture_output=True)


def test_parts_run_apart_and_are_added(tmp_path: Path) -> None:
    """In processes of their own, without a GPU: what keeps each from running is in the report."""
    out = tmp_path / "report.json"
    out.write_text('{"tests": {"exit_code": 0}}')
    run_script("-o", str(out), "--update", "--only", "parity", "--bundle", str(tmp_path))
    report = json.loads(out.read_text())
    assert report["tests"] == {"exit_code": 0}
    assert report["device"]["problem"]
    assert report["device"]["took_s"] > 0
    assert report["providers"]["cpu"] == "ok"


def test_only_names_parts_and_all_of_their_ways(script: ModuleType) -> None:
    names = ("latency/cuda", "latency/cuda, NHWC", "latency/tensorrt-rtx", "pytorch_eager_fp32")
    parts = [script.Part(tuple(name.split("/")), "x") for name in names]
    for only, wanted in (
        ("latency", names[:3]),
        ("latency/cuda", names[:2]),
        ("latency/tensorrt,pytorch_eager", ()),
        ("tests,pytorch_eager_fp32", names[3:]),
    ):
        found = [
            name for name, part in zip(names, parts, strict=True) if script.is_wanted(part, only)
        ]
        assert tuple(found) == wanted


def test_what_no_longer_fits_is_left_out(script: ModuleType, tmp_path: Path) -> None:
    report = script.Report(tmp_path / "report.json", {}, budget_s=4.0)
    report.run(script.Part(("tests",), "gpu_tests", (), needs_s=5.0))
    assert report.data["tests"]["skipped"].startswith("needs 5 s, ")
    assert json.loads(report.path.read_text()) == report.data


def test_a_part_whose_ground_is_gone_is_left_out(script: ModuleType, tmp_path: Path) -> None:
    report = script.Report(tmp_path / "report.json", {"build": {"x": {"problem": "no"}}}, None)
    report.run(script.Part(("parity", "x fp16"), "parity", after=("build", "x")))
    assert report.data["parity"] == {"x fp16": {"skipped": "build / x: no"}}


@pytest.mark.parametrize(
    ("body", "limit_s", "problem"),
    [
        # a process loads its modules first, which a busy machine takes seconds for
        ("save({'rows': 1}); time.sleep(600)", 15.0, "stopped after 15 s"),
        ("save({'rows': 1}); os.kill(os.getpid(), 6)", 120.0, "ended by SIGABRT"),
        ("save({'rows': 1}); raise OSError('broken')", 120.0, "OSError: broken"),
    ],
    ids=["too long", "crash", "error"],
)
def test_what_was_found_before_the_end_is_kept(
    script: ModuleType, tmp_path: Path, body: str, limit_s: float, problem: str
) -> None:
    """A part that hangs, crashes or fails leaves what it had saved."""
    copy = tmp_path / "gpu_report.py"
    copy.write_text(SCRIPT.read_text())
    sections = (SCRIPT.parent / "gpu_sections.py").read_text()
    (tmp_path / "gpu_sections.py").write_text(f"{sections}\n\ndef broken(save):\n    {body}\n")
    script.__file__ = str(copy)
    found = script.apart(script.Part((), "broken"), limit_s)
    assert found["problem"] == problem
    assert found["rows"] == 1


def test_logs_name_no_folders(script: ModuleType) -> None:
    said = "\x1b[0;31m[E] /opt/x/lib.so.1: at src/a.cc:3 (/tmp/y-1/b.py)\x1b[m 3/4"
    assert script.plain(said) == "[E] lib.so.1: at src/a.cc:3 (b.py) 3/4"


def test_ratios(script: ModuleType) -> None:
    rows = [
        {"stage": "clip", "batch": 1, "guidance_scale": 2.0, "num_steps": 4, "median_s": 0.005},
        {"stage": "clip", "batch": 4, "guidance_scale": 2.0, "num_steps": 4, "median_s": 0.001},
        {"stage": "clip", "batch": 1, "guidance_scale": 1.0, "num_steps": 4, "median_s": 0.001},
    ]
    rows.append({**rows[0], "distilled": True, "median_s": 0.0001})
    report = {
        "pytorch_eager": {"4 steps": 0.06, "4 steps, whole": 0.07, "peak_device_mb": 1.0},
        "pytorch_eager_fp32": {"4 steps": 0.05, "4 steps, whole": 0.06, "8 steps": 0.1},
        "latency": {"tensorrt-rtx": {"rows": rows}, "cuda": {"problem": "no"}},
        "device_only": {"tensorrt-rtx": {"4 steps, CUDA graph": 0.004, "took_s": 9.0}},
    }
    # whole clips with whole clips, and the device's part with the device's part
    assert script.ratios(report) == {
        "tensorrt-rtx": {
            "4 steps, whole": pytest.approx(12.0),
            "4 steps, CUDA graph": pytest.approx(12.5),
        }
    }
