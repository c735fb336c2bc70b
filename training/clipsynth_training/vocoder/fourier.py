"""Short-time Fourier transforms in real arithmetic, so that they can be exported."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipsynth_rt.bundles.manifest import MelSpec

# Rows and columns: samples n, N/2 - n, N/2 + n and N - n of a frame against the parts that cosines
# and sines of even and odd bins meet, in this order; symmetric, and so its own way back.
_FOLD = (
    (1.0, 1.0, 1.0, 1.0),
    (1.0, -1.0, -1.0, 1.0),
    (1.0, -1.0, 1.0, -1.0),
    (1.0, 1.0, -1.0, -1.0),
)


class RealStft(nn.Module):
    """STFT and inverse STFT between a waveform and pairs of real and imaginary parts.

    In training the transform is an FFT, and its bins lie in order: [B, 1, F, n_fft // 2 + 1].

    In evaluation, and so in an exported graph, it is four products with matrices of a quarter of
    the frame: cosines and sines are even or odd about its middle and, for even and odd bins, about
    its quarters, so that the frame folds twice and an eighth of the multiplications of the plain
    complex matrix is left. Even bins and odd bins then lie apart, [B, 2, F, n_fft // 4 + 1], with
    an empty bin after the odd ones. What is folded backwards in time is read from a waveform
    reversed hop by hop, never from frames, which are four times as much.

    Args:
        spec: The analysis: ``win_length`` is ``n_fft``, and four times ``hop_length``.

    Raises:
        ValueError: If ``spec`` is not such an analysis.

    Source:
        Rao and Yip 1990, "Discrete Cosine Transform", chapter 4 (splits by symmetry).
    """

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        size, hop = spec.n_fft, spec.hop_length
        if spec.win_length != size or size != 4 * hop or hop % 2:
            raise ValueError(f"no such transform here: {size}, {hop}, {spec.win_length}")
        self.size, self.hop, self.bins = size, hop, size // 2 + 1
        self.pad = (size - hop) // 2
        window = torch.hann_window(size, dtype=torch.float64)
        n = torch.arange(hop + 1, dtype=torch.float64)
        k = torch.arange(self.bins, dtype=torch.float64)
        angle = (2.0 * math.pi / size) * torch.outer(n, k)
        # [2, samples, bins]; each bin but the first and last stands for itself and its mirror image
        cosines, sines = (self.fold(x).transpose(0, 1) for x in (angle.cos(), -angle.sin()))
        twice = self.fold(torch.where((k == 0) | (k == size // 2), 1.0, 2.0) / size)[:, :, None]
        early, late = window[: hop + 1], window[hop : 2 * hop + 1].flip(0)
        # a quarter and the middle of a frame are met by two of the four parts
        once = torch.ones_like(n)
        once[hop] = 0.5
        middle = torch.ones_like(n)
        middle[[0, hop]] = 0.5
        steady = 1.5  # the sum of squared Hann windows a quarter apart
        squares = window.square().unflatten(0, (4, hop))
        buffers = {
            "window": window,
            "signs": torch.tensor(_FOLD),
            "fold_window": torch.stack([early * once, late * middle, late * middle, early * once]),
            "unfold_window": torch.stack([early, late, late, early]) / steady,
            "cosines": cosines,
            "sines": sines,
            "inverse_cosines": twice * cosines.transpose(1, 2),
            "inverse_sines": twice * sines.transpose(1, 2),
            # the first and last hops lie under fewer windows; those at the very ends are cut off
            "start": steady / squares.cumsum(0)[:3].clamp_min(1e-3),
            "end": steady / squares.flip(0).cumsum(0).flip(0)[1:].clamp_min(1e-3),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.float(), persistent=False)

    @staticmethod
    def fold(x: Tensor) -> Tensor:
        """Lay bins [..., bins] out as in evaluation: [..., 2, bins // 2 + 1]."""
        return torch.stack([x[..., 0::2], F.pad(x[..., 1::2], (0, 1))], dim=-2)

    def arrange(self, x: Tensor) -> Tensor:
        """Return one value a bin, [bins], so that it fits what ``analyse`` returns."""
        return x if self.training else self.fold(x)[:, None]

    def in_order(self, x: Tensor) -> Tensor:
        """Return bins [B, F, n_fft // 2 + 1] in order, from the layout of ``analyse``."""
        if self.training:
            return x[:, 0]
        return torch.stack([x[:, 0], x[:, 1]], dim=3).flatten(2)[:, :, : self.bins]

    def analyse(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Return real and imaginary parts of waveform [B, T], a frame every hop: see the class."""
        padded = F.pad(waveform[:, None], (self.pad, self.pad), mode="reflect")[:, 0]
        if self.training:
            frames = padded.unfold(1, self.size, self.hop) * self.window
            spectrum = torch.fft.rfft(frames)[:, None]
            return spectrum.real, spectrum.imag
        hops = padded.unflatten(1, (-1, self.hop))
        count = hops.shape[1] - 3
        # each hop and the first sample of the next; a Hann window ends before the last of these
        ahead = torch.cat([hops, F.pad(hops[:, 1:, :1], (0, 0, 0, 1))], dim=2)
        back = ahead.flip(2)
        quarters = (ahead[:, :count], back[:, 1 : count + 1], ahead[:, 2 : count + 2], back[:, 3:])
        parts = self._butterfly(torch.stack(quarters, dim=1) * self.fold_window[:, None])
        return parts[:, :2] @ self.cosines, parts[:, 2:] @ self.sines

    def synthesise(self, real: Tensor, imag: Tensor) -> Tensor:
        """Return the waveform [B, F * hop] nearest to parts laid out as ``analyse`` does.

        In evaluation F is at least 3.

        Source:
            Griffin and Lim 1984, "Signal estimation from modified short-time Fourier transform".
        """
        keep = slice(self.pad, -self.pad)
        if self.training:
            frames = torch.fft.irfft(torch.complex(real, imag)[:, 0], n=self.size) * self.window
            weight = self._overlap_add(torch.ones_like(frames[:1, :, :1]) * self.window.square())
            return self._overlap_add(frames)[:, keep] / weight[:, keep]
        parts = torch.cat([real @ self.inverse_cosines, imag @ self.inverse_sines], dim=1)
        first, second, third, fourth = (
            self._butterfly(parts) * self.unfold_window[:, None]
        ).unbind(1)
        ahead = F.pad(first[:, :, :-1], (0, 0, 0, 3)) + F.pad(third[:, :, :-1], (0, 0, 2, 1))
        back = F.pad(second[:, :, 1:], (0, 0, 1, 2)) + F.pad(fourth[:, :, 1:], (0, 0, 3, 0))
        steady = torch.ones_like(real[0, 0, 3:, :1]).expand(-1, self.hop)
        total = (ahead + back.flip(2)) * torch.cat([self.start, steady, self.end])
        return total.flatten(1)[:, keep]

    def _butterfly(self, parts: Tensor) -> Tensor:
        """Add and subtract the four quarters of frames [B, 4, F, hop + 1]: see ``_FOLD``."""
        return (self.signs @ parts.flatten(2)).view_as(parts)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """Add frames [B, F, n_fft] at their places: [B, (F + 3) * hop]."""
        total = F.pad(frames[:, :, : self.hop], (0, 0, 0, 3))
        for j in range(1, 4):
            hops = frames[:, :, j * self.hop : (j + 1) * self.hop]
            total = total + F.pad(hops, (0, 0, j, 3 - j))
        return total.flatten(1)
