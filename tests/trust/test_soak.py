"""``benchmarks/soak.py`` over ten minutes of sound; the hour is run by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "soak.py"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
def test_memory_is_flat(tiny_bundle: Path, tmp_path: Path) -> None:
    report = tmp_path / "soak.json"
    command = [sys.executable, SCRIPT, "--audio-seconds", "600", "--bundle", tiny_bundle]
    # kept waveforms would be 40 MB after the first quarter; 16 are allowed
    done = subprocess.run([*command, "-o", report], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(report.read_text())
    assert facts["audio_s"] >= 600
    assert len(facts["samples"]) > 50
