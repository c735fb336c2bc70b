"""Mel spectrogram to waveform without a network: the baseline that a vocoder has to beat."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_training.mel import MelSpectrogram


def mel_to_magnitude(mel: Tensor, analysis: MelSpectrogram, iterations: int = 100) -> Tensor:
    """Return the non-negative STFT magnitudes that explain a mel spectrogram best.

    Least squares under a sign constraint, by accelerated projected gradient from the
    pseudo-inverse; frames and clips are solved together.

    Args:
        mel: Normalised log-mel [B, M, F].
        analysis: The analysis that made it; supplies filters and normalisation.
        iterations: Gradient steps.

    Returns:
        float32 [B, n_fft // 2 + 1, F].

    Source:
        Beck and Teboulle 2009, "A fast iterative shrinkage-thresholding algorithm".
    """
    power = torch.exp(analysis.denormalise(mel.float()))
    filters = analysis.filters
    gram, target = filters.T @ filters, filters.T @ power
    step = 1.0 / torch.linalg.matrix_norm(gram, 2)
    solution = (torch.linalg.pinv(filters) @ power).clamp_min(0.0)
    ahead, t = solution, 1.0
    for _ in range(iterations):
        updated = (ahead - step * (gram @ ahead - target)).clamp_min(0.0)
        t_next = (1.0 + math.sqrt(1.0 + 4.0 * t * t)) / 2.0
        ahead = updated + (t - 1.0) / t_next * (updated - solution)
        solution, t = updated, t_next
    return solution.pow(1.0 / analysis.spec.power)


def stft(waveform: Tensor, spec: MelSpec) -> Tensor:
    """Return the complex STFT [B, n_fft // 2 + 1, F] of ``waveform`` [B, T], padded as the mel."""
    pad = (spec.n_fft - spec.hop_length) // 2
    padded = F.pad(waveform[:, None], (pad, pad), mode="reflect")[:, 0]
    window = torch.hann_window(spec.win_length, device=waveform.device)
    return torch.stft(
        padded, spec.n_fft, spec.hop_length, spec.win_length, window, center=False,
        return_complex=True,
    )  # fmt: skip


def istft(frames: Tensor, spec: MelSpec) -> Tensor:
    """Return the waveform [B, F * hop_length] whose STFT is nearest to ``frames``.

    Source:
        Griffin and Lim 1984, "Signal estimation from modified short-time Fourier transform".
    """
    window = torch.hann_window(spec.win_length, device=frames.device)
    window = F.pad(window, ((spec.n_fft - spec.win_length) // 2,) * 2)
    pieces = torch.fft.irfft(frames, n=spec.n_fft, dim=1) * window[:, None]
    squares = window.square()[:, None].expand(1, -1, frames.shape[2])
    length = (frames.shape[2] - 1) * spec.hop_length + spec.n_fft
    sizes = ((1, length), (1, spec.n_fft), 1, 0, (1, spec.hop_length))
    total, weight = (F.fold(part, *sizes)[:, 0, 0] for part in (pieces, squares))
    pad = (spec.n_fft - spec.hop_length) // 2
    return (total / weight.clamp_min(1e-8))[:, pad : length - pad]


def griffin_lim(
    magnitude: Tensor,
    spec: MelSpec,
    *,
    iterations: int = 60,
    momentum: float = 0.99,
    seed: int = 0,
    phase: Tensor | None = None,
) -> Tensor:
    """Return a waveform [B, T] in float32 whose STFT magnitudes are near ``magnitude``.

    Args:
        magnitude: [B, n_fft // 2 + 1, F].
        spec: The analysis of ``magnitude``.
        iterations: Rounds of projection, each one inverse and one forward STFT.
        momentum: Acceleration; 0 is the original algorithm.
        seed: Of the random first phase.
        phase: First phase in radians, [B, n_fft // 2 + 1, F]; random if None.

    Source:
        Perraudin, Balazs and Soendergaard 2013, "A fast Griffin-Lim algorithm".
    """
    if phase is None:
        generator = torch.Generator().manual_seed(seed)
        phase = torch.rand(magnitude.shape, generator=generator).to(magnitude.device)
        phase = phase * 2.0 * math.pi
    estimate = torch.polar(magnitude, phase)
    previous = torch.zeros_like(estimate)
    for _ in range(iterations):
        projected = stft(istft(estimate, spec), spec)
        ahead = projected + momentum * (projected - previous)
        estimate = magnitude * ahead / ahead.abs().clamp_min(1e-12)
        previous = projected
    return istft(estimate, spec)


def griffin_lim_from_mel(
    mel: Tensor, analysis: MelSpectrogram, *, iterations: int = 60, seed: int = 0
) -> Tensor:
    """Return the waveform [B, F * hop_length] of a normalised log-mel [B, M, F]."""
    magnitude = mel_to_magnitude(mel, analysis)
    return griffin_lim(magnitude, analysis.spec, iterations=iterations, seed=seed)
