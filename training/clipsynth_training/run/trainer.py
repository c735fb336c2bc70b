"""The skeleton of every trainer: steps, limits, progress, logging, saving and signals.

A trainer says how one step is taken and what its state is; ``run`` walks it, the same way for all:
resume, step, log, sample, save, and end at a limit or a signal with everything saved.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from clipsynth_rt.errors import CheckpointError
from clipsynth_training.checkpoint import load_state, save_state
from clipsynth_training.run.distributed import (
    any_process,
    check_resumed_alike,
    rank_and_count,
    signal_of_any,
)
from clipsynth_training.run.interruption import StopSignals
from clipsynth_training.run.log import Pace, RunLog

logger = logging.getLogger(__name__)

ESTIMATE_STEPS = 5
"""Steps after which the end of a run is estimated."""
TELL_EVERY_S = 30.0
"""Seconds between lines where standard error is no terminal."""


@dataclass(frozen=True)
class RunLimits:
    """When a run stops and how often it reports; None means never.

    Attributes:
        max_steps: Steps in all, those before a resume included.
        max_minutes: Minutes of this process.
        max_cpu_seconds: Processor seconds of this process.
        cooldown_steps: Last steps before ``max_steps`` over which the learning rate falls to zero.
        save_every: Steps between saves.
        save_every_s: Seconds after which a run is saved whatever its step.
        evaluate_every: Steps between held-out losses.
        log_every: Steps between rows of metrics.csv.
    """

    max_steps: int | None = None
    max_minutes: float | None = None
    max_cpu_seconds: float | None = None
    cooldown_steps: int = 0
    save_every: int = 500
    save_every_s: float = 120.0
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


class Trainer(ABC):
    """One run of training, in one process or several under ``torchrun``.

    Subclasses set everything up, call ``resume`` at the end of ``__init__``, and say how a step is
    taken. The first process saves and logs.

    Attributes:
        name: What is trained, for messages.
        state_name: Name of the training state in ``out_dir``.
        out_dir: Checkpoint folder.
        step: Steps taken.
        rank: Of this process.
        batch_size: Clips a step, over all processes.
        warmup_steps: Steps over which the learning rate rises.
        tensorboard: Whether events for TensorBoard are written too.
    """

    name: str
    state_name: str
    warmup_steps = 0
    tensorboard = False

    def __init__(self, out_dir: str | Path, batch_size: int) -> None:
        self.out_dir = Path(out_dir)
        self.batch_size = batch_size
        self.step = 0
        self._sampled = False
        self.rank, self.processes = rank_and_count()

    @abstractmethod
    def train_step(self, rate_share: float = 1.0) -> Mapping[str, float]:
        """Take one step, and return its losses by column of metrics.csv, ``loss`` among them.

        Args:
            rate_share: Share of the configured learning rate that the step has.
        """

    @abstractmethod
    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return everything that resuming needs: tensors and JSON facts."""

    @abstractmethod
    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Put back what ``state`` returned; ``step`` is set by ``resume``.

        Raises:
            CheckpointError: If it is of another configuration.
        """

    @abstractmethod
    def publish(self) -> None:
        """Write the component that export and the other trainers read.

        Raises:
            OutputError: If it cannot be written.
        """

    def is_published(self) -> bool:
        """Return whether the component in ``out_dir`` is that of ``step``."""
        return True

    def evaluate(self) -> dict[str, float]:
        """Return held-out losses, by column of metrics.csv."""
        return {}

    def settings(self) -> dict[str, float]:
        """Return what the last step was taken with, by column of metrics.csv."""
        return {}

    def sample(self, log: RunLog) -> None:  # noqa: B027  (optional, not forgotten)
        """Write samples of what the run makes by now."""

    def samples_due(self) -> bool:
        """Return whether samples are written after this step."""
        return False

    def close(self) -> None:  # noqa: B027  (optional, not forgotten)
        """Give readers and threads back."""

    @property
    def wait_s(self) -> float:
        """Seconds that steps have waited for data."""
        return 0.0

    def run(
        self, limits: RunLimits, on_step: Callable[[int, float], None] | None = None
    ) -> int | None:
        """Train until a limit is reached or SIGTERM or SIGINT comes, then save.

        With ``cooldown_steps`` the learning rate falls linearly to zero over the last steps
        before ``max_steps`` (warm-up, stable, decay: Hu et al. 2024, arXiv:2404.06395).

        Args:
            limits: When to stop, save and report.
            on_step: Called with the step and its loss.

        Returns:
            The signal that ended it, or None.

        Raises:
            CheckpointError: If the loss is not finite, or processes resumed at different steps.
            OutputError: If the checkpoint cannot be written.
        """
        check_resumed_alike(self.step, self.out_dir)
        log = None
        if self.rank == 0:
            log = RunLog(self.out_dir, self.step, tensorboard=self.tensorboard)
        pace, saved_at = Pace(self.batch_size), time.monotonic()
        with contextlib.closing(self), StopSignals() as signals, _progress(self, limits) as tell:
            try:
                while not limits.reached(self.step, pace, signals.received):
                    values = self.train_step(limits.rate_share(self.step, self.warmup_steps))
                    if not all(math.isfinite(value) for value in values.values()):
                        raise CheckpointError(
                            f"a loss is not finite at step {self.step}: {dict(values)}; lower the "
                            f"learning rate and resume from {self.out_dir}"
                        )
                    pace.add(values)
                    tell(values["loss"])
                    if on_step is not None:
                        on_step(self.step, values["loss"])
                    if log is None:
                        continue
                    if self._report(log, limits, pace, saved_at):
                        saved_at = time.monotonic()
                if log is not None:
                    self.save()
                    if pace.steps:
                        # who sends a signal waits half a minute or less before they kill
                        self._log(log, pace, {} if signals.received else self.evaluate())
                return signal_of_any(signals.received)
            finally:
                if log is not None:
                    log.close()

    def save(self) -> None:
        """Write the training state, then the component.

        Raises:
            OutputError: If they cannot be written; what was saved before stays whole.
        """
        tensors, facts = self.state()
        save_state(self.out_dir, self.state_name, self.step, tensors, {"step": self.step, **facts})
        self.publish()

    def resume(self) -> None:
        """Go on where the newest whole state of ``out_dir`` left off, if there is one.

        Raises:
            CheckpointError: If every state is damaged, or it is of another configuration.
        """
        loaded = load_state(self.out_dir, self.state_name)
        if loaded is None:
            return
        tensors, facts = loaded
        self.load(tensors, facts)
        self.step = int(facts["step"])
        logger.info("resumed %s at step %d", self.out_dir, self.step)
        if self.rank == 0 and not self.is_published():
            self.publish()  # killed between the state and the component

    def _report(self, log: RunLog, limits: RunLimits, pace: Pace, saved_at: float) -> bool:
        """Log, sample and save where this step is one for it; return whether it was saved."""
        if self.step % limits.evaluate_every == 0:
            self._log(log, pace, self.evaluate())
        elif self.step % limits.log_every == 0:
            self._log(log, pace, {})
        overdue = time.monotonic() - saved_at >= limits.save_every_s
        due = overdue or self.step % limits.save_every == 0
        if self.samples_due() or (overdue and not self._sampled):
            self.sample(log)
            self._sampled = True
        if due:
            self.save()
        return due

    def _log(self, log: RunLog, pace: Pace, values: Mapping[str, float]) -> None:
        row = {**pace.take(self.wait_s), **self.settings(), **values}
        log.write(self.step, row)
        logger.info("step %d: %s", self.step, ", ".join(f"{k} {v:.4g}" for k, v in row.items()))


@contextlib.contextmanager
def _progress(trainer: Trainer, limits: RunLimits) -> Iterator[Callable[[float], None]]:
    """Give what is told each loss: a bar on a terminal, a line now and then elsewhere."""
    if trainer.rank != 0:
        yield lambda loss: None
        return
    total, first = limits.max_steps, trainer.step
    began = told = time.monotonic()
    with tqdm(
        total=total, initial=first, desc=trainer.name, unit="step", disable=None, smoothing=0.05
    ) as bar:

        def tell(loss: float) -> None:
            nonlocal told
            done = trainer.step - first
            now = time.monotonic()
            if not bar.disable:
                bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
                bar.update()
                return
            if done == ESTIMATE_STEPS or now - told >= TELL_EVERY_S:
                told = now
                seconds_per_step = (now - began) / done
                end = _end(limits, trainer.step, seconds_per_step, now - began)
                logger.info(
                    "%s: step %d, loss %.4g, %.3g s a step, %s",
                    *(trainer.name, trainer.step, loss, seconds_per_step, end),
                )

        yield tell


def _end(limits: RunLimits, step: int, seconds_per_step: float, passed_s: float) -> str:
    """Return when a run ends, in words."""
    left = [
        (limits.max_steps - step) * seconds_per_step if limits.max_steps is not None else math.inf,
        60.0 * limits.max_minutes - passed_s if limits.max_minutes is not None else math.inf,
    ]
    shortest = min(left)
    if math.isinf(shortest):
        return "without an end of its own: Ctrl-C saves and ends it"
    return f"{max(0.0, shortest) / 60:.0f} min left"
