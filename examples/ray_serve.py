"""Sounds over HTTP from a pool of replicas: one synthesizer each, requests batched.

    python examples/ray_serve.py --workers 2 --port 8000
    curl "localhost:8000/?query=drum&seed=3" -o drum.wav

An example of scaling out, without a token, deadlines or metrics: ``clipsynth-rt serve`` is the
server of one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from typing import Any

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from clipsynth_rt import Synthesizer
from clipsynth_rt.errors import InputError
from clipsynth_rt.synthesis.options import check_query
from clipsynth_rt.synthesis.schedule import MAX_SEED

LONGEST_QUERY = 256


@serve.deployment
class Sounds:
    """One replica."""

    def __init__(self, bundle: str | None, threads: int) -> None:
        self.synthesizer = Synthesizer.from_bundle(bundle, "cpu", threads=threads)

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=0.01)
    async def synth(self, options: list[tuple[str, int]]) -> list[bytes]:
        """Make the sounds of several requests at once."""
        queries, seeds = zip(*options, strict=True)
        # off the event loop, which goes on taking requests
        clips = await asyncio.to_thread(
            self.synthesizer.synth_batch, list(queries), seed=list(seeds)
        )
        return [clip.encode("wav") for clip in clips]

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        try:
            wish = _wish(request.query_params)
        except InputError as error:
            return PlainTextResponse(f"{error}\n", 400)
        return Response(await self.synth(wish), media_type="audio/wav")


def _wish(parameters: Any) -> tuple[str, int]:
    """Check a request before it joins others in a batch, which it must not spoil."""
    query = check_query(parameters.get("query", ""))
    if len(query) > LONGEST_QUERY:
        raise InputError(f"query of {len(query)} characters; at most {LONGEST_QUERY}")
    seed = parameters.get("seed", "0")
    # int() of thousands of digits raises
    if not (seed.isascii() and seed.isdigit() and len(seed) <= 20 and int(seed) <= MAX_SEED):
        raise InputError(f"seed must be from 0 to {MAX_SEED}, got {seed:.30}")
    return query, int(seed)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", help="the shipped one if left out")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--address", help="of a running cluster; one on this machine if left out")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    ray.init(address=args.address, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": args.host, "port": args.port})
    pool = Sounds.options(
        num_replicas=args.workers,
        ray_actor_options={"num_cpus": args.threads},
        max_ongoing_requests=8,
        max_queued_requests=32,
    )
    serve.run(pool.bind(args.bundle, args.threads), name="clipsynth")
    print(f"ready on http://{args.host}:{args.port}", flush=True)
    # a supervisor's SIGTERM ends it as Ctrl-C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        signal.pause()
    except KeyboardInterrupt:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
