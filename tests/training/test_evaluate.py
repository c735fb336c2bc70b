"""Measures against closed forms, and the classifier on sounds that differ by a glance."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.errors import CheckpointError, DataError, InputError
from clipsynth_training.classifier.train import augment, classify, load_classifier, train_classifier
from clipsynth_training.denoiser.conditions import ConditionedMels
from clipsynth_training.evaluate import evaluation as reports
from clipsynth_training.evaluate.measures.metrics import accuracy, frechet_distance
from clipsynth_training.evaluate.protocol import Judge
from clipsynth_training.evaluate.report import tables
from clipsynth_training.mel import MelSpectrogram

SPEC = MelSpec()


def test_frechet_distance_of_known_gaussians():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((40_000, 3))
    # N(0, I) against N(m, 4 I): |m|^2 + tr(I + 4 I - 2 * 2 I) = |m|^2 + 3
    b = 2.0 * rng.standard_normal((40_000, 3)) + np.array([1.0, 0.0, 2.0])
    assert frechet_distance(a, b) == pytest.approx(8.0, rel=0.02)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-6)


def test_frechet_distance_needs_two_clips():
    with pytest.raises(ValueError, match="at least two"):
        frechet_distance(np.ones((1, 3)), np.ones((5, 3)))


def test_accuracy_counts_by_concept():
    posterior = np.array(
        [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.9, 0.1, 0.0], [0.1, 0.2, 0.7]], np.float32
    )
    scores = accuracy(posterior, np.array([0, 0, 1, 2]), ["drum", "dog", "rain"])
    assert scores["top1"] == 0.5
    assert scores["top5"] == 1.0
    assert scores["by_concept"]["drum"] == {"right": 1, "of": 2, "most_heard": "drum"}
    assert scores["by_concept"]["dog"]["most_heard"] == "drum"
    low, high = scores["top1_interval"]
    assert low < 0.5 < high


def tones(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Low tones (label 0), high tones (1) and noise (2), 1.5 s each."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(count) % 3
    time = torch.arange(128 * 256) / SPEC.sample_rate
    clips = []
    for kind in label.tolist():
        jitter = float(torch.rand(1, generator=generator))
        hz = (200 + 100 * jitter) if kind == 0 else (3000 + 1000 * jitter)
        tone = torch.sin(2 * torch.pi * hz * time)
        noise = torch.randn(len(time), generator=generator).clamp(-3, 3) / 3
        clips.append(0.9 * (noise if kind == 2 else tone))
    return torch.stack(clips), label


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    audio, label = tones(24)
    mels = MelSpectrogram(SPEC)(audio).half()
    none = torch.zeros(24, dtype=torch.bool)
    data = ConditionedMels(mels, torch.zeros(24, 0, 1), none, torch.zeros(3, 1, 1), label)
    metrics = train_classifier(
        data, ("low", "high", "noise"), SPEC, folder, validation=data, epochs=12, batch_size=8
    )
    return folder, metrics


def test_classifier_learns_and_judges_waveforms(judged):
    folder, metrics = judged
    assert metrics["validation_top1"] == 1.0
    judge = Judge(folder)
    audio, label = tones(9)
    heard = judge.hear(list(audio.numpy() * 0.05), label.tolist())  # level does not matter
    assert heard.scores(judge.labels)["top1"] == 1.0
    assert heard.embedding.shape == (9, 256)


def test_classifier_is_deterministic_in_any_batch(judged):
    model, spec = load_classifier(judged[0])
    mel = MelSpectrogram(spec)(tones(5)[0])
    together, alone = classify(model, mel)[0], classify(model, mel, batch_size=1)[0]
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


def test_classifier_needs_labels_and_a_whole_checkpoint(tmp_path, judged):
    data = ConditionedMels(
        torch.zeros(2, 80, 32),
        torch.zeros(2, 0, 1),
        torch.zeros(2, dtype=torch.bool),
        torch.zeros(0, 1, 1),
        torch.full((2,), -1),
    )
    with pytest.raises(DataError, match="--labels"):
        train_classifier(data, ("a",), SPEC, tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        load_classifier(tmp_path)


def test_augmentation_keeps_range_and_shape():
    mel = MelSpectrogram(SPEC)(tones(6)[0])
    out = augment(mel, SPEC, torch.Generator().manual_seed(0))
    assert out.shape == mel.shape
    assert out.min() >= SPEC.floor_normalised - 1e-6
    assert not torch.equal(out, mel)


def test_augmentation_moves_and_hides_but_invents_nothing():
    floor = SPEC.floor_normalised
    mel = torch.full((40, 80, 64), floor)
    mel[:, 30, 10] = 1.0
    mel[:, 50] = 2.0
    out = augment(mel, SPEC, torch.Generator().manual_seed(1))
    shifts = set()
    for row in out:
        heard = (row > floor + 1e-3).nonzero()
        bins, frames = heard.unbind(1)
        # one tone all along, moved by at most two bins, and a dot at most 15 frames later
        lines = [b for b in bins.unique().tolist() if (bins == b).sum() > 1]
        assert len(lines) <= 1
        shifts |= {b - 50 for b in lines}
        for b, f in zip(bins.tolist(), frames.tolist(), strict=True):
            assert b in lines or (28 <= b <= 32 and 10 <= f <= 25)
    assert shifts == {-2, -1, 0, 1, 2}
    assert (
        0 < (out == floor).all(dim=(1, 2)).sum() + (out[:, 45:] == floor).all(dim=(1, 2)).sum() < 20
    )


def test_reports_of_one_bundle_merge_and_others_do_not():
    facts = {"bundle_sha256": "a", "steps_default": 8, "guidance_default": 2.0}
    facts |= {"machine": "m", "real": {"top1": 0.9}}
    earlier = {**facts, "measured": "2026-01-01", "text": {"top1": 0.1}, "image": {"top1": 0.2}}
    later = {**facts, "measured": "2026-01-02", "text": {"top1": 0.3}}
    assert reports.merge(earlier, later) == {**later, "image": {"top1": 0.2}}
    # a new image encoder says nothing of text queries, and makes old figures of pictures void
    facts["image_encoder_sha256"] = "i"
    newer = {**later, **facts, "image_encoder_sha256": "j"}
    with pytest.raises(InputError, match="has image_encoder_sha256 i, this one j"):
        reports.merge({**earlier, **facts}, newer)
    newer["image"] = {"top1": 0.4}
    assert reports.merge({**earlier, **facts}, newer) == newer
    with pytest.raises(InputError, match="has bundle_sha256 b, this one a"):
        reports.merge({**earlier, "bundle_sha256": "b"}, later)


FACTS = {"bundle_sha256": "a", "steps_default": 8, "guidance_default": 2.0, "cure": None}
FACTS |= {"machine": "m", "real": {"top1": 0.9}}


@pytest.mark.parametrize("fact", [{"template": ["{query}"]}, {"prior_sha256": "p"}])
def test_reports_of_other_wishes_do_not_merge(fact):
    plain, wished = {**FACTS, "text": {}}, {**FACTS, "image": {}, **fact}
    (name,) = fact
    for earlier, later in ((plain, wished), (wished, plain)):
        with pytest.raises(InputError, match=f"the earlier report has {name}"):
            reports.merge(earlier, later)
    assert reports.merge({**plain, **fact}, wished) == {**plain, **wished}


def test_merged_reports_say_with_how_many_seeds_each_section_was_measured():
    many = {**FACTS, "seeds": {"text": 8, "num_steps": 8}, "text": {}, "num_steps": {}}
    few = {**FACTS, "seeds": {"paraphrases": 1, "num_steps": 1}, "paraphrases": {}, "num_steps": {}}
    merged = reports.merge(many, few)
    assert merged["seeds"] == {"text": 8, "paraphrases": 1, "num_steps": 1}


def test_a_report_of_before_merges_as_one_of_the_defaults():
    path = Path(__file__).parents[2] / "benchmarks" / "results" / "evaluation.json"
    earlier = json.loads(path.read_text())
    later = {key: value for key, value in earlier.items() if not isinstance(value, dict)}
    later |= {"real": earlier["real"], "seeds": {"paraphrases": 1}, "paraphrases": {}}
    merged = reports.merge(earlier, later)
    assert merged == {**earlier, **later}
    # its one number is that of its last run, and not of every section
    assert merged["seeds"] == {"paraphrases": 1}


def test_the_order_of_labels_is_part_of_a_judge(judged, tmp_path):
    folder, _ = judged
    shutil.copytree(folder, tmp_path / "other")
    facts = json.loads((folder / "classifier.json").read_text())
    facts["classifier"]["labels"].reverse()
    (tmp_path / "other" / "classifier.json").write_text(json.dumps(facts))
    assert Judge(folder).fingerprint != Judge(tmp_path / "other").fingerprint


def test_markdown_shows_what_was_measured():
    scores = {"clips": 8, "top1": 0.5, "top1_interval": [0.2, 0.8], "top5": 0.75}
    report = {
        "measured": "2026-01-01",
        "machine": "a machine",
        "bundle": "tiny",
        "steps_default": 4,
        "guidance_default": 2.0,
        "concepts": 3,
        "fad_embedding": "classifier",
        "real": scores,
        "text": {**scores, "fad_generated_vs_test": 12.25, "fad_train_vs_test": 1.5},
    }
    report["text"]["provider"] = "cpu"
    text = tables.markdown(report)
    assert "| text queries | 8 | 50.0% (20–80) | 75.0% | 12.2 |" in text
    assert "Provider: text cpu." in text
    assert "| real training clips | | | | 1.5 |" in text
