"""Short-time Fourier transforms in real arithmetic, so that they can be exported."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipsynth_rt.spec import MelSpec


class RealStft(nn.Module):
    """STFT and inverse STFT between a waveform and pairs of real and imaginary parts.

    In training the transform is an FFT. In evaluation, and so in an exported graph, it is a pair
    of matrix products: a Hann window is symmetric about its middle, so the frame folds into an
    even half that meets cosines and an odd half that meets sines, which is a quarter of the
    multiplications of the plain complex matrix. Frames overlap by addition of shifted hops.

    Args:
        spec: The analysis. ``win_length`` must be ``n_fft``, and ``hop_length`` divide it.

    Raises:
        ValueError: If ``spec`` is not such an analysis.
    """

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        size, hop = spec.n_fft, spec.hop_length
        if spec.win_length != size or size % (2 * hop) or (size - hop) % 2:
            raise ValueError(f"no such transform here: {size}, {hop}, {spec.win_length}")
        self.size, self.hop, self.half = size, hop, size // 2
        self.overlap = size // hop
        self.pad = (size - hop) // 2
        window = torch.hann_window(size, dtype=torch.float64)
        n = torch.arange(1, self.half + 1, dtype=torch.float64)
        k = torch.arange(self.half + 1, dtype=torch.float64)
        angle = (2.0 * math.pi / size) * torch.outer(n, k)
        weight = window[1 : self.half + 1, None]
        # each bin but the first and last stands for itself and its mirror image
        twice = torch.where((k == 0) | (k == self.half), 1.0, 2.0)[:, None] / size
        buffers = {
            "window": window,
            "cosines": weight * angle.cos(),
            "sines": (weight * -angle.sin())[:-1],
            "inverse_cosines": twice * (weight * angle.cos()).T,
            "inverse_sines": twice * (weight * -angle.sin())[:-1].T,
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.float(), persistent=False)

    def analyse(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Return real and imaginary parts [B, T // hop, n_fft // 2 + 1] of waveform [B, T]."""
        padded = F.pad(waveform[:, None], (self.pad, self.pad), mode="reflect")[:, 0]
        if self.training:
            frames = padded.unfold(1, self.size, self.hop) * self.window
            spectrum = torch.fft.rfft(frames)
            return spectrum.real, spectrum.imag
        hops = padded.reshape(padded.shape[0], -1, self.hop)
        count = hops.shape[1] - self.overlap + 1
        frames = torch.cat([hops[:, j : j + count] for j in range(self.overlap)], dim=2)
        # a Hann window begins with zero, so sample 0 has no part
        late = frames[:, :, self.half + 1 :].flip(2)
        early, middle = frames[:, :, 1 : self.half], frames[:, :, self.half : self.half + 1]
        even = torch.cat([early + late, middle], dim=2)
        return even @ self.cosines, (early - late) @ self.sines

    def synthesise(self, real: Tensor, imag: Tensor) -> Tensor:
        """Return the waveform [B, F * hop] nearest to parts [B, F, n_fft // 2 + 1].

        Source:
            Griffin and Lim 1984, "Signal estimation from modified short-time Fourier transform".
        """
        if self.training:
            frames = torch.fft.irfft(torch.complex(real, imag), n=self.size) * self.window
        else:
            even, odd = real @ self.inverse_cosines, imag @ self.inverse_sines
            early, late = even[:, :, :-1] + odd, (even[:, :, :-1] - odd).flip(2)
            first = torch.zeros_like(even[:, :, :1])
            frames = torch.cat([first, early, even[:, :, -1:], late], dim=2)
        total = self._overlap_add(frames)
        ones = torch.ones_like(frames[:1, :, :1])
        weight = self._overlap_add(ones * self.window.square())
        keep = slice(self.pad, -self.pad)
        return total[:, keep] / weight[:, keep]

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """Add frames [B, F, n_fft] at their places: [B, (F + overlap - 1) * hop]."""
        last = self.overlap - 1
        hops = frames[:, :, : self.hop]
        total = F.pad(hops, (0, 0, 0, last))
        for j in range(1, self.overlap):
            hops = frames[:, :, j * self.hop : (j + 1) * self.hop]
            total = total + F.pad(hops, (0, 0, j, last - j))
        return total.flatten(1)
