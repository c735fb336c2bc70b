"""``clipsynth-rt train distil``, with a teacher of one step and an untrained classifier."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

sys.path.append(str(Path(__file__).parent))
from training_for_tests import Encoder, one_line, write_shards

from clipsynth_rt.bundles.manifest import MelSpec, encode
from clipsynth_rt.cli.main import main
from clipsynth_training.checkpoint import load_component, save_component
from clipsynth_training.classifier.network import AUXILIARY_SHAPE, ClassifierConfig, SoundClassifier
from clipsynth_training.clip import encoder as clip_module
from clipsynth_training.denoiser.conditions import embed_labels
from clipsynth_training.denoiser.config import TrainConfig
from clipsynth_training.denoiser.unet import UNet
from clipsynth_training.distil import setup as distil_run
from clipsynth_training.distil.rollout import Rollout
from clipsynth_training.run.log import read_metrics
from clipsynth_training.vocoder.istft import IstftVocoderConfig
from clipsynth_training.vocoder.network import build_vocoder


@pytest.fixture
def voice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A teacher's checkpoint, and beside it an auxiliary classifier's."""
    shards = write_shards(tmp_path)
    for module in (clip_module, distil_run):
        monkeypatch.setattr(module, "load_clip", lambda *_: Encoder())
    labels = ("--labels", str(tmp_path / "labels.csv"))
    folder = tmp_path / "voice"
    options = ("--config", "tiny", "--variant", "text", "--max-steps", "1", "--samples-every", "0")
    run("denoiser", str(shards), *labels, *options, "--out", str(folder))
    torch.manual_seed(0)
    spec, shape = (
        MelSpec(n_mels=16),
        ClassifierConfig(("drum", "flute"), n_mels=16, **AUXILIARY_SHAPE),
    )
    heard = {"classifier": encode(shape), "mel": encode(spec)}
    save_component(tmp_path / "auxiliary", "classifier", SoundClassifier(shape).state_dict(), heard)
    config = IstftVocoderConfig(channels=32, hidden=32, blocks=1)
    vocoder = build_vocoder(config, spec)
    facts = {"vocoder": encode(config), "mel": encode(spec)}
    save_component(folder, "vocoder", vocoder.state_dict(), facts)
    return folder


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["train", *arguments])
    assert result.exit_code == code, result.output
    return result


def distil(voice: Path, *options: str, code: int = 0) -> Result:
    root = voice.parent
    arguments = ("--labels", str(root / "labels.csv"), "--teacher", str(voice))
    common = ("--out", str(root / "student"), "--trajectories", "2", "--teacher-steps", "2")
    return run("distil", str(root / "shards"), *arguments, *common, *options, code=code)


def test_a_student_learns_from_teacher_and_classifier_and_goes_on(voice: Path) -> None:
    auxiliary = ("--auxiliary", str(voice.parent / "auxiliary"))
    assert "distilled denoiser at step 20" in distil(voice, *auxiliary, "--max-steps", "20").output
    student, facts = load_component(voice.parent / "student", "denoiser_distilled")
    assert facts["distilled_steps"] == [2]
    assert facts["labels"] == ["drum", "flute"]
    (row,) = read_metrics(voice.parent / "student")
    assert row["auxiliary"] > 0.0
    teacher = load_component(voice, "denoiser")[0]
    assert any(not torch.equal(student[name], teacher[name]) for name in teacher)
    assert "at step 21" in distil(voice, *auxiliary, "--max-steps", "21").output


def test_the_auxiliary_classifier_is_asked_what_is_hard(
    voice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    hard = torch.tensor([0.0, 1.0])
    monkeypatch.setattr(distil_run, "difficulty", lambda *_, **__: hard)
    made = distil_run.DistilTrainer

    def spy(config, settings, weights, data, *rest, **more):  # type: ignore[no-untyped-def]
        drawn.append(data.usable("text"))
        return made(config, settings, weights, data, *rest, **more)

    monkeypatch.setattr(distil_run, "DistilTrainer", spy)
    auxiliary = ("--auxiliary", str(voice.parent / "auxiliary"), "--max-steps", "1")
    distil(voice, *auxiliary)
    # five clips each; flutes come three times as often
    assert len(drawn[0]) == 5 + 15
    distil(voice, *auxiliary, "--repeat", "drum=2", "--out", str(voice.parent / "repeated"))
    assert len(drawn[1]) == 10 + 15
    settings = voice.parent / "alike.toml"
    settings.write_text("oversampling = 0.0\n")
    distil(voice, *auxiliary, "--config", str(settings), "--out", str(voice.parent / "alike"))
    assert len(drawn[2]) == 10


def test_more_is_made_of_what_the_classifier_seldom_hears(
    voice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def heard(self: object, made: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return (label == 0).float()

    monkeypatch.setattr(distil_run.AuxiliaryClassifier, "posterior", heard)
    auxiliary = ("--auxiliary", str(voice.parent / "auxiliary"))
    distil(voice, *auxiliary, "--more-trajectories", "3", "--repeat", "flute=4", "--max-steps", "1")
    pairs = distil_run.Trajectories.open(voice.parent / "student" / "pairs")
    assert torch.bincount(pairs.label).tolist() == [2, 5]


@pytest.mark.usefixtures("in_float32")
def test_a_student_keeps_what_it_makes_and_follows_the_teacher_in_one_label(voice: Path) -> None:
    root = voice.parent
    distil(voice, "--max-steps", "2")
    weights, facts = load_component(root / "student", "denoiser_distilled")
    # after two steps it is its teacher still: make it another
    weights = {name: value + 0.2 * torch.randn_like(value) for name, value in weights.items()}
    save_component(root / "student", "denoiser_distilled", weights, facts)
    options = ("--from-checkpoint", str(root / "student"), "--own-trajectories", "--max-steps", "1")
    more = ("--more-of", "flute", "--more-trajectories", "3", "--out", str(root / "second"))
    distil(voice, *options, *more)
    assert load_component(root / "second", "denoiser_distilled")[1]["begun_with_steps"] == 2
    pairs = distil_run.Trajectories.open(root / "second" / "pairs")
    assert torch.bincount(pairs.label).tolist() == [2, 5]
    own = distil_run.Trajectories.open(root / "second" / "pairs", every_label=True)
    # what is followed is where the student goes by itself, from the same noise
    settings = TrainConfig.from_dict(
        {key: facts[key] for key in ("unet", "optimiser", "mel", "diffusion")}
    )
    student = UNet(settings.unet).eval()
    student.load_state_dict(weights)
    text = embed_labels(["drum", "flute"], Encoder())[:, 0]
    with torch.no_grad():
        rollout = Rollout(settings.diffusion, 2)
        *_, (_, made) = rollout(student, own.noise.float(), text[own.label], end_to_end=False)
    assert torch.allclose(made, own.path[:, -1].float(), atol=0.02)
    best_trajectories = distil_run.Trajectories.open(root / "student" / "pairs")
    assert not torch.allclose(best_trajectories.path[:, -1], own.path[:, -1], atol=0.02)


def test_what_cannot_be_distilled_is_named(voice: Path) -> None:
    result = distil(voice, "--more-trajectories", "1", code=2)
    assert "--more-trajectories needs a --auxiliary" in result.output
    assert "how many" in distil(voice, "--more-of", "drum", code=2).output
    assert "--from-checkpoint" in distil(voice, "--own-trajectories", code=2).output
    other = distil(voice, "--more-of", "tuba", "--more-trajectories", "1", code=1)
    assert "no clip is labelled 'tuba'" in one_line(other, 1)
    unknown = distil(voice, "--repeat", "tuba=2", "--max-steps", "1", code=1)
    assert "no clip is labelled 'tuba'" in one_line(unknown, 1)
    deaf = distil(voice, "--auxiliary", str(voice.parent / "nowhere"), code=1)
    assert "nowhere/classifier.safetensors: no such file" in one_line(deaf, 1)
    assert not (voice.parent / "student").exists()
    distil(voice, "--max-steps", "1")
    other = distil(voice, "--max-steps", "2", "--teacher-guidance", "4", code=1)
    assert "choose another --out" in one_line(other, 1)
    (voice.parent / "file").write_text("in the way")
    taken = distil(voice, "--out", str(voice.parent / "file"), code=1)
    assert "choose another folder" in one_line(taken, 1)
    odd = distil(voice, "--teacher-steps", "3", "--out", str(voice.parent / "odd"), code=1)
    assert "no multiple" in one_line(odd, 1)
