"""All that a GPU can tell, in one go: python benchmarks/gpu_report.py -o FILE [--bundle FOLDER].

Parity of every GPU provider with the CPU in fp32; latency by stage and whole, with and without CUDA
graphs; PyTorch, eager and compiled, on the same device; peak memory; the tests marked ``gpu``. Each
part runs in a process of its own, which may crash or be stopped, and the report is written after
each, the most important first: what ends early loses nothing. What cannot load is in it with the
library's own message. ``--budget`` leaves out what no longer fits, and says so. ``--only`` runs
some parts, ``--update`` adds them to a report that is there, and ``--missing`` runs what it lacks.

Without ``--bundle``, one is exported from the shipped checkpoint in fp16 and fp32.
"""

import argparse
import contextlib
import datetime
import faulthandler
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# beside this file, wherever it is started
sys.path.insert(0, str(Path(__file__).resolve().parent))

import gpu_sections as sections

from clipsynth_rt.bundles.manifest import DENOISER, DISTILLED
from clipsynth_rt.files import write_atomically
from clipsynth_rt.machine import describe_machine

PROVIDERS = ("tensorrt-rtx", "tensorrt", "cuda")
VARIANTS = {
    "NHWC": {"prefer_nhwc": "1"},
    "exhaustive search": {"cudnn_conv_algo_search": "EXHAUSTIVE"},
}
"""Of ONNX Runtime's CUDA provider, to see whether what it is told otherwise is best."""
LAST_FRAMES = 5
"""Of a traceback, that a problem comes with."""
WITHOUT_BUDGET_S = 1800.0


@dataclass(frozen=True)
class Part:
    """One part of the report.

    Attributes:
        path: Where in the report it goes.
        name: Function of ``gpu_sections``.
        arguments: Its own, after ``save``.
        needs_s: Seconds without which it is not begun.
        limit_s: Seconds after which it is stopped.
        after: Path of the part whose problem makes this one pointless.
    """

    path: tuple[str, ...]
    name: str
    arguments: tuple[Any, ...] = ()
    needs_s: float = 5.0
    limit_s: float = 60.0
    after: tuple[str, ...] = ()


@dataclass
class Report:
    """The report so far, its file, and how much time there is."""

    path: Path
    data: dict[str, Any]
    budget_s: float | None
    isolated: bool = True
    missing: bool = False
    began: float = field(default_factory=time.perf_counter)

    def left_s(self) -> float:
        """Return the seconds left for all that follows."""
        if self.budget_s is None:
            return WITHOUT_BUDGET_S
        return self.budget_s - (time.perf_counter() - self.began)

    def write(self) -> None:
        """Write the file, whole."""
        write_atomically(self.path, json.dumps(self.data, indent=1).encode() + b"\n")

    def get(self, path: tuple[str, ...]) -> dict[str, Any]:
        """Return what a part has found, nothing if it has not run."""
        found: Any = self.data
        for key in path:
            found = found.get(key, {}) if isinstance(found, dict) else {}
        return found if isinstance(found, dict) else {}

    def run(self, part: Part) -> None:
        """Run a part, or say why not, and write the report."""
        known = self.get(part.path)
        if self.missing and known and not known.keys() & {"problem", "skipped"}:
            return
        print(f"[{time.perf_counter() - self.began:6.1f} s] {' / '.join(part.path)}", flush=True)
        why = self.get(part.after).get("problem") if part.after else None
        began = time.perf_counter()
        if why is not None:
            found = {"skipped": f"{' / '.join(part.after)}: {why}"}
        elif self.left_s() < part.needs_s:
            found = {"skipped": f"needs {part.needs_s:.0f} s, {max(0.0, self.left_s()):.0f} s left"}
        else:
            limit = min(part.limit_s, self.left_s())
            found = apart(part, limit) if self.isolated else here(part)
            found["took_s"] = round(time.perf_counter() - began, 2)
        for word in ("problem", "skipped"):
            if word in found:
                print(f"  {word}: {found[word]}", flush=True)
        into = self.data
        for key in part.path[:-1]:
            into = into.setdefault(key, {})
        into[part.path[-1]] = found
        self.write()


def here(part: Part, save: sections.Save = lambda found: None) -> dict[str, Any]:
    """Run a part in this process, and return what it found, or its problem."""
    kept: dict[str, Any] = {}

    def keep(found: dict[str, Any]) -> None:
        kept.update(found)
        save(found)

    try:
        return dict(getattr(sections, part.name)(keep, *part.arguments))
    # whatever a library raises on a GPU is what the report is for
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[-LAST_FRAMES:]
        return {
            **kept,
            "problem": plain(f"{type(error).__name__}: {' '.join(str(error).split())}"),
            "where": [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames],
        }


def apart(part: Part, limit_s: float) -> dict[str, Any]:
    """Run a part in a process of its own, and return what it found, whatever became of it."""
    with tempfile.TemporaryDirectory() as folder:
        result, log = Path(folder) / "result.json", Path(folder) / "log"
        line = [sys.executable, __file__, "-o", str(result), "--part", part.name]
        with log.open("w") as sink:
            running = subprocess.Popen(
                [*line, "--arguments", json.dumps(part.arguments)],
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code, ended = running.wait(limit_s), ""
            except subprocess.TimeoutExpired:
                code, ended = 0, f"stopped after {limit_s:.0f} s"
            finally:
                # with whatever it has started
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(running.pid, signal.SIGKILL)
                running.wait()
        if code:
            ended = f"ended with {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
        said = log.read_text(errors="replace").splitlines()
        found: dict[str, Any] = json.loads(result.read_text()) if result.is_file() else {}
        if ended:
            found["problem"] = f"{found['problem']}; {ended}" if "problem" in found else ended
        if said and ("problem" in found or part.name == "providers"):
            found["log"] = [plain(text) for text in said[-40:]]
        for text in said[-10:]:
            print(f"  | {text}", flush=True)
        return found


def plain(text: str) -> str:
    """Return a line of a log without colours and folders, at most 400 characters."""
    return re.sub(r"(?<![\w.])/[\w./+-]*/", "", re.sub(r"\x1b\[[0-9;]*m", "", text))[:400]


def plan_timings(bundle: str, checkpoint: str, usable: list[str], repeats: int) -> list[Part]:
    """Return the parts that want the GPU to themselves, in the order of their worth."""
    engines = [name for name in usable if name != "cuda"]
    parts = []
    for name in engines:
        first = ("latency", name)
        more = {"needs_s": 8.0, "limit_s": 45.0, "after": first}
        arguments = (bundle, name, True, repeats)
        # long enough to build what is not built yet
        parts.append(Part(first, "latency", arguments, 8.0, 150.0, ("build", name)))
        parts.append(Part(("device_only", name), "device_only", (bundle, name, repeats), **more))
        plain = ("latency", f"{name}, no CUDA graph")
        parts.append(Part(plain, "latency", (bundle, name, False, repeats), **more))
    if "cuda" in usable:
        first = ("latency", "cuda")
        parts.append(Part(first, "latency", (bundle, "cuda", True, repeats), 8.0, 45.0))
        plain = ("latency", "cuda, no CUDA graph")
        arguments = (bundle, "cuda", False, repeats)
        parts.append(Part(plain, "latency", arguments, 8.0, 45.0))
    for name, half in (("pytorch_eager", True), ("pytorch_eager_fp32", False)):
        arguments = (checkpoint, False, half, repeats)
        parts.append(Part((name,), "pytorch", arguments, 10.0, 60.0))
    for name, options in VARIANTS.items() if "cuda" in usable else ():
        path, arguments = ("latency", f"cuda, {name}"), (bundle, "cuda", True, repeats, options)
        parts.append(Part(path, "latency", arguments, 10.0, 30.0, ("latency", "cuda")))
    return parts


def plan_checks(bundle: str, usable: list[str], tests_s: float) -> list[Part]:
    """Return the parts that a busy GPU does not falsify."""
    parts = []
    for precision in ("fp16", "fp32"):
        for name in usable:
            path = ("parity", f"{name} {precision}")
            after = () if name == "cuda" else ("build", name)
            parts.append(Part(path, "parity", (bundle, name, precision), 8.0, 120.0, after))
    return [*parts, Part(("tests",), "gpu_tests", (bundle, tests_s), 15.0, tests_s + 15.0)]


def ratios(report: dict[str, Any]) -> dict[str, Any]:
    """Return how many times faster than eager PyTorch, in its faster precision, guided clips are.

    Like with like, batch 1: whole clips with whole clips, from a text to a finished sound, and
    what the device does with what it does, from filled buffers to the waveform.
    """
    eager: dict[str, float] = {}
    for name in ("pytorch_eager", "pytorch_eager_fp32"):
        for key, value in report.get(name, {}).items():
            if " steps" in key:
                eager[key] = min(value, eager.get(key, value))
    found: dict[str, Any] = {}
    for provider, run in report.get("latency", {}).items():
        for row in run.get("rows", []):
            name = f"{row['num_steps']} steps, whole"
            usual = row["guidance_scale"] != 1.0 and not row.get("distilled", False)
            if row["stage"] == "clip" and row["batch"] == 1 and usual and name in eager:
                found.setdefault(provider, {})[name] = eager[name] / row["median_s"]
    for provider, run in report.get("device_only", {}).items():
        for key, value in run.items():
            kind, _, how = key.partition(", ")
            if how and kind in eager:
                found.setdefault(provider, {})[key] = eager[kind] / value
    return found


def manifest_parity(report: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the parity of every graph as a manifest holds it, to be merged into one.

    ``python benchmarks/report.py --parity REPORT`` merges it into the shipped bundle's.
    """
    found = {}
    for name, run in report.get("parity", {}).items():
        if "problem" in run or "skipped" in run:
            continue
        provider, precision = name.split()
        num_steps = [run["step"], run["step_guided"]]
        found[f"{precision} on {provider}, {report['device'].get('name')}"] = {
            "text_encoder": run["text_encoder"],
            DENOISER: {
                "max_abs": max(step["max_abs"] for step in num_steps),
                "rms": max(step["rms"] for step in num_steps),
                "snr_db": min(step["snr_db"] for step in num_steps),
            },
            **({DISTILLED: run["step_distilled"]} if "step_distilled" in run else {}),
            "vocoder": run["vocoder"],
        }
    return found


def is_wanted(part: Part, only: str) -> bool:
    """Return whether ``--only`` names a part: by all of its path, or by where that begins.

    ``latency/cuda`` is all of its ways, such as ``latency/cuda, no CUDA graph``.
    """
    name = "/".join(part.path)
    return any(re.match(rf"{re.escape(word)}(?![^/,])", name) for word in only.split(","))


def measure_all(report: Report, arguments: argparse.Namespace, folder: str) -> None:
    """Run every part that was asked for."""
    root = sections.ROOT / "training" / "checkpoints" / "default"
    checkpoint = arguments.checkpoint or str(root)
    bundle = arguments.bundle or str(Path(folder) / "bundle")

    def run(part: Part) -> None:
        if arguments.only is None or is_wanted(part, arguments.only):
            report.run(part)

    report.run(Part(("device",), "device", (), 2.0, 30.0))
    report.run(Part(("providers",), "providers", (["cpu", *PROVIDERS],), 2.0, 60.0))
    if arguments.bundle is None:
        run(Part(("export",), "export", (checkpoint, bundle), 30.0, 900.0))
    usable = [name for name in PROVIDERS if report.get(("providers",)).get(name) == "ok"]
    for name in usable:
        if name != "cuda":
            # what is built is kept, and the clips below build what they lack
            limit = 600.0 if arguments.budget is None else arguments.budget / 3
            run(Part(("build", name), "build", (bundle, name), 3.0, limit))
    for part in plan_timings(bundle, checkpoint, usable, arguments.repeats):
        run(part)
    for part in plan_checks(bundle, usable, arguments.tests_s):
        run(part)
    compiled = (checkpoint, True, True, arguments.repeats)
    run(Part(("pytorch_compiled",), "pytorch", compiled, 20.0, arguments.compile_s))
    report.data["times_faster_than_eager"] = ratios(report.data)
    report.data["manifest_parity"] = manifest_parity(report.data)
    report.data["nvidia_smi_after"] = sections.nvidia_smi()
    report.write()


def run_part(arguments: argparse.Namespace) -> None:
    """Be the process of one part."""
    faulthandler.enable()

    def save(found: dict[str, Any]) -> None:
        write_atomically(arguments.out, json.dumps(found).encode())

    part = Part((), arguments.part, tuple(json.loads(arguments.arguments)))
    assert inspect.isfunction(getattr(sections, part.name))
    save(here(part, save))
    sys.stdout.flush()
    # libraries that stumble over their own end have no say in what was found
    os._exit(0)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", required=True, type=Path)
    parser.add_argument("--bundle", help="with fp16 and fp32 graphs; exported if left out")
    parser.add_argument("--checkpoint", help="for PyTorch and the export; the shipped one")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--budget", type=float, help="seconds; parts that do not fit are left out")
    parser.add_argument("--only", help="parts, such as parity,latency/cuda")
    parser.add_argument("--update", action="store_true", help="keep the other parts of OUT")
    parser.add_argument("--missing", action="store_true", help="no part that OUT has already")
    parser.add_argument("--tests-s", type=float, default=600.0, help="limit of the tests")
    parser.add_argument("--compile-s", type=float, default=300.0, help="limit of torch.compile")
    parser.add_argument("--in-process", action="store_true", help="no process for each part")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--arguments", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        run_part(arguments)
        return
    known: dict[str, Any] = {}
    if (arguments.update or arguments.missing) and arguments.out.is_file():
        known = json.loads(arguments.out.read_text())
    facts = {"measured": datetime.date.today().isoformat(), "machine": describe_machine()}
    isolated = not arguments.in_process
    data = {**known, **facts}
    report = Report(arguments.out, data, arguments.budget, isolated, arguments.missing)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("CLIPSYNTH_RT_CACHE", str(Path(folder) / "engines"))
        measure_all(report, arguments, folder)
    print(arguments.out)


if __name__ == "__main__":
    main()
