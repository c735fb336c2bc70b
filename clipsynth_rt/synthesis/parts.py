"""One batch of clips, from embeddings to finished sound, on any provider."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.audio.clip import PEAK, AudioClip, finish, limit_peaks
from clipsynth_rt.audio.loudness import normalise_loudness
from clipsynth_rt.backends.tensorrt.captured import clip_inputs
from clipsynth_rt.backends.tensorrt.engines import BATCH_SIZES, frame_bucket, frame_buckets
from clipsynth_rt.synthesis.loop import VOCODED_BEYOND, close_mel, vocode_loop
from clipsynth_rt.synthesis.options import ResolvedOptions
from clipsynth_rt.synthesis.samplers import Mel, Progress
from clipsynth_rt.synthesis.stages import Embedding, Stages
from clipsynth_rt.timing import StageTimer

MAX_BATCH = 8
"""Clips sampled at once; a longer list runs in parts, which changes nothing but its memory."""


@dataclass(frozen=True)
class Part:
    """Clips that are made together.

    Attributes:
        plan: What they share.
        seeds: One a clip.
        condition: Embeddings, float32 [B, D]; zeros where ``prompts`` are encoded with the clip.
        prompts: Queries in their template; none where ``condition`` is all there is.
        negative: Embedding to steer away from, float32 [D], or None.
        init: Normalised mel to vary, float32 [M, F], or None.
        progress: Called with (steps done, steps in all).
    """

    plan: ResolvedOptions
    seeds: Sequence[int]
    condition: Embedding
    prompts: Sequence[str] = ()
    negative: Embedding | None = None
    init: Mel | None = None
    progress: Progress | None = None

    @property
    def num_steps(self) -> int:
        """Denoiser steps that run."""
        return self.plan.num_steps if self.init is None else self.plan.init_steps


class Parts(Stages):
    """What turns a ``Part`` into clips; the arguments are those of ``Sessions``."""

    def frames_for(self, num_frames: int) -> int:
        """Return how many frames are sampled for ``num_frames``: on engines, whole buckets."""
        if self.engines is None or len(self.windows(num_frames)) > 1:
            return num_frames
        return frame_bucket(num_frames, self.bundle.manifest)

    def captures(self, plan: ResolvedOptions, *, init: bool = False) -> bool:
        """Return whether clips of a plan are one CUDA graph from start to end.

        The step-by-step path on engines does what a captured clip cannot: another sampler, a
        sound to start from, a loop, and sounds of several windows.
        """
        one = len(self.windows(plan.num_frames)) == 1
        whole = one and not init and not plan.loop_frames and plan.sampler == "ddim"
        return self.engines is not None and whole

    @property
    def max_batch(self) -> int:
        """Clips that are made at once."""
        return MAX_BATCH if self.engines is None else max(BATCH_SIZES)

    def make_part(self, part: Part) -> list[AudioClip]:
        """Return the clips of one part.

        Raises:
            ClipSynthError: As ``Synthesizer.synth``.
        """
        if self.captures(part.plan, init=part.init is not None):
            return self._play(part)
        timer = StageTimer()
        plan = part.plan
        # what is too much is cut in the end
        frames = self.frames_for(plan.num_frames)
        self._prepare(len(part.seeds), frames, plan)
        with timer.stage("denoise"):
            mel = self.sample(
                part.condition,
                part.seeds,
                frames,
                num_steps=plan.num_steps,
                guidance_scale=plan.guidance_scale,
                eta=plan.eta,
                negative=part.negative,
                sampler=plan.sampler,
                init=None if part.init is None else self._fit(part.init, frames, plan),
                strength=plan.strength,
                denoiser=plan.denoiser,
                progress=part.progress,
            )
        with timer.stage("vocode"):
            waveforms = self._loops(mel, plan) if plan.loop_frames else self.vocode(mel)
        return self._finish(waveforms, part, timer)

    def _fit(self, init: Mel, frames: int, plan: ResolvedOptions) -> Mel:
        """Cut a mel to ``frames``, or fill it up: with silence, a loop with its own beginning."""
        if plan.loop_frames:
            return init[:, np.arange(frames) % min(init.shape[1], plan.loop_frames)]
        silence = self.bundle.manifest.mel.floor_normalised
        more = max(0, frames - init.shape[1])
        return np.pad(init[:, :frames], ((0, 0), (0, more)), constant_values=silence)

    def _loops(self, mels: Mel, plan: ResolvedOptions) -> NDArray[np.float32]:
        spec = self.bundle.manifest.mel
        vocode: Callable[[Mel], NDArray[np.float32]] = lambda mel: self.vocode(mel[None])[0]  # noqa: E731
        closed = (close_mel(mel[:, : plan.num_frames], plan.loop_frames, spec) for mel in mels)
        return np.stack([vocode_loop(vocode, mel, spec.hop_length) for mel in closed])

    def _prepare(self, batch: int, frames: int, plan: ResolvedOptions) -> None:
        """Let sessions that compile for fixed shapes do so, which is no part of a clip's time."""
        manifest = self.bundle.manifest
        bins, halves = manifest.mel.n_mels, plan.calls_a_step
        mel = (batch, bins, self.windows(frames).size)
        vocoded = plan.loop_frames + 2 * VOCODED_BEYOND if plan.loop_frames else frames
        wanted: dict[str, dict[str, tuple[int, ...]]] = {
            plan.denoiser: {
                "x": mel,
                "noise": mel,
                "condition": (halves, batch, manifest.condition.dim),
                "weights": (halves,),
                **{name: (1,) for name in ("t", "s", "eta")},
            },
            "vocoder": {"mel": (1, bins, min(vocoded, frame_buckets(manifest)[-1]))},
        }
        for name, shapes in wanted.items():
            self.session(name).prepare(shapes)

    def _play(self, part: Part) -> list[AudioClip]:
        """Make up to one engine batch of clips, each batch one CUDA graph."""
        assert self.engines is not None
        timer, plan = StageTimer(), part.plan
        with timer.stage("prepare"):
            tokens = self.tokenize(part.prompts) if part.prompts else None
            key, inputs = clip_inputs(
                self.bundle.manifest, plan, part.seeds, part.condition, part.negative, tokens
            )
        # building and capturing happen once, and are no part of a clip's time
        self.engines.clip(key)
        with timer.stage("clip"):
            waveforms = self.engines.play(key, inputs)[: len(part.seeds)]
        clips = self._finish(waveforms, part, timer)
        if part.progress is not None:
            part.progress(plan.num_steps, plan.num_steps)
        return clips

    def _finish(
        self, waveforms: NDArray[np.float32], part: Part, timer: StageTimer
    ) -> list[AudioClip]:
        plan, manifest = part.plan, self.bundle.manifest
        sample_rate = manifest.mel.sample_rate
        with timer.stage("clip" if "clip" in timer.stages_s else "vocode"):
            if plan.loop_frames:
                finished = [limit_peaks(waveform, loop=True) for waveform in waveforms]
            else:
                finished = [finish(wave, plan.num_samples, sample_rate) for wave in waveforms]
            if plan.lufs is not None:
                finished = [
                    normalise_loudness(sound, sample_rate, plan.lufs, PEAK) for sound in finished
                ]
        calls = part.num_steps * plan.calls_a_step * len(self.windows(plan.num_frames))
        return [
            AudioClip(
                waveform=waveform,
                sample_rate=sample_rate,
                seed=seed,
                num_steps=part.num_steps,
                guidance_scale=plan.guidance_scale,
                network_calls=calls,
                distilled=plan.distilled,
                provider=self.session(plan.denoiser).provider,
                bundle=manifest.name,
                bundle_sha256=self.bundle.sha256,
                stages_s={name: s / len(part.seeds) for name, s in timer.stages_s.items()},
            )
            for waveform, seed in zip(finished, part.seeds, strict=True)
        ]
