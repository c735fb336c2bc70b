"""``clipsynth-rt doctor``: what is installed here, and what would run."""

from __future__ import annotations

import json
import platform
from typing import Any

import click

from clipsynth_rt import __version__
from clipsynth_rt.cli.common.voice import BUNDLE_HELP
from clipsynth_rt.errors import BundleError, MissingExtraError, ProviderUnavailableError
from clipsynth_rt.machine import package_version, physical_cores
from clipsynth_rt.text import printable

_PACKAGES = (
    "numpy",
    "tokenizers",
    "soundfile",
    "pillow",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx-cu13-bindings",
    "cuda-bindings",
    "torch",
    "onnx",
    "open_clip_torch",
    "av",
    "pyfluidsynth",
)


@click.command("doctor")
@click.option("--bundle", metavar="BUNDLE", help=BUNDLE_HELP)
@click.option("--json", "as_json", is_flag=True, help="The same, for machines.")
def command(bundle: str | None, as_json: bool) -> None:
    """Show what is installed, which providers really load, and what would run."""
    facts = examine(bundle)
    click.echo(json.dumps(facts, indent=1) if as_json else _lines(facts))


def examine(bundle: str | None = None) -> dict[str, Any]:
    """Return the facts of this installation as JSON data; problems are facts too."""
    return {
        "clipsynth_rt": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": {name: package_version(name) for name in _PACKAGES},
        **_providers(bundle),
        "engines": _engines(),
        "bundle": _bundle(bundle),
    }


def _providers(path: str | None) -> dict[str, Any]:
    """Run a one-operator graph on every provider, rather than believe a list."""
    from clipsynth_rt.backends.choice import choose, probe
    from clipsynth_rt.backends.session import ENGINE_PROVIDERS, PROVIDERS
    from clipsynth_rt.bundles.bundle import Bundle

    states: dict[str, str] = {}
    for name in PROVIDERS:
        try:
            states[name] = probe(name) or "ok"
        except MissingExtraError as error:
            states[name] = str(error)

    def why_not_ready(name: str) -> str:
        if name not in ENGINE_PROVIDERS:
            return ""
        from clipsynth_rt.backends.tensorrt import backend as trt

        return trt.why_not_ready(Bundle.open(path), name)

    try:
        choice = choose("auto", why_not_ready)
    except (MissingExtraError, ProviderUnavailableError):
        return {"providers": states, "auto": None, "not_taken": {}, "threads": None}
    threads = None
    if states["cpu"] == "ok":
        threads = physical_cores()
    return {
        "providers": states,
        "auto": choice.provider,
        "not_taken": choice.not_taken,
        "threads": threads,
    }


def _engines() -> dict[str, Any]:
    """Return which TensorRT is here or what to install, the GPU, and what has been built."""
    from clipsynth_rt.backends.openvino.cache import SUFFIX
    from clipsynth_rt.backends.tensorrt import api as trt_api
    from clipsynth_rt.backends.tensorrt import cuda
    from clipsynth_rt.cache import default_cache

    try:
        device = cuda.open_device()
        major, minor = device.compute_capability
        gpu = (
            f"{device.name}, compute capability {major}.{minor}, "
            f"{device.total / 2**20:.0f} MiB, driver for CUDA {device.driver()}"
        )
    except (MissingExtraError, ProviderUnavailableError) as error:
        gpu = str(error)
    folder = default_cache()
    plans = [path.stat().st_size for path in folder.glob("*.plan")]
    compiled = [path.stat().st_size for path in folder.glob(f"*{SUFFIX}")]
    return {
        "libraries": {name: trt_api.describe_library(name) for name in trt_api.LIBRARIES},
        "gpu": gpu,
        "cache": str(folder),
        "plans": len(plans),
        "bytes": sum(plans),
        "openvino_graphs": len(compiled),
        "openvino_bytes": sum(compiled),
    }


def _bundle(path: str | None) -> dict[str, Any]:
    from clipsynth_rt.bundles.bundle import Bundle

    try:
        bundle = Bundle.open(path)
        size = bundle.verify()
    # an address on a hub needs a library
    except (BundleError, MissingExtraError) as error:
        return {"problem": str(error)}
    return {"name": bundle.manifest.name, "path": str(bundle.path), "bytes": size}


def _lines(facts: dict[str, Any]) -> str:
    lines = [
        f"clipsynth-rt {facts['clipsynth_rt']}, Python {facts['python']}, {facts['machine']}",
        *(
            f"package   {name} {version or 'not installed'}"
            for name, version in facts["packages"].items()
        ),
        *(f"provider  {name}: {state}" for name, state in facts["providers"].items()),
        *(f"builder   {name}: {state}" for name, state in facts["engines"]["libraries"].items()),
        f"gpu       {facts['engines']['gpu']}",
        f"engines   {facts['engines']['plans']} built, {facts['engines']['bytes'] / 1e6:.1f} MB, "
        f"in {facts['engines']['cache']}",
        f"compiled  {facts['engines']['openvino_graphs']} graphs by OpenVINO, "
        f"{facts['engines']['openvino_bytes'] / 1e6:.1f} MB, there too",
        *(f"auto      not {name}: {reason}" for name, reason in facts["not_taken"].items()),
    ]
    bundle = facts["bundle"]
    if "problem" in bundle:
        lines.append(f"bundle    {bundle['problem']}")
    else:
        lines.append(
            f"bundle    {bundle['name']}, {bundle['bytes'] / 1e6:.1f} MB, all hashes right"
        )
    if facts["auto"] is None:
        lines.append("would run nothing: there is no ONNX Runtime")
    elif "problem" in bundle:
        lines.append(f"would run on {facts['auto']}, if it had a bundle")
    else:
        threads = f" with {facts['threads']} CPU threads" if facts["threads"] else ""
        lines.append(f"would run {bundle['name']} on {facts['auto']}{threads}")
    return "\n".join(map(printable, lines))
