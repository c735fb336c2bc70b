"""How often a distillation draws each label: alike, but more where a tutor hears the student fail.

Source:
    Shrivastava et al. 2016, arXiv:1604.03540 (training time goes to what is still hard).
"""

from __future__ import annotations

import torch
from torch import Tensor

from clipsynth_training.denoiser.unet import UNet
from clipsynth_training.distil.auxiliary_classifier import Tutor
from clipsynth_training.distil.rollout import Rollout

AT_ONCE = 8
"""Clips a call, so that memory stays that of a training step."""


@torch.no_grad()
def difficulty(
    student: UNet, rollout: Rollout, text: Tensor, tutor: Tutor, *, frames: int, sounds: int = 2
) -> Tensor:
    """Return how unlikely a tutor thinks each label for the student's sounds of it, 0 to 1.

    Args:
        student: In evaluation mode, on the tutor's device; asked once per call of ``rollout``.
        rollout: Its sampler.
        text: What it is asked, by label, [C, D].
        tutor: Hears the mels.
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
        x, condition = part.to(tutor.device), text[own].to(tutor.device)
        *_, (_, x0) = rollout(student, x, condition, end_to_end=False)
        made.append(x0)
    heard = tutor.posterior(torch.cat(made), label).cpu()
    return 1.0 - heard.view(sounds, len(text)).mean(dim=0)


def passes(label: Tensor, weight: Tensor) -> list[int]:
    """Return how often an epoch holds the clips of each label, so that labels weigh ``weight``.

    Args:
        label: Of each clip, int64 [N]; -1 where unlabelled.
        weight: Of each label, positive, [C].

    Returns:
        C numbers, each at least 1.
    """
    counts = torch.bincount(label[label >= 0], minlength=len(weight)).clamp_min(1)
    return [max(1, round(float(n))) for n in weight * counts.max() / counts]
