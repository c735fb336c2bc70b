"""Try clean-up and fusion passes on every graph: python benchmarks/graph_passes.py -o FILE.

Each pass rewrites the graphs of a bundle (the shipped one, or ``--bundle``) before ONNX Runtime's
own optimisation, which folds constants and fuses too. Told are the nodes that ONNX Runtime then
runs, how far the outputs moved, and the time of a run against the graph as it is, by turns. A pass
is worth keeping where ``gain`` is above its ``spread``. ``pip install onnxslim onnxsim`` brings two
of them; where a package is missing, the report says so.
"""

import argparse
import datetime
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from clipsynth_export.parity import difference
from clipsynth_rt import Synthesizer
from clipsynth_rt.backends.ort.session import session_options
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.bundles.manifest import DISTILLED
from clipsynth_rt.files import write_atomically
from clipsynth_rt.machine import describe_machine, package_version
from clipsynth_rt.synthesis.schedule import gaussian_noise

Inputs = dict[str, np.ndarray]


def slim(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and shapes, and drop what repeats."""
    import onnxslim

    return onnxslim.slim(model)


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and shapes by running them."""
    import onnxsim

    return onnxsim.simplify(model)[0]


def fuse(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fuse attention, layer normalisation and GELU, as for BERT; the numbers are found by shape."""
    from onnxruntime.transformers import optimizer

    # 0, 0: heads and width are read from the graph
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        fused = optimizer.optimize_model(
            str(path), model_type="bert", num_heads=0, hidden_size=0, opt_level=0
        )
        return fused.model


PASSES: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "onnxslim": slim,
    "onnxsim": simplify,
    "onnxruntime.transformers": fuse,
}


def example_inputs(bundle: Bundle) -> dict[str, Inputs]:
    """Return what each graph is given for a clip of the default length."""
    voice = Synthesizer(bundle, "cpu")
    manifest = bundle.manifest
    diffusion, bins, dim = manifest.diffusion, manifest.mel.n_mels, manifest.condition.dim
    ids, mask = voice.tokenize(["a photo of drum"])
    embedding = voice.encode_text(["drum"])
    noise = gaussian_noise(0, diffusion.default_frames, bins)[None]
    mel = voice.sample(embedding, [0], diffusion.default_frames, num_steps=2)
    size = manifest.condition.image_size
    one = np.ones(1, np.float32)
    found = {
        "text_encoder": {"input_ids": ids, "attention_mask": mask},
        "image_encoder": {"image": np.full((1, 3, size, size), 0.5, np.float32)},
        "denoiser_step": {
            "x": noise,
            "noise": np.zeros_like(noise),
            "t": 0.8 * one,
            "s": 0.4 * one,
            "eta": 0.0 * one,
            "condition": np.stack([embedding, np.zeros((1, dim), np.float32)]),
            "weights": np.array([2.0, -1.0], np.float32),
        },
        "vocoder": {"mel": mel},
    }
    found[DISTILLED] = {
        **found["denoiser_step"],
        "condition": embedding[None],
        "weights": one,
    }
    return {name: inputs for name, inputs in found.items() if name in manifest.graphs}


def load(model: onnx.ModelProto) -> tuple[Any, int]:
    """Return a session as the runtime makes it, and how many nodes it runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options = session_options()
        options.optimized_model_filepath = str(path)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return session, len(onnx.load(path).graph.node)


def time_pair(first: Any, second: Any, inputs: Inputs, repeats: int) -> tuple[list[float], ...]:
    """Return seconds of both sessions, run by turns."""
    seconds: tuple[list[float], ...] = ([], [])
    for number in range(repeats + 2):
        for session, kept in zip((first, second), seconds, strict=True):
            began = time.perf_counter()
            session.run(None, inputs)
            if number >= 2:
                kept.append(time.perf_counter() - began)
    return seconds


def try_pass(name: str, model: onnx.ModelProto, inputs: Inputs, repeats: int) -> dict[str, Any]:
    """Return what a pass changes, or the problem that it ended in."""
    before, nodes = load(model)
    try:
        copy = onnx.ModelProto.FromString(model.SerializeToString())
        after, nodes_after = load(PASSES[name](copy))
        expected, found = before.run(None, inputs), after.run(None, inputs)
        away = [difference(a, b) for a, b in zip(expected, found, strict=True)]
    # a pass of someone else's may fail in any way, and that is a finding
    except Exception as error:
        return {"problem": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    old, new = time_pair(before, after, inputs, repeats)
    ratios = [a / b for a, b in zip(old, new, strict=True)]
    low, high = np.quantile(ratios, [0.25, 0.75])
    return {
        "nodes": [nodes, nodes_after],
        "snr_db": round(min(d.snr_db for d in away), 1),
        "least_s": [min(old), min(new)],
        "median_s": [statistics.median(old), statistics.median(new)],
        "gain": round(statistics.median(ratios) - 1.0, 4),
        "spread": round(float(high - low) / 2.0, 4),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, help="the shipped one if left out")
    parser.add_argument("--graph", action="append", dest="graphs", help="default: all")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    report: dict[str, Any] = {
        "measured": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        "bundle": bundle.manifest.name,
        "versions": {
            name: package_version(name) for name in ("onnxruntime", "onnxslim", "onnxsim", "onnx")
        },
        "graphs": {},
    }
    for graph, inputs in example_inputs(bundle).items():
        if arguments.graphs and graph not in arguments.graphs:
            continue
        file = bundle.graph(graph)
        model = onnx.load(file.path)
        found = {name: try_pass(name, model, inputs, arguments.repeats) for name in PASSES}
        report["graphs"][graph] = {"precision": file.precision, **found}
        for name, row in found.items():
            print(f"{graph} {name}: {row}", flush=True)
    write_atomically(arguments.out, json.dumps(report, indent=1).encode() + b"\n")


if __name__ == "__main__":
    main()
