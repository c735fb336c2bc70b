"""The stages of synthesis, each on its own: encode a query, sample a mel, vocode it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt import sampler as samplers
from clipsynth_rt.backends import ENGINE_PROVIDERS, Session, choose, open_session
from clipsynth_rt.backends.engines import engine_precision
from clipsynth_rt.bundle import Bundle
from clipsynth_rt.config import check_query
from clipsynth_rt.errors import BackendError, NumericalError
from clipsynth_rt.images import load_image
from clipsynth_rt.sampler import Mel, Progress
from clipsynth_rt.schedule import gaussian_noise, sampling_times
from clipsynth_rt.tokenizer import Tokenizer

if TYPE_CHECKING:
    from PIL.Image import Image

    from clipsynth_rt.backends.trt import TrtBackend

Embedding = NDArray[np.float32]


class Stages:
    """A bundle's graphs on one provider, each loaded when it is first needed.

    Args:
        bundle: An opened bundle.
        provider: One of ``backends.PROVIDERS``, or ``auto``: the best that works, engines only
            where they are built already.
        precision: See ``Bundle.graph``.
        threads: CPU threads; None is one for each physical core.

    Raises:
        InputError: If there is no provider of that name.
        MissingExtraError: If ONNX Runtime is not installed.
        ProviderUnavailableError: If the provider asked for by name does not load here.
    """

    def __init__(
        self,
        bundle: Bundle,
        provider: str = "auto",
        precision: str | Mapping[str, str] | None = None,
        threads: int | None = None,
    ) -> None:
        self.bundle = bundle
        self.choice = choose(provider, self._unready(precision))
        self.provider = self.choice.provider
        self.precision = precision
        self._threads = threads
        self._sessions: dict[str, Session] = {}
        self._tokenizer: Tokenizer | None = None
        self.engines: TrtBackend | None = None
        if self.provider in ENGINE_PROVIDERS:
            from clipsynth_rt.backends.trt import TrtBackend

            self.engines = TrtBackend(bundle, self.provider, precision)

    def _unready(self, precision: str | Mapping[str, str] | None) -> Callable[[str], str]:
        """Return what ``auto`` asks of a provider that loads."""

        def unready(name: str) -> str:
            if name not in ENGINE_PROVIDERS:
                return ""
            from clipsynth_rt.backends import trt

            return trt.unready(self.bundle, name, precision)

        return unready

    def close(self) -> None:
        """Give sessions and device memory back; the stages are of no use afterwards."""
        self._sessions.clear()
        if self.engines is not None:
            self.engines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load(self, graphs: Sequence[str]) -> None:
        """Load graphs side by side: parsing and optimising one keeps a single core busy."""
        missing = [name for name in graphs if name not in self._sessions]
        if len(missing) == 1:
            self._sessions[missing[0]] = self._open(missing[0])
        elif missing:
            with ThreadPoolExecutor(len(missing)) as pool:
                self._sessions.update(zip(missing, pool.map(self._open, missing), strict=True))

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the graphs loaded so far."""
        return tuple(self._sessions)

    @property
    def file_precision(self) -> str | Mapping[str, str] | None:
        """Which files are loaded: what the caller chose, or on engines fp16 where there is one."""
        if self.engines is None:
            return self.precision
        return engine_precision(self.bundle, self.precision)

    def _open(self, name: str) -> Session:
        if name == "text_encoder" and self.bundle.manifest.condition.tokenizer is not None:
            # beside the other graphs: a vocabulary takes longer to read than a prompt to encode
            self._read_tokenizer()
        graph = self.bundle.graph(name, self.file_precision)
        if self.engines is not None:
            return self.engines.session(graph)
        return open_session(graph, self.provider, self._threads)

    def session(self, name: str) -> Session:
        """Return a graph's session, loading it if need be."""
        if name not in self._sessions:
            self.load([name])
        return self._sessions[name]

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
        return self._read_tokenizer().tokenize(prompts)

    def _read_tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            path = self.bundle.tokenizer_file()
            length = self.bundle.manifest.condition.context_length
            self._tokenizer = Tokenizer(path, length)
        return self._tokenizer

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
        steps: int | None = None,
        guidance: float | None = None,
        eta: float = 0.0,
        negative: Embedding | None = None,
        sampler: str = "ddim",
        noise: Mel | None = None,
        progress: Progress | None = None,
    ) -> Mel:
        """Return normalised mels, float32 [B, M, F], for embeddings [B, D].

        Args:
            condition: From ``encode_text`` or ``encode_images``, float32 [B, D].
            seeds: One a clip.
            num_frames: F, a multiple of the bundle's ``frames_multiple``.
            steps: Denoising steps; None is the bundle's.
            guidance: Scale w; None is the bundle's.
            eta: 0 to 1.
            negative: Embedding to steer away from, float32 [D] or [B, D]; None is the learned
                null condition.
            sampler: ``ddim`` or ``dpmpp_2m``.
            noise: float32 [B, M, F] to start from; None makes it from ``seeds``.
            progress: Called with (steps done, steps in all).

        Raises:
            InputError: If ``steps`` or a seed is out of range.
            NumericalError: If the mel is not finite.
            BackendError: If the graph fails or gives another shape.
        """
        diffusion, bins = self.bundle.manifest.diffusion, self.bundle.manifest.mel.n_mels
        times = sampling_times(diffusion.num_steps if steps is None else steps, diffusion)
        weight = diffusion.guidance_scale if guidance is None else guidance

        def noise_for_step(stream: int) -> Mel:
            return np.stack([gaussian_noise(seed, num_frames, bins, stream) for seed in seeds])

        x = noise_for_step(0) if noise is None else noise
        fixed = _mixed_conditions(condition, weight, negative)
        if sampler == "dpmpp_2m":
            step = self._host_step(fixed)
            mel = samplers.dpmpp_2m(step, x, times, progress=progress)
        else:
            with self._device_step(x, fixed) as (step, fetch):
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

    @contextmanager
    def _device_step(
        self, x: Mel, fixed: dict[str, Any]
    ) -> Iterator[tuple[samplers.Step, Callable[[Any], Mel]]]:
        """Give the step that leaves x where it is, and what brings the last x to the host."""
        session = self.session("denoiser_step")
        if session.provider != "cuda":
            yield self._host_step(fixed), lambda mel: mel
            return
        from clipsynth_rt.backends.ort import OrtSession

        assert isinstance(session, OrtSession)
        with session.loops.loop(x, fixed) as step:
            yield step, lambda value: value.numpy()

    def _host_step(self, fixed: dict[str, Any]) -> samplers.Step:
        """Return the graph as a step over arrays."""
        session = self.session("denoiser_step")

        def step(x: Mel, t: float, s: float, eta: float, noise: Mel) -> tuple[Mel, Mel]:
            scalars = {"t": t, "s": s, "eta": eta}
            inputs = {name: np.array([value], np.float32) for name, value in scalars.items()}
            outputs = session.run({"x": x, "noise": noise, **inputs, **fixed})
            return outputs["x_next"], outputs["x0"]

        return step

    def vocode(self, mel: Mel) -> NDArray[np.float32]:
        """Return waveforms, float32 [B, F * hop_length], of normalised mels [B, M, F].

        Raises:
            BackendError: If the graph fails or gives another length.
        """
        # one run a clip, for the reason in encode_text, and for its memory
        session = self.session("vocoder")
        waveforms = np.concatenate([session.run({"mel": row[None]})["waveform"] for row in mel])
        expected = (len(mel), mel.shape[2] * self.bundle.manifest.mel.hop_length)
        if waveforms.shape != expected:
            raise BackendError(f"vocoder gave {waveforms.shape} samples instead of {expected}")
        return waveforms


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
