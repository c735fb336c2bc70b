"""Each graph of a bundle: its interface, how it is traced, and what it is tested on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipsynth_export.source import ExportSource
from clipsynth_export.wrappers import (
    DenoiserStepGraph,
    ImageEncoderGraph,
    TextEncoderGraph,
    VocoderGraph,
)
from clipsynth_rt.bundles.manifest import DENOISER, DISTILLED, TensorSpec
from clipsynth_training.data.sounds import load_concepts
from clipsynth_training.denoiser.conditions import TEXT_TEMPLATES
from clipsynth_training.denoiser.unet import UNet
from clipsynth_training.vocoder.istft import IstftVocoder

Case = dict[str, Tensor]

CALIBRATION_QUERIES = 4
CALIBRATION_STEPS = 8


@dataclass(frozen=True)
class GraphDescription:
    """One graph, ready to be exported.

    Attributes:
        name: As the manifest calls it.
        module: Its ``forward`` takes ``inputs`` in order and returns ``outputs`` in order.
        inputs: Names, types and shapes.
        outputs: The same.
        multiples: Dynamic dimensions that must be a multiple of something, and of what.
        smallest: The least of such multiples that works, where it is not one.
        cases: Inputs of several shapes, each of which parity is measured on; the first, whose
            dimensions are all different and above 1, is the one that is traced.
        half_scopes: Submodules whose arithmetic may be fp16; all else stays fp32.
        quantised_scopes: Submodules whose convolutions (the denoiser's) or matrix products (the
            light vocoder's) quantisation takes.
    """

    name: str
    module: nn.Module
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    cases: tuple[Case, ...]
    multiples: dict[str, int] = field(default_factory=dict)
    smallest: dict[str, int] = field(default_factory=dict)
    half_scopes: tuple[str, ...] = ()
    quantised_scopes: tuple[str, ...] = ()

    def dynamic_shapes(self) -> dict[str, dict[int, Any]]:
        """Return which axes vary, as ``torch.export`` wants it."""
        dims: dict[str, Any] = {}
        for spec in self.inputs.values():
            for size in spec.shape:
                if isinstance(size, str) and size not in dims:
                    multiple = self.multiples.get(size, 1)
                    name = size if multiple == 1 else f"{size}_{multiple}"
                    base = torch.export.Dim(name, min=self.smallest.get(size, 1))
                    dims[size] = base if multiple == 1 else base * multiple
        return {
            name: {axis: dims[size] for axis, size in enumerate(spec.shape) if size in dims}
            for name, spec in self.inputs.items()
        }


def describe_graphs(source: ExportSource) -> dict[str, GraphDescription]:
    """Return the graphs of a voice: four, or five with a distilled denoiser."""
    denoiser = denoiser_step(source)
    more = {} if source.distilled is None else {DISTILLED: distilled_step(source)}
    mels = [trajectory_end(denoiser.module, case) for case in denoiser.cases]
    return {
        "text_encoder": text_encoder(source),
        "image_encoder": image_encoder(source),
        DENOISER: denoiser,
        **more,
        "vocoder": vocoder(source, mels),
    }


def text_encoder(source: ExportSource) -> GraphDescription:
    """Tokens to embedding; tested on the corpus's concepts and keywords in every template."""
    clip = source.clip
    words = [word for c in load_concepts() for word in (c.name, *c.keywords)]
    words = list(dict.fromkeys(words))
    prompts = [template.format(query=word) for template in clip.templates for word in words]
    long = " ".join(words)[:200]
    batches = [prompts[:7], [prompts[0]], [long, prompts[1]]]
    batches += [prompts[i : i + 32] for i in range(7, min(len(prompts), 327), 32)]
    cases = []
    for batch in batches:
        ids, mask = clip.tokenize(batch)
        cases.append({"input_ids": ids, "attention_mask": mask})
    tokens = TensorSpec("int64", ("B", "L"))
    return GraphDescription(
        name="text_encoder",
        module=TextEncoderGraph(clip.text_tower).eval(),
        inputs={"input_ids": tokens, "attention_mask": tokens},
        outputs={"embedding": TensorSpec("float32", ("B", clip.dim))},
        cases=tuple(cases),
        half_scopes=_half_scopes(clip.text_tower, ("sentence.bert",)),
    )


def known_texts(source: ExportSource) -> torch.Tensor | None:
    """Return embeddings [C, D] of what a denoiser that learnt from texts alone knows, else None."""
    labels = source.facts.get("labels")
    if source.facts.get("optimiser", {}).get("variant") != "text" or not labels:
        return None
    prompts = [TEXT_TEMPLATES[0].format(query=label) for label in labels]
    embeddings: torch.Tensor = source.clip.encode_text(prompts)
    return embeddings


def image_encoder(source: ExportSource) -> GraphDescription:
    """Picture to embedding; tested on coloured noise, from coarse blobs to single pixels."""
    size = source.clip.image_size
    generator = torch.Generator().manual_seed(0)
    cases = []
    for batch in (3, 1, 5):
        coarse = [
            F.interpolate(
                torch.rand(batch, 3, n, n, generator=generator), (size, size), mode="bilinear"
            )
            for n in (2, 5, size)
        ]
        cases.append({"image": torch.stack(coarse).mean(0)})
    return GraphDescription(
        name="image_encoder",
        module=ImageEncoderGraph(source.clip.image_tower, known_texts(source)).eval(),
        inputs={"image": TensorSpec("float32", ("B", 3, size, size))},
        outputs={"embedding": TensorSpec("float32", ("B", source.clip.dim))},
        cases=tuple(cases),
        half_scopes=_half_scopes(source.clip.image_tower, ("stem", "blocks", "body")),
    )


def _half_scopes(tower: nn.Module, own: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``own`` scopes where a tower has them, else the MLPs of an open_clip model.

    Its attention stays fp32: ONNX Runtime 1.32 crashes on the CPU as it optimises scaled products
    in fp16.
    """
    names = [name for name, _ in tower.named_modules()]
    found = [name for name in names if name in own]
    found = found or [name for name in names if name.split(".")[-1] == "mlp"]
    return tuple(f"tower.{name}" for name in found)


def denoiser_step(source: ExportSource) -> GraphDescription:
    """One step of sampling; tested on steps of real trajectories."""
    return _step(source, source.unet, DENOISER, 4, 2.0)


def distilled_step(source: ExportSource) -> GraphDescription:
    """One step of the distilled denoiser; tested on its own steps, without guidance."""
    assert source.distilled is not None
    return _step(source, source.distilled, DISTILLED, source.diffusion.distilled_steps[0], 1.0)


def _step(
    source: ExportSource, unet: UNet, name: str, count: int, guidance: float
) -> GraphDescription:
    """Describe a denoiser's graph; whole trajectories are of ``count`` steps at ``guidance``."""
    spec, bins, dim = source.diffusion, source.mel.n_mels, source.clip.dim
    module = DenoiserStepGraph(unet, spec).eval()
    concepts = [concept.name for concept in load_concepts()]
    embeddings = source.clip.encode_queries(concepts)
    frames, multiple = spec.default_frames, spec.frames_multiple
    half = max(multiple, frames // 2 // multiple * multiple)
    walk = TrajectoryMaker(module, bins)
    cases = walk.steps(embeddings[3:6], 4 * multiple, 2, eta=0.5, guidance=guidance)[1:2]
    if guidance == 1.0:
        # two halves are traced; a student has not learnt the null condition, which weighs nothing
        condition = cases[0]["condition"][0]
        both = torch.stack([condition, torch.zeros_like(condition)])
        cases[0] |= {"condition": both, "weights": torch.tensor([1.0, 0.0])}
    cases += walk.steps(embeddings[:1], frames, count, eta=0.0, guidance=guidance)
    cases += walk.steps(embeddings[7:10], half, 3, eta=1.0, guidance=1.0)
    # all levels but the top one, whose convolutions are a tenth of the work, and in int8 four
    # tenths of the error (x0 of guided steps, 1,500 training steps: 17.5 dB with it, 22.7 without)
    depth = len(unet.config.channels)
    inner = [f"network.down.{i}.blocks" for i in range(1, depth)]
    inner += [f"network.up.{i}.blocks" for i in range(depth - 1)]
    mel = TensorSpec("float32", ("B", bins, "F"))
    one = TensorSpec("float32", (1,))
    return GraphDescription(
        name=name,
        module=module,
        inputs={
            "x": mel,
            "t": one,
            "s": one,
            "condition": TensorSpec("float32", ("G", "B", dim)),
            "weights": TensorSpec("float32", ("G",)),
            "eta": one,
            "noise": mel,
        },
        outputs={"x_next": mel, "x0": mel},
        multiples={"F": multiple},
        cases=tuple(cases),
        half_scopes=("network",),
        quantised_scopes=tuple(inner),
    )


def calibration_steps(source: ExportSource, graph: str = DENOISER) -> tuple[Case, ...]:
    """Return steps of sampling that static quantisation of a denoiser learns from.

    They are of other queries and other noise than parity is measured on.
    """
    concepts = [concept.name for concept in load_concepts()]
    stride = max(1, len(concepts) // CALIBRATION_QUERIES)
    embeddings = source.clip.encode_queries(concepts[10::stride][:CALIBRATION_QUERIES])
    unet, count, guidance = source.unet, CALIBRATION_STEPS, 2.0
    if graph == DISTILLED and source.distilled is not None:
        unet, count, guidance = source.distilled, source.diffusion.distilled_steps[0], 1.0
    walk = TrajectoryMaker(
        DenoiserStepGraph(unet, source.diffusion).eval(), source.mel.n_mels, seed=1
    )
    cases: list[Case] = []
    for one in torch.split(embeddings, 1):
        cases += walk.steps(one, source.diffusion.default_frames, count, guidance=guidance)
    return tuple(cases)


def vocoder(source: ExportSource, mels: Sequence[Tensor]) -> GraphDescription:
    """Mel to sound; tested on what the denoiser makes."""
    light = isinstance(source.vocoder, IstftVocoder)
    # what follows ends in phases, exponentials and an inverse STFT, or in the waveform itself
    scopes = ("stem", "stem_norm", "blocks", "norm") if light else ("first", "upsamplers", "stages")
    seen: dict[tuple[int, ...], Tensor] = {}
    for mel in mels:
        seen.setdefault(tuple(mel.shape), mel)
    return GraphDescription(
        name="vocoder",
        module=VocoderGraph(source.vocoder).eval(),
        inputs={"mel": TensorSpec("float32", ("B", source.mel.n_mels, "F"))},
        outputs={"waveform": TensorSpec("float32", ("B", "T"))},
        smallest={"F": 8},  # reflection wants more samples than it adds
        cases=tuple({"mel": mel} for mel in seen.values()),
        half_scopes=tuple(f"network.{scope}" for scope in scopes),
        quantised_scopes=("network.blocks",) if light else (),
    )


class TrajectoryMaker:
    """Walks DDIM with the PyTorch step, and keeps what each step was given.

    Args:
        module: The step.
        bins: Mel bins M.
        seed: Of the noise.
    """

    def __init__(self, module: DenoiserStepGraph, bins: int, seed: int = 0) -> None:
        self.module, self.bins = module, bins
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def steps(
        self, condition: Tensor, frames: int, count: int, eta: float = 0.0, guidance: float = 2.0
    ) -> list[Case]:
        """Return the inputs of ``count`` steps from pure noise to sound.

        Args:
            condition: float32 [B, D].
            frames: F.
            count: Steps.
            eta: 0 to 1.
            guidance: w; 1 is a single batch, G = 1.
        """
        both = condition[None]
        weights = torch.ones(1)
        if guidance != 1.0:
            both = torch.stack([condition, torch.zeros_like(condition)])
            weights = torch.tensor([guidance, 1.0 - guidance])
        shape = (len(condition), self.bins, frames)
        x = torch.randn(shape, generator=self.generator)
        times = [1.0 - n / count for n in range(count + 1)]
        cases: list[Case] = []
        for t, s in itertools.pairwise(times):
            case = {
                "x": x,
                "t": torch.tensor([t]),
                "s": torch.tensor([s]),
                "condition": both,
                "weights": weights,
                "eta": torch.tensor([eta]),
                "noise": torch.randn(shape, generator=self.generator),
            }
            cases.append(case)
            x = self.module(**case)[0]
        return cases


@torch.no_grad()
def trajectory_end(module: nn.Module, case: Case) -> Tensor:
    """Return the mel [B, M, F] that a step believes in."""
    x0: Tensor = module(**case)[1]
    return x0
