"""A report of the evaluation as Markdown: what the README shows, and all that was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Figures = Mapping[str, Any]
# figure -> (heading, how a value is written); tables show what was measured
COLUMNS: dict[str, tuple[str, str]] = {
    "network_calls": ("calls a clip", ""),
    "variant": ("trained on", ""),
    "condition_noise": ("condition noise", "2"),
    "top1": ("top-1", "percent"),
    "top5": ("top-5", "percent"),
    "fad_generated_vs_test": ("FAD", "1"),
    "kad_generated_vs_test": ("KAD", "2"),
    "fad_vggish": ("FAD, VGGish", "2"),
    "fad_panns": ("FAD, PANNs", "2"),
    "fad_clap": ("FAD, CLAP", "3"),
    "fid_mel": ("FID, mel", "1"),
    "kad_vggish": ("KAD, VGGish", "2"),
    "kad_panns": ("KAD, PANNs", "2"),
    "kad_clap": ("KAD, CLAP", "2"),
    "kad_mel": ("KID, mel", "2"),
    "kl": ("KL", "2"),
    "clap_score": ("CLAP score", "3"),
    "text_to_sound@1": ("R@1", "percent"),
    "text_to_sound@5": ("R@5", "percent"),
    "diversity": ("diversity", "3"),
    "nearest_train": ("nearest training clip", "3"),
    "nearer_than_real": ("nearer than real", "percent"),
}
CURVE_COLUMNS = ("top1", "top5", "fad_generated_vs_test")


def markdown(report: Figures) -> str:
    """Return the README's tables of a report, and those of every other section that it has."""
    lines = [
        f"Measured {report['measured']} on {report['machine']}; bundle `{report['bundle']}`, "
        f"{_defaults(report)}; "
        f"{report['concepts']} concepts; FAD under the {report['fad_embedding']}.",
        "",
        *_headline(report),
    ]
    if "num_steps" in report:
        own = {f"{count}, distilled": row for count, row in report.get("distilled", {}).items()}
        lines += ["", *_curve("num_steps", {**report["num_steps"], **own})]
    if "guidance_scale" in report:
        lines += ["", *_curve("guidance_scale", report["guidance_scale"])]
    if "teacher" in report:
        lines += ["", *_teacher(report["teacher"])]
    if "vocoder" in report:
        lines += ["", *_vocoder(report["vocoder"])]
    for title in ("systems", "templates"):
        if title in report:
            lines += ["", *_figures(title, report[title])]
    if "modality_gap" in report:
        lines += ["", *_gap(report["modality_gap"])]
    if "obedience" in report:
        lines += ["", *_obedience(report["obedience"])]
    if "one_shots" in report:
        lines += ["", *_one_shots(report["one_shots"])]
    if "foley" in report:
        lines += ["", *_foley(report["foley"])]
    if "curves" in report:
        for sampler, rows in report["curves"]["num_steps"].items():
            lines += ["", *_curve(f"steps, {sampler}", rows)]
        if "distilled" in report["curves"]:
            lines += ["", *_curve("steps, distilled", report["curves"]["distilled"])]
        lines += ["", *_curve("guidance_scale", report["curves"]["guidance_scale"])]
    return "\n".join(lines) + "\n"


def _defaults(report: Figures) -> str:
    """Return how clips are sampled by default."""
    if report.get("distilled_default"):
        return f"{report['steps_default']} distilled steps, one network call each"
    return f"{report['steps_default']} steps, guidance {report['guidance_default']:g}"


def _teacher(found: Figures) -> list[str]:
    many = f"ordinary denoiser, {found['num_steps']} steps, guidance {found['guidance_scale']:g}"
    rows = {many: found["teacher"], "as by default": found["default"]}
    lines = _figures("denoiser", rows)
    return [*lines, "", f"FAD by default is {found['fad_ratio']:.2f} times the first one's."]


def _headline(report: Figures) -> list[str]:
    lines = [
        "| sounds | clips | top-1 | top-5 | FAD to real test |",
        "| --- | ---: | ---: | ---: | ---: |",
        _row("real test clips", report["real"], "0"),
    ]
    fad = next((report[k]["fad_train_vs_test"] for k in ("text", "image") if k in report), None)
    if fad is not None:
        lines.append(f"| real training clips | | | | {fad:.1f} |")
    for kind in ("text", "image"):
        if kind in report:
            scores = report[kind]
            lines.append(_row(f"{kind} queries", scores, f"{scores['fad_generated_vs_test']:.1f}"))
    if "paraphrases" in report:
        scores = report["paraphrases"]
        lines.append(_row(f"{scores['queries']} paraphrases", scores, ""))
    made = {k: report[k]["provider"] for k in ("text", "image") if "provider" in report.get(k, {})}
    if made:
        lines += ["", f"Provider: {', '.join(f'{k} {where}' for k, where in made.items())}."]
    return lines


def _curve(title: str, rows: Mapping[str, Figures]) -> list[str]:
    timed = all("latency_s" in row for row in rows.values())
    lines = [
        f"| {title} | top-1 | top-5 | FAD |{' one clip |' if timed else ''}",
        f"| ---: | ---: | ---: | ---: |{' ---: |' if timed else ''}",
    ]
    for key, row in rows.items():
        time = f" {1000 * row['latency_s']:.0f} ms |" if timed else ""
        lines.append(
            f"| {key} | {_percent(row['top1'])} | {_percent(row['top5'])} "
            f"| {row['fad_generated_vs_test']:.1f} |{time}"
        )
    return lines


def _vocoder(found: Figures) -> list[str]:
    lines = [
        f"| mel to sound, {found['clips']} real test clips (top-1 of the originals "
        f"{_percent(found['real_top1'])}) | mel-L1, nats | multi-resolution STFT | LSD, dB "
        "| top-1 |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for key, name in (("vocoder", "shipped vocoder"), ("griffin_lim_60", "Griffin-Lim, 60")):
        s = found[key]
        lines.append(
            f"| {name} | {s['mel_l1']:.3f} | {s['mr_stft']:.3f} | {s['lsd_db']:.2f} "
            f"| {_percent(s['top1'])} |"
        )
    return lines


def _figures(title: str, rows: Mapping[str, Figures]) -> list[str]:
    """Return a table of every figure that any row has, each with its interval."""
    shown = [key for key in COLUMNS if any(key in row for row in rows.values())]
    lines = [
        f"| {title} | clips | {' | '.join(COLUMNS[key][0] for key in shown)} |",
        f"| --- | ---: |{' ---: |' * len(shown)}",
    ]
    for name, row in rows.items():
        cells = " | ".join(cell(row, key) for key in shown)
        lines.append(f"| {name} | {row['clips']} | {cells} |")
    return lines


def _gap(found: Figures) -> list[str]:
    lines = [
        f"Modality gap over {found['clips']} clips and {found['concepts']} concepts:",
        "",
        "| cure | distance of the clouds | cosine of matched pairs |",
        "| --- | ---: | ---: |",
    ]
    for name, row in found["cures"].items():
        pairs = ((row[k], row[f"{k}_interval"]) for k in ("centroid_distance", "matched_cosine"))
        cells = " | ".join(f"{v:.3f} ({low:.3f}–{high:.3f})" for v, (low, high) in pairs)
        lines.append(f"| {name} | {cells} |")
    return [*lines, "", *_figures("voice, query, cure", found["voices"])]


def _obedience(found: Figures) -> list[str]:
    rows = dict(found["by_attribute"])
    rows["all pairs (chance 50%)"] = found["pairs"]
    rows["triples (chance 17%)"] = found["triples"]
    lines = ["| obedience | comparisons | in the right order |", "| --- | ---: | ---: |"]
    for name, row in rows.items():
        low, high = row["share_interval"]
        share = f"{_percent(row['share'])} ({100 * low:.0f}–{100 * high:.0f})"
        lines.append(f"| {name} | {row['of']} | {share} |")
    return lines


def _one_shots(found: Figures) -> list[str]:
    names = {
        "usable": "usable as they are",
        "starts_at_once": "start within 10 ms",
        "ends_by_itself": "tail ends by itself",
        "no_silence_after": "no silence after the tail",
        "no_cut_edge": "no cut edge",
    }
    lines = [f"| {found['clips']} one-shots | share |", "| --- | ---: |"]
    for key, name in names.items():
        low, high = found[f"{key}_interval"]
        lines.append(f"| {name} | {_percent(found[key])} ({100 * low:.0f}–{100 * high:.0f}) |")
    return lines


def _foley(found: Figures) -> list[str]:
    keys = list(found["mean"])
    heads = " | ".join(
        key.replace("_", ", ", 1).replace("fad", "FAD").replace("kad", "KAD") for key in keys
    )
    lines = [
        f"| DCASE 2023 Task 7, {found['clips_a_class']} clips a class | {heads} |",
        f"| --- |{' ---: |' * len(keys)}",
    ]
    for name, row in {**found["by_class"], "mean": found["mean"]}.items():
        lines.append(f"| {name} | {' | '.join(f'{row[key]:.2f}' for key in keys)} |")
    return lines


def cell(row: Figures, key: str) -> str:
    """Return a figure of ``COLUMNS`` with its interval; nothing if ``row`` has none."""
    if key not in row:
        return ""
    style = COLUMNS[key][1]
    if not style:
        return str(row[key])
    interval: Sequence[float] = row.get(f"{key}_interval", ())
    if style == "percent":
        bounds = [f"{100 * bound:.0f}" for bound in interval]
        text = _percent(row[key])
    else:
        bounds = [f"{bound:.{style}f}" for bound in interval]
        text = f"{row[key]:.{style}f}"
    return f"{text} ({'–'.join(bounds)})" if bounds else text


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _row(name: str, scores: Figures, fad: str) -> str:
    top5 = _percent(scores["top5"])
    return f"| {name} | {scores['clips']} | {cell(scores, 'top1')} | {top5} | {fad} |"
