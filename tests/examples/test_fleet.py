"""The plan of a fleet is arithmetic on a report's figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "fleet.py"


def test_plan(tmp_path: Path) -> None:
    report = tmp_path / "throughput.json"
    figures = {"clips": 10, "audio_s": 40.0, "cpu_s_per_clip": 2.0}
    report.write_text(
        json.dumps({"machine": "m", "workers": 2, "threads_per_worker": 1, "on_ray": figures})
    )
    command = [sys.executable, SCRIPT, report, "--devices", "1000", "--clips", "3600000"]
    more = ["--busy", "0.5", "--hours", "1", "--price", "0.1"]
    facts = json.loads(subprocess.run([*command, *more], capture_output=True, check=True).stdout)
    # two cores, half of the time, two seconds a clip: half a clip a second
    assert facts["clips_per_s_and_device"] == 0.5
    assert facts["clips_per_s"] == 500.0
    assert facts["hours"] == pytest.approx(2.0)
    assert facts["devices_for_the_deadline"] == 2000
    assert facts["price"] == pytest.approx(200.0)
    assert facts["output_mb_per_s"] == pytest.approx(500 * 4 * 22050 * 2 / 1e6)
