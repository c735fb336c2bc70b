"""Train the denoiser: the loop, readable from top to bottom.

What step n trains on depends on the seed and n alone (see ``batches``), so a resumed run takes
exactly the steps that an unbroken one would.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipsynth_rt.errors import CheckpointError
from clipsynth_training.checkpoint import load_part, load_state, load_weights, save_part, save_state
from clipsynth_training.denoiser.batches import Batch, Batches, check_frames
from clipsynth_training.denoiser.conditions import ConditionedMels
from clipsynth_training.denoiser.config import TrainConfig
from clipsynth_training.denoiser.diffusion import velocity_loss
from clipsynth_training.denoiser.held_out import held_out_losses
from clipsynth_training.denoiser.samples import SampleSpec, write_samples
from clipsynth_training.denoiser.unet import UNet, count_flops, count_parameters
from clipsynth_training.run.distributed import (
    any_process,
    check_resumed_alike,
    mean_over_processes,
    rank_and_count,
    signal_of_any,
    take_step,
)
from clipsynth_training.run.ema import WeightAverage
from clipsynth_training.run.interruption import StopSignals
from clipsynth_training.run.log import Pace, RunLog
from clipsynth_training.run.state import pack, unpack

logger = logging.getLogger(__name__)

STATE = "denoiser_state"


@dataclass(frozen=True)
class RunLimits:
    """When a run stops and how often it reports; None means never."""

    max_steps: int | None = None
    max_minutes: float | None = None
    max_cpu_seconds: float | None = None
    cooldown_steps: int = 0
    save_every: int = 500
    evaluate_every: int = 500
    log_every: int = 100

    def reached(self, step: int, pace: Pace, received: int | None) -> bool:
        """Return whether a run ends before its next step, in all processes alike.

        Args:
            step: Steps taken.
            pace: Of this process.
            received: The signal that came, or None.
        """
        return any_process(
            received is not None
            or (self.max_steps is not None and step >= self.max_steps)
            or (self.max_minutes is not None and pace.seconds >= 60.0 * self.max_minutes)
            or (self.max_cpu_seconds is not None and pace.cpu_seconds >= self.max_cpu_seconds)
        )

    def rate_share(self, step: int, warmup_steps: int) -> float:
        """Return the share of the learning rate that a step has, after ``step`` steps."""
        share = min(1.0, (step + 1) / max(1, warmup_steps))
        if self.cooldown_steps and self.max_steps is not None:
            share *= min(1.0, (self.max_steps - step) / self.cooldown_steps)
        return share


class DenoiserTrainer:
    """Everything that a denoiser run consists of; ``run`` walks it.

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
        self.config, self.data, self.held_out = config, data, held_out
        self.out_dir, self.facts = Path(out_dir), facts or {}
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
        self.rank, self.processes = rank_and_count()
        ahead = self.device.type != "cpu"
        self.batches = Batches(config, data, self.rank, self.processes, ahead)
        self._flops = count_flops(self.model, data.mels.shape[2])
        self.step = 0
        self._resume()

    def run(
        self, limits: RunLimits, on_step: Callable[[int, float], None] | None = None
    ) -> int | None:
        """Train until a limit is reached or SIGTERM or SIGINT comes, then save.

        With ``cooldown_steps`` the learning rate falls linearly to zero over the last steps
        before ``max_steps`` (warm-up, stable, decay: Hu et al. 2024, arXiv:2404.06395).

        Returns:
            The signal that ended it, or None.

        Raises:
            CheckpointError: If the loss is not finite, or processes resumed at different steps.
            OutputError: If the checkpoint cannot be written.
        """
        check_resumed_alike(self.step, self.out_dir)
        first = self.rank == 0
        log = RunLog(self.out_dir, self.step, tensorboard=self.tensorboard) if first else None
        pace = Pace(self.batches.size)
        try:
            with StopSignals() as signals:
                while not limits.reached(self.step, pace, signals.received):
                    rate = self._learning_rate(limits)
                    loss = self.train_step(rate)
                    if not math.isfinite(loss):
                        raise CheckpointError(
                            f"loss is {loss} at step {self.step}; lower optimiser.learning_rate "
                            f"and resume from {self.out_dir}"
                        )
                    pace.add(loss)
                    if on_step is not None:
                        on_step(self.step, loss)
                    if log is not None:
                        self._report(log, limits, pace, rate)
                if log is not None:
                    self._finish(log, pace, signals)
                return signal_of_any(signals.received)
        finally:
            self.batches.close()
            if log is not None:
                log.close()

    def train_step(self, learning_rate: float) -> float:
        """Take one optimiser step and return its loss, the mean over all processes."""
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._accumulate(self.batches.take(self.step).to(self.device))
        clip = self.config.optimiser.gradient_clip
        take_step(self.model, self.optimiser, learning_rate, clip)
        self.average.update(self.model)
        self.step += 1
        return mean_over_processes(loss)

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

    def save(self) -> None:
        """Write all that resuming needs, and the averaged weights (``denoiser``).

        Raises:
            OutputError: If they cannot be written; what was saved before stays whole.
        """
        state = {
            "step": self.step,
            "ema_updates": self.average.num_updates,
            "config": self._description(),
        }
        tensors = pack(self.model, self.average, self.optimiser)
        save_state(self.out_dir, STATE, self.step, tensors, state)
        self._publish()

    def _publish(self) -> None:
        save_part(self.out_dir, "denoiser", self.average.tensors, self._description())

    def _description(self) -> dict[str, Any]:
        return {
            **self.config.to_dict(),
            **self.facts,
            "steps": self.step,
            "parameters": count_parameters(self.model),
            "flops": self._flops,
        }

    def _resume(self) -> None:
        loaded = load_state(self.out_dir, STATE)
        if loaded is None:
            return
        tensors, state = loaded
        stored, mine = state["config"]["unet"], self.config.unet.to_dict()
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
            state["ema_updates"],
            str(self.out_dir),
        )
        self.step = state["step"]
        logger.info("resumed %s at step %d", self.out_dir, self.step)
        if self.rank == 0 and not self._is_published():
            self._publish()  # killed between the state and the weights

    def _is_published(self) -> bool:
        try:
            return load_part(self.out_dir, "denoiser")[1].get("steps") == self.step
        except CheckpointError:
            return False

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

    def _learning_rate(self, limits: RunLimits) -> float:
        settings = self.config.optimiser
        return settings.learning_rate * limits.rate_share(self.step, settings.warmup_steps)

    def _report(self, log: RunLog, limits: RunLimits, pace: Pace, rate: float) -> None:
        """Log, sample and save where this step is one for it."""
        step, samples = self.step, self.samples
        if step % limits.evaluate_every == 0:
            self._log(log, pace, {"learning_rate": rate, **self.evaluate()})
        elif step % limits.log_every == 0:
            self._log(log, pace, {"learning_rate": rate})
        if samples is not None and step % samples.every == 0:
            self._sample(log, samples)
        if step % limits.save_every == 0:
            self.save()

    def _finish(self, log: RunLog, pace: Pace, signals: StopSignals) -> None:
        """Save, and log what the last step did not."""
        self.save()
        if pace.steps:
            # who sends a signal waits half a minute or less before they kill
            self._log(log, pace, self.evaluate() if signals.received is None else {})

    def _log(self, log: RunLog, pace: Pace, values: dict[str, float]) -> None:
        row = {**pace.take(self.batches.wait_s), **values}
        log.write(self.step, row)
        logger.info("step %d: %s", self.step, ", ".join(f"{k} {v:.4g}" for k, v in row.items()))

    def _sample(self, log: RunLog, samples: SampleSpec) -> None:
        what = replace(samples, condition=samples.condition.to(self.device))
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
