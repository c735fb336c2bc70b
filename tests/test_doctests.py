"""The examples in docstrings run, and give what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = (
    "audio.clip",
    "bundles.bundle",
    "audio.mel",
    "synthesis.synthesizer",
    "synthesis.schedule",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    if name == "synthesis.synthesizer":
        pytest.importorskip("onnxruntime")
    module = importlib.import_module(f"clipsynth_rt.{name}")
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0, f"{name} has no examples"
    assert result.failed == 0
