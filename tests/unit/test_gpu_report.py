"""The script for a GPU machine, run on the double: a report whole, with what could not be done."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_report.py"


@pytest.fixture
def script() -> ModuleType:
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
    monkeypatch.setattr(script, "gpu_tests", lambda bundle: {"exit_code": 0})
    line = ["gpu_report.py", "-o", str(out), "--bundle", voice, "--repeats", "1"]
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
    assert fake_gpu.cuda.left()["device"] == 0


def test_ratios(script: ModuleType) -> None:
    rows = [
        {"stage": "clip", "batch": 1, "guidance": 2.0, "steps": 4, "median_s": 0.005},
        {"stage": "clip", "batch": 4, "guidance": 2.0, "steps": 4, "median_s": 0.001},
        {"stage": "clip", "batch": 1, "guidance": 1.0, "steps": 4, "median_s": 0.001},
    ]
    report = {"pytorch_eager": {"4 steps": 0.05}, "latency": {"tensorrt-rtx": {"rows": rows}}}
    assert script.ratios(report) == {"tensorrt-rtx": {"4 steps": pytest.approx(10.0)}}
