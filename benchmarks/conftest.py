"""What every benchmark shares: the shipped bundle, and the facts that make figures comparable.

Run with ``pytest benchmarks --benchmark-only``. Options: ``--provider`` and ``--precision``.
"""

from __future__ import annotations

from typing import Any

import pytest

from clipsynth_rt import Synthesizer
from clipsynth_rt.bundles.bundle import DEFAULT_PATH
from clipsynth_rt.bundles.manifest import MANIFEST_NAME
from clipsynth_rt.jobs.bench import describe_run


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("clipsynth-rt benchmarks")
    group.addoption("--bundle", default=None, help="bundle folder; the shipped one if left out")
    group.addoption("--provider", default="auto", help="auto, cpu, cuda, tensorrt or tensorrt-rtx")
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
    info: dict[str, Any] = benchmark.extra_info
    info.update(describe_run(synthesizer))
    return info
