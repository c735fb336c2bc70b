"""Checks that a loaded graph has the interface in the manifest, whichever library loaded it."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from clipsynth_rt.bundles.bundle import GraphFile
from clipsynth_rt.bundles.manifest import TensorSpec
from clipsynth_rt.errors import BundleError

Shape = tuple[int | str | None, ...]
"""Sizes of a tensor's axes; where one is not fixed, its name, ``?`` or None."""

Tensors = Mapping[str, tuple[str, Shape | None]]
"""Data type and shape of tensors by name; no shape where not even the rank is known."""

PROBE = base64.b64decode(
    "CAg6OQoOCgF4CgF4EgF5IgNBZGQSBXByb2JlWg8KAXgSCgoICAESBAoCCAFiDwoBeRIKCggIARIECgIIAUIECgAQDQ=="
)
"""The smallest graph that proves a provider: y = x + x, float32 [1] (IR version 8, opset 13)."""


def check_interface(graph: GraphFile, inputs: Tensors, outputs: Tensors) -> None:
    """Compare a loaded graph's real names, types and shapes with the manifest's.

    Raises:
        BundleError: At the first difference.
    """
    sides = (("input", graph.spec.inputs, inputs), ("output", graph.spec.outputs, outputs))
    for side, promised, real in sides:
        if real.keys() != promised.keys():
            raise BundleError(
                f"{graph.path}: {side}s are {', '.join(sorted(real))} and manifest.json says "
                f"{', '.join(sorted(promised))}; re-run clipsynth-rt export"
            )
        for name, spec in promised.items():
            dtype, shape = real[name]
            if dtype != spec.dtype or not _fits(shape, spec, is_output=side == "output"):
                sizes = "of unknown rank" if shape is None else list(shape)
                raise BundleError(
                    f"{graph.path}: {side} {name} is {dtype} {sizes} and manifest.json says "
                    f"{spec.dtype} {list(spec.shape)}; re-run clipsynth-rt export"
                )


def _fits(real: Shape | None, promised: TensorSpec, *, is_output: bool) -> bool:
    if real is None:
        return is_output
    if len(real) != len(promised.shape):
        return False
    for have, want in zip(real, promised.shape, strict=True):
        if isinstance(have, int):
            if have != want:
                return False
        # shape inference may not know an output's size that the manifest does
        elif isinstance(want, int) and not is_output:
            return False
    return True
