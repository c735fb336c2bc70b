"""Bundles made to harm: each is refused by name, on every provider that reads files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsynth_rt import Synthesizer
from clipsynth_rt.bundles.bundle import MAX_FILE_BYTES, Bundle, refers_to_other_files
from clipsynth_rt.errors import BackendError, BundleError, HashMismatchError, ManifestError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]


@pytest.fixture(params=["cpu", "openvino"])
def provider(request: pytest.FixtureRequest) -> str:
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return str(request.param)


def vouch(bundle: Path) -> None:
    """Write the hashes of what is there into the manifest, as a bundle's own maker can."""
    path = bundle / "manifest.json"
    data = json.loads(path.read_text())
    files = [f for graph in data["graphs"].values() for f in graph["files"].values()]
    for file in [*files, data["condition"]["tokenizer"]]:
        file["sha256"] = hashlib.sha256((bundle / file["path"]).read_bytes()).hexdigest()
    path.write_text(json.dumps(data))


def make(bundle: Path, provider: str) -> Any:
    return Synthesizer.from_bundle(bundle, provider, threads=1).synth("drum", num_steps=1)


def test_swapped_graphs(tiny_copy: Path, provider: str) -> None:
    vocoder, text = tiny_copy / "fp32/vocoder.onnx", tiny_copy / "fp32/text_encoder.onnx"
    aside = vocoder.rename(tiny_copy / "aside")
    text.rename(vocoder)
    aside.rename(text)
    with pytest.raises(HashMismatchError, match=r"(vocoder|text_encoder)\.onnx: sha256 differs"):
        make(tiny_copy, provider)
    vouch(tiny_copy)
    with pytest.raises(BundleError, match=r"inputs are .* and manifest\.json says"):
        make(tiny_copy, provider)


def test_a_missing_graph(tiny_copy: Path, provider: str) -> None:
    (tiny_copy / "fp32/denoiser_step.onnx").unlink()
    with pytest.raises(BundleError, match=r"denoiser_step\.onnx: listed in manifest\.json and"):
        make(tiny_copy, provider)


def test_other_shapes(tiny_copy: Path, provider: str) -> None:
    path = tiny_copy / "fp32/vocoder.onnx"
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 9
    path.write_bytes(model.SerializeToString())
    vouch(tiny_copy)
    with pytest.raises(BundleError, match=r"vocoder\.onnx: "):
        make(tiny_copy, provider)


def test_other_shapes_inside(tiny_copy: Path, provider: str) -> None:
    """The interface is the manifest's and what comes out is not."""
    path = tiny_copy / "fp32/vocoder.onnx"
    model = onnx.load(path)
    helper = onnx.helper
    (output,) = [n for n in model.graph.node if n.output[0] == "waveform"]
    output.output[0] = "whole"
    ends = [
        onnx.numpy_helper.from_array(np.array([v], np.int64), n)
        for n, v in {"from": 0, "to": 7, "axis": 1}.items()
    ]
    model.graph.initializer.extend(ends)
    names = ["whole", "from", "to", "axis"]
    model.graph.node.append(helper.make_node("Slice", names, ["waveform"]))
    path.write_bytes(model.SerializeToString())
    vouch(tiny_copy)
    with pytest.raises(BackendError, match=r"vocoder gave \(1, 7\) samples instead of"):
        make(tiny_copy, provider)


def external(bundle: Path, location: str, length: int | None = None) -> None:
    """Move a graph's weights to another file, as ``onnx.save(save_as_external_data=True)`` does."""
    path = bundle / "fp32/vocoder.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) < 100:
            continue
        (bundle / "fp32/weights.bin").write_bytes(tensor.raw_data)
        entries = {
            "location": location,
            "offset": "0",
            "length": str(length or len(tensor.raw_data)),
        }
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    vouch(bundle)


@pytest.mark.parametrize(
    "location", ["weights.bin", "../../secret", "/etc/passwd", "*/_ORT_MEM_ADDR_/*"]
)
def test_external_data(tiny_copy: Path, provider: str, location: str) -> None:
    external(tiny_copy, location)
    with pytest.raises(BundleError, match=r"vocoder\.onnx: keeps weights in other files"):
        make(tiny_copy, provider)
    with pytest.raises(BundleError, match="keeps weights in other files"):
        Bundle.open(tiny_copy).verify()


def test_huge_external_data(tiny_copy: Path, provider: str) -> None:
    external(tiny_copy, "weights.bin", length=2**50)
    with pytest.raises(BundleError, match="keeps weights in other files"):
        make(tiny_copy, provider)


def test_external_data_in_the_working_folder(
    tiny_copy: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model without a path would be read relative to it."""
    external(tiny_copy, "weights.bin")
    monkeypatch.chdir(tiny_copy / "fp32")
    with pytest.raises(BundleError, match="keeps weights in other files"):
        make(tiny_copy, provider)


@pytest.mark.parametrize("padding", range(9))
def test_external_data_whose_key_is_spelt_otherwise(padding: int) -> None:
    """A varint of 8 may have any number of empty bytes behind it."""
    length = b"\x08" if padding == 0 else b"\x88" + b"\x80" * (padding - 1) + b"\x00"
    assert refers_to_other_files(b"junk location \x0a" + length + b"location")


def test_a_name_that_only_contains_the_word() -> None:
    graph = onnx.helper.make_graph([], "/allocation/relocation", [], [], doc_string="a location")
    assert not refers_to_other_files(onnx.helper.make_model(graph).SerializeToString())


def test_nothing_that_ships_is_taken_for_external_data() -> None:
    Bundle.open().verify()


def test_a_huge_file_is_not_read(tiny_copy: Path) -> None:
    path = tiny_copy / "fp32/vocoder.onnx"
    os.truncate(path, MAX_FILE_BYTES + 1)  # sparse: takes no space
    with pytest.raises(BundleError, match=r"2,147,483,648 bytes; at most 2,147,483,647"):
        Bundle.open(tiny_copy).graph("vocoder").read()


def test_a_huge_manifest_is_not_read(tiny_copy: Path) -> None:
    os.truncate(tiny_copy / "manifest.json", 2**33)
    with pytest.raises(
        ManifestError, match=r"manifest\.json: cannot be read \(8,589,934,592 bytes"
    ):
        Bundle.open(tiny_copy)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", ["manifest.json", "fp32/vocoder.onnx"])
def test_a_named_pipe_is_not_waited_for(tiny_copy: Path, name: str) -> None:
    (tiny_copy / name).unlink()
    os.mkfifo(tiny_copy / name)
    with pytest.raises(BundleError, match="not a regular file"):
        Bundle.open(tiny_copy).verify()


def test_a_device_is_not_read(tiny_copy: Path) -> None:
    (tiny_copy / "manifest.json").unlink()
    (tiny_copy / "manifest.json").symlink_to("/dev/zero")
    with pytest.raises(ManifestError, match="not a regular file"):
        Bundle.open(tiny_copy)


def test_a_file_that_changes_after_the_check_is_not_loaded(
    tiny_copy: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is loaded is what was hashed: the swap happens right behind the check."""
    from clipsynth_rt.bundles import bundle as module

    expected = make(tiny_copy, provider).waveform
    other = (tiny_copy / "fp32/text_encoder.onnx").read_bytes()
    real = module._read

    def read(path: Path, limit: int) -> bytes:
        data = real(path, limit)
        if path.name == "vocoder.onnx":
            path.write_bytes(other)
        return data

    monkeypatch.setattr(module, "_read", read)
    np.testing.assert_array_equal(make(tiny_copy, provider).waveform, expected)


def test_a_graph_that_gives_what_is_not_finite(tiny_copy: Path, provider: str) -> None:
    path = tiny_copy / "fp32/vocoder.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.ndim == 2:
            name = tensor.name
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full_like(array, np.nan), name))
    path.write_bytes(model.SerializeToString())
    vouch(tiny_copy)
    with pytest.raises(BackendError, match="not finite"):
        make(tiny_copy, provider)


def test_an_operator_that_only_other_code_brings(tiny_copy: Path, provider: str) -> None:
    """A custom operator needs a library, and nothing loads one from a bundle."""
    path = tiny_copy / "fp32/vocoder.onnx"
    model = onnx.load(path)
    model.opset_import.add(domain="evil", version=1)
    model.graph.node[0].domain = "evil"
    path.write_bytes(model.SerializeToString())
    shutil.copy("/bin/true", tiny_copy / "fp32/evil.so")
    vouch(tiny_copy)
    with pytest.raises((BundleError, BackendError), match="vocoder"):
        make(tiny_copy, provider)
