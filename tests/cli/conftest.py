"""Fixtures of the command-line tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click.testing
import pytest

from clipsynth_rt.cli.main import main


@pytest.fixture
def synth(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., click.testing.Result]:
    """Run ``synth`` on the tiny bundle, in an empty folder."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def run(*args: str, bundle: str | Path = tiny_bundle) -> click.testing.Result:
        command = ["synth", "--bundle", str(bundle), *args]
        return click.testing.CliRunner().invoke(main, command, prog_name="clipsynth-rt")

    return run
