"""The Ray examples with two workers each, as a user runs them.

Where ray is installed: ``pip install -e ".[dev,examples]" && pytest tests/examples``.
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clipsynth_rt import Synthesizer

pytest.importorskip("ray")
pytest.importorskip("onnxruntime")
EXAMPLES = Path(__file__).parents[2] / "examples"
QUERIES = ["drum", "piano", "dog", "rain", "snare", "photo"]

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """A home of its own for Ray's token, and patience: a busy machine is no failure."""
    return os.environ | {
        "HOME": str(tmp_path),
        "RAY_worker_niceness": "0",
        "RAY_agent_register_timeout_ms": "100000",
        "RAY_raylet_start_wait_time_s": "120",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
    }


def test_batch(tiny_bundle: Path, tmp_path: Path, settings: dict[str, str]) -> None:
    listed, out, report = tmp_path / "queries.txt", tmp_path / "out", tmp_path / "report.json"
    listed.write_text("\n".join(QUERIES))
    command = [sys.executable, EXAMPLES / "ray_batch.py", listed, out, "--bundle", tiny_bundle]
    more = ["--workers", "2", "--compare", "--report", report]
    done = subprocess.run(
        [*command, *more], env=settings, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(report.read_text())
    assert facts["workers"] == 2
    assert facts["on_ray"]["clips"] == facts["one_process"]["clips"] == len(QUERIES)
    assert facts["speedup"] > 0.0
    alone = Synthesizer.from_bundle(tiny_bundle, "cpu", threads=1)
    for seed, query in enumerate(QUERIES):
        heard, _ = soundfile.read(out / f"{seed:06d}.wav", dtype="float32")
        # 16 bits, and a batch sums in another order
        np.testing.assert_allclose(heard, alone.synth(query, seed=seed).waveform, atol=1e-4)


@pytest.fixture
def server(tiny_bundle: Path, settings: dict[str, str]) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, EXAMPLES / "ray_serve.py", "--bundle", tiny_bundle]
    process = subprocess.Popen(
        [*command, "--workers", "2", "--port", str(port)], env=settings, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(b"ready"):
                break
        else:
            pytest.fail("the server ended before it was ready")
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()
            process.communicate()


def test_serve(tiny_bundle: Path, server: str) -> None:
    alone = Synthesizer.from_bundle(tiny_bundle, "cpu", threads=1)
    for query, seed in (("drum", 3), ("piano", 0)):
        with urllib.request.urlopen(f"{server}?query={query}&seed={seed}", timeout=60) as answer:
            heard, rate = soundfile.read(io.BytesIO(answer.read()), dtype="float32")
        assert rate == 22050
        np.testing.assert_allclose(heard, alone.synth(query, seed=seed).waveform, atol=1e-4)
    for bad in ("", "?query=%20", "?query=drum&seed=-1", "?query=drum&seed=" + "9" * 5000):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(server + bad, timeout=60)
        assert caught.value.code == 400
        caught.value.close()
    with urllib.request.urlopen(f"{server}?query=rain", timeout=60) as answer:
        assert answer.status == 200
