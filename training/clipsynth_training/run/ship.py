"""Collect a trained voice for shipping: python -m clipsynth_training.run.ship RUN... --out DIR.

Takes each part from the run folder that has it, and stores matrices as fp16, which halves the
distribution of checkpoints; vectors (biases, statistics) stay fp32. Loading puts them into fp32.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from clipsynth_rt.errors import CheckpointError, ClipSynthError
from clipsynth_training.checkpoint import default_checkpoint, load_component, save_component

PARTS = ("clip", "denoiser", "denoiser_distilled", "vocoder", "classifier")
OPTIONAL = frozenset({"denoiser_distilled"})


def ship(runs: Sequence[str | Path], out: str | Path) -> dict[str, int]:
    """Write every part of ``runs`` to ``out``; where several have one, the first is taken.

    Returns:
        Bytes of each part's weights.

    Raises:
        CheckpointError: If no run has a part that every voice has, or one is damaged.
    """
    sizes = {}
    for part in PARTS:
        found = [run for run in map(Path, runs) if (run / f"{part}.safetensors").is_file()]
        if not found and part in OPTIONAL:
            continue
        if not found:
            raise CheckpointError(f"{part}: in none of {', '.join(map(str, runs))}; train it first")
        tensors, facts = load_component(found[0], part)
        halved = {
            name: value.half() if value.is_floating_point() and value.ndim > 1 else value
            for name, value in tensors.items()
        }
        for name, value in halved.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise CheckpointError(f"{found[0]}: {part}: {name} does not fit fp16")
        save_component(out, part, halved, facts)
        sizes[part] = (Path(out) / f"{part}.safetensors").stat().st_size
    return sizes


def main() -> None:
    """Collect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=default_checkpoint())
    arguments = parser.parse_args()
    try:
        sizes = ship(arguments.runs, arguments.out)
    except ClipSynthError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    for part, size in sizes.items():
        print(f"{part}: {size / 1e6:.1f} MB")  # noqa: T201


if __name__ == "__main__":
    main()
