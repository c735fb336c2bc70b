"""Bundles made to harm: each is refused by name, on every provider that reads files."""

from __future__ import annotations

import base64
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
from clipsynth_rt.bundles.bundle import MAX_FILE_BYTES, Bundle
from clipsynth_rt.bundles.onnx_file import refers_to_other_files
from clipsynth_rt.bundles.tokenizer import Tokenizer
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
    with pytest.raises(ManifestError, match=r"cannot be read \(a symbolic link"):
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


def test_a_linked_manifest_is_not_followed(tiny_copy: Path, tmp_path: Path) -> None:
    manifest = (tiny_copy / "manifest.json").rename(tmp_path / "elsewhere.json")
    (tiny_copy / "manifest.json").symlink_to(manifest)
    with pytest.raises(ManifestError, match=r"cannot be read \(a symbolic link"):
        Bundle.open(tiny_copy)


def graph_of(nodes: list[Any], **extra: Any) -> bytes:
    info = onnx.helper.make_tensor_value_info
    mel = info("mel", onnx.TensorProto.FLOAT, ["B", 8, "F"])
    waveform = info("waveform", onnx.TensorProto.FLOAT, ["B", "T"])
    graph = onnx.helper.make_graph(nodes, "g", [mel], [waveform])
    return bytes(onnx.helper.make_model(graph, **extra).SerializeToString())


def control_flow(operator: str) -> bytes:
    body = onnx.helper.make_graph([], "body", [], [])
    return graph_of([onnx.helper.make_node(operator, ["mel"], ["waveform"], body=body)])


def model_function() -> bytes:
    node = onnx.helper.make_node("Identity", ["a"], ["b"])
    opset = [onnx.helper.make_opsetid("", 18)]
    function = onnx.helper.make_function("f", "F", ["a"], ["b"], [node], opset)
    return graph_of([onnx.helper.make_node("F", ["mel"], ["waveform"], domain="f")]) + bytes(
        onnx.ModelProto(functions=[function]).SerializeToString()
    )


def split_graph() -> bytes:
    """Two graphs, which a parser of protobuf merges into one."""
    return graph_of([onnx.helper.make_node("Identity", ["mel"], ["waveform"])]) + control_flow("If")


FORBIDDEN = {
    "Loop": (lambda: control_flow("Loop"), r"has control flow \(Loop\)"),
    "Scan": (lambda: control_flow("Scan"), r"has control flow \(Scan\)"),
    "If": (lambda: control_flow("If"), r"has control flow \(If\)"),
    "split": (split_graph, r"has control flow \(If\)"),
    "functions": (model_function, "defines functions of its own"),
    "contrib": (
        lambda: graph_of(
            [onnx.helper.make_node("Gelu", ["mel"], ["waveform"], domain="com.microsoft")]
        ),
        r"operator 'com\.microsoft\.Gelu' that is not one of ONNX's own",
    ),
    "ort format": (lambda: b"\x14\0\0\0ORTM\x0c\0\x10\0", "ONNX Runtime's own format"),
    "cut": (lambda: graph_of([])[:-3], "is not an ONNX graph"),
    "text": (lambda: b"#!/bin/sh\necho\n", "is not an ONNX graph"),
    "empty": (lambda: b"", "is not an ONNX graph"),
}


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_graphs_that_a_bundle_may_not_hold(tiny_copy: Path, provider: str, kind: str) -> None:
    """Small files that run for ever, grow without end, or are in another format."""
    content, message = FORBIDDEN[kind]
    (tiny_copy / "fp32/vocoder.onnx").write_bytes(content())
    vouch(tiny_copy)
    with pytest.raises(BundleError, match=rf"vocoder\.onnx: .*{message}"):
        make(tiny_copy, provider)
    with pytest.raises(BundleError, match=message):
        Bundle.open(tiny_copy).verify()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("mel.sample_rate", 2147483647, "is not from"),
        ("mel.hop_length", 1, "is not from"),
        ("mel.hop_length", 16, "over 1,000 frames a second"),
        ("mel.win_length", 2147483647, "is not from"),
        ("mel.win_length", 1025, "more than n_fft"),
        ("mel.n_fft", 1, "is not from"),
        ("mel.n_fft", 255, "plus an even number"),
        ("mel.n_fft", 1025, "plus an even number"),
        ("mel.n_mels", 2048, "is not from"),
        ("mel.f_max_hz", 1e9, "is not from"),
        ("mel.f_max_hz", 12000.0, "half the sample rate"),
        ("mel.f_min_hz", -1.0, "is not from"),
        ("mel.power", 0.0, "is not from"),
        ("mel.floor", -1.0, "is not from"),
        ("mel.floor", 0.0, "is not from"),
        ("mel.std", 1e-300, "is not from"),
        ("mel.mean", 1e300, "is not from"),
        ("diffusion.max_frames", 2**31 - 1, "is not from"),
        ("diffusion.time_shift", 1e300, "is not from"),
        ("diffusion.x0_max", 1e300, "is not from"),
        ("diffusion.num_train_timesteps", 2**31 - 1, "is not from"),
        ("condition.context_length", 2**31 - 1, "is not from"),
        ("condition.image_size", 2**31 - 1, "is not from"),
        ("condition.templates", ["{query}"] * 100_000, "100000; at most 100"),
        ("condition.templates", ["{query}" * 1000], "7000 characters; at most 1000"),
        ("name", "x\n\x1b[31mFAKE\x1b]0;pwn\x07", "has control characters"),
        ("name", "x\u202egpj.exe", "has control characters"),
        ("license", "\x1b[2J", "has control characters"),
        ("condition.encoder", "\x9b31m", "has control characters"),
        ("\x1b[31m", 1, r"\\x1b\[31m: unknown key"),
    ],
)
def test_manifests_that_fail_later(tiny_copy: Path, field: str, value: Any, message: str) -> None:
    path = tiny_copy / "manifest.json"
    data = json.loads(path.read_text())
    part, _, name = field.rpartition(".")
    (data[part] if part else data)[name] = value
    path.write_text(json.dumps(data))
    with pytest.raises(ManifestError, match=message) as caught:
        Bundle.open(tiny_copy)
    assert str(caught.value).isprintable()


def tokenizer_with(**changes: Any) -> bytes:
    model = {"type": "WordLevel", "vocab": {"drum": 0, "[UNK]": 1}, "unk_token": "[UNK]"}
    return json.dumps({"version": "1.0", "added_tokens": [], "model": model, **changes}).encode()


def replace_all(count: int, pattern: dict[str, str], content: str) -> dict[str, Any]:
    one = {"type": "Replace", "pattern": pattern, "content": content}
    return {"type": "Sequence", "normalizers": [one] * count}


TOKENIZERS = {
    "unknown token": (
        {"model": {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "[NOPE]"}
         | {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}},
        "fails on a text",
    ),
    "merges": (
        {"model": {"type": "BPE", "vocab": {"d": 0, "r": 1}, "merges": ["d r", "x y"]}},
        "not a tokenizer",
    ),
    "precompiled": (
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        "normalizer 'Precompiled' is not one that a bundle may use",
    ),
    "nested": (
        {"normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Sequence", "normalizers": [
                {"type": "Precompiled", "precompiled_charsmap": "AAAA"}]}]}},
        "normalizer 'Precompiled'",
    ),
    "doubling": (
        {"normalizer": replace_all(40, {"String": "a"}, "aa")},
        "over 16 parts",
    ),
    "doubling less often": (
        {"normalizer": replace_all(12, {"String": "a"}, "aa")},
        "multiplies a text by 4096",
    ),
    "a thousandfold": (
        {"normalizer": replace_all(3, {"Regex": "."}, "a" * 1000)},
        "the pattern '.' is not one that a bundle may use",
    ),
    "slow pattern": (
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}}
         | {"behavior": "Isolated", "invert": False}},
        r"the pattern '\(a\+\)\+\$' is not one",
    ),
    "no object": ({"normalizer": 3}, "normalizer 3 is not one"),
    "no model": ({"model": None}, "not a tokenizer"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_tokenizers_are_tried_when_they_are_loaded(tiny_copy: Path, kind: str) -> None:
    """The library panics (a BaseException), hangs or fails with a traceback on each of them."""
    changes, message = TOKENIZERS[kind]
    (tiny_copy / "tokenizer.json").write_bytes(tokenizer_with(**changes))
    vouch(tiny_copy)
    with pytest.raises(BundleError, match=rf"tokenizer\.json: .*{message}"):
        make(tiny_copy, "cpu")


def test_a_panic_on_other_letters(tiny_copy: Path) -> None:
    charsmap = base64.b64encode(b"\0\2" + bytes(600)).decode()
    changed = {"normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap}}
    (tiny_copy / "tokenizer.json").write_bytes(tokenizer_with(**changed))
    vouch(tiny_copy)
    with pytest.raises(BundleError, match="Precompiled"):
        make(tiny_copy, "cpu")


def test_a_panic_while_it_runs(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the trial did not meet is an error of the bundle, not the end of the process."""

    class PanicException(BaseException):
        pass

    class Panics:
        def encode_batch(self, texts: list[str]) -> None:
            raise PanicException("byte index 1 is not a char boundary")

    tokenizer = Tokenizer((tiny_copy / "tokenizer.json").read_bytes(), 12)
    monkeypatch.setattr(tokenizer, "_tokenizer", Panics())
    with pytest.raises(BundleError, match=r"fails on a text \(byte index 1"):
        tokenizer.tokenize(["drum"])


def test_a_huge_tokenizer(tiny_copy: Path) -> None:
    os.truncate(tiny_copy / "tokenizer.json", 40 * 2**20)
    vouch(tiny_copy)
    with pytest.raises(BundleError, match=r"tokenizer\.json: 41,943,040 bytes; at most 33,554,432"):
        make(tiny_copy, "cpu")
