"""Build a working bundle of a few kilobytes, for tests: ``python make_tiny_bundle.py FOLDER``.

Its graphs have the exact interface of a real bundle and simple arithmetic inside, so every
result can be computed by hand. It is no voice: nothing finds it unless it is named.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from clipsynth_rt.bundles.manifest import (
    DENOISER,
    DISTILLED,
    SCHEMA_VERSION,
    ConditionSpec,
    DiffusionSpec,
    FileSpec,
    GraphSpec,
    Manifest,
    MelSpec,
    TensorSpec,
)

BINS, DIM, HOP, IMAGE_SIZE, CONTEXT = 8, 4, 256, 16, 12
WORDS = ["drum", "piano", "dog", "rain", "snare", "a", "photo", "of", "the", "sound"]
# everything that the arithmetic uses is written out: a new default must not change this bundle
MEL = MelSpec(sample_rate=22050, n_mels=BINS, hop_length=HOP, mean=-6.0, std=3.0)
DIFFUSION = DiffusionSpec(
    num_train_timesteps=1000,
    num_steps=8,
    guidance_scale=2.0,
    frames_multiple=8,
    max_frames=172,
    default_frames=44,
    x0_min=-2.0,
    x0_max=4.0,
)

INTERFACES: dict[str, tuple[dict[str, TensorSpec], dict[str, TensorSpec]]] = {
    "text_encoder": (
        {
            "input_ids": TensorSpec("int64", ("B", "L")),
            "attention_mask": TensorSpec("int64", ("B", "L")),
        },
        {"embedding": TensorSpec("float32", ("B", DIM))},
    ),
    "image_encoder": (
        {"image": TensorSpec("float32", ("B", 3, IMAGE_SIZE, IMAGE_SIZE))},
        {"embedding": TensorSpec("float32", ("B", DIM))},
    ),
    "denoiser_step": (
        {
            "x": TensorSpec("float32", ("B", BINS, "F")),
            "t": TensorSpec("float32", (1,)),
            "s": TensorSpec("float32", (1,)),
            "condition": TensorSpec("float32", ("G", "B", DIM)),
            "weights": TensorSpec("float32", ("G",)),
            "eta": TensorSpec("float32", (1,)),
            "noise": TensorSpec("float32", ("B", BINS, "F")),
        },
        {
            "x_next": TensorSpec("float32", ("B", BINS, "F")),
            "x0": TensorSpec("float32", ("B", BINS, "F")),
        },
    ),
    "vocoder": (
        {"mel": TensorSpec("float32", ("B", BINS, "F"))},
        {"waveform": TensorSpec("float32", ("B", "T"))},
    ),
}
INTERFACES[DISTILLED] = INTERFACES[DENOISER]


def weights(name: str, *shape: int, scale: float = 1.0) -> np.ndarray:
    """Return fixed weights in [-scale, scale] that depend on the name alone."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    uniform = np.random.Generator(np.random.Philox(seed)).random(shape)
    return (scale * (2.0 * uniform - 1.0)).astype(np.float32)


class GraphBuilder:
    """Collects nodes; every method returns the name of what its node gives."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, value: np.ndarray | float | list[int]) -> str:
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *inputs: str, out: str = "", **attributes: object) -> str:
        name = out or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def save(self, path: Path, name: str) -> GraphSpec:
        inputs, outputs = INTERFACES[name]
        kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
        sides = [
            [helper.make_tensor_value_info(k, kinds[v.dtype], v.shape) for k, v in side.items()]
            for side in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, name, *sides, self.constants)
        opset = helper.make_opsetid("", 18)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
        onnx.checker.check_model(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString())
        file = FileSpec(f"{path.parent.name}/{path.name}", sha256(path))
        return GraphSpec(inputs, outputs, {path.parent.name: file})


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unit(g: GraphBuilder, rows: str) -> str:
    """Divide [B, D] by its rows' lengths, and call the result ``embedding``."""
    return g.op("Div", rows, g.op("ReduceL2", rows, g.const([-1])), out="embedding")


def text_encoder() -> GraphBuilder:
    """Mean of the tokens' fixed vectors."""
    g = GraphBuilder()
    table = g.const(weights("words", len(WORDS) + 2, DIM))
    mask = g.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    column = g.op("Unsqueeze", mask, g.const([-1]))
    rows = g.op("Mul", g.op("Gather", table, "input_ids"), column)
    unit(g, g.op("ReduceSum", rows, g.const([1]), keepdims=0))
    return g


def image_encoder() -> GraphBuilder:
    """A linear map of the mean colour."""
    g = GraphBuilder()
    colour = g.op("ReduceMean", "image", g.const([2, 3]), keepdims=0)
    mixed = g.op("MatMul", colour, g.const(weights("colour", 3, DIM)))
    unit(g, g.op("Add", mixed, g.const(weights("colour bias", DIM, scale=0.1))))
    return g


def distilled_step() -> GraphBuilder:
    """The same arithmetic with another matrix W."""
    return denoiser_step("distilled projection")


def denoiser_step(matrix: str = "projection") -> GraphBuilder:
    """v = 0.3 x + 0.1 t + condition @ W, then guidance, clipping and DDIM as a real one does."""
    g = GraphBuilder()
    half_pi, one, zero = g.const(np.pi / 2), g.const(1.0), g.const(0.0)
    alpha, sigma = {}, {}
    for time in ("t", "s"):
        angle = g.op("Mul", time, half_pi)
        alpha[time], sigma[time] = g.op("Cos", angle), g.op("Sin", angle)
    projected = g.op("MatMul", "condition", g.const(weights(matrix, DIM, BINS, scale=2.0)))
    per_bin = g.op("Unsqueeze", projected, g.const([-1]))  # [G, B, M, 1]
    shared = g.op("Add", g.op("Mul", "x", g.const(0.3)), g.op("Mul", "t", g.const(0.1)))
    v = g.op("Add", g.op("Unsqueeze", shared, g.const([0])), per_bin)  # [G, B, M, F]
    each_x0 = g.op("Sub", g.op("Mul", alpha["t"], "x"), g.op("Mul", sigma["t"], v))
    share = g.op("Reshape", "weights", g.const([-1, 1, 1, 1]))
    guided = g.op("ReduceSum", g.op("Mul", each_x0, share), g.const([0]), keepdims=0)
    bounds = g.const(DIFFUSION.x0_min), g.const(DIFFUSION.x0_max)
    x0 = g.op("Clip", guided, *bounds, out="x0")
    eps = g.op("Div", g.op("Sub", "x", g.op("Mul", alpha["t"], x0)), sigma["t"])
    ratio = g.op("Div", alpha["t"], alpha["s"])
    drop = g.op("Sqrt", g.op("Max", zero, g.op("Sub", one, g.op("Mul", ratio, ratio))))
    fresh = g.op("Mul", g.op("Mul", "eta", g.op("Div", sigma["s"], sigma["t"])), drop)
    left = g.op("Sub", g.op("Mul", sigma["s"], sigma["s"]), g.op("Mul", fresh, fresh))
    kept = g.op("Mul", g.op("Sqrt", g.op("Max", zero, left)), eps)
    clean = g.op("Add", g.op("Mul", alpha["s"], x0), kept)
    g.op("Add", clean, g.op("Mul", fresh, "noise"), out="x_next")
    return g


def vocoder() -> GraphBuilder:
    """Each bin plays its own sine at the bin's level."""
    g = GraphBuilder()
    period = np.arange(HOP) / HOP
    basis = np.stack([np.sin(2 * np.pi * (k + 2) * period) for k in range(BINS)])
    frames = g.op("Transpose", "mel", perm=[0, 2, 1])
    level = g.op("Exp", g.op("Sub", frames, g.const(2.0)))
    sound = g.op("MatMul", level, g.const(basis / BINS))
    flat = g.op("Reshape", sound, g.const([0, -1]))
    g.op("Tanh", flat, out="waveform")
    return g


def tokenizer_json() -> str:
    """Return a tokenizer of whole words, fixed padding included, as published ones have."""
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=CONTEXT)
    return tokenizer.to_str(pretty=True)


def make_tiny_bundle(folder: str | Path, distilled_steps: tuple[int, ...] = ()) -> Path:
    """Write the bundle into ``folder`` and return it.

    Args:
        folder: Where it goes.
        distilled_steps: Of its distilled denoiser; none is a bundle without one.
    """
    folder = Path(folder)
    builders = {
        "text_encoder": text_encoder,
        "image_encoder": image_encoder,
        "denoiser_step": denoiser_step,
        "vocoder": vocoder,
    }
    if distilled_steps:
        builders[DISTILLED] = distilled_step
    graphs = {
        name: build().save(folder / "fp32" / f"{name}.onnx", name)
        for name, build in builders.items()
    }
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer_json(), encoding="utf-8")
    condition = ConditionSpec(
        encoder="tiny",
        dim=DIM,
        context_length=CONTEXT,
        templates=("a photo of {query}", "the sound of {query}"),
        image_size=IMAGE_SIZE,
        tokenizer=FileSpec("tokenizer.json", sha256(tokenizer)),
    )
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name="tiny-test",
        license="Apache-2.0",
        mel=MEL,
        diffusion=dataclasses.replace(DIFFUSION, distilled_steps=distilled_steps),
        condition=condition,
        graphs=graphs,
        default_precision=dict.fromkeys(graphs, "fp32"),
        metrics={"top1": 0.0},
        provenance={"made_by": "tests/make_tiny_bundle.py"},
    )
    (folder / "manifest.json").write_text(json.dumps(manifest.to_dict(), indent=1) + "\n")
    return folder


if __name__ == "__main__":
    make_tiny_bundle(sys.argv[1])
