"""Opening bundles, good ones and every kind of bad one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipsynth_rt import Synthesizer
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.errors import BundleError, HashMismatchError, InputError, ManifestError

Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]


def test_a_good_bundle(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    assert bundle.manifest.name == "tiny-test"
    graph = bundle.graph("vocoder")
    assert (graph.name, graph.precision) == ("vocoder", "fp32")
    assert graph.path == tiny_bundle.resolve() / "fp32" / "vocoder.onnx"
    assert bundle.tokenizer_spec().path == "tokenizer.json"
    listed = [p for p in tiny_bundle.rglob("*") if p.is_file() and p.name != "manifest.json"]
    assert bundle.verify() == sum(p.stat().st_size for p in listed)


@pytest.mark.parametrize("name", ["absent", "x" * 5000, "nul\0byte"])
def test_no_such_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        Bundle.open(tmp_path / name)


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "voice.onnx").write_bytes(b"")
    message = r"voice\.onnx: neither a folder nor an archive \(\.zip, "
    with pytest.raises(BundleError, match=message):
        Bundle.open(tmp_path / "voice.onnx")


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json: no such file"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "\udcff", "[" * 100_000], ids=repr)
def test_a_manifest_that_is_not_json(tiny_copy: Path, text: str) -> None:
    path = tiny_copy / "manifest.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ManifestError, match=r"manifest\.json: not JSON"):
        Bundle.open(tiny_copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema_version=4), "schema_version 4 is newer than 3"),
        (lambda m: m.update(colour="red"), "colour: unknown key"),
        (lambda m: m["mel"].update(hop=256), r"mel\.hop: unknown key"),
        (lambda m: m["graphs"].pop("vocoder"), r"graphs\.vocoder: missing"),
        (lambda m: m.pop("license"), "license: missing"),
        (lambda m: m["mel"].update(n_mels=80), r"differs from mel\.n_mels 80"),
        (lambda m: m["mel"].update(hop_length=0), r"mel\.hop_length: 0 is not from"),
        (lambda m: m["mel"].update(std=0.0), r"mel\.std: 0\.0 is not from"),
        (lambda m: m["mel"].update(mean=float("nan")), r"mel\.mean: nan is not finite"),
        (lambda m: m["diffusion"].update(frames_multiple=0), "frames_multiple: 0 is not from"),
        (lambda m: m["diffusion"].update(default_frames=9999), "default_frames: more than max"),
        (lambda m: m["diffusion"].update(max_frames=7), "frames_multiple: more than max_frames 7"),
        (lambda m: m["diffusion"].update(default_frames=170), "default_frames: more than max"),
        (
            lambda m: m["diffusion"].update(guidance_scale=31),
            r"guidance_scale: 31\.0 is not from 0",
        ),
        (lambda m: m["mel"].update(std=10**400), r"mel\.std: 1000\d+ is not finite"),
        (lambda m: m["mel"].update(hop_length=10**400), r"mel\.hop_length: 1000\d+ is not from"),
        (lambda m: m["diffusion"].update(num_steps=1001), "num_steps: more than num_train"),
        (
            lambda m: m["diffusion"].update(distilled_steps=[2]),
            r"graphs\.denoiser_step_distilled: missing, and diffusion\.distilled_steps",
        ),
        (lambda m: m["diffusion"].update(x0_min=5.0), "x0_min: not below x0_max"),
        (lambda m: m["default_precision"].update(vocoder="fp8"), "'fp8' is not one of"),
    ],
)
def test_a_manifest_that_contradicts_itself(
    tiny_copy: Path, edit_manifest: Edit, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_manifest(tiny_copy, change)
    with pytest.raises(ManifestError, match=message) as caught:
        Bundle.open(tiny_copy)
    assert str(tiny_copy / "manifest.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_file(tiny_copy: Path) -> None:
    path = tiny_copy / "fp32" / "vocoder.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    bundle = Bundle.open(tiny_copy)
    bundle.graph("text_encoder").read()
    with pytest.raises(HashMismatchError, match=r"vocoder\.onnx: sha256 differs"):
        bundle.graph("vocoder").read()


@pytest.mark.parametrize("name", ["fp32/denoiser_step.onnx", "tokenizer.json"])
def test_a_missing_file(tiny_copy: Path, name: str) -> None:
    (tiny_copy / name).unlink()
    with pytest.raises(BundleError, match=rf"{name}: listed in manifest\.json and missing"):
        Bundle.open(tiny_copy).verify()


def test_a_folder_where_a_file_should_be(tiny_copy: Path) -> None:
    path = tiny_copy / "fp32" / "vocoder.onnx"
    path.unlink()
    path.mkdir()
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.open(tiny_copy).graph("vocoder").read()


@pytest.mark.parametrize(
    "path", ["../secret", "fp32/../../secret", "/etc/passwd", "..\\secret", "C:secret", "", "a\0b"]
)
def test_a_path_that_leaves_the_folder(tiny_copy: Path, edit_manifest: Edit, path: str) -> None:
    (tiny_copy.parent / "secret").write_text("secret")
    edit_manifest(tiny_copy, lambda m: m["graphs"]["vocoder"]["files"]["fp32"].update(path=path))
    with pytest.raises(BundleError, match="leaves the bundle's folder"):
        Bundle.open(tiny_copy).graph("vocoder")


def test_a_symbolic_link_that_leaves_the_folder(tiny_copy: Path) -> None:
    path = tiny_copy / "fp32" / "vocoder.onnx"
    outside = Path(shutil.move(path, tiny_copy.parent / "vocoder.onnx"))
    path.symlink_to(outside)
    with pytest.raises(BundleError, match="leaves the bundle's folder"):
        Bundle.open(tiny_copy).graph("vocoder")


def test_a_link_to_the_whole_bundle_is_fine(tiny_copy: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tiny_copy)
    assert Bundle.open(link).graph("vocoder").path.is_file()


def test_a_precision_that_is_not_there(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    with pytest.raises(InputError, match="has no fp16 vocoder; it has fp32"):
        bundle.graph("vocoder", "fp16")
    with pytest.raises(InputError, match="has no fp16 vocoder"):
        bundle.graph("vocoder", {"vocoder": "fp16"})
    assert bundle.graph("vocoder", {"text_encoder": "fp32"}).precision == "fp32"


def test_a_precision_for_a_graph_that_is_not_there(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    message = "has no graph 'vocodr'; it has text_encoder, image_encoder, denoiser_step, vocoder"
    for refuse in (bundle.check_precision, lambda wanted: bundle.graph("vocoder", wanted)):
        with pytest.raises(InputError, match=message):
            refuse({"vocodr": "fp32"})
        # of a graph that is not the one to open, too
        with pytest.raises(InputError, match="has no fp16 image_encoder; it has fp32"):
            refuse({"image_encoder": "fp16"})
    bundle.check_precision({"image_encoder": "fp32"})
    bundle.check_precision("fp16")
    bundle.check_precision(None)


def test_a_synthesizer_refuses_such_a_precision_before_it_loads(tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match="has no graph 'vocodr'"):
        Synthesizer.from_bundle(tiny_bundle, "cpu", {"vocodr": "fp32"}, graphs=())
    with pytest.raises(InputError, match="has no fp16 image_encoder"):
        Synthesizer.from_bundle(tiny_bundle, "cpu", {"image_encoder": "fp16"}, graphs=())
    Synthesizer.from_bundle(tiny_bundle, "cpu", {"image_encoder": "fp32"}, graphs=()).close()


def test_a_second_precision(tiny_copy: Path, edit_manifest: Edit) -> None:
    def add(manifest: dict[str, Any]) -> None:
        files = manifest["graphs"]["vocoder"]["files"]
        files["int8"] = {**files["fp32"]}
        manifest["default_precision"]["vocoder"] = "int8"

    edit_manifest(tiny_copy, add)
    bundle = Bundle.open(tiny_copy)
    assert bundle.graph("vocoder").precision == "int8"
    assert bundle.graph("vocoder", "fp32").precision == "fp32"


def test_a_bundle_without_tokenizer_or_image_encoder(tiny_copy: Path, edit_manifest: Edit) -> None:
    def strip(manifest: dict[str, Any]) -> None:
        manifest["condition"]["tokenizer"] = None
        del manifest["graphs"]["image_encoder"]

    edit_manifest(tiny_copy, strip)
    bundle = Bundle.open(tiny_copy)
    with pytest.raises(ManifestError, match=r"condition\.tokenizer: missing"):
        bundle.tokenizer_spec()
    with pytest.raises(InputError, match="has no image_encoder"):
        bundle.graph("image_encoder")


def test_manifest_survives_a_round_trip(tiny_bundle: Path) -> None:
    data = json.loads((tiny_bundle / "manifest.json").read_text())
    assert Bundle.open(tiny_bundle).manifest.to_dict() == _lists_for_tuples(data)


def _lists_for_tuples(data: Any) -> Any:
    return json.loads(json.dumps(data))
