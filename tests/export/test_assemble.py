"""Whole bundles: what is in them, what stops them, and what is left when they are stopped."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from clipsynth_export import assemble, parity, staging
from clipsynth_export.assemble import GRAPHS, PRECISION_PRESETS, export_bundle, preset_files
from clipsynth_export.graphs import CALIBRATION_QUERIES, CALIBRATION_STEPS, calibration_steps
from clipsynth_export.source import load_source
from clipsynth_export.staging import check_target
from clipsynth_rt import Bundle, Synthesizer
from clipsynth_rt.backends.interface import PROBE
from clipsynth_rt.bundles.manifest import DENOISER, DISTILLED, Manifest
from clipsynth_rt.cli.main import main
from clipsynth_rt.errors import CheckpointError, InputError, OutputError, ParityError
from clipsynth_rt.files import sha256_of


@pytest.fixture
def reuse(monkeypatch, source):
    """Export without the seconds of tracing: only what is around it is tested."""

    def one_file(graph, wanted, source, folder, threads, report):
        spec = assemble.GraphSpec(graph.inputs, graph.outputs, {})
        files = {}
        for precision in wanted:
            path = folder / precision / f"{graph.name}.onnx"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(PROBE)
            files[precision] = assemble.FileSpec(f"{precision}/{path.name}", sha256_of(path))
        return assemble.replace(spec, files=files), {}

    monkeypatch.setattr(assemble, "_export_graph", one_file)


def entries(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_exported_bundle_speaks_and_sees(exported):
    synthesizer = Synthesizer.from_bundle(exported, "cpu", threads=1)
    clip = synthesizer.synth("drum", num_steps=2, seed=3)
    spec = synthesizer.bundle.manifest
    frames = spec.diffusion.default_frames
    assert clip.waveform.shape == (frames * spec.mel.hop_length,)
    assert np.abs(clip.waveform).max() > 0.0
    other = synthesizer.synth("dog", num_steps=2, seed=3)
    assert not np.array_equal(clip.waveform, other.waveform)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_graph_has_the_whole_precisions(exported, precision):
    synthesizer = Synthesizer.from_bundle(exported, "cpu", precision, 1)
    assert np.isfinite(synthesizer.synth("rain", num_steps=1).waveform).all()


def test_manifest_says_what_was_exported(exported, source):
    bundle = Bundle.open(exported)
    manifest = bundle.manifest
    assert manifest.name == "tiny-voice"
    assert manifest.mel == source.mel
    assert manifest.diffusion == source.diffusion
    assert manifest.condition.templates == ("a photo of {query}",)
    assert manifest.condition.dim == source.clip.dim
    assert manifest.default_precision == {
        name: PRECISION_PRESETS["edge"][name] for name in manifest.graphs
    }
    assert DISTILLED not in manifest.graphs
    assert manifest.diffusion.distilled_steps == ()
    assert manifest.metrics == {"top1": 0.25}
    assert manifest.provenance["training"]["steps"] == 7
    assert set(manifest.provenance["checkpoint_sha256"]) == {"clip", "denoiser", "vocoder"}
    assert (exported / "MODEL_CARD.md").read_text() == "# A tiny voice\n"
    for name, graph in manifest.graphs.items():
        for precision in graph.files:
            figures = manifest.parity[precision][name]
            assert figures["snr_db"] >= parity.tolerance_db(precision, name)
    assert (
        bundle.verify()
        == sum(
            path.stat().st_size for path in exported.rglob("*") if path.suffix in (".onnx", ".json")
        )
        - (exported / "manifest.json").stat().st_size
    )
    # nothing of the machine that exported it
    for path in exported.rglob("*.onnx"):
        assert str(Path(assemble.__file__).parent).encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("preset", "scopes", "precision"),
    [
        ("edge", ("network.blocks",), "int8"),
        ("edge", (), "w16"),  # HiFi-GAN
        ("int8-vocoder", (), "int8"),  # asked for by name: refused when it is converted
    ],
)
def test_edge_quantises_what_it_can(preset, scopes, precision):
    graph = SimpleNamespace(name="vocoder", quantised_scopes=scopes)
    assert preset_files(preset, [graph]) == {"vocoder": precision}


@pytest.fixture(scope="module")
def both(tmp_path_factory, distilled_checkpoint, sentence_encoder):
    """A bundle with two denoisers, as it ships."""
    return export_bundle(
        distilled_checkpoint,
        tmp_path_factory.mktemp("both") / "bundle",
        ["edge", "fp16"],
        sentence_encoder=sentence_encoder,
        threads=1,
    )


def test_a_distilled_denoiser_is_exported_beside_the_other(both):
    manifest = Bundle.open(both).manifest
    assert manifest.diffusion.distilled_steps == (2, 1)
    assert manifest.default_precision == PRECISION_PRESETS["edge"]
    assert set(manifest.graphs) == set(GRAPHS)
    assert set(manifest.graphs[DISTILLED].files) == {"int8", "fp16"}
    assert set(manifest.graphs[DENOISER].files) == {"w8", "fp16"}
    for precision in ("int8", "fp16"):
        figures = manifest.parity[precision][DISTILLED]
        assert figures["snr_db"] >= parity.tolerance_db(precision, DISTILLED)
    provenance = manifest.provenance
    assert "denoiser_distilled" in provenance["checkpoint_sha256"]
    assert (provenance["distillation"]["steps"], provenance["training"]["steps"]) == (5, 7)
    assert provenance["parameters"][DISTILLED] == provenance["parameters"][DENOISER]


def test_each_denoiser_is_calibrated_on_its_own_steps(distilled_checkpoint, sentence_encoder):
    source = load_source(distilled_checkpoint, sentence_encoder=sentence_encoder)
    many, few = (calibration_steps(source, name) for name in (DENOISER, DISTILLED))
    assert len(many) == CALIBRATION_QUERIES * CALIBRATION_STEPS
    assert len(few) == CALIBRATION_QUERIES * 2
    assert {len(case["weights"]) for case in many} == {2}
    assert {len(case["weights"]) for case in few} == {1}
    # from the same noise, by another network
    assert few[0]["x"].equal(many[0]["x"])
    assert not few[1]["x"].equal(many[CALIBRATION_STEPS // 2]["x"])


def test_both_denoisers_play(both):
    with Synthesizer.from_bundle(both, "cpu", threads=1) as synthesizer:
        few, many = (
            synthesizer.synth("drum"),
            synthesizer.synth("drum", num_steps=2, guidance_scale=1.0),
        )
    assert (few.network_calls, few.distilled, many.distilled) == (2, True, False)
    assert not np.allclose(few.waveform, many.waveform, atol=1e-3)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda d: d.pop("distilled_steps"), "distilled_steps is missing"),
        (lambda d: d.update(distilled_steps=[]), r"distilled_steps \[\] are not different"),
        (lambda d: d.update(distilled_steps=[2, 2]), r"distilled_steps \[2, 2\] are not"),
        (lambda d: d.update(distilled_steps=[0]), r"distilled_steps \[0\] are not"),
        (lambda d: d.update(distilled_steps="2"), "distilled_steps: expected a list"),
        (lambda d: d["mel"].update(mean=-1.0), "mel differs from the one in denoiser.json"),
        (lambda d: d["diffusion"].update(time_shift=2.0), "diffusion.time_shift differs"),
        (lambda d: d["unet"].update(channels=[8, 24]), "denoiser_distilled.safetensors: "),
    ],
)
def test_a_distilled_denoiser_of_another_voice(
    distilled_checkpoint, sentence_encoder, tmp_path, edit, said
):
    folder = shutil.copytree(distilled_checkpoint, tmp_path / "voice")
    path = folder / "denoiser_distilled.json"
    facts = json.loads(path.read_text())
    edit(facts)
    path.write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match=said) as caught:
        load_source(folder, sentence_encoder=sentence_encoder)
    assert "denoiser_distilled" in str(caught.value)


def test_plans_cover_every_graph():
    for plan in PRECISION_PRESETS.values():
        assert set(plan) == set(GRAPHS)


def test_parity_failure_names_the_graph_and_leaves_the_old_bundle(
    monkeypatch, checkpoint, sentence_encoder, tmp_path, reuse
):
    out = tmp_path / "bundle"
    export_bundle(checkpoint, out, "fp32", sentence_encoder=sentence_encoder)
    before = (out / "manifest.json").read_bytes()
    monkeypatch.undo()
    monkeypatch.setattr(parity, "tolerance_db", lambda precision, graph: 1000.0)
    with pytest.raises(ParityError, match=r"text_encoder \(fp32\).*max_abs .*< 1000 dB"):
        export_bundle(checkpoint, out, "fp32", sentence_encoder=sentence_encoder, threads=1)
    assert (out / "manifest.json").read_bytes() == before
    assert entries(tmp_path) == ["bundle"]


def test_an_older_bundle_is_replaced_whole(checkpoint, sentence_encoder, tmp_path, reuse):
    out = tmp_path / "bundle"
    export_bundle(checkpoint, out, "fp16", "first", sentence_encoder=sentence_encoder)
    export_bundle(checkpoint, out, "fp32", "second", sentence_encoder=sentence_encoder)
    assert entries(tmp_path) == ["bundle"]
    assert entries(out) == ["MODEL_CARD.md", "fp32", "manifest.json", "tokenizer.json"]
    assert Manifest.from_dict(json.loads((out / "manifest.json").read_text())).name == "second"


def test_failure_to_rename_puts_the_older_bundle_back(
    monkeypatch, checkpoint, sentence_encoder, tmp_path, reuse
):
    out = tmp_path / "bundle"
    export_bundle(checkpoint, out, "fp32", "first", sentence_encoder=sentence_encoder)
    real = os.replace

    def refuse(source, target):
        if Path(source).name == "bundle" and Path(source) != out:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(staging.os, "replace", refuse)
    with pytest.raises(OutputError, match="No space left"):
        export_bundle(checkpoint, out, "fp32", "second", sentence_encoder=sentence_encoder)
    assert Bundle.open(out).manifest.name == "first"
    assert entries(tmp_path) == ["bundle"]


def test_other_folders_are_not_overwritten(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    check_target(mine, "manifest.json", "bundle")  # empty: nothing to lose
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="is no bundle"):
        check_target(mine, "manifest.json", "bundle")
    with pytest.raises(OutputError, match="is no bundle"):
        check_target(mine / "thesis.tex", "manifest.json", "bundle")
    with pytest.raises(OutputError, match="make it first"):
        check_target(tmp_path / "nowhere" / "bundle", "manifest.json", "bundle")


def test_folder_that_is_not_writable(monkeypatch, tmp_path):
    # access is asked, not tried: tests may run as root, who may write anywhere
    monkeypatch.setattr(staging.os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match="not writable"):
        check_target(tmp_path / "bundle", "manifest.json", "bundle")


def test_unknown_precision():
    with pytest.raises(InputError, match="unknown precision 'fp8'; use edge, small, fp32, "):
        export_bundle("checkpoint", "out", ["fp32", "fp8"])


def test_damaged_metrics(checkpoint_copy, sentence_encoder, tmp_path, reuse):
    (checkpoint_copy / "metrics.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"metrics\.json: not JSON"):
        export_bundle(checkpoint_copy, tmp_path / "out", sentence_encoder=sentence_encoder)
    assert entries(tmp_path) == ["voice"]


@pytest.mark.usefixtures("reuse")
def test_command_exports(checkpoint, sentence_encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--checkpoint", str(checkpoint), "--sentence-encoder", str(sentence_encoder)]
    result = CliRunner().invoke(main, ["export", *arguments, "--precision", "fp16", "--no-engines"])
    assert result.exit_code == 0, result.output
    manifest = Bundle.open("clipsynth-bundle-fp16").manifest
    assert manifest.default_precision == {
        name: PRECISION_PRESETS["fp16"][name] for name in manifest.graphs
    }
    assert "clipsynth-bundle-fp16: " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--precision", "fp64"], "unknown precision 'fp64'"),
        (["--checkpoint", "nowhere", "--out", "b"], "nowhere: no such checkpoint folder"),
        (["--checkpoint", ".", "--out", "b"], "denoiser.safetensors: no such file"),
        (["--out", "no/where"], "make it first"),
    ],
)
def test_command_fails_in_a_line(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["export", *arguments])
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert entries(tmp_path) == []


def test_a_licence_is_not_made_up(checkpoint: Path, sentence_encoder: Path, tmp_path: Path) -> None:
    """Weights that learnt from data of others are not under this package's licence."""
    out = tmp_path / "bundle"
    export_bundle(checkpoint, out, "fp32", sentence_encoder=sentence_encoder, threads=1)
    manifest = Bundle.open(out).manifest
    assert (manifest.license, manifest.provenance["author"]) == ("not stated", "not stated")
    export_bundle(
        checkpoint, out, "fp32", license_id="CC-BY-4.0", author="Ada", threads=1,
        sentence_encoder=sentence_encoder,
    )  # fmt: skip
    manifest = Bundle.open(out).manifest
    assert (manifest.license, manifest.provenance["author"]) == ("CC-BY-4.0", "Ada")


def test_a_bundle_lists_what_the_voice_learnt() -> None:
    found = assemble._concepts(["my doorbell", "piano", "snare drum", "rain"])
    assert found["others"] == ("my doorbell",)
    assert found["instruments"] == ("piano",)
    assert sum(map(len, found.values())) == 4
    assert assemble._concepts([]) == {}
