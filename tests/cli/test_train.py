"""``clipsynth-rt train denoiser`` on a handful of clips."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

sys.path.append(str(Path(__file__).parent))
from training_for_tests import Encoder, one_line, write_shards

from clipsynth_rt.cli.main import main
from clipsynth_rt.errors import install_command
from clipsynth_training.checkpoint import load_component
from clipsynth_training.clip import encoder as clip_module
from clipsynth_training.denoiser import conditions
from clipsynth_training.denoiser.train import DenoiserTrainer
from clipsynth_training.run.log import read_metrics

Train = Callable[..., Result]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_shards(tmp_path)


@pytest.fixture
def train(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    monkeypatch.setattr(clip_module, "load_clip", lambda *_: Encoder())

    def run(*options: str) -> Result:
        arguments = [str(shards), "--config", "tiny", "--out", str(tmp_path / "run"), *options]
        return CliRunner().invoke(main, ["train", "denoiser", *arguments])

    return run


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_run_goes_on_and_says_where_it_is(train: Train, tmp_path: Path) -> None:
    assert "denoiser at step 2" in train("--variant", "image", "--max-steps", "2").output
    done = train("--variant", "image", "--max-steps", "3", "--stream", "--accumulate", "2")
    assert "denoiser at step 3" in done.output
    assert "resumed" in done.stderr  # what goes on is told as it goes on
    assert load_component(tmp_path / "run", "denoiser")[1]["optimiser"]["accumulate"] == 2
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [2, 3]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_gives_its_exit_code(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    step = DenoiserTrainer.train_step

    def interrupted(self: DenoiserTrainer, rate: float) -> float:
        if self.step == 1:
            signal.raise_signal(number)
        return step(self, rate)

    monkeypatch.setattr(DenoiserTrainer, "train_step", interrupted)
    result = train("--variant", "image")
    assert result.exit_code == code
    assert "denoiser at step 2 saved on SIG" in result.output
    assert load_component(tmp_path / "run", "denoiser")[1]["steps"] == 2


def test_samples_are_drawn_and_heard(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = str(tmp_path / "labels.csv")
    options = ("--variant", "text", "--labels", labels, "--samples-every", "2", "--sounds")
    result = train(*options, "--max-steps", "4", "--sample", "drum", "--sample", "æ♪")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "run" / "samples"
    names = [f"step-0000000{s}" for s in (2, 4)]
    assert sorted(p.name for p in folder.glob("*.png")) == [f"{n}.png" for n in names]
    assert sorted(p.name for p in folder.glob("*.wav")) == [
        f"{n}-{i}.wav" for n in names for i in range(2)
    ]
    first, second = (pixels(folder / f"{name}.png") for name in names)
    assert first.shape == (2 * (16 + 12), 16, 3)
    assert (first != second).any()


def test_without_queries_labels_or_pictures_are_sampled(train: Train, tmp_path: Path) -> None:
    labels = str(tmp_path / "labels.csv")
    for variant, height in (("hybrid", 2 * (16 + 12)), ("image", 6 * (16 + 12))):
        out = tmp_path / variant
        options = ("--variant", variant, "--labels", labels, "--samples-every", "1")
        result = train(*options, "--max-steps", "1", "--out", str(out))
        assert result.exit_code == 0, result.output
        assert pixels(out / "samples" / "step-00000001.png").shape[0] == height


def test_tensorboard_gets_figures_and_pictures(train: Train, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = ("--variant", "image", "--tensorboard", "--samples-every", "2")
    result = train(*options, "--max-steps", "2")
    assert result.exit_code == 0, result.output
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [2]
    assert [event.step for event in events.Images("samples")] == [2]


def test_tensorboard_that_is_not_installed_is_named(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    result = train("--variant", "image", "--tensorboard", "--max-steps", "1")
    assert result.exit_code == 1
    assert install_command("tensorboard") in result.stderr


def test_what_cannot_be_trained_is_one_line(train: Train) -> None:
    assert "no CUDA device" in one_line(train("--device", "cuda"), 1)
    assert "no such device" in one_line(train("--device", "gpu"), 1)
    assert "runs on cpu or cuda" in one_line(train("--device", "meta"), 1)
    assert "must be one of" in one_line(train("--variant", "audio"), 1)
    assert "--labels" in one_line(train("--variant", "text"), 1)
    assert "--accumulate" in one_line(train("--accumulate", "0"), 2)


def test_a_run_begins_with_another_checkpoints_weights(train: Train, tmp_path: Path) -> None:
    train("--variant", "image", "--max-steps", "2", "--samples-every", "0")
    begun = load_component(tmp_path / "run", "denoiser")[0]
    options = ("--variant", "image", "--max-steps", "1", "--samples-every", "0")
    second = ("--from-checkpoint", str(tmp_path / "run"), "--out", str(tmp_path / "second"))
    result = train(*options, *second)
    assert result.exit_code == 0, result.output
    made = load_component(tmp_path / "second", "denoiser")[0]
    # the first step's learning rate is a fifth of 8e-4 at most: weights stay near, and move
    gap = max(float((made[name] - begun[name]).abs().max()) for name in begun)
    assert 0.0 < gap < 2e-4
    missing = train(*options, "--from-checkpoint", str(tmp_path / "nothing"))
    assert "nothing" in one_line(missing, 1)


def test_a_checkpoint_that_does_not_fit_is_refused_before_any_clip_is_read(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train("--variant", "image", "--max-steps", "1", "--samples-every", "0")

    def read(*_: object, **__: object) -> None:
        raise AssertionError("clips were read")

    monkeypatch.setattr(conditions, "load_conditioned", read)
    start = ("--from-checkpoint", str(tmp_path / "run"), "--out", str(tmp_path / "second"))
    message = one_line(train("--variant", "image", "--config", "edge", *start), 1)
    assert str(tmp_path / "run") in message
    assert "use the configuration that it was trained with" in message


def test_a_run_may_begin_with_a_body_alone(train: Train, tmp_path: Path) -> None:
    options = ("--max-steps", "1", "--samples-every", "0")
    train("--variant", "image", *options)
    begun = load_component(tmp_path / "run", "denoiser")[0]
    second = ("--from-checkpoint", str(tmp_path / "run"), "--out", str(tmp_path / "second"))
    labels = ("--labels", str(tmp_path / "labels.csv"))
    result = train("--variant", "text", *options, *labels, *second, "--fresh-condition")
    assert result.exit_code == 0, result.output
    made, facts = load_component(tmp_path / "second", "denoiser")
    assert facts["fresh_condition"] is True
    assert facts["begun_with_steps"] == 1
    assert float((made["condition.weight"] - begun["condition.weight"]).abs().max()) > 1e-2
    assert float((made["condition.bias"] - begun["condition.bias"]).abs().max()) < 2e-4
    assert all(torch.equal(made[n], begun[n]) for n in begun if not n.startswith("condition."))
    again = train("--variant", "text", "--max-steps", "2", *labels, *second, "--fresh-condition")
    assert "at step 2" in again.output
    later = load_component(tmp_path / "second", "denoiser")[0]
    gap = (later["condition.weight"] - made["condition.weight"]).abs().max()
    assert 0.0 < float(gap) < 2e-3  # goes on, and is not drawn again
    alone = train("--variant", "image", *options, "--fresh-condition")
    assert "--from-checkpoint" in one_line(alone, 1)


def test_labels_are_repeated_by_name(train: Train, tmp_path: Path) -> None:
    options = ("--variant", "text", "--max-steps", "1", "--samples-every", "0")
    labels = ("--labels", str(tmp_path / "labels.csv"))
    assert train(*options, *labels, "--repeat", "drum=3").exit_code == 0
    for value in ("drum", "drum=0", "=2", "drum=x"):
        assert value in one_line(train(*options, *labels, "--repeat", value), 1)
    assert "'gong'" in one_line(train(*options, *labels, "--repeat", "gong=2"), 1)
    assert "needs --labels" in one_line(train(*options, "--repeat", "drum=2"), 1)
