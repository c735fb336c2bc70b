"""Discriminators that tell real sound from a vocoder's.

Sources:
    Kong et al. 2020, arXiv:2010.05646, section 2.3 (multi-period, multi-scale).
    Jang et al. 2021, arXiv:2106.07889, section 2.2 (multi-resolution spectrogram).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from clipsynth_training.vocoder.metrics import stft_magnitude

SLOPE = 0.1
"""Of the leaky ReLUs."""


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Which discriminators there are, and how wide.

    ``width`` scales all channels of the waveform discriminators (1.0 is the paper's); an empty
    tuple or zero leaves that kind out. ``resolutions`` are FFT size, hop and window.
    """

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    scales: int = 3
    width: float = 1.0
    resolutions: tuple[tuple[int, ...], ...] = ()
    spectral_channels: int = 16


def _scores(layers: nn.ModuleList, last: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), SLOPE)
        features.append(x)
    x = last(x)
    features.append(x)
    return x.flatten(1), features


class PeriodDiscriminator(nn.Module):
    """Looks at every ``period``-th sample, as a picture [B, 1, T / period, period]."""

    def __init__(self, period: int, width: float) -> None:
        super().__init__()
        self.period = period
        sizes = [1, *(max(4, round(width * c)) for c in (32, 128, 512, 1024, 1024))]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(sizes[i], sizes[i + 1], (5, 1), (3 if i < 4 else 1, 1), (2, 0)))
            for i in range(5)
        )
        self.last = weight_norm(nn.Conv2d(sizes[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return scores [B, S] and the features of every layer for waveform [B, T]."""
        x = F.pad(waveform[:, None], (0, -waveform.shape[1] % self.period), mode="reflect")
        x = x.view(x.shape[0], 1, -1, self.period)
        return _scores(self.layers, self.last, x)


class ScaleDiscriminator(nn.Module):
    """Looks at the waveform after ``halvings`` rounds of average pooling."""

    def __init__(self, halvings: int, width: float) -> None:
        super().__init__()
        self.halvings = halvings
        # the paper norms the first scale spectrally, for stability
        norm = spectral_norm if halvings == 0 else weight_norm
        c = [max(16, round(width * n / 16) * 16) for n in (128, 128, 256, 512, 1024, 1024, 1024)]
        shapes = [
            (1, c[0], 15, 1, 1),
            (c[0], c[1], 41, 2, 4),
            (c[1], c[2], 41, 2, 16),
            (c[2], c[3], 41, 4, 16),
            (c[3], c[4], 41, 4, 16),
            (c[4], c[5], 41, 1, 16),
            (c[5], c[6], 5, 1, 1),
        ]
        self.layers = nn.ModuleList(
            norm(nn.Conv1d(i, o, k, stride, padding=k // 2, groups=groups))
            for i, o, k, stride, groups in shapes
        )
        self.last = norm(nn.Conv1d(c[-1], 1, 3, padding=1))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return scores [B, S] and the features of every layer for waveform [B, T]."""
        x = waveform[:, None]
        for _ in range(self.halvings):
            x = F.avg_pool1d(x, 4, 2, padding=2)
        return _scores(self.layers, self.last, x)


class SpectrogramDiscriminator(nn.Module):
    """Looks at log magnitudes of one STFT resolution, as a picture [B, 1, frames, bins]."""

    def __init__(self, resolution: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.resolution = resolution
        sizes = [1] + [channels] * 5
        self.layers = nn.ModuleList(
            weight_norm(
                nn.Conv2d(sizes[i], sizes[i + 1], (3, 9), (1, 2), padding=(1, 4))
                if 0 < i < 4
                else nn.Conv2d(sizes[i], sizes[i + 1], 3, (1, 2) if i == 0 else 1, padding=1)
            )
            for i in range(5)
        )
        self.last = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return scores [B, S] and the features of every layer for waveform [B, T]."""
        n_fft, hop, win = self.resolution
        # the logarithm shows quiet partials and noise, where vocoders fail; offset: 0.01 ~ silence
        x = torch.log(stft_magnitude(waveform, n_fft, hop, win) + 0.01)
        x = x.transpose(1, 2)[:, None].contiguous(memory_format=torch.channels_last)
        return _scores(self.layers, self.last, x)


class Discriminators(nn.Module):
    """All discriminators of a configuration.

    Raises:
        ValueError: If the configuration names none.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        members: list[nn.Module] = [PeriodDiscriminator(p, config.width) for p in config.periods]
        members += [ScaleDiscriminator(n, config.width) for n in range(config.scales)]
        members += [
            SpectrogramDiscriminator(r, config.spectral_channels) for r in config.resolutions
        ]
        if not members:
            raise ValueError("no discriminator: give periods, scales or resolutions")
        self.members = nn.ModuleList(members)

    def forward(self, waveform: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Return each member's scores [B, S] and features for waveform [B, T]."""
        answers = [member(waveform) for member in self.members]
        return [scores for scores, _ in answers], [features for _, features in answers]
