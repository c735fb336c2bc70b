"""What a vocoder is trained on: spectral distances, phase speed, and a discriminator's opinion."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from clipsynth_training.mel import MelSpectrogram
from clipsynth_training.vocoder.metrics import MAGNITUDE_FLOOR, stft_magnitude

TRAINING_RESOLUTIONS = ((256, 128, 256), (512, 128, 512), (1024, 256, 1024), (2048, 512, 2048))
"""FFT size, hop and window of the training loss: the metric's, and a finer one for onsets."""


def multi_resolution_stft_loss(
    reference: Tensor,
    estimate: Tensor,
    resolutions: Sequence[tuple[int, int, int]] = TRAINING_RESOLUTIONS,
) -> Tensor:
    """Return spectral convergence plus log-magnitude L1, averaged over resolutions; a scalar.

    Args:
        reference: Waveforms [B, T].
        estimate: Waveforms [B, T].
        resolutions: FFT size, hop and window of each.

    Source:
        Yamamoto et al. 2020, arXiv:1910.11480, section 2.3.
    """
    total = reference.new_zeros(())
    for size in resolutions:
        true, made = stft_magnitude(reference, *size), stft_magnitude(estimate, *size)
        # 1.0 is the norm of near silence: a quiet item must not outweigh the others
        norms = true.norm(dim=(1, 2)).clamp_min(1.0)
        total = total + ((true - made).norm(dim=(1, 2)) / norms).mean()
        true, made = (torch.log(x.clamp_min(MAGNITUDE_FLOOR)) for x in (true, made))
        total = total + (true - made).abs().mean()
    return total / len(resolutions)


def mel_loss(reference: Tensor, estimate: Tensor, analysis: MelSpectrogram) -> Tensor:
    """Return the mean absolute difference of log-mels in nats; a scalar.

    Source:
        Kong et al. 2020, arXiv:2010.05646, equation 5.
    """
    return (analysis(reference) - analysis(estimate)).abs().mean() * analysis.spec.std


def amplitude_loss(true_amplitude: Tensor, log_amplitude: Tensor) -> Tensor:
    """Return the mean absolute difference of natural-log magnitudes; a scalar.

    Args:
        true_amplitude: Magnitudes, any shape.
        log_amplitude: Predicted logarithms, the same shape.
    """
    true = torch.log(true_amplitude.clamp_min(MAGNITUDE_FLOOR))
    return (true - log_amplitude.clamp_min(math.log(MAGNITUDE_FLOOR))).abs().mean()


def phase_loss(
    true_real: Tensor, true_imag: Tensor, cosine: Tensor, sine: Tensor
) -> tuple[Tensor, Tensor]:
    """Return how wrong the phase's steps over time and over frequency are; two scalars in [0, 2].

    Each is the mean of 1 - cos(error), weighted by the root of the magnitudes at both ends: loud
    bins count, and no angle is unwrapped.

    Args:
        true_real: Real part of the STFT [B, F, bins].
        true_imag: Imaginary part.
        cosine: Of the predicted phase.
        sine: Of the predicted phase.

    Source:
        Ai and Ling 2023, arXiv:2305.07952 (instantaneous frequency and group delay losses), with
        a cosine in place of their anti-wrapping function.
    """
    real, imag, weight = _compressed(true_real, true_imag)
    # rotate the truth back by the prediction: what is left should not turn
    turned = real * cosine + imag * sine, imag * cosine - real * sine
    steps = []
    for axis in (1, 2):
        agreement, _ = _step(*turned, axis)
        steps.append(1.0 - agreement.sum() / _step(weight, 0.0 * weight, axis)[0].sum())
    return steps[0], steps[1]


def speed_loss(true_real: Tensor, true_imag: Tensor, speed: Tensor) -> Tensor:
    """Return how wrong a predicted turn of the phase is, as ``phase_loss`` over time; a scalar.

    Args:
        true_real: Real part of the STFT [B, F, bins].
        true_imag: Imaginary part.
        speed: Predicted turn from the frame before, in radians; the first frame's is not judged.
    """
    real, imag, weight = _compressed(true_real, true_imag)
    along, across = _step(real, imag, 1)
    agreement = along * torch.cos(speed[:, 1:]) + across * torch.sin(speed[:, 1:])
    return 1.0 - agreement.sum() / _step(weight, 0.0 * weight, 1)[0].sum()


def _compressed(real: Tensor, imag: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return an STFT with the root of its magnitudes, and those roots."""
    root = (real.square() + imag.square() + 1e-9).pow(0.25)
    return real / root, imag / root, root


def _step(real: Tensor, imag: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return each value times its predecessor's conjugate along ``axis``: real, imaginary."""
    count = real.shape[axis] - 1
    old_real, old_imag = real.narrow(axis, 0, count), imag.narrow(axis, 0, count)
    new_real, new_imag = real.narrow(axis, 1, count), imag.narrow(axis, 1, count)
    return new_real * old_real + new_imag * old_imag, new_imag * old_real - new_real * old_imag


def discriminator_loss(real_scores: Sequence[Tensor], fake_scores: Sequence[Tensor]) -> Tensor:
    """Return the least-squares GAN loss of the discriminators, averaged over them; a scalar.

    Source:
        Mao et al. 2017, arXiv:1611.04076; Kong et al. 2020, arXiv:2010.05646, equation 3.
    """
    losses = [
        (1.0 - real).square().mean() + fake.square().mean()
        for real, fake in zip(real_scores, fake_scores, strict=True)
    ]
    return torch.stack(losses).mean()


def adversarial_loss(fake_scores: Sequence[Tensor]) -> Tensor:
    """Return the least-squares GAN loss of the generator, averaged; a scalar.

    Source:
        Kong et al. 2020, arXiv:2010.05646, equation 4.
    """
    return torch.stack([(1.0 - fake).square().mean() for fake in fake_scores]).mean()


def feature_matching_loss(
    real_features: Sequence[Sequence[Tensor]], fake_features: Sequence[Sequence[Tensor]]
) -> Tensor:
    """Return the mean absolute difference of the discriminators' features; a scalar.

    Source:
        Kong et al. 2020, arXiv:2010.05646, equation 6.
    """
    losses = [
        (real.detach() - fake).abs().mean()
        for reals, fakes in zip(real_features, fake_features, strict=True)
        for real, fake in zip(reals, fakes, strict=True)
    ]
    return torch.stack(losses).mean()
