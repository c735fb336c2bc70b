"""Does an exported graph say what the PyTorch module says? Measured, in decibels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clipsynth_export.graphs import GraphDescription
from clipsynth_rt.backends.ort.session import OrtSession
from clipsynth_rt.bundles.bundle import GraphFile
from clipsynth_rt.bundles.manifest import DENOISER, DISTILLED, GraphSpec
from clipsynth_rt.errors import BackendError, BundleError, ExportError, ParityError

LARGEST_SNR_DB = 200.0
"""Said of equal outputs: JSON has no infinity."""

# The least signal-to-noise ratio of any output on any case, in decibels.
#
# fp32: both sides round alike but add up in another order; 2^-24 a rounding is 144 dB, and a
#   network of tens of layers loses some 40 dB of it. The light vocoder sums phase speeds over
#   hundreds of frames and normalises phasors that may be near zero: 62 dB untrained, 47 trained.
# w16: weights rounded to 2^-11 of themselves are 66 dB away at most layers.
# fp16: activations too, at every layer: 66 dB less 10 log10 of some tens of roundings, and less
#   what normalisation amplifies.
# fp16-products: no more roundings than fp16, and no fewer in the light vocoder's transforms.
# w8: for unit embeddings 27 dB is a cosine of 0.999; blocks of int8 are 45 to 47 dB from their
#   weights, and a denoiser of such weights about as far from itself. A picture network of fifty
#   layers between ReLU6 loses half of it: 20 dB is a cosine of 0.995. The shipped one names 278
#   held-out pictures right as often as in fp32, and 99% of them alike.
# int8: 256 levels over the range of a tensor leave about 40 dB a layer; tens of layers and
#   guidance (w = 2: 7 dB) leave half of that. The light vocoder's errors turn phases, which are
#   summed over time: the waveform is soon another that sounds the same.
_TOLERANCE_DB: dict[str, dict[str, float]] = {
    "fp32": {"": 80.0, "vocoder": 30.0},
    "w16": {"": 45.0, "vocoder": 20.0},
    "fp16": {"": 35.0, "vocoder": 10.0},
    "fp16-products": {"": 35.0, "vocoder": 10.0},
    "w8": {"": 27.0, "image_encoder": 20.0, DENOISER: 35.0, DISTILLED: 35.0},
    "int8": {"": 15.0, "vocoder": 5.0},
}


@dataclass(frozen=True)
class Difference:
    """How far an output is from its reference, at worst over all cases.

    Attributes:
        max_abs: Largest difference.
        rms: Root mean square of the differences.
        snr_db: Reference power over that of the differences.
    """

    max_abs: float
    rms: float
    snr_db: float

    def to_dict(self) -> dict[str, float]:
        """Return JSON data."""
        return {"max_abs": self.max_abs, "rms": self.rms, "snr_db": round(self.snr_db, 2)}


def tolerance_db(precision: str, graph: str) -> float:
    """Return the least signal-to-noise ratio that a graph may have at a precision."""
    by_graph = _TOLERANCE_DB[precision]
    return by_graph.get(graph, by_graph[""])


def difference(reference: NDArray[np.float32], found: NDArray[np.float32]) -> Difference:
    """Return how far ``found`` is from ``reference``; NaN anywhere is infinitely far."""
    if reference.shape != found.shape:
        raise ValueError(f"shapes differ: {reference.shape} and {found.shape}")
    if not np.isfinite(found).all():
        return Difference(math.inf, math.inf, -math.inf)
    error = found.astype(np.float64) - reference.astype(np.float64)
    noise = float(np.mean(error**2))
    signal = float(np.mean(reference.astype(np.float64) ** 2))
    snr = LARGEST_SNR_DB
    if noise > 0.0:
        snr = 10.0 * math.log10(max(signal, 1e-30) / noise)
    return Difference(float(np.abs(error).max()), math.sqrt(noise), min(snr, LARGEST_SNR_DB))


def worst(differences: list[Difference]) -> Difference:
    """Return the worst of each figure."""
    return Difference(
        max(d.max_abs for d in differences),
        max(d.rms for d in differences),
        min(d.snr_db for d in differences),
    )


@torch.no_grad()
def reference_outputs(graph: GraphDescription) -> list[dict[str, NDArray[np.float32]]]:
    """Return what the PyTorch module says to each case."""
    answers = []
    for case in graph.cases:
        values = graph.module(**case)
        values = values if isinstance(values, tuple) else (values,)
        named = zip(graph.outputs, values, strict=True)
        answers.append({name: value.float().numpy() for name, value in named})
    return answers


def measure_parity(
    graph: GraphDescription,
    references: list[dict[str, NDArray[np.float32]]],
    path: Path,
    spec: GraphSpec,
    precision: str,
    threads: int | None = None,
) -> Difference:
    """Run a file as the runtime does, and compare it with the PyTorch module's answers.

    Args:
        graph: Supplies the cases.
        references: Of ``reference_outputs``.
        path: The ONNX file.
        spec: The interface that it must have.
        precision: What it is.
        threads: CPU threads.

    Raises:
        ExportError: If ONNX Runtime does not load or run it.
        ParityError: If it is farther off than ``tolerance_db`` allows.
    """
    try:
        session = OrtSession(GraphFile(graph.name, precision, path, spec), "cpu", threads)
        found = [session.run({k: v.numpy() for k, v in case.items()}) for case in graph.cases]
    except (BackendError, BundleError) as error:
        raise ExportError(f"{graph.name} ({precision}): {error}") from error
    differences = []
    for want, have in zip(references, found, strict=True):
        differences += [_compare(graph.name, precision, want, have)]
    result = worst(differences)
    bound = tolerance_db(precision, graph.name)
    if not result.snr_db >= bound:
        raise ParityError(
            f"{graph.name} ({precision}): differs from PyTorch by max_abs {result.max_abs:.3g}, "
            f"rms {result.rms:.3g}, SNR {result.snr_db:.1f} dB < {bound:.0f} dB; no bundle written"
        )
    return result


def _compare(
    graph: str,
    precision: str,
    want: Mapping[str, NDArray[np.float32]],
    have: Mapping[str, NDArray[np.float32]],
) -> Difference:
    for name, value in want.items():
        if value.shape != have[name].shape:
            raise ParityError(
                f"{graph} ({precision}): {name} is {list(have[name].shape)}, and PyTorch's "
                f"{list(value.shape)}; a dynamic dimension was lost"
            )
    return worst([difference(value, have[name]) for name, value in want.items()])
