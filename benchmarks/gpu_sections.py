"""The parts of ``gpu_report.py``: each measures one thing on one GPU and returns JSON data.

A part is told ``save``, and calls it with what it has found so far wherever it may be stopped.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from clipsynth_rt import Synthesizer
from clipsynth_rt.audio.clip import finish
from clipsynth_rt.backends.choice import probe
from clipsynth_rt.backends.session import ENGINE_PROVIDERS
from clipsynth_rt.backends.tensorrt import cuda
from clipsynth_rt.backends.tensorrt.prebuild import prebuild
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.bundles.manifest import DENOISER, DISTILLED, Manifest
from clipsynth_rt.errors import ClipSynthError
from clipsynth_rt.jobs.bench import (
    bench_clips,
    bench_stages,
    describe_run,
    measure,
    peak_memory,
    watch_device,
)
from clipsynth_rt.synthesis.schedule import gaussian_noise, sampling_times

ROOT = Path(__file__).resolve().parents[1]
STEPS = (4, 8, 1)
WARMUP = 5

Save = Callable[[dict[str, Any]], None]


def device(save: Save) -> dict[str, Any]:
    """Describe the GPU."""
    gpu = cuda.open_device()
    found = {
        "name": gpu.name,
        "compute_capability": list(gpu.compute_capability),
        "memory_mb": gpu.total / 2**20,
        "driver_cuda": gpu.driver(),
    }
    save(found)
    found["nvidia_smi"] = nvidia_smi()
    return found


def nvidia_smi() -> str:
    """Return driver, clocks, power and load of the GPU in one line, or why it cannot be told."""
    facts = "driver_version,utilization.gpu,memory.used,clocks.sm,clocks.max.sm,power.draw"
    line = ["nvidia-smi", f"--query-gpu={facts}", "--format=csv,noheader"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return f"{facts}: {(done.stdout or done.stderr).strip()}"


def providers(save: Save, names: list[str]) -> dict[str, Any]:
    """Try every provider, and return "ok" or the library's own message."""
    found: dict[str, Any] = {}
    for name in names:
        try:
            found[name] = probe(name) or "ok"
        except ClipSynthError as error:
            found[name] = str(error)
        save(found)
    return found


def export(save: Save, checkpoint: str, folder: str) -> dict[str, Any]:
    """Export the voice in fp16 and fp32."""
    from clipsynth_export.assemble import export_bundle

    export_bundle(checkpoint, folder, ["fp16", "fp32"])
    return {"bundle": "exported here"}


def build(save: Save, bundle: str, provider: str) -> dict[str, Any]:
    """Build every engine, and say how long it took."""
    began = time.perf_counter()
    built = prebuild(Bundle.open(bundle), provider)
    return {
        "builder": built.library,
        "engines": len(built.paths),
        "failures": built.failures,
        "seconds": time.perf_counter() - began,
        "mb": sum(path.stat().st_size for path in built.paths) / 1e6,
    }


def clip_kinds(manifest: Manifest) -> list[tuple[int, int | None, float | None]]:
    """Return (batch, steps, guidance) of the clips that are timed, in the order of their worth."""
    scale = manifest.diffusion.guidance_scale
    wanted: list[tuple[int | None, float | None]] = [(4, scale), (None, None), (8, scale)]
    usual = [(batch, *kind) for batch in (1, 4) for kind in wanted]
    return [*usual, (1, 1, scale), (1, 4, 1.0), (1, 1, 1.0)]


def latency(
    save: Save,
    bundle: str,
    provider: str,
    use_graphs: bool,
    repeats: int,
    options: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Time clips, from text to waveform, and stages.

    Args:
        save: See the module.
        bundle: With fp16 graphs.
        provider: To time.
        use_graphs: Whether what can be captured is played as CUDA graphs.
        repeats: Of each clip and stage.
        options: Of ONNX Runtime's CUDA provider, beside the usual ones.
    """
    watch_device()
    began = time.perf_counter()
    if provider not in ENGINE_PROVIDERS:
        from clipsynth_rt.backends.ort import session as ort

        usual = ort.provider_options
        told = options or {}
        merged = lambda name, **more: {**usual(name, **more), **told}  # noqa: E731
        mock.patch.object(ort, "provider_options", merged).start()
        if not use_graphs:
            # sessions that capture nothing, for the comparison
            mock.patch.object(ort, "CAPTURED", frozenset()).start()
    try:
        with Synthesizer.from_bundle(bundle, provider, "fp16") as synthesizer:
            if synthesizer.engines is not None:
                synthesizer.engines.use_graphs = use_graphs
            loaded = time.perf_counter()
            synthesizer.warm_up()
            first = time.perf_counter()
            found = {
                **describe_run(synthesizer),
                "cuda_graphs": use_graphs,
                "provider_options": options or {},
                "load_s": loaded - began,
                "first_clip_s": first - loaded,
                "rows": [],
            }
            if "onnxruntime" in sys.modules:
                # one of two packages, whatever the other's version
                found["onnxruntime"] = sys.modules["onnxruntime"].__version__
            for batch, num_steps, guidance_scale in clip_kinds(synthesizer.bundle.manifest):
                kind = {
                    "num_steps": (num_steps,),
                    "guidances": (guidance_scale,),
                    "batches": (batch,),
                }
                rows = bench_clips(synthesizer, **kind, repeats=repeats, warmup=WARMUP)
                memory = peak_memory(synthesizer)
                # the first kind's is of the default clip and its own; each further one adds engines
                so_far = {"peak_device_mb_so_far": memory["peak_device_mb"]}
                found["rows"] += [row.to_dict() | so_far for row in rows]
                found |= memory
                save(found)
            rows = bench_stages(synthesizer, batches=(1, 4), repeats=repeats, warmup=WARMUP)
            found["rows"] += [row.to_dict() for row in rows]
            return {**found, **peak_memory(synthesizer)}
    finally:
        mock.patch.stopall()


def device_only(save: Save, bundle: str, provider: str, repeats: int) -> dict[str, Any]:
    """Time clips from filled buffers to waveforms on the host: no tokens, noise or fades."""
    from clipsynth_rt.synthesis.captured import clip_inputs
    from clipsynth_rt.synthesis.options import SynthOptions, resolve_options

    found: dict[str, Any] = {}
    with Synthesizer.from_bundle(bundle, provider, "fp16") as synthesizer:
        engines = synthesizer.engines
        assert engines is not None
        manifest = synthesizer.bundle.manifest
        tokens = synthesizer.tokenize(["a photo of drum"])
        none = np.zeros((1, manifest.condition.dim), np.float32)
        scale = manifest.diffusion.guidance_scale
        # with its guidance said, a plan is the ordinary denoiser's
        plans = {f"{n} steps": SynthOptions(num_steps=n, guidance_scale=scale) for n in STEPS}
        own = manifest.diffusion.distilled_steps
        plans |= {f"{n} distilled steps": SynthOptions(num_steps=n) for n in own}
        for use_graphs in (True, False):
            engines.use_graphs = use_graphs
            for kind, config in plans.items():
                plan = resolve_options(config, manifest)
                key, inputs = clip_inputs(manifest, plan, [0], none, tokens=tokens)
                engines.clip(key)
                timing = measure(lambda: engines.play(key, inputs), repeats, 10)  # noqa: B023
                found[f"{kind}, {'CUDA graph' if use_graphs else 'enqueued'}"] = timing.median_s
                save(found)
            # the next round captures, or does not, anew
            engines._clips.clear()
    return found


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


def parity(save: Save, bundle: str, provider: str, precision: str) -> dict[str, Any]:
    """Compare each graph and the whole clip with the CPU in fp32, at the default length."""
    cpu = Synthesizer.from_bundle(bundle, "cpu", "fp32")
    manifest = cpu.bundle.manifest
    with Synthesizer.from_bundle(bundle, provider, precision) as gpu:
        frames = gpu.frames_for(manifest.diffusion.default_frames)
        noise = gaussian_noise(0, frames, manifest.mel.n_mels)[None]
        embedding = cpu.encode_text(["drum"])
        found: dict[str, Any] = {"text_encoder": snr_db(embedding, gpu.encode_text(["drum"]))}
        scale = manifest.diffusion.guidance_scale
        num_steps = {"step": (DENOISER, 1.0), "step_guided": (DENOISER, scale)}
        if DISTILLED in manifest.graphs:
            num_steps["step_distilled"] = (DISTILLED, 1.0)
        for name, (graph, guidance_scale) in num_steps.items():
            wish = {
                "num_steps": 1,
                "guidance_scale": guidance_scale,
                "noise": noise,
                "denoiser": graph,
            }
            mels = [s.sample(embedding, [0], frames, **wish) for s in (cpu, gpu)]
            found[name] = snr_db(*mels)
            save(found)
        mel = cpu.sample(embedding, [0], frames)
        found["vocoder"] = snr_db(cpu.vocode(mel), gpu.vocode(mel))
        wish = {"duration": manifest.mel.seconds(frames), "seed": 1}
        found["clip"] = snr_db(*[s.synth("drum", **wish).waveform for s in (cpu, gpu)])
        found["provider"] = gpu.provider
    return found


def pytorch(
    save: Save, checkpoint: str, compiled: bool, half: bool, repeats: int
) -> dict[str, Any]:
    """Time the same guided clips in PyTorch on the same device, both as ``device_only`` and whole.

    Whole is what a synthesizer does beside its networks, too: tokens, noise, fade and limiter.

    Args:
        save: See the module.
        checkpoint: Folder of the voice.
        compiled: Whether through ``torch.compile`` in its mode ``reduce-overhead``.
        half: Whether in fp16 autocast; else fp32, with products in TF32.
        repeats: Of each clip.
    """
    import torch

    from clipsynth_export.source import load_source
    from clipsynth_export.wrappers import DenoiserStepGraph

    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    source = load_source(checkpoint)
    free = torch.cuda.mem_get_info()[0]
    text = source.clip.text_tower.eval().cuda()
    step = DenoiserStepGraph(source.unet, source.diffusion).eval().cuda()
    vocoder = source.vocoder.eval().cuda()
    if compiled:
        compiling = {"mode": "reduce-overhead"}
        text, step, vocoder = (torch.compile(m, **compiling) for m in (text, step, vocoder))
    frames, bins = source.diffusion.default_frames, source.mel.n_mels
    samples, rate = frames * source.mel.hop_length, source.mel.sample_rate

    def ask() -> tuple[Any, Any, Any]:
        noise = torch.from_numpy(gaussian_noise(0, frames, bins)[None])
        return (*source.clip.tokenize(["a photo of drum"]), noise)

    filled = ask()
    weight = source.diffusion.guidance_scale
    weights = torch.tensor([weight, 1.0 - weight], device="cuda")
    zero = torch.zeros(1, device="cuda")
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "precision": "fp16 autocast" if half else "fp32",
        "tf32": True,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }
    for num_steps in STEPS:
        times = torch.tensor(
            sampling_times(num_steps, source.diffusion), dtype=torch.float32
        ).cuda()

        @torch.inference_mode()
        @torch.autocast("cuda", torch.float16, enabled=half)
        def clip(asked: Any = filled, num_steps: int = num_steps, times: Any = times) -> np.ndarray:
            ids, mask, x = (value.cuda() for value in asked)
            embedding = text(ids, mask).float().clone()
            condition = torch.stack([embedding, torch.zeros_like(embedding)])
            still = torch.zeros_like(x)
            for i in range(num_steps):
                t, s = times[i : i + 1], times[i + 1 : i + 2]
                x = step(x, t, s, condition, weights, zero, still)[0].float().clone()
            # its spectral part is no number in half precision, as in the exported graphs
            with torch.autocast("cuda", enabled=False):
                return vocoder(x).cpu().numpy()

        def whole(clip: Callable[..., np.ndarray] = clip) -> np.ndarray:
            return finish(clip(ask())[0], samples, rate)

        found[f"{num_steps} steps"] = measure(clip, repeats, WARMUP).median_s
        found[f"{num_steps} steps, whole"] = measure(whole, repeats, WARMUP).median_s
        # as the other providers' memory is counted: without the context, with what is kept
        found["device_mb"] = (free - torch.cuda.mem_get_info()[0]) / 2**20
        save(found)
    return found


def gpu_tests(save: Save, bundle: str, limit_s: float) -> dict[str, Any]:
    """Run the tests marked ``gpu``, skips counted as failures, and keep what became of each."""
    # -P: the package as it is installed, not the folder that lies here
    line = [sys.executable, "-P", "-m", "pytest", "-m", "gpu", "--no-cov", "-W", "default"]
    environment = {**os.environ, "CLIPSYNTH_RT_GPU": "1", "CLIPSYNTH_RT_BUNDLE": bundle}
    began, lines = time.perf_counter(), []
    with subprocess.Popen(
        [*line, "-p", "no:cacheprovider", "-v", "-rfEs", "--tb=short", "tests/gpu"],
        cwd=ROOT,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout is not None
        for text in running.stdout:
            lines.append(text.rstrip())
            save(_told(lines, None))
            if time.perf_counter() - began > limit_s:
                running.kill()
                return {**_told(lines, None), "problem": f"stopped after {limit_s:.0f} s"}
    return _told(lines, running.returncode)


def _told(lines: list[str], code: int | None) -> dict[str, Any]:
    """Return what pytest has said of each test."""
    became = [
        re.search(r"(PASSED|FAILED|ERROR|SKIPPED)", text.partition("::")[2]) for text in lines
    ]
    words = [match[1] for match in became if match]
    return {
        "exit_code": code,
        "counts": {word: words.count(word) for word in sorted(set(words))},
        "summary": lines[-1] if lines else "",
        "not_passed": [text for text in lines if re.match(r"(FAILED|ERROR|SKIPPED)", text)],
        "tail": [] if code == 0 else lines[-80:],
    }
