"""How often a distillation draws each label: more where the student fails.

Source:
    Shrivastava et al. 2016, arXiv:1604.03540 (training time goes to what is still hard).
"""

from __future__ import annotations

import torch
from torch import Tensor

from clipsynth_training.denoiser.unet import UNet
from clipsynth_training.distil.auxiliary_classifier import AuxiliaryClassifier
from clipsynth_training.distil.rollout import Rollout

AT_ONCE = 8
"""Clips a call, so that memory stays that of a training step."""


@torch.no_grad()
def difficulty(
    student: UNet,
    rollout: Rollout,
    text: Tensor,
    auxiliary: AuxiliaryClassifier,
    *,
    frames: int,
    sounds: int = 2,
) -> Tensor:
    """Return how seldom an auxiliary classifier hears each label in the student's sounds, 0 to 1.

    Args:
        student: In evaluation mode, on the classifier's device; asked once per call of ``rollout``.
        rollout: Its sampler.
        text: What it is asked, by label, [C, D].
        auxiliary: Hears the mels.
        frames: Their length.
        sounds: How many of each label are heard.

    Returns:
        float32 [C].
    """
    label = torch.arange(len(text)).repeat(sounds)
    generator = torch.Generator().manual_seed(29)
    noise = torch.randn(len(label), student.config.n_mels, frames, generator=generator)
    made = []
    for part, own in zip(noise.split(AT_ONCE), label.split(AT_ONCE), strict=True):
        x, condition = part.to(auxiliary.device), text[own].to(auxiliary.device)
        *_, (_, x0) = rollout(student, x, condition, end_to_end=False)
        made.append(x0)
    heard = auxiliary.posterior(torch.cat(made), label).cpu()
    return 1.0 - heard.view(sounds, len(text)).mean(dim=0)


def repeats(label: Tensor, weight: Tensor) -> list[int]:
    """Return how often an epoch holds the clips of each label, so that labels weigh ``weight``.

    Args:
        label: Of each clip, int64 [N]; -1 where unlabelled.
        weight: Of each label, positive, [C].

    Returns:
        C numbers, each at least 1.
    """
    counts = torch.bincount(label[label >= 0], minlength=len(weight)).clamp_min(1)
    return [max(1, round(float(n))) for n in weight * counts.max() / counts]
