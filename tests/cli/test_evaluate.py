"""``clipsynth-rt evaluate``: what it refuses before it measures anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from clipsynth_rt.cli import main

pytest.importorskip("torch")


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["evaluate", *arguments])
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output
    return result.output


def test_update_needs_a_report(tmp_path: Path) -> None:
    shards, labels = str(tmp_path), str(tmp_path / "labels.csv")
    assert "--update needs -o" in refused(shards, "--labels", labels, "--update")
    report = tmp_path / "report.json"
    options = (shards, "--labels", labels, "--update", "-o", str(report))
    assert "report.json: cannot be read" in refused(*options)
    report.write_text("[1]")
    assert "is no report" in refused(*options)
