"""``clipsynth-rt build`` and what ``doctor`` and ``synth`` say of engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click.testing
import pytest

from clipsynth_rt.backends.tensorrt import api as trt_api
from clipsynth_rt.cli import main as cli
from clipsynth_rt.errors import MissingExtraError, install_command


def invoke(*args: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(cli.main, args, prog_name="clipsynth-rt")


def test_build(tiny_bundle: Path, fake_gpu: Any, tmp_path: Path) -> None:
    result = invoke("build", "--bundle", str(tiny_bundle))
    assert result.exit_code == 0, result.output
    first, last = result.stdout.splitlines()
    assert first == (
        "tensorrt-rtx 1.0 for 86: 9 engines, 9 to build (no earlier build says how long)"
    )
    assert last.startswith(f"{tmp_path / 'engines'}: 9 engines, ")
    again = invoke("build", "--bundle", str(tiny_bundle), "--targets", "86,120,86")
    assert again.stdout.startswith("tensorrt-rtx 1.0 for 86, 120: 18 engines, 9 to build (about ")
    assert len(fake_gpu.builds) == 18
    assert "engines   18 built" in invoke("doctor", "--bundle", str(tiny_bundle)).stdout


def test_build_a_part_for_machines(tiny_bundle: Path, fake_gpu: Any, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    result = invoke(
        *("build", "--bundle", str(tiny_bundle), "--json", "--cache", str(folder)),
        *("--frames", "168", "--batch", "1", "--targets", "portable"),
    )
    facts = json.loads(result.stdout)
    assert facts["builder"] == "tensorrt-rtx 1.0"
    assert facts["failures"] == []
    assert sorted(facts["engines"]) == sorted(path.name for path in folder.glob("*.plan"))
    assert len(facts["engines"]) == 5
    assert facts["bytes"] == sum(path.stat().st_size for path in folder.glob("*.plan"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--targets", "42"], 1, "unknown target '42'; tensorrt-rtx 1.0 builds for 75, 80, 86"),
        (["--frames", "40"], 1, "no engine for 40 frames; there are 168"),
        (["--batch", "2"], 1, "no engine for a batch of 2; there are 1, 4"),
        (["--precision", "fp16"], 1, "has no fp16 image_encoder; it has fp32"),
        (["--precision", "vocodr=fp32"], 1, "has no graph 'vocodr'; it has text_encoder, "),
        (["--provider", "cuda"], 1, "unknown builder 'cuda'"),
        (["--provider", "tensorrt"], 1, "tensorrt is not installed; run: pip install"),
        (["--batch", "0"], 2, "0 is not in the range x>=1"),
        (["--frames", "long"], 2, "'long' is not a list of whole numbers"),
        (["--targets", ","], 2, "',' names nothing"),
    ],
)
def test_build_fails_in_a_line(
    tiny_bundle: Path, fake_gpu: Any, arguments: list[str], code: int, message: str
) -> None:
    result = invoke("build", "--bundle", str(tiny_bundle), *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert fake_gpu.builds == []


def test_build_without_a_builder(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise MissingExtraError(name, name)

    monkeypatch.setattr(trt_api, "load_library", missing)
    result = invoke("build", "--bundle", str(tiny_bundle))
    assert result.exit_code == 1
    assert result.stderr == (
        "clipsynth-rt build: tensorrt-rtx is not installed; run: "
        f"{install_command('tensorrt-rtx')}\n"
    )


def test_engines_that_fail_are_counted(tiny_bundle: Path, fake_gpu: Any) -> None:
    fake_gpu.refusal = "Cannot compile operation 'node_linear'"
    result = invoke("build", "--bundle", str(tiny_bundle))
    assert result.exit_code == 1
    assert "9 of 9 engines could not be built; the first: image_encoder-b1 for 86" in result.stderr
    assert "node_linear" in result.stderr


def test_synth_on_engines(tiny_bundle: Path, fake_gpu: Any, tmp_path: Path) -> None:
    out = tmp_path / "a.wav"
    arguments = ("synth", "drum", "-o", str(out), "--bundle", str(tiny_bundle))
    result = invoke(*arguments, "--provider", "tensorrt-rtx", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["provider"] == "tensorrt-rtx"
    # two templates: the condition is an input, and the text encoder ran before
    assert list(report["stages_s"]) == ["text", "prepare", "clip", "write"]
    # a build is never silent
    assert "warning: building denoiser_step-b1-f168-g2 for tensorrt-rtx" in result.stderr
    assert out.stat().st_size > 1000
    again = invoke(*arguments, "--provider", "tensorrt-rtx")
    assert again.stderr == ""
    assert " on tensorrt-rtx" in again.stdout.splitlines()[-1]


def test_synth_with_a_provider_that_does_not_load(
    tiny_bundle: Path, fake_gpu: Any, tmp_path: Path
) -> None:
    out = tmp_path / "a.wav"
    arguments = ("synth", "drum", "-o", str(out), "--bundle", str(tiny_bundle))
    result = invoke(*arguments, "--provider", "tensorrt")
    assert result.exit_code == 1
    assert "provider tensorrt is not available: tensorrt is not installed" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not out.exists()


def test_doctor_names_what_to_install(tiny_bundle: Path, fake_gpu: Any, tmp_path: Path) -> None:
    text = invoke("doctor", "--bundle", str(tiny_bundle)).stdout
    assert "builder   tensorrt-rtx: 1.0, builds engines" in text
    assert (
        f"builder   tensorrt: tensorrt is not installed; run: {install_command('tensorrt')}" in text
    )
    assert "gpu       Double, compute capability 8.6, 1024 MiB, driver for CUDA 13.1" in text
    assert "auto      not tensorrt-rtx: no engine text_encoder-b1 is built" in text
