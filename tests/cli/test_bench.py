"""``clipsynth-rt bench``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click.testing
import pytest

from clipsynth_rt import Synthesizer
from clipsynth_rt.backends.tensorrt import cuda
from clipsynth_rt.cli import main as cli
from clipsynth_rt.errors import InputError, MissingExtraError
from clipsynth_rt.jobs.bench import measure, peak_memory, watch_device


def invoke(*args: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(cli.main, args, prog_name="clipsynth-rt")


def test_table(tiny_bundle: Path) -> None:
    result = invoke("bench", "--bundle", str(tiny_bundle), "--provider", "cpu", "--repeats", "2")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("tiny-test on cpu (")
    assert "onnxruntime " in lines[1]
    assert "peak memory" in lines[2]
    stages = [line.split()[0] for line in lines[4:]]
    assert stages == ["text_encoder", "step", "step", "vocoder", "clip", "clip"]


def test_both_denoisers_are_timed(distilled_bundle: Path) -> None:
    line = ("bench", "--bundle", str(distilled_bundle), "--provider", "cpu", "--repeats", "1")
    (run,) = json.loads(invoke(*line, "--warmup", "0", "--json").stdout)
    num_steps = {
        (r["stage"], r["guidance_scale"], r["distilled"])
        for r in run["rows"]
        if r["num_steps"] == 1
    }
    assert num_steps == {
        ("step", 1.0, False),
        ("step", 2.0, False),
        ("step_distilled", 1.0, True),
    }
    clips = [r for r in run["rows"] if r["stage"] == "clip"]
    kinds = [(r["num_steps"], r["guidance_scale"], r["distilled"]) for r in clips]
    assert kinds == [(8, 1.0, False), (2, 1.0, True), (8, 2.0, False)]
    shown = invoke(*line, "--warmup", "0", "--num-steps", "2,4").stdout
    assert shown.count("clip, distilled") == 2


def test_json(tiny_bundle: Path) -> None:
    result = invoke(
        *("bench", "--bundle", str(tiny_bundle), "--provider", "cpu", "--json"),
        *("--num-steps", "1,3", "--batch", "1,2", "--repeats", "3", "--warmup", "0"),
        *("--duration", "0.5", "--threads", "1"),
    )
    assert result.exit_code == 0, result.output
    (run,) = json.loads(result.stdout)
    assert run["provider"] == "cpu"
    assert run["precision"] == dict.fromkeys(("text_encoder", "denoiser_step", "vocoder"), "fp32")
    assert run["peak_memory_mb"] > 10
    assert run["peak_device_mb"] is None
    assert run["peak_device_why"] == "cpu uses no device memory"
    clips = [row for row in run["rows"] if row["stage"] == "clip"]
    cases = {(row["batch"], row["num_steps"], row["guidance_scale"]) for row in clips}
    assert cases == {(b, n, w) for b in (1, 2) for n in (1, 3) for w in (1.0, 2.0)}
    for row in run["rows"]:
        assert 0.0 < row["low_s"] <= row["median_s"] <= row["high_s"]
        assert row["repeats"] == 3
        assert row["provider"] == "cpu"
        if row["stage"] == "clip":
            assert row["rtf"] == pytest.approx(row["median_s"] / (0.5 * row["batch"]))


def test_on_engines(tiny_bundle: Path, fake_gpu: Any) -> None:
    result = invoke(
        *("bench", "--bundle", str(tiny_bundle), "--json", "--repeats", "1", "--warmup", "0"),
        *("--provider", "tensorrt-rtx,cpu"),
    )
    assert result.exit_code == 0, result.output
    engines, cpu = json.loads(result.stdout)
    assert (engines["provider"], cpu["provider"]) == ("tensorrt-rtx", "cpu")
    assert engines["gpu"] == "Double"
    assert engines["library"] == "tensorrt-rtx 1.0"
    assert engines["peak_device_mb"] > 0
    assert {row["provider"] for row in engines["rows"]} == {"tensorrt-rtx"}
    # a whole bucket, of which the clip is a part
    assert {row["frames"] for row in engines["rows"] if row["stage"] == "step"} == {168}
    assert fake_gpu.cuda.left()["device"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--provider", "tpu"], 1, "unknown provider 'tpu'"),
        (["--provider", "tensorrt"], 1, "provider tensorrt is not available"),
        (["--num-steps", "few"], 2, "not a list of whole numbers"),
        (["--repeats", "0"], 2, "0 is not in the range"),
        (["--num-steps", "0"], 2, "0 is not in the range x>=1"),
        (["--batch", "0"], 2, "0 is not in the range x>=1"),
        (["--batch", "1,-1"], 2, "-1 is not in the range x>=1"),
        (["--duration", "nan"], 1, "duration must be from"),
        (["--threads", "0", "--provider", "cpu"], 1, "threads must be from 1"),
        (["--precision", "vocodr=fp32"], 1, "has no graph 'vocodr'; it has text_encoder, "),
    ],
)
def test_bad_input(
    tiny_bundle: Path, fake_gpu: Any, arguments: list[str], code: int, message: str
) -> None:
    result = invoke("bench", "--bundle", str(tiny_bundle), "--warmup", "0", *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_measure() -> None:
    calls: list[float] = []

    def work() -> None:
        calls.append(0.0)
        time.sleep(0.002 if len(calls) > 2 else 0.05)

    timing = measure(work, repeats=5, warmup=2)
    assert len(calls) == 7
    # the slow runs warmed up and were not counted
    assert 0.002 <= timing.low_s <= timing.median_s <= timing.high_s
    assert timing.low_s < 0.05
    with pytest.raises(InputError, match="0 repeats"):
        measure(work, repeats=0)


def test_device_memory_on_cuda_or_why_it_is_not_known(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Synthesizer.from_bundle(tiny_bundle, "cpu", threads=1) as synthesizer:
        synthesizer.sessions.provider = "cuda"  # as if it ran there
        device = SimpleNamespace(memory_in_use=lambda: 3 * 2**20)
        monkeypatch.setattr(cuda, "open_device", lambda: device)
        assert peak_memory(synthesizer)["peak_device_mb"] == 3.0

        def refuse() -> None:
            raise MissingExtraError("cuda-bindings", "tensorrt-rtx")

        monkeypatch.setattr(cuda, "open_device", refuse)
        watch_device()
        found = peak_memory(synthesizer)
    assert found["peak_device_mb"] is None
    assert "cuda-bindings" in found["peak_device_why"]
