"""Train the denoiser: the loop, readable from top to bottom.

Order, noise and times of step n are drawn from a generator seeded by (seed, n), so a resumed run
takes exactly the steps that an unbroken one would.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipsynth_rt.errors import CheckpointError, InputError
from clipsynth_rt.training.checkpoint import load_part, load_weights, save_part
from clipsynth_rt.training.conditions import ConditionedMels
from clipsynth_rt.training.config import TrainConfig
from clipsynth_rt.training.diffusion import perturb_condition, sample_times, velocity_loss
from clipsynth_rt.training.distributed import any_process, average_gradients, rank_and_count
from clipsynth_rt.training.ema import WeightAverage
from clipsynth_rt.training.models.unet import UNet, count_flops, count_parameters

logger = logging.getLogger(__name__)

EVALUATION_CLIPS = 256


@dataclass(frozen=True)
class RunLimits:
    """When a run stops and how often it reports; None means never."""

    max_steps: int | None = None
    max_minutes: float | None = None
    max_cpu_seconds: float | None = None
    cooldown_steps: int = 0
    save_every: int = 500
    evaluate_every: int = 500


class DenoiserTrainer:
    """Everything that a denoiser run consists of; ``run`` walks it.

    Under ``torchrun`` each process takes its share of every batch; the first one saves and logs.

    Args:
        config: What to train.
        data: What to train on.
        out_dir: Checkpoint folder; an earlier run in it is resumed.
        held_out: Clips for the held-out loss; None for no evaluation.
        facts: Stored with the denoiser (for example which CLIP conditioned it).

    Raises:
        CheckpointError: If ``out_dir`` holds a run of another configuration.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: ConditionedMels,
        out_dir: str | Path,
        held_out: ConditionedMels | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        self.config, self.data, self.held_out = config, data, held_out
        self.out_dir, self.facts = Path(out_dir), facts or {}
        frames = data.mels.shape[2]
        if frames % config.unet.frames_multiple:
            raise InputError(
                f"clips of {frames} frames do not fit this U-Net; prepare shards with a multiple "
                f"of {config.unet.frames_multiple}"
            )
        if config.optimiser.crop_frames % config.unet.frames_multiple:
            raise InputError(
                f"optimiser.crop_frames: {config.optimiser.crop_frames} is not a multiple of "
                f"{config.unet.frames_multiple}"
            )
        torch.manual_seed(config.optimiser.seed)
        self.model = UNet(config.unet).to(memory_format=torch.channels_last)
        self.average = WeightAverage(self.model, config.optimiser.ema_decay)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.optimiser.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=config.optimiser.weight_decay,
            fused=True,
        )
        self.rank, self.processes = rank_and_count()
        self.indices = data.usable(config.optimiser.variant)
        self.step = 0
        if (self.out_dir / "denoiser_state.json").is_file():
            self._resume()

    def run(self, limits: RunLimits, on_step: Callable[[int, float], None] | None = None) -> None:
        """Train until a limit is reached, then save.

        With ``cooldown_steps`` the learning rate falls linearly to zero over the last steps
        before ``max_steps`` (warm-up, stable, decay: Hu et al. 2024, arXiv:2404.06395).
        """
        began, cpu_began = time.monotonic(), time.process_time()
        recent: list[float] = []
        while not self._finished(limits, began, cpu_began):
            loss = self.train_step(self._learning_rate(limits))
            if not math.isfinite(loss):
                raise CheckpointError(
                    f"loss is {loss} at step {self.step}; lower optimiser.learning_rate and "
                    f"resume from {self.out_dir}"
                )
            recent.append(loss)
            if on_step is not None:
                on_step(self.step, loss)
            if self.step % limits.evaluate_every == 0 and self.rank == 0:
                self._log(recent, time.monotonic() - began, time.process_time() - cpu_began)
                recent = []
            if self.step % limits.save_every == 0 and self.rank == 0:
                self.save()
        if self.rank == 0:
            self._log(recent, time.monotonic() - began, time.process_time() - cpu_began)
            self.save()

    def train_step(self, learning_rate: float) -> float:
        """Take one optimiser step and return its loss."""
        settings = self.config.optimiser
        number = settings.seed * 1_000_003 + self.step
        generator = torch.Generator().manual_seed(number * self.processes + self.rank)
        batch = self._batch_indices()[self.rank :: self.processes]
        mel = self._crop(self.data.mels[batch], generator).float()
        condition = self.data.conditions(batch, settings.variant, generator)
        condition = perturb_condition(condition, settings, generator)
        t = sample_times(len(batch), self.config.diffusion, generator)
        noise = torch.randn(mel.shape, generator=generator)
        loss = velocity_loss(self.model, mel, condition, t, noise, settings.loss)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.model)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.gradient_clip)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.step()
        self.average.update(self.model)
        self.step += 1
        return float(loss.detach())

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Return the averaged weights' held-out v-loss under text and under image conditions.

        Clips, times and noise are the same at every call, so figures compare across runs.
        """
        if self.held_out is None:
            return {}
        model = UNet(self.config.unet).to(memory_format=torch.channels_last).eval()
        load_weights(model, self.average.tensors, "average")
        losses = {}
        for kind in ("text", "image"):
            data = self.held_out
            keep = (data.label >= 0) if kind == "text" else data.has_image
            indices = keep.nonzero().flatten()[:EVALUATION_CLIPS]
            if len(indices) == 0:
                continue
            generator = torch.Generator().manual_seed(0)
            total = 0.0
            for batch in indices.split(self.config.optimiser.batch_size):
                mel = data.mels[batch].float()
                condition = data.conditions(batch, kind, generator)
                t = sample_times(len(batch), self.config.diffusion, generator)
                noise = torch.randn(mel.shape, generator=generator)
                total += float(velocity_loss(model, mel, condition, t, noise)) * len(batch)
            losses[f"held_out_{kind}"] = total / len(indices)
        return losses

    def save(self) -> None:
        """Write the averaged weights (``denoiser``) and all that resuming needs."""
        config = {**self.config.to_dict(), **self.facts, "steps": self.step}
        config["parameters"] = count_parameters(self.model)
        config["flops"] = count_flops(self.model, self.data.mels.shape[2])
        save_part(self.out_dir, "denoiser", self.average.tensors, config)
        tensors: dict[str, Tensor] = {}
        for name, value in self.model.state_dict().items():
            tensors[f"model.{name}"] = value
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"adam.{key}.{name}"] = torch.as_tensor(value)
        for name, value in self.average.tensors.items():
            tensors[f"average.{name}"] = value
        state = {"step": self.step, "ema_updates": self.average.num_updates, "config": config}
        save_part(self.out_dir, "denoiser_state", tensors, state)

    def _resume(self) -> None:
        tensors, state = load_part(self.out_dir, "denoiser_state")
        stored, mine = state["config"]["unet"], self.config.unet.to_dict()
        if stored != mine:
            key = next(k for k in mine if stored.get(k) != mine[k])
            raise CheckpointError(
                f"{self.out_dir}: its unet.{key} is {stored.get(key)}, this configuration's is "
                f"{mine[key]}; choose another --out or the configuration that it was begun with"
            )

        def part(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

        load_weights(self.model, part("model."), str(self.out_dir))
        self.average.load(part("average."), state["ema_updates"])
        for name, parameter in self.model.named_parameters():
            if f"adam.step.{name}" not in tensors:
                continue
            # the fused optimiser reads moments in the parameter's own memory format
            moments = {
                key: torch.empty_like(parameter).copy_(tensors[f"adam.{key}.{name}"])
                for key in ("exp_avg", "exp_avg_sq")
            }
            moments["step"] = tensors[f"adam.step.{name}"].clone()
            self.optimiser.state[parameter] = moments
        self.step = state["step"]
        logger.info("resumed %s at step %d", self.out_dir, self.step)

    def _batch_indices(self) -> Tensor:
        """Return the clips of this step: a fresh permutation each epoch, without replacement."""
        settings, count = self.config.optimiser, len(self.indices)
        size = min(settings.batch_size, count)
        per_epoch = count // size
        epoch, position = divmod(self.step, per_epoch)
        generator = torch.Generator().manual_seed(settings.seed * 7919 + epoch)
        order = torch.randperm(count, generator=generator)
        return self.indices[order[position * size : (position + 1) * size]]

    def _crop(self, mel: Tensor, generator: torch.Generator) -> Tensor:
        width, frames = self.config.optimiser.crop_frames, mel.shape[2]
        if not 0 < width < frames:
            return mel
        starts = torch.randint(frames - width + 1, (len(mel),), generator=generator)
        starts *= torch.rand(len(mel), generator=generator) < 0.5
        rows = [m[:, start : start + width] for m, start in zip(mel, starts.tolist(), strict=True)]
        return torch.stack(rows)

    def _learning_rate(self, limits: RunLimits) -> float:
        settings = self.config.optimiser
        rate = settings.learning_rate * min(1.0, (self.step + 1) / max(1, settings.warmup_steps))
        if limits.cooldown_steps and limits.max_steps is not None:
            left = limits.max_steps - self.step
            rate *= min(1.0, left / limits.cooldown_steps)
        return rate

    def _finished(self, limits: RunLimits, began: float, cpu_began: float) -> bool:
        minutes = (time.monotonic() - began) / 60
        return any_process(
            (limits.max_steps is not None and self.step >= limits.max_steps)
            or (limits.max_minutes is not None and minutes >= limits.max_minutes)
            or (
                limits.max_cpu_seconds is not None
                and time.process_time() - cpu_began >= limits.max_cpu_seconds
            )
        )

    def _log(self, recent: list[float], seconds: float, cpu_seconds: float) -> None:
        entry: dict[str, float] = {
            "step": self.step,
            "seconds": round(seconds, 1),
            "cpu_seconds": round(cpu_seconds, 1),
            **({"loss": sum(recent) / len(recent)} if recent else {}),
            **self.evaluate(),
        }
        self.out_dir.mkdir(parents=True, exist_ok=True)
        with (self.out_dir / "denoiser_log.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")
        logger.info("%s", entry)
