"""The evaluation as one command runs it."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Collection, Sequence
from typing import Any

from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.errors import InputError
from clipsynth_rt.machine import describe_machine
from clipsynth_rt.synthesis.options import SynthOptions, resolve_options
from clipsynth_training.evaluate.gap import prior_fingerprint
from clipsynth_training.evaluate.sections import (
    CHEAP,
    FEW,
    OWN_DATA,
    SECTIONS,
    Setup,
    check_measurable,
    check_names,
)
from clipsynth_training.evaluate.study import Study
from clipsynth_training.evaluate.systems import files_fingerprint

logger = logging.getLogger(__name__)


def check_sections(names: Sequence[str]) -> tuple[str, ...]:
    """Return the sections to measure in their order; none named is the cheap ones.

    ``all`` is every one but those of ``OWN_DATA``.

    Raises:
        InputError: If a section is not known.
    """
    if unknown := sorted(set(names) - set(SECTIONS) - {"all"}):
        raise InputError(
            f"no such section: {unknown[0]}; sections are {', '.join(SECTIONS)} and all"
        )
    if not names:
        return CHEAP
    every = {name for name in SECTIONS if name not in OWN_DATA} if "all" in names else set()
    return tuple(name for name in SECTIONS if name in every | set(names))


def evaluate(
    study: Study,
    setup: Setup,
    sections: Sequence[str] = (),
    earlier: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure a voice, and the systems beside it, on the open corpus.

    Args:
        study: What is measured with.
        setup: What is measured.
        sections: Of ``sections.SECTIONS``; the cheap ones if empty.
        earlier: A report whose other sections are kept; see ``merge``.

    Returns:
        A report of JSON data: ``real``, a key or two of each section, ``seeds`` by section, and
        where and when it was measured. ``template`` stands in it where it is not the bundle's, and
        ``prior_sha256`` where queries went through a prior.

    Raises:
        InputError: If a section is not known or would have too few clips, the voice is called as a
            baseline, or ``earlier`` is of another voice or other settings; all before a voice is
            asked.
        ClipSynthError: If an input cannot be used.
    """
    names = check_sections(sections)
    check_measurable(study, setup, names)
    if "systems" in names and not setup.systems:
        check_names([setup.voice.name])
    bundle = setup.voice.synthesizer.bundle
    real = study.real.scores(study.labels)
    plan = resolve_options(SynthOptions(**setup.options), bundle.manifest)
    shares = ("clips", "top1", "top1_interval", "top5", "top5_interval")
    report: dict[str, Any] = {
        "measured": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        **describe_voice(bundle),
        "steps_default": plan.num_steps,
        "guidance_default": plan.guidance_scale,
        "distilled_default": plan.distilled,
        "fad_embedding": "penultimate layer of the corpus classifier",
        "concepts": len(study.concepts) or len(study.labels),
        "seeds": {
            name: setup.few if name in (*FEW, "paraphrases") else setup.seeds
            for name in names
            if name not in ("vocoder", "foley")
        },
        "cure": setup.cure,
        "real": {key: real[key] for key in shares},
        "real_hard_concepts": {
            name: found
            for name, found in real["by_concept"].items()
            if found["right"] < 0.7 * found["of"]
        },
    }
    if plan.templates != bundle.manifest.condition.templates:
        report["template"] = list(plan.templates)
    if setup.cure == "prior" and setup.prior is not None:
        report["prior_sha256"] = prior_fingerprint(setup.prior)
    if earlier is not None:
        _check_same(earlier, report, names)
    for number, name in enumerate(names, 1):
        seeds = report["seeds"].get(name)
        count = f", {seeds} clips a query" if seeds else ""
        logger.info("section %s, %d of %d%s", name, number, len(names), count)
        report |= SECTIONS[name](study, setup)
    return report if earlier is None else merge(earlier, report)


def describe_voice(bundle: Bundle) -> dict[str, str]:
    """Return a bundle's name, and one hash of all graphs but the image encoder, and of that."""
    return {
        "bundle": bundle.manifest.name,
        "bundle_sha256": files_fingerprint(bundle, without="image_encoder"),
        "image_encoder_sha256": files_fingerprint(bundle, only="image_encoder"),
    }


def merge(earlier: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    """Return ``report`` with the sections that only ``earlier`` has.

    The image encoder may have changed where all that depends on it was measured again. Seeds may
    differ: ``seeds`` gives them by section. An older report has one number there, that of its last
    run, which need not hold for every section and is dropped.

    Raises:
        InputError: If the two were not measured on one bundle under the same settings.
    """
    _check_same(earlier, report, report)
    merged = {**earlier, **report}
    seeds = [found["seeds"] for found in (earlier, report) if isinstance(found.get("seeds"), dict)]
    if seeds:
        merged["seeds"] = {name: count for found in seeds for name, count in found.items()}
    return merged


def _check_same(earlier: dict[str, Any], report: dict[str, Any], measured: Collection[str]) -> None:
    """Refuse a report that the sections ``measured`` anew cannot be put into."""
    # a key that neither has says the same of both
    keys = ["bundle_sha256", "steps_default", "guidance_default", "machine", "real"]
    keys += ["template", "prior_sha256"]
    keys += [key for key in ("concepts", "cure", "distilled_default") if key in earlier]
    if "image" in earlier and "image" not in measured:
        keys.append("image_encoder_sha256")
    if earlier.get("cure") == "prior" and "prior_sha256" not in earlier:
        raise InputError(
            "the earlier report does not say which prior its queries went through; measure all "
            "anew, without --update"
        )
    for key in keys:
        if earlier.get(key) != report.get(key):
            raise InputError(
                f"the earlier report has {key} {earlier.get(key)}, this one {report.get(key)}: "
                "they cannot be merged; write to another file"
            )
