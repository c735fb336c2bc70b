"""One voice for many requests: options, the queue, deadlines, and clients who leave."""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request

from clipsynth_rt import __version__
from clipsynth_rt.audio.clip import AudioClip
from clipsynth_rt.audio.mel import min_samples
from clipsynth_rt.bundles.manifest import frame_buckets
from clipsynth_rt.errors import ClipSynthError, InputError, MissingExtraError
from clipsynth_rt.server.batcher import (
    Batcher,
    Job,
    QueueClosedError,
    QueueFullError,
    WorkerDiedError,
)
from clipsynth_rt.server.metrics import Metrics
from clipsynth_rt.server.problems import ProblemError, busy, from_error, invalid
from clipsynth_rt.server.requests import IMAGE_FORMATS, ParsedRequest, RequestReader
from clipsynth_rt.server.responses import MEDIA_TYPES, EncodedClip
from clipsynth_rt.server.settings import Settings
from clipsynth_rt.synthesis.options import (
    MAX_DURATION_S,
    SAMPLERS,
    SynthOptions,
    describe_options,
    resolve_options,
)

if TYPE_CHECKING:
    from clipsynth_rt.synthesis.synthesizer import Cancel, Synthesizer

logger = logging.getLogger(__name__)


class Service:
    """What the routes share.

    Args:
        synthesizer: The voice; only the queue's thread runs it.
        settings: Limits and access.
    """

    def __init__(self, synthesizer: Synthesizer, settings: Settings) -> None:
        self.synthesizer, self.settings = synthesizer, settings
        manifest = synthesizer.bundle.manifest
        # files of forms one at a time, which bounds their memory, and apart from the encoding of
        # sounds, which does not wait for them; the voice has a thread of its own
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="clipsynth-decode")
        self._encoder = ThreadPoolExecutor(2, thread_name_prefix="clipsynth-encode")
        limits = settings.limits
        self.reader = RequestReader(limits, manifest.condition.image_size, self._decoder)
        self.batcher = Batcher(self._make_batch, limits.queue, limits.batch)
        facts = {
            "version": __version__,
            "bundle": manifest.name,
            "provider": synthesizer.provider,
        }
        self.metrics = Metrics(lambda: self.batcher.depth, limits.queue, facts)
        described = synthesizer.bundle.describe()
        del described["path"]
        self.facts = {**described, "server": self._describe()}

    def _describe(self) -> dict[str, Any]:
        limits, manifest = self.settings.limits, self.synthesizer.bundle.manifest
        return {
            "version": __version__,
            "provider": self.synthesizer.provider,
            "formats": list(MEDIA_TYPES),
            "samplers": list(SAMPLERS),
            "options": describe_options(manifest),
            "images": list(IMAGE_FORMATS) if "image_encoder" in manifest.graphs else [],
            "limits": {
                "queue": limits.queue,
                "clips": limits.clips,
                "query_chars": limits.query_chars,
                "duration": min(limits.duration, MAX_DURATION_S),
                # of a sound that the distilled denoiser makes
                "distilled_duration": manifest.mel.seconds(frame_buckets(manifest)[-1]),
                "num_steps": limits.num_steps,
                "deadline_s": limits.deadline_s,
                "upload_bytes": limits.upload_bytes,
                "image_pixels": limits.image_pixels,
                "form_pixels": limits.form_pixels,
            },
        }

    def warm_up(self) -> None:
        """Let the voice compile what it compiles for each size of batch, before anyone waits.

        On the queue's thread, for ONNX Runtime keeps CUDA graphs by the thread that captured them.

        Raises:
            ClipSynthError: If it cannot make a sound.
        """
        self.batcher.start(self._make_every_size)

    def _make_every_size(self) -> None:
        size = 1
        while size <= self.settings.limits.batch:
            self.synthesizer.synth_batch(["sound"] * size)
            if self.synthesizer.provider == "cpu":
                return  # any size is the same to it
            size *= 2

    def close(self) -> None:
        """Finish what was taken, and stop."""
        self.batcher.close()
        self._decoder.shutdown()
        self._encoder.shutdown()

    def _make_batch(self, jobs: Sequence[Job], cancel: Cancel) -> list[AudioClip]:
        return self.synthesizer.synth_batch(
            [job.query for job in jobs if job.query is not None],
            images=[job.image for job in jobs if job.image is not None],
            init=jobs[0].init,
            seed=[job.seed for job in jobs],
            cancel=cancel,
            **jobs[0].options,
        )

    def jobs(self, parsed: ParsedRequest) -> list[Job]:
        """Return what has to be made for a request.

        Raises:
            ProblemError: If the voice cannot do it.
        """
        manifest, options = self.synthesizer.bundle.manifest, parsed.request.options
        if parsed.images and "image_encoder" not in manifest.graphs:
            raise invalid(f"the voice {manifest.name} does not understand pictures", "image")
        init, shortest = parsed.init, min_samples(manifest.mel)
        if init is not None and init.audio_s * manifest.mel.sample_rate < shortest:
            raise invalid(
                f"the sound is too short, {1000 * init.audio_s:.3g} ms; at least "
                f"{1000 * shortest / manifest.mel.sample_rate:.3g} ms are needed",
                "init",
            )
        try:
            resolved = resolve_options(
                SynthOptions(**options), manifest, None if init is None else init.audio_s
            )
        except InputError as error:
            raise invalid(str(error)) from error
        except MissingExtraError as error:
            raise ProblemError(501, "not_installed", f"on the server {error}") from error
        limits, duration = self.settings.limits, resolved.num_samples / manifest.mel.sample_rate
        if resolved.num_steps > limits.num_steps:
            raise invalid(f"at most {limits.num_steps}, got {resolved.num_steps}", "num_steps")
        # one frame more: a loop's length is rounded to whole frames
        if duration > limits.duration + manifest.mel.seconds(1):
            raise invalid(f"at most {limits.duration:g}, got {duration:g}", "duration")
        texts = parsed.request.texts
        if any(not text.strip() for text in texts):
            raise invalid('is empty; say what to hear, for example "drum"', "query")
        seeds = parsed.request.seeds(parsed.count)
        if parsed.images:
            return [
                Job(resolved, options, seed, image=image, init=init)
                for seed, image in zip(seeds, parsed.images, strict=True)
            ]
        return [
            Job(resolved, options, seed, query=text, init=init)
            for seed, text in zip(seeds, texts, strict=True)
        ]

    def submit(self, jobs: Sequence[Job]) -> None:
        """Put a request's clips into the queue.

        Raises:
            ProblemError: If there is no room, or the server stops.
        """
        try:
            self.batcher.submit(jobs)
        except QueueFullError as error:
            raise busy("the queue is full", "queue_full", error.retry_s) from error
        except QueueClosedError as error:
            raise busy("the server is stopping", "stopping", 5, 503) from error

    async def make(
        self, jobs: Sequence[Job], request: Request, deadline_s: float, spent_s: float = 0.0
    ) -> list[AudioClip]:
        """Wait for clips, as long as the client does and the deadline allows.

        Args:
            jobs: What to make.
            request: Asked whether its client is there.
            deadline_s: Seconds from the request to its clips.
            spent_s: Of these, what it took to read the request.

        Raises:
            ProblemError: If there is no room, the deadline passes or the voice fails.
            ClientDisconnect: If the client leaves first.
        """
        self.submit(jobs)
        clips = asyncio.gather(*(asyncio.wrap_future(job.future) for job in jobs))
        left = asyncio.create_task(_client_left(request))
        for future in (clips, left):
            # whichever is not waited for to its end may fail unseen
            future.add_done_callback(_retrieve)
        try:
            waited: set[asyncio.Future[Any]] = {clips, left}
            timeout = max(0.0, deadline_s - spent_s)
            await asyncio.wait(waited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if clips.done():
                return clips.result()
            if left.done():
                raise ClientDisconnect
            raise self._too_late(jobs, deadline_s)
        except (ClipSynthError, WorkerDiedError) as error:
            raise self._failed(error) from error
        finally:
            left.cancel()
            clips.cancel()
            self.batcher.abandon(jobs)

    async def stream(
        self, jobs: Sequence[Job], format: str, deadline_s: float, spent_s: float = 0.0
    ) -> AsyncIterator[EncodedClip]:
        """Yield the clips of jobs in the queue, each as soon as it and those before it are made.

        Args:
            jobs: What was submitted.
            format: Of the sound files.
            deadline_s: Seconds from the request to its last clip.
            spent_s: Of these, what it took to read the request.

        Raises:
            ProblemError: If the deadline passes or the voice fails.
        """
        end = time.perf_counter() + deadline_s - spent_s
        try:
            for job in jobs:
                clip = asyncio.wrap_future(job.future)
                clip.add_done_callback(_retrieve)
                await asyncio.wait({clip}, timeout=max(0.0, end - time.perf_counter()))
                if not clip.done():
                    raise self._too_late([job], deadline_s)
                try:
                    (encoded,) = await self.encode([clip.result()], [job], format)
                except (ClipSynthError, WorkerDiedError) as error:
                    raise self._failed(error) from error
                yield encoded
        finally:
            self.batcher.abandon(jobs)

    def _failed(self, error: ClipSynthError | WorkerDiedError) -> ProblemError:
        if isinstance(error, WorkerDiedError):
            return busy("the server failed and stops", "stopping", 5, 503)
        logger.error("%s", error, extra={"error": type(error).__name__})
        return from_error(error)

    def _too_late(self, jobs: Sequence[Job], deadline_s: float) -> ProblemError:
        if any(job.batch for job in jobs):
            return ProblemError(
                504,
                "deadline",
                f"not done within {deadline_s:g} s; ask for fewer sounds, steps or seconds",
            )
        return busy(
            f"still waiting after {deadline_s:g} s", "deadline", self.batcher.retry_s(), 503
        )

    async def encode(
        self, clips: Sequence[AudioClip], jobs: Sequence[Job], format: str
    ) -> list[EncodedClip]:
        """Turn clips into sound files.

        Raises:
            ProblemError: If the format cannot be written here.
        """
        loop = asyncio.get_running_loop()
        encoded = []
        for clip, job in zip(clips, jobs, strict=True):
            buffer = io.BytesIO()
            try:
                await loop.run_in_executor(self._encoder, clip.write_to, buffer, format)
            except InputError as error:
                raise invalid(str(error), "format") from error
            encoded.append(EncodedClip(clip, buffer.getvalue(), format, job.waited_s, job.batch))
            self.metrics.observe(clip, job.waited_s, job.batch)
        return encoded


async def _client_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Mark a future's error as seen, which asyncio reports otherwise."""
    if not future.cancelled():
        future.exception()
