"""Average checkpoints of one run: python -m clipsynth_training.run.average PART RUN... --out DIR.

States of a run that discriminators pull to and fro differ more than they are better or worse; their
mean is often better than each.

Source:
    Wortsman et al. 2022, arXiv:2203.05482 (model soups).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from clipsynth_rt.errors import CheckpointError, ClipSynthError
from clipsynth_training.checkpoint import load_component, save_component


def average(part: str, runs: Sequence[str | Path], out: str | Path) -> None:
    """Write the mean of a part's weights; its configuration is the last run's.

    Args:
        part: Such as ``denoiser_distilled``.
        runs: Checkpoint folders with it.
        out: Checkpoint folder; its ``average_of_steps`` says what was averaged.

    Raises:
        CheckpointError: If a folder lacks the part, or the networks differ in shape.
    """
    loaded = [load_component(run, part) for run in runs]
    shapes = [{name: value.shape for name, value in tensors.items()} for tensors, _ in loaded]
    for run, shape in zip(runs, shapes, strict=True):
        if shape != shapes[-1]:
            raise CheckpointError(f"{run}: {part} is of another shape than in {runs[-1]}")
    mean = {
        name: sum(tensors[name].float() for tensors, _ in loaded) / len(loaded)
        for name in shapes[-1]
    }
    steps = [facts.get("steps") for _, facts in loaded]
    save_component(out, part, mean, {**loaded[-1][1], "average_of_steps": steps})


def main() -> None:
    """Average."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        average(arguments.part, arguments.runs, arguments.out)
    except ClipSynthError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
