"""Query to waveform: the real-time factor by steps and duration, and the whole process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clipsynth_rt import Synthesizer


@pytest.mark.parametrize("num_steps", [None, 4, 16, 50], ids=["default", "4", "16", "50"])
def test_steps(
    benchmark: Any, synthesizer: Synthesizer, facts: dict[str, Any], num_steps: int | None
) -> None:
    time_synth(benchmark, synthesizer, facts, num_steps=num_steps)


@pytest.mark.parametrize("duration", [1.0, 2.0, 8.0])
def test_duration(
    benchmark: Any, synthesizer: Synthesizer, facts: dict[str, Any], duration: float
) -> None:
    diffusion, mel = synthesizer.bundle.manifest.diffusion, synthesizer.bundle.manifest.mel
    if duration > mel.seconds(diffusion.max_frames):
        pytest.skip(f"the bundle's clips are {mel.seconds(diffusion.max_frames):.2f} s at most")
    time_synth(benchmark, synthesizer, facts, duration=duration)


def time_synth(
    benchmark: Any, synthesizer: Synthesizer, facts: dict[str, Any], **options: Any
) -> None:
    """Time one clip and record what it was, with its real-time factor."""
    clip = benchmark.pedantic(
        synthesizer.synth, ("drum",), options, rounds=5, iterations=1, warmup_rounds=1
    )
    facts.update(
        num_steps=clip.num_steps,
        guidance_scale=clip.guidance_scale,
        distilled=clip.distilled,
        network_calls=clip.network_calls,
        audio_s=clip.audio_s,
        rtf=benchmark.stats.stats.median / clip.audio_s,
        stages_s=clip.stages_s,
    )
    assert clip.provider == facts["provider"]


def test_whole_process(
    benchmark: Any, synthesizer: Synthesizer, facts: dict[str, Any], tmp_path: Path
) -> None:
    """What a user waits for: Python's start, imports, loading and checking the bundle, sound."""
    code = "from clipsynth_rt.cli.main import main; main()"
    out = tmp_path / "drum.wav"
    bundle = str(synthesizer.bundle.path)
    command = [sys.executable, "-c", code, "synth", "drum", "-o", str(out), "--bundle", bundle]
    command += ["--provider", facts["provider"]]
    benchmark.pedantic(
        subprocess.run,
        (command,),
        {"check": True, "capture_output": True},
        rounds=3,
        iterations=1,
        warmup_rounds=1,
    )
    facts["peak_memory_mb"] = peak_memory_mb()
    assert out.stat().st_size > 0


def peak_memory_mb() -> float | None:
    """Return the largest resident size that a child of this process has had."""
    if sys.platform != "linux":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
