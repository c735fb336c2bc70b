"""Waveform to normalised log-mel spectrogram and back to magnitudes, as ``MelSpec`` says."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from clipsynth_rt.spec import MelSpec


def _hz_to_slaney(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = hz / (200.0 / 3.0)
    log = 15.0 + np.log(np.maximum(hz, 1e-9) / 1000.0) / (math.log(6.4) / 27.0)
    return np.where(hz >= 1000.0, log, linear)


def _slaney_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = mel * (200.0 / 3.0)
    log = 1000.0 * np.exp((mel - 15.0) * (math.log(6.4) / 27.0))
    return np.where(mel >= 15.0, log, linear)


def mel_filterbank(spec: MelSpec) -> NDArray[np.float32]:
    """Return triangular mel filters of unit area, float32 [n_mels, n_fft // 2 + 1].

    Source:
        Slaney 1998, Auditory Toolbox, Interval Technical Report 1998-010.
    """
    edges = _slaney_to_hz(
        np.linspace(*_hz_to_slaney(np.array([spec.f_min_hz, spec.f_max_hz])), spec.n_mels + 2)
    )
    bins = np.fft.rfftfreq(spec.n_fft, 1.0 / spec.sample_rate)
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins - lower) / (centre - lower)
    falling = (upper - bins) / (upper - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (upper - lower))
    return weights.astype(np.float32)


class MelSpectrogram(nn.Module):
    """Waveform [B, T] -> normalised log-mel [B, n_mels, T // hop_length], float32.

    Args:
        spec: The analysis; only the variants named in its defaults are built.

    Raises:
        ValueError: If ``spec`` asks for a padding, log, norm or mel scale not built here.
    """

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        if (spec.padding, spec.log, spec.norm, spec.mel_scale) != (
            "reflect_same",
            "natural",
            "slaney",
            "slaney",
        ):
            raise ValueError(f"no such analysis here: {spec}")
        self.spec = spec
        self.register_buffer("window", torch.hann_window(spec.win_length), persistent=False)
        self.register_buffer("filters", torch.from_numpy(mel_filterbank(spec)), persistent=False)

    def magnitude(self, waveform: Tensor) -> Tensor:
        """Return |STFT| of ``waveform`` [B, T] as float32 [B, n_fft // 2 + 1, T // hop_length]."""
        spec = self.spec
        pad = (spec.n_fft - spec.hop_length) // 2
        padded = F.pad(waveform.float()[:, None], (pad, pad), mode="reflect")[:, 0]
        frames = torch.stft(
            padded,
            spec.n_fft,
            spec.hop_length,
            spec.win_length,
            self.window,
            center=False,
            return_complex=True,
        )
        # sqrt has no gradient at 0; 1e-9 is 80 dB below the mel floor
        return torch.sqrt(frames.real.square() + frames.imag.square() + 1e-9)

    def log_mel(self, magnitude: Tensor) -> Tensor:
        """Return normalised log-mel [B, n_mels, F] of magnitudes [B, n_fft // 2 + 1, F]."""
        mel = self.filters @ magnitude.pow(self.spec.power)
        return self.normalise(torch.log(mel.clamp_min(self.spec.floor)))

    def normalise(self, log_mel: Tensor) -> Tensor:
        """Map natural-log mel to the range that the denoiser works in."""
        return (log_mel - self.spec.mean) / self.spec.std

    def denormalise(self, mel: Tensor) -> Tensor:
        """Inverse of ``normalise``."""
        return mel * self.spec.std + self.spec.mean

    def forward(self, waveform: Tensor) -> Tensor:
        """Return the normalised log-mel spectrogram of ``waveform`` [B, T]."""
        return self.log_mel(self.magnitude(waveform))
