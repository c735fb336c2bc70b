"""Prebuild a bundle's engines, so that the first sound does not wait for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clipsynth_rt.backends.tensorrt import api as trt_api
from clipsynth_rt.backends.tensorrt import cuda
from clipsynth_rt.backends.tensorrt.api import BuildProgress, TensorRTApi
from clipsynth_rt.backends.tensorrt.engine_cache import EngineCache
from clipsynth_rt.backends.tensorrt.engines import BATCH_SIZES, EngineSpec, all_engines
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.errors import (
    ClipSynthError,
    EngineError,
    InputError,
    MissingExtraError,
    ProviderUnavailableError,
)

Progress = Callable[[float, int, str], None]
"""Called with (engines done, with the share of the current one; engines in all; its name)."""


@dataclass
class Built:
    """Result of ``prebuild``.

    Attributes:
        library: The builder, with its version.
        paths: The engines' files, earlier ones included.
        failures: One line for each engine that could not be built.
    """

    library: str
    paths: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Raise if something could not be built.

        Raises:
            EngineError: With the first reason.
        """
        if self.failures:
            count = len(self.paths) + len(self.failures)
            raise EngineError(
                f"{len(self.failures)} of {count} engines could not be built; the first: "
                f"{self.failures[0]}"
            )


def choose_builder(provider: str, targets: Sequence[str]) -> tuple[TensorRTApi, tuple[str, ...]]:
    """Return what builds, and for which targets.

    Args:
        provider: One of ``trt_api.LIBRARIES``, or ``auto``: the first that can build here.
        targets: Compute capabilities; none is the GPU's own, or without a GPU the portable
            engines of TensorRT for RTX.

    Raises:
        InputError: If a target or the provider is unknown.
        MissingExtraError: If no builder is installed.
        ProviderUnavailableError: If the one asked for cannot build here.
    """
    if provider not in ("auto", *trt_api.LIBRARIES):
        raise InputError(f"unknown builder {provider!r}; use auto, {', '.join(trt_api.LIBRARIES)}")
    names = trt_api.LIBRARIES if provider == "auto" else (provider,)
    if provider == "auto" and targets:
        names = ("tensorrt-rtx",)  # the one that builds for other GPUs than its own
    problem: ClipSynthError | None = None
    for name in names:
        try:
            library = trt_api.load_library(name)
            library.check_targets(tuple(targets))
            return library, tuple(targets) or _own_targets(library)
        except (MissingExtraError, ProviderUnavailableError) as error:
            problem = error
    assert problem is not None
    raise problem


def _own_targets(library: TensorRTApi) -> tuple[str, ...]:
    try:
        return library.targets_for(cuda.open_device().compute_capability)[:1]
    except (MissingExtraError, ProviderUnavailableError) as error:
        if library.name == "tensorrt-rtx":
            return (trt_api.PORTABLE,)
        raise ProviderUnavailableError(
            f"{library.name} builds for the GPU that it runs on: {error}"
        ) from error


def estimate_s(
    specs: Sequence[EngineSpec], library: TensorRTApi, targets: Sequence[str], cache: EngineCache
) -> tuple[int, float | None]:
    """Return how many engines are yet to be built, and about how many seconds that takes.

    The time is None where no earlier build of such a graph here says.
    """
    missing = [
        spec.graph.name
        for target in targets
        for spec in specs
        if cache.read(spec, library, target) is None
    ]
    seconds = {name: cache.build_seconds(name, library) for name in set(missing)}
    total = 0.0
    for name in missing:
        known = seconds[name]
        if known is None:
            return len(missing), None
        total += known
    return len(missing), total


def build_engines(
    specs: Sequence[EngineSpec],
    library: TensorRTApi,
    targets: Sequence[str],
    cache: EngineCache,
    progress: Progress | None = None,
) -> Built:
    """Build what is not built yet; an engine that fails does not stop the next.

    Raises:
        OutputError: If the folder cannot be written.
    """
    built = Built(f"{library.name} {library.version}")
    jobs = [(spec, target) for target in targets for spec in specs]
    label = ""
    for done, (spec, target) in enumerate(jobs):
        label = f"{spec.label} for {target}"
        if progress is not None:
            progress(done, len(jobs), label)
        try:
            cache.get(spec, library, target, _share(progress, done, len(jobs), label))
            built.paths.append(cache.path(spec, library, target))
        except EngineError as error:
            built.failures.append(f"{label}: {error}")
    if progress is not None and jobs:
        progress(len(jobs), len(jobs), label)
    return built


def prebuild(
    bundle: Bundle,
    provider: str = "auto",
    targets: Sequence[str] = (),
    precision: str | Mapping[str, str] | None = None,
    *,
    buckets: Sequence[int] | None = None,
    batches: Sequence[int] = BATCH_SIZES,
    cache: EngineCache | None = None,
    report: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Built:
    """Build a bundle's engines.

    Args:
        bundle: An opened bundle.
        provider: See ``choose_builder``, as ``targets``.
        targets: See there.
        precision: See ``engines.engine_precision``.
        buckets: Lengths in frames; None is all.
        batches: Batch sizes.
        cache: Where engines go; None is the user's cache.
        report: Told in a line what is to be done, with an estimate.
        progress: Told how far it is.

    Raises:
        ClipSynthError: As ``choose_builder``, ``all_engines`` and ``build_engines``.
    """
    library, chosen = choose_builder(provider, targets)
    specs = all_engines(bundle, precision, buckets=buckets, batches=batches)
    cache = cache or EngineCache()
    if report is not None:
        count, seconds = estimate_s(specs, library, chosen, cache)
        time = "no earlier build says how long" if seconds is None else f"about {seconds:.0f} s"
        report(
            f"{library.name} {library.version} for {', '.join(chosen)}: "
            f"{len(specs) * len(chosen)} engines, {count} to build"
            + (f" ({time})" if count else "")
        )
    return build_engines(specs, library, chosen, cache, progress)


def _share(progress: Progress | None, done: int, count: int, label: str) -> BuildProgress | None:
    if progress is None:
        return None
    return lambda share: progress(done + share, count, label)
