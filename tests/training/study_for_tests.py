"""A corpus, an encoder and a judge of a few kilobytes, for the tiny bundle."""

import csv
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

from clipsynth_rt.bundles.manifest import encode
from clipsynth_training.checkpoint import save_component
from clipsynth_training.classifier.network import ClassifierConfig, SoundClassifier
from clipsynth_training.clip.encoder import Clip
from clipsynth_training.data.shards import ShardWriter
from clipsynth_training.mel import MelSpectrogram

LABELS = ("drum", "dog", "rain", "piano", "snare drum", "bird")
SAMPLES = 44 * 256


class TinyTower(nn.Module):
    """Mean of fixed vectors of what is read, of unit length."""

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(inputs, dim))

    def forward(self, x, mask=None):
        if mask is not None:
            rows = (self.table[x] * mask[..., None]).sum(1)
        else:
            rows = x.mean(dim=(2, 3)) @ self.table + 0.1
        return nn.functional.normalize(rows, dim=-1)


def tiny_clip(bundle: Path) -> Clip:
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.no_padding()
    return Clip(
        name="tiny",
        text_tower=TinyTower(tokenizer.get_vocab_size(), 4),
        image_tower=TinyTower(3, 4),
        tokenizer=tokenizer,
        dim=4,
        image_size=16,
        context_length=12,
        templates=("a photo of {query}", "the sound of {query}"),
    )


def write_judge(folder: Path, spec) -> Path:
    """Save a classifier of random weights that fits the tiny bundle's eight mel bins."""
    torch.manual_seed(0)
    config = ClassifierConfig(labels=LABELS, n_mels=spec.n_mels, channels=(8,), embedding=6)
    model = SoundClassifier(config)
    facts = {"classifier": encode(config), "mel": encode(spec)}
    save_component(folder, "classifier", model.state_dict(), facts)
    return folder


def write_corpus(folder: Path, spec, clips_a_label: int = 3) -> tuple[Path, Path]:
    """Write the splits train and test, and labels.csv; each label has its own tone and colour."""
    generator = np.random.default_rng(0)
    time = np.arange(SAMPLES) / spec.sample_rate
    rows = []
    for split in ("train", "test"):
        writer = ShardWriter(folder / split, spec, shard_size=8)
        for number, label in enumerate(LABELS):
            for take in range(clips_a_label):
                hz = 200 * (number + 1) * generator.uniform(0.9, 1.1)
                sound = 0.9 * np.sin(2 * np.pi * hz * time) * np.exp(-3 * time)
                audio = np.round(sound * 32767).astype(np.int16)[None]
                mel = MelSpectrogram(spec)(torch.from_numpy(sound[None].astype(np.float32)))
                colour = np.array([40 * number + 20, 200 - 30 * number, 100], np.uint8)
                frames = np.broadcast_to(colour, (1, 2, 16, 16, 3)).copy()
                id_ = f"{split}-{number}-{take}"
                writer.add([id_], mel.numpy(), frames, audio)
                rows.append({"id": id_, "concept": label})
        writer.flush()
    labels = folder / "labels.csv"
    with labels.open("w", newline="") as file:
        out = csv.DictWriter(file, ["id", "concept"])
        out.writeheader()
        out.writerows(rows)
    return folder, labels
