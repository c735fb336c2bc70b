"""The evaluation from end to end, on a corpus and a voice of a few kilobytes."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from clipsynth_rt.audio import limiter, mel
from clipsynth_rt.bundles import manifest, tokenizer
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.bundles.manifest import DENOISER, DISTILLED
from clipsynth_rt.cli.main import main
from clipsynth_rt.errors import ClipSynthError, DataError, InputError
from clipsynth_rt.synthesis import (
    captured,
    encoders,
    images,
    renderers,
    sessions,
    windows,
)
from clipsynth_rt.synthesis import (
    samplers as sampler,
)
from clipsynth_rt.synthesis import (
    synthesizer as pipeline,
)
from clipsynth_rt.synthesis.options import SynthOptions, resolve_options
from clipsynth_training import checkpoint
from clipsynth_training import mel as training_mel
from clipsynth_training.checkpoint import save_component
from clipsynth_training.classifier import network as classifier
from clipsynth_training.classifier import train as train_classifier
from clipsynth_training.clip import encoder as clip
from clipsynth_training.clip import image_tower, prior
from clipsynth_training.clip.prior import load_pairs, train_prior
from clipsynth_training.evaluate import cache as cache_module
from clipsynth_training.evaluate import (
    evaluation as report,
)
from clipsynth_training.evaluate import (
    foley,
    gap,
    protocol,
    sections,
    systems,
)
from clipsynth_training.evaluate import study as study_module
from clipsynth_training.evaluate.cache import Cache, digest
from clipsynth_training.evaluate.listening.kit import mushra_kit
from clipsynth_training.evaluate.measures import embedders, intervals, metrics
from clipsynth_training.evaluate.obedience import score
from clipsynth_training.evaluate.obedience.score import Ladder
from clipsynth_training.evaluate.one_shots import score as hits_module
from clipsynth_training.evaluate.protocol import LabelledClips
from clipsynth_training.evaluate.report import page, tables
from clipsynth_training.evaluate.sections import Setup
from clipsynth_training.evaluate.study import Study, open_study
from clipsynth_training.evaluate.systems import CuredSynthesizer, Real, Resynthesis, Sounds, Voice

sys.path.insert(0, str(Path(__file__).parent))
from study_for_tests import LABELS, tiny_clip, write_corpus, write_judge

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def corpus(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_judge(folder / "judge", tiny.MEL)
    return folder, *write_corpus(folder / "shards", tiny.MEL)


@pytest.fixture
def study(corpus, tiny_bundle) -> Study:
    folder, shards, labels = corpus
    return open_study(folder / "judge", shards, labels, encoder=tiny_clip(tiny_bundle))


@pytest.fixture
def setup(tiny_bundle) -> Setup:
    voice = Voice("tiny", Bundle.open(tiny_bundle), "cpu")
    return Setup(
        voice,
        seeds=4,
        num_steps=2,
        step_counts=(1, 2),
        curve_steps=(1, 2),
        resynthesis_clips=12,
        teacher_steps=3,
    )


def test_every_part_measures_every_system(study, setup):
    found = report.evaluate(study, setup, ["all"])
    assert found["text"]["clips"] == 4 * len(LABELS)
    # what other tools read
    assert {"top1", "top5", "fad_generated_vs_test", "by_concept"} <= found["text"].keys()
    assert found["text"]["provider"] == "cpu"
    assert found["paraphrases"]["queries"] == len(found["paraphrases"]["by_query"]) >= 6
    expected = {f"{name}, {kind}" for name in ("tiny", "retrieval") for kind in ("text", "image")}
    assert found["systems"].keys() == expected | {"resynthesis", "real"}
    for row in found["systems"].values():
        for key in ("top1", "top5", "fad_generated_vs_test", "kl", "text_to_sound@1", "diversity"):
            low, high = row[f"{key}_interval"]
            assert low <= row[key] + 1e-9, key
            assert row[key] <= high + 1e-9, key
    # the retrieval baseline plays training clips, and is caught doing it
    assert found["systems"]["retrieval, text"]["nearest_train"] == pytest.approx(0.0, abs=1e-6)
    assert found["systems"]["retrieval, text"]["nearer_than_real"] > 0.99
    assert found["systems"]["real"]["fad_generated_vs_test"] == pytest.approx(0.0, abs=1e-6)
    assert found["curves"]["num_steps"].keys() == {"ddim", "ddim_eta_1", "dpmpp_2m"}
    assert found["curves"]["num_steps"]["ddim"]["1"]["latency_s"] > 0
    assert found["modality_gap"]["cures"].keys() == {"none", "mean_shift"}
    # two and three steps, each with and without the query
    assert found["systems"]["tiny, text"]["network_calls"] == 4
    assert found["teacher"]["teacher"]["network_calls"] == 6
    assert "network_calls" not in found["systems"]["retrieval, text"]
    # the same clips, of more steps; nothing is distilled here
    assert found["teacher"]["teacher"]["clips"] == found["teacher"]["default"]["clips"] == 6
    assert not found["distilled_default"]
    assert "distilled" not in found
    assert "distilled" not in found["curves"]
    shown = tables.markdown(found)
    for text in ("| retrieval, image |", "| steps, dpmpp_2m |", "| mean_shift |", "paraphrases |"):
        assert text in shown


def test_a_distilled_denoiser_stands_beside_the_ordinary_ones_curves(study, distilled_bundle):
    voice = Voice("tiny", Bundle.open(distilled_bundle), "cpu")
    asked = []
    answer = voice.answer

    def watched(question, *rest):
        plan = resolve_options(SynthOptions(**question.options), voice.synthesizer.bundle.manifest)
        asked.append((plan.denoiser, plan.num_steps, plan.guidance_scale))
        return answer(question, *rest)

    voice.answer = watched
    setup = Setup(
        voice,
        seeds=4,
        step_counts=(2, 8),
        curve_steps=(2,),
        guidance_scales=(1.0,),
        teacher_steps=9,
    )
    found = report.evaluate(study, setup, ["text", "num_steps", "teacher"])
    assert (found["steps_default"], found["guidance_default"]) == (2, 1.0)
    assert found["distilled_default"]
    few, many = DISTILLED, DENOISER
    assert asked == [
        (few, 2, 1.0),
        # 2 steps of the ordinary denoiser are not the distilled one's
        *((many, 2, 2.0), (many, 8, 2.0), (many, 8, 1.0)),
        *((few, 2, 1.0), (few, 4, 1.0)),
        *((many, 9, 2.0), (few, 2, 1.0)),
    ]
    assert found["distilled"].keys() == {"2", "4"}
    rows = found["teacher"]
    assert rows["teacher"]["clips"] == rows["default"]["clips"]
    measure = "fad_generated_vs_test"
    assert rows["fad_ratio"] == rows["default"][measure] / rows["teacher"][measure]
    asked.clear()
    found |= sections.curves(study, setup)
    assert {plan for plan in asked if plan[0] == few} == {(few, 2, 1.0), (few, 4, 1.0)}
    assert found["curves"]["distilled"]["2"]["latency_s"] > 0
    assert found["curves"]["num_steps"]["ddim"]["2"] != found["curves"]["distilled"]["2"]
    shown = tables.markdown(found)
    for text in ("2 distilled steps, one network call each", "| 4, distilled |", "9 steps, guid"):
        assert text in shown
    assert "| steps, distilled |" in shown
    # as a series of its own
    pytest.importorskip("matplotlib")
    assert page._plots(found).keys() == {"num_steps", "guidance_scale", "curves"}


def test_a_rerun_makes_only_what_changed(corpus, tiny_bundle, tmp_path):
    folder, shards, labels = corpus

    def run(seeds: int, names: list[str]) -> tuple[dict, Cache]:
        cache = Cache(tmp_path / "cache")
        encoder = tiny_clip(tiny_bundle)
        study = open_study(folder / "judge", shards, labels, encoder=encoder, cache=cache)
        voice = Voice("tiny", Bundle.open(tiny_bundle), "cpu")
        return report.evaluate(study, Setup(voice, seeds=seeds, num_steps=1), names), cache

    first, cache = run(2, ["text", "image"])
    assert cache.made > 0
    again, cache = run(2, ["text", "image"])
    assert again == first
    assert (cache.made, cache.found > 0) == (0, True)
    _, cache = run(3, ["text"])
    assert cache.made == 3  # new clips, heard and measured
    assert cache.found > 0  # the real ones


def test_sounds_outlive_a_denoiser_that_did_not_make_them(study, distilled_bundle, monkeypatch):
    asked = []

    def session(_, name):  # a real one would load the graph whose file has another hash here
        asked.append(name)
        return SimpleNamespace(provider="cpu")

    monkeypatch.setattr(CuredSynthesizer, "session", session)
    bundle = Bundle.open(distilled_bundle)
    graph = bundle.manifest.graphs[DISTILLED]
    files = {key: dataclasses.replace(f, sha256="0" * 64) for key, f in graph.files.items()}
    graphs = bundle.manifest.graphs | {DISTILLED: dataclasses.replace(graph, files=files)}
    manifest = dataclasses.replace(bundle.manifest, graphs=graphs)
    other = dataclasses.replace(bundle, manifest=manifest)
    before, after = (Voice("tiny", b, "cpu") for b in (bundle, other))
    few = study.question("text", 1)
    many = few.with_options(num_steps=3)
    assert before.key(few) != after.key(few)
    assert before.key(many) == after.key(many)
    # nor does its question load the other
    assert asked == [DISTILLED] * 2 + [DENOISER] * 2


def test_words_sound_alike_whatever_size_pictures_are_seen_at(study, distilled_bundle, monkeypatch):
    session = SimpleNamespace(provider="cpu")
    monkeypatch.setattr(CuredSynthesizer, "session", lambda *_: session)
    bundle = Bundle.open(distilled_bundle)
    condition = dataclasses.replace(bundle.manifest.condition, image_size=99)
    manifest = dataclasses.replace(bundle.manifest, condition=condition)
    before, after = (
        Voice("tiny", b, "cpu") for b in (bundle, dataclasses.replace(bundle, manifest=manifest))
    )
    words, pictures = study.question("text", 1), study.question("image", 1)
    assert before.key(words) == after.key(words)
    assert before.key(pictures) != after.key(pictures)


def changed_constants(module, changed, monkeypatch) -> dict[str, str]:
    """Return a module's code versions, had the source of ``changed`` another line."""
    read = cache_module._source
    monkeypatch.setattr(
        cache_module, "_source", lambda part: read(part) + "# new" * (part is changed)
    )
    cache_module.code_version.cache_clear()
    spec = importlib.util.spec_from_file_location("loaded_again", module.__file__)
    again = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "loaded_again", again)
    spec.loader.exec_module(again)
    monkeypatch.undo()
    cache_module.code_version.cache_clear()
    return {name: value for name, value in vars(again).items() if name.endswith("_CODE")}


@pytest.mark.parametrize(
    ("module", "constants", "modules"),
    [
        (
            study_module,
            {"METRIC_CODE", "HEARING_CODE"},
            (protocol, train_classifier, classifier, checkpoint),
        ),
        (study_module, {"METRIC_CODE", "HEARING_CODE", "EMBEDDING_CODE"}, (training_mel, mel)),
        (study_module, {"METRIC_CODE", "EMBEDDING_CODE"}, (embedders,)),
        (study_module, {"METRIC_CODE"}, (metrics, intervals)),
        (systems, {"BASELINE_CODE"}, (training_mel, mel)),
        (
            systems,
            {"RUNTIME_CODE"},
            (
                *(captured, encoders, images, pipeline, renderers, sampler, sessions, tokenizer),
                *(windows, manifest, limiter),
            ),
        ),
        (gap, {"ENCODER_CODE"}, (clip, image_tower)),
        (gap, {"CURE_CODE"}, (prior,)),
    ],
)
def test_changed_code_changes_the_keys_of_what_it_decides(module, constants, modules, monkeypatch):
    plain = changed_constants(module, None, monkeypatch)
    for changed in modules:
        found = changed_constants(module, changed, monkeypatch)
        assert {name for name in plain if found[name] != plain[name]} == constants, changed


def test_a_voice_is_asked_anew_on_another_machine_or_library(study, tiny_bundle, monkeypatch):
    voice, question = Voice("tiny", Bundle.open(tiny_bundle), "cpu"), study.question("text", 1)
    real = Real(study.test)
    resynthesis = Resynthesis(voice, real, study.analyse)

    def keys() -> list[str]:
        return [digest(voice.key(question)), digest(resynthesis.answer(None, Cache()).key)]

    found = [keys()]
    assert keys() == found[0]
    for name, told in (
        ("package_version", lambda _: "99.0"),
        ("processor_features", lambda: "avx512_bf16"),
        ("describe_machine", lambda: "another"),
    ):
        monkeypatch.setattr(systems, name, told)
        found.append(keys())
    for column in zip(*found, strict=True):
        assert len(set(column)) == 4


def test_embeddings_are_made_anew_by_other_code_and_of_another_analysis(study, monkeypatch):
    monkeypatch.setattr(
        study, "cache", SimpleNamespace(arrays=lambda key, _: {"embedding": digest(key)})
    )
    embedder = SimpleNamespace(name="inception", fingerprint="f")
    sounds = Sounds(np.zeros((1, 4), np.int16), np.zeros(1, np.int64), 0.0, {})
    found = [study._embed(embedder, sounds)]
    monkeypatch.setattr(study_module, "EMBEDDING_CODE", "other")
    found.append(study._embed(embedder, sounds))
    spec = dataclasses.replace(study.judge.mel_spec, std=99.0)
    monkeypatch.setattr(study.judge, "mel_spec", spec)
    found.append(study._embed(embedder, sounds))
    assert len(set(found)) == 3


def test_as_many_real_clips_are_not_the_same_clips(study):
    test = study.test
    twenty = LabelledClips(test.shards, np.resize(test.rows, 20), np.resize(test.target, 20))
    some, others = (Real(twenty, limit).answer(None, Cache()) for limit in (3, 4))
    assert len(some.target) == len(others.target) == 4
    assert some.key != others.key


def test_a_cure_is_of_its_encoder_and_its_prior(study, tmp_path):
    other = dataclasses.replace(study.clip, templates=("{query}",))
    cures = [gap.make_cure("none", encoder, study.clouds) for encoder in (study.clip, other)]
    assert cures[0].fingerprint != cures[1].fingerprint
    for name in "ab":
        save_component(tmp_path / name, "prior", {"w": torch.zeros(1)}, {"kept": name})
    assert gap.prior_fingerprint(tmp_path / "a") != gap.prior_fingerprint(tmp_path / "b")


def test_a_damaged_cache_is_named(tmp_path):
    cache = Cache(tmp_path)
    cache.json({"a": 1}, lambda: {"b": 2})
    cache.arrays({"c": 1}, lambda: {"d": np.zeros(2)})
    for path in tmp_path.iterdir():
        path.write_bytes(b"{")
    with pytest.raises(DataError, match=r"json: damaged .* delete it"):
        cache.json({"a": 1}, dict)
    with pytest.raises(DataError, match=r"safetensors: damaged"):
        cache.arrays({"c": 1}, dict)


def test_cures_close_the_gap_and_reach_the_voice(corpus, study, setup, tiny, tmp_path):
    _, shards, labels = corpus
    pairs = load_pairs(shards / "train", study.clip, tiny.MEL, labels)
    measured = train_prior(pairs, tmp_path / "prior", steps=200, batch_size=16, noise=0.0)
    assert measured["cosine_after"] > measured["cosine_before"]
    setup = dataclasses.replace(setup, prior=tmp_path / "prior", seeds=2, num_steps=1)
    found = sections.modality_gap(study, setup)["modality_gap"]
    width = {name: row["centroid_distance"] for name, row in found["cures"].items()}
    assert width["mean_shift"] < 0.5 * width["none"]
    assert width["prior"] < 0.5 * width["none"]
    low, high = found["cures"]["none"]["centroid_distance_interval"]
    assert low <= width["none"] <= high
    # the shifted condition makes other sounds than the plain one
    question = study.question("text", 1, num_steps=1)
    sounds = {
        name: setup.voice.answer(setup.cured(study, question, name), study.cache).audio
        for name in ("none", "mean_shift", "prior", None)
    }
    np.testing.assert_array_equal(sounds["none"], sounds[None])
    assert not np.array_equal(sounds["none"], sounds["mean_shift"])
    assert not np.array_equal(sounds["none"], sounds["prior"])


def test_a_cured_query_is_no_captured_clip_which_would_embed_it_past_the_cure(setup, monkeypatch):
    synthesizer = setup.voice.synthesizer
    plan = resolve_options(SynthOptions(num_steps=1), synthesizer.bundle.manifest)
    engines = SimpleNamespace(bundle=synthesizer.bundle)
    monkeypatch.setattr(synthesizer, "_captured", captured.CapturedRenderer(engines))
    assert synthesizer.captures(plan)
    monkeypatch.setattr(synthesizer, "cure", object())
    assert not synthesizer.captures(plan)


def test_the_page_shows_and_plays_everything(study, setup, tmp_path):
    pytest.importorskip("matplotlib")
    found = report.evaluate(study, setup, ["text", "paraphrases", "num_steps"])
    index = page.write_page(tmp_path / "page", found, study, setup)
    text = index.read_text()
    for name in ("mels", "num_steps", "guidance_scale"):
        assert f'src="{name}.png"' in text
        assert (tmp_path / "page" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "page" / "report.json").read_text()) == found
    assert text.count("<audio") == 3 * len(LABELS)  # the voice, its vocoder, and the real one
    for system in ("tiny", "resynthesis", "real"):
        sound, rate = soundfile.read(tmp_path / "page" / "sounds" / system / "snare_drum.flac")
        assert rate == 22050
        assert np.abs(sound).max() > 0.01
    kit = mushra_kit(tmp_path / "page" / "sounds", tmp_path / "kit", systems=["tiny"])
    assert kit.is_file()


def test_the_command_measures_and_keeps_results(corpus, tiny_bundle, tmp_path):
    folder, shards, labels = corpus
    line = ["evaluate", str(shards), "--labels", str(labels), "--bundle", str(tiny_bundle)]
    line += ["--checkpoint", str(folder / "judge"), "--provider", "cpu", "--seeds", "2"]
    line += ["--num-steps", "1", "--cache", str(tmp_path / "cache"), "-o", str(tmp_path / "r.json")]
    run = CliRunner().invoke(main, [*line, "--section", "text", "--section", "image"])
    assert run.exit_code == 0, run.output
    assert "| text queries | 12 |" in run.output
    told = [line for line in run.stderr.splitlines() if line.startswith("section")]
    assert told == [
        "section text, 1 of 2, 2 clips a query",
        "section image, 2 of 2, 2 clips a query",
    ]
    again = CliRunner().invoke(main, [*line, "--section", "paraphrases", "--update"])
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "r.json").read_text()).keys() >= {"text", "image", "paraphrases"}
    assert "| text queries | 12 |" in again.output
    for options, message in (
        (["--system", "ours"], "give NAME=PATH"),
        (["--system", f"ours={tmp_path}"], "manifest.json: no such file"),
        (["--embedding", "vggish"], "needs its weights"),
        (["--cure", "prior"], "needs --prior"),
        (["--curve-steps", "1,2000"], "num_steps must be from 1 to 1000, got 2000"),
        (["--template", "a drum"], "has no {query} in it"),
    ):
        refused = CliRunner().invoke(main, [*line, *options])
        assert refused.exit_code == 1
        assert message in refused.output


def test_bad_options_are_refused_by_name(study, setup):
    with pytest.raises(InputError, match="no such section: quality; sections are text, image"):
        report.evaluate(study, setup, ["quality"])
    with pytest.raises(InputError, match="unknown cure 'aspirin'; use one of none, mean_shift"):
        dataclasses.replace(setup, cure="aspirin")
    with pytest.raises(InputError, match="needs --prior"):
        dataclasses.replace(setup, cure="prior")


@pytest.mark.parametrize(
    ("section", "options", "concepts", "message"),
    [
        ("systems", {"resynthesis_clips": 1}, None, "give --resynthesis-clips 2 or more"),
        ("systems", {"seeds": 1}, 1, "section systems: .* one text query.* give --seeds 2 or more"),
        ("text", {"seeds": 1}, 1, "section text: .* give --seeds 2 or more, or more --concepts"),
        ("image", {"seeds": 1}, 1, "section image: .* one image query"),
        # a quarter of the seeds
        ("curves", {"seeds": 7}, 1, "section curves: .* give --seeds 8 or more"),
        ("gap", {"prior": Path("nowhere")}, None, "prior.safetensors: no such file"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(
    section, options, concepts, message, corpus, tiny_bundle, setup, monkeypatch
):
    folder, shards, labels = corpus
    encoder = tiny_clip(tiny_bundle)
    study = open_study(folder / "judge", shards, labels, encoder=encoder, concept_count=concepts)
    monkeypatch.setattr(study.judge, "hear", lambda *_: pytest.fail("heard already"))
    monkeypatch.setattr(setup.voice, "answer", lambda *_: pytest.fail("asked already"))
    with pytest.raises(ClipSynthError, match=message):
        report.evaluate(study, dataclasses.replace(setup, **options), ["vocoder", section])


def test_concepts_without_a_paraphrase_have_no_such_section(study, setup, monkeypatch):
    monkeypatch.setattr(sections, "load_paraphrases", dict)
    with pytest.raises(InputError, match="leave the section paraphrases out"):
        report.evaluate(study, setup, ["paraphrases"])


def test_baselines_that_fail_do_so_before_the_voices_are_asked(study, setup, monkeypatch):
    def no_pictures():
        raise DataError("no clip has pictures")

    monkeypatch.setattr(study, "retrieval", no_pictures)
    monkeypatch.setattr(setup.voice, "answer", lambda *_: pytest.fail("asked already"))
    with pytest.raises(DataError, match="no clip has pictures"):
        sections.systems(study, setup)


def test_systems_of_one_name_are_refused(study, setup):
    with pytest.raises(InputError, match="'tiny' is named twice"):
        dataclasses.replace(setup, systems=[setup.voice] * 2)
    setup.voice.name = "retrieval"
    with pytest.raises(InputError, match="one of the baselines' names"):
        report.evaluate(study, setup, ["systems"])


def test_a_report_says_its_template_prior_and_seeds(corpus, study, setup, tiny, tmp_path):
    found = report.evaluate(study, setup, ["text", "num_steps", "vocoder"])
    assert found["seeds"] == {"text": 4, "num_steps": 1}
    assert not found.keys() & {"template", "prior_sha256"}
    # said, but what the bundle says itself
    usual = setup.voice.synthesizer.bundle.manifest.condition.templates
    asked = dataclasses.replace(setup, template=usual, seeds=8)
    both = report.evaluate(study, asked, ["image"], found)
    assert both["seeds"] == {"text": 4, "num_steps": 1, "image": 8}
    assert both.keys() >= {"text", "vocoder", "image"}
    pairs = load_pairs(corpus[1] / "train", study.clip, tiny.MEL, corpus[2])
    train_prior(pairs, tmp_path / "prior", steps=2, batch_size=4, noise=0.0)
    bare = dataclasses.replace(setup, template="{query}")
    through = dataclasses.replace(setup, cure="prior", prior=tmp_path / "prior")
    voice = setup.voice.answer
    for other, key in ((bare, "template"), (through, "prior_sha256")):
        told = report.evaluate(study, other, ["paraphrases"])
        assert told[key]
        with pytest.raises(InputError, match="they cannot be merged"):
            report.merge(found, told)
        # which is said before the voice is asked
        setup.voice.answer = lambda *_: pytest.fail("asked already")
        with pytest.raises(InputError, match="they cannot be merged"):
            report.evaluate(study, other, ["paraphrases"], found)
        setup.voice.answer = voice
    # a prior that only the section gap goes through says nothing of the others
    beside = dataclasses.replace(setup, prior=tmp_path / "prior", seeds=1)
    merged = report.evaluate(study, beside, ["gap"], found)
    assert merged["modality_gap"]["prior_sha256"] == told["prior_sha256"]
    assert "prior_sha256" not in merged


def test_fewer_concepts_on_request(corpus, tiny_bundle, setup):
    folder, shards, labels = corpus
    study = open_study(
        folder / "judge", shards, labels, encoder=tiny_clip(tiny_bundle), concept_count=2
    )
    found = report.evaluate(study, setup, ["text", "image"])
    assert found["concepts"] == 2
    assert found["text"]["by_concept"].keys() == {"drum", "bird"}
    assert found["image"]["clips"] == 8


def test_the_classes_of_the_foley_contest(study, setup, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("DogBark", "footstep", "Gun Shot", "Keyboard", "Moving_Motor_Vehicle", "rain"):
        (tmp_path / name).mkdir()
        for number in range(3):
            sound = 0.1 * rng.normal(size=44100)
            soundfile.write(tmp_path / name / f"{number}.wav", sound, 44100)
    asked = dataclasses.replace(setup, foley_dir=tmp_path, foley_clips=3)
    with pytest.raises(InputError, match=r"needs a folder SneezeCough with two WAV files or more"):
        report.evaluate(study, asked, ["foley"])
    (tmp_path / "Sneeze_Cough").mkdir()
    for number in range(3):
        soundfile.write(
            tmp_path / "Sneeze_Cough" / f"{number}.wav", 0.1 * rng.normal(size=9000), 22050
        )
    found = report.evaluate(study, asked, ["foley"])["foley"]
    assert list(found["by_class"]) == list(foley.QUERIES)
    assert found["clips_a_class"] == 3
    for key in ("fad_judge", "kad_judge"):
        values = [row[key] for row in found["by_class"].values()]
        assert np.isfinite(values).all()
        assert found["mean"][key] == pytest.approx(np.mean(values))
    for needed, message in ((None, "needs --foley DIR"), (tmp_path / "no", "no such folder")):
        with pytest.raises(InputError, match=message):
            report.evaluate(study, dataclasses.replace(setup, foley_dir=needed), ["foley"])
    assert "foley" not in report.check_sections(["all"])


def test_sounds_in_the_format_of_the_contest():
    for seconds, rate in ((1.0, 44100), (9.0, 22050)):
        (sound,) = foley.contest_format([np.ones(round(seconds * rate), np.float32)], rate)
        assert sound.shape == (88200,)
        assert sound.dtype == np.float32
        assert sound[11025] == pytest.approx(1.0, abs=0.01)


def test_one_shots_are_measured_on_what_the_voice_makes(study, setup, monkeypatch):
    monkeypatch.setattr(sections, "load_hits", lambda: ("drum", "gunshot"))
    monkeypatch.setattr(hits_module, "load_hits", lambda: ("drum", "gunshot"))
    answer = setup.voice.answer

    def whole(question, cache, progress):
        """A hit of the first query, and one that is cut of the second."""
        sounds = answer(question, cache, progress)
        time = np.arange(11025) / 22050
        hit = np.round(30000 * np.exp(-time / 0.07) * np.cos(2000 * time)).astype(np.int16)
        cut = np.where(time < 0.1, hit, 0).astype(np.int16)
        audio = np.stack([hit] * question.seeds + [cut] * question.seeds)
        return dataclasses.replace(sounds, audio=audio)

    monkeypatch.setattr(setup.voice, "answer", whole)
    found = report.evaluate(study, setup, ["one-shots"])
    assert found["one_shots"]["by_hit"] == {"drum": 1.0, "gunshot": 0.0}
    assert "| usable as they are | 50.0% " in tables.markdown(found)


def test_obedience_is_measured_on_what_the_voice_makes(study, setup, monkeypatch):
    ladders = (
        Ladder("pitch", "pitch_hz", ("a low drum", "a high drum")),
        Ladder("loudness", "level_db", ("a quiet drum", "a drum", "a loud drum")),
        Ladder("loudness", "level_db", ("a quiet drum", "a loud drum")),
    )
    monkeypatch.setattr(sections, "load_ladders", lambda: ladders)
    monkeypatch.setattr(score, "load_ladders", lambda: ladders)
    asked = []
    answer = setup.voice.answer

    def louder(question, cache, progress):
        """The voice's own sounds, each query's louder than the one's before."""
        asked.append(question.queries)
        sounds = answer(question, cache, progress)
        gains = np.repeat(
            [{"a quiet drum": 0.05, "a drum": 0.2}.get(q, 0.9) for q in question.queries],
            question.seeds,
        )
        audio = np.round(sounds.audio * gains[:, None]).astype(np.int16)
        return dataclasses.replace(sounds, audio=audio)

    monkeypatch.setattr(setup.voice, "answer", louder)
    found = report.evaluate(study, setup, ["obedience"])
    assert asked == [("a low drum", "a high drum", "a quiet drum", "a drum", "a loud drum")]
    figures = found["obedience"]
    assert found["seeds"] == {"obedience": setup.seeds}
    assert figures["by_attribute"]["loudness"]["share"] == 1.0
    assert figures["triples"]["share"] == 1.0
    assert figures["by_attribute"]["pitch"]["of"] == setup.seeds
    assert "| loudness | " in tables.markdown(found)
