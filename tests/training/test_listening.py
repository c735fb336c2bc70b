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

from clipsynth_rt.cli import main
from clipsynth_rt.errors import InputError, OutputError
from clipsynth_rt.training.evaluate.listening import ab_kit, low_pass, match_levels, mushra_kit
from clipsynth_rt.training.evaluate.listening_scores import markdown, score

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


def test_the_anchor_meets_the_recommendation():
    impulse = np.zeros(4001, np.float32)
    impulse[2000] = 1.0
    frequency, response = signal.freqz(low_pass(impulse, RATE, 3500.0), worN=8192, fs=RATE)
    level = 20 * np.log10(np.abs(response) + 1e-12)
    assert np.abs(level[frequency <= 3500]).max() <= 0.1
    assert level[frequency >= 4000].max() <= -25.0
    assert level[frequency >= 4500].max() <= -50.0
    assert np.abs(low_pass(impulse, RATE, 3500.0)).argmax() == 2000  # no delay
    with pytest.raises(InputError, match="anchor at 12000 Hz needs sounds of over 24000 Hz"):
        low_pass(impulse, RATE, 12000.0)


def test_a_kit_tells_listeners_nothing(sounds, tmp_path):
    page = mushra_kit(sounds, tmp_path / "kit", title="Drums & <dogs>")
    key = json.loads((tmp_path / "kit" / "key.json").read_text())
    assert [t["name"] for t in key["trials"].values()] == ["dog", "snare_drum"]
    named = set(next(iter(key["trials"].values()))["clips"].values())
    assert named == {"ours", "theirs", "reference", "anchor 3500 Hz"}
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


def answered(kit: Path, listener: str, ratings: dict[str, float]) -> Path:
    """Write the result of a listener who rates systems alike in every trial."""
    key = json.loads((kit / "key.json").read_text())
    trials = []
    for trial, entry in key["trials"].items():
        given = {clip: ratings[name] for clip, name in entry["clips"].items()}
        trials.append({"trial": trial, "scores": given})
    path = kit / f"{listener}.json"
    path.write_text(json.dumps({"kit": key["kit"], "listener": listener, "trials": trials}))
    return path


def test_mushra_scores_leave_out_who_misses_the_reference(sounds, tmp_path):
    kit = tmp_path / "kit"
    mushra_kit(sounds, kit)
    good = {"reference": 100, "ours": 80, "theirs": 60, "anchor 3500 Hz": 20}
    other = {"reference": 95, "ours": 70, "theirs": 70, "anchor 3500 Hz": 10}
    deaf = {"reference": 50, "ours": 100, "theirs": 100, "anchor 3500 Hz": 100}
    files = [answered(kit, who, r) for who, r in (("a", good), ("b", other), ("c", deaf))]
    report = score(kit, files)
    assert report["excluded"] == ["c (c)"]
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
    assert report["pairs"] == [
        {"systems": ["ours", "theirs"], "first": 2, "second": 0, "none": 0, "p": 0.5}
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
        assert tab.inner_text("#missing") == "3 sounds are not yet heard."
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
