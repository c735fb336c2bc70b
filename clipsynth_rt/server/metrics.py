"""What Prometheus is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.process_collector import ProcessCollector

from clipsynth_rt.audio.clip import AudioClip

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_RTF = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """The metrics of one application, in a registry of its own.

    Args:
        depth: Returns how many clips wait.
        capacity: How many may.
        facts: Constant labels of ``clipsynth_info``.
    """

    def __init__(self, depth: Callable[[], int], capacity: int, facts: dict[str, str]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        common: Any = {"registry": self.registry}
        self.requests = Counter(
            "clipsynth_requests", "Requests answered.", ["route", "status"], **common
        )
        self.request_s = Histogram(
            "clipsynth_request_seconds",
            "From a request to its whole answer.",
            ["route"],
            buckets=_SECONDS,
            **common,
        )
        self.rejected = Counter(
            "clipsynth_rejected", "Requests that were not served, by reason.", ["reason"], **common
        )
        self.stage_s = Histogram(
            "clipsynth_stage_seconds",
            "A clip's share of each stage; queue is its wait.",
            ["stage"],
            buckets=_SECONDS,
            **common,
        )
        self.rtf = Histogram(
            "clipsynth_rtf", "Real-time factor of each clip.", buckets=_RTF, **common
        )
        self.batch = Histogram(
            "clipsynth_batch_clips",
            "Clips made together, counted by clip.",
            buckets=(1, 2, 4, 8, 16),
            **common,
        )
        self.audio_s = Counter("clipsynth_audio_seconds", "Seconds of sound made.", **common)
        waiting = Gauge("clipsynth_queue_depth", "Clips that wait.", **common)
        waiting.set_function(depth)
        Gauge("clipsynth_queue_capacity", "Clips that may wait.", **common).set(capacity)
        threads = Gauge("clipsynth_threads", "Threads of the server.", **common)
        threads.set_function(threading.active_count)
        Info("clipsynth", "What runs here.", **common).info(facts)

    def observe(self, clip: AudioClip, waited_s: float, batch: int) -> None:
        """Note a finished clip."""
        self.stage_s.labels("queue").observe(waited_s)
        for stage, seconds in clip.stages_s.items():
            self.stage_s.labels(stage).observe(seconds)
        self.rtf.observe(clip.rtf)
        self.batch.observe(batch)
        self.audio_s.inc(clip.audio_s)
