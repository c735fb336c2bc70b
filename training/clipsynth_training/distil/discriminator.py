"""The discriminator that a student is trained against, and how it learns.

Source:
    Huang et al. 2024, arXiv:2501.05441 (relativistic pairing); Lin et al. 2025, arXiv:2501.08316
    (the penalty, by a finite difference).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_training.distil.batches import DistilBatch, DistilConfig
from clipsynth_training.distil.mel_discriminator import MelDiscriminator, MelDiscriminatorConfig
from clipsynth_training.run.distributed import take_step


class DiscriminatorTrainer:
    """A discriminator and its optimiser.

    Args:
        config: Rates and the penalty.
        labels: How many there are.
        mel: Of the clips.
        rank: This process's number.
        device: Where it learns.
    """

    def __init__(
        self,
        config: DistilConfig,
        labels: int,
        mel: MelSpec,
        rank: int = 0,
        device: torch.device | None = None,
    ) -> None:
        self.config, self.mel, self.rank = config, mel, rank
        shape = MelDiscriminatorConfig(labels, mel.n_mels)
        self.network = MelDiscriminator(shape).to(device, memory_format=torch.channels_last)
        self.optimiser = adversarial_adam(self.network, config.discriminator_rate)

    def gradient(self, step: int, batch: DistilBatch, made: Tensor) -> tuple[Tensor, float]:
        """Return the gradient at ``made`` [B, M, F] of the student's loss, and that loss."""
        made = made.requires_grad_()
        self.network.requires_grad_(False)
        real, fake = self._delayed(step, batch.real, made)
        with torch.no_grad():
            real_scores = self.network(real, batch.label)
        loss = F.softplus(real_scores - self.network(fake, batch.label)).mean()
        (gradient,) = torch.autograd.grad(loss, made)
        self.network.requires_grad_(True)
        return gradient, float(loss.detach())

    def train(self, step: int, batch: DistilBatch, made: Tensor, rate: float) -> dict[str, float]:
        """Learn to tell ``made`` [B, M, F] from real clips; returns its loss."""
        config = self.config
        real, fake = self._delayed(step, batch.real, made)
        self.optimiser.zero_grad(set_to_none=True)
        smooth = step % config.penalty_every == 0
        clips, times = torch.cat([real, fake]), 2
        if smooth:
            noise = torch.randn(
                clips.shape, generator=self._generator(step, clips.device), device=clips.device
            )
            clips, times = torch.cat([clips, clips + config.penalty_noise * noise]), 4
        scores = self.network(clips, batch.label.repeat(times)).chunk(times)
        loss = F.softplus(scores[1] - scores[0]).mean()
        values = {"discriminator": float(loss.detach())}
        if smooth:
            moved = [(scores[2 + i] - scores[i]).square().mean() for i in (0, 1)]
            loss = loss + config.penalty * config.penalty_every * sum(moved)
        loss.backward()
        rate *= config.discriminator_rate
        take_step(self.network, self.optimiser, rate, config.gradient_clip)
        return values

    def _delayed(self, step: int, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Delay both alike, so that few clips a label are not learnt by heart.

        Levels stay as they are: they are a part of what is to be learnt.

        Source:
            Zhao et al. 2020, arXiv:2006.10738 (differentiable augmentation).
        """
        frames, floor = real.shape[2], self.mel.floor_normalised
        most = min(16, frames // 8)
        delay = int(torch.randint(most + 1, (), generator=self._generator(step, "cpu")))
        both = (F.pad(mel, (delay, 0), value=floor)[:, :, :frames] for mel in (real, fake))
        return next(both), next(both)

    def _generator(self, step: int, device: torch.device | str) -> torch.Generator:
        return torch.Generator(device).manual_seed(step * 2 + self.rank)


def adversarial_adam(module: nn.Module, rate: float) -> torch.optim.Optimizer:
    """Return AdamW of little momentum: what is to be learnt changes with the other network."""
    return torch.optim.AdamW(
        module.parameters(), lr=rate, betas=(0.5, 0.99), weight_decay=0.0, fused=True
    )
