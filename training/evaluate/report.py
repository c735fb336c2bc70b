"""The evaluation as one command runs it."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from clipsynth_rt.bundle import Bundle
from clipsynth_rt.config import SynthConfig, make_plan
from clipsynth_rt.errors import InputError
from clipsynth_rt.machine import describe_machine
from clipsynth_rt.training.evaluate.parts import CHEAP, PARTS, Setup
from clipsynth_rt.training.evaluate.study import Study
from clipsynth_rt.training.evaluate.systems import files_fingerprint


def check_parts(names: Sequence[str]) -> tuple[str, ...]:
    """Return the parts to measure in their order: ``all`` is every one, none is the cheap ones.

    Raises:
        InputError: If a part is not known.
    """
    if unknown := sorted(set(names) - set(PARTS) - {"all"}):
        raise InputError(f"no such part: {unknown[0]}; parts are {', '.join(PARTS)} and all")
    if not names:
        return CHEAP
    return tuple(name for name in PARTS if name in names or "all" in names)


def evaluate(study: Study, setup: Setup, parts: Sequence[str] = ()) -> dict[str, Any]:
    """Measure a voice, and the systems beside it, on the open corpus.

    Args:
        study: What is measured with.
        setup: What is measured.
        parts: See ``parts.PARTS``; the cheap ones if empty.

    Returns:
        A report of JSON data: ``real``, a key or two of each part, and where and when it was
        measured.

    Raises:
        InputError: If a part is not known.
        ClipSynthError: If an input cannot be used.
    """
    names = check_parts(parts)
    bundle = setup.voice.synthesizer.bundle
    real = study.real.scores(study.labels)
    plan = make_plan(SynthConfig(**setup.wishes), bundle.manifest)
    shares = ("clips", "top1", "top1_interval", "top5", "top5_interval")
    report: dict[str, Any] = {
        "measured": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        **describe_voice(bundle),
        "steps_default": plan.steps,
        "guidance_default": plan.guidance,
        "distilled_default": plan.distilled,
        "fad_embedding": "penultimate layer of the corpus classifier",
        "concepts": len(study.concepts) or len(study.labels),
        "seeds": setup.seeds,
        "cure": setup.cure,
        "real": {key: real[key] for key in shares},
        "real_hard_concepts": {
            name: found
            for name, found in real["by_concept"].items()
            if found["right"] < 0.7 * found["of"]
        },
    }
    for name in names:
        report |= PARTS[name](study, setup)
    return report


def describe_voice(bundle: Bundle) -> dict[str, str]:
    """Return a bundle's name, and one hash of all graphs but the image encoder, and of that."""
    return {
        "bundle": bundle.manifest.name,
        "bundle_sha256": files_fingerprint(bundle, without="image_encoder"),
        "image_encoder_sha256": files_fingerprint(bundle, only="image_encoder"),
    }


def merge(earlier: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    """Return ``report`` with the parts that only ``earlier`` has.

    The image encoder may have changed where all that depends on it was measured again.

    Raises:
        InputError: If the two were not measured on one bundle under the same defaults.
    """
    keys = ["bundle_sha256", "steps_default", "guidance_default", "machine", "real"]
    keys += [key for key in ("concepts", "cure", "distilled_default") if key in earlier]
    if "image" in earlier and "image" not in report:
        keys.append("image_encoder_sha256")
    for key in keys:
        if earlier.get(key) != report.get(key):
            raise InputError(
                f"the earlier report has {key} {earlier.get(key)}, this one {report.get(key)}: "
                "they cannot be merged; write to another file"
            )
    return {**earlier, **report}
