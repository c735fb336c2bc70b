"""A discriminator of mel spectrograms that knows what each is meant to be a sound of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2
"""Of the leaky ReLUs."""


@dataclass(frozen=True)
class MelDiscriminatorConfig:
    """Shape of the discriminator.

    Attributes:
        labels: Number of labels C that clips may have.
        n_mels: Mel bins M, a multiple of 16.
        channels: After each of four halvings of both axes.
    """

    labels: int
    n_mels: int = 80
    channels: tuple[int, int, int, int] = (32, 64, 128, 192)


class MelDiscriminator(nn.Module):
    """Normalised mels [B, M, F] and labels [B] -> scores [B, S], higher for real ones.

    Scores are given twice: for each patch of 8 bins and frames, and for the clip as a whole. No
    normalisation, as in R3GAN; a row's height is an input, for a partial's place in pitch matters.

    Source:
        Isola et al. 2017, arXiv:1611.07004 (patches); Miyato & Koyama 2018, arXiv:1802.05637
        (labels by projection); Huang et al. 2024, arXiv:2501.05441 (no normalisation).
    """

    def __init__(self, config: MelDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        c = config.channels
        self.register_buffer(
            "height", torch.linspace(-1.0, 1.0, config.n_mels).view(1, 1, -1, 1), persistent=False
        )
        widths = (2, *c)
        self.halve = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 4, stride=2, padding=1) for i in range(4)
        )
        self.refine = nn.ModuleList(nn.Conv2d(c[i], c[i], 3, padding=1) for i in (2, 3))
        self.patch = nn.Conv2d(c[2], 1, 1)
        self.patch_label = nn.Embedding(config.labels, c[2])
        rows = config.n_mels // 16
        self.whole = nn.Linear(2 * rows * c[3], c[3])
        self.whole_score = nn.Linear(c[3], 1)
        self.whole_label = nn.Embedding(config.labels, c[3])
        for embedding in (self.patch_label, self.whole_label):
            nn.init.normal_(embedding.weight, std=embedding.embedding_dim**-0.5)

    def forward(self, mel: Tensor, label: Tensor) -> Tensor:
        """Return scores [B, S]: those of patches, then the whole's, as many times as patches."""
        h = torch.cat([mel[:, None], self.height.expand(len(mel), -1, -1, mel.shape[2])], dim=1)
        h = h.contiguous(memory_format=torch.channels_last)
        for i in range(3):
            h = F.leaky_relu(self.halve[i](h), SLOPE)
        h = h + self.refine[0](F.leaky_relu(h, SLOPE))
        by_label = torch.einsum("bchw,bc->bhw", h, self.patch_label(label))
        patches = (self.patch(h)[:, 0] + by_label).flatten(1)
        h = F.leaky_relu(self.halve[3](F.leaky_relu(h, SLOPE)), SLOPE)
        h = h + self.refine[1](F.leaky_relu(h, SLOPE))
        pooled = torch.cat([h.mean(dim=3), h.amax(dim=3)], dim=1).flatten(1)
        embedding = F.leaky_relu(self.whole(pooled), SLOPE)
        whole = self.whole_score(embedding)
        whole = whole + (embedding * self.whole_label(label)).sum(dim=1, keepdim=True)
        return torch.cat([patches, whole.expand_as(patches)], dim=1)
