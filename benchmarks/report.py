"""Write the figures of the documentation out of benchmarks/results/*.json.

Each block between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` in README.md and in
docs/reference/results.md is made anew
from the JSON that ``clipsynth-rt evaluate`` and ``benchmarks/measure.py`` wrote, and the shipped
bundle's manifest gets the evaluation as its ``metrics``; ``--check`` changes nothing and fails
where a page differs.

``--compare OLD NEW`` compares two runs of ``pytest --benchmark-only --benchmark-json FILE``, and
fails where a median grew by more than ``--threshold`` per cent. ``--parity REPORT`` puts what
``benchmarks/gpu_report.py`` found into the shipped bundle's manifest.
"""

import argparse
import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
LONG_PARTS = ("systems", "templates", "modality_gap", "curves")
"""Parts of an evaluation that a bundle does not carry with it."""


def load(name: str) -> dict[str, Any]:
    """Read one stored result."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def evaluation() -> str:
    """Return how good the voice is."""
    from clipsynth_training.evaluate.report.tables import markdown

    return markdown(load("evaluation"))


def latency() -> str:
    """Return how fast the voice is, on each machine that it was measured on."""
    paths = sorted(RESULTS.glob("latency*.json"))
    return "\n".join(_latency(load(path.stem)) for path in paths)


def _latency(found: dict[str, Any]) -> str:
    default = found["default"]
    lines = [
        f"Measured {found['measured']} on {found['machine']}, median of fresh processes; a clip is "
        f"{default['audio_s']:.1f} s. Bundle {found['bundle_mb']:.1f} MB, peak memory on ONNX "
        f"Runtime {found['peak_memory_mb']:.0f} MB.",
        "",
        f"At the defaults ({default['num_steps']} steps, guidance {default['guidance_scale']:g}, "
        f"{default['network_calls']} network calls):",
        "",
        "| provider | RTF | text | denoise | vocode | write | whole process |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        _default_row(f"`cpu`, ONNX Runtime {found['onnxruntime']}", default),
    ]
    runs = {"cpu": found["by_steps"]}
    if "openvino" in found:
        name = f"`openvino` {found['openvino_version']}"
        lines.append(_default_row(name, found["openvino"]["default"]))
        runs["openvino"] = found["openvino"]["by_steps"]
    lines += [
        "",
        f"| steps | network calls | {' | '.join(f'RTF `{name}`' for name in runs)} |",
        f"| ---: | ---: |{' ---: |' * len(runs)}",
    ]
    for num_steps, row in found["by_steps"].items():
        factors = " | ".join(f"{run[num_steps]['rtf']:.3f}" for run in runs.values())
        lines.append(f"| {num_steps} | {row['network_calls']} | {factors} |")
    return "\n".join(lines) + "\n"


def _default_row(name: str, run: dict[str, Any]) -> str:
    stages = " | ".join(
        f"{1000 * run['stages_s'][stage]:.0f} ms"
        for stage in ("text", "denoise", "vocode", "write")
    )
    return f"| {name} | **{run['rtf']:.3f}** | {stages} | {run['process_s']:.2f} s |"


def retrieval() -> str:
    """Return how well the encoder's two towers meet."""
    path = ROOT / "training/checkpoints/clipsynth_checkpoints/default/clip.json"
    found = json.loads(path.read_text())["retrieval"]
    lines = ["| held-out pictures | direction | recall@1 (chance) | recall@5 (chance) |"]
    lines.append("| --- | --- | ---: | ---: |")
    for kind, scores in found.items():
        for way in ("image_to_text", "text_to_image"):
            cells = [
                f"{100 * scores[f'{way}@{k}']:.1f}% ({100 * scores[f'{way}_chance@{k}']:.2f}%)"
                for k in (1, 5)
            ]
            lines.append(f"| {kind} | {way.replace('_', ' ')} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def denoisers() -> str:
    """Return the denoiser candidates at equal processor time."""
    found = load("denoisers")
    kinds = f" of the kinds {', '.join(found['kinds'])}" if found["kinds"] else ""
    lines = [
        f"Measured {found['measured']} on {found['machine']}: {found['cpu_seconds']:.0f} s of one "
        f"core each, {found['training_clips']} training clips{kinds}.",
        "",
        "| candidate | held-out loss | clips seen | parameters | GFLOP a call |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in found["rows"]:
        lines.append(
            f"| {row['candidate']} | {row['held_out_loss']:.4f} | {row['clips']} "
            f"| {row['parameters'] / 1e6:.1f}M | {row['gflop_a_call']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def precisions() -> str:
    """Return what each precision costs and gains on a CPU."""
    from clipsynth_training.evaluate.report.tables import cell

    found = load("precisions")
    lines = [
        f"Measured {found['measured']} on {found['machine']}, ONNX Runtime "
        f"{found['versions']['onnxruntime']}, {found['concepts']} concepts of {found['seeds']} "
        f"sounds, all in one process. {found['rule'][0].upper()}{found['rule'][1:]}: "
        f"**{found['cpu_default']}**.",
        "",
        "| products in | top-1 | FAD to real test | as in fp32 | a call | vocoder | a clip | RTF |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in found["variants"].items():
        times = row["seconds"]
        call = times.get("step_distilled", times["step"])
        lines.append(
            f"| {name} | {cell(row, 'top1')} | {row['fad_to_test']:.0f} "
            f"| {100 * row['same_as_fp32']:.0f}% | {1e3 * call:.0f} ms "
            f"| {1e3 * times['vocoder']:.0f} ms | {1e3 * times['clip']:.0f} ms "
            f"| {times['clip'] / found['audio_s']:.3f} |"
        )
    return "\n".join(lines) + "\n"


GPU_CLIPS = {
    "2 distilled calls": (2, False, True),
    "4 guided steps": (4, True, False),
    "8 guided steps": (8, True, False),
}
"""Kinds of clip that the GPU table has: steps, whether guided, whether distilled."""


def gpu() -> str:
    """Return how fast the voice is on a GPU."""
    found = load("gpu")
    device = found["device"]
    capability = ".".join(str(n) for n in device["compute_capability"])
    lines = [
        f"Measured {found['measured']} on one {device['name']} (compute capability {capability}, "
        f"CUDA {device['driver_cuda']}): a clip of 4.1 s, batch 1, in fp16, warm, median, from the "
        "text to the waveform in host memory.",
        "",
        f"| provider | {' | '.join(GPU_CLIPS)} | RTF, 2 calls | device memory |",
        f"| --- |{' ---: |' * (len(GPU_CLIPS) + 2)}",
    ]
    lines += [_gpu_row(name, run) for name, run in found["latency"].items() if "rows" in run]
    alone = found.get("device_only", {}).get("tensorrt-rtx", {})
    if alone:
        times = [alone[f"{n}, CUDA graph"] for n in ("2 distilled steps", "4 steps", "8 steps")]
        cells = " | ".join(f"{1e3 * time:.1f} ms" for time in times)
        lines.append(f"| `tensorrt-rtx`, from filled buffers to the waveform | {cells} | | |")
    for key, name in (
        ("pytorch_eager", "fp16 autocast"),
        ("pytorch_eager_fp32", "fp32 with TF32"),
        ("pytorch_compiled", "`torch.compile`, fp16 autocast"),
    ):
        if "4 steps, whole" in (run := found.get(key) or {}):
            times = " | ".join(f"{1e3 * run[f'{n} steps, whole']:.1f} ms" for n in (4, 8))
            memory = f"{run['device_mb']:.0f} MB" if "device_mb" in run else ""
            lines.append(f"| PyTorch {run['torch']}, {name} | | {times} | | {memory} |")
    lines += ["", *_gpu_facts(found), *found["notes"]]
    return "\n".join(lines) + "\n"


def _gpu_facts(found: dict[str, Any]) -> list[str]:
    """Return sentences on ratios, parity and tests, of what was measured of these."""
    facts = []
    faster = found["times_faster_than_eager"].get("tensorrt-rtx", {})
    if "4 steps, CUDA graph" in faster:
        facts.append(
            "4 guided steps on `tensorrt-rtx` are "
            f"{faster['4 steps, CUDA graph']:.1f} times as fast as in eager PyTorch from filled "
            f"buffers to the waveform, {faster['4 steps, whole']:.1f} times from the text to the "
            "finished sound."
        )
    parity = {name: run["clip"]["snr_db"] for name, run in found["parity"].items() if "clip" in run}
    if parity:
        told = ", ".join(f"{value:.0f} dB in {name}" for name, value in parity.items())
        facts.append(f"A clip is as far from the CPU's in fp32: {told}.")
    if "counts" in (tests := found.get("tests", {})):
        counts = tests["counts"]
        facts.append(
            f"Of the tests marked `gpu` {counts.get('PASSED', 0)} passed there and "
            f"{counts.get('FAILED', 0) + counts.get('ERROR', 0)} failed; "
            f"{counts.get('SKIPPED', 0)} are for `tensorrt`, which was not there."
        )
    return [" ".join(facts), ""] if facts else []


def _gpu_row(name: str, run: dict[str, Any]) -> str:
    clips = {
        (row["num_steps"], row["guidance_scale"] != 1.0, row["distilled"]): row
        for row in run["rows"]
        if row["stage"] == "clip" and row["batch"] == 1
    }
    rows = [clips[kind] for kind in GPU_CLIPS.values()]
    times = " | ".join(f"{1e3 * row['median_s']:.1f} ms" for row in rows)
    provider, _, how = name.partition(", ")
    library = run.get("library") or f"ONNX Runtime {run['onnxruntime']}"
    what = f"`{provider}` ({library}){', ' + how if how else ''}"
    # of the default clip and the first kind that was timed; each further kind adds its engines
    memory = min(row.get("peak_device_mb_so_far", run["peak_device_mb"]) for row in run["rows"])
    return f"| {what} | {times} | {rows[0]['rtf']:.4f} | {memory:.0f} MB |"


def quality() -> str:
    """Return the README's table: how often the voice is right, and how near real sound it is."""
    found = load("evaluation")
    rows = [("real test clips", found["real"]), ("words", found["text"])]
    rows += [("other words for the same", found["paraphrases"]), ("pictures", found["image"])]
    lines = ["| asked in | right at first | among five |", "| --- | ---: | ---: |"]
    for name, row in rows:
        lines.append(f"| {name} | {100 * row['top1']:.0f}% | {100 * row['top5']:.0f}% |")
    return "\n".join([f"Measured {found['measured']} on {found['machine']}.", "", *lines]) + "\n"


def speed() -> str:
    """Return the README's table: real-time factors of the default on each machine."""
    lines = ["| where | RTF | a clip of 4.1 s | measured |", "| --- | ---: | ---: | --- |"]
    for path in sorted(RESULTS.glob("latency*.json")):
        found = load(path.stem)
        runs = {"cpu": found["default"]}
        if "openvino" in found:
            runs["openvino"] = found["openvino"]["default"]
        for name, run in runs.items():
            lines.append(
                f"| `{name}`, {found['machine']} | {run['rtf']:.3f} "
                f"| {1000 * run['rtf'] * run['audio_s']:.0f} ms | {found['measured']} |"
            )
    return "\n".join(lines) + "\n"


PAGES = {
    "README.md": {"quality": quality, "speed": speed},
    "docs/reference/results.md": {
        "evaluation": evaluation,
        "retrieval": retrieval,
        "denoisers": denoisers,
        "latency": latency,
        "precisions": precisions,
        "gpu": gpu,
    },
}
"""Blocks of each page, in any order."""


MANIFEST = ROOT / "clipsynth_rt" / "bundles" / "default" / "manifest.json"

LIKE = ("bundle", "provider", "precision", "cpu", "cores", "gpu", "python", "versions")
"""What two runs must have in common to be compared."""


def write_metrics() -> None:
    """Put the evaluation into the shipped bundle's manifest."""
    from clipsynth_rt.bundles.manifest import Manifest

    manifest = Manifest.from_dict(json.loads(MANIFEST.read_text()))
    metrics = {key: value for key, value in load("evaluation").items() if key not in LONG_PARTS}
    if "paraphrases" in metrics:
        short = {k: v for k, v in metrics["paraphrases"].items() if k != "by_query"}
        metrics["paraphrases"] = short
    manifest = dataclasses.replace(manifest, metrics=metrics)
    MANIFEST.write_text(json.dumps(manifest.to_dict(), indent=1) + "\n")


def merge_parity(report: Path, path: Path = MANIFEST) -> None:
    """Put the parity that was measured on a GPU into a manifest, beside what export measured."""
    from clipsynth_rt.bundles.manifest import Manifest

    manifest = Manifest.from_dict(json.loads(path.read_text()))
    found = json.loads(report.read_text())["manifest_parity"]
    manifest = dataclasses.replace(manifest, parity={**manifest.parity, **found})
    path.write_text(json.dumps(manifest.to_dict(), indent=1) + "\n")


def compare(old: Path, new: Path, threshold: float) -> list[str]:
    """Print both runs' medians, and return a line for each benchmark that became slower.

    Args:
        old: JSON of pytest-benchmark.
        new: The same, later.
        threshold: Per cent that a median may grow by.

    Raises:
        SystemExit: If the runs have nothing in common, or are of different machines or voices.
    """
    runs = [
        {b["fullname"]: b for b in json.loads(path.read_text())["benchmarks"]}
        for path in (old, new)
    ]
    common = [name for name in runs[0] if name in runs[1]]
    if not common:
        raise SystemExit(f"{old} and {new} have no benchmark in common")
    slower = []
    for name in common:
        before, after = (run[name] for run in runs)
        for key in LIKE:
            values = [run["extra_info"].get(key) for run in (before, after)]
            if values[0] != values[1]:
                raise SystemExit(
                    f"{name}: {key} was {values[0]} and is {values[1]}: not comparable"
                )
        medians = [run["stats"]["median"] for run in (before, after)]
        change = 100.0 * (medians[1] / medians[0] - 1.0)
        line = f"{name}: {1e3 * medians[0]:.2f} ms, then {1e3 * medians[1]:.2f} ms ({change:+.0f}%)"
        print(line)
        if change > threshold:
            slower.append(line)
    return slower


def fill(page: str, text: str) -> str:
    """Return a page with every block made anew."""
    for name, make in PAGES[page].items():
        pattern = rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
        text, count = re.subn(
            pattern, lambda m, make=make: m[1] + make() + m[2], text, flags=re.DOTALL
        )
        if count != 1:
            raise SystemExit(f"{page}: expected one block {name}, found {count}")
    return text


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"))
    parser.add_argument("--threshold", type=float, default=20.0, help="per cent; 20")
    parser.add_argument("--parity", type=Path, metavar="REPORT")
    arguments = parser.parse_args()
    if arguments.compare:
        if slower := compare(*arguments.compare, arguments.threshold):
            sys.exit(f"slower by more than {arguments.threshold:g}%:\n" + "\n".join(slower))
        return
    if arguments.parity:
        merge_parity(arguments.parity)
        return
    for page in PAGES:
        path = ROOT / page
        before = path.read_text()
        after = fill(page, before)
        if arguments.check and after != before:
            sys.exit(f"{page}: figures differ from benchmarks/results; run benchmarks/report.py")
        if not arguments.check:
            path.write_text(after)
    if not arguments.check:
        write_metrics()


if __name__ == "__main__":
    main()
