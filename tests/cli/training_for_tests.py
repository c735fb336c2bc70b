"""A CLIP and a handful of clips for the tests of ``clipsynth-rt train``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from click.testing import Result

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_training.data.shards import ShardWriter


class Encoder:
    """A CLIP of eight numbers."""

    dim, image_size = 8, 4

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.image_tower = torch.nn.Linear(3, 8)

    def encode_images(self, images: np.ndarray) -> torch.Tensor:
        colour = torch.tensor(images).float().mean(dim=(1, 2)) / 255.0
        return torch.nn.functional.normalize(self.image_tower(colour).detach(), dim=1)

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        seeds = torch.tensor([[hash(c) % 7 for c in f"{t:>8.8}"] for t in texts])
        return torch.nn.functional.normalize(seeds.float() + 1.0, dim=1)

    encode_queries = encode_text


def write_shards(folder: Path) -> Path:
    """Write ten clips of two labels, and labels.csv."""
    rng = np.random.default_rng(0)
    writer = ShardWriter(folder / "shards", MelSpec(n_mels=16), shard_size=4)
    for number in range(10):
        writer.add(
            [f"id{number}"],
            rng.standard_normal((1, 16, 16)).astype(np.float16),
            rng.integers(1, 256, (1, 2, 4, 4, 3), dtype=np.uint8),
            np.zeros((1, 4096), np.int16),
        )
    writer.flush()
    rows = [f"id{i},{'drum' if i % 2 else 'flute'},note" for i in range(10)]
    (folder / "labels.csv").write_text("\n".join(["id,concept,kind", *rows]) + "\n")
    return folder / "shards"


def one_line(result: Result, code: int) -> str:
    assert result.exit_code == code, result.output
    assert result.stderr.strip().count("\n") == 0
    return result.stderr
