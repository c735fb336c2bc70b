"""What is measured under one protocol: voices, a retrieval baseline, resynthesis, real sounds.

A system answers a ``Question`` with ``Sounds``; whatever made them, they are judged alike.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.audio import clip as audio
from clipsynth_rt.audio import limiter
from clipsynth_rt.audio import mel as runtime_mel
from clipsynth_rt.audio.clip import to_int16
from clipsynth_rt.backends import session as backends
from clipsynth_rt.backends.session import Session
from clipsynth_rt.backends.tensorrt import cuda, engines
from clipsynth_rt.bundles import manifest as manifests
from clipsynth_rt.bundles import tokenizer as tokenizers
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.errors import ClipSynthError, DataError, InputError
from clipsynth_rt.machine import describe_machine, package_version, processor_features
from clipsynth_rt.synthesis import (
    captured,
    encoders,
    images,
    renderers,
    schedule,
    sessions,
)
from clipsynth_rt.synthesis import (
    options as options_module,
)
from clipsynth_rt.synthesis import (
    samplers as sampler,
)
from clipsynth_rt.synthesis import (
    synthesizer as pipeline,
)
from clipsynth_rt.synthesis import windows as windowing
from clipsynth_rt.synthesis.encoders import Embedding
from clipsynth_rt.synthesis.options import ResolvedOptions, SynthOptions, resolve_options
from clipsynth_rt.synthesis.synthesizer import Synthesizer
from clipsynth_training import mel as training_mel
from clipsynth_training.clip.encoder import Clip
from clipsynth_training.evaluate.cache import Cache, code_version, digest
from clipsynth_training.evaluate.gap import Cure
from clipsynth_training.evaluate.protocol import LabelledClips, Progress

ANALYSIS = (training_mel, runtime_mel)
"""Code that turns waveforms into mels."""
_RUNTIME = (
    *(audio, limiter, manifests, options_module, engines, captured, encoders, images, pipeline),
    *(renderers, sampler, schedule, sessions, tokenizers, windowing),
)
"""Code of the runtime that a question's sound goes through: none asks for a loop, a loudness or a
variation. The provider's own stands in ``_computed_by``."""
LIBRARIES = {
    "cpu": ("onnxruntime", "onnxruntime-gpu"),  # either of which brings ONNX Runtime
    "openvino": ("openvino",),
    "cuda": ("onnxruntime-gpu",),
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt-rtx-cu13-bindings",),
}
"""Packages whose version decides what a provider computes."""


@dataclass(frozen=True)
class Question:
    """What every system is asked.

    Attributes:
        kind: ``text`` or ``image``.
        queries: Texts, or pictures uint8 [S, S, 3].
        target: Label index of each query.
        seeds: Clips a query, with seeds 0, 1, ...
        options: ``num_steps``, ``guidance_scale``, ``template``, ``sampler``, ``eta`` of a voice.
        cure: What is done to query embeddings against the modality gap.
    """

    kind: str
    queries: Sequence[Any]
    target: Sequence[int]
    seeds: int
    options: dict[str, Any] = field(default_factory=dict)
    cure: Cure | None = None

    @property
    def key(self) -> dict[str, Any]:
        """What decides the answer, as JSON data."""
        shown = [q if isinstance(q, str) else digest({"pixels": q.tolist()}) for q in self.queries]
        return {
            "kind": self.kind,
            "queries": shown,
            "target": list(self.target),
            "seeds": self.seeds,
            "options": self.options,
            "cure": None if self.cure is None else self.cure.fingerprint,
        }

    def with_options(self, **options: Any) -> Question:
        """Return the question with other or further options; one that is None is left out."""
        merged = self.options | options
        kept = {key: value for key, value in merged.items() if value is not None}
        return dataclasses.replace(self, options=kept)


@dataclass(frozen=True)
class Sounds:
    """A set of clips, and what they should be heard as.

    Attributes:
        audio: int16 [N, T] at full scale 32767.
        target: Label index of each clip, int64 [N]; the clips of a query follow each other.
        seconds: What making them took; 0 where nothing was made.
        key: What decided them, as JSON data.
    """

    audio: NDArray[np.int16]
    target: NDArray[np.int64]
    seconds: float
    key: dict[str, Any]

    def clips(self, rows: slice | NDArray[np.int64] = slice(None)) -> list[NDArray[np.float32]]:
        """Return waveforms of some rows, float32 [T] in [-1, 1]."""
        return list(self.audio[rows].astype(np.float32) / 32767.0)


class System(Protocol):
    """Anything that answers questions with sounds."""

    name: str

    def answer(self, question: Question, cache: Cache, progress: Progress | None) -> Sounds:
        """Return ``question.seeds`` clips for every query, in order."""


class CuredSynthesizer(Synthesizer):
    """A synthesizer whose query embeddings go through a cure first."""

    cure: Cure | None = None

    def encode_text(
        self, queries: Sequence[str], templates: Sequence[str] | None = None
    ) -> Embedding:
        """Return the cured embeddings of texts, float32 [B, D]."""
        plain = super().encode_text(queries, templates)
        return plain if self.cure is None else self.cure.text(plain)

    def encode_images(self, images: Sequence[Any]) -> Embedding:
        """Return the cured embeddings of pictures, float32 [B, D].

        A cure starts from the image tower itself: the bundle's graph may hold one already.
        """
        if self.cure is None:
            return super().encode_images(images)
        return self.cure.image(np.stack([np.asarray(image) for image in images]))

    def captures(self, plan: ResolvedOptions, *, init: bool = False) -> bool:
        """Return whether clips are one CUDA graph; it embeds texts itself, past any cure."""
        return self.cure is None and super().captures(plan, init=init)


class Voice:
    """A bundle.

    Args:
        name: What tables call it.
        bundle: The opened bundle.
        provider: Where graphs run.
    """

    def __init__(self, name: str, bundle: Bundle, provider: str = "auto") -> None:
        self.name = name
        self.synthesizer = CuredSynthesizer(bundle, provider)

    @property
    def provider(self) -> str:
        """Where the denoiser really runs."""
        return self.synthesizer.session(self.synthesizer.bundle.manifest.usual_denoiser).provider

    @property
    def facts(self) -> dict[str, Any]:
        """What training did about the modality gap, where the bundle says."""
        training = self.synthesizer.bundle.manifest.provenance.get("training", {})
        optimiser = training.get("optimiser", {})
        known = ("variant", "condition_noise")
        return {key: optimiser[key] for key in known if key in optimiser}

    def plan(self, question: Question) -> ResolvedOptions:
        """Return how a clip of ``question`` is made."""
        return resolve_options(SynthOptions(**question.options), self.synthesizer.bundle.manifest)

    def network_calls(self, question: Question) -> int:
        """Return how often a clip of ``question``, of the usual length, calls the denoiser."""
        plan = self.plan(question)
        return plan.num_steps * plan.calls_a_step

    def key(self, question: Question) -> dict[str, Any]:
        """Return what decides the answer to ``question``, as JSON data."""
        bundle, plan = self.synthesizer.bundle, self.plan(question)
        encoder = "text_encoder" if question.kind == "text" else "image_encoder"
        # another denoiser's weights change nothing in the answer
        files = graphs_fingerprint(bundle, encoder, plan.denoiser, "vocoder")
        computed = _computed_by(self.synthesizer.session(plan.denoiser))
        return {"sounds": {"voice": files, "code": RUNTIME_CODE, **computed}, **question.key}

    def answer(self, question: Question, cache: Cache, progress: Progress | None = None) -> Sounds:
        """Make the clips, or take them from the cache."""
        key = self.key(question)

        def make() -> dict[str, NDArray[Any]]:
            clips, spent = [], 0.0
            self.synthesizer.cure = question.cure
            for number, query in enumerate(question.queries):
                began = time.perf_counter()
                clips += self._ask(question, query)
                spent += time.perf_counter() - began
                if progress is not None:
                    progress(number + 1, len(question.queries))
            return {"audio": np.stack(clips), "seconds": np.array([spent])}

        found = cache.arrays(key, make)
        target = np.repeat(np.asarray(question.target, np.int64), question.seeds)
        return Sounds(found["audio"], target, float(found["seconds"][0]), key)

    def _ask(self, question: Question, query: Any) -> list[NDArray[np.int16]]:
        from PIL import Image

        batch: dict[str, Any] = {"queries": [query] * question.seeds}
        if question.kind == "image":
            batch = {"images": [Image.fromarray(query)] * question.seeds}
        seeds = list(range(question.seeds))
        made = self.synthesizer.synth_batch(**batch, seed=seeds, **question.options)
        return [to_int16(clip.waveform) for clip in made]


class Retrieval:
    """The baseline that makes nothing: the training clips whose pictures fit the query best.

    Query and pictures meet in the CLIP space; the n-th nearest clip stands in for seed n. What it
    plays is real, so it bounds how right a sound can be that comes from the nearest picture, and
    by construction it copies.

    Args:
        clip: The encoder.
        train: Training clips.
        pictures: Unit embedding of each clip's pictures, float32 [N, D]; zeros where it has none.
        fingerprint: Of encoder and clips.
    """

    name = "retrieval"

    def __init__(
        self, clip: Clip, train: LabelledClips, pictures: NDArray[np.float32], fingerprint: str
    ) -> None:
        self._clip, self._train, self._pictures = clip, train, pictures
        self.fingerprint = fingerprint
        self._shown = np.flatnonzero(np.abs(pictures).sum(axis=1) > 0)
        if len(self._shown) == 0:
            raise DataError(f"{train.shards.folder}: no clip has pictures; retrieval needs them")

    def answer(self, question: Question, cache: Cache, progress: Progress | None = None) -> Sounds:
        """Return the nearest training clips, nearest first; cures and options do not matter."""
        if question.kind == "image":
            asked = self._clip.encode_images(np.stack(question.queries)).numpy()
        else:
            templates = question.options.get("template")
            templates = [templates] if isinstance(templates, str) else templates
            asked = self._clip.encode_queries(list(question.queries), templates).numpy()
        scores = asked @ self._pictures[self._shown].T
        seeds = min(question.seeds, len(self._shown))
        nearest = self._shown[np.argsort(-scores, axis=1, kind="stable")[:, :seeds]]
        target = np.repeat(np.asarray(question.target, np.int64), seeds)
        played = {"retrieval": self.fingerprint, "code": BASELINE_CODE}
        key = {"sounds": played, **question.key}
        return Sounds(self._train.shards.audio(nearest.ravel()), target, 0.0, key)


class Real:
    """Real test clips, every one of them, whatever is asked."""

    name = "real"

    def __init__(self, test: LabelledClips, limit: int | None = None) -> None:
        self._step = 1 if limit is None else max(1, len(test.rows) // limit)
        self.test, self._rows = test, test.rows[:: self._step]
        self._target = test.target[:: self._step]

    def answer(
        self, question: Question | None, cache: Cache, progress: Progress | None = None
    ) -> Sounds:
        """Return the clips."""
        # not their number: of 20 clips every fifth and every sixth are four
        chosen = {"real": self.test.fingerprint, "every": self._step, "code": BASELINE_CODE}
        key = {"sounds": chosen}
        order = np.argsort(self._target, kind="stable")
        audio = self.test.shards.audio(self._rows[order])
        return Sounds(audio, self._target[order], 0.0, key)


class Resynthesis:
    """Real test clips as mels through a voice's vocoder: the best that any denoiser could do.

    Args:
        voice: Supplies the vocoder.
        real: The clips.
        analyse: Waveforms [B, T] to normalised mels [B, M, F].
    """

    name = "resynthesis"

    def __init__(self, voice: Voice, real: Real, analyse: Any) -> None:
        self._voice, self._real, self._analyse = voice, real, analyse

    def answer(
        self, question: Question | None, cache: Cache, progress: Progress | None = None
    ) -> Sounds:
        """Return the vocoded clips."""
        mel, made = self._real.test.shards.mel_spec, self._voice.synthesizer.bundle.manifest.mel
        if mel != made:
            raise InputError(
                f"{self._voice.name}: its vocoder reads other mels than the shards hold"
            )
        original = self._real.answer(question, cache)
        synthesizer = self._voice.synthesizer
        key = {
            "sounds": {
                "vocoded": original.key,
                "voice": graphs_fingerprint(synthesizer.bundle, "vocoder"),
                "code": [RUNTIME_CODE, BASELINE_CODE],
                **_computed_by(synthesizer.session("vocoder")),
            }
        }

        def make() -> dict[str, NDArray[Any]]:
            parts = []
            starts = range(0, len(original.audio), 16)
            for number, start in enumerate(starts):
                clips = np.stack(original.clips(slice(start, start + 16)))
                vocoded = synthesizer.vocode(self._analyse(clips))
                parts.append(to_int16(vocoded[:, : clips.shape[1]]))
                if progress is not None:
                    progress(number + 1, len(starts))
            return {"audio": np.concatenate(parts)}

        return Sounds(cache.arrays(key, make)["audio"], original.target, 0.0, key)


def graphs_fingerprint(bundle: Bundle, *graphs: str) -> str:
    """Return one hash of what decides the sounds that some graphs of a bundle make."""
    facts = bundle.manifest.to_dict()
    files = {name: files_fingerprint(bundle, only=name) for name in graphs}
    taken = {name: facts["default_precision"].get(name) for name in graphs}
    kept = {key: facts[key] for key in ("mel", "diffusion", "condition")}
    if "image_encoder" not in graphs:  # words sound alike whatever size pictures are seen at
        kept["condition"] = {k: v for k, v in kept["condition"].items() if k != "image_size"}
    return digest({"files": files, "precision": taken, **kept})


def files_fingerprint(bundle: Bundle, only: str = "", without: str = "") -> str:
    """Return one hash of the files of every graph, of one, or of all but one."""
    graphs = bundle.manifest.graphs
    names = [name for name in graphs if name != without and only in ("", name)]
    files = sorted(spec.sha256 for name in names for spec in graphs[name].files.values())
    return hashlib.sha256("".join(files).encode()).hexdigest()


def _computed_by(session: Session) -> dict[str, Any]:
    """Return what decides a graph's outputs beside its file, as JSON data.

    Products are rounded by the library and by the processor: some compute in bfloat16.
    """
    on_gpu = session.provider not in ("cpu", "openvino")
    # a GPU's clips go through several of these modules, a processor's through the session alone
    code = backends if on_gpu else inspect.getmodule(type(session))
    found: dict[str, Any] = {
        "provider": session.provider,
        "provider_code": code_version(code),
        "libraries": {name: package_version(name) for name in LIBRARIES[session.provider]},
        "machine": describe_machine(),
        "processor": processor_features(),
    }
    if on_gpu:
        with contextlib.suppress(ClipSynthError):  # ONNX Runtime needs no cuda-bindings
            found["gpu"] = cuda.open_device().name
    return found


# of these classes alone: the rest of this module changes no voice's sound
RUNTIME_CODE = code_version(*_RUNTIME, CuredSynthesizer, Voice)
BASELINE_CODE = code_version(Sounds, Retrieval, Real, Resynthesis, *ANALYSIS)
