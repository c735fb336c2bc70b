"""From embeddings to waveforms: the protocol of a renderer, and the one that loops on the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.backends.session import Session
from clipsynth_rt.bundles.manifest import DENOISER, Manifest, frame_bucket, frame_buckets
from clipsynth_rt.errors import BackendError, NumericalError
from clipsynth_rt.synthesis import samplers
from clipsynth_rt.synthesis.cancel import Cancel, check_cancel
from clipsynth_rt.synthesis.encoders import Embedding, Tokens
from clipsynth_rt.synthesis.loop import VOCODED_BEYOND, close_mel, vocode_loop
from clipsynth_rt.synthesis.options import ResolvedOptions
from clipsynth_rt.synthesis.samplers import Mel, Progress
from clipsynth_rt.synthesis.schedule import alpha_sigma, gaussian_noise, sampling_times
from clipsynth_rt.synthesis.sessions import Sessions
from clipsynth_rt.synthesis.windows import Windows, vocode_windows, windowed
from clipsynth_rt.timing import StageTimer

Waveforms = NDArray[np.float32]


@dataclass(frozen=True)
class ClipBatch:
    """Clips that are made together.

    Attributes:
        resolved: The options that they share.
        seeds: One a clip.
        condition: Embeddings, float32 [B, D]; zeros where ``tokens`` are encoded with the clip.
        tokens: Prompts to encode with the clip; None where ``condition`` is all there is.
        negative: Embedding to steer away from, float32 [D], or None.
        init: Normalised mel to vary, float32 [M, F], or None.
        progress: Called with (steps done, steps in all).
        cancel: Looked at between network calls.
    """

    resolved: ResolvedOptions
    seeds: Sequence[int]
    condition: Embedding
    tokens: Tokens | None = None
    negative: Embedding | None = None
    init: Mel | None = None
    progress: Progress | None = None
    cancel: Cancel | None = None


class Renderer(Protocol):
    """What turns a batch's embeddings into waveforms."""

    def render(self, batch: ClipBatch, timer: StageTimer) -> Waveforms:
        """Return vocoded waveforms, float32 [B, T], T at least what the options ask for.

        Args:
            batch: The clips.
            timer: Gets the seconds of each stage.

        Raises:
            ClipSynthError: As ``Synthesizer.synth``.
        """


class HostRenderer:
    """Samples in a loop on the host, a graph call a step, then vocodes.

    Args:
        sessions: The loaded graphs.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._manifest = sessions.bundle.manifest

    def render(self, batch: ClipBatch, timer: StageTimer) -> Waveforms:
        """Return vocoded waveforms; see ``Renderer``."""
        resolved = batch.resolved
        # what is too much is cut in the end
        frames = self.frames_for(resolved.num_frames)
        self._prepare(len(batch.seeds), frames, resolved)
        with timer.stage("denoise"):
            mel = self.sample(
                batch.condition,
                batch.seeds,
                frames,
                num_steps=resolved.num_steps,
                guidance_scale=resolved.guidance_scale,
                eta=resolved.eta,
                negative=batch.negative,
                sampler=resolved.sampler,
                init=None if batch.init is None else self._fit(batch.init, frames, resolved),
                strength=resolved.strength,
                denoiser=resolved.denoiser,
                progress=batch.progress,
                cancel=batch.cancel,
            )
        with timer.stage("vocode"):
            if resolved.loop_frames:
                return self._vocode_loops(mel, resolved, batch.cancel)
            return self.vocode(mel, batch.cancel)

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
        """Return normalised mels, float32 [B, M, F]; see ``Synthesizer.sample``."""
        diffusion, bins = self._manifest.diffusion, self._manifest.mel.n_mels
        times = sampling_times(diffusion.num_steps if num_steps is None else num_steps, diffusion)
        scale = diffusion.guidance_scale if guidance_scale is None else guidance_scale

        def noise_for_step(stream: int) -> Mel:
            return np.stack([gaussian_noise(seed, num_frames, bins, stream) for seed in seeds])

        x = noise_for_step(0) if noise is None else noise
        if init is not None:
            run = max(1, round((len(times) - 1) * strength))
            times = times[-run - 1 :]
            alpha, sigma = alpha_sigma(float(times[0]))
            x = (alpha * init + sigma * x).astype(np.float32)
        fixed = _guided_conditions(condition, scale, negative)
        windows = sampling_windows(x.shape[2], self._manifest)
        session = self._sessions.get(denoiser)
        with _steps(session, x, fixed, windows, sampler, cancel) as (step, fetch):
            if sampler == "dpmpp_2m":
                mel = samplers.dpmpp_2m(step, x, times, progress=progress)
            else:
                last = samplers.ddim(
                    step, x, times, eta=eta, noise_for_step=noise_for_step, progress=progress
                )
                mel = fetch(last)
        if mel.shape != x.shape:
            raise BackendError(f"denoiser gave a mel of {mel.shape} instead of {x.shape}")
        if not np.isfinite(mel).all():
            raise NumericalError(
                f"denoiser gave a mel that is not finite ({len(times) - 1} steps, guidance "
                f"{scale:g}); try another precision or the cpu provider"
            )
        return mel

    def vocode(self, mel: Mel, cancel: Cancel | None = None) -> Waveforms:
        """Return waveforms, float32 [B, F * hop_length], of normalised mels [B, M, F].

        Raises:
            BackendError: If the graph fails or gives another length.
            CancelledError: If ``cancel`` is set.
        """
        # one run a clip: quantised graphs scale activations by the whole batch, and a clip must not
        # depend on its neighbours. Its memory grows with the square of the frames, so a long one
        # runs in parts
        hop, size = self._manifest.mel.hop_length, frame_buckets(self._manifest)[-1]

        def vocode_one(mel: Mel) -> NDArray[np.float32]:
            check_cancel(cancel)
            return self._vocode_one(mel)

        return np.stack([vocode_windows(vocode_one, row, size, hop) for row in mel])

    def frames_for(self, num_frames: int) -> int:
        """Return how many frames are sampled for ``num_frames``: on engines, whole buckets."""
        if len(sampling_windows(num_frames, self._manifest)) > 1:
            return num_frames
        return self._sessions.frames_for(num_frames)

    def _vocode_one(self, mel: Mel) -> NDArray[np.float32]:
        """Return the waveform, float32 [F * hop_length], of a mel [M, F]."""
        frames, spec = mel.shape[1], self._manifest.mel
        more = self._sessions.frames_for(frames) - frames
        if more:
            mel = np.pad(mel, ((0, 0), (0, more)), constant_values=spec.floor_normalised)
        waveform = self._sessions.get("vocoder").run({"mel": mel[None]})["waveform"]
        expected = (1, mel.shape[1] * spec.hop_length)
        if waveform.shape != expected:
            raise BackendError(f"vocoder gave {waveform.shape} samples instead of {expected}")
        sound: NDArray[np.float32] = waveform[0, : frames * spec.hop_length]
        return sound

    def _vocode_loops(
        self, mels: Mel, resolved: ResolvedOptions, cancel: Cancel | None
    ) -> Waveforms:
        spec = self._manifest.mel

        def vocode(mel: Mel) -> NDArray[np.float32]:
            waveform: NDArray[np.float32] = self.vocode(mel[None], cancel)[0]
            return waveform

        rows = (mel[:, : resolved.num_frames] for mel in mels)
        closed = (close_mel(row, resolved.loop_frames, spec) for row in rows)
        samples = min(resolved.num_samples, resolved.loop_frames * spec.hop_length)
        return np.stack([vocode_loop(vocode, mel, spec.hop_length, samples) for mel in closed])

    def _fit(self, init: Mel, frames: int, resolved: ResolvedOptions) -> Mel:
        """Cut a mel to ``frames``, or fill it up: with silence, a loop with its own beginning."""
        if resolved.loop_frames:
            return init[:, np.arange(frames) % min(init.shape[1], resolved.loop_frames)]
        silence = self._manifest.mel.floor_normalised
        more = max(0, frames - init.shape[1])
        return np.pad(init[:, :frames], ((0, 0), (0, more)), constant_values=silence)

    def _prepare(self, batch: int, frames: int, resolved: ResolvedOptions) -> None:
        """Let sessions that compile for fixed shapes do so, which is no part of a clip's time."""
        manifest = self._manifest
        bins, conditions = manifest.mel.n_mels, resolved.calls_a_step
        mel = (batch, bins, sampling_windows(frames, manifest).size)
        vocoded = resolved.loop_frames + 2 * VOCODED_BEYOND if resolved.loop_frames else frames
        denoiser = {
            "x": mel,
            "noise": mel,
            "condition": (conditions, batch, manifest.condition.dim),
            "weights": (conditions,),
            **{name: (1,) for name in ("t", "s", "eta")},
        }
        self._sessions.get(resolved.denoiser).prepare(denoiser)
        vocoder = {"mel": (1, bins, min(vocoded, frame_buckets(manifest)[-1]))}
        self._sessions.get("vocoder").prepare(vocoder)


def sampling_windows(num_frames: int, manifest: Manifest) -> Windows:
    """Return the windows in which ``num_frames`` are sampled: one, up to the longest bucket.

    Beyond it, windows of the length that the denoiser learnt, which overlap by a quarter or more.
    The same on every provider, so that a long sound does not depend on where it is made.
    """
    if num_frames <= frame_buckets(manifest)[-1]:
        return Windows.over(num_frames, num_frames, 0)
    size = frame_bucket(manifest.diffusion.default_frames, manifest)
    return Windows.over(num_frames, size, size // 4, manifest.diffusion.frames_multiple)


@contextmanager
def _steps(
    session: Session,
    x: Mel,
    fixed: dict[str, Any],
    windows: Windows,
    sampler: str,
    cancel: Cancel | None,
) -> Iterator[tuple[samplers.Step, Callable[[Any], Mel]]]:
    """Give the denoiser step, and what brings its last x to the host."""
    # windows are cut and mixed on the host, and dpmpp_2m has an update of its own there
    on_host = len(windows) > 1 or sampler != "ddim"
    loop = None if on_host else session.step_loop(x, fixed)
    if loop is None:
        yield windowed(_host_step(session, fixed, cancel), windows), lambda mel: mel
        return
    with loop as device_step:

        def step(x: Any, t: float, s: float, eta: float, noise: Mel) -> tuple[Any, Any]:
            check_cancel(cancel)
            return device_step(x, t, s, eta, noise)

        yield step, device_step.fetch


def _host_step(session: Session, fixed: dict[str, Any], cancel: Cancel | None) -> samplers.Step:
    """Return a denoiser's graph as a step over arrays."""

    def step(x: Mel, t: float, s: float, eta: float, noise: Mel) -> tuple[Mel, Mel]:
        check_cancel(cancel)
        scalars = {"t": t, "s": s, "eta": eta}
        inputs = {name: np.array([value], np.float32) for name, value in scalars.items()}
        outputs = session.run({"x": x, "noise": noise, **inputs, **fixed})
        return outputs["x_next"], outputs["x0"]

    return step


def _guided_conditions(
    condition: Embedding, scale: float, negative: Embedding | None
) -> dict[str, Any]:
    """Return condition [G, B, D] and weights [G]: two conditions under guidance, else one."""
    if scale == 1.0:
        return {"condition": condition[None], "weights": np.ones(1, np.float32)}
    other = np.zeros_like(condition) if negative is None else negative
    stacked = np.stack([condition, np.broadcast_to(other, condition.shape)])
    weights = np.array([scale, 1.0 - scale], np.float32)
    return {"condition": stacked.astype(np.float32), "weights": weights}
