"""Distillation: the sampler, the teacher's trajectories, the run, and what it refuses."""

import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

sys.path.append(str(Path(__file__).parent))
from denoiser_for_tests import clips, tiny

from clipsynth_rt.cli.main import main
from clipsynth_rt.errors import CheckpointError, DataError, InputError
from clipsynth_rt.synthesis.samplers import ddim, ddim_update
from clipsynth_rt.synthesis.schedule import alpha_sigma, sampling_times
from clipsynth_training.checkpoint import load_component
from clipsynth_training.denoiser.unet import UNet
from clipsynth_training.distil.batches import DistilBatches, DistilConfig, load_config
from clipsynth_training.distil.mel_discriminator import MelDiscriminator, MelDiscriminatorConfig
from clipsynth_training.distil.rollout import Rollout, clip_through
from clipsynth_training.distil.train import DistilTrainer
from clipsynth_training.distil.trajectories import (
    TeacherSpec,
    Trajectories,
    make_trajectories,
    more_labels,
)
from clipsynth_training.run.log import read_metrics
from clipsynth_training.run.trainer import RunLimits

NAMES = ("a", "b")
FEW = DistilConfig(batch_size=4, learning_rate=1e-3, regression_steps=3)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    model = UNet(tiny().unet).eval()
    for parameter in model.parameters():  # the last layers begin at zero
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module")
def data():
    return clips()


@pytest.fixture(scope="module")
def pairs(network, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    make_trajectories(
        network, tiny().diffusion, data.text[:, 0], folder, names=NAMES, frames=16, rounds=2,
        how=TeacherSpec(steps=4, guided=2),
    )  # fmt: skip
    return Trajectories.open(folder)


def trainer(network, data, pairs, out, config=FEW):
    return DistilTrainer(config, tiny(), network.state_dict(), data, pairs, out, {"labels": ["a"]})


@pytest.mark.usefixtures("in_float32")
def test_the_rollout_is_the_runtimes_sampler(network, data):
    spec = tiny().diffusion
    noise = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(1))
    condition = data.text[:, 0]

    def step(x, t, s, eta, fresh):
        with torch.no_grad():
            v = network(torch.from_numpy(x), torch.full((2,), t), condition).numpy()
        alpha, sigma = alpha_sigma(t)
        x0 = np.clip(alpha * x - sigma * v, spec.x0_min, spec.x0_max).astype(np.float32)
        return ddim_update(x, x0, t, s, eta, fresh), x0

    expected = ddim(step, noise.numpy(), sampling_times(2, spec))
    with torch.no_grad():
        *_, (_, made) = Rollout(spec, 2)(network, noise, condition, end_to_end=False)
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-5)


def test_a_target_leads_to_the_state_it_was_made_from():
    spec = tiny().diffusion
    rollout = Rollout(spec, 2)
    x, x0 = torch.randn(1, 16, 16), torch.rand(1, 16, 16)
    (alpha, sigma), (alpha_s, sigma_s) = (alpha_sigma(t) for t in rollout.times[:2])
    following = alpha_s * x0 + sigma_s * (x - alpha * x0) / sigma
    torch.testing.assert_close(rollout.target(0, x, following), x0, atol=1e-5, rtol=0)


def test_batches_drawn_ahead_are_the_same(data, pairs):
    plain, ahead = DistilBatches(FEW, data, pairs), DistilBatches(FEW, data, pairs, ahead=True)
    for step in (0, 1, 7):
        one, other = plain.take(step), ahead.take(step).to(torch.device("cpu"))
        for name in ("real", "label", "condition", "noise", "path"):
            assert torch.equal(getattr(one, name), getattr(other, name))
    ahead.close()


def test_what_is_clipped_keeps_its_gradient():
    x = torch.tensor([-5.0, 0.5], requires_grad=True)
    y = clip_through(x, 0.0, 1.0)
    assert y.tolist() == [0.0, 0.5]
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("end_to_end", "reaches"), [(True, True), (False, False)])
def test_gradients_reach_back_through_all_calls_only_end_to_end(end_to_end, reaches, network, data):
    noise = torch.randn(1, 16, 16, requires_grad=True)
    *_, (state, made) = Rollout(tiny().diffusion, 2)(
        network, noise, data.text[:1, 0], end_to_end, first=0 if end_to_end else 1
    )
    made.sum().backward()
    assert (noise.grad is not None) == reaches
    assert state.requires_grad == reaches


def test_the_teacher_is_guided_where_it_is_told_to_be(network, data):
    num_steps = []
    handle = network.register_forward_hook(lambda m, inputs, out: num_steps.append(len(inputs[0])))
    how = TeacherSpec(steps=4, guided=3)
    from clipsynth_training.distil.trajectories import _trajectory

    states = _trajectory(
        network, tiny().diffusion, how, torch.randn(2, 16, 16), data.text[:, 0], student_steps=2
    )
    handle.remove()
    assert num_steps == [4, 4, 4, 2]
    assert states.shape == (2, 2, 16, 16)


def test_trajectories_that_exist_are_not_made_again(network, data, tmp_path):
    def make(rounds):
        done = []
        make_trajectories(
            network, tiny().diffusion, data.text[:, 0], tmp_path, names=NAMES, frames=16,
            rounds=rounds, how=TeacherSpec(steps=2, guided=0), on_round=done.append,
        )  # fmt: skip
        return done

    assert make(1) == [0]
    assert make(2) == [1]


def test_trajectories_of_another_teacher_are_not_mixed_in(network, data, tmp_path, caplog):
    def make(how, folder="p", names=NAMES, teacher=network, spec=None):
        make_trajectories(
            teacher, spec or tiny().diffusion, data.text[:, 0], tmp_path / folder, names=names,
            frames=16, rounds=1, how=how,
        )  # fmt: skip

    make(TeacherSpec.of(4, 2.0))
    with pytest.raises(DataError, match=r"000-0\.safetensors: of a teacher with other steps"):
        make(TeacherSpec.of(4, 3.0))
    with pytest.raises(DataError, match="3 steps of the teacher are no multiple of"):
        make(TeacherSpec.of(3, 2.0), "other")
    torch.manual_seed(4)
    shifted = dataclasses.replace(tiny().diffusion, time_shift=3.0)
    teacher = UNet(tiny().unet).eval()
    for other in ({"teacher": teacher}, {"names": NAMES[::-1]}, {"spec": shifted}):
        with pytest.raises(DataError, match="of another teacher, other labels"):
            make(TeacherSpec.of(4, 2.0), **other)
    # what versions before wrote says nothing, and is of the defaults
    assert TeacherSpec.of(8, 2.5) == TeacherSpec()
    tensors = load_file(tmp_path / "p" / "000-0.safetensors")
    save_file(tensors, tmp_path / "p" / "000-0.safetensors")
    make(None)
    assert "1 files do not say which teacher made them" in caplog.text
    (tmp_path / "p" / "000-0.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="damaged"):
        make(None)


def test_a_draw_is_of_the_wanted_label(pairs):
    label = torch.tensor([1, 0, 1])
    noise, path = pairs.draw(label, torch.Generator().manual_seed(0))
    for row in range(3):
        same = (pairs.noise.float() == noise[row]).flatten(1).all(dim=1).nonzero().item()
        assert pairs.label[same] == label[row]
        assert torch.equal(path[row], pairs.path[same].float())


def test_a_student_learns_where_the_teacher_ends(network, data, pairs, tmp_path):
    config = dataclasses.replace(FEW, regression_steps=60, learning_rate=3e-3)
    run = trainer(network, data, pairs, tmp_path, config)
    losses = [run.train_step()["loss"] for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


def test_the_discriminator_learns_to_tell_real_clips(network, data, pairs, tmp_path):
    config = dataclasses.replace(FEW, regression_steps=99, learning_rate=0.0)
    run = trainer(network, data, pairs, tmp_path, config)
    losses = [run.train_step()["discriminator"] for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]


def test_the_discriminators_push_makes_scores_rise(network, data, pairs, tmp_path):
    run = trainer(network, data, pairs, tmp_path)
    for _ in range(FEW.regression_steps):
        run.train_step()
    batch = run.batches.draw(run.step)
    made = torch.rand_like(batch.real)
    push, before = run.discriminator.gradient(run.step, batch, made)
    _, after = run.discriminator.gradient(run.step, batch, made - 0.1 * push / push.abs().max())
    assert after < before


def test_a_run_that_is_cut_off_goes_on_as_an_unbroken_one(network, data, pairs, tmp_path):
    whole = trainer(network, data, pairs, tmp_path / "whole")
    whole.run(RunLimits(max_steps=6))
    trainer(network, data, pairs, tmp_path / "cut").run(RunLimits(max_steps=4))
    resumed = trainer(network, data, pairs, tmp_path / "cut")
    assert resumed.step == 4
    resumed.run(RunLimits(max_steps=6))
    for name, value in whole.student.state_dict().items():
        assert torch.equal(value, resumed.student.state_dict()[name]), name
    tensors, facts = load_component(tmp_path / "cut", COMPONENT)
    assert facts["distilled_steps"] == [2]
    assert facts["steps"] == 6
    assert facts["labels"] == ["a"]
    assert tensors.keys() == whole.student.state_dict().keys()


def test_one_student_learns_several_counts_of_calls(network, data, pairs, tmp_path):
    both = dataclasses.replace(FEW, num_steps=(*FEW.num_steps, 1), other_share=0.6)
    assert [both.num_steps_at(step) for step in range(200)].count(1) == pytest.approx(120, abs=20)
    batches = DistilBatches(both, data, pairs)
    for step in range(8):
        batch = batches.draw(step)
        assert batch.num_steps == both.num_steps_at(step)
        # whatever the count, the last state is the teacher's sound
        teacher = {tuple(row[:, :3].flatten().tolist()) for row in pairs.path[:, -1].float()}
        assert {tuple(row[:, :3].flatten().tolist()) for row in batch.path[:, -1]} <= teacher
    run = trainer(network, data, pairs, tmp_path, both)
    run.run(RunLimits(max_steps=8))
    # each is brought to size for itself
    assert all(
        sizes.known.keys() == {"regression", "discriminator"} for sizes in run.sizes.values()
    )
    assert run.sizes[1].known != run.sizes[2].known
    assert load_component(tmp_path, COMPONENT)[1]["distilled_steps"] == [2, 1]
    assert trainer(network, data, pairs, tmp_path, both).sizes[1].known == run.sizes[1].known


def test_losses_are_logged(network, data, pairs, tmp_path):
    run = trainer(network, data, pairs, tmp_path)
    run.run(RunLimits(max_steps=4, log_every=2))
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [2, 4]
    assert all(math.isfinite(row[name]) for row in rows for name in ("loss", "discriminator"))


def test_a_loss_that_is_not_finite_ends_the_run(network, data, pairs, tmp_path):
    run = trainer(network, data, pairs, tmp_path)
    with torch.no_grad():
        run.student.head.bias.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="not finite at step 1"):
        run.train_step()


def test_trajectories_for_another_number_of_calls_are_refused(network, data, pairs, tmp_path):
    with pytest.raises(DataError, match="have 2 states"):
        trainer(network, data, pairs, tmp_path, dataclasses.replace(FEW, steps=1))


def test_a_label_without_a_trajectory_is_refused(network, data, pairs, tmp_path):
    only = pairs.label == 0
    some = Trajectories(pairs.noise[only], pairs.path[only], pairs.label[only])
    with pytest.raises(DataError, match="1 labels have no trajectory"):
        trainer(network, data, some, tmp_path)


def test_no_or_damaged_trajectories_are_named(tmp_path):
    with pytest.raises(DataError, match="no teacher's trajectories"):
        Trajectories.open(tmp_path)
    (tmp_path / "000-0.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"000-0\.safetensors: damaged"):
        Trajectories.open(tmp_path)


def test_the_discriminator_hears_labels():
    discriminator = MelDiscriminator(MelDiscriminatorConfig(3, n_mels=16))
    mel = torch.randn(1, 16, 32).expand(2, -1, -1)
    scores = discriminator(mel, torch.tensor([0, 2]))
    assert scores.shape == (2, 2 * 2 * 4)
    assert not torch.allclose(scores[0], scores[1])


def test_a_configuration_file_is_read(tmp_path):
    path = tmp_path / "distil.toml"
    path.write_text("steps = 4\nadversarial = 0.5\n")
    assert load_config(path) == DistilConfig(num_steps=(4,), adversarial=0.5)
    assert load_config(None) == DistilConfig()


@pytest.mark.parametrize(
    "text",
    [
        "stepz = 1",
        "steps = 'two'",
        "= 3",
        "steps = 0",
        "also = [2]",
        "batch_size = -1",
        "penalty_every = 0",
        "pair_share = 9.0",
        "ema_decay = 1.0",
        "learning_rate = nan",
    ],
)
def test_a_wrong_configuration_is_named(text, tmp_path):
    path = tmp_path / "distil.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"distil\.toml"):
        load_config(path)


def test_the_command_names_a_missing_teacher(tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("id,concept\n")
    arguments = ["train", "distil", str(tmp_path), "--labels", str(labels), "--out"]
    result = CliRunner().invoke(main, [*arguments, str(tmp_path / "out"), "--teacher", "nowhere"])
    assert result.exit_code == 1
    assert "nowhere/denoiser.safetensors: no such file" in result.output


def test_more_trajectories_of_some_labels_lie_beside_the_others(tmp_path):
    torch.manual_seed(5)
    network, text = UNet(tiny().unet).eval(), torch.randn(3, tiny().unet.condition_dim)
    how = TeacherSpec(steps=2, guided=0)

    def sample(rounds, **more):
        make_trajectories(
            network, tiny().diffusion, text, tmp_path, names=("a", "b", "c"), frames=16,
            rounds=rounds, how=how, **more,
        )  # fmt: skip

    sample(2)
    sample(3, only=torch.tensor([2]))
    sample(3, only=torch.tensor([], dtype=torch.int64), rank=1, processes=2)
    pairs = Trajectories.open(tmp_path)
    assert torch.bincount(pairs.label).tolist() == [2, 2, 5]
    assert len(torch.unique(pairs.noise[pairs.label == 2], dim=0)) == 5
    assert torch.bincount(Trajectories.open(tmp_path, every_label=True).label).tolist() == [2, 2, 2]
    for other in ([1], [2, 1]):
        with pytest.raises(DataError, match="of other labels than are wanted more of"):
            sample(3, only=torch.tensor(other))
    assert more_labels(tmp_path).tolist() == [2]
    assert more_labels(tmp_path / "none") is None
    # a run that goes on keeps what was made
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    sample(3, only=torch.tensor([2]))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
