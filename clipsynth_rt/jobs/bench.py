"""How long each stage of a synthesizer takes, measured the same way wherever it is asked."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from clipsynth_rt import __version__
from clipsynth_rt.backends.tensorrt import cuda
from clipsynth_rt.bundles.manifest import DENOISER, DISTILLED, Manifest
from clipsynth_rt.errors import ClipSynthError, InputError
from clipsynth_rt.machine import cpu_count, package_version, processor_name
from clipsynth_rt.synthesis.options import SynthOptions, resolve_options
from clipsynth_rt.synthesis.schedule import gaussian_noise
from clipsynth_rt.synthesis.synthesizer import Synthesizer
from clipsynth_rt.timing import real_time_factor

QUERY = "drum"
_VERSIONED = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx-cu13-bindings",
    "cuda-bindings",
)


@dataclass(frozen=True)
class Timing:
    """Repeated runs of one thing, in seconds.

    Attributes:
        median_s: Half of the runs were faster.
        low_s: A tenth of the runs were faster.
        high_s: A tenth of the runs were slower.
        repeats: Runs, without those that warmed up.
    """

    median_s: float
    low_s: float
    high_s: float
    repeats: int


@dataclass(frozen=True)
class Row:
    """One line of a benchmark.

    Attributes:
        stage: ``text_encoder``, ``step``, ``step_distilled``, ``vocoder`` or ``clip``.
        provider: Where it really ran.
        batch: Clips at once.
        frames: Mel frames; 0 for the text encoder.
        num_steps: Denoising steps; 0 where there are none.
        guidance_scale: Scale w; 1 is off.
        timing: How long it took.
        rtf: Seconds spent a second of sound; for ``clip`` alone.
        distilled: Whether a bundle's distilled denoiser ran.
    """

    stage: str
    provider: str
    batch: int
    frames: int
    num_steps: int
    guidance_scale: float
    timing: Timing
    rtf: float | None = None
    distilled: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        data = asdict(self)
        return {**{k: v for k, v in data.items() if k != "timing"}, **data["timing"]}


def measure(run: Callable[[], object], repeats: int = 20, warmup: int = 2) -> Timing:
    """Time a call that returns when its work is done.

    Args:
        run: What to time. Every provider's results are on the host when it returns.
        repeats: Timed runs, at least 1.
        warmup: Runs before, which compile, allocate and fill caches.

    Raises:
        InputError: If ``repeats`` or ``warmup`` makes no sense.
    """
    if repeats < 1 or warmup < 0:
        raise InputError(f"{repeats} repeats after {warmup} warm-up runs; at least 1 after 0")
    for _ in range(warmup):
        run()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    low, high = np.quantile(seconds, [0.1, 0.9])
    return Timing(statistics.median(seconds), float(low), float(high), repeats)


def bench_stages(
    synthesizer: Synthesizer,
    *,
    batches: Sequence[int] = (1,),
    duration: float | None = None,
    repeats: int = 20,
    warmup: int = 2,
) -> list[Row]:
    """Time text encoder, one step with and without guidance, a distilled one, and vocoder.

    Raises:
        InputError: If a value makes no sense.
        ClipSynthError: If a stage fails.
    """
    manifest = synthesizer.bundle.manifest
    mel_spec, diffusion = manifest.mel, manifest.diffusion
    wanted = diffusion.default_frames if duration is None else mel_spec.frames(duration)
    multiple = diffusion.frames_multiple
    frames = synthesizer.frames_for(-(-wanted // multiple) * multiple)
    rows = []
    scale = diffusion.guidance_scale if diffusion.guidance_scale != 1.0 else 2.0
    kinds: dict[str, tuple[str, tuple[float, ...]]] = {"step": (DENOISER, (1.0, scale))}
    if DISTILLED in manifest.graphs:
        kinds["step_distilled"] = (DISTILLED, (1.0,))

    def add(stage: str, batch: int, guidance_scale: float, run: Callable[[], object]) -> None:
        text = stage == "text_encoder"
        timing = measure(run, repeats, warmup)
        graph = kinds[stage][0] if stage in kinds else stage
        session = synthesizer.session(graph)
        rows.append(
            Row(
                stage,
                session.provider,
                batch,
                0 if text else frames,
                1 if stage in kinds else 0,
                guidance_scale,
                timing,
                distilled=graph == DISTILLED,
            )
        )

    add("text_encoder", 1, 1.0, lambda: synthesizer.encode_text([QUERY]))
    embedding = synthesizer.encode_text([QUERY])
    for batch in batches:
        seeds = range(batch)
        condition = np.repeat(embedding, batch, axis=0)
        noise = np.stack([gaussian_noise(seed, frames, mel_spec.n_mels) for seed in seeds])
        for stage, (graph, guidances) in kinds.items():
            for guidance_scale in guidances:
                # one step from noise to mel: one run of the graph
                step = functools.partial(
                    synthesizer.sample,
                    condition,
                    seeds,
                    frames,
                    num_steps=1,
                    guidance_scale=guidance_scale,
                    noise=noise,
                    denoiser=graph,
                )
                add(stage, batch, guidance_scale, step)
        mel = step()
        add("vocoder", batch, 1.0, lambda mel=mel: synthesizer.vocode(mel))  # type: ignore[misc]
    return rows


def usual_guidances(manifest: Manifest) -> tuple[float | None, ...]:
    """Return what ``bench_clips`` is asked for: no guidance, the default, and guidance.

    The default of a bundle with a distilled denoiser is that one, which the scale keeps out.
    """
    return (1.0, None, manifest.diffusion.guidance_scale)


def bench_clips(
    synthesizer: Synthesizer,
    *,
    num_steps: Sequence[int | None] = (None,),
    guidances: Sequence[float | None] = (None,),
    batches: Sequence[int] = (1,),
    duration: float | None = None,
    repeats: int = 20,
    warmup: int = 2,
) -> list[Row]:
    """Time whole clips, from text to waveform; what comes to the same is timed once.

    Args:
        synthesizer: What to time.
        num_steps: Denoising steps; None is the bundle's.
        guidances: Scales; None is the bundle's, which may be a distilled denoiser's.
        batches: Clips at once.
        duration: Seconds of sound; None is the bundle's.
        repeats: See ``measure``, as ``warmup``.
        warmup: See there.

    Raises:
        InputError: If a value makes no sense.
        ClipSynthError: If synthesis fails.
    """
    rows, done = [], set()
    manifest = synthesizer.bundle.manifest
    mel = manifest.mel
    for batch in batches:
        for count in num_steps:
            for guidance_scale in guidances:
                config = SynthOptions(
                    duration=duration, num_steps=count, guidance_scale=guidance_scale
                )
                key = batch, resolve_options(config, manifest)
                if key in done:
                    continue
                done.add(key)

                def clips(
                    batch: int = batch,
                    count: int | None = count,
                    guidance_scale: float | None = guidance_scale,
                ) -> Any:
                    return synthesizer.synth_batch(
                        [QUERY] * batch,
                        duration=duration,
                        num_steps=count,
                        guidance_scale=guidance_scale,
                    )

                timing = measure(clips, repeats, warmup)
                first = clips()[0]
                rtf = real_time_factor(timing.median_s, batch * first.audio_s)
                frames = mel.frames(first.audio_s)
                rows.append(
                    Row(
                        "clip",
                        first.provider,
                        batch,
                        frames,
                        first.num_steps,
                        first.guidance_scale,
                        timing,
                        rtf,
                        first.distilled,
                    )
                )
    return rows


def describe_run(synthesizer: Synthesizer) -> dict[str, Any]:
    """Return what figures of a synthesizer were taken on and with, as JSON data."""
    bundle = synthesizer.bundle
    facts: dict[str, Any] = {
        "bundle": bundle.manifest.name,
        "provider": synthesizer.provider,
        "not_taken": synthesizer.choice.not_taken,
        "precision": {
            name: bundle.graph(name, synthesizer.file_precision).precision
            for name in synthesizer.loaded
        },
        "cpu": processor_name(),
        "cores": cpu_count(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "clipsynth_rt": __version__,
        "versions": _versions(),
    }
    engines = synthesizer.engines
    if synthesizer.provider not in ("cpu", "openvino"):
        with contextlib.suppress(ClipSynthError):  # ONNX Runtime needs no cuda-bindings
            device = cuda.open_device()
            facts["gpu"] = device.name
            facts["compute_capability"] = list(device.compute_capability)
            facts["driver_cuda"] = device.driver()
    if engines is not None:
        facts["library"] = f"{engines.library.name} {engines.library.version}"
        facts["cuda_graphs"] = engines.use_graphs
    return facts


def watch_device() -> None:
    """Note how much device memory is free, for ``peak_memory`` on ``cuda``: call it before loading.

    Without a GPU or ``cuda-bindings`` it does nothing.
    """
    with contextlib.suppress(ClipSynthError):
        cuda.open_device()


def peak_memory(synthesizer: Synthesizer) -> dict[str, Any]:
    """Return the most memory that this process and the GPU have had in use for it, in MB.

    On engines, ``peak_device_mb`` is what they took. ONNX Runtime keeps what it has taken, so that
    on ``cuda`` it is what is in use now beyond what was when ``watch_device`` was called, other
    processes on the GPU included. Where it is None, ``peak_device_why`` says why.
    """
    device, why = None, f"{synthesizer.provider} uses no device memory"
    if synthesizer.engines is not None:
        device = synthesizer.engines.peak_device_bytes / 2**20
    elif synthesizer.provider == "cuda":
        try:
            device = cuda.open_device().memory_in_use() / 2**20
        except ClipSynthError as error:
            why = str(error)
    found = {"peak_memory_mb": _peak_resident_mb(), "peak_device_mb": device}
    return found if device is not None else {**found, "peak_device_why": why}


def _peak_resident_mb() -> float | None:
    if sys.platform == "win32":
        return None
    import resource

    # kilobytes on Linux, bytes on macOS
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _versions() -> dict[str, str]:
    versions = {package: package_version(package) for package in _VERSIONED}
    return {package: version for package, version in versions.items() if version is not None}
