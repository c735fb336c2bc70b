"""``clipsynth-rt info`` and ``clipsynth-rt doctor``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click.testing
import numpy as np
import pytest

from clipsynth_rt import AudioClip
from clipsynth_rt.backends import session as backends
from clipsynth_rt.cli import main as cli


def invoke(*args: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(cli.main, args, prog_name="clipsynth-rt")


def test_info(tiny_bundle: Path) -> None:
    result = invoke("info", "--bundle", str(tiny_bundle))
    assert result.exit_code == 0
    for text in (
        "tiny-test (Apache-2.0)",
        "22050 Hz",
        "8 steps, guidance 2",
        "metric      top1: 0",
    ):
        assert text in result.stdout


def test_info_for_machines(tiny_bundle: Path) -> None:
    facts = json.loads(invoke("info", "--json", "--bundle", str(tiny_bundle)).stdout)
    assert facts["mel"]["n_mels"] == 8
    assert facts["graphs"]["vocoder"]["precisions"] == ["fp32"]
    size = (tiny_bundle / "fp32" / "vocoder.onnx").stat().st_size
    assert facts["graphs"]["vocoder"]["bytes"] == {"fp32": size}
    listed = [p for p in tiny_bundle.rglob("*") if p.is_file() and p.name != "manifest.json"]
    assert facts["bytes"] == sum(p.stat().st_size for p in listed)


def test_info_of_a_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    clip = AudioClip(np.zeros(2205, np.float32), 22050, "drum", seed=3, bundle="tiny-test")
    clip.save(path)
    lines = invoke("info", "--sound", str(path)).stdout.splitlines()
    assert "query          drum" in lines
    assert "synthetic      True" in lines
    assert json.loads(invoke("info", "--sound", str(path), "--json").stdout)["seed"] == 3
    clip.save(path, tag=False)
    result = invoke("info", "--sound", str(path))
    assert result.exit_code == 1
    assert "a.flac: carries no tag of clipsynth-rt" in result.stderr
    assert result.stderr.count("\n") == 1


def test_info_refuses_a_damaged_bundle(tiny_copy: Path) -> None:
    (tiny_copy / "tokenizer.json").write_text("{}")
    result = invoke("info", "--bundle", str(tiny_copy))
    assert result.exit_code == 1
    assert "tokenizer.json: sha256 differs" in result.stderr


def test_info_tells_of_a_distilled_denoiser(tiny_bundle: Path, distilled_bundle: Path) -> None:
    lines = invoke("info", "--bundle", str(distilled_bundle)).stdout.splitlines()
    assert "sampling    8 steps, guidance 2" in lines
    expected = "2 steps by default (also 4), one network call each, guidance built in"
    assert f"distilled   {expected}" in lines
    assert any(line.startswith("graph       denoiser_step_distilled: fp32*") for line in lines)
    facts = json.loads(invoke("info", "--json", "--bundle", str(distilled_bundle)).stdout)
    assert facts["diffusion"]["distilled_steps"] == [2, 4]
    assert "distilled   " not in invoke("info", "--bundle", str(tiny_bundle)).stdout


def test_doctor(tiny_bundle: Path) -> None:
    result = invoke("doctor", "--bundle", str(tiny_bundle))
    assert result.exit_code == 0
    assert "provider  cpu: ok" in result.stdout
    assert "bundle    tiny-test" in result.stdout
    assert "would run tiny-test on " in result.stdout


def test_doctor_for_machines(tiny_bundle: Path) -> None:
    import onnxruntime

    facts = json.loads(invoke("doctor", "--json", "--bundle", str(tiny_bundle)).stdout)
    assert facts["providers"].keys() == set(backends.PROVIDERS)
    assert facts["providers"][facts["auto"]] == "ok"
    assert facts["auto"] not in facts["not_taken"]
    assert facts["engines"]["libraries"].keys() == set(backends.ENGINE_PROVIDERS)
    versions = (facts["packages"]["onnxruntime"], facts["packages"]["onnxruntime-gpu"])
    assert onnxruntime.__version__ in versions


def test_doctor_on_a_bad_bundle_still_tells_the_rest(tmp_path: Path) -> None:
    result = invoke("doctor", "--bundle", str(tmp_path / "absent"))
    assert result.exit_code == 0
    assert "no such folder" in result.stdout
    assert "if it had a bundle" in result.stdout


def test_doctor_without_the_hubs_library_still_tells_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    result = invoke("doctor", "--bundle", "hf://owner/name")
    assert result.exit_code == 0, result.output
    assert "provider  cpu: ok" in result.stdout
    missing = 'huggingface_hub is not installed; run: pip install "clipsynth-rt[hub]"'
    assert f"bundle    {missing}" in result.stdout
    assert "if it had a bundle" in result.stdout


@pytest.mark.usefixtures("no_cpu_backend")
def test_doctor_without_onnxruntime(tiny_bundle: Path) -> None:
    result = invoke("doctor", "--bundle", str(tiny_bundle))
    assert result.exit_code == 0
    assert 'onnxruntime is not installed; run: pip install "clipsynth-rt[cpu]"' in result.stdout
    assert "would run nothing" in result.stdout


@pytest.mark.usefixtures("no_cpu_backend")
def test_synth_without_onnxruntime(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.wav"
    result = invoke("synth", "drum", "-o", str(out), "--bundle", str(tiny_bundle))
    assert result.exit_code == 1
    assert result.stderr == (
        'clipsynth-rt synth: onnxruntime is not installed; run: pip install "clipsynth-rt[cpu]"\n'
    )
    assert not out.exists()
