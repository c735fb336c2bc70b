"""The tiny bundle still gives the sound that it gave when its outputs were stored."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_golden", HERE / "make_golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_noise_is_what_it_was(script: ModuleType) -> None:
    with np.load(script.GOLDEN) as golden:
        # log, sin and cos may differ in the last place between C libraries
        np.testing.assert_allclose(script.stored_noise(), golden["noise"], atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_outputs_are_what_they_were(script: ModuleType, tiny_bundle: Path, threads: int) -> None:
    with np.load(script.GOLDEN) as golden:
        results = script.compute(tiny_bundle, golden["noise"], threads)
        assert set(results) | {"noise"} == set(golden)
        for name, value in results.items():
            # float32 kernels of another instruction set sum in another order
            np.testing.assert_allclose(value, golden[name], atol=2e-5, err_msg=name)
