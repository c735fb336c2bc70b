"""Engines of a bundle: which there are, and what shapes each has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clipsynth_rt.bundles.bundle import Bundle, GraphFile
from clipsynth_rt.bundles.manifest import DENOISER, DISTILLED, frame_buckets
from clipsynth_rt.errors import BundleError, InputError

BATCH_SIZES = (1, 4)
"""Clips that engines are built for."""
PRECISION = "fp16"
"""What engines are built from where the caller does not choose: the type is in the graph."""


@dataclass(frozen=True)
class EngineSpec:
    """One engine: a graph at fixed input shapes.

    Attributes:
        graph: A graph of a bundle.
        batch: Clips B.
        frames: F; 0 where the graph has none.
        conditions: Conditions G that guidance mixes, 1 or 2; 0 where the graph has none.
        shapes: Input -> shape.
    """

    graph: GraphFile
    batch: int
    frames: int
    conditions: int
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def label(self) -> str:
        """A name for people and files, such as ``denoiser_step-b1-f352-g2``."""
        parts = [self.graph.name, f"b{self.batch}"]
        parts += [f"f{self.frames}"] if self.frames else []
        parts += [f"g{self.conditions}"] if self.conditions else []
        return "-".join(parts)


def batch_size(count: int) -> int:
    """Return the smallest engine batch that holds ``count`` clips, or the largest there is."""
    return next((size for size in BATCH_SIZES if size >= count), BATCH_SIZES[-1])


def engine_precision(
    bundle: Bundle, precision: str | Mapping[str, str] | None
) -> str | Mapping[str, str]:
    """Return which files engines are built from: ``fp16`` where the caller leaves it open.

    A graph that has no such file is built from the bundle's default.
    """
    if isinstance(precision, str):
        return precision
    graphs = bundle.manifest.graphs
    open_ones = {name: PRECISION for name, spec in graphs.items() if PRECISION in spec.files}
    return {**open_ones, **(precision or {})}


def engine_spec(
    bundle: Bundle,
    name: str,
    precision: str | Mapping[str, str] | None = None,
    *,
    batch: int = 1,
    frames: int = 0,
    conditions: int = 1,
) -> EngineSpec:
    """Describe one engine.

    Args:
        bundle: An opened bundle.
        name: The graph's.
        precision: See ``engine_precision``.
        batch: One of ``BATCH_SIZES``.
        frames: One of ``frame_buckets``, where the graph has frames.
        conditions: 1, or 2 under guidance, where the graph mixes conditions.

    Raises:
        InputError: If there is no such graph, precision, batch or bucket.
        BundleError: If the file cannot be used, or a dimension of the graph is unknown here.
    """
    graph = bundle.graph(name, engine_precision(bundle, precision))
    letters = {size for spec in graph.spec.inputs.values() for size in spec.shape}
    if batch not in BATCH_SIZES:
        raise InputError(
            f"no engine for a batch of {batch}; there are {', '.join(map(str, BATCH_SIZES))}"
        )
    if "F" in letters and frames not in frame_buckets(bundle.manifest):
        buckets = ", ".join(map(str, frame_buckets(bundle.manifest)))
        raise InputError(f"no engine for {frames} frames; there are {buckets}")
    sizes = {
        "B": batch,
        "F": frames,
        "G": conditions,
        "L": bundle.manifest.condition.context_length,
    }
    shapes = {}
    for tensor, spec in graph.spec.inputs.items():
        unknown = [size for size in spec.shape if isinstance(size, str) and size not in sizes]
        if unknown:
            raise BundleError(
                f"{graph.path}: input {tensor} has a dimension {unknown[0]}, which engines do not "
                "know; use --provider cuda or cpu"
            )
        shapes[tensor] = tuple(sizes[s] if isinstance(s, str) else s for s in spec.shape)
    return EngineSpec(
        graph, batch, frames if "F" in letters else 0, conditions if "G" in letters else 0, shapes
    )


def clip_engines(
    bundle: Bundle,
    precision: str | Mapping[str, str] | None = None,
    *,
    batch: int,
    frames: int,
    guided: bool,
    denoiser: str = DENOISER,
) -> list[EngineSpec]:
    """Return the engines that one clip from text needs, in the order in which they run."""
    conditions = 2 if guided else 1
    return [
        engine_spec(bundle, "text_encoder", precision, batch=batch),
        engine_spec(bundle, denoiser, precision, batch=batch, frames=frames, conditions=conditions),
        engine_spec(bundle, "vocoder", precision, batch=batch, frames=frames),
    ]


def all_engines(
    bundle: Bundle,
    precision: str | Mapping[str, str] | None = None,
    *,
    buckets: Sequence[int] | None = None,
    batches: Sequence[int] = BATCH_SIZES,
) -> list[EngineSpec]:
    """Return every engine of a bundle, without repetition.

    Args:
        bundle: An opened bundle.
        precision: See ``engine_precision``.
        buckets: Frames; None is all of ``frame_buckets``.
        batches: Of ``BATCH_SIZES``.

    Raises:
        InputError: If a bucket, batch or precision does not exist.
    """
    specs: dict[str, EngineSpec] = {}
    if "image_encoder" in bundle.manifest.graphs:
        # pictures are encoded one by one
        spec = engine_spec(bundle, "image_encoder", precision)
        specs[spec.label] = spec
    kinds = [(True, DENOISER), (False, DENOISER)]
    if DISTILLED in bundle.manifest.graphs:
        kinds.append((False, DISTILLED))  # guidance is in its weights
    for frames in buckets or frame_buckets(bundle.manifest):
        for batch in batches:
            for guided, denoiser in kinds:
                found = clip_engines(
                    bundle, precision, batch=batch, frames=frames, guided=guided, denoiser=denoiser
                )
                specs.update((spec.label, spec) for spec in found)
    return list(specs.values())
