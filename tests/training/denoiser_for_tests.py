"""A denoiser run small enough for a test; also the worker of the tests that need processes.

python denoiser_for_tests.py kill OUT SEED TIMES   trains, and kills the training, TIMES times
torchrun ... denoiser_for_tests.py train OUT STEPS   trains in several processes
"""

import dataclasses
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from clipsynth_training.denoiser.conditions import ConditionedMels
from clipsynth_training.denoiser.config import TrainConfig, load_config
from clipsynth_training.denoiser.train import DenoiserTrainer
from clipsynth_training.run.distributed import end, join, rank_and_count
from clipsynth_training.run.trainer import RunLimits


def clips(count: int = 12, frames: int = 16) -> ConditionedMels:
    """Two kinds of sound: energy in the lower bins for label 0, in the upper ones for label 1."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(count) % 2
    mels = torch.full((count, 16, frames), -1.0)
    mels[label == 0, :8] = 1.0
    mels[label == 1, 8:] = 1.0
    text = torch.nn.functional.normalize(torch.randn(2, 3, 8, generator=generator), dim=2)
    image = text[label][:, :2]
    return ConditionedMels(mels.half(), image, torch.ones(count, dtype=torch.bool), text, label)


def tiny(**optimiser: object) -> TrainConfig:
    """Return the tiny preset with other optimiser settings."""
    config = load_config("tiny")
    return dataclasses.replace(config, optimiser=dataclasses.replace(config.optimiser, **optimiser))


def losses(trainer: DenoiserTrainer, steps: int) -> list[float]:
    """Train and return the loss of every step."""
    found: list[float] = []
    trainer.run(RunLimits(max_steps=steps), lambda step, loss: found.append(loss))
    return found


def kill_again_and_again(out: str, seed: int, times: int) -> None:
    """Train in a child that saves at every step, and kill -9 it after a random while.

    The child is forked from here, where all is warm, or it would spend its life importing torch.
    """
    with tempfile.TemporaryDirectory() as folder:
        DenoiserTrainer(tiny(), clips(), folder).run(RunLimits(max_steps=1))
    draw = random.Random(seed)
    for _ in range(times):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            trainer = DenoiserTrainer(tiny(), clips(), out)
            os.write(writer, trainer.step.to_bytes(4))
            trainer.run(RunLimits(save_every=1), lambda step, loss, to=writer: os.write(to, b"."))
        print(int.from_bytes(os.read(reader, 4)), flush=True)  # noqa: T201
        # after some steps and a part of another, however fast this machine is now
        for _ in range(draw.randint(1, 3)):
            began = time.monotonic()
            os.read(reader, 1)
        time.sleep(draw.random() * (time.monotonic() - began))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the child ended by itself"
        os.close(reader)
        os.close(writer)


def train(out: str, steps: int) -> None:
    """Train in the processes of torchrun; the first writes the losses to OUT/losses.json."""
    join()
    found = losses(DenoiserTrainer(CURVE, clips(), out), steps)
    if rank_and_count()[0] == 0:
        (Path(out) / "losses.json").write_text(json.dumps(found))
    end(0)


CURVE = tiny(batch_size=11, learning_rate=1e-2, warmup_steps=1)
"""A run whose loss falls fast; eleven clips do not halve evenly."""

if __name__ == "__main__":
    torch.set_num_threads(1)
    action, folder, *numbers = sys.argv[1:]
    {"kill": kill_again_and_again, "train": train}[action](folder, *map(int, numbers))
