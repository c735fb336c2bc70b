"""A list of queries on a Ray cluster: one synthesizer an actor, one sound file a query.

    python examples/ray_batch.py queries.txt sounds/ --workers 2
    python examples/ray_batch.py queries.txt sounds/ --workers 2 --compare --report throughput.json

A line of queries.txt is a query. On a cluster, --address auto joins it and the folder has to be one
that every node sees. --compare makes the same sounds in one process first, on as many threads as
all the workers have together.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import ray

from clipsynth_rt import Synthesizer, __version__
from clipsynth_rt.machine import processor_name

BATCH = 4


class Worker:
    """One process of the pool."""

    def __init__(self, bundle: str | None, out: str, threads: int, num_steps: int | None) -> None:
        self.synthesizer = Synthesizer.from_bundle(bundle, "cpu", threads=threads)
        self.out, self.num_steps = Path(out), num_steps

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make the sounds of one batch of rows (columns ``query`` and ``seed``)."""
        began = time.process_time()
        clips = self.synthesizer.synth_batch(
            [str(query) for query in batch["query"]],
            seed=[int(seed) for seed in batch["seed"]],
            num_steps=self.num_steps,
        )
        for clip in clips:
            clip.save(self.out / f"{clip.seed:06d}.wav")
        spent = (time.process_time() - began) / len(clips)
        return {
            **batch,
            "path": [str(self.out / f"{clip.seed:06d}.wav") for clip in clips],
            "audio_s": [clip.audio_s for clip in clips],
            "cpu_s": [spent] * len(clips),
        }


def on_ray(queries: list[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row a query, in any order."""
    rows = [{"query": query, "seed": seed} for seed, query in enumerate(queries)]
    sounds = ray.data.from_items(rows, override_num_blocks=args.workers).map_batches(
        Worker,
        fn_constructor_args=(args.bundle, str(args.out), args.threads, args.num_steps),
        batch_size=BATCH,
        num_cpus=args.threads,
        compute=ray.data.ActorPoolStrategy(size=args.workers),
    )
    return list(sounds.iter_rows())


def in_one_process(queries: list[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the same rows without Ray."""
    worker = Worker(args.bundle, str(args.out), args.threads * args.workers, args.num_steps)
    rows = []
    for start in range(0, len(queries), BATCH):
        part = queries[start : start + BATCH]
        batch = worker({"query": part, "seed": list(range(start, start + len(part)))})
        rows += [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]
    return rows


def measured(run: Any, queries: list[str], args: argparse.Namespace) -> dict[str, float]:
    """Time a whole run, loading included, and return its throughput."""
    began = time.perf_counter()
    rows = run(queries, args)
    wall_s = time.perf_counter() - began
    return {
        "wall_s": wall_s,
        "clips": len(rows),
        "audio_s": sum(row["audio_s"] for row in rows),
        "clips_per_s": len(rows) / wall_s,
        "cpu_s_per_clip": sum(row["cpu_s"] for row in rows) / len(rows),
    }


def main() -> None:
    """Read the list, make the sounds, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("queries", type=Path, help="text file, a query a line")
    parser.add_argument("out", type=Path, help="folder of the sounds")
    parser.add_argument("--bundle", help="the shipped one if left out")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--num-steps", type=int)
    parser.add_argument("--address", help="of a running cluster; one on this machine if left out")
    parser.add_argument("--compare", action="store_true", help="against one process")
    parser.add_argument("--report", type=Path, help="JSON file")
    args = parser.parse_args()
    queries = [line.strip() for line in args.queries.read_text().splitlines() if line.strip()]
    if not queries:
        parser.error(f"{args.queries}: no query in it")
    args.out = args.out.absolute()
    args.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "clipsynth_rt": __version__,
        "ray": ray.__version__,
        "machine": processor_name(),
        "workers": args.workers,
        "threads_per_worker": args.threads,
    }
    if args.compare:
        report["one_process"] = measured(in_one_process, queries, args)
    here = {} if args.address else {"num_cpus": args.workers * args.threads}
    ray.init(address=args.address, include_dashboard=False, log_to_driver=False, **here)
    report["on_ray"] = measured(on_ray, queries, args)
    ray.shutdown()
    if args.compare:
        report["speedup"] = report["on_ray"]["clips_per_s"] / report["one_process"]["clips_per_s"]
    text = json.dumps(report, indent=1)
    if args.report:
        args.report.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
