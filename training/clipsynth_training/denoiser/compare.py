"""Candidates for the denoiser at equal processor time.

Run with ``python -m clipsynth_training.denoiser.compare``.

Processor time of the process is what is rationed, not wall-clock time, so a busy machine does not
favour whoever ran last. Everything but the named change is the ``edge`` preset.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from clipsynth_rt.files import write_json
from clipsynth_rt.machine import describe_machine
from clipsynth_training.checkpoint import default_checkpoint
from clipsynth_training.clip.encoder import load_clip
from clipsynth_training.denoiser.conditions import ConditionedMels, load_conditioned
from clipsynth_training.denoiser.config import TrainConfig, load_config
from clipsynth_training.denoiser.train import DenoiserTrainer
from clipsynth_training.denoiser.unet import count_flops, count_parameters
from clipsynth_training.run.trainer import RunLimits

NO, LAST = (False, False, False), (False, False, True)
CANDIDATES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "edge": ({}, {}),
    "no canvas": ({"canvas": 0}, {}),
    "no attention over time": ({"time_attention": NO}, {}),
    "no attention": ({"time_attention": NO, "full_attention": NO}, {}),
    "attention over time at the top too": ({"time_attention": (True, True, False)}, {}),
    "lowest level 128 wide": ({"channels": (32, 64, 128)}, {}),
    "two blocks at the top": ({"blocks": (2, 2, 3)}, {}),
    "stem 1x2 (all mel bins)": ({"stem": (1, 2)}, {}),
    "stem 2x1 (all frames)": ({"stem": (2, 1)}, {}),
    "wider top: 48, 96, 128": ({"channels": (48, 96, 128), "blocks": (1, 1, 3)}, {}),
    "min-SNR weights": ({}, {"loss": "min_snr"}),
    "learning rate 5e-4": ({}, {"learning_rate": 5e-4}),
    "learning rate 2e-3": ({}, {"learning_rate": 2e-3}),
    "batch 8": ({}, {"batch_size": 8}),
    "batch 16": ({}, {"batch_size": 16}),
}


def candidate(name: str, base: TrainConfig) -> TrainConfig:
    """Return ``base`` with the change that ``CANDIDATES`` names."""
    unet, optimiser = CANDIDATES[name]
    return dataclasses.replace(
        base,
        unet=dataclasses.replace(base.unet, **unet),
        # averages longer than so short a run would only measure the initialisation
        optimiser=dataclasses.replace(
            base.optimiser,
            **{"variant": "text", "ema_decay": 0.98, "warmup_steps": 30, **optimiser},
        ),
    )


def compare(
    names: list[str],
    train: ConditionedMels,
    held_out: ConditionedMels,
    cpu_seconds: float,
    base: TrainConfig,
) -> list[dict[str, Any]]:
    """Train each candidate for ``cpu_seconds`` and return one row each, best first."""
    rows = []
    for name in names:
        config = candidate(name, base)
        with tempfile.TemporaryDirectory() as folder:
            trainer = DenoiserTrainer(config, train, folder, held_out)
            trainer.run(
                RunLimits(max_cpu_seconds=cpu_seconds, save_every=1 << 30, evaluate_every=1 << 30)
            )
            loss = trainer.evaluate()["held_out_text"]
        row = {
            "candidate": name,
            "held_out_loss": loss,
            "clips": trainer.step * config.optimiser.batch_size,
            "parameters": count_parameters(trainer.model),
            "gflop_a_call": count_flops(trainer.model, train.mels.shape[2]) / 1e9,
        }
        print(json.dumps(row), flush=True)  # noqa: T201
        rows.append(row)
    return sorted(rows, key=lambda row: row["held_out_loss"])


def main() -> None:
    """Compare and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", help="folder with the shard folders train and validation")
    parser.add_argument("--labels", required=True)
    parser.add_argument("--clip", default=str(default_checkpoint()))
    parser.add_argument("--cpu-seconds", type=float, default=240.0)
    parser.add_argument("--only", nargs="*", choices=sorted(CANDIDATES), default=None)
    parser.add_argument("--kind", nargs="*", default=(), help="kinds of clips; all if left out")
    parser.add_argument("-o", "--out", required=True, type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    base, clip = load_config("edge"), load_clip(arguments.clip)
    splits = [
        load_conditioned(
            Path(arguments.shards) / split, clip, base.mel, arguments.labels, arguments.kind
        )
        for split in ("train", "validation")
    ]
    names = arguments.only or list(CANDIDATES)
    report = {
        "measured": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        "cpu_seconds": arguments.cpu_seconds,
        "training_clips": len(splits[0]),
        "kinds": list(arguments.kind),
        "rows": compare(names, *splits, arguments.cpu_seconds, base),
    }
    write_json(arguments.out, report)


if __name__ == "__main__":
    main()
