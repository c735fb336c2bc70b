"""Waveform to normalised log-mel spectrogram and back to magnitudes, as ``MelSpec`` says."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipsynth_rt.audio.mel import mel_filterbank
from clipsynth_rt.bundles.manifest import MelSpec


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
