"""Measure what each precision costs and gains on the CPU: python benchmarks/precisions.py SHARDS
--labels CSV -o FILE.

Each variant makes the same clips, of the same queries and seeds. The corpus classifier hears them:
top-1, and FAD to the real test clips under its embedding; every stage is timed, the variants by
turns. A variant may become the CPU's default only if its top-1 is within a point of fp32's and its
clips take less time; of those that may, the fastest is named. Without ``--bundle``, one is exported
from ``--checkpoint`` with all precisions.
"""

import argparse
import datetime
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clipsynth_rt import Synthesizer
from clipsynth_rt.backends.choice import open_session
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.bundles.manifest import DENOISER, DISTILLED
from clipsynth_rt.cli.common.progress import query_progress
from clipsynth_rt.errors import InputError
from clipsynth_rt.files import write_atomically
from clipsynth_rt.jobs.bench import bench_clips, bench_stages, describe_run
from clipsynth_rt.machine import describe_machine
from clipsynth_rt.synthesis.options import SynthOptions, resolve_options
from clipsynth_training.checkpoint import default_checkpoint
from clipsynth_training.evaluate.measures.metrics import frechet_distance
from clipsynth_training.evaluate.protocol import Heard, Judge, LabelledClips

REFERENCE = "fp32"
LARGEST_LOSS = 0.01
"""Of top-1, for a variant to become the default."""

_STORED = {"text_encoder": "w8", DENOISER: "w8", "vocoder": "w16"}
VARIANTS: dict[str, dict[str, str]] = {
    REFERENCE: dict.fromkeys(_STORED, "fp32"),
    "small": _STORED,
    "int8 denoiser": _STORED | {DENOISER: "int8"},
    "int8 vocoder": _STORED | {"vocoder": "int8"},
    "int8 both": _STORED | {DENOISER: "int8", "vocoder": "int8"},
}
"""What runs in what; a distilled denoiser in the same as the ordinary one.

The text encoder's tables are int8 in all but fp32: its products are not, which
``clipsynth_export.precision`` explains.
"""


def export(checkpoint: Path, folder: Path) -> Path:
    """Export a voice with every precision that the variants need."""
    from clipsynth_export.assemble import export_bundle

    plans = ["small", "fp32", "int8", "int8-vocoder"]
    return export_bundle(checkpoint, folder, plans, progress=print)


def files(name: str, bundle: Bundle) -> dict[str, str]:
    """Return the precision of each graph of a bundle in one of ``VARIANTS``."""
    variant = VARIANTS[name]
    more = {DISTILLED: variant[DENOISER]} if DISTILLED in bundle.manifest.graphs else {}
    return {**variant, **more}


def check_variants(bundle: Bundle, names: Sequence[str]) -> None:
    """Check that a bundle has what the variants need, before any work is done.

    Raises:
        InputError: If a variant is not known, or the bundle has no such file.
    """
    for name in (REFERENCE, *names):
        if name not in VARIANTS:
            raise InputError(f"unknown variant {name!r}; use {', '.join(VARIANTS)}")
        for graph in files(name, bundle):
            bundle.graph(graph, files(name, bundle))


def make_clips(
    synthesizer: Synthesizer, queries: Sequence[str], seeds: int, name: str
) -> list[np.ndarray]:
    """Return waveforms: ``seeds`` of each query, in order."""
    made = []
    with query_progress(name) as progress:
        for number, query in enumerate(queries):
            clips = synthesizer.synth_batch([query] * seeds, seed=list(range(seeds)))
            made += [clip.waveform for clip in clips]
            progress(number + 1, len(queries))
    return made


def quality(heard: Heard, real: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Return top-1 with its interval, top-5 and FAD."""
    scores = heard.scores(labels)
    kept = {key: scores[key] for key in ("clips", "top1", "top1_interval", "top5")}
    return {**kept, "fad_to_test": frechet_distance(heard.embedding, real)}


def agreement(heard: Heard, reference: Heard) -> float:
    """Return in what share of clips the classifier hears the same as in the reference's."""
    same = heard.posterior.argmax(axis=1) == reference.posterior.argmax(axis=1)
    return float(same.mean())


def time_by_turns(
    voices: Mapping[str, Synthesizer], rounds: int, repeats: int
) -> dict[str, dict[str, float]]:
    """Return seconds by stage for every voice: the least of the rounds' medians.

    One round after the other, so that whatever else the machine does meets all of them.
    """
    best: dict[str, dict[str, float]] = {name: {} for name in voices}
    for _ in range(rounds):
        for name, voice in voices.items():
            rows = bench_stages(voice, repeats=repeats, warmup=1)
            rows += bench_clips(voice, repeats=repeats, warmup=1)
            for row in rows:
                stage = (
                    f"{row.stage} guided"
                    if row.stage == "step" and row.guidance_scale != 1.0
                    else ""
                )
                stage = stage or row.stage
                seconds = min(row.timing.median_s, best[name].get(stage, np.inf))
                best[name][stage] = seconds
    return best


def decide(variants: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the variant that the rule in the module's text makes the CPU's default."""
    reference = variants[REFERENCE]

    def allowed(found: Mapping[str, Any]) -> bool:
        keeps = found["top1"] >= reference["top1"] - LARGEST_LOSS
        return bool(keeps and found["seconds"]["clip"] <= reference["seconds"]["clip"])

    names = [name for name, found in variants.items() if allowed(found)]
    return min(names, key=lambda name: variants[name]["seconds"]["clip"])


def precisions_in_use(bundle: Bundle, provider: str) -> dict[str, Any]:
    """Return, for each graph, how many nodes of the loaded int8 file compute in integers.

    A runtime may turn a quantised graph back into floating point; ONNX Runtime writes what it
    really runs.
    """
    import onnx
    import onnxruntime

    found: dict[str, Any] = {}
    if provider != "cpu":
        return found
    for graph in (DENOISER, DISTILLED, "vocoder"):
        if graph not in bundle.manifest.graphs:
            continue
        if "int8" not in bundle.manifest.graphs[graph].files:
            continue
        file = bundle.graph(graph, "int8")
        open_session(file, provider)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimised.onnx"
            options = onnxruntime.SessionOptions()
            options.optimized_model_filepath = str(path)
            options.log_severity_level = 4
            onnxruntime.InferenceSession(
                str(file.path), options, providers=["CPUExecutionProvider"]
            )
            kinds = [node.op_type for node in onnx.load(path).graph.node]
        integer = [k for k in kinds if k.startswith("QLinear") or "Integer" in k]
        integer += [k for k in kinds if k == "DynamicQuantizeMatMul"]
        float_kinds = [k for k in kinds if k in ("Conv", "FusedConv", "MatMul", "Gemm")]
        found[graph] = {"integer_nodes": len(integer), "float_nodes": len(float_kinds)}
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", type=Path, help="folder with the shard folder test")
    parser.add_argument("--labels", type=Path, required=True, help="the corpus's labels.csv")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, help="with all precisions; exported if left out")
    parser.add_argument("--checkpoint", type=Path, default=default_checkpoint())
    parser.add_argument("--variant", action="append", dest="variants", help="default: all")
    parser.add_argument("--concepts", type=int, help="the first so many; default: all")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="of timing")
    parser.add_argument("--repeats", type=int, default=5, help="in a round")
    parser.add_argument("--provider", default="cpu")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.bundle or export(arguments.checkpoint, Path(folder) / "bundle")
        report = measure(Bundle.open(path), arguments)
    write_atomically(arguments.out, json.dumps(report, indent=1).encode() + b"\n")
    print(f"{arguments.out}: default of the CPU: {report['cpu_default']}")


def measure(bundle: Bundle, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the report."""
    names = list(dict.fromkeys([REFERENCE, *(arguments.variants or VARIANTS)]))
    check_variants(bundle, names)
    judge = Judge(arguments.checkpoint)
    test = LabelledClips.open(
        arguments.shards / "test", arguments.labels, judge.labels, judge.mel_spec
    )
    queries = judge.labels[: arguments.concepts]
    target = np.repeat(np.arange(len(queries)), arguments.seeds).tolist()
    real = np.concatenate(
        [
            judge.hear(test.audio(test.rows[i : i + 256]), test.target[i : i + 256]).embedding
            for i in range(0, len(test.rows), 256)
        ]
    )
    voices = {
        name: Synthesizer.from_bundle(bundle.path, arguments.provider, files(name, bundle))
        for name in names
    }
    heard = {
        name: judge.hear(make_clips(voice, queries, arguments.seeds, name), target)
        for name, voice in voices.items()
    }
    seconds = time_by_turns(voices, arguments.rounds, arguments.repeats)
    variants = {
        name: {
            "precision": files(name, bundle),
            **quality(heard[name], real, judge.labels),
            "same_as_fp32": agreement(heard[name], heard[REFERENCE]),
            "seconds": seconds[name],
        }
        for name in names
    }
    first = voices[REFERENCE]
    plan = resolve_options(SynthOptions(), bundle.manifest)
    return {
        "measured": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        **{key: describe_run(first)[key] for key in ("bundle", "provider", "versions")},
        "concepts": len(queries),
        "seeds": arguments.seeds,
        "num_steps": plan.num_steps,
        "guidance_scale": plan.guidance_scale,
        "audio_s": bundle.manifest.mel.seconds(bundle.manifest.diffusion.default_frames),
        "distilled": plan.distilled,
        "rule": f"top-1 within {LARGEST_LOSS} of {REFERENCE}'s, and the least time a clip",
        "really_computed_in": precisions_in_use(bundle, first.provider),
        "variants": variants,
        "cpu_default": decide(variants),
    }


if __name__ == "__main__":
    main()
