"""A bundle as a model repository of Triton Inference Server. Never imports torch.

The graphs become models of ONNX Runtime; ``clipsynth``, of the Python backend, holds tokenizer,
schedule and sampler and calls them (``clipsynth_rt.server.triton``). The layout and the fields of
config.pbtxt are those of Triton's model_config.proto.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from clipsynth_export.staging import check_target, put_in_place, staging
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.bundles.manifest import DENOISERS, MANIFEST_NAME, GraphSpec, TensorSpec
from clipsynth_rt.onnx_editing.dequantize import read_for_gpu
from clipsynth_rt.server.triton import MODEL, OPTIONS
from clipsynth_rt.synthesis.synthesizer import MAX_BATCH

VERSION = "1"
_MARKER = f"{MODEL}/{VERSION}/bundle/{MANIFEST_NAME}"
_TYPES = {"float32": "FP32", "float16": "FP16", "int64": "INT64", "int32": "INT32"}
MAX_QUEUE = 64
"""Requests that wait; Triton refuses what comes on top of them."""
_QUEUE_DELAY_US = 2000

_MODEL_PY = '''"""Needs clipsynth-rt {version} in the Python of Triton's container (pip install)."""

from clipsynth_rt.server.triton import TritonPythonModel as TritonPythonModel
'''

# ONNX Runtime's TensorRT provider builds engines on the server, and keeps them beside the model
_TENSORRT = """\
optimization {{
  execution_accelerators {{
    gpu_execution_accelerator [
      {{
        name: "tensorrt"
        parameters {{ key: "trt_engine_cache_enable" value: "1" }}
        parameters {{ key: "trt_engine_cache_path" value: "/tmp/{name}" }}
      }}
    ]
  }}
}}
"""


def write_repository(
    bundle: Bundle,
    out: str | Path,
    precision: str | Mapping[str, str] | None = None,
    *,
    gpu: bool = False,
    tensorrt: bool = False,
) -> Path:
    """Write a model repository of a bundle's text path.

    Args:
        bundle: An opened bundle; every file is verified as it is copied.
        out: The repository's folder; an older one of this kind is replaced.
        precision: See ``Bundle.graph``.
        gpu: Whether the graphs run on the server's GPU, their products in floating point; on its
            CPU otherwise, as they are.
        tensorrt: Whether denoiser and vocoder run on ONNX Runtime's TensorRT provider, on the GPU.

    Returns:
        ``out``.

    Raises:
        InputError: If the bundle has no such precision.
        BundleError: If a file cannot be used.
        MissingExtraError: If a GPU's graph is in int8, and onnx is not installed.
        OutputError: If ``out`` cannot be written, or holds something else.
    """
    out, gpu = Path(out), gpu or tensorrt
    check_target(out, _MARKER, "Triton model repository of clipsynth-rt")
    with staging(out) as folder:
        # a request may wish for what the distilled denoiser cannot do: both are served
        denoisers = [name for name in DENOISERS if name in bundle.manifest.graphs]
        for graph in ("text_encoder", *denoisers, "vocoder"):
            file = bundle.graph(graph, precision)
            name = f"{MODEL}_{graph}"
            version = folder / name / VERSION
            version.mkdir(parents=True)
            accelerated = tensorrt and graph != "text_encoder"
            model = read_for_gpu(file, "export") if gpu else file.read()
            (version / "model.onnx").write_bytes(model)
            config = graph_config(name, file.spec, gpu=gpu, tensorrt=accelerated)
            (folder / name / "config.pbtxt").write_text(config, encoding="utf-8")
        _write_loop(bundle, folder / MODEL)
        put_in_place(folder, out)
    return out


def _write_loop(bundle: Bundle, folder: Path) -> None:
    """Write the model that calls the others."""
    from clipsynth_rt import __version__

    inner = folder / VERSION / "bundle"
    inner.mkdir(parents=True)
    model = _MODEL_PY.format(version=__version__)
    (folder / VERSION / "model.py").write_text(model, encoding="utf-8")
    (folder / "config.pbtxt").write_text(loop_config(), encoding="utf-8")
    text = json.dumps(bundle.manifest.to_dict(), indent=1, allow_nan=False) + "\n"
    (inner / MANIFEST_NAME).write_text(text, encoding="utf-8")
    tokenizer = inner / bundle.tokenizer_spec().path
    tokenizer.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.write_bytes(bundle.read(bundle.tokenizer_spec()))
    for text_file in ("LICENSE", "NOTICE", "MODEL_CARD.md"):
        if (bundle.path / text_file).is_file():
            shutil.copyfile(bundle.path / text_file, inner / text_file)


def graph_config(name: str, spec: GraphSpec, *, gpu: bool = False, tensorrt: bool = False) -> str:
    """Return config.pbtxt of one graph.

    Shapes are whole, without Triton's own batch dimension: a denoiser step's inputs do not share
    one, and ``clipsynth`` batches by itself. Where it runs is said: left to itself Triton takes a
    GPU that it finds, on which ONNX Runtime has few operators of integers.
    """
    sides = [
        "\n".join(
            _tensor(side, tensor, f"TYPE_{_TYPES[facts.dtype]}", _dims(facts))
            for tensor, facts in tensors.items()
        )
        for side, tensors in (("input", spec.inputs), ("output", spec.outputs))
    ]
    head = f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: 0\n'
    place = f"instance_group [ {{ count: 1 kind: {'KIND_GPU' if gpu else 'KIND_CPU'} }} ]\n"
    more = _TENSORRT.format(name=name) if tensorrt else ""
    return head + "\n".join(sides) + "\n" + place + more


def loop_config() -> str:
    """Return config.pbtxt of the model that is asked: queries in, waveforms out."""
    tensors = [
        _tensor("input", "query", "TYPE_STRING", [1]),
        *(
            _tensor("input", name, f"TYPE_{kind}", [1], optional=True)
            for name, kind in OPTIONS.items()
        ),
        _tensor("output", "waveform", "TYPE_FP32", [-1]),
        _tensor("output", "sample_rate", "TYPE_INT32", [1]),
    ]
    return (
        f'name: "{MODEL}"\nbackend: "python"\nmax_batch_size: {MAX_BATCH}\n'
        + "\n".join(tensors)
        + "\ninstance_group [ { count: 1 kind: KIND_CPU } ]\n"
        "dynamic_batching {\n"
        f"  max_queue_delay_microseconds: {_QUEUE_DELAY_US}\n"
        f"  default_queue_policy {{ max_queue_size: {MAX_QUEUE} }}\n"
        "}\n"
    )


def _dims(spec: TensorSpec) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in spec.shape]


def _tensor(side: str, name: str, kind: str, dims: list[int], *, optional: bool = False) -> str:
    more = " optional: true" if optional else ""
    return f'{side} {{ name: "{name}" data_type: {kind} dims: {dims}{more} }}'
