import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.errors import CheckpointError, DataError, InputError
from clipsynth_training.checkpoint import load_component, load_state
from clipsynth_training.data.shards import ShardWriter
from clipsynth_training.run.interruption import StopSignals
from clipsynth_training.vocoder.config import (
    VocoderTrainConfig,
    VocoderTraining,
    read_vocoder_config,
)
from clipsynth_training.vocoder.data import draw_segments, held_out_clips, open_audio
from clipsynth_training.vocoder.discriminators import DiscriminatorConfig
from clipsynth_training.vocoder.hifigan import HifiGanConfig
from clipsynth_training.vocoder.istft import IstftVocoderConfig
from clipsynth_training.vocoder.network import load_vocoder
from clipsynth_training.vocoder.train import evaluate_vocoder, train_vocoder
from clipsynth_training.vocoder.trainer import VocoderTrainer

LIGHT = IstftVocoderConfig(channels=16, hidden=32, blocks=1, refinements=1)
SMALL_HIFIGAN = HifiGanConfig(channels=32, block_kernels=(3,), dilations=((1, 3),))
JUDGES = DiscriminatorConfig((2,), 1, 0.05, ((512, 128, 512),), 4)
SHORT = VocoderTraining(
    steps=4, batch_size=2, segment_frames=8, log_every=1, save_every=2, warmup_steps=1,
    mixed_precision=False, validation_clips=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    rng = np.random.default_rng(0)
    seconds = np.arange(6144) / 22050
    tones = [np.sin(2 * np.pi * hz * seconds) * np.exp(-3 * seconds) for hz in (220, 331, 523)]
    return np.round(20000 * np.array(tones) + rng.normal(0, 30, (3, 6144))).astype(np.int16)


def config(vocoder=LIGHT, **training) -> VocoderTrainConfig:
    return VocoderTrainConfig(vocoder, MelSpec(), replace(SHORT, **training), JUDGES)


@pytest.mark.parametrize(("vocoder", "rate"), [(LIGHT, 3e-3), (SMALL_HIFIGAN, 5e-4)])
def test_losses_fall(vocoder, rate: float, clips: np.ndarray) -> None:
    trainer = VocoderTrainer(config(vocoder, learning_rate=rate, steps=1000), clips)
    reports = [trainer.train_step() for _ in range(24)]
    totals = [report["stft"] + report["mel"] for report in reports]
    assert np.mean(totals[-4:]) < 0.95 * np.mean(totals[:4])


def test_a_spectral_phase_renders_nothing_and_learns(clips: np.ndarray) -> None:
    trainer = VocoderTrainer(config(waveform_from=100, steps=1000, learning_rate=3e-3), clips)
    reports = [trainer.train_step() for _ in range(16)]
    assert "stft" not in reports[0]
    names = ("amplitude", "phase_time", "phase_frequency")
    totals = [sum(report[name] for name in names) for report in reports]
    assert np.mean(totals[-4:]) < 0.95 * np.mean(totals[:4])


def test_discriminators_learn_and_are_heard(clips: np.ndarray) -> None:
    trainer = VocoderTrainer(
        config(adversarial_from=1, steps=1000, discriminator_learning_rate=3e-3), clips
    )
    assert "adversarial" not in trainer.train_step()
    before = {k: v.clone() for k, v in trainer.discriminators.state_dict().items()}
    reports = [trainer.train_step() for _ in range(12)]
    assert reports[-1]["discriminator"] < reports[0]["discriminator"]
    assert all("features" in report for report in reports)
    after = trainer.discriminators.state_dict()
    assert any(not torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize("vocoder", [LIGHT, SMALL_HIFIGAN])
def test_a_resumed_run_is_the_run(vocoder, clips: np.ndarray, tmp_path: Path) -> None:
    whole = config(vocoder, adversarial_from=1, mel_noise=0.1)
    train_vocoder(whole, clips, tmp_path / "whole")
    # the learning rate follows the configured steps, so the first half is stopped, not shortened
    half = VocoderTrainer(whole, clips)
    for _ in range(2):
        half.train_step()
    half.save(tmp_path / "halves", {})
    torch.manual_seed(99)
    train_vocoder(whole, clips, tmp_path / "halves")
    for load, part in ((load_component, "vocoder"), (load_state, "vocoder_state")):
        expected, facts = load(tmp_path / "whole", part)
        found, found_facts = load(tmp_path / "halves", part)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            assert torch.equal(value, found[name]), name
        assert facts == found_facts


def test_a_signal_stops_a_run_after_its_step_and_saves(clips: np.ndarray, tmp_path: Path) -> None:
    signals = StopSignals()
    signals.received = 15
    train_vocoder(config(), clips, tmp_path, signals=signals)
    assert load_state(tmp_path, "vocoder_state")[1]["step"] == 1
    assert load_component(tmp_path, "vocoder")[1]["steps"] == 1


def test_a_run_writes_a_vocoder_its_log_and_its_metrics(clips: np.ndarray, tmp_path: Path) -> None:
    train_vocoder(config(), clips, tmp_path, validation=clips)
    lines = [json.loads(line) for line in (tmp_path / "vocoder_log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "mel" in line] == [1, 2, 3, 4]
    measured = [line for line in lines if "validation" in line]
    assert [line["step"] for line in measured] == [2, 4]
    vocoder, facts = load_vocoder(tmp_path)
    assert facts["steps"] == 4
    assert facts["metrics"] == measured[-1]["validation"]
    assert vocoder(torch.zeros(1, 80, 5)).shape == (1, 5 * 256)
    found = evaluate_vocoder(tmp_path, clips, clips=2, griffin_lim_iterations=1)
    assert found["vocoder"] == pytest.approx(facts["metrics"], rel=1e-4)
    assert found["griffin_lim"].keys() == found["vocoder"].keys()


def test_time_that_is_up_stops_and_saves(clips: np.ndarray, tmp_path: Path) -> None:
    train_vocoder(config(steps=10**6), clips, tmp_path, max_minutes=0.0)
    assert load_component(tmp_path, "vocoder")[1]["steps"] == 1


def test_a_run_of_another_size_is_not_resumed(clips: np.ndarray, tmp_path: Path) -> None:
    train_vocoder(config(steps=1), clips, tmp_path)
    with pytest.raises(CheckpointError, match="use the configuration"):
        train_vocoder(config(replace(LIGHT, channels=8)), clips, tmp_path)
    train_vocoder(config(replace(LIGHT, channels=8), steps=1), clips, tmp_path, resume=False)


def test_a_damaged_checkpoint_is_named(clips: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_vocoder(tmp_path)
    train_vocoder(config(steps=1), clips, tmp_path)
    (tmp_path / "vocoder.json").write_text('{"vocoder": {"kind": "istft", "depth": 3}}')
    with pytest.raises(CheckpointError, match=r"vocoder\.depth"):
        load_vocoder(tmp_path)


@pytest.mark.parametrize("name", ["light", "hifigan_v1", "hifigan_v2", "hifigan_v3"])
def test_presets_read(name: str) -> None:
    read = read_vocoder_config(name)
    assert read.mel == MelSpec()
    assert read.training.steps > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[vocoder]\nkind = 'istft'\nwidth = 3", r"vocoder\.width: unknown key"),
        ("[vocoder]\nkind = 'istft'\n[training]\nsteps = 'many'", r"training\.steps"),
        ("[vocoder]\nkind = 'istft'\n[extra]", "extra: unknown key"),
        ("[training]\nsteps = 1", r"vocoder\.kind"),
        ("steps = ", "not TOML"),
        *(
            (f"[vocoder]\nkind = 'istft'\n[training]\n{line}", rf"training\.{line.split()[0]}")
            for line in ("log_every = 0", "batch_size = 0", "betas = [0.8]", "segment_frames = 4")
        ),
    ],
)
def test_a_bad_configuration_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_vocoder_config(path)


def test_a_configuration_that_does_not_fit_is_an_input_error(clips, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hop"):
        train_vocoder(config(replace(SMALL_HIFIGAN, upsample_rates=(2, 2, 2, 2))), clips, tmp_path)
    with pytest.raises(InputError, match="No such file"):
        read_vocoder_config(tmp_path / "none.toml")


def test_shards_and_arrays_give_the_same_clips(clips: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "clips.npy", clips)
    writer = ShardWriter(tmp_path / "shards", MelSpec(), shard_size=2)
    frames = np.zeros((3, 1, 4, 4, 3), np.uint8)
    writer.add(["a", "b"], np.zeros((2, 80, 24)), frames[:2], clips[:2])
    writer.add(["c"], np.zeros((1, 80, 24)), frames[2:], clips[2:])
    writer.flush()
    array, shards = open_audio(tmp_path / "clips.npy"), open_audio(tmp_path / "shards")
    assert len(array) == len(shards) == 3
    draws = [draw_segments(s, 8, 2048, np.random.default_rng(1)) for s in (array, shards)]
    assert draws[0].shape == (8, 2048)
    np.testing.assert_array_equal(*draws)
    np.testing.assert_array_equal(held_out_clips(shards, 2), clips[[0, 2]] / np.float32(32767))


def test_segments_are_loud_parts_never_turned_up(clips: np.ndarray) -> None:
    half_silent = np.concatenate([np.zeros_like(clips), clips], axis=1)
    drawn = draw_segments(half_silent, 32, 512, np.random.default_rng(0))
    peaks = np.abs(drawn).max(1)
    assert peaks.min() > 1e-3 * 10**-0.6
    assert peaks.max() <= np.abs(clips).max() / 32767


def test_bad_audio_is_named(clips: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "float.npy", clips.astype(np.float32))
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "none.npy", clips[:0])
    for name, message in (
        ("float.npy", r"float32 \[3, 6144\], not int16"),
        ("text.npy", "not a readable"),
        ("none.npy", "holds no clip"),
        ("shards", "clipsynth-rt data prepare"),
    ):
        with pytest.raises(DataError, match=message):
            open_audio(tmp_path / name)
    with pytest.raises(DataError, match="segments need 9000"):
        draw_segments(clips, 1, 9000, np.random.default_rng(0))
