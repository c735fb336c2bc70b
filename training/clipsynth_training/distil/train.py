"""Distil a denoiser's guidance and many steps into a few calls: the loop, from top to bottom.

The student plays the sampler of the runtime, DDIM from noise over a few fixed times, one call a
step. Two things teach it: where the guided teacher's long trajectory from the same noise leads
(a regression, which alone would be blurred), and a discriminator that compares what comes out with
real clips of the same label. A third may: an auxiliary classifier, which hears the label or not.

Sources:
    Salimans & Ho 2022, arXiv:2202.00512 (targets that make one step of several); Meng et al. 2023,
    arXiv:2210.03142 (guidance distilled too); Sauer et al. 2023, arXiv:2311.17042, and Lin et
    al. 2025, arXiv:2501.08316 (adversarial loss, and the finite-difference penalty); Huang et al.
    2024, arXiv:2501.05441 (relativistic pairing).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipsynth_rt.bundles.manifest import encode
from clipsynth_training.checkpoint import load_weights, save_component
from clipsynth_training.denoiser.conditions import ConditionedMels
from clipsynth_training.denoiser.config import TrainConfig
from clipsynth_training.denoiser.unet import UNet
from clipsynth_training.distil.auxiliary_classifier import AuxiliaryClassifier
from clipsynth_training.distil.batches import DistilBatch, DistilBatches, DistilConfig
from clipsynth_training.distil.discriminator import DiscriminatorTrainer, adversarial_adam
from clipsynth_training.distil.rollout import Rollout
from clipsynth_training.distil.trajectories import Trajectories
from clipsynth_training.run.distributed import mean_over_processes, take_step
from clipsynth_training.run.ema import WeightAverage
from clipsynth_training.run.state import pack, unpack
from clipsynth_training.run.trainer import Trainer

logger = logging.getLogger(__name__)

COMPONENT, STATE = "denoiser_distilled", "distil_state"
WARMUP_STEPS = 20
HUBER = 0.03
"""Below it errors count by their square, above by their size: a squared error alone leaves a haze
where the teacher is silent (pseudo-Huber: Song & Dhariwal 2023, arXiv:2310.14189, section 3.3)."""


class DistilTrainer(Trainer):
    """A student, its discriminator, and all that resuming needs.

    Args:
        config: How to train.
        model_config: The teacher's configuration; the student has its shape.
        weights: What the student begins with: the teacher's, or another student's.
        data: Real clips with labels; each label's first text is what the teacher was asked.
        pairs: The teacher's trajectories.
        out_dir: Checkpoint folder; an earlier run in it is resumed.
        facts: Stored with the student.
        auxiliary: Hears what the student makes; on ``device``.
        device: Where the networks are, such as ``cpu`` or ``cuda``.

    Raises:
        CheckpointError: If ``out_dir`` holds a damaged run, or one of another shape.
        DataError: If no clip has a label, or a label has no trajectory.
    """

    name = "student"
    state_name = STATE
    warmup_steps = WARMUP_STEPS

    def __init__(
        self,
        config: DistilConfig,
        model_config: TrainConfig,
        weights: Mapping[str, Tensor],
        data: ConditionedMels,
        pairs: Trajectories,
        out_dir: str | Path,
        facts: dict[str, Any] | None = None,
        *,
        auxiliary: AuxiliaryClassifier | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(out_dir, config.batch_size)
        self.config, self.model_config = config, model_config
        self.device = torch.device(device)
        self.facts = facts or {}
        self.auxiliary = auxiliary
        prefetch = self.device.type != "cpu"
        self.batches = DistilBatches(config, data, pairs, self.rank, self.processes, prefetch)
        torch.manual_seed(config.seed)
        self.student = UNet(model_config.unet).to(self.device, memory_format=torch.channels_last)
        load_weights(self.student, weights, "what the student begins with")
        self.average = WeightAverage(self.student, config.ema_decay)
        self.discriminator = DiscriminatorTrainer(
            config, len(data.text), model_config.mel, self.rank, self.device
        )
        self.optimiser = adversarial_adam(self.student, config.learning_rate)
        self.rollouts = {n: Rollout(model_config.diffusion, n) for n in config.num_steps}
        # in one call a student is further from its teacher than in two
        self.sizes = {n: _GradientSizes() for n in config.num_steps}
        self.resume()

    def train_step(self, rate_share: float = 1.0) -> dict[str, float]:
        """Take one step of the student and one of the discriminator; returns their losses."""
        batch = self.batches.take(self.step).to(self.device)
        adversarial = self.step >= self.config.regression_steps
        chance = torch.rand((), generator=torch.Generator().manual_seed(self.step)).item()
        end_to_end = adversarial and chance < self.config.end_to_end
        rollout, sizes = self.rollouts[batch.num_steps], self.sizes[batch.num_steps]
        # where only the last call learns, the others need no gradient
        first = batch.num_steps - 1 if adversarial and not end_to_end else 0
        self.optimiser.zero_grad(set_to_none=True)
        regression = batch.noise.new_zeros(())
        for number, (x, x0) in enumerate(
            rollout(self.student, batch.noise, batch.condition, end_to_end, first)
        ):
            if number >= first:
                x = x[: batch.pairs].detach()
                error = x0[: batch.pairs] - rollout.target(number, x, batch.path[:, number])
                distance = (error.square() + HUBER**2).sqrt() - HUBER
                regression = regression + distance.mean(dim=(1, 2)).sum() / len(x0)
        made = x0
        values = {"loss": float(regression.detach()) * len(x0) / batch.pairs}
        push = torch.zeros_like(made)
        sizes.measure(error.detach(), len(made))
        if adversarial:
            gradient, values["generator"] = self.discriminator.gradient(
                self.step, batch, made.detach()
            )
            push = sizes.scale_to(self.config.adversarial, "discriminator", gradient)
        if self.auxiliary is not None:
            advice, values["auxiliary"] = self._advise(self.auxiliary, batch, made.detach())
            push = push + advice
        torch.autograd.backward([regression, made], [None, push])
        take_step(
            self.student,
            self.optimiser,
            self.config.learning_rate * rate_share,
            self.config.gradient_clip,
        )
        self.average.update(self.student)
        values |= self.discriminator.train(self.step, batch, made.detach(), rate_share)
        self.step += 1
        return {k: mean_over_processes(v) for k, v in values.items()}

    def _advise(
        self, auxiliary: AuxiliaryClassifier, batch: DistilBatch, made: Tensor
    ) -> tuple[Tensor, float]:
        """Return the auxiliary classifier's gradient at ``made``, brought to size, and its loss."""
        made = made.requires_grad_()
        generator = torch.Generator(made.device).manual_seed(self.step * 2 + self.rank)
        loss = auxiliary.loss(made, batch.label, generator)
        (gradient,) = torch.autograd.grad(loss, made)
        push = self.sizes[batch.num_steps].scale_to(self.config.auxiliary, "auxiliary", gradient)
        return push, float(loss.detach())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return student, discriminator and their optimisers, and the configuration."""
        facts = {
            "ema_updates": self.average.num_updates,
            "sizes": {str(n): sizes.known for n, sizes in self.sizes.items()},
            "config": self._description(),
        }
        student = pack(self.student, self.average, self.optimiser)
        other = pack(self.discriminator.network, None, self.discriminator.optimiser)
        tensors = {f"student.{k}": v for k, v in student.items()}
        return tensors | {f"discriminator.{k}": v for k, v in other.items()}, facts

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Put back what ``state`` returned; see ``Trainer``."""
        discriminator = self.discriminator
        for prefix, triple in (
            ("student.", (self.student, self.average, self.optimiser)),
            ("discriminator.", (discriminator.network, None, discriminator.optimiser)),
        ):
            own = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            unpack(own, *triple, facts["ema_updates"], str(self.out_dir))
        for n, sizes in self.sizes.items():
            sizes.known = facts["sizes"].get(str(n), {})

    def publish(self) -> None:
        """Write the averaged student as the component ``denoiser_distilled``."""
        save_component(self.out_dir, COMPONENT, self.average.tensors, self._description())

    def close(self) -> None:
        """Stop the threads that draw batches."""
        self.batches.close()

    def _description(self) -> dict[str, Any]:
        return {
            **self.model_config.to_dict(),
            **self.facts,
            "distilled_steps": list(self.config.num_steps),
            "distil": encode(self.config),
            "steps": self.step,
        }


class _GradientSizes:
    """Sizes of gradients at the student's output, averaged over processes and steps.

    Over processes, because one of them saves what all go on with.

    Source:
        Esser et al. 2021, arXiv:2012.09841, equation 7.
    """

    def __init__(self) -> None:
        self.known: dict[str, float] = {}

    def measure(self, error: Tensor, count: int) -> None:
        """Take the regression's, of errors [B, M, F] among ``count`` clips."""
        slope = error / (error.square() + HUBER**2).sqrt()
        size = slope.flatten(1).norm(dim=1).mean() / (error[0].numel() * count)
        self._note("regression", float(size))

    def scale_to(self, share: float, name: str, gradient: Tensor) -> Tensor:
        """Scale a gradient [B, M, F] to ``share`` of the regression's."""
        self._note(name, float(gradient.flatten(1).norm(dim=1).mean()))
        return gradient * (share * self.known["regression"] / max(self.known[name], 1e-12))

    def _note(self, name: str, size: float) -> None:
        size = mean_over_processes(size)
        self.known[name] = 0.98 * self.known.get(name, size) + 0.02 * size
