"""What every benchmark shares: the shipped bundle, and the facts that make figures comparable.

Run with ``pytest benchmarks --benchmark-only``. Options: ``--provider`` and ``--precision``.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from typing import Any

import pytest

from clipsynth_rt import Bundle, Synthesizer, __version__
from clipsynth_rt.bundle import DEFAULT_PATH, MANIFEST_NAME
from clipsynth_rt.machine import processor_name


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("clipsynth-rt benchmarks")
    group.addoption("--bundle", default=None, help="bundle folder; the shipped one if left out")
    group.addoption("--provider", default="auto", help="auto, cpu or cuda")
    group.addoption("--precision", default=None, help="fp32, fp16 or int8; the bundle's default")


@pytest.fixture(scope="session")
def synthesizer(request: pytest.FixtureRequest) -> Synthesizer:
    pytest.importorskip("onnxruntime")
    path = request.config.getoption("--bundle", None)
    if path is None and not (DEFAULT_PATH / MANIFEST_NAME).is_file():
        pytest.skip("the bundle that ships with the package is not there: nothing to time")
    return Synthesizer.from_bundle(
        path,
        request.config.getoption("--provider", "auto"),
        request.config.getoption("--precision", None),
    )


@pytest.fixture
def facts(benchmark: Any, synthesizer: Synthesizer) -> dict[str, Any]:
    """Record where and on what a figure was taken; returns ``extra_info`` for more."""
    from clipsynth_rt.backends.ort import physical_cores

    info: dict[str, Any] = benchmark.extra_info
    info.update(
        bundle=synthesizer.bundle.manifest.name,
        provider=synthesizer.session("denoiser_step").provider,
        precision=precisions(synthesizer.bundle, synthesizer),
        cpu=processor_name(),
        physical_cores=physical_cores(),
        load_before=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        python=platform.python_version(),
        clipsynth_rt=__version__,
        numpy=version("numpy"),
        onnxruntime=sys.modules["onnxruntime"].__version__,
    )
    return info


def precisions(bundle: Bundle, synthesizer: Synthesizer) -> dict[str, str]:
    """Return the precision that each loaded graph really has."""
    return {
        name: bundle.graph(name, synthesizer.precision).precision for name in synthesizer.loaded
    }
