"""What the system tells of its processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipsynth_rt import machine


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
