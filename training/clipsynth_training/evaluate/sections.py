"""The sections of an evaluation: each measures one thing and returns JSON data for the report."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipsynth_rt.errors import DataError, InputError
from clipsynth_rt.machine import describe_machine
from clipsynth_rt.synthesis.options import SynthOptions, resolve_options
from clipsynth_training.clip.prior import load_prior
from clipsynth_training.evaluate import foley, gap
from clipsynth_training.evaluate.measures.metrics import mean_and_interval
from clipsynth_training.evaluate.obedience.score import load_ladders, obedience, queries_of
from clipsynth_training.evaluate.one_shots.score import load_hits, one_shots
from clipsynth_training.evaluate.paraphrases import load_paraphrases
from clipsynth_training.evaluate.report.html import file_name
from clipsynth_training.evaluate.study import Study
from clipsynth_training.evaluate.systems import Question, Real, Resynthesis, Voice
from clipsynth_training.mel import MelSpectrogram
from clipsynth_training.vocoder.griffin_lim import griffin_lim_from_mel
from clipsynth_training.vocoder.metrics import resynthesis_distances

Report = dict[str, Any]
TEMPLATES: dict[str, str | list[str]] = {
    "bare": "{query}",
    "a photo of": "a photo of {query}",
    "a sound of": "a sound of {query}",
    "average": ["{query}", "a photo of {query}", "a sound of {query}"],
}
SAMPLERS: dict[str, dict[str, Any]] = {
    "ddim": {"sampler": "ddim", "eta": 0.0},
    "ddim_eta_1": {"sampler": "ddim", "eta": 1.0},
    "dpmpp_2m": {"sampler": "dpmpp_2m"},
}
CURVE_STEPS = (1, 2, 4, 8, 16, 25, 50, 100, 1000)
BASELINES = ("retrieval", "resynthesis", "real")
"""Names of systems that stand beside the voices in tables, and on the page."""
ASKED: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "image": ("image",),
    "num_steps": ("text",),
    "teacher": ("text",),
    "systems": ("text", "image"),
    "templates": ("text",),
    "gap": ("text", "image"),
    "curves": ("text",),
}
"""Sections that measure a Fréchet distance, and the kinds of query that they ask."""
FEW = ("num_steps", "teacher", "templates", "gap", "curves")
"""Those of them that take ``Setup.few`` clips a query."""


@dataclass(frozen=True)
class Setup:
    """What is measured, and how often.

    Attributes:
        voice: The voice of every section that measures one.
        systems: The voices that ``systems`` and ``gap`` compare; ``voice`` alone if empty.
        seeds: Clips a query; curves and paraphrases take a quarter of them.
        steps, guidance, template: Of every query; None is the bundle's.
        cure: Against the modality gap, one of ``gap.CURES``; None is as the bundle does.
        prior: Folder of the prior network.
        step_counts: Of the section ``num_steps``.
        curve_steps: Of the section ``curves``.
        guidance_scales: Of the guidance curve.
        resynthesis_clips: Real clips sent through the vocoder and Griffin-Lim.
        teacher_steps: Of the section ``teacher``.
        foley_dir: Folder of the section ``foley``: real sounds in a folder a class.
        foley_clips: Sounds a class of that section.
    """

    voice: Voice
    systems: Sequence[Voice] = ()
    seeds: int = 8
    num_steps: int | None = None
    guidance_scale: float | None = None
    template: str | Sequence[str] | None = None
    cure: str | None = None
    prior: Path | None = None
    step_counts: Sequence[int] = (1, 2, 4, 8, 16, 25)
    curve_steps: Sequence[int] = CURVE_STEPS
    guidance_scales: Sequence[float] = (1.0, 2.0, 3.0, 4.0)
    resynthesis_clips: int = 200
    teacher_steps: int = 50
    foley_dir: Path | None = None
    foley_clips: int = foley.CLIPS
    _cures: dict[str, gap.Cure] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        gap.check_cure(self.cure, self.prior)
        check_names([voice.name for voice in self.systems])
        # what cannot be done is said now, not after an hour of what can
        manifest = self.voice.synthesizer.bundle.manifest
        resolve_options(SynthOptions(**self.options), manifest)
        for count in (*self.step_counts, *self.curve_steps, self.teacher_steps):
            resolve_options(SynthOptions(num_steps=count), manifest)

    @property
    def few(self) -> int:
        """Clips a query where many settings are compared."""
        return max(1, self.seeds // 4)

    @property
    def options(self) -> dict[str, Any]:
        """What every query asks of a voice."""
        options = {
            "num_steps": self.num_steps,
            "guidance_scale": self.guidance_scale,
            "template": self.template,
        }
        return {key: value for key, value in options.items() if value is not None}

    @property
    def scale(self) -> float:
        """Guidance of the ordinary denoiser: said, it keeps a distilled one out of its curves."""
        usual = self.voice.synthesizer.bundle.manifest.diffusion.guidance_scale
        return usual if self.guidance_scale is None else self.guidance_scale

    @property
    def distilled_steps(self) -> tuple[int, ...]:
        """Step counts of the voice's distilled denoiser; none where it has none."""
        return self.voice.synthesizer.bundle.manifest.diffusion.distilled_steps

    def question(self, study: Study, kind: str, seeds: int | None = None) -> Question:
        """Return the question after every concept, in this setup's way."""
        question = study.question(kind, seeds or self.seeds, **self.options)
        return self.cured(study, question, self.cure)

    def cured(self, study: Study, question: Question, name: str | None) -> Question:
        """Return the question with a cure, None for what the bundle does by itself."""
        if name is None:
            return question
        if name not in self._cures:
            self._cures[name] = gap.make_cure(name, study.clip, study.clouds, self.prior)
        return Question(
            question.kind,
            question.queries,
            question.target,
            question.seeds,
            question.options,
            self._cures[name],
        )


def text(study: Study, setup: Setup) -> Report:
    """Text queries of every concept."""
    return {"text": _of_voice(study, setup.voice, setup.question(study, "text"))}


def image(study: Study, setup: Setup) -> Report:
    """Picture queries, one test picture a concept."""
    return {"image": _of_voice(study, setup.voice, setup.question(study, "image"))}


def paraphrases(study: Study, setup: Setup) -> Report:
    """Other words for the concepts, none of which training used."""
    asked = _paraphrases(study)
    queries, target = list(asked), list(asked.values())
    question = Question("text", queries, target, setup.few, setup.options)
    question = setup.cured(study, question, setup.cure)
    sounds = setup.voice.answer(question, study.cache, study.progress)
    heard = study.hear(sounds)
    scores = heard.scores(study.labels)
    first = heard.posterior.argmax(axis=1).reshape(len(queries), setup.few)
    by_query = {
        query: {
            "concept": study.labels[wanted],
            "right": int((row == wanted).sum()),
            "heard": study.labels[np.bincount(row).argmax()],
        }
        for query, wanted, row in zip(queries, target, first, strict=True)
    }
    return {"paraphrases": {**brief(scores), "queries": len(queries), "by_query": by_query}}


def num_steps(study: Study, setup: Setup) -> Report:
    """Quality of the ordinary denoiser at a few step counts and guidance scales.

    A distilled one has rows of its own.
    """
    question = setup.question(study, "text", setup.few)

    def ask(**options: Any) -> Report:
        return brief(_of_voice(study, setup.voice, question.with_options(**options)))

    scales, own = setup.guidance_scales, setup.distilled_steps
    report = {
        "num_steps": {
            str(count): ask(num_steps=count, guidance_scale=setup.scale)
            for count in setup.step_counts
        },
        "guidance_scale": {str(scale): ask(guidance_scale=scale) for scale in scales},
    }
    if own:
        report["distilled"] = {
            str(count): ask(num_steps=count, guidance_scale=None) for count in own
        }
    return report


def teacher(study: Study, setup: Setup) -> Report:
    """The ordinary denoiser at many steps, and as many clips of the voice as it is asked.

    Distances depend on the number of clips: the two of this section can be compared.
    """
    question = setup.question(study, "text", setup.few)

    def ask(**options: Any) -> Report:
        asked = question.with_options(**options)
        calls = {"network_calls": setup.voice.network_calls(asked)}
        return calls | brief(_of_voice(study, setup.voice, asked))

    many, usual = ask(num_steps=setup.teacher_steps, guidance_scale=setup.scale), ask()
    measure = "fad_generated_vs_test"
    return {
        "teacher": {
            "num_steps": setup.teacher_steps,
            "guidance_scale": setup.scale,
            "teacher": many,
            "default": usual,
            "fad_ratio": usual[measure] / many[measure],
        }
    }


def vocoder(study: Study, setup: Setup) -> Report:
    """How real test clips survive mel -> sound: the bundle's vocoder and Griffin-Lim."""
    judge = study.judge
    clips = study.test.thinned(setup.resynthesis_clips)
    rows = clips.rows[: setup.resynthesis_clips]
    target = clips.target[: setup.resynthesis_clips].tolist()
    real = torch.from_numpy(np.stack(clips.audio(rows)))
    analysis = MelSpectrogram(judge.mel_spec)
    report: Report = {
        "clips": len(rows),
        "real_top1": judge.hear(list(real.numpy()), target).scores(judge.labels)["top1"],
    }

    def ours(mel: Tensor) -> Tensor:
        return torch.from_numpy(setup.voice.synthesizer.vocode(mel.numpy()))

    def baseline(mel: Tensor) -> Tensor:
        return griffin_lim_from_mel(mel, analysis, iterations=60)

    for name, vocode in (("vocoder", ours), ("griffin_lim_60", baseline)):
        made: list[Tensor] = []

        def keep(
            mel: Tensor,
            vocode: Callable[[Tensor], Tensor] = vocode,
            made: list[Tensor] = made,
        ) -> Tensor:
            made.append(vocode(mel))
            return made[-1]

        row: Report = {}
        for key, values in resynthesis_distances(real, keep, analysis).items():
            row |= mean_and_interval(key, values.numpy())
        heard = judge.hear(list(torch.cat(made).numpy()), target)
        scores = heard.scores(judge.labels)
        report[name] = row | {key: scores[key] for key in ("top1", "top1_interval")}
    return {"vocoder": report}


def systems(study: Study, setup: Setup) -> Report:
    """Every system by text and by image, with every figure."""
    questions = {kind: setup.question(study, kind) for kind in ("text", "image")}
    # the baselines come last in the table, but first here: what is wrong with the corpus or the
    # vocoder is said before the voices take hours
    baselines: Report = {}
    retrieval = study.retrieval()
    for kind, question in questions.items():
        baselines[f"{retrieval.name}, {kind}"] = study.ask(retrieval, question, full=True)
    real = Real(study.test)
    few = Real(study.test, setup.resynthesis_clips)
    for system in (Resynthesis(setup.voice, few, study.analyse), real):
        sounds = system.answer(None, study.cache, study.progress)
        baselines[system.name] = study.figures(sounds)
    rows: Report = {}
    for voice in setup.systems or (setup.voice,):
        for kind, question in questions.items():
            rows[f"{voice.name}, {kind}"] = {
                "network_calls": voice.network_calls(question),
                **_of_voice(study, voice, question, full=True),
                **voice.facts,
            }
    return {"systems": {name: brief(row) for name, row in (rows | baselines).items()}}


def templates(study: Study, setup: Setup) -> Report:
    """Text queries in several templates."""
    question = setup.question(study, "text", setup.few)
    rows = {
        name: brief(_of_voice(study, setup.voice, question.with_options(template=template)))
        for name, template in TEMPLATES.items()
    }
    return {"templates": rows}


def modality_gap(study: Study, setup: Setup) -> Report:
    """The modality gap as a number, and every voice under every cure."""
    cures = [name for name in gap.CURES if name != "prior" or setup.prior is not None]
    clouds = study.clouds
    report: Report = {"clips": len(clouds.image), "concepts": len(clouds.text), "cures": {}}
    if setup.prior is not None:
        report["prior_sha256"] = gap.prior_fingerprint(setup.prior)
    for name in cures:
        cure = gap.make_cure(name, study.clip, clouds, setup.prior)
        report["cures"][name] = clouds.measure(text=cure.text(clouds.text))
    report["voices"] = {}
    for voice in setup.systems or (setup.voice,):
        for kind in ("text", "image"):
            plain = study.question(kind, setup.few, **setup.options)
            for cured in (None, *cures):
                # text embeddings are as exported without a cure, and a prior reads texts alone
                if (kind, cured) in (("text", "none"), ("image", "prior")):
                    continue
                row = _of_voice(study, voice, setup.cured(study, plain, cured))
                key = f"{voice.name}, {kind}, {cured or 'as exported'}"
                report["voices"][key] = {**brief(row), **voice.facts}
    return {"modality_gap": report}


def curves(study: Study, setup: Setup) -> Report:
    """Quality against steps for every sampler, with the time of one clip; and against guidance.

    All of it is the ordinary denoiser's; a distilled one's step counts stand beside it.
    """
    question = setup.question(study, "text", setup.few)
    report: Report = {}
    for name, options in SAMPLERS.items():
        report[name] = {}
        for count in setup.curve_steps:
            asked = question.with_options(num_steps=count, guidance_scale=setup.scale, **options)
            report[name][str(count)] = _timed(study, setup.voice, asked)
    distilled = {
        str(count): _timed(
            study, setup.voice, question.with_options(num_steps=count, guidance_scale=None)
        )
        for count in setup.distilled_steps
    }
    scales = {
        str(scale): brief(
            _of_voice(study, setup.voice, question.with_options(guidance_scale=scale))
        )
        for scale in (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    }
    more = {"distilled": distilled} if distilled else {}
    return {"curves": {"num_steps": report, "guidance_scale": scales, **more}}


def attribute_obedience(study: Study, setup: Setup) -> Report:
    """Whether sounds have the attributes that their queries name, by signal processing alone."""
    queries = queries_of(load_ladders())
    found = obedience(*_unclassified(study, setup, queries), setup.seeds)
    return {"obedience": {"queries": len(queries), **found}}


def hits(study: Study, setup: Setup) -> Report:
    """Whether hits begin at once and end by themselves."""
    return {"one_shots": one_shots(*_unclassified(study, setup, load_hits()), setup.seeds)}


def foley_classes(study: Study, setup: Setup) -> Report:
    """The seven classes of DCASE 2023 Task 7 beside real sounds of them, by every embedding."""
    assert setup.foley_dir is not None  # check_measurable
    real = foley.find_classes(setup.foley_dir)
    options = {**setup.options, "duration": foley.SECONDS}
    queries = [foley.QUERIES[name] for name in real]
    question = Question("text", queries, [0] * len(real), setup.foley_clips, options)
    question = setup.cured(study, question, setup.cure)
    sounds = setup.voice.answer(question, study.cache, study.progress)
    rate = setup.voice.synthesizer.bundle.manifest.mel.sample_rate
    by_class: dict[str, dict[str, float]] = {}
    for number, (name, files) in enumerate(real.items()):
        rows = slice(number * setup.foley_clips, (number + 1) * setup.foley_clips)
        made = foley.contest_format(sounds.clips(rows), rate)
        wanted = foley.read_class(files)
        by_class[name] = study.distances(made, wanted, foley.SAMPLE_RATE)
    return {
        "foley": {
            "clips_a_class": setup.foley_clips,
            "mean": foley.mean_of_classes(by_class),
            "by_class": by_class,
        }
    }


SECTIONS: dict[str, Callable[[Study, Setup], Report]] = {
    "text": text,
    "image": image,
    "paraphrases": paraphrases,
    "num_steps": num_steps,
    "teacher": teacher,
    "vocoder": vocoder,
    "systems": systems,
    "templates": templates,
    "gap": modality_gap,
    "curves": curves,
    "obedience": attribute_obedience,
    "one-shots": hits,
    "foley": foley_classes,
}
"""Sections by name, in the order of the report."""
OWN_DATA = ("foley",)
"""Sections that need real sounds of their own, and are no part of ``all``."""
CHEAP = ("text", "image", "paraphrases", "num_steps", "vocoder")
"""What is measured where nothing is asked for: minutes on two cores."""


def check_names(names: Sequence[str]) -> None:
    """Check that systems have names, and folders of the page, that are theirs alone.

    Raises:
        InputError: If not; the message names the first that has not.
    """
    taken: dict[str, str] = {}
    for name in names:
        folder = file_name(name)
        if folder in BASELINES:
            raise InputError(f"{name!r} is one of the baselines' names; call it something else")
        if folder in taken:
            same = taken[folder] == name
            told = "named twice" if same else f"too much like {taken[folder]!r}"
            raise InputError(f"{name!r} is {told}; give each system a name of its own")
        taken[folder] = name


def check_measurable(study: Study, setup: Setup, names: Sequence[str]) -> None:
    """Check that sections can be measured, before any of them is: voices take hours.

    Raises:
        InputError: If a Fréchet distance would have fewer than two clips on a side, or nothing is
            asked.
        DataError: If the corpus lacks the clips or pictures.
        CheckpointError: If the prior is asked for and cannot be read.
    """
    if "paraphrases" in names and not _paraphrases(study):
        raise InputError("no paraphrase is of these concepts; leave the section paraphrases out")
    if "foley" in names:
        if setup.foley_dir is None:
            raise InputError("section foley: needs --foley DIR, real sounds in a folder a class")
        foley.find_classes(setup.foley_dir)
        if setup.foley_clips < 2:
            raise InputError("section foley: a distance takes two clips a class at least")
    if setup.prior is not None and ("gap" in names or setup.cure == "prior"):
        load_prior(setup.prior)
    if not (measured := [name for name in names if name in ASKED]):
        return
    for clips in (study.test, study.train.of(study.concepts)):
        if len(clips.rows) < 2:
            raise DataError(
                f"{clips.shards.folder}: holds one clip of these concepts, and a Fréchet distance "
                "takes two at least; give more --concepts"
            )
    if "systems" in measured and setup.resynthesis_clips < 2:
        raise InputError(
            "section systems: a Fréchet distance takes two clips at least; give "
            "--resynthesis-clips 2 or more"
        )
    kinds = {kind for name in measured for kind in ASKED[name]}
    queries = {kind: len(study.question(kind, 1).queries) for kind in kinds}
    for name in measured:
        seeds, least = (setup.few, 8) if name in FEW else (setup.seeds, 2)
        for kind in ASKED[name]:
            if queries[kind] * seeds < 2:
                raise InputError(
                    f"section {name}: it would make one clip, of one {kind} query, and a Fréchet "
                    f"distance takes two at least; give --seeds {least} or more, or more --concepts"
                )


def _paraphrases(study: Study) -> dict[str, int]:
    """Return paraphrase -> label index, of the chosen concepts."""
    index = {label: number for number, label in enumerate(study.labels)}
    chosen = study.concepts or range(len(study.labels))
    known = {
        text: index[concept] for text, concept in load_paraphrases().items() if concept in index
    }
    return {text: label for text, label in known.items() if label in chosen}


def brief(scores: Report) -> Report:
    """Return scores without the figures of every concept."""
    return {key: value for key, value in scores.items() if key != "by_concept"}


def _unclassified(
    study: Study, setup: Setup, queries: Sequence[str]
) -> tuple[Callable[[str, int], Sequence[NDArray[np.float32]]], int]:
    """Ask queries that are no labels; return what gives the sounds of each, and their rate."""
    question = Question("text", queries, [0] * len(queries), setup.seeds, setup.options)
    question = setup.cured(study, question, setup.cure)
    sounds = setup.voice.answer(question, study.cache, study.progress)
    rows = dict(zip(queries, range(0, len(sounds.audio), setup.seeds), strict=True))

    def take(query: str, seeds: int) -> Sequence[NDArray[np.float32]]:
        return sounds.clips(slice(rows[query], rows[query] + seeds))

    return take, setup.voice.synthesizer.bundle.manifest.mel.sample_rate


def _of_voice(study: Study, voice: Voice, question: Question, *, full: bool = False) -> Report:
    """Return a voice's figures, where it ran and the real-time factor of making the clips."""
    sounds = voice.answer(question, study.cache, study.progress)
    rate = study.judge.mel_spec.sample_rate
    rtf = sounds.seconds / (sounds.audio.size / rate)
    figures = study.figures(sounds, full=full)
    return {**figures, "provider": voice.provider, "rtf_in_batches": rtf}


def _timed(study: Study, voice: Voice, question: Question) -> Report:
    """Return a voice's figures, with the time of one clip."""
    return {**brief(_of_voice(study, voice, question)), **_latency(study, voice, question)}


def _latency(study: Study, voice: Voice, question: Question, repeats: int = 3) -> Report:
    """Return the median time of one clip by itself, in seconds, after a first one."""
    key = {"latency": voice.key(question), "machine": describe_machine(), "repeats": repeats}

    def make() -> Report:
        times = []
        for _ in range(repeats + 1):
            clip = voice.synthesizer.synth(question.queries[0], **question.options)
            times.append(sum(clip.stages_s.values()))
        return {"latency_s": statistics.median(times[1:]), "audio_s": clip.audio_s}

    return study.cache.json(key, make)
