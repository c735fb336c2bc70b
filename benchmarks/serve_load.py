"""Many clients at once against ``clipsynth-rt serve`` on this machine.

    clipsynth-rt serve --queue 16 &
    python benchmarks/serve_load.py --clients 200 --seconds 60

Every answer must be a sound or a 429, every sound the one that is made alone, and the server must
have as many threads and as little memory at the end as before. It talks to loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx2
import numpy as np
import soundfile

QUERIES = ("drum", "piano", "dog", "rain")
SEEDS = range(4)
OPTIONS: tuple[dict[str, Any], ...] = (
    {"duration": 0.3, "num_steps": 2},
    {"duration": 0.5, "num_steps": 2, "guidance_scale": 1.0},
)
Key = tuple[str, int, int]
"""Query, seed and place in ``OPTIONS``."""


@dataclass
class Report:
    """What came of it.

    Attributes:
        answers: How many of each status; 0 is a connection that failed.
        sounds: The first sound of each kind of request, as a file's bytes.
        differing: Sounds that differ from the first of their kind, at most by rounding if right.
        latencies_s: Of the sounds.
        memory: The server's resident bytes: after a warm-up, and at the end.
        threads: The server's threads, at the same times; None where it does not say.
    """

    answers: Counter[int] = field(default_factory=Counter)
    sounds: dict[Key, bytes] = field(default_factory=dict)
    differing: dict[Key, list[bytes]] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)
    memory: tuple[float, float] = (0.0, 0.0)
    threads: tuple[int, int] | None = None


def run(address: str, clients: int, seconds: float, token: str | None = None) -> Report:
    """Let ``clients`` ask without a pause for ``seconds``."""
    host = httpx2.URL(address).host
    if host not in ("127.0.0.1", "localhost", "::1"):
        raise SystemExit(f"{host} is not this machine; a load test stays on loopback")
    return asyncio.run(_run(address, clients, seconds, token))


async def _run(address: str, clients: int, seconds: float, token: str | None) -> Report:
    report = Report()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    # a connection each, as so many clients would have
    limits = httpx2.Limits(max_connections=clients + 1, max_keepalive_connections=clients + 1)
    async with httpx2.AsyncClient(
        base_url=address, headers=headers, limits=limits, timeout=120.0, trust_env=False
    ) as client:
        # caches, arenas and every connection's buffers fill before the first look at memory
        await _clients(client, Report(), clients, min(5.0, 0.4 * seconds))
        before = await _resources(client)
        await _clients(client, report, clients, seconds)
        after = await _resources(client)
    report.memory = before[0], after[0]
    if before[1] is not None and after[1] is not None:
        report.threads = before[1], after[1]
    return report


async def _clients(client: Any, report: Report, clients: int, seconds: float) -> None:
    end = time.perf_counter() + seconds
    await asyncio.gather(*(_ask(client, report, i, end) for i in range(clients)))


async def _ask(client: Any, report: Report, start: int, end: float) -> None:
    turn = start
    while time.perf_counter() < end:
        turn += 1
        key = (QUERIES[turn % len(QUERIES)], SEEDS[turn // 4 % 4], turn // 16 % len(OPTIONS))
        body = {"query": key[0], "seed": key[1], **OPTIONS[key[2]]}
        began = time.perf_counter()
        try:
            answer = await client.post("/v1/synth", json=body)
        except httpx2.TransportError:
            report.answers[0] += 1
            continue
        report.answers[answer.status_code] += 1
        if answer.status_code == 200:
            report.latencies_s.append(time.perf_counter() - began)
            first = report.sounds.setdefault(key, answer.content)
            if answer.content != first:
                report.differing.setdefault(key, []).append(answer.content)
        else:
            # a fraction of Retry-After: rude, but not a loop that only burns this machine
            await asyncio.sleep(0.05)


async def _resources(client: Any) -> tuple[float, int | None]:
    text = (await client.get("/metrics")).text
    found = dict(re.findall(r"^(process_\w+|clipsynth_threads) (\S+)$", text, re.MULTILINE))
    threads = found.get("clipsynth_threads")
    return float(found.get("process_resident_memory_bytes", 0)), threads and int(float(threads))


def check(report: Report, synthesizer: Any, growth: float = 40e6) -> None:
    """Compare with what ``synthesizer`` makes alone, and refuse what is not as it should be.

    Args:
        report: What came of a run.
        synthesizer: The same voice.
        growth: Bytes that memory may grow by: allocators keep some.
    """
    strange = {status: n for status, n in report.answers.items() if status not in (200, 429)}
    if strange:
        raise AssertionError(f"answers that are neither a sound nor a 429: {strange}")
    for (query, seed, wish), data in report.sounds.items():
        alone = synthesizer.synth(query, seed=seed, **OPTIONS[wish]).waveform
        for sound in (data, *report.differing.get((query, seed, wish), ())):
            made, _ = soundfile.read(io.BytesIO(sound), dtype="float32")
            # half a step of 16 bit, and the rounding of a batch
            np.testing.assert_allclose(made, alone, atol=2e-4)
    grown = report.memory[1] - report.memory[0]
    if grown > growth:
        raise AssertionError(f"memory grew by {grown / 1e6:.0f} MB")
    if report.threads is not None and report.threads[1] > report.threads[0]:
        raise AssertionError(f"threads grew from {report.threads[0]} to {report.threads[1]}")


def main() -> None:
    """Run against a server, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", default="http://127.0.0.1:8000")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--bundle", help="what the server serves; the shipped one if left out")
    parser.add_argument("--provider", default="cpu", help="the server's")
    arguments = parser.parse_args()
    from clipsynth_rt import Synthesizer

    token = os.environ.get("CLIPSYNTH_RT_TOKEN")
    report = run(arguments.address, arguments.clients, arguments.seconds, token)
    check(report, Synthesizer.from_bundle(arguments.bundle, arguments.provider))
    for status, count in sorted(report.answers.items()):
        print(f"{status}: {count}")
    median = 1000 * float(np.median(report.latencies_s))
    late = 1000 * float(np.percentile(report.latencies_s, 99))
    print(f"sounds: median {median:.0f} ms, 99th percentile {late:.0f} ms")
    print(f"memory: {report.memory[0] / 1e6:.0f} to {report.memory[1] / 1e6:.0f} MB")
    print(f"threads: {report.threads}")
    print("every sound as when made alone")


if __name__ == "__main__":
    main()
