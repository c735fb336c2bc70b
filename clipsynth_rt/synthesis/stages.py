"""The stages of synthesis, each on its own: encode a query, sample a mel, vocode it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.backends.session import Session
from clipsynth_rt.backends.tensorrt.engines import frame_bucket, frame_buckets
from clipsynth_rt.bundles.manifest import DENOISER
from clipsynth_rt.bundles.tokenizer import Tokenizer
from clipsynth_rt.errors import BackendError, NumericalError
from clipsynth_rt.synthesis import samplers as samplers
from clipsynth_rt.synthesis.images import load_image
from clipsynth_rt.synthesis.options import check_query
from clipsynth_rt.synthesis.samplers import Mel, Progress
from clipsynth_rt.synthesis.schedule import alpha_sigma, gaussian_noise, sampling_times
from clipsynth_rt.synthesis.sessions import Sessions
from clipsynth_rt.synthesis.windows import Windows, vocode_windows, windowed

if TYPE_CHECKING:
    from PIL.Image import Image

Embedding = NDArray[np.float32]


class Stages(Sessions):
    """The stages over a bundle's graphs; the arguments are those of ``Sessions``."""

    def _open(self, name: str) -> Session:
        if name == "text_encoder" and self.bundle.manifest.condition.tokenizer is not None:
            # beside the other graphs: a vocabulary takes longer to read than a prompt to encode
            _ = self._tokenizer
        return super()._open(name)

    def encode_text(
        self, queries: Sequence[str], templates: Sequence[str] | None = None
    ) -> Embedding:
        """Return CLIP text embeddings, float32 [B, D], of unit length.

        A query in several templates is the normalised mean of its embeddings (Radford et al.
        2021, arXiv:2103.00020, section 3.1.4).

        Raises:
            InputError: If a query is blank.
            NumericalError: If an embedding is not finite.
        """
        condition = self.bundle.manifest.condition
        texts = [check_query(query) for query in queries]
        known: dict[str, Embedding] = {}
        for text in texts:
            if text in known:
                continue
            # not str.format: braces in a query or a template are just characters
            prompts = [t.replace("{query}", text) for t in templates or condition.templates]
            ids, mask = self.tokenize(prompts)
            # one run a query: quantised graphs scale activations by the whole batch, and a clip
            # must not depend on its neighbours
            inputs = {"input_ids": ids, "attention_mask": mask}
            embeddings = self.session("text_encoder").run(inputs)["embedding"]
            known[text] = _unit(embeddings.mean(axis=0), "text_encoder")
        return np.stack([known[text] for text in texts])

    def tokenize(self, prompts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ids and attention mask of prompts, both int64 [B, L].

        Raises:
            InputError: If a prompt is not valid Unicode.
        """
        return self._tokenizer.tokenize(prompts)

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer:
        length = self.bundle.manifest.condition.context_length
        spec = self.bundle.tokenizer_spec()
        return Tokenizer(self.bundle.read(spec), length, self.bundle.path / spec.path)

    def encode_images(self, images: Sequence[str | Path | Image]) -> Embedding:
        """Return CLIP image embeddings, float32 [B, D], of unit length.

        Raises:
            InputError: If a picture cannot be read, or the bundle has no image encoder.
            NumericalError: If an embedding is not finite.
        """
        size = self.bundle.manifest.condition.image_size
        session = self.session("image_encoder")
        rows = []
        for image in images:
            pixels = load_image(image, size)[None]
            rows.append(_unit(session.run({"image": pixels})["embedding"][0], "image_encoder"))
        return np.stack(rows)

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
    ) -> Mel:
        """Return normalised mels, float32 [B, M, F], for embeddings [B, D].

        More frames than ``windows`` has in one are sampled window by window.

        Args:
            condition: From ``encode_text`` or ``encode_images``, float32 [B, D].
            seeds: One a clip.
            num_frames: F, a multiple of the bundle's ``frames_multiple``.
            num_steps: Denoising steps; None is the ordinary denoiser's.
            guidance_scale: Scale w; None is the ordinary denoiser's.
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

        Raises:
            InputError: If ``num_steps`` or a seed is out of range.
            NumericalError: If the mel is not finite.
            BackendError: If the graph fails or gives another shape.

        Sources:
            Meng et al. 2022, arXiv:2108.01073 (SDEdit), for ``init``; ``windows`` for the windows.
        """
        diffusion, bins = self.bundle.manifest.diffusion, self.bundle.manifest.mel.n_mels
        times = sampling_times(diffusion.num_steps if num_steps is None else num_steps, diffusion)
        weight = diffusion.guidance_scale if guidance_scale is None else guidance_scale

        def noise_for_step(stream: int) -> Mel:
            return np.stack([gaussian_noise(seed, num_frames, bins, stream) for seed in seeds])

        x = noise_for_step(0) if noise is None else noise
        if init is not None:
            run = max(1, round((len(times) - 1) * strength))
            times = times[-run - 1 :]
            alpha, sigma = alpha_sigma(float(times[0]))
            x = (alpha * init + sigma * x).astype(np.float32)
        fixed = _mixed_conditions(condition, weight, negative)
        windows = self.windows(x.shape[2])
        session = self.session(denoiser)
        if sampler == "dpmpp_2m":
            step = windowed(_host_step(session, fixed), windows)
            mel = samplers.dpmpp_2m(step, x, times, progress=progress)
        else:
            with _device_step(session, x, fixed, windows) as (step, fetch):
                mel = fetch(
                    samplers.ddim(
                        step, x, times, eta=eta, noise_for_step=noise_for_step, progress=progress
                    )
                )
        if mel.shape != x.shape:
            raise BackendError(f"denoiser gave a mel of {mel.shape} instead of {x.shape}")
        if not np.isfinite(mel).all():
            raise NumericalError(
                f"denoiser gave a mel that is not finite ({len(times) - 1} steps, guidance "
                f"{weight:g}); try another precision or the cpu provider"
            )
        return mel

    def windows(self, num_frames: int) -> Windows:
        """Return the windows in which ``num_frames`` are sampled: one, up to the longest bucket.

        Beyond it, windows of the length that the denoiser learnt, which overlap by a quarter or
        more. The same on every provider, so that a long sound does not depend on where it is made.
        """
        manifest = self.bundle.manifest
        if num_frames <= frame_buckets(manifest)[-1]:
            return Windows.over(num_frames, num_frames, 0)
        size = frame_bucket(manifest.diffusion.default_frames, manifest)
        return Windows.over(num_frames, size, size // 4, manifest.diffusion.frames_multiple)

    def vocode(self, mel: Mel) -> NDArray[np.float32]:
        """Return waveforms, float32 [B, F * hop_length], of normalised mels [B, M, F].

        Raises:
            BackendError: If the graph fails or gives another length.
        """
        # one run a clip, for the reason in encode_text, and for its memory; what that takes grows
        # with the square of the frames, so a long one runs in parts
        hop = self.bundle.manifest.mel.hop_length
        size = frame_buckets(self.bundle.manifest)[-1]
        return np.stack([vocode_windows(self._vocode_one, row, size, hop) for row in mel])

    def _vocode_one(self, mel: Mel) -> NDArray[np.float32]:
        """Return the waveform, float32 [F * hop_length], of a mel [M, F]."""
        frames, spec = mel.shape[1], self.bundle.manifest.mel
        if self.engines is not None:
            more = frame_bucket(frames, self.bundle.manifest) - frames
            mel = np.pad(mel, ((0, 0), (0, more)), constant_values=spec.floor_normalised)
        waveform = self.session("vocoder").run({"mel": mel[None]})["waveform"]
        expected = (1, mel.shape[1] * spec.hop_length)
        if waveform.shape != expected:
            raise BackendError(f"vocoder gave {waveform.shape} samples instead of {expected}")
        sound: NDArray[np.float32] = waveform[0, : frames * spec.hop_length]
        return sound


@contextmanager
def _device_step(
    session: Session, x: Mel, fixed: dict[str, Any], windows: Windows
) -> Iterator[tuple[samplers.Step, Callable[[Any], Mel]]]:
    """Give the step that leaves x where it is, and what brings the last x to the host."""
    # windows are cut and mixed on the host
    loop = session.step_loop(x, fixed) if len(windows) == 1 else None
    if loop is None:
        yield windowed(_host_step(session, fixed), windows), lambda mel: mel
        return
    with loop as step:
        yield step, step.fetch


def _host_step(session: Session, fixed: dict[str, Any]) -> samplers.Step:
    """Return a denoiser's graph as a step over arrays."""

    def step(x: Mel, t: float, s: float, eta: float, noise: Mel) -> tuple[Mel, Mel]:
        scalars = {"t": t, "s": s, "eta": eta}
        inputs = {name: np.array([value], np.float32) for name, value in scalars.items()}
        outputs = session.run({"x": x, "noise": noise, **inputs, **fixed})
        return outputs["x_next"], outputs["x0"]

    return step


def _mixed_conditions(
    condition: Embedding, weight: float, negative: Embedding | None
) -> dict[str, Any]:
    """Return condition [G, B, D] and weights [G]: both halves of guidance in a batch, or one."""
    if weight == 1.0:
        return {"condition": condition[None], "weights": np.ones(1, np.float32)}
    other = np.zeros_like(condition) if negative is None else negative
    stacked = np.stack([condition, np.broadcast_to(other, condition.shape)])
    weights = np.array([weight, 1.0 - weight], np.float32)
    return {"condition": stacked.astype(np.float32), "weights": weights}


def _unit(vector: Embedding, where: str) -> Embedding:
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0.0:
        raise NumericalError(f"{where} gave an embedding of length {length}")
    return (vector / length).astype(np.float32)
