"""``clipsynth-rt build``: TensorRT engines of a bundle, ahead of the first sound."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from clipsynth_rt.cli.common.voice import BUNDLE_HELP


def numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Return the parts of a list such as ``80,86``."""
    parts = tuple(dict.fromkeys(part.strip() for part in (value or "").split(",")))
    parts = tuple(part for part in parts if part)
    if value and not parts:
        raise click.BadParameter(f"{value!r} names nothing")
    return parts


def whole(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Return the whole numbers of a list such as ``176,352``, none of them below 1."""
    try:
        found = tuple(int(part) for part in numbers(ctx, param, value))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of whole numbers") from error
    if any(number < 1 for number in found):
        raise click.BadParameter(f"{min(found)} is not in the range x>=1.")
    return found


TARGETS_HELP = (
    "Compute capabilities for tensorrt-rtx, such as 80,86,89,120,121, or portable; the GPU's own "
    "if left out, portable without a GPU."
)


@click.command("build")
@click.option("--bundle", metavar="BUNDLE", help=BUNDLE_HELP)
@click.option("--provider", default="auto", show_default=True, help="tensorrt or tensorrt-rtx.")
@click.option("--targets", callback=numbers, metavar="CC,CC", help=TARGETS_HELP)
@click.option("--precision", metavar="P", help="What to build from; fp16 where there is one.")
@click.option("--frames", callback=whole, metavar="F,F", help="Buckets; all if left out.")
@click.option("--batch", callback=whole, metavar="B,B", help="Batch sizes; all if left out.")
@click.option("--cache", type=click.Path(path_type=Path), help="Where engines are kept.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON, for machines.")
def command(
    bundle: str | None,
    provider: str,
    targets: tuple[str, ...],
    precision: str | None,
    frames: tuple[int, ...],
    batch: tuple[int, ...],
    cache: Path | None,
    as_json: bool,
) -> None:
    """Build TensorRT engines ahead, on a machine with a GPU or without one.

    \b
      clipsynth-rt build                            (for this machine's GPU)
      clipsynth-rt build --targets 86,89 --cache engines/   (for others; copy the folder there
                                                     and set CLIPSYNTH_RT_CACHE to it)
    """  # noqa: D301  (click reads \b as "keep these lines")
    from clipsynth_rt.backends.tensorrt.engine_cache import EngineCache
    from clipsynth_rt.backends.tensorrt.engines import BATCH_SIZES
    from clipsynth_rt.backends.tensorrt.prebuild import prebuild
    from clipsynth_rt.bundles.bundle import Bundle
    from clipsynth_rt.cli.common.progress import engine_progress
    from clipsynth_rt.cli.common.voice import parse_precision

    engines = EngineCache(cache)
    began = time.perf_counter()
    with engine_progress() as progress:
        built = prebuild(
            Bundle.open(bundle),
            provider,
            targets,
            parse_precision(precision),
            buckets=frames or None,
            batches=batch or BATCH_SIZES,
            cache=engines,
            report=None if as_json else click.echo,
            progress=progress,
        )
    seconds = time.perf_counter() - began
    size = sum(path.stat().st_size for path in built.paths)
    if as_json:
        facts: dict[str, Any] = {
            "builder": built.library,
            "folder": str(engines.folder),
            "engines": [path.name for path in built.paths],
            "failures": built.failures,
            "bytes": size,
            "seconds": seconds,
        }
        click.echo(json.dumps(facts, indent=1))
    else:
        click.echo(
            f"{engines.folder}: {len(built.paths)} engines, {size / 1e6:.1f} MB, {seconds:.1f} s"
        )
    built.check()
