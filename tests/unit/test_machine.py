"""What the system tells of its processor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clipsynth_rt import errors, machine
from clipsynth_rt.errors import MissingExtraError


@pytest.mark.parametrize("field", ["flags\t\t", "Features\t"])  # of x86 and of Arm
def test_a_processor_is_told_by_what_it_can_do_and_not_by_its_name_alone(
    field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "Path", lambda _: told)
    told.write_text(f"processor\t: 0\nmodel name\t: Some: CPU\n{field}: fpu bf16\n\nprocessor: 1\n")
    assert machine.processor_name() == "Some: CPU"
    assert machine.processor_features() == "fpu bf16"
    told.unlink()
    assert machine.processor_name()
    assert machine.processor_features() == ""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_processors_are_those_that_this_process_may_use() -> None:
    one = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, [{one}]); from clipsynth_rt import machine; "
        "print(machine.cpu_count(), machine.physical_cores())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["1", "1"]


def test_processors_are_within_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "cpu.max"
    monkeypatch.setattr(machine, "Path", lambda _: told)
    told.write_text("150000 100000\n")
    assert machine.cpu_count() <= 2
    told.write_text("1000 100000\n")
    assert machine.cpu_count() == machine.physical_cores() == 1
    told.write_text("max 100000\n")
    assert machine.cpu_count() >= 1


def test_the_hint_of_a_checkout_is_a_command_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(errors.__file__).parents[1]
    monkeypatch.chdir(root)
    assert str(MissingExtraError("av", "train")).endswith('run: pip install -e ".[train]"')
    hint = str(MissingExtraError(errors.CHECKPOINTS, "train"))
    assert hint.endswith('run: pip install "./training/checkpoints"')
    monkeypatch.chdir(tmp_path)
    assert str(MissingExtraError("av", "train")).endswith(f'pip install -e "{root}[train]"')


def test_the_hint_of_an_installation_names_the_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "clipsynth_rt" / "errors.py"))
    assert str(MissingExtraError("av", "train")).endswith('pip install "clipsynth-rt[train]"')
    hint = str(MissingExtraError(errors.CHECKPOINTS, "train"))
    assert hint.endswith("pip install clipsynth-rt-checkpoints")
