"""A small classifier of mel spectrograms: the judge of the open corpus's concepts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class ClassifierConfig:
    """Shape of the classifier; ``labels`` names its outputs in order.

    Attributes:
        labels: Names.
        n_mels: Mel bins M, a multiple of ``stem`` times a power of two for each of ``channels``
            but the first.
        channels: Of each level; the next one has half the rows and frames.
        embedding: Size E.
        stem: Rows and frames of a patch.
    """

    labels: tuple[str, ...]
    n_mels: int = 80
    channels: tuple[int, ...] = (48, 96, 192)
    embedding: int = 256
    stem: int = 4


AUXILIARY_SHAPE: dict[str, Any] = {"channels": (16, 32, 64, 128), "stem": 2}
"""Of a classifier that a student learns from: another network than the judge, which must not be
one that the student was made to please."""


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm_in = nn.BatchNorm2d(outputs)
        self.conv_out = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm_out = nn.BatchNorm2d(outputs)
        self.skip = (
            nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else None
        )

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm_in(self.conv_in(x)))
        h = self.norm_out(self.conv_out(h))
        return F.relu(h + (x if self.skip is None else self.skip(x)))


class SoundClassifier(nn.Module):
    """Normalised mel [B, M, F] -> logits [B, C] and embedding [B, E].

    A residual network (He et al. 2016, arXiv:1512.03385) over patches, pooled over time by
    mean and maximum, so that both texture and single events count.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.channels
        self.stem = nn.Conv2d(1, widths[0], config.stem, config.stem)
        blocks = [_Block(widths[0], widths[0], 1)]
        for before, after in itertools.pairwise(widths):
            blocks += [_Block(before, after, 2), _Block(after, after, 1)]
        self.blocks = nn.Sequential(*blocks)
        rows = config.n_mels // config.stem // 2 ** (len(widths) - 1)
        # rows are kept apart up to here: a piccolo and a tuba differ in which ones sound
        self.embed = nn.Linear(2 * widths[-1] * rows, config.embedding)
        self.head = nn.Linear(config.embedding, len(config.labels))

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and embedding."""
        x = mel[:, None].contiguous(memory_format=torch.channels_last)
        h = self.blocks(self.stem(x))
        pooled = torch.cat([h.mean(dim=3), h.amax(dim=3)], dim=1).flatten(1)
        embedding = self.embed(pooled.float())
        return self.head(F.dropout(F.relu(embedding), 0.3, self.training)), embedding
