"""The comparison of precisions: what it hears, times and decides."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from clipsynth_rt import Synthesizer
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.errors import InputError

pytest.importorskip("torch")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "precisions.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("precisions", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("top1", "clip_s", "chosen"),
    [
        (0.55, 0.10, "int8"),
        (0.541, 0.10, "int8"),
        (0.53, 0.10, "fp32"),  # two points lost
        (0.60, 0.30, "fp32"),  # better and slower
    ],
)
def test_the_rule(script: ModuleType, top1: float, clip_s: float, chosen: str) -> None:
    variants = {
        "fp32": {"top1": 0.55, "seconds": {"clip": 0.2}},
        "int8": {"top1": top1, "seconds": {"clip": clip_s}},
    }
    assert script.decide(variants) == chosen


def test_variants_are_checked_before_work(script: ModuleType, tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    script.check_variants(bundle, [])
    with pytest.raises(InputError, match=r"has no w16 denoiser_step|has no w8 text_encoder"):
        script.check_variants(bundle, ["int8 denoiser"])
    with pytest.raises(InputError, match="unknown variant 'int4'"):
        script.check_variants(bundle, ["int4"])


def test_clips_and_times(script: ModuleType, tiny_bundle: Path) -> None:
    with Synthesizer.from_bundle(tiny_bundle, "cpu", threads=1) as voice:
        made = script.make_clips(voice, ["drum", "piano"], 2, "fp32")
        expected = voice.synth("piano", seed=1).waveform
        np.testing.assert_array_equal(made[3], expected)
        times = script.time_by_turns({"a": voice, "b": voice}, 1, 1)
    assert times.keys() == {"a", "b"}
    for stages in times.values():
        assert stages.keys() == {"text_encoder", "step", "step guided", "vocoder", "clip"}
        assert all(seconds > 0.0 for seconds in stages.values())


def test_agreement_counts_what_is_heard(script: ModuleType) -> None:
    def heard(posterior: list[list[float]]) -> Any:
        rows = np.array(posterior, np.float32)
        return script.Heard(rows, rows, np.zeros(len(rows), np.int64))

    first = heard([[0.9, 0.1], [0.2, 0.8]])
    assert script.agreement(first, first) == 1.0
    assert script.agreement(heard([[0.6, 0.4], [0.7, 0.3]]), first) == 0.5
