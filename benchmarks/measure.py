"""Measure what a user waits for and what it takes: python benchmarks/measure.py -o FILE.

Runs ``clipsynth-rt synth "drum"`` in fresh processes on a quiet machine and writes JSON with the
median of each figure, the machine and the date.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from clipsynth_rt.backends.choice import probe
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.machine import describe_machine


def one_process(folder: str, extra: list[str]) -> dict[str, Any]:
    """Run synth once in a fresh process and return its own report plus the whole-process time."""
    out = str(Path(folder) / "drum.wav")
    line = [sys.executable, "-m", "clipsynth_rt", "synth", "drum", "-o", out, "--json", *extra]
    began = time.perf_counter()
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    report["process_s"] = time.perf_counter() - began
    return report


def measure(repeats: int, extra: list[str]) -> dict[str, Any]:
    """Return medians over ``repeats`` processes."""
    with tempfile.TemporaryDirectory() as folder:
        first, *reports = [one_process(folder, extra) for _ in range(repeats + 1)]
    stages = {
        name: statistics.median(r["stages_s"][name] for r in reports)
        for name in reports[0]["stages_s"]
    }
    return {
        "process_s": statistics.median(r["process_s"] for r in reports),
        # files are not in memory yet, and, where nothing ran before, nothing is in the cache
        "first_process_s": first["process_s"],
        "rtf": statistics.median(r["rtf"] for r in reports),
        "rtf_spread": [min(r["rtf"] for r in reports), max(r["rtf"] for r in reports)],
        "stages_s": stages,
        **{k: reports[0][k] for k in ("audio_s", "num_steps", "guidance_scale", "distilled")},
        **{k: reports[0][k] for k in ("network_calls", "provider")},
    }


def of_provider(provider: str, repeats: int) -> dict[str, Any]:
    """Return figures at the defaults and at other step counts."""
    where = ["--provider", provider]
    scale = Bundle.open(None).manifest.diffusion.guidance_scale
    return {
        "default": measure(repeats, where),
        "by_steps": {
            # the ordinary denoiser's: with guidance said, a distilled one has no part in it
            str(num_steps): measure(
                3, [*where, "--num-steps", str(num_steps), "--guidance-scale", str(scale)]
            )
            for num_steps in (1, 2, 4, 8, 16, 25)
        },
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", required=True, type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        # its own, so that the first process really compiles
        os.environ["CLIPSYNTH_RT_CACHE"] = cache
        report = measure_all(arguments.repeats)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def measure_all(repeats: int) -> dict[str, Any]:
    """Return the report."""
    bundle = Bundle.open(None)
    folder = Path(bundle.path)
    report: dict[str, Any] = {
        "measured": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        "python": platform.python_version(),
        "onnxruntime": __import__("onnxruntime").__version__,
        "bundle": bundle.manifest.name,
        "bundle_mb": sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6,
        **of_provider("cpu", repeats),
        # children only: the largest of the processes above
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }
    if not probe("openvino"):
        report["openvino_version"] = importlib.metadata.version("openvino")
        report["openvino"] = of_provider("openvino", repeats)
    return report


if __name__ == "__main__":
    main()
