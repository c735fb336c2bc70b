"""``clipsynth-rt evaluate``: what it refuses before it measures anything."""

from __future__ import annotations

import shutil
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


def test_a_checkpoint_is_exported_once(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clipsynth_rt.cli.evaluate import _system
    from clipsynth_rt.export import assemble

    exported: list[Path] = []

    def export_bundle(checkpoint: Path, out: Path, name: str) -> None:
        exported.append(checkpoint)
        shutil.copytree(tiny_bundle, out)

    monkeypatch.setattr(assemble, "export_bundle", export_bundle)
    checkpoint = tmp_path / "run"
    checkpoint.mkdir()
    for name in ("denoiser.json", "denoiser.safetensors"):
        (checkpoint / name).write_text("{}")
    first = _system(f"ours={checkpoint}", tmp_path)
    assert first == _system(f"ours={checkpoint}", tmp_path)
    assert first[0] == "ours"
    assert exported == [checkpoint]
    (checkpoint / "denoiser.safetensors").write_text("other weights")
    assert _system(f"ours={checkpoint}", tmp_path) != first
    assert _system(f"tiny={tiny_bundle}", tmp_path) == ("tiny", tiny_bundle)
    assert exported == [checkpoint] * 2
