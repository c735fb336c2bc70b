"""``clipsynth-rt info``: what a bundle is."""

from __future__ import annotations

import json
from typing import Any

import click

from clipsynth_rt.cli.common.voice import BUNDLE_HELP
from clipsynth_rt.errors import InputError
from clipsynth_rt.synthesis.options import MAX_DURATION_S


@click.command("info")
@click.option("--bundle", metavar="BUNDLE", help=BUNDLE_HELP)
@click.option(
    "--sound", type=click.Path(readable=False), metavar="FILE", help="What a sound file says it is."
)
@click.option("--json", "as_json", is_flag=True, help="The same, for machines.")
def command(bundle: str | None, sound: str | None, as_json: bool) -> None:
    """Show what a bundle is and how good it is, after checking every file's hash.

    With --sound, show the tag of a sound file: which voice made it, of what and from which seed.
    """
    from clipsynth_rt.bundles.bundle import Bundle

    if sound is not None:
        from clipsynth_rt.audio.provenance import read_tag

        tag = read_tag(sound)
        if tag is None:
            raise InputError(f"{sound}: carries no tag of clipsynth-rt")
        lines = (f"{name.replace('_', ' '):15}{value}" for name, value in tag.items())
        click.echo(json.dumps(tag) if as_json else "\n".join(lines))
        return
    facts = Bundle.open(bundle).describe()
    click.echo(json.dumps(facts, indent=1) if as_json else _lines(facts))


def _lines(facts: dict[str, Any]) -> str:
    mel, diffusion, condition = facts["mel"], facts["diffusion"], facts["condition"]
    rate = mel["sample_rate"]
    usual = diffusion["default_frames"] * mel["hop_length"] / rate
    lines = [
        f"{facts['name']} ({facts['license']}), {facts['bytes'] / 1e6:.1f} MB, all hashes right",
        f"folder      {facts['path']}",
        f"sound       {rate} Hz mono, {usual:.2f} s by default, {MAX_DURATION_S:g} s at most",
        f"mel         {mel['n_mels']} bins of {mel['f_min_hz']:g} to {mel['f_max_hz']:g} Hz, hop "
        f"{mel['hop_length']}, window {mel['win_length']}",
        f"sampling    {diffusion['num_steps']} steps, guidance {diffusion['guidance_scale']:g}",
        *(f"distilled   {num_steps}" for num_steps in _distilled(diffusion["distilled_steps"])),
        f"condition   {condition['encoder']}, {condition['dim']} dimensions, "
        f"{condition['context_length']} tokens, images {condition['image_size']} px",
        *(f"template    {template}" for template in condition["templates"]),
    ]
    for name, graph in facts["graphs"].items():
        sizes = ", ".join(
            f"{precision}{'*' if precision == graph['default'] else ''} {size / 1e6:.2f} MB"
            for precision, size in graph["bytes"].items()
        )
        lines.append(f"graph       {name}: {sizes}")
    lines += [f"metric      {name}: {value}" for name, value in _flat(facts["metrics"])]
    lines += [f"provenance  {name}: {value}" for name, value in _flat(facts["provenance"])]
    return "\n".join(lines)


def _distilled(counts: list[int]) -> list[str]:
    """Return what there is to say of a distilled denoiser's step counts: nothing without one."""
    if not counts:
        return []
    others = f" (also {', '.join(map(str, counts[1:]))})" if counts[1:] else ""
    return [f"{counts[0]} steps by default{others}, one network call each, guidance built in"]


def _flat(data: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return nested facts as dotted names and values."""
    pairs: list[tuple[str, Any]] = []
    for key, value in data.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs
