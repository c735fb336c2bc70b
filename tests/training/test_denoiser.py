"""The denoiser's network, objective and training loop, at the tiny configuration."""

import dataclasses
import json
import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))
from denoiser_for_tests import clips

from clipsynth_rt.errors import CheckpointError, DataError, InputError
from clipsynth_rt.synthesis.schedule import sampling_times
from clipsynth_training.checkpoint import load_component
from clipsynth_training.denoiser.batches import crop
from clipsynth_training.denoiser.conditions import phrasings, read_labels
from clipsynth_training.denoiser.config import TrainConfig, load_config, preset_names
from clipsynth_training.denoiser.diffusion import (
    cosine_schedule,
    perturb_condition,
    sample_times,
    velocity_loss,
)
from clipsynth_training.denoiser.train import DenoiserTrainer
from clipsynth_training.denoiser.unet import Canvas, UNet, UNetConfig, count_flops, count_parameters
from clipsynth_training.run.ema import WeightAverage
from clipsynth_training.run.log import read_metrics
from clipsynth_training.run.trainer import RunLimits


@pytest.fixture
def config() -> TrainConfig:
    return load_config("tiny")


def perturbed(model: UNet) -> UNet:
    """Give the zero-initialised layers weights, so that the output depends on every input."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


def test_shapes_and_sensitivity(config):
    torch.manual_seed(0)
    model = perturbed(UNet(config.unet)).eval()
    x, t = torch.randn(2, 16, 24), torch.tensor([0.3, 0.9])
    condition = torch.nn.functional.normalize(torch.randn(2, 8), dim=1)
    v = model(x, t, condition)
    assert v.shape == x.shape
    assert v.dtype == torch.float32
    assert not torch.allclose(v, model(x, t, torch.zeros(2, 8)))
    assert not torch.allclose(v, model(x, t.flip(0), condition))
    # a clip does not depend on its batch
    alone = model(x[:1], t[:1], condition[:1])
    torch.testing.assert_close(v[:1], alone, rtol=1e-4, atol=1e-5)


def test_presets_load_and_the_paper_one_has_the_paper_size():
    assert preset_names() == ["condition", "edge", "further", "paper", "tiny"]
    paper = load_config("paper")
    with torch.device("meta"):
        size = count_parameters(UNet(paper.unet))
    assert abs(size / 30.4e6 - 1) < 0.02
    assert paper.diffusion.num_steps == 1000
    edge = load_config("edge")
    assert count_flops(UNet(edge.unet), 352) < 7e9
    assert edge.diffusion.frames_multiple == 8
    # what begins with an edge denoiser's weights
    for name in ("condition", "further"):
        preset = load_config(name)
        assert (preset.unet, preset.diffusion) == (edge.unet, edge.diffusion)


def test_the_paper_preset_trains(tmp_path):
    paper = load_config("paper")
    optimiser = dataclasses.replace(paper.optimiser, batch_size=2, accumulate=2)
    data = clips(count=2)
    data.mels = torch.zeros(2, 80, paper.unet.frames_multiple).half()
    data.image = torch.nn.functional.normalize(torch.ones(2, 1, paper.unet.condition_dim), dim=2)
    trainer = DenoiserTrainer(dataclasses.replace(paper, optimiser=optimiser), data, tmp_path)
    assert math.isfinite(trainer.train_step()["loss"])
    assert trainer.step == 1
    # what begins as zero is the first to move
    last = [p for p in trainer.model.parameters() if p.grad is not None and p.grad.any()]
    assert last
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"unett": {}}, "no such section: unett"),
        ({"unet": {"channel": [8]}}, "unet.channel: unknown key"),
        ({"optimiser": {"variant": "audio"}}, "optimiser.variant must be one of"),
        ({"optimiser": {"loss": "l1"}}, "optimiser.loss must be"),
        ({"optimiser": {"learning_rate": "fast"}}, "optimiser.learning_rate: expected float"),
        ({"optimiser": {"accumulate": 0}}, "optimiser.accumulate must be at least 1"),
        ({"unet": {"n_mels": 40}}, "unet.n_mels differs"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(data, message):
    with pytest.raises(InputError, match=message):
        TrainConfig.from_dict(data)


def test_an_unknown_preset_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such preset or file"):
        load_config("nonesuch")
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9")
    with pytest.raises(InputError, match=r"latin\.toml: not TOML"):
        load_config(str(tmp_path / "latin.toml"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("unet.channels = []", "unet: no network has these sizes"),
        ("unet.channels = [10, 20]", "unet: no network has these sizes"),
        ("unet.blocks = [1]", "unet: no network has these sizes"),
        ("unet.stem = [0, 1]", "unet: sizes must be at least 1"),
        ("unet.canvas = -1", "unet: no network has these sizes"),
        ("optimiser.learning_rate = -1.0", r"optimiser\.learning_rate must be above 0, got -1.0"),
        ("optimiser.ema_decay = 2.0", r"optimiser\.ema_decay must be from 0 to below 1"),
        ("optimiser.condition_dropout = 7.0", "condition_dropout must be from 0 to 1"),
        ("optimiser.gradient_clip = 0.0", "gradient_clip must be above 0"),
        ("optimiser.weight_decay = -0.1", "weight_decay must be at least 0"),
        ("diffusion.num_train_timesteps = 0", "num_train_timesteps must be at least 1"),
        ("diffusion.time_shift = -1.0", "time_shift must be above 0"),
    ],
)
def test_a_value_that_trains_nothing_is_refused(tmp_path, line, message):
    path = tmp_path / "odd.toml"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        load_config(str(path))


def test_config_round_trip(config):
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_schedule_is_variance_preserving():
    alpha, sigma = cosine_schedule(torch.linspace(0, 1, 11))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(11))
    assert alpha[0] == 1
    assert sigma[0] == 0


def test_times_cover_the_interval_evenly(config):
    t = sample_times(1000, config.diffusion, torch.Generator().manual_seed(0))
    assert t.min() >= 1e-3
    assert t.max() <= 1
    histogram = torch.histc(t, bins=10, min=0, max=1)
    assert (histogram - 100).abs().max() <= 1


def test_times_are_those_that_a_sampler_visits(config):
    spec = dataclasses.replace(config.diffusion, time_shift=3.0, num_train_timesteps=8)
    t = sample_times(64, spec, torch.Generator().manual_seed(0)).unique()
    visited = torch.from_numpy(sampling_times(8, spec)[:-1]).flip(0).float()
    torch.testing.assert_close(t, visited)


def test_canvas_begins_blank_and_fits_any_length(config):
    canvas = Canvas(6, 4, 4, config.unet)
    embedding = torch.randn(2, config.unet.embedding)
    assert not canvas(embedding, 9).any()
    torch.nn.init.normal_(canvas.mix.weight)
    long, short = canvas(embedding, 40), canvas(embedding, 9)
    assert long.shape == (2, 6, 4, 40)
    torch.testing.assert_close(long[..., :9], short)
    # a row is a constant and decaying envelopes: it settles
    assert (long[..., 1:] - long[..., :-1])[..., -1].abs().max() < long.abs().max()


def test_condition_dropout_and_noise(config):
    settings = dataclasses.replace(config.optimiser, condition_dropout=0.25, condition_noise=0.5)
    condition = torch.nn.functional.normalize(torch.ones(4000, 8), dim=1)
    out = perturb_condition(condition, settings, torch.Generator().manual_seed(0))
    dropped = (out == 0).all(dim=1)
    assert abs(float(dropped.float().mean()) - 0.25) < 0.03
    kept = out[~dropped]
    torch.testing.assert_close(kept.norm(dim=1), torch.ones(len(kept)))
    assert (kept - condition[0]).norm(dim=1).mean() > 0.2


def test_velocity_loss_is_zero_for_the_true_velocity():
    mel, noise, t = torch.randn(3, 4, 8), torch.randn(3, 4, 8), torch.tensor([0.2, 0.5, 0.8])

    def oracle(x, t, condition):
        alpha, sigma = (a[:, None, None] for a in cosine_schedule(t))
        return alpha * noise - sigma * mel

    condition = torch.zeros(3, 8)
    assert velocity_loss(oracle, mel, condition, t, noise).item() < 1e-10
    wrong = velocity_loss(oracle, mel + 1, condition, t, noise, "min_snr")
    assert wrong > 0.05


def test_weight_average_follows_slowly():
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    average = WeightAverage(module, decay=0.9)
    torch.nn.init.ones_(module.weight)
    average.update(module)  # decay of the first update: (1 + 1) / (10 + 1)
    assert math.isclose(average.tensors["weight"].item(), 1 - 2 / 11, rel_tol=1e-6)


def test_training_lowers_the_held_out_loss(config, tmp_path):
    data = clips()
    trainer = DenoiserTrainer(config, data, tmp_path, data)
    before = trainer.evaluate()
    trainer.run(RunLimits(max_steps=60, evaluate_every=30))
    after = trainer.evaluate()
    assert after["held_out_text"] < 0.9 * before["held_out_text"]
    assert [row["step"] for row in read_metrics(tmp_path)] == [30, 60]
    tensors, facts = load_component(tmp_path, "denoiser")
    assert facts["unet"] == config.unet.to_dict()
    assert facts["parameters"] == sum(
        value.numel() for name, value in tensors.items() if "frequencies" not in name
    )


def test_resuming_takes_exactly_the_same_steps(config, tmp_path):
    data = clips()
    whole = DenoiserTrainer(config, data, tmp_path / "whole")
    whole.run(RunLimits(max_steps=8))
    first = DenoiserTrainer(config, data, tmp_path / "parts")
    first.run(RunLimits(max_steps=5))
    second = DenoiserTrainer(config, data, tmp_path / "parts")
    assert second.step == 5
    second.run(RunLimits(max_steps=8))
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(value, second.model.state_dict()[name], rtol=0, atol=0)
    for name, value in whole.average.tensors.items():
        torch.testing.assert_close(value, second.average.tensors[name], rtol=0, atol=0)


def test_a_run_of_another_configuration_is_not_resumed(config, tmp_path):
    DenoiserTrainer(config, clips(), tmp_path).save()
    other = dataclasses.replace(config, unet=dataclasses.replace(config.unet, embedding=32))
    with pytest.raises(CheckpointError, match=r"unet\.embedding is 16.*configuration's is 32"):
        DenoiserTrainer(other, clips(), tmp_path)


def test_cooldown_ends_at_zero(config, tmp_path):
    trainer = DenoiserTrainer(config, clips(), tmp_path)
    limits = RunLimits(max_steps=100, cooldown_steps=50)
    rates = []
    for step in (10, 50, 75, 99):
        trainer.step = step
        rates.append(limits.rate_share(step, trainer.warmup_steps))
    assert rates == pytest.approx([1.0, 1.0, 0.5, 0.02])


def test_frames_must_fit(config, tmp_path):
    with pytest.raises(InputError, match="do not fit"):
        DenoiserTrainer(config, clips(frames=18), tmp_path)


def test_variants_draw_from_their_own_conditions():
    data = clips()
    data.image = -data.image  # tell pictures from texts by sign
    generator = torch.Generator().manual_seed(0)
    indices = torch.arange(12).repeat(20)

    def share_of_text(variant: str) -> float:
        drawn = data.conditions(indices, variant, generator)
        texts = data.text[data.label[indices]]
        return float(((drawn[:, None] - texts).abs().amax(dim=2) < 1e-6).any(dim=1).float().mean())

    assert share_of_text("text") == 1.0
    assert share_of_text("image") == 0.0
    assert 0.3 < share_of_text("hybrid") < 0.7


def test_clips_without_what_a_variant_needs_are_left_out():
    data = clips()
    data.label[:] = -1
    assert len(data.usable("image")) == 12
    with pytest.raises(DataError, match="--labels"):
        data.usable("text")
    data.has_image[:4] = False
    assert len(data.usable("hybrid")) == 8


def test_labels_need_their_columns(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("name,kind\na,b\n")
    with pytest.raises(DataError, match="needs the columns id and concept"):
        read_labels(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(tmp_path / "none.csv")


def test_phrasings_hold_the_runtime_template_first():
    texts = phrasings("drum")
    assert texts[0] == "a photo of drum"
    assert "a photo of drum kit" in texts


def test_unet_config_round_trip():
    config = UNetConfig()
    assert UNetConfig.from_dict(config.to_dict()) == config


def test_cropped_training_sees_starts_and_other_windows(config, tmp_path):
    optimiser = dataclasses.replace(config.optimiser, crop_frames=8)
    trainer = DenoiserTrainer(dataclasses.replace(config, optimiser=optimiser), clips(), tmp_path)
    ramp = torch.arange(16.0).expand(400, 16, 16)
    windows = crop(ramp, trainer.batches._crop_starts(400, torch.Generator().manual_seed(0)), 8)
    assert windows.shape == (400, 16, 8)
    starts = windows[:, 0, 0]
    assert 0.45 < float((starts == 0).float().mean()) < 0.65
    assert starts.max() == 8
    assert trainer.train_step()["loss"] > 0
    odd = dataclasses.replace(config.optimiser, crop_frames=9)
    with pytest.raises(InputError, match="not a multiple of"):
        DenoiserTrainer(dataclasses.replace(config, optimiser=odd), clips(), tmp_path / "odd")
