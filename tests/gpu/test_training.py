"""Training on a real GPU: what is learnt there is what a CPU would learn, within bfloat16."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "training"))
from denoiser_for_tests import clips, losses, tiny

from clipsynth_training.classifier.network import AUXILIARY_SHAPE, ClassifierConfig, SoundClassifier
from clipsynth_training.denoiser.train import DenoiserTrainer
from clipsynth_training.denoiser.unet import UNet
from clipsynth_training.distil.auxiliary_classifier import AuxiliaryClassifier
from clipsynth_training.distil.batches import DistilConfig
from clipsynth_training.distil.oversampling import difficulty
from clipsynth_training.distil.rollout import Rollout
from clipsynth_training.distil.train import DistilTrainer
from clipsynth_training.distil.trajectories import TeacherSpec, Trajectories, make_trajectories

pytestmark = pytest.mark.gpu

FRAMES = 64


@pytest.fixture(autouse=True)
def gpu() -> None:
    if torch.cuda.is_available():
        return
    if os.environ.get("CLIPSYNTH_RT_GPU"):
        pytest.fail("this machine should have a GPU: torch finds none")
    pytest.skip("torch finds no CUDA device")


class Hum(nn.Module):
    """A vocoder of one tone, as loud as each frame's loudest bin."""

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        spec = tiny().mel
        level = (mel.amax(dim=1) * spec.std + spec.mean).exp()
        level = level.repeat_interleave(spec.hop_length, 1)
        time = torch.arange(level.shape[1], device=mel.device)
        return level * torch.sin(time * 0.5)


def test_a_denoiser_learns_what_it_would_on_a_cpu(tmp_path: Path) -> None:
    found = [
        losses(DenoiserTrainer(tiny(), clips(), tmp_path / device, device=device), 8)
        for device in ("cpu", "cuda")
    ]
    assert found[1] == pytest.approx(found[0], rel=0.03)
    resumed = DenoiserTrainer(tiny(), clips(), tmp_path / "cuda", device="cuda")
    assert resumed.step == 8
    assert len(losses(resumed, 10)) == 2


def test_a_student_learns_what_it_would_on_a_cpu(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network, data, config = UNet(tiny().unet).eval(), clips(frames=FRAMES), tiny()
    for parameter in network.parameters():  # the last layers begin at zero
        nn.init.normal_(parameter, std=0.05)
    classifier = SoundClassifier(
        ClassifierConfig(("a", "b"), n_mels=config.mel.n_mels, **AUXILIARY_SHAPE)
    )
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    how, text = TeacherSpec(steps=4, guided=2), data.text[:, 0]
    hard, first, last = [], [], []
    for device in ("cpu", "cuda"):
        folder = tmp_path / device
        network.to(device)
        make_trajectories(
            network, config.diffusion, text, folder / "pairs", names=("a", "b"), frames=FRAMES,
            rounds=2, how=how,
        )  # fmt: skip
        auxiliary = AuxiliaryClassifier(classifier, Hum(), config.mel, ("a", "b")).to(
            torch.device(device)
        )
        pairs = Trajectories.open(folder / "pairs").best_trajectories(auxiliary)
        rollout = Rollout(config.diffusion, 2)
        hard.append(difficulty(network, rollout, text, auxiliary, frames=FRAMES).tolist())
        wish: dict[str, Any] = {"auxiliary": auxiliary, "device": device}
        trainer = DistilTrainer(
            DistilConfig(batch_size=4, regression_steps=3, auxiliary=1.0),
            config,
            weights,
            data,
            pairs,
            folder / "run",
            **wish,
        )
        values = [trainer.train_step() for _ in range(6)]
        trainer.batches.close()
        first.append([values[0][key] for key in ("loss", "auxiliary", "discriminator")])
        last.append(set(values[-1]))
        trainer.save()
        again = DistilTrainer(trainer.config, config, weights, data, pairs, folder / "run", **wish)
        assert again.step == 6
    assert hard[1] == pytest.approx(hard[0], abs=0.02)
    # random changes to what the auxiliary classifier hears are drawn on each device for itself
    assert first[1][0] == pytest.approx(first[0][0], rel=0.05)
    assert first[1][2] == pytest.approx(first[0][2], rel=0.05)
    assert first[1][1] == pytest.approx(first[0][1], rel=0.5)
    assert last[0] == last[1] == {"loss", "generator", "auxiliary", "discriminator"}
