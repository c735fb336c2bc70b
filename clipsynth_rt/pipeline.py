"""From a query to a sound: ``Synthesizer.from_bundle().synth("drum")``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.audio import AudioClip, finish
from clipsynth_rt.backends.engines import BATCH_SIZES, frame_bucket
from clipsynth_rt.backends.trt_clip import clip_inputs
from clipsynth_rt.bundle import Bundle
from clipsynth_rt.config import SynthConfig, SynthPlan, SynthWishes, check_query, make_plan
from clipsynth_rt.errors import InputError
from clipsynth_rt.sampler import Progress
from clipsynth_rt.stages import Embedding, Stages
from clipsynth_rt.timing import StageTimer

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)

TEXT_GRAPHS = ("text_encoder", "denoiser_step", "vocoder")
IMAGE_GRAPHS = ("image_encoder", "denoiser_step", "vocoder")
MAX_BATCH = 8
"""Clips sampled at once; a longer list runs in parts, which changes nothing but its memory."""


class Synthesizer(Stages):
    """Turns text or pictures into sound.

    The stages (``encode_text``, ``encode_images``, ``sample``, ``vocode``) can be called apart.
    """

    @classmethod
    def from_bundle(
        cls,
        path: str | Path | None = None,
        provider: str = "auto",
        precision: str | Mapping[str, str] | None = None,
        threads: int | None = None,
        graphs: Sequence[str] = TEXT_GRAPHS,
    ) -> Synthesizer:
        """Open a bundle and load ``graphs``; any other is loaded when it is first needed.

        Args:
            path: The bundle's folder; None is the one that ships with the package.
            provider: See the class.
            precision: See ``Bundle.graph``.
            threads: See the class.
            graphs: What to load now; ``IMAGE_GRAPHS`` where only pictures will be asked for.

        Raises:
            BundleError: If the bundle or one of its files cannot be used.
            ClipSynthError: See the class.
        """
        synthesizer = cls(Bundle.open(path), provider, precision, threads)
        synthesizer.load(graphs)
        return synthesizer

    def synth(
        self,
        query: str | None = None,
        *,
        duration_s: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        eta: float = 0.0,
        negative: str | None = None,
        template: str | Sequence[str] | None = None,
        image: str | Path | Image | None = None,
        sampler: str = "ddim",
        progress: Progress | None = None,
    ) -> AudioClip:
        """Make one sound from a text, or from a picture in its place.

        Args:
            query: What to hear.
            duration_s: See ``SynthConfig``, as ``steps``, ``guidance``, ``eta``, ``negative``,
                ``template`` and ``sampler``.
            steps: Denoising steps.
            guidance: Scale w.
            seed: The same seed gives the same noise everywhere.
            eta: 0 to 1.
            negative: What to steer away from.
            template: One or several.
            image: A picture in place of ``query``.
            sampler: ``ddim`` or ``dpmpp_2m``.
            progress: Called with (steps done, steps in all).

        Raises:
            InputError: If a value is out of range, or both or neither of text and image is given.
            NumericalError: If a graph gives what is not finite.
            BundleError: If a graph needed for the first time cannot be loaded.
        """
        if (query is None) == (image is None):
            raise InputError("give a query or an image, one of the two")
        return self.synth_batch(
            [] if query is None else [query],
            images=[] if image is None else [image],
            seed=seed,
            progress=progress,
            duration_s=duration_s,
            steps=steps,
            guidance=guidance,
            eta=eta,
            negative=negative,
            template=template,
            sampler=sampler,
        )[0]

    def synth_batch(
        self,
        queries: Sequence[str] = (),
        *,
        images: Sequence[str | Path | Image] = (),
        seed: int | Sequence[int] = 0,
        progress: Progress | None = None,
        **wishes: Unpack[SynthWishes],
    ) -> list[AudioClip]:
        """Make a sound for each of several queries, or of several pictures.

        A clip is the one that ``synth`` gives for its query and seed, but for float rounding.

        Args:
            queries: Texts.
            images: Pictures, in place of texts.
            seed: One a clip; a single number gives the i-th clip ``seed + i``.
            progress: Called with (steps done, steps in all).
            **wishes: What all clips share: the fields of ``SynthConfig``.

        Raises:
            ClipSynthError: As ``synth``.
        """
        if isinstance(queries, str):
            raise InputError("synth_batch takes a list of queries; for one, use synth")
        if bool(queries) == bool(images):
            raise InputError("give queries or images, one of the two")
        plan = make_plan(SynthConfig(**wishes), self.bundle.manifest)
        count = len(queries) or len(images)
        seeds = [seed + i for i in range(count)] if isinstance(seed, int) else list(seed)
        if len(seeds) != count:
            raise InputError(f"{len(seeds)} seeds for {count} clips")
        timer = StageTimer()
        prompts: list[str] = []
        with timer.stage("text"):
            if self._captures_text(plan) and queries:
                # the text encoder is part of the clip's CUDA graph
                template = plan.templates[0]
                prompts = [template.replace("{query}", check_query(text)) for text in queries]
                condition = np.zeros((count, self.bundle.manifest.condition.dim), np.float32)
            elif queries:
                condition = self.encode_text(queries, plan.templates)
            else:
                condition = self.encode_images(images)
            negative = None
            if plan.negative is not None and plan.guidance == 1.0:
                logger.warning("negative query has no effect at guidance 1")
            elif plan.negative is not None:
                negative = self.encode_text([plan.negative], plan.templates)[0]
        names = list(queries) or [_image_name(image) for image in images]
        clips: list[AudioClip] = []
        most = MAX_BATCH if self.engines is None else max(BATCH_SIZES)
        for start in range(0, count, most):
            part = slice(start, min(start + most, count))
            told = _part_progress(progress, start, part.stop - start, count, plan.steps)
            if self.engines is not None and plan.sampler == "ddim":
                clips += self._play_part(
                    prompts[part], condition[part], negative, seeds[part], plan
                )
                if told is not None:
                    told(plan.steps, plan.steps)
            else:
                clips += self._synth_part(
                    condition[part], negative, seeds[part], plan, StageTimer(), told
                )
        for clip, name in zip(clips, names, strict=True):
            clip.query = name
            clip.stages_s = {"text": timer.stages_s["text"] / count, **clip.stages_s}
        return clips

    def warm_up(self, **wishes: Unpack[SynthWishes]) -> None:
        """Make and discard one sound, so that the next of its kind takes no longer than any other.

        On engines this builds what is not built and captures the clip's CUDA graph.

        Raises:
            ClipSynthError: As ``synth``.
        """
        self.synth_batch(["sound"], **wishes)

    def frames_for(self, num_frames: int) -> int:
        """Return how many frames are sampled for ``num_frames``: on engines, a whole bucket.

        Raises:
            InputError: If no engine holds them.
        """
        if self.engines is None:
            return num_frames
        return frame_bucket(num_frames, self.bundle.manifest)

    def _captures_text(self, plan: SynthPlan) -> bool:
        return self.engines is not None and plan.sampler == "ddim" and len(plan.templates) == 1

    def _synth_part(
        self,
        condition: Embedding,
        negative: Embedding | None,
        seeds: Sequence[int],
        plan: SynthPlan,
        timer: StageTimer,
        progress: Progress | None,
    ) -> list[AudioClip]:
        # ``finish`` cuts what is too much
        frames = self.frames_for(plan.num_frames)
        self._prepare(len(seeds), frames, guided=plan.guidance != 1.0)
        with timer.stage("denoise"):
            mel = self.sample(
                condition,
                seeds,
                frames,
                steps=plan.steps,
                guidance=plan.guidance,
                eta=plan.eta,
                negative=negative,
                sampler=plan.sampler,
                progress=progress,
            )
        with timer.stage("vocode"):
            waveforms = self.vocode(mel)
        return self._finish(waveforms, seeds, plan, timer)

    def _prepare(self, batch: int, frames: int, *, guided: bool) -> None:
        """Let sessions that compile for fixed shapes do so, which is no part of a clip's time."""
        manifest = self.bundle.manifest
        mel = (batch, manifest.mel.n_mels, frames)
        halves = 2 if guided else 1
        wanted: dict[str, dict[str, tuple[int, ...]]] = {
            "denoiser_step": {
                "x": mel,
                "noise": mel,
                "condition": (halves, batch, manifest.condition.dim),
                "weights": (halves,),
                **{name: (1,) for name in ("t", "s", "eta")},
            },
            "vocoder": {"mel": (1, *mel[1:])},
        }
        for name, shapes in wanted.items():
            prepare = getattr(self.session(name), "prepare", None)
            if prepare is not None:
                prepare(shapes)

    def _play_part(
        self,
        prompts: Sequence[str],
        condition: Embedding,
        negative: Embedding | None,
        seeds: Sequence[int],
        plan: SynthPlan,
    ) -> list[AudioClip]:
        """Make up to one engine batch of clips, each batch one CUDA graph."""
        assert self.engines is not None
        timer = StageTimer()
        with timer.stage("prepare"):
            tokens = self.tokenize(prompts) if prompts else None
            key, inputs = clip_inputs(
                self.bundle.manifest, plan, seeds, condition, negative, tokens
            )
        # building and capturing happen once, and are no part of a clip's time
        self.engines.clip(key)
        with timer.stage("clip"):
            waveforms = self.engines.play(key, inputs)[: len(seeds)]
        return self._finish(waveforms, seeds, plan, timer)

    def _finish(
        self,
        waveforms: NDArray[np.float32],
        seeds: Sequence[int],
        plan: SynthPlan,
        timer: StageTimer,
    ) -> list[AudioClip]:
        sample_rate = self.bundle.manifest.mel.sample_rate
        with timer.stage("clip" if "clip" in timer.stages_s else "vocode"):
            finished = [finish(waveform, plan.num_samples, sample_rate) for waveform in waveforms]
        halves = 1 if plan.guidance == 1.0 else 2
        return [
            AudioClip(
                waveform=waveform,
                sample_rate=sample_rate,
                seed=seed,
                steps=plan.steps,
                guidance=plan.guidance,
                network_calls=plan.steps * halves,
                provider=self.session("denoiser_step").provider,
                stages_s={name: s / len(seeds) for name, s in timer.stages_s.items()},
            )
            for waveform, seed in zip(finished, seeds, strict=True)
        ]


def _image_name(image: str | Path | Image) -> str:
    return Path(image).name if isinstance(image, (str, Path)) else "image"


def _part_progress(
    progress: Progress | None, start: int, size: int, count: int, steps: int
) -> Progress | None:
    """Scale one part's steps to the whole list's: a part of n clips counts n times its steps."""
    if progress is None:
        return None

    def report(done: int, _: int) -> None:
        progress(start * steps + done * size, count * steps)

    return report
