"""Train the denoiser: the loop, readable from top to bottom.

What step n trains on depends on the seed and n alone (see ``batches``), so a resumed run takes
exactly the steps that an unbroken one would.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipsynth_rt.errors import CheckpointError
from clipsynth_training.checkpoint import (
    load_component,
    load_weights,
    save_component,
)
from clipsynth_training.denoiser.batches import Batch, Batches, check_frames
from clipsynth_training.denoiser.conditions import ConditionedMels
from clipsynth_training.denoiser.config import TrainConfig
from clipsynth_training.denoiser.diffusion import velocity_loss
from clipsynth_training.denoiser.held_out import held_out_losses
from clipsynth_training.denoiser.samples import SampleSpec, write_samples
from clipsynth_training.denoiser.unet import UNet, count_flops, count_parameters
from clipsynth_training.run.distributed import mean_over_processes, take_step
from clipsynth_training.run.ema import WeightAverage
from clipsynth_training.run.log import RunLog
from clipsynth_training.run.state import pack, unpack
from clipsynth_training.run.trainer import Trainer

logger = logging.getLogger(__name__)

STATE = "denoiser_state"


class DenoiserTrainer(Trainer):
    """A denoiser's run.

    Under ``torchrun`` each process takes its share of every batch; the first one saves and logs.

    Args:
        config: What to train.
        data: What to train on.
        out_dir: Checkpoint folder; an earlier run in it is resumed.
        held_out: Clips for the held-out loss; None for no evaluation.
        facts: Stored with the denoiser (for example which CLIP conditioned it).
        samples: What to sample as the run goes on; None for nothing.
        tensorboard: Write events for TensorBoard too.
        device: Where the network is trained, such as ``cpu`` or ``cuda``.
        start: Weights to begin with; random ones if None. A run that is resumed has its own.
        fresh_condition: Begin the layer that reads the condition at random all the same, and train
            it alone. Nothing is left of how ``start`` was asked, so that one body, whatever asked
            it, becomes each variant in minutes; what it was when asked for nothing stays.

    Raises:
        InputError: If the clips do not fit the configuration.
        CheckpointError: If ``out_dir`` holds a run of another configuration, or a damaged one.
    """

    name = "denoiser"
    state_name = STATE

    def __init__(
        self,
        config: TrainConfig,
        data: ConditionedMels,
        out_dir: str | Path,
        held_out: ConditionedMels | None = None,
        facts: dict[str, Any] | None = None,
        *,
        samples: SampleSpec | None = None,
        tensorboard: bool = False,
        device: str | torch.device = "cpu",
        start: Mapping[str, Tensor] | None = None,
        fresh_condition: bool = False,
    ) -> None:
        super().__init__(out_dir, config.optimiser.batch_size)
        self.config, self.data, self.held_out = config, data, held_out
        self.facts = facts or {}
        self.warmup_steps = config.optimiser.warmup_steps
        self.samples, self.tensorboard = samples, tensorboard
        self.device = torch.device(device)
        check_frames(config, data.mels.shape[2])
        torch.manual_seed(config.optimiser.seed)
        self.model = self._network()
        if start is not None:
            load_weights(self.model, start, "the checkpoint to start from")
        if fresh_condition:
            self._begin_condition()
        self.average = WeightAverage(self.model, config.optimiser.ema_decay)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.optimiser.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=config.optimiser.weight_decay,
            fused=True,
        )
        prefetch = self.device.type != "cpu"
        self.batches = Batches(config, data, self.rank, self.processes, prefetch)
        self.batch_size = self.batches.size
        self._flops = count_flops(self.model, data.mels.shape[2])
        self.resume()

    def train_step(self, rate_share: float = 1.0) -> dict[str, float]:
        """Take one optimiser step and return its loss, the mean over all processes."""
        settings = self.config.optimiser
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._accumulate(self.batches.take(self.step).to(self.device))
        rate = settings.learning_rate * rate_share
        take_step(self.model, self.optimiser, rate, settings.gradient_clip)
        self.average.update(self.model)
        self.step += 1
        return {"loss": mean_over_processes(loss)}

    def settings(self) -> dict[str, float]:
        """Return the learning rate of the last step."""
        return {"learning_rate": float(self.optimiser.param_groups[0]["lr"])}

    def _accumulate(self, batch: Batch) -> float:
        """Add up the gradients of a batch in parts, and return its weighted loss."""
        settings, total = self.config.optimiser, 0.0
        for part in batch.split(settings.accumulate):
            loss = velocity_loss(
                self.model, part.mel, part.condition, part.t, part.noise, settings.loss
            )
            loss = loss * part.weight
            loss.backward()
            total += float(loss.detach())
        return total

    def evaluate(self) -> dict[str, float]:
        """Return the averaged weights' held-out losses; see ``held_out_losses``."""
        if self.held_out is None:
            return {}
        return held_out_losses(self._averaged(), self.held_out, self.config, self.device)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return network, average and optimiser, and the configuration."""
        facts = {"ema_updates": self.average.num_updates, "config": self._description()}
        return pack(self.model, self.average, self.optimiser), facts

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Put back what ``state`` returned; see ``Trainer``."""
        stored, mine = facts["config"]["unet"], self.config.unet.to_dict()
        if stored != mine:
            key = next(k for k in mine if stored.get(k) != mine[k])
            raise CheckpointError(
                f"{self.out_dir}: its unet.{key} is {stored.get(key)}, this configuration's is "
                f"{mine[key]}; choose another --out or the configuration that it was begun with"
            )
        unpack(
            tensors,
            self.model,
            self.average,
            self.optimiser,
            facts["ema_updates"],
            str(self.out_dir),
        )

    def publish(self) -> None:
        """Write the averaged weights as the component ``denoiser``."""
        save_component(self.out_dir, "denoiser", self.average.tensors, self._description())

    def is_published(self) -> bool:
        """Return whether the component ``denoiser`` is that of ``step``."""
        try:
            return load_component(self.out_dir, "denoiser")[1].get("steps") == self.step
        except CheckpointError:
            return False

    def samples_due(self) -> bool:
        """Return whether samples are written after this step."""
        return self.samples is not None and self.step % self.samples.every == 0

    def close(self) -> None:
        """Stop the threads that draw batches."""
        self.batches.close()

    @property
    def wait_s(self) -> float:
        """Seconds that steps have waited for clips."""
        return self.batches.wait_s

    def _description(self) -> dict[str, Any]:
        return {
            **self.config.to_dict(),
            **self.facts,
            "steps": self.step,
            "parameters": count_parameters(self.model),
            "flops": self._flops,
        }

    def _network(self) -> UNet:
        return UNet(self.config.unet).to(self.device, memory_format=torch.channels_last)

    def _begin_condition(self) -> None:
        """Draw the layer that reads the condition anew, at its own scale, and freeze all else."""
        layer = self.model.condition
        nn.init.normal_(layer.weight, std=float(layer.weight.detach().std()))
        self.model.requires_grad_(False)
        layer.requires_grad_(True)

    def _averaged(self) -> UNet:
        model = self._network().eval()
        load_weights(model, self.average.tensors, "average")
        return model

    def sample(self, log: RunLog) -> None:
        """Write samples of the averaged weights."""
        if self.samples is None:
            return
        what = replace(self.samples, condition=self.samples.condition.to(self.device))
        config, frames = self.config, self.data.mels.shape[2]
        path = write_samples(
            self.out_dir,
            self.step,
            self._averaged(),
            what,
            config.mel,
            config.diffusion,
            frames,
            log,
        )
        logger.info("%s", path)
