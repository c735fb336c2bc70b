"""The batches of a denoiser run: what step n trains on is a function of the seed and n alone.

So a resumed run takes exactly the steps that an unbroken one would, and any number of processes
takes the steps of one: each draws the whole batch's randomness and keeps its share.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from clipsynth_rt.errors import InputError
from clipsynth_training.denoiser.conditions import ConditionedMels
from clipsynth_training.denoiser.config import TrainConfig
from clipsynth_training.denoiser.diffusion import perturb_condition, sample_times
from clipsynth_training.run.prefetch import Prefetcher

READERS = 2
"""Threads that read clips from the disk, or draw batches for a GPU."""


@dataclass(frozen=True)
class Batch:
    """What one process trains on in one step.

    Attributes:
        mel: Normalised mels, float32 [b, M, F].
        condition: Perturbed conditions, float32 [b, D].
        t: Times, float32 [b].
        noise: Like ``mel``.
        weight: The share of the loss of all processes' mean that this batch's mean loss has,
            times the number of processes; 1 for equal shares.
    """

    mel: Tensor
    condition: Tensor
    t: Tensor
    noise: Tensor
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.mel)

    def split(self, parts: int) -> Iterator[Batch]:
        """Yield the batch in at most ``parts`` parts; their weights add up to its own."""
        size = -(-len(self) // parts)
        tensors = (self.mel, self.condition, self.t, self.noise)
        for pieces in zip(*(tensor.split(size) for tensor in tensors), strict=True):
            yield Batch(*pieces, weight=self.weight * len(pieces[0]) / len(self))

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device."""
        tensors = (self.mel, self.condition, self.t, self.noise)
        return Batch(*(tensor.to(device) for tensor in tensors), weight=self.weight)


class Batches:
    """Draws batches, ahead of time in the background where that helps.

    Args:
        config: Sizes, variant and seed.
        data: The clips.
        rank: This process's number.
        processes: How many there are; clip i of a batch is that of process i modulo their number.
        ahead: Draw in the background, for a network on another device; clips that are read from
            the disk always are.

    Attributes:
        wait_s: Seconds that ``take`` has taken so far: the trainer waits as long.

    Raises:
        InputError: If a batch has fewer clips than there are processes.
        DataError: If no clip can train the variant.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: ConditionedMels,
        rank: int = 0,
        processes: int = 1,
        ahead: bool = False,
    ) -> None:
        self.config, self.data = config, data
        self.rank, self.processes = rank, processes
        self.indices = data.usable(config.optimiser.variant)
        self.size = min(config.optimiser.batch_size, len(self.indices))
        if self.size < processes:
            raise InputError(
                f"a batch of {self.size} clips cannot be shared by {processes} processes; raise "
                "optimiser.batch_size or start fewer"
            )
        self.wait_s = 0.0
        self._ahead = Prefetcher(self.draw, READERS if data.streams or ahead else 0)

    def take(self, step: int) -> Batch:
        """Return this process's share of step ``step``."""
        began = time.monotonic()
        batch = self._ahead.take(step)
        self.wait_s += time.monotonic() - began
        return batch

    def close(self) -> None:
        """Stop reading ahead."""
        self._ahead.close()

    def draw(self, step: int) -> Batch:
        """Make this process's share of step ``step``."""
        settings, share = self.config.optimiser, slice(self.rank, None, self.processes)
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        indices = self._indices(step)
        starts = self._crop_starts(len(indices), generator)
        mel = self.data.mels[indices[share]].float()
        if starts is not None:
            mel = crop(mel, starts[share], settings.crop_frames)
        condition = self.data.conditions(indices, settings.variant, generator)
        condition = perturb_condition(condition, settings, generator)
        t = sample_times(len(indices), self.config.diffusion, generator)
        noise = torch.randn((len(indices), *mel.shape[1:]), generator=generator)
        return Batch(
            mel,
            condition[share],
            t[share],
            noise[share],
            weight=len(mel) * self.processes / len(indices),
        )

    def _indices(self, step: int) -> Tensor:
        return clips_of_step(self.indices, self.size, self.config.optimiser.seed, step)

    def _crop_starts(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Return where to cut each clip, half of them from its start; None for whole clips."""
        width, frames = self.config.optimiser.crop_frames, self.data.mels.shape[2]
        if not 0 < width < frames:
            return None
        starts = torch.randint(frames - width + 1, (count,), generator=generator)
        starts *= torch.rand(count, generator=generator) < 0.5
        return starts


def clips_of_step(indices: Tensor, size: int, seed: int, step: int) -> Tensor:
    """Return which ``size`` of the clips ``indices`` a step trains on.

    A fresh permutation each epoch, without replacement.
    """
    count = len(indices)
    epoch, position = divmod(step, count // size)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 7919 + epoch))
    return indices[order[position * size : (position + 1) * size]]


def crop(mel: Tensor, starts: Tensor, width: int) -> Tensor:
    """Return ``width`` frames [B, M, width] of each mel [B, M, F], from its start on."""
    rows = [m[:, start : start + width] for m, start in zip(mel, starts.tolist(), strict=True)]
    return torch.stack(rows)


def check_frames(config: TrainConfig, frames: int) -> None:
    """Check that clips of ``frames`` frames, and crops of them, fit the network.

    Raises:
        InputError: If they do not.
    """
    multiple = config.unet.frames_multiple
    if frames % multiple:
        raise InputError(
            f"clips of {frames} frames do not fit this U-Net; prepare shards with a multiple "
            f"of {multiple}"
        )
    if config.optimiser.crop_frames % multiple:
        raise InputError(
            f"optimiser.crop_frames: {config.optimiser.crop_frames} is not a multiple of {multiple}"
        )
