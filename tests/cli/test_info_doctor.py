"""``clipsynth-rt info`` and ``clipsynth-rt doctor``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest

from clipsynth_rt import AudioClip
from clipsynth_rt.audio.provenance import NOTICE
from clipsynth_rt.backends import choice as backends
from clipsynth_rt.cli import main as cli
from clipsynth_rt.errors import install_command


def invoke(*args: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(cli.main, args, prog_name="clipsynth-rt")


def test_info(tiny_bundle: Path) -> None:
    result = invoke("info", "--bundle", str(tiny_bundle))
    assert result.exit_code == 0
    for text in (
        "tiny-test (license Apache-2.0)",
        "22050 Hz",
        "8 steps, guidance 2",
        "concepts    this bundle does not say",
        "metrics     top1 0.000",
    ):
        assert text in result.stdout


def test_info_is_one_screen() -> None:
    result = invoke("info")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert 10 <= len(lines) <= 24
    assert any(line.startswith("metrics     top1 0.") for line in lines)


def edit(bundle: Path, **changes: Any) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_info_of_a_bundle_with_much_to_say_is_one_screen(tiny_copy: Path) -> None:
    manifest = json.loads((tiny_copy / "manifest.json").read_text())
    condition = {**manifest["condition"], "templates": [f"{i} {{query}}" for i in range(90)]}
    metrics = {f"m{i}": {"top1": 0.5, "note": "x\n\x1b[2J"} for i in range(500)}
    edit(tiny_copy, condition=condition, metrics=metrics)
    result = invoke("info", "--bundle", str(tiny_copy))
    assert len(result.stdout.splitlines()) <= 24
    assert "template    and 87 more" in result.stdout
    facts = json.loads(invoke("info", "--bundle", str(tiny_copy), "--json").stdout)
    assert facts["metrics"] == metrics


def test_info_says_when_the_metrics_are_those_of_another_bundle(tiny_copy: Path) -> None:
    edit(tiny_copy, metrics={"top1": 0.5, "bundle_sha256": "f" * 64})
    assert "metrics     measured on bundle ffffffffffff; this one is " in (
        invoke("info", "--bundle", str(tiny_copy)).stdout
    )


def test_concepts_by_group(tiny_copy: Path) -> None:
    path = str(tiny_copy)
    assert invoke("info", "--bundle", path, "--concepts").stdout.startswith(
        "this bundle does not say"
    )
    concepts = {"drums": ["kick drum", "snare drum"], "others": ["my doorbell"]}
    edit(tiny_copy, concepts=concepts)
    lines = invoke("info", "--bundle", path, "--concepts").stdout.splitlines()
    assert lines[0].startswith("3 concepts")
    assert lines[lines.index("drums (2)") + 1] == "  kick drum, snare drum"
    assert "others (1)" in lines
    assert "concepts    3 in 2 groups" in invoke("info", "--bundle", path).stdout
    found = invoke("info", "--bundle", path, "--concepts", "--json").stdout
    assert json.loads(found) == concepts


@pytest.mark.parametrize("command", ["info", "doctor"])
def test_a_name_cannot_write_to_the_terminal(command: str, tiny_copy: Path) -> None:
    edit(tiny_copy, name="x\n\x1b[31mFAKE\x1b]0;pwn\x07")
    result = invoke(command, "--bundle", str(tiny_copy))
    assert not set(result.output) & set("\x1b\x07")
    assert r"\x1b[31mFAKE" in result.output
    edit(tiny_copy, name="x", **{"\x1b[31m": 1})
    result = invoke(command, "--bundle", str(tiny_copy))
    assert "\x1b" not in result.output


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
    lines = invoke("info", str(path)).stdout.splitlines()
    assert "query          drum" in lines
    assert "synthetic      True" in lines
    assert json.loads(invoke("info", str(path), "--json").stdout)["seed"] == 3
    clip.save(path, tag=False)
    result = invoke("info", str(path))
    assert result.exit_code == 1
    assert "a.flac: carries no tag of clipsynth-rt" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_tag_of_a_sound_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / "a.flac"
    with soundfile.SoundFile(path, "w", 22050, 1) as sound:
        sound.comment = NOTICE + ' {"query": "\\u001b[31mred\\nline"}'
        sound.write(np.zeros(2205, np.float32))
    result = invoke("info", str(path))
    assert result.stdout == "query          \\x1b[31mred\\nline\n"


def test_info_of_a_sound_stands_alone(tmp_path: Path, tiny_bundle: Path) -> None:
    result = invoke("info", str(tmp_path / "a.wav"), "--bundle", str(tiny_bundle))
    assert (result.exit_code, "stands alone" in result.stderr) == (2, True)
    result = invoke("info", str(tiny_bundle))
    assert (result.exit_code, "named with --bundle" in result.stderr) == (2, True)
    result = invoke("info", str(tmp_path / "a.wav"))
    assert (result.exit_code, "no such sound file" in result.stderr) == (1, True)


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
    missing = f"huggingface_hub is not installed; run: {install_command('hub')}"
    assert f"bundle    {missing}" in result.stdout
    assert "if it had a bundle" in result.stdout


@pytest.mark.usefixtures("no_cpu_backend")
def test_doctor_without_onnxruntime(tiny_bundle: Path) -> None:
    result = invoke("doctor", "--bundle", str(tiny_bundle))
    assert result.exit_code == 0
    assert f"onnxruntime is not installed; run: {install_command('cpu')}" in result.stdout
    assert "would run nothing" in result.stdout


@pytest.mark.usefixtures("no_cpu_backend")
def test_synth_without_onnxruntime(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.wav"
    result = invoke("synth", "drum", "-o", str(out), "--bundle", str(tiny_bundle))
    assert result.exit_code == 1
    assert result.stderr == (
        f"clipsynth-rt synth: onnxruntime is not installed; run: {install_command('cpu')}\n"
    )
    assert not out.exists()
