"""ONNX to TensorRT: the engines of a freshly exported bundle. Never imports torch.

The builder itself is part of the runtime (``backends/tensorrt``), because engines are built
again on the device whenever its TensorRT differs; this is when and how export calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from clipsynth_rt.backends.tensorrt.engine_cache import EngineCache
from clipsynth_rt.backends.tensorrt.engines import PRECISION
from clipsynth_rt.backends.tensorrt.prebuild import Built, Progress, choose_builder, prebuild
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.errors import InputError, MissingExtraError, ProviderUnavailableError


def wants_engines(
    asked: bool | None,
    precisions: Sequence[str],
    targets: Sequence[str],
    report: Callable[[str], None],
) -> bool:
    """Return whether an export goes on to engines, before any work is done.

    Args:
        asked: The caller's choice; None is: where there is fp16 to build from, and a builder.
        precisions: What is exported.
        targets: See ``choose_builder``.
        report: Told why engines are left out.

    Raises:
        InputError: If a target is unknown, or engines are asked for without fp16.
        MissingExtraError: If engines are asked for and no builder is installed.
        ProviderUnavailableError: If engines are asked for and no builder works here.
    """
    if asked is False:
        if targets:
            raise InputError("--targets is for engines; leave one of it and --no-engines out")
        return False
    asked = asked or bool(targets)
    if PRECISION not in precisions:
        if asked:
            raise InputError(f"engines are built from {PRECISION}; add --precision {PRECISION}")
        return False
    try:
        choose_builder("auto", targets)
    except (MissingExtraError, ProviderUnavailableError) as error:
        if asked:
            raise
        report(f"no engines: {error}")
        return False
    return True


def export_engines(
    folder: str | Path,
    targets: Sequence[str] = (),
    *,
    cache: EngineCache | None = None,
    report: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Built:
    """Build every engine of an exported bundle from its fp16 graphs.

    Args:
        folder: The bundle's.
        targets: See ``choose_builder``.
        cache: Where engines go; None is the user's cache.
        report: Told what is to be done.
        progress: Told how far it is.

    Raises:
        EngineError: If an engine cannot be built; the others are.
        OutputError: If the cache cannot be written.
    """
    built = prebuild(
        Bundle.open(folder),
        "auto",
        targets,
        PRECISION,
        cache=cache,
        report=report,
        progress=progress,
    )
    built.check()
    return built
