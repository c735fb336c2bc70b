"""The renderer of engines: a batch of clips as one CUDA graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.backends.session import Array
from clipsynth_rt.backends.tensorrt import cuda
from clipsynth_rt.backends.tensorrt.backend import TrtBackend
from clipsynth_rt.backends.tensorrt.buffers import fill_up, pad_tokens
from clipsynth_rt.backends.tensorrt.captured import ClipKey
from clipsynth_rt.backends.tensorrt.engines import batch_size
from clipsynth_rt.bundles.manifest import Manifest, frame_bucket
from clipsynth_rt.synthesis.options import ResolvedOptions
from clipsynth_rt.synthesis.renderers import ClipBatch, Waveforms, sampling_windows
from clipsynth_rt.synthesis.schedule import gaussian_noise, sampling_times
from clipsynth_rt.timing import StageTimer


class CapturedRenderer:
    """Plays a batch as one CUDA graph, from tokens or embeddings to waveforms.

    Args:
        engines: The bundle's engines.
    """

    def __init__(self, engines: TrtBackend) -> None:
        self._engines = engines
        self._manifest = engines.bundle.manifest

    def renders(self, resolved: ResolvedOptions, *, init: bool = False) -> bool:
        """Return whether a captured clip can do what is asked.

        It cannot take another sampler, start from a sound, close a loop, or sample in windows.
        """
        one = len(sampling_windows(resolved.num_frames, self._manifest)) == 1
        return one and not init and not resolved.loop_frames and resolved.sampler == "ddim"

    def render(self, batch: ClipBatch, timer: StageTimer) -> Waveforms:
        """Return vocoded waveforms; see ``Renderer``."""
        resolved = batch.resolved
        with timer.stage("prepare"):
            key, inputs = clip_inputs(
                self._manifest,
                resolved,
                batch.seeds,
                batch.condition,
                batch.negative,
                batch.tokens,
            )
        # building and capturing happen once, and are no part of a clip's time
        self._engines.clip(key)
        with timer.stage("clip"):
            waveforms = self._engines.play(key, inputs)[: len(batch.seeds)]
        if batch.progress is not None:
            batch.progress(resolved.num_steps, resolved.num_steps)
        return waveforms


def clip_inputs(
    manifest: Manifest,
    resolved: ResolvedOptions,
    seeds: Sequence[int],
    condition: NDArray[np.float32],
    negative: NDArray[np.float32] | None = None,
    tokens: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> tuple[ClipKey, dict[str, Array]]:
    """Return what to capture for some clips, and what to feed it.

    Args:
        manifest: The bundle's.
        resolved: What the clips share.
        seeds: One a clip, at most the largest engine batch.
        condition: float32 [B, D]; overwritten on the device where there are ``tokens``.
        negative: Embedding to steer away from, float32 [D]; None is the learned null condition.
        tokens: Ids and attention mask, int64 [B, L], where the clip starts from text.

    Raises:
        InputError: If no engine holds the clips.
    """
    size = batch_size(len(seeds))
    frames = frame_bucket(resolved.num_frames, manifest)
    guided = resolved.guided
    key = ClipKey(
        frames,
        size,
        resolved.num_steps,
        guided,
        tokens is not None,
        resolved.eta > 0.0,
        resolved.denoiser,
    )

    def noise(stream: int) -> Array:
        rows = [gaussian_noise(seed, frames, manifest.mel.n_mels, stream) for seed in seeds]
        return fill_up(np.stack(rows), size)

    x = noise(0)
    condition = fill_up(condition, size)
    times = np.zeros((resolved.num_steps + 1, cuda.ALIGNMENT // 4), np.float32)
    times[:, 0] = sampling_times(resolved.num_steps, manifest.diffusion)
    inputs: dict[str, Array] = {
        "times": times,
        "condition": condition[None],
        "weights": np.ones(1, np.float32),
        "eta": np.array([resolved.eta], np.float32),
        "x": x,
        "noise": np.zeros((1, *x.shape), np.float32),
    }
    if guided:
        other = np.zeros_like(condition)
        if negative is not None:
            other[:] = negative
        inputs["condition"] = np.stack([condition, other])
        inputs["weights"] = np.array(
            [resolved.guidance_scale, 1.0 - resolved.guidance_scale], np.float32
        )
    if resolved.eta > 0.0:
        inputs["noise"] = np.stack([noise(i + 1) for i in range(resolved.num_steps)])
    if tokens is not None:
        length = manifest.condition.context_length
        names = ("input_ids", "attention_mask")
        for name, value in zip(names, tokens, strict=True):
            inputs[name] = pad_tokens(fill_up(value, size), length)
    return key, inputs
