"""One voice for many requests: plans, the queue, deadlines, and clients who leave."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request

from clipsynth_rt import __version__
from clipsynth_rt.audio.clip import AudioClip
from clipsynth_rt.errors import ClipSynthError, InputError, MissingExtraError
from clipsynth_rt.server.batcher import Batcher, Job, QueueClosedError, QueueFullError
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
        synthesizer: The voice; only the queue's thread makes it speak.
        settings: What is allowed.
    """

    def __init__(self, synthesizer: Synthesizer, settings: Settings) -> None:
        self.synthesizer, self.settings = synthesizer, settings
        manifest = synthesizer.bundle.manifest
        # decoding pictures and encoding sounds: a few at a time, beside the voice's own thread
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="clipsynth-codec")
        limits = settings.limits
        self.reader = RequestReader(limits, manifest.condition.image_size, self._executor)
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
                "num_steps": limits.num_steps,
                "deadline_s": limits.deadline_s,
                "upload_bytes": limits.upload_bytes,
                "image_pixels": limits.image_pixels,
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
        self._executor.shutdown()

    def _make_batch(self, jobs: Sequence[Job], cancel: Cancel) -> list[AudioClip]:
        return self.synthesizer.synth_batch(
            [job.query for job in jobs if job.query is not None],
            images=[job.image for job in jobs if job.image is not None],
            seed=[job.seed for job in jobs],
            cancel=cancel,
            **jobs[0].options,
        )

    def jobs(self, wanted: ParsedRequest) -> list[Job]:
        """Return what has to be made for a request.

        Raises:
            ProblemError: If the voice cannot do it.
        """
        manifest, options = self.synthesizer.bundle.manifest, wanted.request.options
        if wanted.images and "image_encoder" not in manifest.graphs:
            raise invalid(f"the voice {manifest.name} does not understand pictures", "image")
        try:
            plan = resolve_options(SynthOptions(**options), manifest)
        except InputError as error:
            raise invalid(str(error)) from error
        except MissingExtraError as error:
            raise ProblemError(501, "not_installed", f"on the server {error}") from error
        limits, duration = self.settings.limits, plan.num_samples / manifest.mel.sample_rate
        if plan.num_steps > limits.num_steps:
            raise invalid(f"at most {limits.num_steps}, got {plan.num_steps}", "num_steps")
        # one frame more: a loop's length is rounded to whole frames
        if duration > limits.duration + manifest.mel.seconds(1):
            raise invalid(f"at most {limits.duration:g}, got {duration:g}", "duration")
        if any(not text.strip() for text in wanted.request.texts):
            raise invalid('is empty; say what to hear, for example "drum"', "query")
        seeds = wanted.request.seeds(wanted.count)
        if wanted.images:
            return [
                Job(plan, options, seed, image=image)
                for seed, image in zip(seeds, wanted.images, strict=True)
            ]
        texts = wanted.request.texts
        return [Job(plan, options, s, query=text) for s, text in zip(seeds, texts, strict=True)]

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
        try:
            self.batcher.submit(jobs)
        except QueueFullError as error:
            raise busy("the queue is full", "queue_full", error.retry_s) from error
        except QueueClosedError as error:
            raise busy("the server is stopping", "stopping", 5, 503) from error
        clips = asyncio.gather(*(asyncio.wrap_future(job.future) for job in jobs))
        left = asyncio.create_task(_client_left(request))
        try:
            waited: set[asyncio.Future[Any]] = {clips, left}
            timeout = max(0.0, deadline_s - spent_s)
            await asyncio.wait(waited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if clips.done():
                return clips.result()
            if left.done():
                raise ClientDisconnect
            raise self._too_late(jobs, deadline_s)
        except ClipSynthError as error:
            logger.error("%s", error, extra={"error": type(error).__name__})
            raise from_error(error) from error
        finally:
            left.cancel()
            clips.cancel()
            self.batcher.abandon(jobs)

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
                await loop.run_in_executor(self._executor, clip.write_to, buffer, format)
            except InputError as error:
                raise invalid(str(error), "format") from error
            encoded.append(EncodedClip(clip, buffer.getvalue(), format, job.waited_s, job.batch))
            self.metrics.observe(clip, job.waited_s, job.batch)
        return encoded


async def _client_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
