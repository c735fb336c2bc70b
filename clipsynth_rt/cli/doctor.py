"""``clipsynth-rt doctor``: what is installed here, and what would run."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from typing import Any

import click

from clipsynth_rt import __version__
from clipsynth_rt.errors import BundleError, MissingExtraError

_PACKAGES = (
    "numpy",
    "tokenizers",
    "soundfile",
    "pillow",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "torch",
    "onnx",
    "open_clip_torch",
    "av",
    "pyfluidsynth",
)


@click.command("doctor")
@click.option("--bundle", metavar="PATH", help="Bundle folder; the shipped one if left out.")
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
        "packages": {name: _version(name) for name in _PACKAGES},
        **_providers(),
        "bundle": _bundle(bundle),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _providers() -> dict[str, Any]:
    """Run a one-operator graph on every provider, rather than believe a list."""
    from clipsynth_rt.backends import PROVIDERS

    try:
        from clipsynth_rt.backends import ort
    except MissingExtraError as error:
        return {"providers": dict.fromkeys(PROVIDERS, str(error)), "auto": None, "threads": None}
    problems = {name: ort.probe(name) for name in PROVIDERS}
    return {
        "providers": {name: problem or "ok" for name, problem in problems.items()},
        "auto": ort.choose_provider("auto"),
        "threads": ort.physical_cores(),
    }


def _bundle(path: str | None) -> dict[str, Any]:
    from clipsynth_rt.bundle import Bundle

    try:
        bundle = Bundle.open(path)
        size = bundle.verify()
    except BundleError as error:
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
        lines.append(
            f"would run {bundle['name']} on {facts['auto']} with {facts['threads']} CPU threads"
        )
    return "\n".join(lines)
