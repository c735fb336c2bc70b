"""One protocol for every system: real clips with labels, and the classifier that hears all clips.

What is measured is sound, not mel spectrograms: every clip goes through its waveform, and is
analysed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.errors import DataError
from clipsynth_training.classifier.network import SoundClassifier
from clipsynth_training.classifier.train import HEARD_PEAK, classify, load_classifier
from clipsynth_training.data.shards import ShardSet
from clipsynth_training.denoiser.conditions import label_indices, read_labels
from clipsynth_training.evaluate.cache import digest, file_hash
from clipsynth_training.evaluate.measures.metrics import accuracy
from clipsynth_training.mel import MelSpectrogram

Audio = NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Heard:
    """A set of clips as the classifier hears it: posteriors, embeddings and right labels."""

    posterior: NDArray[np.float32]
    embedding: NDArray[np.float32]
    target: NDArray[np.int64]

    def scores(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return accuracy; see ``metrics.accuracy``."""
        return accuracy(self.posterior, self.target, labels)


class Judge:
    """The corpus classifier, applied to waveforms.

    Args:
        checkpoint: Folder with the component ``classifier``.

    Attributes:
        fingerprint: Hash of the weights, and of the JSON that says in which order labels are and
            which mels are heard.

    Raises:
        CheckpointError: If it cannot be read.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        self.model: SoundClassifier
        self.model, self.mel_spec = load_classifier(checkpoint)
        self.labels = self.model.config.labels
        files = [Path(checkpoint) / f"classifier.{end}" for end in ("safetensors", "json")]
        self.fingerprint = digest({path.name: file_hash(path) for path in files})
        self._mel = MelSpectrogram(self.mel_spec)

    def hear(self, clips: Sequence[Audio], target: Sequence[int]) -> Heard:
        """Classify waveforms [T], each at the peak ``HEARD_PEAK``."""
        posteriors, embeddings = [], []
        for start in range(0, len(clips), 64):
            batch = torch.from_numpy(np.stack(clips[start : start + 64]))
            peak = batch.abs().amax(dim=1, keepdim=True).clamp_min(1e-4)
            posterior, embedding = classify(self.model, self._mel(batch * (HEARD_PEAK / peak)))
            posteriors.append(posterior.numpy())
            embeddings.append(embedding.numpy())
        return Heard(np.concatenate(posteriors), np.concatenate(embeddings), np.asarray(target))


@dataclass(frozen=True)
class LabelledClips:
    """Real clips with labels: a shard folder beside a ``labels.csv``."""

    shards: ShardSet
    rows: NDArray[np.int64]
    target: NDArray[np.int64]

    @classmethod
    def open(
        cls, folder: str | Path, labels_csv: str | Path, labels: Sequence[str], spec: MelSpec
    ) -> LabelledClips:
        """Read the clips whose concept is one of ``labels``.

        Raises:
            DataError: If there is none.
        """
        shards = ShardSet.open(folder, spec)
        target = np.array(label_indices(shards.ids, read_labels(labels_csv), labels))
        rows = np.flatnonzero(target >= 0)
        if len(rows) == 0:
            raise DataError(f"{folder}: {labels_csv} labels none of its clips")
        return cls(shards, rows, target[rows])

    @property
    def fingerprint(self) -> str:
        """One hash of which clips these are; of files, their size and time of change stand in."""
        files = sorted(self.shards.folder.glob("*.safetensors"))
        stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
        rows = {"rows": self.rows.tolist(), "target": self.target.tolist()}
        return digest({"ids": self.shards.ids, "files": stats, **rows})

    def audio(self, rows: NDArray[np.int64]) -> list[Audio]:
        """Return waveforms of ``rows`` (indices into the shards)."""
        return list(self.shards.audio(rows).astype(np.float32) / 32767.0)

    def of(self, labels: Sequence[int]) -> LabelledClips:
        """Return the clips of some labels; all if there are none.

        Raises:
            DataError: If there is no such clip.
        """
        if not labels:
            return self
        kept = np.isin(self.target, labels)
        if not kept.any():
            raise DataError(f"{self.shards.folder}: no clip is of the chosen concepts")
        return LabelledClips(self.shards, self.rows[kept], self.target[kept])

    def thinned(self, limit: int | None) -> LabelledClips:
        """Return at most about ``limit`` of the clips, evenly spread; all if None."""
        step = 1 if limit is None else max(1, len(self.rows) // limit)
        return LabelledClips(self.shards, self.rows[::step], self.target[::step])


def picture_queries(
    test: LabelledClips, labels: Sequence[str]
) -> tuple[list[NDArray[np.uint8]], list[int]]:
    """Return one test picture, uint8 [S, S, 3], of each concept that has any, and its label index.

    Raises:
        DataError: If no test clip has a picture.
    """
    pictures, targets = [], []
    for index in range(len(labels)):
        for row in test.rows[test.target == index]:
            frame = test.shards.frames([int(row)])[0, 0]
            if frame.max() > 0:
                pictures.append(np.asarray(frame))
                targets.append(index)
                break
    if not pictures:
        raise DataError("no test clip has a picture; leave the section image out")
    return pictures, targets


def concatenate(parts: Sequence[Heard]) -> Heard:
    """Return several sets of clips as one."""
    return Heard(*(np.concatenate([getattr(p, f) for p in parts]) for f in Heard.__annotations__))
