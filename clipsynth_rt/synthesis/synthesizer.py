"""From a query to a sound: ``Synthesizer.from_bundle().synth("drum")``."""

from __future__ import annotations

import logging
import operator
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count as count_from
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, SupportsIndex, Unpack

import numpy as np

from clipsynth_rt.audio.clip import AudioClip
from clipsynth_rt.audio.load import load_sound
from clipsynth_rt.audio.mel import mel_spectrogram, min_samples
from clipsynth_rt.background import Ahead
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.errors import CancelledError, InputError
from clipsynth_rt.synthesis.options import (
    MAX_DURATION_S,
    ResolvedOptions,
    SynthKwargs,
    SynthOptions,
    check_query,
    resolve_options,
)
from clipsynth_rt.synthesis.parts import MAX_BATCH as MAX_BATCH
from clipsynth_rt.synthesis.parts import Part, Parts
from clipsynth_rt.synthesis.samplers import Progress
from clipsynth_rt.synthesis.schedule import check_seed
from clipsynth_rt.synthesis.stages import Embedding
from clipsynth_rt.timing import StageTimer

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)

MAX_AHEAD = 64
"""Finished clips that ``stream`` holds at most."""


class Cancel(Protocol):
    """Says whether to stop: ``threading.Event``, or anything else that has ``is_set()``."""

    def is_set(self) -> bool:
        """Return whether the caller has had enough."""


class Synthesizer(Parts):
    """Turns text or pictures into sound.

    The stages (``encode_text``, ``encode_images``, ``sample``, ``vocode``) can be called apart.
    Several threads may share a synthesizer, and each clip is the one that its query and seed give.
    It is a context manager, which gives sessions and device memory back in the end.

    >>> with Synthesizer.from_bundle(provider="cpu") as synthesizer:
    ...     clip = synthesizer.synth("drum", duration=0.5, num_steps=1, seed=3)
    >>> clip.query, clip.seed, clip.sample_rate, clip.waveform.shape
    ('drum', 3, 22050, (11025,))
    """

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
            provider: See the class.
            precision: See ``Bundle.graph``.
            threads: See the class.
            graphs: What to load now; None is what a plain text query runs. See ``load_for``.

        Raises:
            BundleError: If the bundle or one of its files cannot be used.
            ClipSynthError: See the class.
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
            InputError: If a wish is out of range.
            BundleError: If a file cannot be used.
            BackendError: If a graph cannot be loaded.
        """
        plan = resolve_options(SynthOptions(**options), self.bundle.manifest, 1.0 if init else None)
        encoder = "image_encoder" if image else "text_encoder"
        self.load((encoder, plan.denoiser, "vocoder"))

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
                where no ``duration`` is wished.
            progress: Called with (steps done, steps in all). What it raises ends the synthesis.
            cancel: Looked at between steps.
            **options: ``duration``, ``num_steps``, ``guidance_scale``, ``eta``, ``negative``,
                ``template``, ``sampler``, ``strength``, ``loop``, ``lufs``: the fields of
                ``SynthOptions``.

        Raises:
            InputError: If a value is out of range, or both or neither of text and image is given.
            NumericalError: If a graph gives what is not finite.
            BundleError: If a graph needed for the first time cannot be loaded.
            MissingExtraError: If a wish needs a library that is not installed.
            CancelledError: If ``cancel`` is set.
        """
        if (query is None) == (image is None):
            raise InputError("give a query or an image, one of the two")
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
            cancel: Looked at between steps; on engines, where a clip is one CUDA graph, between
                batches of clips.
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
        manifest = self.bundle.manifest
        start = None
        if init is not None:
            shortest = min_samples(manifest.mel)
            start = load_sound(init, manifest.mel.sample_rate, MAX_DURATION_S, shortest)
        init_s = None if start is None else len(start) / manifest.mel.sample_rate
        plan = resolve_options(SynthOptions(**options), manifest, init_s)
        check_cancel(cancel)
        timer = StageTimer()
        with timer.stage("text"):
            init_mel = None if start is None else mel_spectrogram(start, manifest.mel)
            prompts, condition, negative = self._conditions(
                queries, images, plan, fused=self.captures(plan, init=start is not None)
            )
        clips: list[AudioClip] = []
        for first in range(0, count, self.max_batch):
            check_cancel(cancel)
            part = slice(first, min(first + self.max_batch, count))
            told = _part_progress(progress, cancel, part, count)
            clips += self.make_part(
                Part(plan, seeds[part], condition[part], prompts[part], negative, init_mel, told)
            )
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
        ahead: int = 1,
        init: str | Path | AudioClip | None = None,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        **options: Unpack[SynthKwargs],
    ) -> Ahead[AudioClip]:
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
            ahead: Finished clips that wait at most, 1 to ``MAX_AHEAD``; one more is in the making.
            init: See ``synth_batch``.
            progress: Called from the background with (steps done, steps in all) of each clip.
            cancel: Looked at between steps.
            **options: See ``synth_batch``.

        Returns:
            An iterator, in the order of the queries.

        Raises:
            InputError: At once, if the seed or a wish is out of range.
            ClipSynthError: From the iterator, as ``synth``.
        """
        if isinstance(queries, str):
            raise InputError("stream takes a list of queries; for one, use synth")
        if not 1 <= ahead <= MAX_AHEAD:
            raise InputError(f"ahead must be from 1 to {MAX_AHEAD}, got {ahead}")
        # what is wrong for every clip is said before there is a thread
        first = check_seed(seed)
        resolve_options(SynthOptions(**options), self.bundle.manifest)

        def make(stop: threading.Event) -> Iterator[AudioClip]:
            either = _Either(stop, cancel)
            for number, query in zip(count_from(first), queries):
                yield self.synth(
                    query, seed=number, init=init, progress=progress, cancel=either, **options
                )

        return Ahead(make, ahead)

    def warm_up(self, **options: Unpack[SynthKwargs]) -> None:
        """Make and discard one sound, so that the next of its kind takes no longer than any other.

        On engines this builds what is not built and captures the clip's CUDA graph.

        Raises:
            ClipSynthError: As ``synth``.
        """
        self.synth_batch(["sound"], **options)

    def _conditions(
        self,
        queries: Sequence[str],
        images: Sequence[str | Path | Image],
        plan: ResolvedOptions,
        *,
        fused: bool,
    ) -> tuple[list[str], Embedding, Embedding | None]:
        """Return prompts to encode with the clip, conditions [B, D], and the negative one [D]."""
        prompts: list[str] = []
        if queries and fused and len(plan.templates) == 1:
            # the text encoder is part of the clip's CUDA graph
            template = plan.templates[0]
            prompts = [template.replace("{query}", check_query(text)) for text in queries]
            condition = np.zeros((len(queries), self.bundle.manifest.condition.dim), np.float32)
        elif queries:
            condition = self.encode_text(queries, plan.templates)
        else:
            condition = self.encode_images(images)
        if plan.negative is None:
            return prompts, condition, None
        if not plan.guided:
            logger.warning("negative query has no effect at guidance 1")
            return prompts, condition, None
        return prompts, condition, self.encode_text([plan.negative], plan.templates)[0]


class _Either:
    """Set if one of two is."""

    def __init__(self, one: Cancel, other: Cancel | None) -> None:
        self._one, self._other = one, other

    def is_set(self) -> bool:
        return self._one.is_set() or (self._other is not None and self._other.is_set())


def check_cancel(cancel: Cancel | None) -> None:
    """Raise ``CancelledError`` if the caller has had enough."""
    if cancel is not None and cancel.is_set():
        raise CancelledError("synthesis cancelled")


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


def _part_progress(
    progress: Progress | None, cancel: Cancel | None, part: slice, count: int
) -> Progress | None:
    """Scale a part's steps to the whole list's (n clips count n times); look at ``cancel``."""
    if progress is None and cancel is None:
        return None

    def report(done: int, num_steps: int) -> None:
        if progress is not None:
            progress(part.start * num_steps + done * (part.stop - part.start), count * num_steps)
        check_cancel(cancel)

    return report
