"""From a query to a sound: ``Synthesizer.from_bundle().synth("drum")``."""

from __future__ import annotations

import logging
import operator
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count as count_from
from pathlib import Path
from typing import TYPE_CHECKING, Self, SupportsIndex, Unpack

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.audio.clip import PEAK, AudioClip, finish, limit_peaks
from clipsynth_rt.audio.load import load_sound
from clipsynth_rt.audio.loudness import normalise_loudness
from clipsynth_rt.audio.mel import mel_spectrogram, min_samples
from clipsynth_rt.backends.session import Choice, Session
from clipsynth_rt.background import BackgroundIterator
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.bundles.manifest import DENOISER
from clipsynth_rt.errors import InputError
from clipsynth_rt.synthesis.cancel import Cancel as Cancel
from clipsynth_rt.synthesis.cancel import EitherCancel
from clipsynth_rt.synthesis.cancel import check_cancel as check_cancel
from clipsynth_rt.synthesis.encoders import Embedding, Encoders, Tokens
from clipsynth_rt.synthesis.options import (
    MAX_DURATION_S,
    ResolvedOptions,
    SynthKwargs,
    SynthOptions,
    check_query,
    resolve_options,
)
from clipsynth_rt.synthesis.renderers import (
    ClipBatch,
    HostRenderer,
    Renderer,
    Waveforms,
    sampling_windows,
)
from clipsynth_rt.synthesis.samplers import Mel, Progress
from clipsynth_rt.synthesis.schedule import check_seed
from clipsynth_rt.synthesis.sessions import MAX_BATCH as MAX_BATCH
from clipsynth_rt.synthesis.sessions import Sessions, open_sessions
from clipsynth_rt.synthesis.windows import Windows
from clipsynth_rt.timing import StageTimer

if TYPE_CHECKING:
    from PIL.Image import Image

    from clipsynth_rt.backends.tensorrt.backend import TrtBackend
    from clipsynth_rt.synthesis.captured import CapturedRenderer

logger = logging.getLogger(__name__)

MAX_PREFETCH = 64
"""Finished clips that ``stream`` holds at most."""


class Synthesizer:
    """Turns text or pictures into sound.

    The stages (``encode_text``, ``encode_images``, ``sample``, ``vocode``) can be called apart.
    Several threads may share a synthesizer, and each clip is the one that its query and seed give.
    It is a context manager, which gives sessions and device memory back in the end.

    Args:
        bundle: An opened bundle.
        provider: See ``open_sessions``.
        precision: See ``Bundle.graph``.
        threads: CPU threads; None is one for each physical core.
        sessions: The bundle's graphs, in place of those that the three above describe.

    Raises:
        ClipSynthError: As ``open_sessions``.

    >>> with Synthesizer.from_bundle(provider="cpu") as synthesizer:
    ...     clip = synthesizer.synth("drum", duration=0.5, num_steps=1, seed=3)
    >>> clip.query, clip.seed, clip.sample_rate, clip.waveform.shape
    ('drum', 3, 22050, (11025,))
    """

    def __init__(
        self,
        bundle: Bundle,
        provider: str = "auto",
        precision: str | Mapping[str, str] | None = None,
        threads: int | None = None,
        *,
        sessions: Sessions | None = None,
    ) -> None:
        self.bundle = bundle
        self.sessions = sessions or open_sessions(bundle, provider, precision, threads)
        self._encoders = Encoders(self.sessions)
        self._host = HostRenderer(self.sessions)
        engines = self.sessions.engines
        self._captured: CapturedRenderer | None = None
        if engines is not None:
            from clipsynth_rt.synthesis.captured import CapturedRenderer

            self._captured = CapturedRenderer(engines)

    @classmethod
    def from_bundle(
        cls,
        path: str | Path | None = None,
        provider: str = "auto",
        precision: str | Mapping[str, str] | None = None,
        threads: int | None = None,
        graphs: Sequence[str] | None = None,
    ) -> Synthesizer:
        """Open a bundle and load ``graphs``; any other is loaded when it is first needed.

        Args:
            path: A folder, an archive or an ``hf://`` address: see ``Bundle.open``.
            provider: See ``open_sessions``.
            precision: See ``Bundle.graph``.
            threads: See ``open_sessions``.
            graphs: What to load now; None is what a plain text query runs. See ``load_for``.

        Raises:
            BundleError: If the bundle or one of its files cannot be used.
            ClipSynthError: As ``open_sessions``.
        """
        synthesizer = cls(Bundle.open(path), provider, precision, threads)
        if graphs is None:
            synthesizer.load_for()
        else:
            synthesizer.load(graphs)
        return synthesizer

    def load_for(
        self, *, image: bool = False, init: bool = False, **options: Unpack[SynthKwargs]
    ) -> None:
        """Load the graphs that a kind of sound runs, and no other.

        Args:
            image: Whether it is made from a picture.
            init: Whether it is a variation of a given sound.
            **options: See ``synth``.

        Raises:
            InputError: If an option is unknown or out of range.
            BundleError: If a file cannot be used.
            BackendError: If a graph cannot be loaded.
        """
        resolved = resolve_options(
            SynthOptions.of(options), self.bundle.manifest, 1.0 if init else None
        )
        encoder = "image_encoder" if image else "text_encoder"
        self.load((encoder, resolved.denoiser, "vocoder"))

    def synth(
        self,
        query: str | None = None,
        *,
        seed: SupportsIndex = 0,
        image: str | Path | Image | None = None,
        init: str | Path | AudioClip | None = None,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        **options: Unpack[SynthKwargs],
    ) -> AudioClip:
        """Make one sound from a text, or from a picture in its place.

        Args:
            query: What to hear.
            seed: Any integer, from 0 to 2**64 - 1; the same seed gives the same noise everywhere.
            image: A picture in place of ``query``.
            init: A sound to make a variation of, by ``strength``; its length is the result's
                where no ``duration`` is given.
            progress: Called with (steps done, steps in all). What it raises ends the synthesis.
            cancel: Looked at between network calls.
            **options: ``duration``, ``num_steps``, ``guidance_scale``, ``eta``, ``negative``,
                ``template``, ``sampler``, ``strength``, ``loop``, ``lufs``, ``denoiser``: the
                fields of ``SynthOptions``.

        Raises:
            InputError: If a value is out of range, or both or neither of text and image is given.
            NumericalError: If a graph gives what is not finite.
            BundleError: If a graph needed for the first time cannot be loaded.
            MissingExtraError: If an option needs a library that is not installed.
            CancelledError: If ``cancel`` is set.
        """
        if (query is None) == (image is None):
            raise InputError("give a query or an image, one of the two")
        if query is not None:
            check_query(query)
        return self.synth_batch(
            [] if query is None else [query],
            images=[] if image is None else [image],
            init=init,
            seed=seed,
            progress=progress,
            cancel=cancel,
            **options,
        )[0]

    def synth_batch(
        self,
        queries: Sequence[str] = (),
        *,
        images: Sequence[str | Path | Image] = (),
        init: str | Path | AudioClip | None = None,
        seed: SupportsIndex | Iterable[SupportsIndex] = 0,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        **options: Unpack[SynthKwargs],
    ) -> list[AudioClip]:
        """Make a sound for each of several queries, or of several pictures.

        A clip is the one that ``synth`` gives for its query and seed, but for float rounding.

        Args:
            queries: Texts.
            images: Pictures, in place of texts.
            init: One sound that all clips are variations of; see ``synth``.
            seed: One a clip, such as an array of integers; a single number gives the i-th clip
                ``seed + i``.
            progress: Called with (steps done, steps in all). What it raises ends the synthesis.
            cancel: Looked at between network calls; on engines, where a clip is one CUDA graph,
                between batches of clips.
            **options: What all clips share: the fields of ``SynthOptions``.

        Raises:
            ClipSynthError: As ``synth``.
        """
        if isinstance(queries, str):
            raise InputError("synth_batch takes a list of queries; for one, use synth")
        if bool(queries) == bool(images):
            raise InputError("give queries or images, one of the two")
        count = len(queries) or len(images)
        seeds = _seeds(seed, count)
        init_sound = None if init is None else self._load_init(init)
        resolved = self._resolve(options, init_sound)
        check_cancel(cancel)
        timer = StageTimer()

        # 1. encode what to hear, what to steer away from and what to start from
        with timer.stage("text"):
            init_mel = None
            if init_sound is not None:
                init_mel = mel_spectrogram(init_sound, self.bundle.manifest.mel)
            renderer = self._renderer(resolved, init=init_mel is not None)
            prompts, condition = self._condition(queries, images, resolved, renderer)
            negative = self._negative(resolved)

        clips: list[AudioClip] = []
        for first in range(0, count, self.max_batch):
            rows = slice(first, min(first + self.max_batch, count))
            check_cancel(cancel)
            batch_timer = StageTimer()
            tokens = None
            if prompts:
                with batch_timer.stage("prepare"):
                    tokens = self.tokenize(prompts[rows])
            batch = ClipBatch(
                resolved=resolved,
                seeds=seeds[rows],
                condition=condition[rows],
                tokens=tokens,
                negative=negative,
                init=init_mel,
                progress=_batch_progress(progress, rows, count),
                cancel=cancel,
            )
            # 2. sample mels from noise, and 3. vocode them
            waveforms = renderer.render(batch, batch_timer)
            # 4. cut to length, limit peaks, set the loudness
            clips += self._finish(waveforms, batch, batch_timer)
            check_cancel(cancel)

        names = list(queries) or [_image_name(image) for image in images]
        for clip, name in zip(clips, names, strict=True):
            clip.query = name
            clip.stages_s = {"text": timer.stages_s["text"] / count, **clip.stages_s}
        return clips

    def stream(
        self,
        queries: Iterable[str],
        *,
        seed: SupportsIndex = 0,
        prefetch: int = 1,
        init: str | Path | AudioClip | None = None,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        **options: Unpack[SynthKwargs],
    ) -> BackgroundIterator[AudioClip]:
        """Make sounds one after the other, the next ones while the caller uses the last.

        A background thread works ahead from the call on, on every provider. An error comes where
        its clip would have come, and ends the stream. Close the stream, or use it in a ``with``
        block, to leave it early.

        >>> with Synthesizer.from_bundle(provider="cpu") as synthesizer:
        ...     with synthesizer.stream(["drum", "dog"], num_steps=1, duration=0.25) as stream:
        ...         for clip in stream:
        ...             print(clip.query, clip.seed)
        drum 0
        dog 1

        Args:
            queries: Texts; as many as are needed are taken from it, in the background.
            seed: The i-th clip gets ``seed + i``.
            prefetch: Finished clips that wait at most, 1 to ``MAX_PREFETCH``; one more is in the
                making.
            init: See ``synth_batch``.
            progress: Called from the background with (steps done, steps in all) of each clip.
            cancel: Looked at between network calls.
            **options: See ``synth_batch``.

        Returns:
            An iterator, in the order of the queries.

        Raises:
            InputError: At once, if the seed or an option is out of range.
            ClipSynthError: From the iterator, as ``synth``.
        """
        if isinstance(queries, str):
            raise InputError("stream takes a list of queries; for one, use synth")
        if not 1 <= prefetch <= MAX_PREFETCH:
            raise InputError(f"prefetch must be from 1 to {MAX_PREFETCH}, got {prefetch}")
        # what is wrong for every clip is said before there is a thread
        first = check_seed(seed)
        self._resolve(options, None)

        def make(stop: threading.Event) -> Iterator[AudioClip]:
            either = EitherCancel(stop, cancel)
            for number, query in zip(count_from(first), queries):
                yield self.synth(
                    query, seed=number, init=init, progress=progress, cancel=either, **options
                )

        return BackgroundIterator(make, prefetch)

    def warm_up(self, **options: Unpack[SynthKwargs]) -> None:
        """Make and discard one sound, so that the next of its kind takes no longer than any other.

        On engines this builds what is not built and captures the clip's CUDA graph.

        Raises:
            ClipSynthError: As ``synth``.
        """
        self.synth_batch(["sound"], **options)

    def encode_text(
        self, queries: Sequence[str], templates: Sequence[str] | None = None
    ) -> Embedding:
        """Return CLIP text embeddings, float32 [B, D], of unit length.

        The embedding of a query in several templates is their normalised mean (Radford et al.
        2021, arXiv:2103.00020, section 3.1.4).

        Raises:
            InputError: If a query is blank.
            NumericalError: If an embedding is not finite.
        """
        return self._encoders.encode_text(queries, templates)

    def encode_images(self, images: Sequence[str | Path | Image]) -> Embedding:
        """Return CLIP image embeddings, float32 [B, D], of unit length.

        Raises:
            InputError: If a picture cannot be read, or the bundle has no image encoder.
            NumericalError: If an embedding is not finite.
        """
        return self._encoders.encode_images(images)

    def tokenize(self, prompts: Sequence[str]) -> Tokens:
        """Return ids and attention mask of prompts, both int64 [B, L].

        Raises:
            InputError: If a prompt is not valid Unicode.
        """
        return self._encoders.tokenize(prompts)

    def sample(
        self,
        condition: Embedding,
        seeds: Sequence[int],
        num_frames: int,
        *,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        eta: float = 0.0,
        negative: Embedding | None = None,
        sampler: str = "ddim",
        noise: Mel | None = None,
        init: Mel | None = None,
        strength: float = 1.0,
        denoiser: str = DENOISER,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Mel:
        """Return normalised mels, float32 [B, M, F], for embeddings [B, D].

        More frames than ``sampling_windows`` has in one are sampled window by window.

        Args:
            condition: From ``encode_text`` or ``encode_images``, float32 [B, D].
            seeds: One a clip.
            num_frames: F, a multiple of the bundle's ``frames_multiple``.
            num_steps: Denoising steps; None is the full denoiser's.
            guidance_scale: Scale w; None is the full denoiser's.
            eta: 0 to 1.
            negative: Embedding to steer away from, float32 [D] or [B, D]; None is the learned
                null condition.
            sampler: ``ddim`` or ``dpmpp_2m``.
            noise: float32 [B, M, F] to start from; None makes it from ``seeds``.
            init: A mel [B, M, F] or [M, F] to vary: noise is added to it, and the last steps alone
                take it off again.
            strength: Share of the steps that run on ``init``.
            denoiser: The graph that takes the steps.
            progress: Called with (steps done, steps in all).
            cancel: Looked at between network calls.

        Raises:
            InputError: If ``num_steps`` or a seed is out of range.
            NumericalError: If the mel is not finite.
            BackendError: If the graph fails or gives another shape.
            CancelledError: If ``cancel`` is set.

        Sources:
            Meng et al. 2022, arXiv:2108.01073 (SDEdit), for ``init``; ``windows`` for the windows.
        """
        return self._host.sample(
            condition,
            seeds,
            num_frames,
            num_steps=num_steps,
            guidance_scale=guidance_scale,
            eta=eta,
            negative=negative,
            sampler=sampler,
            noise=noise,
            init=init,
            strength=strength,
            denoiser=denoiser,
            progress=progress,
            cancel=cancel,
        )

    def vocode(self, mel: Mel) -> NDArray[np.float32]:
        """Return waveforms, float32 [B, F * hop_length], of normalised mels [B, M, F].

        Raises:
            BackendError: If the graph fails or gives another length.
        """
        return self._host.vocode(mel)

    @property
    def choice(self) -> Choice:
        """The provider, and why ``auto`` took none of the better ones."""
        return self.sessions.choice

    @property
    def provider(self) -> str:
        """One of ``backends.session.PROVIDERS``."""
        return self.sessions.provider

    @property
    def engines(self) -> TrtBackend | None:
        """The TensorRT engines, where the provider has them."""
        return self.sessions.engines

    @property
    def precision(self) -> str | Mapping[str, str] | None:
        """What the caller chose; see ``Bundle.graph``."""
        return self.sessions.precision

    @property
    def file_precision(self) -> str | Mapping[str, str] | None:
        """The files that are loaded: what the caller chose, or on engines fp16 where it exists."""
        return self.sessions.file_precision

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the graphs loaded so far."""
        return self.sessions.loaded

    @property
    def max_batch(self) -> int:
        """Clips that are made at once."""
        return self.sessions.max_batch

    def load(self, graphs: Sequence[str]) -> None:
        """Load graphs side by side.

        Raises:
            ClipSynthError: As ``Sessions.load``.
        """
        self.sessions.load(graphs)

    def session(self, name: str) -> Session:
        """Return a graph's session, loading it if need be.

        Raises:
            ClipSynthError: As ``Sessions.load``.
        """
        return self.sessions.get(name)

    def frames_for(self, num_frames: int) -> int:
        """Return how many frames are sampled for ``num_frames``: on engines, whole buckets."""
        return self._host.frames_for(num_frames)

    def windows(self, num_frames: int) -> Windows:
        """Return the windows in which ``num_frames`` are sampled; see ``sampling_windows``."""
        return sampling_windows(num_frames, self.bundle.manifest)

    def captures(self, resolved: ResolvedOptions, *, init: bool = False) -> bool:
        """Return whether clips of some options are one CUDA graph from start to end."""
        return self._captured is not None and self._captured.renders(resolved, init=init)

    def close(self) -> None:
        """Give sessions and device memory back; any use afterwards is a ``BackendError``."""
        self.sessions.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _renderer(self, resolved: ResolvedOptions, *, init: bool) -> Renderer:
        captured = self._captured
        if captured is not None and self.captures(resolved, init=init):
            return captured
        return self._host

    def _resolve(
        self, options: Mapping[str, object], init: NDArray[np.float32] | None
    ) -> ResolvedOptions:
        manifest = self.bundle.manifest
        init_s = None if init is None else len(init) / manifest.mel.sample_rate
        return resolve_options(SynthOptions.of(options), manifest, init_s)

    def _load_init(self, init: str | Path | AudioClip) -> NDArray[np.float32]:
        """Return a given sound at the bundle's sample rate."""
        mel = self.bundle.manifest.mel
        return load_sound(init, mel.sample_rate, MAX_DURATION_S, min_samples(mel))

    def _condition(
        self,
        queries: Sequence[str],
        images: Sequence[str | Path | Image],
        resolved: ResolvedOptions,
        renderer: Renderer,
    ) -> tuple[list[str], Embedding]:
        """Return prompts that the renderer encodes itself, if any, and embeddings [B, D]."""
        if not queries:
            return [], self.encode_images(images)
        if renderer is self._host or len(resolved.templates) > 1:
            return [], self.encode_text(queries, resolved.templates)
        # the text encoder is part of the clip's CUDA graph
        template = resolved.templates[0]
        prompts = [template.replace("{query}", check_query(text)) for text in queries]
        return prompts, np.zeros((len(queries), self.bundle.manifest.condition.dim), np.float32)

    def _negative(self, resolved: ResolvedOptions) -> Embedding | None:
        """Return the embedding to steer away from, float32 [D], if any."""
        if resolved.negative is None:
            return None
        if not resolved.guided:
            logger.warning("negative query has no effect at guidance 1")
            return None
        negative: Embedding = self.encode_text([resolved.negative], resolved.templates)[0]
        return negative

    def _finish(self, waveforms: Waveforms, batch: ClipBatch, timer: StageTimer) -> list[AudioClip]:
        resolved, manifest = batch.resolved, self.bundle.manifest
        rate, loop = manifest.mel.sample_rate, resolved.loop_frames > 0
        with timer.stage("clip" if "clip" in timer.stages_s else "vocode"):
            if loop:
                finished = [limit_peaks(waveform, loop=True) for waveform in waveforms]
            else:
                finished = [finish(wave, resolved.num_samples, rate) for wave in waveforms]
            if resolved.lufs is not None:
                finished = [
                    normalise_loudness(sound, rate, resolved.lufs, PEAK, loop=loop)
                    for sound in finished
                ]
        num_steps = resolved.num_steps if batch.init is None else resolved.init_steps
        windows = len(self.windows(resolved.num_frames))
        return [
            AudioClip(
                waveform=waveform,
                sample_rate=rate,
                seed=seed,
                num_steps=num_steps,
                guidance_scale=resolved.guidance_scale,
                network_calls=num_steps * resolved.calls_a_step * windows,
                distilled=resolved.distilled,
                provider=self.session(resolved.denoiser).provider,
                bundle=manifest.name,
                bundle_sha256=self.bundle.sha256,
                stages_s={name: s / len(batch.seeds) for name, s in timer.stages_s.items()},
            )
            for waveform, seed in zip(finished, batch.seeds, strict=True)
        ]


def _seeds(seed: SupportsIndex | Iterable[SupportsIndex], count: int) -> list[int]:
    """Return the seed of each of ``count`` clips.

    Raises:
        InputError: If one is no integer or out of range, or there are others than clips.
    """
    try:
        first = operator.index(seed)  # type: ignore[arg-type]
    except TypeError:
        pass
    else:
        return [check_seed(first + i) for i in range(count)]
    try:
        given = list(seed)  # type: ignore[arg-type]
    except TypeError as error:
        raise InputError(
            f"seed must be a whole number or a list of them, got {seed!r:.60}"
        ) from error
    seeds = [check_seed(one) for one in given]
    if len(seeds) != count:
        raise InputError(f"{len(seeds)} seeds for {count} clips")
    return seeds


def _image_name(image: str | Path | Image) -> str:
    return Path(image).name if isinstance(image, (str, Path)) else "image"


def _batch_progress(progress: Progress | None, rows: slice, count: int) -> Progress | None:
    """Scale a batch's steps to the whole list's: n clips count n times."""
    if progress is None:
        return None

    def report(done: int, num_steps: int) -> None:
        progress(rows.start * num_steps + done * (rows.stop - rows.start), count * num_steps)

    return report
