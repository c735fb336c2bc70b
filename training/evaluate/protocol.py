"""One protocol for every system: make or take clips, hear them with the classifier, compare.

What is measured is sound, not mel spectrograms: every clip goes through its waveform, and is
analysed again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipsynth_rt.errors import DataError
from clipsynth_rt.pipeline import Synthesizer
from clipsynth_rt.spec import MelSpec
from clipsynth_rt.training.conditions import label_indices, read_labels
from clipsynth_rt.training.data.shards import ShardSet
from clipsynth_rt.training.evaluate.metrics import accuracy, frechet_distance
from clipsynth_rt.training.griffin_lim import griffin_lim_from_mel
from clipsynth_rt.training.mel import MelSpectrogram
from clipsynth_rt.training.models.classifier import SoundClassifier
from clipsynth_rt.training.train_classifier import classify, load_classifier
from clipsynth_rt.training.vocoder_metrics import measure_resynthesis

logger = logging.getLogger(__name__)

Audio = NDArray[np.float32]
Progress = Callable[[int, int], None]
Vocode = Callable[[Tensor], Tensor]


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
        checkpoint: Folder with the part ``classifier``.

    Raises:
        CheckpointError: If it cannot be read.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        self.model: SoundClassifier
        self.model, self.mel_spec = load_classifier(checkpoint)
        self.labels = self.model.config.labels
        self._mel = MelSpectrogram(self.mel_spec)

    def hear(self, clips: Sequence[Audio], target: Sequence[int]) -> Heard:
        """Classify waveforms [T], each at its peak level of 0.9 as training clips are."""
        posteriors, embeddings = [], []
        for start in range(0, len(clips), 64):
            batch = torch.from_numpy(np.stack(clips[start : start + 64]))
            peak = batch.abs().amax(dim=1, keepdim=True).clamp_min(1e-4)
            posterior, embedding = classify(self.model, self._mel(batch * (0.9 / peak)))
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

    def audio(self, rows: NDArray[np.int64]) -> list[Audio]:
        """Return waveforms of ``rows`` (indices into the shards)."""
        return list(self.shards.audio(rows).astype(np.float32) / 32767.0)


def hear_real(judge: Judge, clips: LabelledClips, limit: int | None = None) -> Heard:
    """Classify real clips, evenly thinned to at most ``limit``."""
    step = 1 if limit is None else max(1, len(clips.rows) // limit)
    parts = []
    rows, target = clips.rows[::step], clips.target[::step]
    for start in range(0, len(rows), 256):
        part = slice(start, start + 256)
        parts.append(judge.hear(clips.audio(rows[part]), target[part].tolist()))
    return Heard(*(np.concatenate([getattr(p, f) for p in parts]) for f in Heard.__annotations__))


def hear_queries(
    judge: Judge,
    synthesizer: Synthesizer,
    queries: Sequence[str] | Sequence[Any],
    target: Sequence[int],
    *,
    kind: str,
    seeds: int,
    progress: Progress | None = None,
    **wishes: Any,
) -> tuple[Heard, float]:
    """Make ``seeds`` clips for each query, and classify them.

    Args:
        judge: The classifier.
        synthesizer: The voice.
        queries: Texts, or pictures (paths or PIL images), one a concept and seed group.
        target: Label index of each query.
        kind: ``text`` or ``image``.
        seeds: Clips a query, with seeds 0, 1, ...
        progress: Called with (queries done, queries in all).
        **wishes: ``steps``, ``guidance``, ``template``, ... of ``Synthesizer.synth_batch``.

    Returns:
        What was heard, and the real-time factor of making it.
    """
    clips: list[Audio] = []
    spent = 0.0
    for number, query in enumerate(queries):
        began = time.perf_counter()
        batch = {"queries" if kind == "text" else "images": [query] * seeds}
        made = synthesizer.synth_batch(**batch, seed=list(range(seeds)), **wishes)
        spent += time.perf_counter() - began
        clips += [clip.waveform for clip in made]
        if progress is not None:
            progress(number + 1, len(queries))
    seconds = len(clips) * len(clips[0]) / judge.mel_spec.sample_rate
    return judge.hear(clips, np.repeat(target, seeds).tolist()), spent / seconds


def resynthesis(
    judge: Judge, synthesizer: Synthesizer, clips: LabelledClips, limit: int
) -> dict[str, Any]:
    """Return how real test clips survive mel -> sound: the bundle's vocoder and Griffin-Lim."""
    step = max(1, len(clips.rows) // limit)
    rows, target = clips.rows[::step][:limit], clips.target[::step][:limit].tolist()
    real = torch.from_numpy(np.stack(clips.audio(rows)))
    analysis = MelSpectrogram(judge.mel_spec)
    report: dict[str, Any] = {
        "clips": len(rows),
        "real_top1": judge.hear(list(real.numpy()), target).scores(judge.labels)["top1"],
    }

    def ours(mel: Tensor) -> Tensor:
        return torch.from_numpy(synthesizer.vocode(mel.numpy()))

    def baseline(mel: Tensor) -> Tensor:
        return griffin_lim_from_mel(mel, analysis, iterations=60)

    for name, vocode in (("vocoder", ours), ("griffin_lim_60", baseline)):
        made: list[Tensor] = []

        def keep(mel: Tensor, vocode: Vocode = vocode, made: list[Tensor] = made) -> Tensor:
            made.append(vocode(mel))
            return made[-1]

        measured = measure_resynthesis(real, keep, analysis)
        heard = judge.hear(list(torch.cat(made).numpy()), target)
        report[name] = {**measured, "top1": heard.scores(judge.labels)["top1"]}
    return report


def distances(generated: Heard, real_test: Heard, real_train: Heard) -> dict[str, float]:
    """Return Fréchet distances under the classifier's embedding ("FAD, corpus classifier")."""
    return {
        "fad_generated_vs_test": frechet_distance(generated.embedding, real_test.embedding),
        "fad_train_vs_test": frechet_distance(real_train.embedding, real_test.embedding),
    }
