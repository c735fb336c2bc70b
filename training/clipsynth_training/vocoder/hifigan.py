"""HiFi-GAN generator: transposed convolutions from mel frames up to samples.

Source:
    Kong et al. 2020, arXiv:2010.05646, section 2.2 and appendix A.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from clipsynth_rt.bundles.manifest import MelSpec

SLOPE = 0.1
"""Of the leaky ReLUs."""


@dataclass(frozen=True)
class HifiGanConfig:
    """Shape of the generator; the defaults are V1.

    ``channels`` enter the first upsampling layer and halve at each. Every stage adds up one
    residual block per kernel; ``dilations`` holds one row per kernel. With ``paired`` each dilated
    convolution is followed by an undilated one (the paper's first kind of block).
    """

    kind: str = "hifigan"
    channels: int = 512
    upsample_rates: tuple[int, ...] = (8, 8, 2, 2)
    upsample_kernels: tuple[int, ...] = (16, 16, 4, 4)
    block_kernels: tuple[int, ...] = (3, 7, 11)
    dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    paired: bool = True


HIFIGAN_PRESETS = {
    "v1": HifiGanConfig(),
    "v2": HifiGanConfig(channels=128),
    "v3": HifiGanConfig(
        channels=256,
        upsample_rates=(8, 8, 4),
        upsample_kernels=(16, 16, 8),
        block_kernels=(3, 5, 7),
        dilations=((1, 2), (2, 6), (3, 12)),
        paired=False,
    ),
}
"""Generators of the paper's table 4."""


def _conv(
    inputs: int, outputs: int, kernel: int, dilation: int = 1, std: float | None = 0.01
) -> nn.Module:
    conv = nn.Conv1d(
        inputs, outputs, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2
    )
    if std is not None:
        nn.init.normal_(conv.weight, std=std)
    return parametrizations.weight_norm(conv)


class ResidualBlock(nn.Module):
    """Residual dilated convolutions of one kernel size, [B, C, T]."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...], paired: bool):
        super().__init__()
        self.dilated = nn.ModuleList(_conv(channels, channels, kernel, d) for d in dilations)
        self.plain = nn.ModuleList(
            _conv(channels, channels, kernel) for _ in (dilations if paired else ())
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return x with each convolution's answer added in turn."""
        for index, dilated in enumerate(self.dilated):
            y = dilated(F.leaky_relu(x, SLOPE))
            if len(self.plain):
                y = self.plain[index](F.leaky_relu(y, SLOPE))
            x = x + y
        return x


class HifiGan(nn.Module):
    """Normalised log-mel [B, M, F] -> waveform [B, F * hop_length] in [-1, 1].

    Args:
        config: Shape of the generator.
        spec: The mel spectrogram that it reads.

    Raises:
        ValueError: If the upsampling rates do not multiply to the hop.
    """

    def __init__(self, config: HifiGanConfig, spec: MelSpec) -> None:
        super().__init__()
        if math.prod(config.upsample_rates) != spec.hop_length:
            raise ValueError(
                f"upsample_rates {config.upsample_rates} multiply to "
                f"{math.prod(config.upsample_rates)}, not to the hop of {spec.hop_length}"
            )
        self.config, self.spec = config, spec
        width = config.channels
        self.first = _conv(spec.n_mels, width, 7, std=None)
        self.upsamplers, self.stages = nn.ModuleList(), nn.ModuleList()
        for rate, kernel in zip(config.upsample_rates, config.upsample_kernels, strict=True):
            upsampler = nn.ConvTranspose1d(
                width, width // 2, kernel, rate, padding=(kernel - rate) // 2
            )
            nn.init.normal_(upsampler.weight, std=0.01)
            self.upsamplers.append(parametrizations.weight_norm(upsampler))
            width //= 2
            blocks = zip(config.block_kernels, config.dilations, strict=True)
            self.stages.append(
                nn.ModuleList(ResidualBlock(width, k, d, config.paired) for k, d in blocks)
            )
        self.last = _conv(width, 1, 7)

    def forward(self, mel: Tensor) -> Tensor:
        """Return the waveform."""
        x = self.first(mel)
        for upsampler, blocks in zip(self.upsamplers, self.stages, strict=True):
            x = upsampler(F.leaky_relu(x, SLOPE))
            x = sum(block(x) for block in blocks) / len(blocks)
        # the last slope is PyTorch's default in the paper's own code, and kept
        return torch.tanh(self.last(F.leaky_relu(x, 0.01)))[:, 0]

    def fold_(self) -> HifiGan:
        """Fold weight norm into plain weights, for export; outputs stay equal. Returns itself."""
        for module in self.modules():
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight")
        return self
