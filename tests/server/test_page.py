"""The page in a real browser: type, generate, see, play, download, and what goes wrong."""

from __future__ import annotations

import dataclasses
import io
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import soundfile

from clipsynth_rt import Synthesizer
from clipsynth_rt.audio.mel import mel_spectrogram
from clipsynth_rt.server import Limits

playwright_api = pytest.importorskip("playwright.sync_api")
expect = playwright_api.expect
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
).split()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page whose every error and broken rule of the security policy fails its test."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    context.set_default_timeout(30_000)
    expect.set_options(timeout=30_000)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console",
        # an answer that is an error is what some tests are about
        lambda message: (
            message.type == "error"
            and "Failed to load resource" not in message.text
            and wrong.append(message.text)
        ),
    )
    yield page
    context.close()
    assert wrong == []


def open_page(page: Any, address: str) -> None:
    page.goto(address)
    expect(page.locator("#voice")).to_contain_text("tiny-test on cpu")


def colours(page: Any, canvas: str) -> int:
    """Return how many colours a canvas shows."""
    script = """canvas => {
        const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        const seen = new Set();
        for (let i = 0; i < data.length; i += 4)
            seen.add((data[i] << 16) + (data[i + 1] << 8) + data[i + 2]);
        return seen.size;
    }"""
    return int(page.locator(canvas).evaluate(script))


def test_type_generate_see_play_download(
    page: Any, listening: Any, voice: Synthesizer, tmp_path: Path
) -> None:
    open_page(page, listening())
    assert colours(page, "#mel") == 1
    page.keyboard.type("drum")  # the query has the focus
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="drum")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("Mel spectrogram of drum"))).to_be_visible()
    assert colours(page, "#mel") > 20
    assert colours(page, "#wave") > 1
    # it plays by itself; then the keyboard stops it, loops it and plays it again
    expect(page.locator("#rtf")).to_have_text(re.compile(r"\d\.\d{3}"))
    expect(page.locator("#stages dt")).to_contain_text(["text", "denoise", "vocode"])
    page.locator("h1").click()
    page.keyboard.press("r")
    expect(page.get_by_role("button", name="Repeat")).to_have_attribute("aria-pressed", "true")
    if page.get_by_role("button", name="Play", exact=True).count():
        page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Pause", exact=True)).to_be_visible()
    expect(page.locator("#time")).not_to_have_text(re.compile(r"^0\.00 "))
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()
    page.keyboard.press("/")
    expect(page.get_by_label("What should it sound like?")).to_be_focused()
    page.get_by_label("Position").fill("0.5")
    expect(page.locator("#time")).to_have_text("0.25 / 0.50 s")
    with page.expect_download() as started:
        page.get_by_role("link", name="Download").click()
    seed = page.locator("#seed").input_value()
    assert started.value.suggested_filename == f"drum-{seed}.wav"
    started.value.save_as(tmp_path / "drum.wav")
    sound, _ = soundfile.read(tmp_path / "drum.wav", dtype="float32")
    shown = float(page.locator("#duration").input_value())
    alone = voice.synth("drum", seed=int(seed), duration=shown)
    np.testing.assert_allclose(sound, alone.waveform, atol=1e-4)


def test_settings_reach_the_server_and_takes_are_kept(page: Any, listening: Any) -> None:
    open_page(page, listening())
    page.get_by_label("Duration").fill("0.7")
    page.get_by_label("Seed").fill("41")
    assert not page.get_by_label("new each time").is_checked()
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Steps").fill("3")
    page.get_by_label("Guidance").fill("1")
    page.get_by_label("Template").fill("the sound of {query}")
    page.get_by_label("Steer away from").fill("rain")
    page.get_by_label("seamless").check()
    page.get_by_label("File format").select_option("flac")
    page.get_by_label("What should it sound like?").fill("dog")
    with page.expect_request("**/v1/synth") as asked:
        page.get_by_role("button", name="Generate").click()
    assert asked.value.post_data_json == {
        "query": "dog",
        "num_steps": 3,
        "guidance_scale": 1,
        "duration": 0.7,
        "seed": 41,
        "template": "the sound of {query}",
        "negative": "rain",
        "sampler": "ddim",
        "loop": True,
        "format": "flac",
    }
    expect(page.locator("#title")).to_have_text("dog")
    expect(page.get_by_role("button", name="Repeat")).to_have_attribute("aria-pressed", "true")
    page.get_by_label("What should it sound like?").fill("piano")
    page.keyboard.press("Enter")
    takes = page.locator("#takes button")
    expect(takes).to_have_count(2)
    takes.nth(1).click()
    expect(page.locator("#title")).to_have_text("dog")
    expect(takes.nth(1)).to_have_attribute("aria-current", "true")
    expect(page.locator("#download")).to_have_attribute("download", "dog-41.flac")


def test_fast_or_better(page: Any, listening: Any, distilled_bundle: Path) -> None:
    with Synthesizer.from_bundle(distilled_bundle, "cpu", threads=1) as speaker:
        open_page(page, listening(speaker=speaker))
        page.get_by_text("More", exact=True).click()
        query = page.get_by_label("What should it sound like?")
        query.fill("dog")
        generate = page.get_by_role("button", name="Generate")
        # numbers show what the sound will have, and those that the network lacks are off
        steps, guidance = page.get_by_label("Steps"), page.get_by_label("Guidance")
        for field, shown in ((steps, "2"), (guidance, "1")):
            expect(field).to_have_attribute("placeholder", shown)
            expect(field).to_be_disabled()
        with page.expect_request("**/v1/synth") as asked:
            generate.click()
        assert asked.value.post_data_json["denoiser"] == "distilled"
        assert not {"num_steps", "guidance_scale"} & asked.value.post_data_json.keys()
        expect(page.locator("#facts")).to_have_text(re.compile("2 steps · guidance 1"))
        page.get_by_text("Better", exact=True).click()
        scale = speaker.bundle.manifest.diffusion.guidance_scale
        expect(guidance).to_have_attribute("placeholder", f"{scale:g}")
        expect(steps).to_have_attribute("placeholder", "8")
        with page.expect_request("**/v1/synth") as asked:
            generate.click()
        assert asked.value.post_data_json["denoiser"] == "full"
        expect(page.locator("#facts")).to_have_text(re.compile(f"8 steps · guidance {scale:g}"))
        # away and back is the network that it was
        guidance.fill("4")
        page.get_by_text("Fast", exact=True).click()
        with page.expect_request("**/v1/synth") as asked:
            generate.click()
        assert asked.value.post_data_json["denoiser"] == "distilled"
        assert "guidance_scale" not in asked.value.post_data_json
        expect(page.locator("#facts")).to_have_text(re.compile("2 steps · guidance 1"))


def test_a_voice_without_a_distilled_network_has_no_switch(page: Any, listening: Any) -> None:
    open_page(page, listening())
    expect(page.get_by_text("Better", exact=True)).to_be_hidden()
    page.get_by_text("More", exact=True).click()
    expect(page.get_by_label("Guidance")).to_be_enabled()


def make(page: Any, query: str) -> None:
    page.get_by_label("What should it sound like?").fill(query)
    page.keyboard.press("Enter")
    expect(page.locator("#title")).to_have_text(query)


def test_history_restores_and_survives_a_reload(page: Any, listening: Any) -> None:
    address = listening()
    open_page(page, address)
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Duration").fill("0.7")
    page.get_by_label("Steps").fill("3")
    page.get_by_label("Steer away from").fill("rain")
    make(page, "dog")
    seed = page.get_by_label("Seed").input_value()
    page.get_by_role("button", name="Back to the voice").click()
    make(page, "piano")
    takes = page.locator("#takes button")
    for reload in (False, True):
        if reload:
            open_page(page, address)
            expect(takes).to_have_count(2)
        takes.nth(1).click()
        expect(page.locator("#title")).to_have_text("dog")
        expect(page.locator("#about")).to_have_text(f" · seed {seed}")
        expect(page.locator("#facts")).to_have_text(re.compile("3 steps"))
        for name, value in (
            ("What should it sound like?", "dog"),
            ("Seed", seed),
            ("Duration", "0.7"),
            ("Steps", "3"),
            ("Steer away from", "rain"),
        ):
            expect(page.get_by_label(name)).to_have_value(value)
        expect(page.get_by_label("new each time")).not_to_be_checked()
        expect(takes).to_have_count(2)
        assert colours(page, "#mel") > 20
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#history")).to_be_hidden()
    open_page(page, address)
    expect(takes).to_have_count(0)


def test_a_broken_history_is_none(page: Any, listening: Any) -> None:
    address = listening()
    open_page(page, address)
    for text in ("{", "7", '[{"name": "x"}, null, 3]'):
        page.evaluate("t => localStorage.setItem('clipsynth-history /', t)", text)
        open_page(page, address)
        expect(page.locator("#takes button")).to_have_count(0)
    make(page, "dog")


def test_four_variations(page: Any, listening: Any, tmp_path: Path, voice: Synthesizer) -> None:
    open_page(page, listening())
    page.get_by_label("Seed").fill("10")
    page.get_by_label("Duration").fill("0.5")
    page.get_by_label("What should it sound like?").fill("dog")
    page.get_by_role("button", name="Four variations").click()
    takes = page.locator("#takes button")
    expect(takes).to_have_count(4)
    seeds = [re.findall(r"seed (\d+)", text)[0] for text in takes.all_inner_texts()]
    assert seeds == ["13", "12", "11", "10"]
    # the first plays at once
    expect(page.locator("#about")).to_have_text(" · seed 10")
    with page.expect_download() as started:
        page.get_by_role("button", name="Download all 4").click()
    started.value.save_as(tmp_path / "sounds.zip")
    with zipfile.ZipFile(tmp_path / "sounds.zip") as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == [f"dog-{seed}.wav" for seed in range(10, 14)]
        sound, _ = soundfile.read(io.BytesIO(archive.read("dog-12.wav")), dtype="float32")
    alone = voice.synth("dog", seed=12, duration=0.5)
    np.testing.assert_allclose(sound, alone.waveform, atol=1e-4)
    page.get_by_label("What should it sound like?").press("Shift+Enter")
    expect(takes).to_have_count(8)


def test_variations_of_a_picture(page: Any, listening: Any, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (50, 40), "green").save(tmp_path / "leaf.png")
    open_page(page, listening())
    page.get_by_label("Ask with a picture").set_input_files(tmp_path / "leaf.png")
    page.get_by_role("button", name="Four variations").click()
    expect(page.locator("#takes button")).to_have_count(4)
    expect(page.get_by_role("button", name="Share")).to_be_disabled()


def test_ideas_are_the_voices(
    page: Any, listening: Any, tiny_copy: Path, edit_manifest: Any
) -> None:
    names = {"home": ["my doorbell", "my kettle"], "drums": [f"drum {i}" for i in range(20)]}
    edit_manifest(tiny_copy, lambda manifest: manifest.update(schema_version=3, concepts=names))
    ideas = page.locator("#ideas button")
    with Synthesizer.from_bundle(tiny_copy, "cpu", threads=1) as speaker:
        open_page(page, listening(speaker=speaker))
        expect(ideas).to_have_count(8)
        known = {name for group in names.values() for name in group}
        assert set(ideas.all_inner_texts()) <= known
        # every group has its turn
        assert {"my doorbell", "my kettle"} <= set(ideas.all_inner_texts())
        assert page.locator("#concepts option").count() == 22
        page.get_by_role("button", name="my doorbell").click()
        expect(page.locator("#title")).to_have_text("my doorbell")
        page.get_by_role("button", name="Other ideas").click()
        expect(ideas).to_have_count(8)


def test_no_ideas_where_the_voice_names_none(page: Any, listening: Any) -> None:
    open_page(page, listening())
    expect(page.locator("#ideas button")).to_have_count(0)
    expect(page.get_by_role("button", name="Other ideas")).to_be_hidden()


def test_axes_are_seconds_and_hertz(page: Any, listening: Any, voice: Synthesizer) -> None:
    open_page(page, listening())
    page.get_by_label("Duration").fill("2")
    make(page, "dog")
    top = voice.bundle.manifest.mel.f_max_hz
    hertz = page.locator("#hertz span")
    assert hertz.all_inner_texts() == ["250 Hz", "500 Hz", "1 kHz", "2 kHz", "4 kHz", "8 kHz"]
    plot = page.locator("#mel").bounding_box()
    # Slaney's mel scale is linear up to 1 kHz: 15 of it
    box, mels = hertz.nth(2).bounding_box(), 15 + 27 * np.log(top / 1000) / np.log(6.4)
    height = (plot["y"] + plot["height"] - box["y"] - box["height"] / 2) / plot["height"]
    assert abs(height - 15 / mels) < 0.01
    seconds = page.locator("#seconds span")
    assert seconds.all_inner_texts() == [f"{t / 4:g} s" for t in range(1, 8)]
    box = seconds.nth(3).bounding_box()
    assert abs(box["x"] + box["width"] / 2 - plot["x"] - plot["width"] / 2) < 3
    name = re.compile(f"2.0 seconds, 0 to {top:g} hertz")
    expect(page.get_by_role("img", name=name)).to_be_visible()


def test_enter_while_busy_queues(page: Any, listening: Any, held: Any) -> None:
    open_page(page, listening(speaker=held))
    query = page.get_by_label("What should it sound like?")
    query.fill("drum")
    page.keyboard.press("Enter")
    assert held.begun.acquire(timeout=20)
    for text in ("dog", "rain"):
        query.fill(text)
        page.keyboard.press("Enter")
    expect(page.locator("#queue")).to_have_text("Next: dog, rain")
    held.go.set()
    expect(page.locator("#takes button")).to_have_count(3)
    expect(page.locator("#title")).to_have_text("rain")
    expect(page.locator("#queue")).to_be_hidden()
    assert [batch["queries"] for batch in held.batches] == [["drum"], ["dog"], ["rain"]]


def test_a_link_carries_query_seed_and_settings(page: Any, listening: Any) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_page(page, listening())
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Seed").fill("41")
    page.get_by_label("Duration").fill("0.7")
    page.get_by_label("Steps").fill("3")
    page.get_by_label("seamless").check()
    make(page, "dog & cat")
    page.get_by_role("button", name="Share").click()
    expect(page.get_by_role("button", name="Share")).to_have_text("Copied")
    link = page.evaluate("() => navigator.clipboard.readText()")
    # nothing of it reaches a server's log
    assert "?" not in link
    other = page.context.new_page()
    requests: list[str] = []
    other.on("request", lambda request: requests.append(request.url))
    open_page(other, link)
    expect(other.get_by_label("What should it sound like?")).to_have_value("dog & cat")
    other.get_by_text("More", exact=True).click()
    for name, value in (("Seed", "41"), ("Duration", "0.7"), ("Steps", "3")):
        expect(other.get_by_label(name)).to_have_value(value)
    expect(other.get_by_label("seamless")).to_be_checked()
    # another site's link costs nothing
    assert not [url for url in requests if url.endswith("/v1/synth")]
    with other.expect_request("**/v1/synth") as asked:
        other.get_by_role("button", name="Generate").click()
    assert asked.value.post_data_json["seed"] == 41
    expect(other.locator("#about")).to_have_text(" · seed 41")


def test_a_link_is_shown_where_it_cannot_be_copied(page: Any, listening: Any) -> None:
    open_page(page, listening())
    make(page, "dog")
    page.evaluate("() => Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.get_by_role("button", name="Share").click()
    expect(page.get_by_label("Link to this sound")).to_have_value(re.compile("#query=dog&seed="))


def test_the_page_behind_a_path_prefix(page: Any, listening: Any) -> None:
    address = listening(root_path="/sounds")
    open_page(page, f"{address}/sounds")
    assert page.url == f"{address}/sounds/"
    make(page, "dog")
    for name in ("API", "Voice"):
        link = page.get_by_role("link", name=name).evaluate("node => node.href")
        assert link.startswith(f"{address}/sounds/")
        assert page.request.get(link).ok


@pytest.mark.parametrize("width", [390, 1100])
def test_touch_targets(page: Any, listening: Any, distilled_bundle: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    with Synthesizer.from_bundle(distilled_bundle, "cpu", threads=1) as speaker:
        open_page(page, listening(speaker=speaker))
        page.get_by_text("More", exact=True).click()
        make(page, "dog")
        small = page.evaluate(
            """() => [...document.querySelectorAll('button, a, input, select, summary')]
                .filter((node) => node.checkVisibility() && !node.classList.contains('skip'))
                // a checkbox is touched by its label
                .map((node) => ['checkbox', 'radio', 'file'].includes(node.type)
                    ? node.closest('label') : node)
                .map((node) => [node.outerHTML.slice(0, 80), node.getBoundingClientRect()])
                .filter(([, box]) => box.width < 44 || box.height < 44)
                .map(([text, box]) => `${text} ${box.width} x ${box.height}`)"""
        )
        assert small == []


def test_a_picture(page: Any, listening: Any, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (50, 40), "green").save(tmp_path / "leaf.png")
    open_page(page, listening())
    page.get_by_label("Ask with a picture").set_input_files(tmp_path / "leaf.png")
    expect(page.locator("#picture-name")).to_have_text("leaf.png")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#title")).to_have_text("leaf.png")
    page.get_by_role("button", name="Remove the picture").click()
    expect(page.get_by_label("What should it sound like?")).to_be_focused()


def test_a_picture_is_dropped(page: Any, listening: Any) -> None:
    open_page(page, listening())
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    script = """bytes => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], 'a.png', {type: 'image/png'}));
        for (const name of ['dragenter', 'drop'])
            document.body.dispatchEvent(new DragEvent(name, {dataTransfer: data, bubbles: true}));
    }"""
    page.evaluate(script, list(buffer.getvalue()))
    expect(page.locator("#picture-name")).to_have_text("a.png")
    expect(page.locator("body")).not_to_have_class("dropping")


def test_a_full_queue_is_told(page: Any, listening: Any, held: Any, voice: Synthesizer) -> None:
    address = listening(Limits(queue=1, clips=1), speaker=held)
    service = held
    open_page(page, address)
    others = page.context.new_page()
    open_page(others, address)
    for turn in range(2):
        # one is made, the next waits
        others.evaluate(
            """() => { fetch('/v1/synth', {method: 'POST', body: '{"query": "dog"}',
                headers: {'Content-Type': 'application/json'}}); }"""
        )
        if turn == 0:
            assert service.begun.acquire(timeout=20)
    metrics = "() => fetch('/metrics').then(answer => answer.text())"
    for _ in range(200):
        if "clipsynth_queue_depth 1.0" in others.evaluate(metrics):
            break
        others.wait_for_timeout(50)
    page.get_by_label("What should it sound like?").fill("drum")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("The queue is full; try again in")
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    held.go.set()
    for _ in range(200):
        if "clipsynth_queue_depth 0.0" in others.evaluate(metrics):
            break
        others.wait_for_timeout(50)
    page.keyboard.press("Enter")
    expect(page.locator("#title")).to_have_text("drum")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_nothing_is_asked_without_a_query(page: Any, listening: Any) -> None:
    open_page(page, listening())
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("alert")).to_contain_text("Say what it should sound like")


def test_a_token(page: Any, listening: Any) -> None:
    page.goto(listening(token="secret"))
    expect(page.get_by_text("This server is private.")).to_be_visible()
    # for people: no header, no status
    expect(page.get_by_role("alert")).to_be_hidden()
    token = page.get_by_label("Access token")
    expect(token).to_be_focused()
    token.fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("That token is not right")
    token.fill("secret")
    page.keyboard.press("Enter")
    expect(page.locator("#voice")).to_contain_text("tiny-test")
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(token).to_be_hidden()
    make(page, "drum")


def test_a_query_is_sent_again_with_the_token(page: Any, listening: Any) -> None:
    page.goto(listening(token="secret"))
    page.get_by_label("What should it sound like?").fill("drum")
    page.keyboard.press("Enter")
    page.get_by_label("Access token").fill("secret")
    page.get_by_role("button", name="Use it").click()
    expect(page.locator("#title")).to_have_text("drum")
    # and where the token is no longer good
    page.evaluate("() => sessionStorage.setItem('clipsynth-token', 'old')")
    page.get_by_label("What should it sound like?").fill("dog")
    page.keyboard.press("Enter")
    page.get_by_label("Access token").fill("secret")
    page.keyboard.press("Enter")
    expect(page.locator("#title")).to_have_text("dog")
    expect(page.locator("#takes button")).to_have_count(2)


def test_a_sound_can_be_stopped(page: Any, listening: Any, held: Any) -> None:
    open_page(page, listening(speaker=held))
    page.get_by_label("What should it sound like?").fill("drum")
    page.keyboard.press("Enter")
    assert held.begun.acquire(timeout=20)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Generate")).to_be_visible()
    expect(page.get_by_role("alert")).to_be_hidden()


@pytest.mark.parametrize("width", [320, 390, 1400])
def test_nothing_is_cut_off(page: Any, listening: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    open_page(page, listening())
    make(page, "dog barking")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_every_control_has_a_name(page: Any, listening: Any) -> None:
    open_page(page, listening())
    page.get_by_text("More", exact=True).click()
    for control in page.locator("button:visible, input:visible, select:visible, a:visible").all():
        snapshot = control.aria_snapshot()
        assert re.search(r'"[^"]+"', snapshot), control.evaluate("node => node.outerHTML")


def test_the_pages_mel_is_the_voices(page: Any, listening: Any, voice: Synthesizer) -> None:
    open_page(page, listening())
    waveform = voice.synth("drum", duration=0.5).waveform
    script = """async samples => {
        const {melSpectrogram} = await import('/static/mel.js');
        const spec = (await (await fetch('/v1/bundle')).json()).mel;
        const mel = melSpectrogram(new Float32Array(samples), {...spec, n_mels: 40});
        return [mel.frames, mel.bins, [...mel.values]];
    }"""
    frames, bins, values = page.evaluate(script, waveform.tolist())
    spec = dataclasses.replace(voice.bundle.manifest.mel, n_mels=40)
    padded = np.zeros(frames * spec.hop_length, np.float32)
    padded[: len(waveform)] = waveform
    expected = mel_spectrogram(padded, spec) * spec.std + spec.mean
    shown = np.array(values, np.float32).reshape(bins, frames)
    # the last frames: the page has nothing to pad with but the sound's own reflection
    np.testing.assert_allclose(shown[:, :-4], expected[:, :-4], atol=2e-3)
