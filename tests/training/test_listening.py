"""Listening tests: levels and anchors as the recommendations say, pages in a browser, scores."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyloudnorm
import pytest
import soundfile
from click.testing import CliRunner
from scipy import signal

from clipsynth_rt.cli.main import main
from clipsynth_rt.errors import DataError, InputError, OutputError
from clipsynth_training.evaluate.listening.kit import ab_kit, low_pass, match_levels, mushra_kit
from clipsynth_training.evaluate.listening.scores import markdown, score

RATE = 22050
CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def noise(seconds: float = 0.8, level: float = 0.1, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (level * generator.standard_normal(round(seconds * RATE))).astype(np.float32)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    for number, system in enumerate(("real", "ours", "theirs")):
        for place, name in enumerate(("dog", "snare_drum")):
            (folder / system).mkdir(exist_ok=True)
            sound = noise(level=0.02 * (number + 1), seed=10 * number + place)
            soundfile.write(folder / system / f"{name}.flac", sound, RATE)
    soundfile.write(folder / "real" / "alone.wav", noise(), RATE)
    return folder


def test_levels_are_matched_and_no_peak_passes():
    peaky = noise(level=0.01)
    peaky[100] = 0.9
    matched = match_levels({"a": (noise(), RATE), "b": (peaky, RATE)}, "dog")
    meter = pyloudnorm.Meter(RATE)
    levels = [meter.integrated_loudness(x.astype(np.float64)) for x in matched.values()]
    assert levels[0] == pytest.approx(levels[1], abs=0.01)
    assert levels[0] < -23.0  # the peak decided
    assert max(np.abs(x).max() for x in matched.values()) <= 10 ** (-1 / 20) + 1e-6
    quiet = match_levels({"a": (noise(level=0.001), RATE)}, "dog")["a"]
    assert meter.integrated_loudness(quiet.astype(np.float64)) == pytest.approx(-23.0, abs=0.01)


@pytest.mark.parametrize(
    ("sound", "message"), [(np.zeros(RATE), "silent"), (noise(0.1), "shorter than 0.4 s")]
)
def test_sounds_without_a_level_are_named(sound, message):
    with pytest.raises(InputError, match=f"dog, ours: .*{message}"):
        match_levels({"ours": (sound.astype(np.float32), RATE)}, "dog")


@pytest.mark.parametrize("cutoff", [3500.0, 7000.0])
def test_the_anchors_meet_the_recommendation(cutoff):
    impulse = np.zeros(4001, np.float32)
    impulse[2000] = 1.0
    frequency, response = signal.freqz(low_pass(impulse, RATE, cutoff), worN=8192, fs=RATE)
    level = 20 * np.log10(np.abs(response) + 1e-12)
    assert np.abs(level[frequency <= cutoff]).max() <= 0.1
    assert level[frequency >= cutoff + 500].max() <= -25.0
    assert level[frequency >= cutoff + 1000].max() <= -50.0
    assert np.abs(low_pass(impulse, RATE, cutoff)).argmax() == 2000  # no delay
    with pytest.raises(InputError, match="anchor at 12000 Hz needs sounds of over 25000 Hz"):
        low_pass(impulse, RATE, 12000.0)


def test_a_kit_tells_listeners_nothing(sounds, tmp_path):
    page = mushra_kit(sounds, tmp_path / "kit", title="Drums & <dogs>")
    key = json.loads((tmp_path / "kit" / "key.json").read_text())
    assert [t["name"] for t in key["trials"].values()] == ["dog", "snare_drum"]
    named = set(next(iter(key["trials"].values()))["clips"].values())
    assert named == {"ours", "theirs", "reference", "anchor 3500 Hz", "anchor 7000 Hz"}
    text = page.read_text()
    assert "Drums &amp; &lt;dogs&gt;" in text
    test = text.split("const TEST = ")[1].split(";\n")[0]
    assert "ours" not in test
    assert "anchor" not in test
    # the hidden reference is the open one, in another file
    trial = key["trials"]["000"]
    hidden = next(clip for clip, system in trial["clips"].items() if system == "reference")
    clips = tmp_path / "kit" / "clips"
    assert (clips / f"{hidden}.wav").read_bytes() == (clips / "000-reference.wav").read_bytes()
    with pytest.raises(OutputError, match="holds a listening test already"):
        ab_kit(sounds, tmp_path / "kit")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mushra", "nowhere", "-o", "kit"], "nowhere: no such folder"),
        (["mushra", "{sounds}", "-o", "kit", "--reference", "gold"], "no system 'gold'"),
        (["ab", "{sounds}", "-o", "kit", "--system", "ours"], "needs two systems"),
        (["ab", "{sounds}", "-o", "kit", *2 * ["--system", "ours"]], "needs two systems"),
        (["score", "{sounds}", "r.json"], "key.json: cannot be read"),
    ],
)
def test_bad_input_is_one_clear_line(sounds, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    arguments = [a.replace("{sounds}", str(sounds)) for a in arguments]
    result = CliRunner().invoke(main, ["listening", *arguments])
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("name", ["reference", "anchor 3500 Hz", "anchor 5000 Hz"])
def test_a_system_named_as_a_clip_that_the_test_adds_is_refused(sounds, tmp_path, name):
    folder = tmp_path / "sounds"
    shutil.copytree(sounds, folder)
    (folder / "theirs").rename(folder / name)
    with pytest.raises(InputError, match=f"system '{name}' has the name of a clip"):
        mushra_kit(folder, tmp_path / "kit")
    assert not (tmp_path / "kit").exists()
    assert mushra_kit(folder, tmp_path / "kit", systems=["ours"]).is_file()  # left out of the test


def test_a_folder_named_reference_may_be_the_reference(sounds, tmp_path):
    folder = tmp_path / "sounds"
    shutil.copytree(sounds, folder)
    (folder / "real").rename(folder / "reference")
    mushra_kit(folder, tmp_path / "kit", reference="reference")
    trials = json.loads((tmp_path / "kit" / "key.json").read_text())["trials"]
    assert set(trials["000"]["clips"].values()) >= {"reference", "ours", "theirs"}


def test_a_system_given_twice_is_compared_once(sounds, tmp_path):
    ab_kit(sounds, tmp_path / "kit", systems=["ours", "ours", "theirs"])
    trials = json.loads((tmp_path / "kit" / "key.json").read_text())["trials"]
    pairs = [sorted(trial["clips"].values()) for trial in trials.values()]
    assert pairs == [["ours", "theirs"]] * 2  # one a sound


def test_sounds_that_end_below_the_mid_anchor_do_without_and_say_so(tmp_path, caplog):
    for number, system in enumerate(("real", "ours")):
        (tmp_path / "low" / system).mkdir(parents=True)
        soundfile.write(tmp_path / "low" / system / "dog.wav", noise(seed=number), 15000)
    mushra_kit(tmp_path / "low", tmp_path / "kit")
    trial = json.loads((tmp_path / "kit" / "key.json").read_text())["trials"]["000"]
    assert set(trial["clips"].values()) == {"ours", "reference", "anchor 3500 Hz"}
    assert "no anchor at 7000 Hz" in caplog.text
    assert "over 15000 Hz, got 15000" in caplog.text
    with pytest.raises(InputError, match="anchor at 7000 Hz needs sounds of over 15000 Hz"):
        mushra_kit(tmp_path / "low", tmp_path / "other", anchors_hz=[7000.0])


def test_the_command_takes_both_anchors_or_those_that_are_named(sounds, tmp_path):
    for out, named in (("a", ()), ("b", ("5000",))):
        line = ["listening", "mushra", str(sounds), "-o", str(tmp_path / out)]
        line += [word for hz in named for word in ("--anchor", hz)]
        assert CliRunner().invoke(main, line).exit_code == 0
        trial = json.loads((tmp_path / out / "key.json").read_text())["trials"]["000"]
        anchors = {name for name in trial["clips"].values() if name.startswith("anchor")}
        assert anchors == {f"anchor {hz} Hz" for hz in named or ("3500", "7000")}


Ratings = dict[str, float]


def answered(
    kit: Path, listener: str, ratings: Ratings | list[Ratings], path: Path | None = None
) -> Path:
    """Write the result of a listener who rates systems alike in every trial, or as listed."""
    key = json.loads((kit / "key.json").read_text())
    each = ratings if isinstance(ratings, list) else [ratings] * len(key["trials"])
    trials = []
    for (trial, entry), rated in zip(key["trials"].items(), each, strict=False):
        given = {clip: rated[name] for clip, name in entry["clips"].items()}
        trials.append({"trial": trial, "scores": given})
    path = path or kit / f"{listener}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"kit": key["kit"], "listener": listener, "trials": trials}))
    return path


@pytest.fixture
def rating(sounds, tmp_path) -> Path:
    mushra_kit(sounds, tmp_path / "rating", systems=["ours"], anchors_hz=[3500.0])
    return tmp_path / "rating"


@pytest.fixture
def comparing(sounds, tmp_path) -> Path:
    ab_kit(sounds, tmp_path / "comparing", systems=["ours", "theirs"])
    return tmp_path / "comparing"


GOOD = {"reference": 100, "ours": 80, "anchor 3500 Hz": 20}
OURS, THEIRS = {"ours": 1, "theirs": 0}, {"ours": 0, "theirs": 1}


def test_mushra_scores_leave_out_who_misses_the_reference(sounds, tmp_path):
    kit = tmp_path / "kit"
    mushra_kit(sounds, kit)
    anchors = ("anchor 3500 Hz", "anchor 7000 Hz")
    good = {"reference": 100, "ours": 80, "theirs": 60, **dict.fromkeys(anchors, 20)}
    other = {"reference": 95, "ours": 70, "theirs": 70, **dict.fromkeys(anchors, 10)}
    deaf = {"reference": 50, "ours": 100, "theirs": 100, **dict.fromkeys(anchors, 100)}
    files = [answered(kit, who, r) for who, r in (("a", good), ("b", other), ("c", deaf))]
    report = score(kit, files)
    assert report["excluded"] == [f"c ({kit / 'c.json'})"]
    assert report["listeners"] == 2
    assert report["scores"]["ours"]["mean"] == 75.0
    assert report["scores"]["ours"]["interval"] == [70.0, 80.0]
    assert next(iter(report["scores"])) == "reference"
    assert report["wins"]["ours"]["theirs"] == 0.75  # one win, one tie
    assert report["wins"]["theirs"]["ours"] == 0.25
    assert "| ours | 75.0 | 70.0–80.0 | 4 |" in markdown(report)
    with pytest.raises(InputError, match="no listener is left"):
        score(kit, files[2:])


def test_results_of_another_test_or_half_done_are_refused(sounds, tmp_path):
    ab_kit(sounds, tmp_path / "kit", systems=["ours", "theirs"])
    path = answered(tmp_path / "kit", "a", {"ours": 1, "theirs": 0})
    report = score(tmp_path / "kit", [path])
    counts = {"first": 2, "second": 0, "none": 0}
    assert report["pairs"] == [
        {
            "systems": ["ours", "theirs"],
            **counts,
            "votes": counts,
            "votes_of": "answers of one listener",
            "p": 0.5,
        }
    ]
    result = json.loads(path.read_text())
    result["trials"][0]["scores"].popitem()
    path.write_text(json.dumps(result))
    with pytest.raises(InputError, match="does not score every clip"):
        score(tmp_path / "kit", [path])
    path.write_text(json.dumps({**result, "kit": "other"}))
    with pytest.raises(InputError, match="is of test other"):
        score(tmp_path / "kit", [path])
    path.write_text(json.dumps({"kit": result["kit"], "listener": "a"}))
    with pytest.raises(InputError, match="is no result of this test"):
        score(tmp_path / "kit", [path])


@pytest.mark.parametrize("value", [1e9, -5, 100.5, True, float("nan"), float("inf"), "50", None])
def test_a_rating_that_the_page_cannot_give_is_refused(rating, value):
    for system in ("ours", "reference"):
        path = answered(rating, "a", [GOOD, {**GOOD, system: value}])
        with pytest.raises(DataError) as refused:
            score(rating, [path])
        said = f"score {json.dumps(value)} of clip 001-"
        assert f"a.json: trial 001: {said}" in str(refused.value)
        assert "is not from 0 to 100" in str(refused.value)


def test_ratings_at_both_ends_of_the_scale_are_taken(rating):
    path = answered(rating, "a", {**GOOD, "ours": 0, "anchor 3500 Hz": 99.5})
    report = score(rating, [path])
    assert {name: row["mean"] for name, row in report["scores"].items()} == {
        "reference": 100.0,
        "anchor 3500 Hz": 99.5,
        "ours": 0.0,
    }


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"ours": 7, "theirs": 0}, "trial 001: score 7 of clip 001-.* is not 0, 0.5 or 1"),
        ({"ours": True, "theirs": 0}, "trial 001: score true of clip"),
        ({"ours": float("nan"), "theirs": 0}, "trial 001: score NaN of clip"),
        ({"ours": 1, "theirs": 1}, "trial 001: scores 1 and 1 are no preference"),
        ({"ours": 0.5, "theirs": 0}, "trial 001: scores (0.5 and 0|0 and 0.5) are no preference"),
    ],
)
def test_a_preference_that_the_page_cannot_give_is_refused(comparing, said, message):
    path = answered(comparing, "a", [{"ours": 0.5, "theirs": 0.5}, said])
    with pytest.raises(DataError, match=rf"a\.json: {message}"):
        score(comparing, [path])


def test_a_trial_or_a_file_that_is_there_twice_is_refused(rating, monkeypatch):
    path = answered(rating, "a", GOOD)
    monkeypatch.chdir(rating)
    with pytest.raises(InputError, match=r"a\.json: is given twice"):
        score(rating, [path, "a.json"])
    result = json.loads(path.read_text())
    result["trials"].append(result["trials"][0])
    path.write_text(json.dumps(result))
    with pytest.raises(DataError, match=r"a\.json: trial 000 is answered twice"):
        score(rating, [path])


@pytest.mark.parametrize("name", ["", "Kim"])
def test_listeners_of_one_name_in_two_folders_are_two(rating, name):
    deaf = {**GOOD, "reference": 50}
    alice = answered(rating, name, GOOD, rating / "alice" / "result.json")
    bob = answered(rating, name, {**GOOD, "ours": 60}, rating / "bob" / "result.json")
    carol = answered(rating, name, deaf, rating / "carol" / "result.json")
    report = score(rating, [alice, bob, carol])
    assert report["listeners"] == 2
    assert report["excluded"] == [f"{name or 'result'} ({carol})"]
    assert report["scores"]["ours"]["interval"] == [60.0, 80.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": None}, "or damaged: no 'kind'"),
        ({"trials": None}, "or damaged: no 'trials'"),
        ({"title": None}, "or damaged: no 'title'"),
        ({"kind": "abx"}, "of kind 'abx'"),
        ({"trials": []}, "is damaged"),
        ({"trials": {"000": {}}}, "is damaged (KeyError('clips'))"),
        ({"trials": {"000": {"clips": {}}}}, "has a trial without reference"),
    ],
)
def test_a_damaged_key_is_one_clear_line(rating, change, message):
    path = answered(rating, "a", GOOD)
    key = {**json.loads((rating / "key.json").read_text()), **change}
    key = {name: value for name, value in key.items() if value is not None}
    (rating / "key.json").write_text(json.dumps(key))
    result = CliRunner().invoke(main, ["listening", "score", str(rating), str(path)])
    assert result.exit_code == 1
    assert "key.json: " in result.output
    assert message in result.output
    assert len(result.output.splitlines()) == 1


def test_one_rating_or_equal_ones_have_no_interval(rating):
    once = score(rating, [answered(rating, "a", [GOOD])])
    assert once["scores"]["ours"] == {"mean": 80.0, "interval": None, "ratings": 1}
    assert once["wins_interval"]["reference"]["ours"] is None
    text = markdown(once)
    assert "1 listener, of whom alone this tells" in text
    assert "| ours | 80.0 | – | 1 |" in text
    assert "| reference |  | 100% (–) | 100% (–) |" in text
    files = [answered(rating, who, {**GOOD, "anchor 3500 Hz": 0}) for who in "ab"]
    alike = score(rating, files)["scores"]
    assert alike["ours"]["interval"] is None
    assert alike["anchor 3500 Hz"]["interval"] is None  # a rating of 0 is no loss
    json.dumps([once, alike], allow_nan=False)


def test_answers_that_agree_are_not_certain(comparing):
    report = score(comparing, [answered(comparing, who, OURS) for who in "abc"])
    low, high = report["scores"]["ours"]["interval"]
    assert low == pytest.approx(0.4385, abs=1e-3)  # Wilson, 3 of 3 listeners
    assert high == 1.0
    assert report["wins_interval"]["ours"]["theirs"] == [low, high]
    assert report["wins_interval"]["theirs"]["ours"][0] == 0.0
    assert "| ours |  | 100% (44–100) |" in markdown(report)
    neither = {"ours": 0.5, "theirs": 0.5}
    tied = score(comparing, [answered(comparing, who, neither) for who in "ab"])
    assert tied["wins"]["ours"]["theirs"] == 0.5
    assert tied["wins_interval"]["ours"]["theirs"] is None


def test_the_sign_test_counts_listeners_and_not_their_answers(comparing):
    files = [answered(comparing, who, OURS) for who in "abcde"]
    files.append(answered(comparing, "f", [THEIRS, {"ours": 0.5, "theirs": 0.5}]))
    files.append(answered(comparing, "g", [OURS, THEIRS]))
    report = score(comparing, files)
    (pair,) = report["pairs"]
    assert [pair["first"], pair["second"], pair["none"]] == [11, 2, 1]
    assert pair["votes"] == {"first": 5, "second": 1, "none": 1}
    assert pair["votes_of"] == "listeners"
    assert pair["p"] == pytest.approx(2 * (1 + 6) / 2**6)
    assert "| ours, theirs | listeners | 5 | 1 | 1 | 0.22 |" in markdown(report)
    alone = score(comparing, files[:1])
    assert "| ours, theirs | answers of one listener | 2 | 0 | 0 | 0.5 |" in markdown(alone)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if shutil.which(CHROMIUM) is None:
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium")
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


def open_page(browser, page: Path):
    tab = browser.new_page(viewport={"width": 900, "height": 900})
    faults: list[str] = []
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    tab.goto(page.as_uri())
    tab.fill("#listener", "Ada L.")
    tab.keyboard.press("Enter")
    return tab, faults


def save(tab, folder: Path) -> Path:
    with tab.expect_download() as download:
        tab.keyboard.press("Enter")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_mushra_by_keyboard_in_a_browser(browser, sounds, tmp_path):
    page = mushra_kit(sounds, tmp_path / "kit", title="Drums")
    key = json.loads((tmp_path / "kit" / "key.json").read_text())
    tab, faults = open_page(browser, page)
    orders = []
    for number in range(2):
        assert tab.inner_text("#where") == f"{number + 1} of 2"
        assert tab.is_disabled("#next")
        tab.keyboard.press("r")
        # it really plays, and a switch goes on in the middle
        tab.wait_for_function("trial.audio[trial.reference].currentTime > 0.1")
        tab.keyboard.press("1")
        assert tab.evaluate("trial.audio[trial.order[0]].currentTime") > 0.05
        assert tab.inner_text("#missing") == "4 sounds are not yet heard."
        orders.append(tab.evaluate("trial.order"))
        for place, clip in enumerate(orders[-1]):
            name = key["trials"][clip[:3]]["clips"][clip]
            tab.keyboard.press(str(place + 1))
            assert tab.evaluate("document.activeElement.dataset.clip") == clip
            tab.keyboard.press("End" if name == "reference" else "Home")
            if name == "ours":
                tab.keyboard.press("PageUp")
        tab.keyboard.press("Enter")
    tab.wait_for_selector("#save")
    report = score(tmp_path / "kit", [save(tab, tmp_path)])
    tab.close()
    assert not faults
    assert report["scores"]["reference"]["mean"] == 100.0
    assert report["scores"]["ours"]["mean"] == 10.0
    assert report["scores"]["anchor 3500 Hz"]["mean"] == 0.0
    assert report["scores"]["anchor 7000 Hz"]["mean"] == 0.0
    assert report["wins"]["ours"]["theirs"] == 1.0


def test_a_pair_by_keyboard_and_mouse_in_a_browser(browser, sounds, tmp_path):
    page = ab_kit(sounds, tmp_path / "kit", systems=["ours", "theirs"])
    key = json.loads((tmp_path / "kit" / "key.json").read_text())
    tab, faults = open_page(browser, page)
    assert "Which one sounds more like “" in tab.inner_text("#question")
    for _ in range(2):
        first = tab.evaluate("trial.order[0]")
        tab.keyboard.press("a")
        tab.keyboard.press("b")
        ours_first = key["trials"][first[:3]]["clips"][first] == "ours"
        tab.click(f"text={'A' if ours_first else 'B'} is better")
        assert tab.get_attribute(".choice button:nth-child(2)", "aria-pressed") == "false"
        tab.click("#next")
    report = score(tmp_path / "kit", [save(tab, tmp_path)])
    tab.close()
    assert not faults
    assert report["scores"]["ours"]["mean"] == 1.0


def test_a_missing_clip_is_said_on_the_page(browser, sounds, tmp_path):
    page = ab_kit(sounds, tmp_path / "kit", systems=["ours", "theirs"])
    shutil.rmtree(tmp_path / "kit" / "clips")
    tab, _ = open_page(browser, page)
    tab.wait_for_selector("#trouble:not([hidden])")
    assert "cannot be played. Is the folder complete?" in tab.inner_text("#trouble")
    tab.close()
