"""``clipsynth-rt bench``: how fast a voice is on this machine."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from clipsynth_rt.cli.build import numbers, whole
from clipsynth_rt.cli.common.voice import BUNDLE_HELP, PRECISION, PROVIDER_HELP, THREADS


@click.command("bench")
@click.option("--bundle", metavar="BUNDLE", help=BUNDLE_HELP)
@click.option(
    "--provider",
    "providers",
    default="auto",
    show_default=True,
    callback=numbers,
    metavar="P,P",
    help=PROVIDER_HELP,
)
@PRECISION
@click.option("--num-steps", callback=whole, metavar="N,N", help="Denoising steps; the bundle's.")
@click.option("--batch", "batches", callback=whole, metavar="B,B", help="Clips at once; 1.")
@click.option("--duration", type=float, metavar="SECONDS", help="Length of the sound.")
@click.option("--repeats", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--warmup", type=click.IntRange(min=0), default=2, show_default=True)
@THREADS
@click.option("--json", "as_json", is_flag=True, help="The same, for machines.")
def command(
    bundle: str | None,
    providers: tuple[str, ...],
    precision: str | None,
    num_steps: tuple[int, ...],
    batches: tuple[int, ...],
    duration: float | None,
    repeats: int,
    warmup: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Time every stage and whole clips: median, tenth and ninetieth percentile.

    \b
      clipsynth-rt bench
      clipsynth-rt bench --provider cpu,tensorrt-rtx --num-steps 1,4,8 --batch 1,4 --json
    """  # noqa: D301  (click reads \b as "keep these lines")
    from clipsynth_rt.cli.common.voice import parse_precision
    from clipsynth_rt.jobs.bench import (
        bench_clips,
        bench_stages,
        describe_run,
        peak_memory,
        usual_guidances,
        watch_device,
    )
    from clipsynth_rt.synthesis.synthesizer import Synthesizer

    watch_device()
    runs: list[dict[str, Any]] = []
    for provider in providers:
        began = time.perf_counter()
        with Synthesizer.from_bundle(
            bundle, provider, parse_precision(precision), threads
        ) as synthesizer:
            loaded = time.perf_counter()
            common = {"duration": duration}
            synthesizer.warm_up(duration=duration, num_steps=num_steps[0] if num_steps else None)
            facts = describe_run(synthesizer)
            facts["load_s"] = loaded - began
            facts["first_clip_s"] = time.perf_counter() - loaded
            rows = bench_stages(
                synthesizer, batches=batches or (1,), repeats=repeats, warmup=warmup, **common
            )
            rows += bench_clips(
                synthesizer,
                num_steps=num_steps or (None,),
                guidances=usual_guidances(synthesizer.bundle.manifest),
                batches=batches or (1,),
                repeats=repeats,
                warmup=warmup,
                **common,
            )
            facts |= peak_memory(synthesizer)
        facts["rows"] = [row.to_dict() for row in rows]
        runs.append(facts)
        if not as_json:
            click.echo(_table(facts))
    if as_json:
        click.echo(json.dumps(runs, indent=1))


def _table(facts: dict[str, Any]) -> str:
    device = ", ".join(str(facts[key]) for key in ("gpu", "library") if key in facts)
    device = device or facts["cpu"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    precision = ", ".join(f"{graph} {name}" for graph, name in facts["precision"].items())
    memory = [f"peak memory {facts['peak_memory_mb']:.0f} MB"] if facts["peak_memory_mb"] else []
    if facts["peak_device_mb"] is not None:
        memory.append(f"peak device memory {facts['peak_device_mb']:.0f} MB")
    elif facts["provider"] == "cuda":
        memory.append(f"device memory not known: {facts['peak_device_why']}")
    lines = [
        f"{facts['bundle']} on {facts['provider']} ({device})",
        f"{precision}; {versions}",
        f"loading {1000 * facts['load_s']:.0f} ms, first clip {1000 * facts['first_clip_s']:.0f} "
        f"ms; {', '.join(memory)}",
        f"{'stage':16}{'batch':>6}{'frames':>8}{'steps':>7}{'guidance':>10}"
        f"{'median':>13}{'10%':>12}{'90%':>12}{'RTF':>9}",
    ]
    for row in facts["rows"]:
        times = [f"{1000 * row[key]:.2f} ms" for key in ("median_s", "low_s", "high_s")]
        rtf = "" if row["rtf"] is None else f"{row['rtf']:.4f}"
        lines.append(
            f"{_stage(row):16}{row['batch']:6}{row['frames'] or '':>8}{row['num_steps'] or '':>7}"
            f"{row['guidance_scale']:10g}{times[0]:>13}{times[1]:>12}{times[2]:>12}{rtf:>9}"
        )
    return "\n".join(lines)


def _stage(row: dict[str, Any]) -> str:
    return "clip, distilled" if row["stage"] == "clip" and row["distilled"] else str(row["stage"])
