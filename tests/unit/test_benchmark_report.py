"""Two benchmark runs compared, and what a GPU machine measured put into a manifest."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "report.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_report", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_run(path: Path, provider: str = "cpu", **medians: float) -> Path:
    benchmarks = [
        {"fullname": name, "stats": {"median": median}, "extra_info": {"provider": provider}}
        for name, median in medians.items()
    ]
    path.write_text(json.dumps({"benchmarks": benchmarks}))
    return path


def test_a_slower_run_fails(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    old = write_run(tmp_path / "old.json", vocoder=0.05, text=0.004, gone=1.0)
    new = write_run(tmp_path / "new.json", vocoder=0.07, text=0.003, added=1.0)
    line = ["report.py", "--compare", str(old), str(new)]
    monkeypatch.setattr(script.sys, "argv", line)
    with pytest.raises(SystemExit, match="slower by more than 20%") as caught:
        script.main()
    assert "vocoder: 50.00 ms, then 70.00 ms (+40%)" in str(caught.value)
    assert "text" not in str(caught.value)
    assert "text: 4.00 ms, then 3.00 ms (-25%)" in capsys.readouterr().out
    monkeypatch.setattr(script.sys, "argv", [*line, "--threshold", "50"])
    script.main()


def test_only_like_is_compared_with_like(script: ModuleType, tmp_path: Path) -> None:
    old = write_run(tmp_path / "old.json", vocoder=0.05)
    with pytest.raises(SystemExit, match="provider was cpu and is openvino"):
        script.compare(old, write_run(tmp_path / "new.json", "openvino", vocoder=0.05), 20.0)
    with pytest.raises(SystemExit, match="no benchmark in common"):
        script.compare(old, write_run(tmp_path / "new.json", text=0.05), 20.0)


def test_parity_of_engines_goes_beside_that_of_export(
    script: ModuleType, tiny_copy: Path, tmp_path: Path
) -> None:
    path = tiny_copy / "manifest.json"
    before = json.loads(path.read_text())["parity"]
    figures = {"vocoder": {"max_abs": 0.1, "rms": 0.01, "snr_db": 40.0}}
    report = tmp_path / "gpu.json"
    report.write_text(json.dumps({"manifest_parity": {"fp16 on tensorrt, GPU": figures}}))
    script.merge_parity(report, path)
    assert json.loads(path.read_text())["parity"] == before | {"fp16 on tensorrt, GPU": figures}
