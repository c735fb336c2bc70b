"""The denoiser: a 2-D U-Net over mel bins and frames, conditioned on a CLIP embedding."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_WIDTH = 64
DECAY_FRAMES = (4.0, 16.0, 48.0, 160.0, 480.0)
"""Time constants of the envelopes that a canvas is made of: 46 ms to 5.6 s at the default hop."""


@dataclass(frozen=True)
class UNetConfig:
    """Shape of the denoiser; the defaults are the ``edge`` preset.

    Attributes:
        n_mels: Mel bins M.
        condition_dim: Size D of the CLIP embedding.
        stem: Patch of (mel bins, frames) that becomes one position of the top level.
        channels: Channels of each level; each level halves both axes.
        blocks: Residual blocks of each level on the way down, and on the way up.
        time_attention: Levels whose last block is followed by attention over time, row by row.
        full_attention: Levels whose last block is followed by attention over all positions.
        embedding: Width of the timestep and condition embedding.
        groups: Groups of the group normalisation.
        canvas: Channels of the picture that the embedding paints before the second level; 0: none.
    """

    n_mels: int = 80
    condition_dim: int = 256
    stem: tuple[int, int] = (2, 2)
    channels: tuple[int, ...] = (32, 64, 160)
    blocks: tuple[int, ...] = (1, 2, 3)
    time_attention: tuple[bool, ...] = (False, True, False)
    full_attention: tuple[bool, ...] = (False, False, True)
    embedding: int = 256
    groups: int = 8
    canvas: int = 16

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> UNetConfig:
        """Read a configuration from JSON or TOML data."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data; the inverse of ``from_dict``."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @property
    def frames_multiple(self) -> int:
        """Frames must be a multiple of this, so that every level halves evenly."""
        return self.stem[1] * 2 ** (len(self.channels) - 1)


class TimestepEmbedding(nn.Module):
    """Time t [B] in [0, 1] -> sines and cosines [B, width], float32.

    Source:
        Vaswani et al. 2017, arXiv:1706.03762, section 3.5, over t * 1000.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        frequencies = torch.exp(-math.log(10_000.0) * torch.arange(width // 2) / (width // 2))
        self.register_buffer("frequencies", frequencies * 1000.0, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """Return the embedding of ``t``."""
        angles = t.float()[:, None] * self.frequencies[None]
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; between them a group norm that the embedding scales and shifts.

    One norm a block, not two: on a CPU the norms cost more than the convolutions.

    Source:
        Dhariwal & Nichol 2021, arXiv:2105.05233, section 3 (adaptive group normalisation).
    """

    def __init__(self, inputs: int, outputs: int, config: UNetConfig) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.film = nn.Linear(config.embedding, 2 * outputs)
        self.norm = nn.GroupNorm(config.groups, outputs)
        self.conv_out = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.conv_out.weight)  # the block begins as its skip
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return [B, outputs, H, W] of ``x`` [B, inputs, H, W], ``embedding`` [B, E]."""
        h = self.conv_in(F.silu(x))
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm(h), 1.0 + scale)
        return self.skip(x) + self.conv_out(F.silu(h))


class Attention(nn.Module):
    """Self-attention over the frames of each row, or over all positions.

    Over time it keeps a partial at one pitch along a note, which 3x3 convolutions lose.
    """

    def __init__(self, channels: int, over_time: bool, groups: int) -> None:
        super().__init__()
        self.over_time = over_time
        self.heads = max(1, channels // HEAD_WIDTH)
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W] of the same shape as ``x``."""
        batch, channels, height, width = x.shape
        width_head = channels // self.heads
        rows, length = (batch * height, width) if self.over_time else (batch, height * width)
        # [B, 3C, H, W] -> three of [rows, heads, length, width_head]
        qkv = self.qkv(self.norm(x)).permute(0, 2, 3, 1)
        qkv = qkv.reshape(rows, length, 3, self.heads, width_head).permute(2, 0, 3, 1, 4)
        # Written out: the fused kernel's backward pass is three times slower on a CPU than these
        # products, and the exporter would write it out anyway.
        scores = (qkv[0] * width_head**-0.5) @ qkv[1].transpose(-1, -2)
        with torch.autocast(x.device.type, enabled=False):  # no float32 copy of the largest tensor
            weights = scores.softmax(dim=-1)
        h = weights @ qkv[2]
        h = h.transpose(1, 2).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        return x + self.out(h)


class Canvas(nn.Module):
    """Embedding [B, E] -> [B, C, rows, columns]: for each row, a sum of decaying envelopes.

    Noise alone says nothing of what is wanted, and a scale and shift a channel cannot say where
    in pitch and time it belongs; so the first estimates of x0, which decide what a few-step
    sample becomes, stay far from the mean sound of a query. This paints it. Time is counted from
    the start of the clip, so the canvas fits any length.
    """

    def __init__(self, channels: int, rows: int, columns_stride: int, config: UNetConfig) -> None:
        super().__init__()
        self.shape = config.canvas, rows, len(DECAY_FRAMES) + 1
        self.paint = nn.Linear(config.embedding, math.prod(self.shape))
        self.mix = nn.Conv2d(config.canvas, channels, 1)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)
        rates = torch.tensor([0.0, *(columns_stride / frames for frames in DECAY_FRAMES)])
        self.register_buffer("rates", rates, persistent=False)

    def forward(self, embedding: Tensor, columns: int) -> Tensor:
        """Return the canvas of ``columns`` columns."""
        position = torch.arange(columns, device=embedding.device, dtype=torch.float32)
        envelopes = torch.exp(-self.rates[:, None] * position[None])
        weights = self.paint(embedding).reshape(-1, *self.shape)
        return self.mix(weights @ envelopes.to(weights.dtype))


class Level(nn.Module):
    """Residual blocks at one resolution, with the attention that the level has."""

    def __init__(self, inputs: list[int], outputs: int, index: int, config: UNetConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([ResidualBlock(width, outputs, config) for width in inputs])
        self.attention = nn.ModuleList()
        for number in range(len(inputs)):
            last = number == len(inputs) - 1
            kind = config.full_attention[index], config.time_attention[index]
            if last and any(kind):
                self.attention.append(Attention(outputs, not kind[0], config.groups))
            else:
                self.attention.append(nn.Identity())

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor] | None) -> list[Tensor]:
        """Return the output of every block; each consumes one of ``skips`` where given."""
        outputs = []
        for block, attention in zip(self.blocks, self.attention, strict=True):
            if skips is not None:
                x = torch.cat([x, skips.pop()], dim=1)
            x = attention(block(x, embedding))
            outputs.append(x)
        return outputs


class UNet(nn.Module):
    """Noisy mel, time and condition -> velocity v = alpha * eps - sigma * x0.

    Every level adds a learned embedding of the mel row: a convolution cannot tell a low partial
    from a high one, and an instrument's sound depends on that.

    Source:
        Ronneberger et al. 2015, arXiv:1505.04597; Ho et al. 2020, arXiv:2006.11239; velocity from
        Salimans & Ho 2022, arXiv:2202.00512.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, width = config.channels, config.embedding
        self.time = TimestepEmbedding(width)
        self.time_mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = nn.Linear(config.condition_dim, width)
        self.condition_mlp = nn.Sequential(
            nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.stem = nn.Conv2d(1, widths[0], config.stem, stride=config.stem)
        rows = [config.n_mels // config.stem[0] // 2**i for i in range(len(widths))]
        self.rows = nn.ParameterList(
            [nn.Parameter(torch.zeros(1, c, r, 1)) for c, r in zip(widths, rows, strict=True)]
        )
        self.canvas = (
            Canvas(widths[1], rows[1], 2 * config.stem[1], config)
            if config.canvas and len(widths) > 1
            else None
        )
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        for i, channels in enumerate(widths):
            self.down.append(Level([channels] * config.blocks[i], channels, i, config))
            if i + 1 < len(widths):
                self.shrink.append(nn.Conv2d(channels, widths[i + 1], 2, stride=2))
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for i, channels in reversed(list(enumerate(widths))):
            self.up.append(Level([2 * channels] * config.blocks[i], channels, i, config))
            if i > 0:
                self.grow.append(nn.Conv2d(channels, widths[i - 1], 1))
        self.norm = nn.GroupNorm(config.groups, widths[0])
        self.head = nn.ConvTranspose2d(widths[0], 1, config.stem, stride=config.stem)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Return v, float32 [B, M, F].

        Args:
            x: Noisy normalised mel, float32 [B, M, F]; F a multiple of ``frames_multiple``.
            t: Time, float32 [B] in [0, 1].
            condition: Unit-length CLIP embedding, float32 [B, D]; zeros for the null condition,
                whose learned embedding is then the projection's bias.
        """
        # unit length over D dimensions makes entries of 1/sqrt(D); give them unit size
        scaled = condition.float() * math.sqrt(self.config.condition_dim)
        embedding = self.time_mlp(self.time(t)) + self.condition_mlp(self.condition(scaled))
        embedding = F.silu(embedding)
        h = self.stem(x[:, None].contiguous(memory_format=torch.channels_last))
        skips: list[Tensor] = []
        for i, level in enumerate(self.down):
            h = h + self.rows[i].to(h.dtype)
            if i == 1 and self.canvas is not None:
                h = h + self.canvas(embedding, h.shape[3]).to(h.dtype)
            outputs = level(h, embedding, None)
            skips += outputs
            h = self.shrink[i](outputs[-1]) if i < len(self.shrink) else outputs[-1]
        for i, level in enumerate(self.up):
            h = level(h, embedding, skips)[-1]
            if i < len(self.grow):
                h = F.interpolate(self.grow[i](h), scale_factor=2.0, mode="nearest")
        return self.head(F.silu(self.norm(h)))[:, 0].float()


def count_parameters(module: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in module.parameters())


def count_flops(module: UNet, num_frames: int) -> int:
    """Return floating-point operations (a multiply-add is two) of one call at batch 1."""
    from torch.utils.flop_counter import FlopCounterMode

    config = module.config
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        shapes = (1, config.n_mels, num_frames), (1,), (1, config.condition_dim)
        device = next(module.parameters()).device
        module(*(torch.zeros(shape, device=device) for shape in shapes))
    return int(counter.get_total_flops())
