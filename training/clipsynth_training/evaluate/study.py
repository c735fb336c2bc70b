"""What a whole evaluation shares: real clips, the judge, embedders, the cache; and the figures."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clipsynth_rt.bundles.manifest import encode
from clipsynth_rt.errors import InputError
from clipsynth_training import checkpoint as checkpoints
from clipsynth_training.classifier import network as classifier
from clipsynth_training.classifier import train as train_classifier
from clipsynth_training.clip.encoder import Clip, load_clip
from clipsynth_training.clip.frame_embeddings import embed_frames
from clipsynth_training.denoiser.conditions import check_all_heard
from clipsynth_training.evaluate import protocol
from clipsynth_training.evaluate.cache import Cache, code_version, digest
from clipsynth_training.evaluate.gap import Clouds, encoder_fingerprint
from clipsynth_training.evaluate.measures import embedders as embedding
from clipsynth_training.evaluate.measures import intervals, metrics
from clipsynth_training.evaluate.measures.embedders import Clap, Embedder
from clipsynth_training.evaluate.protocol import Heard, Judge, LabelledClips, Progress
from clipsynth_training.evaluate.systems import ANALYSIS, Question, Real, Retrieval, Sounds, System
from clipsynth_training.mel import MelSpectrogram

TRAIN_LIMIT = 2500
"""Training clips that a Fréchet distance of training to test clips is measured on."""
_HEARING = (protocol, train_classifier, checkpoints, classifier, *ANALYSIS)
HEARING_CODE = code_version(*_HEARING)
EMBEDDING_CODE = code_version(embedding, *ANALYSIS)
# this module, too: it chooses and names the figures
METRIC_CODE = code_version(sys.modules[__name__], metrics, intervals, embedding, *_HEARING)


@dataclass
class Study:
    """Everything that the sections of an evaluation measure with.

    Attributes:
        judge: The corpus classifier.
        test, train: Real clips.
        encoder: Checkpoint folder or open_clip model of the CLIP encoder.
        cache: Where results are kept.
        embedders: Further embeddings for Fréchet distances; CLAP gives a CLAP score too.
        progress: Told of queries done and queries in all.
        concepts: Labels that are asked for, as indices; all if empty.
    """

    judge: Judge
    test: LabelledClips
    train: LabelledClips
    encoder: str | Clip
    cache: Cache = field(default_factory=Cache)
    embedders: Sequence[Embedder] = ()
    progress: Progress | None = None
    concepts: Sequence[int] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classifier's labels."""
        return self.judge.labels

    @functools.cached_property
    def real(self) -> Heard:
        """The real test clips as heard."""
        return self.hear(Real(self.test).answer(None, self.cache))

    @functools.cached_property
    def real_train(self) -> Heard:
        """Training clips as heard, thinned: what FAD of real to real needs."""
        return self._hear_labelled(self.train.of(self.concepts).thinned(TRAIN_LIMIT))

    @functools.cached_property
    def all_train(self) -> Heard:
        """Every training clip as heard: what might have been memorised."""
        return self._hear_labelled(self.train)

    @functools.cached_property
    def clip(self) -> Clip:
        """The CLIP encoder."""
        return self.encoder if isinstance(self.encoder, Clip) else load_clip(self.encoder)

    @functools.cached_property
    def train_pictures(self) -> NDArray[np.float32]:
        """Unit mean embedding of each training clip's pictures [N, D]; zeros where it has none."""
        image, shown = embed_frames(self.train.shards, self.clip)
        mean = image.mean(dim=1).numpy()
        mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-6)
        return np.asarray(mean * shown.numpy()[:, None], np.float32)

    @functools.cached_property
    def clouds(self) -> Clouds:
        """The corpus's embeddings in both modalities, of labelled training clips with pictures."""
        pictures = self.train_pictures[self.train.rows]
        shown = np.abs(pictures).sum(axis=1) > 0
        texts = self.clip.encode_queries(list(self.labels)).numpy()
        return Clouds(pictures[shown], texts, self.train.target[shown])

    def analyse(self, clips: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return normalised mels [B, M, F] of waveforms [B, T]."""
        with torch.inference_mode():
            mel = MelSpectrogram(self.judge.mel_spec)(torch.from_numpy(clips))
            return np.asarray(mel.numpy(), np.float32)

    def retrieval(self) -> Retrieval:
        """Return the retrieval baseline."""
        fingerprint = digest(
            {"train": self.train.fingerprint, "encoder": encoder_fingerprint(self.clip)}
        )
        return Retrieval(self.clip, self.train, self.train_pictures, fingerprint)

    def question(self, kind: str, seeds: int, **options: Any) -> Question:
        """Return the question after every concept: by its name, or by one picture of a test clip.

        Raises:
            DataError: If pictures are asked for and no test clip has one.
        """
        chosen = list(self.concepts) or list(range(len(self.labels)))
        if kind == "text":
            names = [self.labels[index] for index in chosen]
            return Question("text", names, chosen, seeds, options)
        pictures, targets = protocol.picture_queries(self.test, self.labels)
        kept = [i for i, target in enumerate(targets) if target in chosen]
        if not kept:
            raise InputError("none of the chosen concepts has a test picture; choose more concepts")
        chosen_pictures = [pictures[i] for i in kept]
        return Question("image", chosen_pictures, [targets[i] for i in kept], seeds, options)

    def hear(self, sounds: Sounds) -> Heard:
        """Classify clips."""
        return self._heard(sounds.key, sounds.target, sounds.clips)

    def ask(self, system: System, question: Question, *, full: bool = False) -> dict[str, Any]:
        """Return a system's figures on a question; see ``figures``."""
        sounds = system.answer(question, self.cache, self.progress)
        return self.figures(sounds, full=full)

    def figures(self, sounds: Sounds, *, full: bool = False) -> dict[str, Any]:
        """Return every figure of a set of clips, each beside its 95% interval.

        Args:
            sounds: The clips.
            full: With memorisation, which hears every training clip.
        """
        key = {
            "figures": sounds.key,
            "judge": self.judge.fingerprint,
            "test": self.test.fingerprint,
            "train": self.train.fingerprint,
            "embedders": [[e.name, e.fingerprint] for e in self.embedders],
            "full": full,
            "code": METRIC_CODE,
        }
        return self.cache.json(key, lambda: self._figures(sounds, full))

    def _figures(self, sounds: Sounds, full: bool) -> dict[str, Any]:
        heard = self.hear(sounds)
        found = heard.scores(self.labels)
        found |= self._distance("fad_generated_vs_test", self._reference, heard.embedding)
        found |= self._distance("kad_generated_vs_test", self._kernel_reference, heard.embedding)
        found["fad_train_vs_test"] = self._train_distance
        divergence = metrics.posterior_divergence(heard.posterior, heard.target, self._posteriors)
        if len(divergence):
            found |= metrics.mean_and_interval("kl", divergence)
        found |= metrics.retrieval(heard.posterior, heard.target)
        diversity = metrics.seed_diversity(heard.embedding, heard.target)
        if len(diversity):
            found |= metrics.mean_and_interval("diversity", diversity)
            real = metrics.seed_diversity(self.real.embedding, self.real.target)
            found["diversity_real"] = float(real.mean()) if len(real) else None
        if full:
            train = self.all_train.embedding
            found |= metrics.memorisation(heard.embedding, self.real.embedding, train)
        for embedder in self.embedders:
            name = "mel" if embedder.name == "inception" else embedder.name
            fad = "fid_mel" if embedder.name == "inception" else f"fad_{embedder.name}"
            vectors = self._embed(embedder, sounds)
            known = self._embed(embedder, Real(self.test).answer(None, self.cache))
            found |= self._distance(fad, metrics.FrechetReference(known), vectors)
            found |= self._distance(f"kad_{name}", metrics.KernelReference(known), vectors)
            if isinstance(embedder, Clap):
                texts = embedder.embed_texts([self.labels[index] for index in sounds.target])
                found |= metrics.mean_and_interval("clap_score", (vectors * texts).sum(axis=1))
        return found

    def distances(
        self,
        made: Sequence[NDArray[np.float32]],
        real: Sequence[NDArray[np.float32]],
        sample_rate: int,
    ) -> dict[str, float]:
        """Return FAD and KAD between two sets of sounds, by the judge and by every embedder."""
        heard_rate = self.judge.mel_spec.sample_rate

        def by_judge(sounds: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
            at_rate = embedding.resampled(sounds, sample_rate, heard_rate)
            return self.judge.hear(at_rate, [0] * len(at_rate)).embedding

        def by(embedder: Embedder, sounds: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
            return embedder.embed(sounds, sample_rate)

        ways: dict[str, Callable[[Sequence[NDArray[np.float32]]], NDArray[np.float32]]] = {
            "judge": by_judge,
            **{embedder.name: functools.partial(by, embedder) for embedder in self.embedders},
        }
        found: dict[str, float] = {}
        for name, embed in ways.items():
            vectors, reference = embed(made), embed(real)
            found[f"fad_{name}"] = metrics.frechet_distance(reference, vectors)
            found[f"kad_{name}"] = metrics.KernelReference(reference).distance(vectors)
        return found

    @staticmethod
    def _distance(
        name: str,
        reference: metrics.FrechetReference | metrics.KernelReference,
        embedding: NDArray[np.float32],
    ) -> dict[str, Any]:
        value = reference.distance(embedding)
        return {name: value, f"{name}_interval": reference.interval(embedding, value)}

    @functools.cached_property
    def _reference(self) -> metrics.FrechetReference:
        return metrics.FrechetReference(self.real.embedding)

    @functools.cached_property
    def _kernel_reference(self) -> metrics.KernelReference:
        return metrics.KernelReference(self.real.embedding)

    @functools.cached_property
    def _posteriors(self) -> NDArray[np.float64]:
        return metrics.mean_posteriors(self.real.posterior, self.real.target)

    @functools.cached_property
    def _train_distance(self) -> float:
        return self._reference.distance(self.real_train.embedding)

    def _embed(self, embedder: Embedder, sounds: Sounds) -> NDArray[np.float32]:
        spec = self.judge.mel_spec
        key = {
            "embedded": sounds.key,
            "embedder": [embedder.name, embedder.fingerprint],
            "mel": encode(spec),
            "code": EMBEDDING_CODE,
        }

        def make() -> dict[str, NDArray[Any]]:
            return {"embedding": embedder.embed(sounds.clips(), spec.sample_rate)}

        return self.cache.arrays(key, make)["embedding"]

    def _hear_labelled(self, clips: LabelledClips) -> Heard:
        """Hear real clips without holding all their sound in memory."""
        return self._heard(
            clips.fingerprint, clips.target, lambda part: clips.audio(clips.rows[part])
        )

    def _heard(
        self,
        source: Any,
        target: NDArray[np.int64],
        read: Callable[[slice], list[NDArray[np.float32]]],
    ) -> Heard:
        key = {"heard": source, "judge": self.judge.fingerprint, "code": HEARING_CODE}

        def make() -> dict[str, NDArray[Any]]:
            parts = []
            for start in range(0, len(target), 256):
                part = slice(start, start + 256)
                parts.append(self.judge.hear(read(part), target[part].tolist()))
            heard = protocol.concatenate(parts)
            return {"posterior": heard.posterior, "embedding": heard.embedding}

        found = self.cache.arrays(key, make)
        return Heard(found["posterior"], found["embedding"], target)


def open_study(
    checkpoint: str | Path,
    shards: str | Path,
    labels_csv: str | Path,
    *,
    encoder: str | None = None,
    concept_count: int | None = None,
    **rest: Any,
) -> Study:
    """Open what a study measures with.

    Args:
        checkpoint: Folder with the classifier, and the encoder if ``encoder`` is None.
        shards: Folder with the shard folders ``train`` and ``test``.
        labels_csv: The corpus's labels.
        encoder: Checkpoint folder or open_clip model.
        concept_count: Ask for this many concepts only, evenly spread; all if None.
        **rest: See ``Study``.

    Raises:
        ClipSynthError: If one of them cannot be used.
    """
    judge = Judge(checkpoint)
    test, train = (
        LabelledClips.open(Path(shards) / split, labels_csv, judge.labels, judge.mel_spec)
        for split in ("test", "train")
    )
    chosen: list[int] = []
    if concept_count is not None:
        count = min(concept_count, len(judge.labels))
        chosen = np.linspace(0, len(judge.labels) - 1, count).round().astype(int).tolist()
    # real and generated sounds are of the same concepts, or their distance would say little
    asked = chosen or range(len(judge.labels))
    for clips in (test, train):
        check_all_heard(clips.target, [judge.labels[n] for n in asked], asked)
    return Study(judge, test.of(chosen), train, encoder or str(checkpoint), concepts=chosen, **rest)
