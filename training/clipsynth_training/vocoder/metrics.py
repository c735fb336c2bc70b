"""How far a resynthesised sound is from the original: distances in nats and decibels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from clipsynth_training.mel import MelSpectrogram

RESOLUTIONS = ((512, 128, 512), (1024, 256, 1024), (2048, 512, 2048))
"""FFT size, hop and window of the multi-resolution STFT distance."""

MAGNITUDE_FLOOR = 2e-2
"""Magnitudes below are silence: a 1,024-point bin at the floor of the mel spectrogram (its filters
add up to 0.046 a bin), so what the mel cannot tell is not counted against a vocoder."""


def stft_magnitude(waveform: Tensor, n_fft: int, hop: int, win: int) -> Tensor:
    """Return |STFT| [B, n_fft // 2 + 1, frames] of ``waveform`` [B, T], centred, Hann window."""
    window = torch.hann_window(win, device=waveform.device)
    frames = torch.stft(waveform.float(), n_fft, hop, win, window, return_complex=True)
    # sqrt has no gradient at 0; 1e-9 is 56 dB below the floor of the logarithms
    return torch.sqrt(frames.real.square() + frames.imag.square() + 1e-9)


def mel_l1(reference: Tensor, estimate: Tensor, analysis: MelSpectrogram) -> Tensor:
    """Return the mean absolute difference of natural-log mels, in nats, [B]."""
    gap = analysis(reference) - analysis(estimate)
    return gap.abs().mean((1, 2)) * analysis.spec.std


def stft_distance(reference: Tensor, estimate: Tensor, n_fft: int, hop: int, win: int) -> Tensor:
    """Return spectral convergence plus L1 of natural-log magnitudes at one resolution, [B].

    Source:
        Arik et al. 2019, arXiv:1808.06719, equations 2 and 3.
    """
    true, made = (stft_magnitude(x, n_fft, hop, win) for x in (reference, estimate))
    convergence = (true - made).norm(dim=(1, 2)) / true.norm(dim=(1, 2)).clamp_min(1e-4)
    true, made = (torch.log(x.clamp_min(MAGNITUDE_FLOOR)) for x in (true, made))
    return convergence + (true - made).abs().mean((1, 2))


def multi_resolution_stft_distance(reference: Tensor, estimate: Tensor) -> Tensor:
    """Return ``stft_distance`` averaged over ``RESOLUTIONS``, [B].

    Source:
        Yamamoto et al. 2020, arXiv:1910.11480, section 2.3.
    """
    return torch.stack([stft_distance(reference, estimate, *r) for r in RESOLUTIONS]).mean(0)


def log_spectral_distance(reference: Tensor, estimate: Tensor) -> Tensor:
    """Return the root mean square over frequency of the level difference, in dB, [B].

    Magnitudes of 1,024-point frames, averaged over frames.
    """
    size = (1024, 256, 1024)
    true, made = (
        (20.0 / math.log(10.0)) * torch.log(stft_magnitude(x, *size).clamp_min(MAGNITUDE_FLOOR))
        for x in (reference, estimate)
    )
    return (true - made).square().mean(1).sqrt().mean(1)


def resynthesis_distances(
    audio: Tensor,
    vocode: Callable[[Tensor], Tensor],
    analysis: MelSpectrogram,
    batch_size: int = 8,
) -> dict[str, Tensor]:
    """Vocode the mels of ``audio`` and compare clip by clip.

    Args:
        audio: Waveforms float32 [N, T]; T a multiple of the hop.
        vocode: Normalised log-mel [B, M, F] -> waveform [B, T].
        analysis: Makes the mels.
        batch_size: Clips at once.

    Returns:
        ``mel_l1`` (nats), ``mr_stft`` and ``lsd_db``, each [N]; lower is better.
    """
    found: dict[str, list[Tensor]] = {"mel_l1": [], "mr_stft": [], "lsd_db": []}
    with torch.no_grad():
        for clips in audio.split(batch_size):
            made = vocode(analysis(clips)).float()
            made = F.pad(made, (0, clips.shape[1] - made.shape[1]))
            found["mel_l1"].append(mel_l1(clips, made, analysis))
            found["mr_stft"].append(multi_resolution_stft_distance(clips, made))
            found["lsd_db"].append(log_spectral_distance(clips, made))
    return {name: torch.cat(parts) for name, parts in found.items()}


def measure_resynthesis(
    audio: Tensor,
    vocode: Callable[[Tensor], Tensor],
    analysis: MelSpectrogram,
    batch_size: int = 8,
) -> dict[str, float]:
    """Return the means of ``resynthesis_distances``."""
    found = resynthesis_distances(audio, vocode, analysis, batch_size)
    return {name: float(values.mean()) for name, values in found.items()}
