"""``clipsynth-rt info``: what a bundle is, or where a sound comes from."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import click

from clipsynth_rt.cli.common.voice import BUNDLE_HELP
from clipsynth_rt.errors import InputError
from clipsynth_rt.synthesis.options import MAX_DURATION_S
from clipsynth_rt.text import printable

_WIDTH = 100
_TEMPLATES_SHOWN = 3


@click.command("info")
@click.argument("sound", required=False, type=click.Path(readable=False), metavar="[SOUND]")
@click.option("--bundle", metavar="BUNDLE", help=BUNDLE_HELP)
@click.option("--concepts", is_flag=True, help="List what the voice can make, by group.")
@click.option("--json", "as_json", is_flag=True, help="Everything, metrics included, as JSON.")
def command(sound: str | None, bundle: str | None, concepts: bool, as_json: bool) -> None:
    """Show what a bundle is, after checking every file's hash; or the tag of a SOUND file.

    \b
      clipsynth-rt info                 (the shipped voice)
      clipsynth-rt info --concepts      (what it can make)
      clipsynth-rt info drum.wav        (which voice made it, of what and from which seed)
    """  # noqa: D301  (click reads \b as "keep these lines")
    from clipsynth_rt.bundles.bundle import Bundle

    if sound is not None:
        if bundle is not None or concepts:
            raise click.UsageError("SOUND stands alone, without --bundle and --concepts")
        _show_tag(sound, as_json)
        return
    opened = Bundle.open(bundle)
    if concepts:
        listed = opened.manifest.concepts
        click.echo(json.dumps(listed, indent=1) if as_json else _concept_lines(listed))
        return
    facts = opened.describe()
    click.echo(json.dumps(facts, indent=1) if as_json else _lines(facts))


def _show_tag(sound: str, as_json: bool) -> None:
    from clipsynth_rt.audio.provenance import read_tag

    if Path(sound).is_dir():
        raise click.UsageError(f"{sound} is a folder; a bundle is named with --bundle")
    tag = read_tag(sound)
    if tag is None:
        raise InputError(f"{sound}: carries no tag of clipsynth-rt")
    lines = (f"{name.replace('_', ' '):15}{value}" for name, value in tag.items())
    click.echo(json.dumps(tag) if as_json else "\n".join(map(printable, lines)))


def _concept_lines(concepts: dict[str, tuple[str, ...]]) -> str:
    if not concepts:
        return "this bundle does not say what it can make; it takes any query"
    lines = [f"{sum(map(len, concepts.values()))} concepts; other queries are taken too"]
    for group, names in concepts.items():
        lines += ["", f"{group} ({len(names)})"]
        # a name of two words stays on one line
        listed = ", ".join(name.replace(" ", "\0") for name in names)
        wrapped = textwrap.wrap(listed, _WIDTH, initial_indent="  ", subsequent_indent="  ")
        lines += [line.replace("\0", " ") for line in wrapped]
    return "\n".join(lines)


def _lines(facts: dict[str, Any]) -> str:
    """Return one screen: at most 24 lines of a terminal."""
    mel, diffusion, condition = facts["mel"], facts["diffusion"], facts["condition"]
    rate = mel["sample_rate"]
    usual = diffusion["default_frames"] * mel["hop_length"] / rate
    templates = condition["templates"]
    lines = [
        f"{facts['name']} (license {facts['license']}), {facts['bytes'] / 1e6:.1f} MB, "
        "all hashes right",
        f"folder      {facts['path']}",
        f"sound       {rate} Hz mono, {usual:.2f} s by default, {MAX_DURATION_S:g} s at most",
        f"mel         {mel['n_mels']} bins of {mel['f_min_hz']:g} to {mel['f_max_hz']:g} Hz, hop "
        f"{mel['hop_length']}, window {mel['win_length']}",
        f"sampling    {diffusion['num_steps']} steps, guidance {diffusion['guidance_scale']:g}",
        *(f"distilled   {steps}" for steps in _distilled(diffusion["distilled_steps"])),
        f"condition   {condition['encoder']}, {condition['dim']} dimensions, "
        f"{condition['context_length']} tokens, images {condition['image_size']} px",
        *(f"template    {template}" for template in templates[:_TEMPLATES_SHOWN]),
    ]
    if len(templates) > _TEMPLATES_SHOWN:
        lines.append(f"template    and {len(templates) - _TEMPLATES_SHOWN} more (--json)")
    for name, graph in facts["graphs"].items():
        sizes = ", ".join(
            f"{precision}{'*' if precision == graph['default'] else ''} {size / 1e6:.2f} MB"
            for precision, size in graph["bytes"].items()
        )
        lines.append(f"graph       {name}: {sizes}")
    count = sum(map(len, facts["concepts"].values()))
    lines.append(
        f"concepts    {count} in {len(facts['concepts'])} groups (--concepts lists them)"
        if count
        else "concepts    this bundle does not say"
    )
    lines += [f"metrics     {line}" for line in _metrics(facts["metrics"], facts["sha256"])]
    return "\n".join(printable(line[:_LONGEST]) for line in lines[:_MOST_LINES])


_LONGEST, _MOST_LINES = 400, 24


def _metrics(metrics: dict[str, Any], sha256: str) -> list[str]:
    """Return how good the voice is in a line, and which bundle that was measured on."""
    if not metrics:
        return ["none; measure them with clipsynth-rt evaluate"]
    shown: list[str] = []
    for where, name in (("text", "top1"), ("text", "top5"), ("", "top1"), ("", "top5")):
        part = metrics.get(where, {}) if where else metrics
        value = part.get(name) if isinstance(part, dict) else None
        if isinstance(value, int | float) and name not in "".join(shown):
            shown.append(f"{name} {value:.3f}")
    when = metrics.get("measured")
    lines = [f"{', '.join(shown) or len(metrics)}{f' of {when}' if when else ''} (all in --json)"]
    measured_on = metrics.get("bundle_sha256")
    if isinstance(measured_on, str) and measured_on != sha256:
        lines.append(f"measured on bundle {measured_on[:12]}; this one is {sha256[:12]}")
    return lines


def _distilled(counts: list[int]) -> list[str]:
    """Return what there is to say of a distilled denoiser's step counts: nothing without one."""
    if not counts:
        return []
    others = f" (also {', '.join(map(str, counts[1:]))})" if counts[1:] else ""
    return [f"{counts[0]} steps by default{others}, one network call each, guidance built in"]
