"""What an auxiliary classifier hears of a student's sounds, and what the student makes of it."""

import dataclasses
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.append(str(Path(__file__).parent))
from denoiser_for_tests import clips, tiny

from clipsynth_rt.errors import CheckpointError, DataError
from clipsynth_rt.synthesis.schedule import alpha_sigma
from clipsynth_training.classifier.network import AUXILIARY_SHAPE, ClassifierConfig, SoundClassifier
from clipsynth_training.classifier.train import HEARD_PEAK, load_classifier, train_classifier
from clipsynth_training.denoiser.conditions import check_all_heard
from clipsynth_training.denoiser.unet import UNet
from clipsynth_training.distil.auxiliary_classifier import AuxiliaryClassifier
from clipsynth_training.distil.batches import DistilConfig
from clipsynth_training.distil.oversampling import difficulty
from clipsynth_training.distil.rollout import Rollout
from clipsynth_training.distil.train import DistilTrainer
from clipsynth_training.distil.trajectories import TeacherSpec, Trajectories, make_trajectories

SPEC = tiny().mel
NAMES = ("a", "b")


class Loudspeaker(nn.Module):
    """A vocoder of one tone: its level in each frame is that of the mel's loudest bin."""

    def forward(self, mel):
        level = (mel.amax(dim=1) * SPEC.std + SPEC.mean).exp().repeat_interleave(SPEC.hop_length, 1)
        return level * torch.sin(torch.arange(level.shape[1]) * 0.5)


@pytest.fixture(scope="module")
def classifier():
    """Tells low sounds ("a") from high ones ("b")."""
    torch.manual_seed(0)
    network = SoundClassifier(ClassifierConfig(NAMES, n_mels=SPEC.n_mels, **AUXILIARY_SHAPE))
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(30):
        label = torch.randint(2, (16,))
        loss = nn.functional.cross_entropy(network(sounds(label))[0], label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network


def sounds(label, level=1.0):
    mel = torch.full((len(label), SPEC.n_mels, 64), SPEC.floor_normalised)
    half = SPEC.n_mels // 2
    for row, high in enumerate(label.tolist()):
        mel[row, half * high : half * (high + 1)] = level + 0.2 * torch.randn(half, 64)
    return mel


@pytest.fixture
def auxiliary(classifier):
    return AuxiliaryClassifier(classifier, Loudspeaker(), SPEC, NAMES)


def test_it_is_another_network_than_the_judge():
    judge, auxiliary = ClassifierConfig(NAMES), ClassifierConfig(NAMES, **AUXILIARY_SHAPE)
    assert judge.stem != auxiliary.stem
    assert judge.channels != auxiliary.channels
    logits, embedding = SoundClassifier(auxiliary)(torch.zeros(2, 80, 64))
    assert logits.shape == (2, 2)
    assert embedding.shape == (2, auxiliary.embedding)


def test_a_wrong_sound_costs_more_than_a_right_one_and_its_gradient_mends_it(auxiliary):
    label = torch.tensor([0, 1, 0, 1])
    right, wrong = sounds(label, 0.5), sounds(1 - label, 0.5).requires_grad_()

    def loss(made):
        return auxiliary.loss(made, label, torch.Generator().manual_seed(0))

    before = loss(wrong)
    assert loss(right) < before
    (gradient,) = torch.autograd.grad(before, wrong)
    assert loss((wrong - 0.3 * gradient / gradient.abs().max()).detach()) < before


def test_sound_beyond_full_scale_costs(auxiliary):
    label = torch.tensor([0, 1])
    quiet, loud = sounds(label, 0.5), sounds(label, 4.0)
    peak = Loudspeaker()(loud[:1]).abs().max()
    assert peak > 2.0
    generator = [torch.Generator().manual_seed(0) for _ in range(2)]
    more = auxiliary.loss(loud, label, generator[0]) - auxiliary.loss(quiet, label, generator[1])
    # the first of the two is heard as sound
    assert more > 0.4 * math.log(float(peak))


def test_levelled_mels_are_within_full_scale_and_silence_stays(auxiliary):
    made = torch.cat([sounds(torch.tensor([0]), 4.0), sounds(torch.tensor([1]), 0.2)])
    out = auxiliary.levelled(made)
    assert Loudspeaker()(made).abs().max() > 1.0
    assert Loudspeaker()(out).abs().amax() == pytest.approx(HEARD_PEAK, rel=1e-3)
    assert torch.equal(out[1], made[1])
    assert torch.equal(out == SPEC.floor_normalised, made == SPEC.floor_normalised)


def test_the_half_that_it_hears_best_is_taught(auxiliary):
    label = torch.tensor([0, 0, 1, 1])
    heard = sounds(torch.tensor([0, 1, 0, 1]), 0.2)
    path = torch.stack([torch.zeros_like(heard), heard], dim=1).half()
    noise = torch.arange(4.0).view(4, 1, 1).expand(heard.shape)
    kept = Trajectories(noise, path, label).best_trajectories(auxiliary)
    assert kept.noise[:, 0, 0].tolist() == [0.0, 3.0]
    assert kept.label.tolist() == [0, 1]
    assert torch.equal(kept.path, path[[0, 3]])


def test_of_what_is_seldom_right_only_that_is_taught(auxiliary):
    # the first label is heard right in two of eight, the second in six
    truth = torch.tensor([0] * 2 + [1] * 6 + [1] * 6 + [0] * 2)
    label = torch.tensor([0] * 8 + [1] * 8)
    path = sounds(truth, 0.2)[:, None].half()
    noise = torch.arange(16.0).view(16, 1, 1).expand(path[:, 0].shape)
    pairs = Trajectories(noise, path, label)
    assert pairs.low_accuracy_labels(auxiliary).tolist() == [0]
    kept = pairs.best_trajectories(auxiliary)
    assert sorted(kept.noise[kept.label == 0][:, 0, 0].tolist()) == [0.0, 1.0]
    assert int((kept.label == 1).sum()) == 4
    assert set(kept.noise[kept.label == 1][:, 0, 0].tolist()) < set(range(8, 14))


def test_labels_are_told_apart_by_name(classifier):
    swapped = AuxiliaryClassifier(classifier, Loudspeaker(), SPEC, NAMES[::-1])
    made = sounds(torch.tensor([0, 1]))
    assert (swapped.posterior(made, torch.tensor([1, 0])) > 0.5).all()
    with pytest.raises(CheckpointError, match="does not know 'c'"):
        AuxiliaryClassifier(classifier, Loudspeaker(), SPEC, ("a", "c"))


def test_a_student_learns_from_it(classifier, tmp_path):
    torch.manual_seed(3)
    teacher, data = UNet(tiny().unet).eval(), clips(frames=64)
    how = TeacherSpec(steps=2, guided=0)
    make_trajectories(
        teacher, tiny().diffusion, data.text[:, 0], tmp_path / "p", names=NAMES, frames=64,
        rounds=1, how=how,
    )  # fmt: skip
    pairs = Trajectories.open(tmp_path / "p")
    start = {k: v + 0.1 * torch.randn(v.shape) for k, v in teacher.state_dict().items()}
    noise, label = torch.randn(16, 16, 64), torch.arange(16) % 2
    ear = AuxiliaryClassifier(classifier, Loudspeaker(), SPEC, NAMES)
    wrong = []
    for share in (0.0, 10.0):
        run = DistilTrainer(
            DistilConfig(batch_size=4, learning_rate=2e-3, auxiliary=share),
            tiny(),
            start,
            data,
            pairs,
            tmp_path / str(share),
            auxiliary=ear,
        )
        assert torch.equal(run.student.state_dict()["stem.weight"], start["stem.weight"])
        told = [run.train_step()["auxiliary"] for _ in range(20)]
        assert all(math.isfinite(value) and value > 0.0 for value in told)
        with torch.no_grad():
            *_, (_, made) = run.rollouts[2](run.student, noise, data.text[label, 0], False)
        wrong.append(float(ear.loss(made, label, torch.Generator().manual_seed(0))))
    assert wrong[1] < wrong[0] - 0.2


class LowSounds(nn.Module):
    """A student that makes low sounds whatever it is asked."""

    config = tiny().unet

    def forward(self, x, t, condition):
        clean = sounds(torch.zeros(len(x), dtype=torch.int64))
        alpha, sigma = alpha_sigma(float(t[0]))
        return (alpha * x - clean) / sigma


def test_a_label_that_the_student_misses_is_hard(auxiliary):
    text = torch.randn(2, 32)
    hard = difficulty(
        LowSounds(), Rollout(tiny().diffusion, 2), text, auxiliary, frames=64, sounds=3
    )
    assert hard[0] < 0.2
    assert hard[1] > 0.8


def test_labels_weigh_as_they_should_however_many_clips_they_have():
    label = torch.tensor([0] * 30 + [1] * 10 + [-1] * 7)
    assert repeats(label, torch.tensor([1.0, 1.0])) == [1, 3]
    assert repeats(label, torch.tensor([1.0, 3.0])) == [1, 9]
    assert repeats(label, torch.tensor([1.0, 1.0, 2.0])) == [1, 3, 60]


def test_an_auxiliary_classifier_is_trained_like_a_judge(tmp_path):
    label = torch.arange(8) % 2
    data = dataclasses.replace(clips(), mels=sounds(label).half(), label=label)
    train_classifier(data, NAMES, SPEC, tmp_path, epochs=1, batch_size=4, auxiliary=True)
    assert load_classifier(tmp_path)[0].config.stem == AUXILIARY_SHAPE["stem"]
    with pytest.raises(DataError, match=r"no clip of 1 of 3 labels \(c, "):
        train_classifier(data, (*NAMES, "c"), SPEC, tmp_path)


def test_labels_without_a_clip_are_named():
    check_all_heard(torch.tensor([1, 0]), NAMES)
    with pytest.raises(DataError, match=r"1 of 2 labels \(a, \.\.\.\): .*--keep-pictureless"):
        check_all_heard(torch.tensor([1, -1]), NAMES)
    check_all_heard(torch.tensor([1, -1]), ["b"], [1])
