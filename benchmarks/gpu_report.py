"""All that a GPU can tell, in one go: python benchmarks/gpu_report.py -o FILE [--bundle FOLDER].

The tests marked ``gpu``; parity of every GPU provider with the CPU in fp32; latency by stage and
whole, with and without CUDA graphs; PyTorch, eager and compiled, on the same device; peak memory.
What cannot load is in the report with the library's own message. Without ``--bundle``, one is
exported from the shipped checkpoint in fp16 and fp32.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clipsynth_rt import Synthesizer
from clipsynth_rt.audio import write_atomically
from clipsynth_rt.backends import cuda, probe
from clipsynth_rt.backends.ahead import build_ahead
from clipsynth_rt.benchmark import (
    bench_clips,
    bench_stages,
    describe_run,
    measure,
    peak_memory,
    usual_guidances,
    watch_device,
)
from clipsynth_rt.bundle import Bundle
from clipsynth_rt.machine import describe_machine
from clipsynth_rt.schedule import gaussian_noise, sampling_times
from clipsynth_rt.spec import DENOISER, DISTILLED

ROOT = Path(__file__).resolve().parents[1]
PROVIDERS = ("cuda", "tensorrt-rtx", "tensorrt")
STEPS = (1, 4, 8)


def section(run: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a part of the report found, or the problem that ended it."""
    print(f"{run.__name__} {' '.join(str(a) for a in arguments if isinstance(a, str))}", flush=True)
    began = time.perf_counter()
    try:
        found = run(*arguments)
    # whatever a library raises on a GPU is what the report is for
    except Exception as error:
        found = {"problem": f"{type(error).__name__}: {' '.join(str(error).split())[:1000]}"}
        print(f"  {found['problem']}", flush=True)
    if isinstance(found, dict):
        found["took_s"] = round(time.perf_counter() - began, 2)
    return found


def device() -> dict[str, Any]:
    """Describe the GPU."""
    gpu = cuda.open_device()
    return {
        "name": gpu.name,
        "compute_capability": list(gpu.compute_capability),
        "memory_mb": gpu.total / 2**20,
        "driver_cuda": gpu.driver(),
    }


def gpu_tests(bundle: str) -> dict[str, Any]:
    """Run the tests marked ``gpu``, skips counted as failures, and keep their summary."""
    line = [sys.executable, "-m", "pytest", "-m", "gpu", "--no-cov", "-p", "no:cacheprovider"]
    environment = {**os.environ, "CLIPSYNTH_RT_GPU": "1", "CLIPSYNTH_RT_BUNDLE": bundle}
    done = subprocess.run(
        [*line, "-q", "-rfEs", "--tb=short", "tests"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    lines = done.stdout.splitlines()
    said = [text for text in lines if re.match(r"(FAILED|ERROR|SKIPPED)", text)]
    return {
        "exit_code": done.returncode,
        "summary": lines[-1] if lines else done.stderr[-500:],
        "not_passed": said,
        "tail": lines[-60:] if done.returncode else [],
    }


def snr_db(want: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Return how far an output is from its reference."""
    error = found.astype(np.float64) - want
    noise = float(np.mean(error**2))
    power = float(np.mean(want.astype(np.float64) ** 2))
    return {
        "max_abs": float(np.abs(error).max()),
        "rms": float(np.sqrt(noise)),
        "snr_db": 200.0 if noise == 0.0 else float(10.0 * np.log10(power / noise)),
    }


def parity(bundle: str, provider: str, precision: str) -> dict[str, Any]:
    """Compare each graph and the whole clip with the CPU in fp32, at the default length."""
    cpu = Synthesizer.from_bundle(bundle, "cpu", "fp32")
    manifest = cpu.bundle.manifest
    with Synthesizer.from_bundle(bundle, provider, precision) as gpu:
        frames = gpu.frames_for(manifest.diffusion.default_frames)
        noise = gaussian_noise(0, frames, manifest.mel.n_mels)[None]
        embedding = cpu.encode_text(["drum"])
        found: dict[str, Any] = {"text_encoder": snr_db(embedding, gpu.encode_text(["drum"]))}
        scale = manifest.diffusion.guidance_scale
        steps = {"step": (DENOISER, 1.0), "step_guided": (DENOISER, scale)}
        if DISTILLED in manifest.graphs:
            steps["step_distilled"] = (DISTILLED, 1.0)
        for name, (graph, guidance) in steps.items():
            wish = {"steps": 1, "guidance": guidance, "noise": noise, "denoiser": graph}
            mels = [s.sample(embedding, [0], frames, **wish) for s in (cpu, gpu)]
            found[name] = snr_db(*mels)
        mel = cpu.sample(embedding, [0], frames)
        found["vocoder"] = snr_db(cpu.vocode(mel), gpu.vocode(mel))
        wish = {"duration_s": manifest.mel.seconds(frames), "seed": 1}
        found["clip"] = snr_db(*[s.synth("drum", **wish).waveform for s in (cpu, gpu)])
        found["provider"] = gpu.provider
    return found


def manifest_parity(report: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the parity of every graph as a manifest holds it, to be merged into one.

    ``python benchmarks/report.py --parity REPORT`` merges it into the shipped bundle's.
    """
    device = report["device"]
    found = {}
    for name, run in report["parity"].items():
        if "problem" in run:
            continue
        provider, precision = name.split()
        steps = [run["step"], run["step_guided"]]
        found[f"{precision} on {provider}, {device['name']}"] = {
            "text_encoder": run["text_encoder"],
            DENOISER: {
                "max_abs": max(step["max_abs"] for step in steps),
                "rms": max(step["rms"] for step in steps),
                "snr_db": min(step["snr_db"] for step in steps),
            },
            **({DISTILLED: run["step_distilled"]} if "step_distilled" in run else {}),
            "vocoder": run["vocoder"],
        }
    return found


def build(bundle: str, provider: str) -> dict[str, Any]:
    """Build every engine, and say how long it took."""
    began = time.perf_counter()
    built = build_ahead(Bundle.open(bundle), provider)
    return {
        "builder": built.library,
        "engines": len(built.paths),
        "failures": built.failures,
        "seconds": time.perf_counter() - began,
        "mb": sum(path.stat().st_size for path in built.paths) / 1e6,
    }


def latency(bundle: str, provider: str, use_graphs: bool, repeats: int) -> dict[str, Any]:
    """Time stages and clips."""
    watch_device()
    began = time.perf_counter()
    with Synthesizer.from_bundle(bundle, provider, "fp16") as synthesizer:
        if synthesizer.engines is not None:
            synthesizer.engines.use_graphs = use_graphs
        loaded = time.perf_counter()
        synthesizer.warm_up()
        first = time.perf_counter()
        rows = bench_stages(synthesizer, batches=(1, 4), repeats=repeats, warmup=5)
        rows += bench_clips(
            synthesizer,
            steps=STEPS,
            guidances=usual_guidances(synthesizer.bundle.manifest),
            batches=(1, 4),
            repeats=repeats,
            warmup=5,
        )
        return {
            **describe_run(synthesizer),
            "load_s": loaded - began,
            "first_clip_s": first - loaded,
            "rows": [row.to_dict() for row in rows],
            **peak_memory(synthesizer),
        }


def device_only(bundle: str, provider: str, repeats: int) -> dict[str, Any]:
    """Time clips from filled buffers to waveforms on the host: no tokens, noise or fades."""
    from clipsynth_rt.backends.trt_clip import clip_inputs
    from clipsynth_rt.config import SynthConfig, make_plan

    found: dict[str, Any] = {}
    with Synthesizer.from_bundle(bundle, provider, "fp16") as synthesizer:
        engines = synthesizer.engines
        assert engines is not None
        manifest = synthesizer.bundle.manifest
        tokens = synthesizer.tokenize(["a photo of drum"])
        none = np.zeros((1, manifest.condition.dim), np.float32)
        for use_graphs in (True, False):
            engines.use_graphs = use_graphs
            scale = manifest.diffusion.guidance_scale
            # with its guidance said, a plan is the ordinary denoiser's
            plans = {f"{n} steps": SynthConfig(steps=n, guidance=scale) for n in STEPS}
            own = manifest.diffusion.distilled_steps
            plans |= {f"{n} distilled steps": SynthConfig(steps=n) for n in own}
            for kind, config in plans.items():
                plan = make_plan(config, manifest)
                key, inputs = clip_inputs(manifest, plan, [0], none, tokens=tokens)
                engines.clip(key)
                timing = measure(lambda: engines.play(key, inputs), repeats, 10)  # noqa: B023
                name = f"{kind}, {'CUDA graph' if use_graphs else 'enqueued'}"
                found[name] = timing.median_s
            # the next round captures, or does not, anew
            for clip in engines._clips.values():
                clip.close()
            engines._clips.clear()
    return found


def pytorch(checkpoint: str, compiled: bool, repeats: int) -> dict[str, Any]:
    """Time the same clips in PyTorch on the same device, in fp16 autocast."""
    import torch

    from clipsynth_rt.export.source import load_source
    from clipsynth_rt.export.wrappers import DenoiserStepGraph

    torch.set_float32_matmul_precision("high")
    source = load_source(checkpoint)
    text = source.clip.text_tower.eval().cuda()
    step = DenoiserStepGraph(source.unet, source.diffusion).eval().cuda()
    vocoder = source.vocoder.eval().cuda()
    if compiled:
        compiling = {"mode": "reduce-overhead"}
        text, step, vocoder = (torch.compile(m, **compiling) for m in (text, step, vocoder))
    ids, mask = (value.cuda() for value in source.clip.tokenize(["a photo of drum"]))
    frames, bins = source.diffusion.default_frames, source.mel.n_mels
    noise = torch.from_numpy(gaussian_noise(0, frames, bins)[None])
    weight = source.diffusion.guidance_scale
    weights = torch.tensor([weight, 1.0 - weight], device="cuda")
    zero = torch.zeros(1, device="cuda")
    found: dict[str, Any] = {"torch": torch.__version__}
    torch.cuda.reset_peak_memory_stats()
    for steps in STEPS:
        times = torch.tensor(sampling_times(steps, source.diffusion), dtype=torch.float32).cuda()

        @torch.inference_mode()
        @torch.autocast("cuda", torch.float16)
        def clip(steps: int = steps, times: Any = times) -> np.ndarray:
            embedding = text(ids, mask).float().clone()
            condition = torch.stack([embedding, torch.zeros_like(embedding)])
            x = noise.cuda()
            still = torch.zeros_like(x)
            for i in range(steps):
                t, s = times[i : i + 1], times[i + 1 : i + 2]
                x = step(x, t, s, condition, weights, zero, still)[0].float().clone()
            return vocoder(x).float().cpu().numpy()

        found[f"{steps} steps"] = measure(clip, repeats, 10).median_s
    found["peak_device_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return found


def ratios(report: dict[str, Any]) -> dict[str, Any]:
    """Return how many times faster than eager PyTorch each provider's guided clip is."""
    eager = report["pytorch_eager"]
    found: dict[str, Any] = {}
    for provider, run in report["latency"].items():
        for row in run.get("rows", []):
            name = f"{row['steps']} steps"
            if row["stage"] == "clip" and row["batch"] == 1 and row["guidance"] != 1.0:
                if name in eager:
                    found.setdefault(provider, {})[name] = eager[name] / row["median_s"]
    return found


def export(checkpoint: str, folder: str) -> dict[str, Any]:
    """Export the voice in fp16 and fp32."""
    from clipsynth_rt.export.assemble import export_bundle

    export_bundle(checkpoint, folder, ["fp16", "fp32"])
    return {"bundle": "exported here"}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", required=True, type=Path)
    parser.add_argument("--bundle", help="with fp16 and fp32 graphs; exported if left out")
    parser.add_argument("--checkpoint", help="for PyTorch and the export; the shipped one")
    parser.add_argument("--repeats", type=int, default=50)
    arguments = parser.parse_args()
    checkpoint = arguments.checkpoint or str(ROOT / "training" / "checkpoints" / "default")
    repeats = arguments.repeats
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("CLIPSYNTH_RT_CACHE", str(Path(folder) / "engines"))
        bundle = arguments.bundle or str(Path(folder) / "bundle")
        report: dict[str, Any] = {
            "measured": datetime.date.today().isoformat(),
            "machine": describe_machine(),
            "device": section(device),
            "providers": {name: section(probe, name) or "ok" for name in ("cpu", *PROVIDERS)},
        }
        if arguments.bundle is None:
            report["export"] = section(export, checkpoint, bundle)
        usable = [name for name in PROVIDERS if report["providers"][name] == "ok"]
        engines = [name for name in usable if name != "cuda"]
        report["build"] = {name: section(build, bundle, name) for name in engines}
        report["parity"] = {
            f"{name} {precision}": section(parity, bundle, name, precision)
            for name in usable
            for precision in ("fp16", "fp32")
        }
        report["manifest_parity"] = manifest_parity(report)
        runs = [(name, True) for name in usable] + [(name, False) for name in engines]
        report["latency"] = {
            name if graphs else f"{name}, no CUDA graph": section(
                latency, bundle, name, graphs, repeats
            )
            for name, graphs in runs
        }
        report["device_only"] = {
            name: section(device_only, bundle, name, repeats) for name in engines
        }
        report["pytorch_eager"] = section(pytorch, checkpoint, False, repeats)
        report["pytorch_compiled"] = section(pytorch, checkpoint, True, repeats)
        report["times_faster_than_eager"] = section(ratios, report)
        report["tests"] = section(gpu_tests, bundle)
    write_atomically(arguments.out, json.dumps(report, indent=1).encode() + b"\n")
    print(arguments.out)


if __name__ == "__main__":
    main()
