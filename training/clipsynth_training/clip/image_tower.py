"""The image tower: a small residual network, or a published one, that embeds pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipsynth_training.clip.published_network import PublishedConfig, PublishedNetwork


@dataclass(frozen=True)
class ImageTowerConfig:
    """Shape of the image tower.

    Attributes:
        image_size: Side of the square input in pixels: a multiple of 4 * 2 ** (stages - 1), or of
            32 for a published network.
        stem: Channels after the stem, at half the resolution.
        widths: Channels of each stage; the first stage works at a quarter of the resolution.
        depths: Residual blocks of each stage.
        dim: Size of the embedding.
        published: A network in place of the stem and the stages, which then say nothing.
    """

    image_size: int = 64
    stem: int = 32
    widths: tuple[int, ...] = (64, 128, 256)
    depths: tuple[int, ...] = (2, 2, 2)
    dim: int = 256
    published: PublishedConfig | None = None


class Block(nn.Module):
    """Two 3x3 convolutions around a skip (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm2.weight)  # every block begins as the identity
        self.skip = nn.Identity()
        if stride != 1 or width_in != width:
            # Average before the 1x1 convolution, so that no pixel is dropped (ResNet-D).
            pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
            self.skip = nn.Sequential(pool, nn.Conv2d(width_in, width, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, width, H / stride, W / stride]."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.skip(x))


class ImageTower(nn.Module):
    """RGB pictures to unit embeddings; the normalisation of the input is inside."""

    def __init__(self, config: ImageTowerConfig) -> None:
        super().__init__()
        self.config = config
        if config.published is not None:
            self.body = PublishedNetwork(config.published)
            self.drop = nn.Dropout(config.published.dropout)
            width_in = self.body.width
        else:
            self.stem = nn.Sequential(
                nn.Conv2d(3, config.stem, 3, 2, 1, bias=False),
                nn.BatchNorm2d(config.stem),
                nn.ReLU(),
            )
            blocks, width_in = [], config.stem
            for width, depth in zip(config.widths, config.depths, strict=True):
                for i in range(depth):
                    blocks.append(Block(width_in, width, 2 if i == 0 else 1))
                    width_in = width
            self.blocks = nn.Sequential(*blocks)
            self.drop = nn.Identity()
        self.head = nn.Linear(2 * width_in, config.dim)

    def features(self, image: Tensor) -> Tensor:
        """Return the embedding before its length is made one."""
        if self.config.published is not None:
            x = self.body(image)
        else:
            x = self.blocks(self.stem((image - 0.5) * 4.0))
        # The mean says what is everywhere, the maximum what is somewhere on a plain background.
        pooled = torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)
        return self.head(self.drop(pooled))

    def forward(self, image: Tensor) -> Tensor:
        """Return float32 [B, dim] of unit length for ``image`` [B, 3, S, S] in [0, 1]."""
        return F.normalize(self.features(image).float(), dim=-1)
