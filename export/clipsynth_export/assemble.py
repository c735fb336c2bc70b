"""Export a bundle from a checkpoint, measure it, and only then move it into place."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch

from clipsynth_export import precision as precisions
from clipsynth_export.graphs import GraphDescription, calibration_steps, describe_graphs
from clipsynth_export.parity import measure_parity, reference_outputs
from clipsynth_export.source import ExportSource, checkpoint_hashes, load_source
from clipsynth_export.staging import check_target, put_in_place, staging
from clipsynth_export.to_onnx import OPSET, check_model, export_onnx, save_model
from clipsynth_rt import __version__
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.bundles.manifest import (
    DENOISER,
    DENOISERS,
    DISTILLED,
    MANIFEST_NAME,
    SCHEMA_VERSION,
    ConditionSpec,
    FileSpec,
    GraphSpec,
    Manifest,
)
from clipsynth_rt.errors import CheckpointError, InputError, MissingExtraError
from clipsynth_rt.files import sha256_of
from clipsynth_training.checkpoint import default_checkpoint
from clipsynth_training.data.sounds import load_concepts

logger = logging.getLogger(__name__)

GRAPHS = ("text_encoder", "image_encoder", *DENOISERS, "vocoder")
_W8 = dict.fromkeys(("text_encoder", "image_encoder", *DENOISERS), "w8")
_INT8 = dict.fromkeys(DENOISERS, "int8")
PRECISION_PRESETS: dict[str, dict[str, str]] = {
    # what ships: small, and in integers what a plain query needs, where the corpus classifier hears
    # no difference (benchmarks/precisions.py)
    "edge": dict.fromkeys(GRAPHS, "w16") | _W8 | {DISTILLED: "int8", "vocoder": "int8"},
    # as small, but for weights that are stored alone: arithmetic is fp32
    "small": dict.fromkeys(GRAPHS, "w16") | _W8,
    "fp32": dict.fromkeys(GRAPHS, "fp32"),
    "fp16": dict.fromkeys(GRAPHS, "fp16"),
    "fp16-products": dict.fromkeys(GRAPHS, "fp16-products"),
    # either alone or both: benchmarks/precisions.py tells what they cost and gain on a machine
    "int8": dict.fromkeys(GRAPHS, "w16") | _W8 | _INT8,
    "int8-vocoder": dict.fromkeys(GRAPHS, "w16") | _W8 | {"vocoder": "int8"},
}
"""What ``precision`` may say, and the file that each graph then gets if the voice has it."""

NOT_STATED = "not stated"
"""What a bundle says of its licence and author where its maker does not."""

_GROUPS = {"melodic": "instruments", "hit": "drums", "beat": "beats", "effect": "effects"}
"""Style of a concept -> group in the manifest."""
_OTHERS = "others"

_EXTRAS = ("MODEL_CARD.md", "LICENSE", "NOTICE")
"""Copied from the checkpoint folder where it has them."""


def export_bundle(
    checkpoint: str | Path,
    out: str | Path,
    precision: str | Sequence[str] = "edge",
    name: str | None = None,
    *,
    license_id: str | None = None,
    author: str | None = None,
    clip: str | None = None,
    clip_pretrained: str | None = None,
    sentence_encoder: str | Path | None = None,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Turn a checkpoint into a bundle.

    Every file is run as the runtime runs it and compared with PyTorch before the bundle appears;
    on any failure nothing is left at ``out`` but what was there.

    Args:
        checkpoint: Folder with the parts ``clip``, ``denoiser`` and ``vocoder``, and, if there
            are any, ``denoiser_distilled``, ``metrics.json`` and the texts that ship with the
            weights.
        out: The bundle's folder; an older bundle there is replaced.
        precision: One of ``PRECISION_PRESETS``, or several; the first is the default.
        name: The bundle's; the folder's if left out.
        license_id: SPDX identifier of the weights' licence. The shipped checkpoint has its own;
            another is ``NOT_STATED`` if left out: its maker knows what it learnt from.
        author: Who made the voice; ``NOT_STATED`` if left out.
        clip: See ``load_source``, as ``clip_pretrained`` and ``sentence_encoder``.
        clip_pretrained: See there.
        sentence_encoder: See there.
        threads: CPU threads of the measurements.
        progress: Told in a line what was done.

    Returns:
        ``out``.

    Raises:
        InputError: If ``precision`` is unknown.
        OutputError: If ``out`` cannot be written, or holds something that is no bundle.
        CheckpointError: If the checkpoint cannot be used (see ``load_source``).
        ExportError: If a graph cannot be exported.
        ParityError: If a file differs from PyTorch by more than its tolerance.
    """
    presets = check_presets([precision] if isinstance(precision, str) else precision)
    out = Path(out)
    check_target(out, MANIFEST_NAME, "bundle")
    report = progress or logger.info
    source = load_source(checkpoint, clip, clip_pretrained, sentence_encoder)
    with staging(out) as folder:
        specs: dict[str, GraphSpec] = {}
        parity: dict[str, dict[str, dict[str, float]]] = {}
        graphs = describe_graphs(source)
        chosen = {preset: preset_files(preset, graphs.values()) for preset in presets}
        for graph in graphs.values():
            wanted = list(dict.fromkeys(files[graph.name] for files in chosen.values()))
            specs[graph.name], measured = _export_graph(
                graph, wanted, source, folder, threads, report
            )
            for key, figures in measured.items():
                parity.setdefault(key, {})[graph.name] = figures
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name=name or out.resolve().name,
            license=license_id or _own_license(source.folder),
            mel=source.mel,
            diffusion=source.diffusion,
            condition=_condition(source, folder),
            graphs=specs,
            default_precision=chosen[presets[0]],
            concepts=_concepts(source.facts.get("labels", ())),
            parity=parity,
            metrics=_metrics(source.folder),
            provenance={"author": author or NOT_STATED, **_provenance(source, chosen)},
        )
        _write_json(folder / MANIFEST_NAME, manifest.to_dict())
        for extra in _EXTRAS:
            if (source.folder / extra).is_file():
                shutil.copyfile(source.folder / extra, folder / extra)
        size = Bundle.open(folder).verify()
        put_in_place(folder, out)
    report(f"{out}: {size / 1e6:.1f} MB")
    return out


def check_presets(names: Sequence[str]) -> list[str]:
    """Return ``names`` without repetition.

    Raises:
        InputError: If one is unknown, or there is none.
    """
    for name in names:
        if name not in PRECISION_PRESETS:
            raise InputError(f"unknown precision {name!r}; use {', '.join(PRECISION_PRESETS)}")
    if not names:
        raise InputError(f"no precision given; use {', '.join(PRECISION_PRESETS)}")
    return list(dict.fromkeys(names))


def preset_files(preset: str, graphs: Collection[GraphDescription]) -> dict[str, str]:
    """Return the precision of each graph's file under one of ``PRECISION_PRESETS``.

    HiFi-GAN has no matrix products that could be quantised as they come: ``edge`` keeps it at w16.
    """
    files = {graph.name: PRECISION_PRESETS[preset][graph.name] for graph in graphs}
    for graph in graphs:
        if preset == "edge" and files[graph.name] == "int8" and not graph.quantised_scopes:
            files[graph.name] = "w16"
    return files


def _export_graph(
    graph: GraphDescription,
    wanted: Sequence[str],
    source: ExportSource,
    folder: Path,
    threads: int | None,
    report: Callable[[str], None],
) -> tuple[GraphSpec, dict[str, dict[str, float]]]:
    """Write one graph at each of the precisions, and measure each."""
    references = reference_outputs(graph)
    model = export_onnx(graph)
    files: dict[str, FileSpec] = {}
    measured: dict[str, dict[str, float]] = {}
    interface = GraphSpec(graph.inputs, graph.outputs, {})
    for precision in wanted:
        converted = convert(model, graph, precision, source)
        path = folder / precision / f"{graph.name}.onnx"
        save_model(converted, path)
        check_model(onnx.load(path), f"{graph.name} ({precision})")
        result = measure_parity(graph, references, path, interface, precision, threads)
        files[precision] = FileSpec(f"{precision}/{path.name}", sha256_of(path))
        measured[precision] = result.to_dict()
        size = path.stat().st_size / 1e6
        report(f"{graph.name} {precision}: {size:.1f} MB, SNR {result.snr_db:.1f} dB to PyTorch")
    return replace(interface, files=files), measured


def convert(
    model: onnx.ModelProto, graph: GraphDescription, precision: str, source: ExportSource
) -> onnx.ModelProto:
    """Return an fp32 model at another precision.

    Raises:
        ExportError: If it cannot be converted.
    """
    if precision == "fp32":
        return model
    if precision == "w16":
        return precisions.store_half(model)
    if precision in ("fp16", "fp16-products"):
        halved = precisions.to_fp16(model, graph.half_scopes, graph.name)
        return halved if precision == "fp16" else precisions.halve_products(halved)
    if precision == "w8":
        if graph.name == "text_encoder":
            return precisions.store_tables(model)
        if graph.name == "image_encoder":
            return precisions.store_blocks(model, precisions.LEAST_OF_IMAGES)
        return precisions.store_blocks(model)
    if graph.name == "vocoder":
        return precisions.quantise_products(model, graph.quantised_scopes, graph.name)
    return precisions.quantise_static(
        model, graph.quantised_scopes, calibration_steps(source, graph.name), graph.name
    )


def _condition(source: ExportSource, folder: Path) -> ConditionSpec:
    clip, path = source.clip, folder / "tokenizer.json"
    clip.tokenizer.save(str(path), pretty=False)
    return ConditionSpec(
        encoder=clip.name,
        dim=clip.dim,
        context_length=clip.context_length,
        templates=clip.templates,
        image_size=clip.image_size,
        tokenizer=FileSpec(path.name, sha256_of(path)),
    )


def _own_license(checkpoint: Path) -> str:
    """Return the licence of the shipped checkpoint, of which alone it is known here."""
    try:
        shipped = default_checkpoint()
    except MissingExtraError:
        return NOT_STATED
    return "Apache-2.0" if checkpoint.resolve() == shipped.resolve() else NOT_STATED


def _concepts(labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return what a voice learnt by group: those of the open corpus by style, and others."""
    styles = {concept.name: concept.style for concept in load_concepts()}
    groups: dict[str, list[str]] = {group: [] for group in (*_GROUPS.values(), _OTHERS)}
    for label in labels:
        groups[_GROUPS.get(styles.get(label, ""), _OTHERS)].append(label)
    return {group: tuple(sorted(names)) for group, names in groups.items() if names}


def _metrics(folder: Path) -> dict[str, Any]:
    path = folder / "metrics.json"
    if not path.is_file():
        return {}
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not JSON ({error}); run clipsynth-rt evaluate") from error
    if not isinstance(metrics, dict):
        raise CheckpointError(f"{path}: expected an object; run clipsynth-rt evaluate")
    return metrics


def _provenance(source: ExportSource, chosen: Mapping[str, dict[str, str]]) -> dict[str, Any]:
    modules = {
        "text_encoder": source.clip.text_tower,
        "image_encoder": source.clip.image_tower,
        DENOISER: source.unet,
        **({} if source.distilled is None else {DISTILLED: source.distilled}),
        "vocoder": source.vocoder,
    }
    return {
        "clipsynth_rt": __version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "opset": OPSET,
        "precision": dict(chosen),
        "checkpoint_sha256": checkpoint_hashes(source.folder),
        "sentence_encoder": source.clip.facts.get("sentence_encoder"),
        "parameters": {
            name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()
        },
        "training": _training(source.facts),
        **({"distillation": _training(source.distilled_facts)} if source.distilled else {}),
    }


def _training(facts: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("optimiser", "distil", "steps", "data", "data_license")
    return {key: facts[key] for key in kept if key in facts}


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
