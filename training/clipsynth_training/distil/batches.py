"""How a student is trained, and the batches that it sees: a function of the seed and step alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clipsynth_rt.bundles.manifest import decode
from clipsynth_rt.errors import InputError, ManifestError
from clipsynth_rt.files import read_toml
from clipsynth_training.denoiser.batches import READERS, clips_of_step
from clipsynth_training.denoiser.conditions import ConditionedMels
from clipsynth_training.denoiser.diffusion import add_noise
from clipsynth_training.distil.trajectories import Trajectories
from clipsynth_training.run.prefetch import Prefetcher
from clipsynth_training.run.ranges import (
    ABOVE_ZERO,
    BELOW_ONE,
    FROM_ONE,
    FROM_ZERO,
    SHARE,
    check_ranges,
)


@dataclass(frozen=True)
class DistilConfig:
    """How a student is trained.

    Attributes:
        num_steps: Numbers of steps, one network call each, that the student makes a sound in; the
            first is the default, and one is enough.
        other_share: Share of training steps that go to the others.
        batch_size: Clips a step, over all processes.
        learning_rate: Of the student, and of the discriminator.
        discriminator_rate: See there.
        ema_decay: Of the averaged weights that are shipped.
        regression_steps: First steps, of regression alone; the discriminator learns meanwhile.
        trajectory_share: Share of a batch that follows the teacher afterwards, one clip at least.
        adversarial: Size of the discriminator's gradient against the regression's, at the output.
        auxiliary: Size of the auxiliary classifier's gradient against the regression's, at the
            output; where there is one.
        penalty: Weight of the discriminator's smoothness, at ``penalty_noise``.
        penalty_noise: Standard deviation of the noise that must not change its scores.
        penalty_every: Steps between penalties, which are that much larger (Karras et al. 2020,
            arXiv:1912.04958, section 3.1).
        end_to_end: Share of steps whose gradient reaches back through all calls, not the last
            alone.
        oversampling: How much more often than others a label is drawn that the auxiliary
            classifier never hears right in what the student begins with; labels weigh alike
            otherwise. Without a classifier, or at 0, clips weigh alike.
        plain_share: Share of clips whose text is what the teacher was asked; the others draw any.
        condition_noise: As in ``OptimiserConfig``, for half of the clips.
        gradient_clip: Largest gradient norm.
        seed: Of order and noise.
    """

    num_steps: tuple[int, ...] = (2,)
    other_share: float = 0.5
    batch_size: int = 16
    learning_rate: float = 2e-4
    discriminator_rate: float = 4e-4
    ema_decay: float = 0.995
    regression_steps: int = 300
    trajectory_share: float = 0.25
    adversarial: float = 1.0
    auxiliary: float = 1.0
    penalty: float = 1.0
    penalty_noise: float = 0.1
    penalty_every: int = 4
    end_to_end: float = 0.5
    oversampling: float = 2.0
    plain_share: float = 0.3
    condition_noise: float = 0.2
    gradient_clip: float = 1.0
    seed: int = 0

    @property
    def states(self) -> int:
        """States of a trajectory that hold those after each step of every number of steps."""
        return math.lcm(*self.num_steps)

    def num_steps_at(self, step: int) -> int:
        """Return the number of steps that a training step learns, a function of seed and step."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) * 64 + 63)
        usual, *others = self.num_steps
        if not others or torch.rand((), generator=generator).item() >= self.other_share:
            return usual
        return others[int(torch.randint(len(others), (), generator=generator))]


_RANGES = {
    "other_share": SHARE,
    "batch_size": FROM_ONE,
    "learning_rate": ABOVE_ZERO,
    "discriminator_rate": ABOVE_ZERO,
    "ema_decay": BELOW_ONE,
    "regression_steps": FROM_ZERO,
    "trajectory_share": SHARE,
    "adversarial": FROM_ZERO,
    "auxiliary": FROM_ZERO,
    "penalty": FROM_ZERO,
    "penalty_noise": FROM_ZERO,
    "penalty_every": FROM_ONE,
    "end_to_end": SHARE,
    "oversampling": FROM_ZERO,
    "plain_share": SHARE,
    "condition_noise": FROM_ZERO,
    "gradient_clip": ABOVE_ZERO,
}


def load_config(path: str | Path | None) -> DistilConfig:
    """Read a configuration from a TOML file; the defaults if None.

    Raises:
        InputError: If the file cannot be read, or a key or value is not known.
    """
    if path is None:
        return DistilConfig()
    try:
        config = decode(DistilConfig, read_toml(path))
    except ManifestError as error:
        raise InputError(f"{path}: not a configuration of train distil ({error})") from error
    check_ranges(config, _RANGES, f"{path}: ")
    counts = config.num_steps
    if not counts or min(counts) < 1 or len(set(counts)) < len(counts):
        raise InputError(f"{path}: num_steps must be different numbers from 1 on")
    return config


@dataclass(frozen=True)
class DistilBatch:
    """One process's share of a step: ``real`` [b, M, F], ``label`` [b], and what to start from.

    The first ``pairs`` clips have the teacher's trajectory: ``path`` [pairs, calls, M, F] holds
    its state after each of the student's calls, the last of them its sound.
    """

    real: Tensor
    label: Tensor
    condition: Tensor
    noise: Tensor
    path: Tensor

    @property
    def pairs(self) -> int:
        """How many clips follow the teacher."""
        return len(self.path)

    @property
    def num_steps(self) -> int:
        """In how many calls the student makes these clips."""
        return self.path.shape[1]

    def to(self, device: torch.device) -> DistilBatch:
        """Return the batch on another device."""
        tensors = (self.real, self.label, self.condition, self.noise, self.path)
        return DistilBatch(*(tensor.to(device) for tensor in tensors))


class DistilBatches:
    """Draws batches.

    Args:
        config: Sizes and seed.
        data: Real clips with labels.
        pairs: The teacher's trajectories.
        rank: This process's number.
        processes: How many there are; clip i of a batch is that of process i modulo their number.
        ahead: Draw in the background, for a student on another device.

    Raises:
        DataError: If no clip has a label, or a label has no trajectory.
    """

    def __init__(
        self,
        config: DistilConfig,
        data: ConditionedMels,
        pairs: Trajectories,
        rank: int = 0,
        processes: int = 1,
        ahead: bool = False,
    ) -> None:
        self.config, self.data, self.pairs = config, data, pairs
        self._ahead = Prefetcher(self.draw, READERS if ahead else 0)
        self.rank, self.processes = rank, processes
        self.indices = data.usable("text")
        pairs.check(data.label[self.indices], config.states)

    def take(self, step: int) -> DistilBatch:
        """Return this process's share of step ``step``."""
        return self._ahead.take(step)

    def close(self) -> None:
        """Stop drawing ahead."""
        self._ahead.close()

    def draw(self, step: int) -> DistilBatch:
        """Make this process's share of step ``step``, a function of the seed and ``step`` alone."""
        config = self.config
        size = min(config.batch_size, len(self.indices))
        chosen = clips_of_step(self.indices, size, config.seed, step)[self.rank :: self.processes]
        generator = torch.Generator().manual_seed((config.seed * 1_000_003 + step) * 64 + self.rank)
        label = self.data.label[chosen]
        real = self.data.mels[chosen].float()
        pairs = len(label)
        if step >= config.regression_steps:
            pairs = max(1, round(config.trajectory_share * len(label)))
        noise = torch.randn(real.shape, generator=generator)
        noise[:pairs], path = self.pairs.draw(label[:pairs], generator)
        condition = self._conditions(label, generator)
        stride = config.states // config.num_steps_at(step)
        return DistilBatch(real, label, condition, noise, path[:, stride - 1 :: stride])

    def _conditions(self, label: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a text of each label, half of them with a little noise."""
        count, texts = len(label), self.data.text.shape[1]
        text = torch.randint(texts, (count,), generator=generator)
        text[torch.rand(count, generator=generator) < self.config.plain_share] = 0
        condition = self.data.text[label, text]
        noised = add_noise(condition, self.config.condition_noise, generator)
        noisy = torch.rand(count, 1, generator=generator) < 0.5
        return torch.where(noisy, noised, condition)
