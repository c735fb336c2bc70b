"""The page in a real browser: type, generate, see, play, download, and what goes wrong."""

from __future__ import annotations

import dataclasses
import io
import re
import shutil
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
    page.keyboard.press("l")
    expect(page.get_by_role("button", name="Loop")).to_have_attribute("aria-pressed", "true")
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
    page.get_by_label("Steps").fill("3")
    page.get_by_label("Guidance").fill("1")
    page.get_by_label("Duration").fill("0.7")
    page.get_by_label("Seed").fill("41")
    assert not page.get_by_label("new each time").is_checked()
    page.get_by_text("More", exact=True).click()
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
    expect(page.get_by_role("button", name="Loop")).to_have_attribute("aria-pressed", "true")
    page.get_by_label("What should it sound like?").fill("piano")
    page.keyboard.press("Enter")
    takes = page.locator("#takes button")
    expect(takes).to_have_count(2)
    takes.nth(1).click()
    expect(page.locator("#title")).to_have_text("dog")
    expect(takes.nth(1)).to_have_attribute("aria-current", "true")
    expect(page.locator("#download")).to_have_attribute("download", "dog-41.flac")


def test_a_distilled_voice_chooses_until_it_is_told(
    page: Any, listening: Any, distilled_bundle: Path
) -> None:
    with Synthesizer.from_bundle(distilled_bundle, "cpu", threads=1) as speaker:
        open_page(page, listening(speaker=speaker))
        page.get_by_label("What should it sound like?").fill("dog")
        generate = page.get_by_role("button", name="Generate")
        expect(page.locator("#num_steps")).to_have_value("2")
        with page.expect_request("**/v1/synth") as asked:
            generate.click()
        assert not {"num_steps", "guidance_scale"} & asked.value.post_data_json.keys()
        expect(page.locator("#facts")).to_have_text(re.compile("2 steps"))
        # guidance is the ordinary denoiser's, and so are the steps
        page.get_by_label("Guidance").fill("3")
        expect(page.locator("#num_steps")).to_have_value("8")
        with page.expect_request("**/v1/synth") as asked:
            generate.click()
        assert asked.value.post_data_json["guidance_scale"] == 3
        expect(page.locator("#facts")).to_have_text(re.compile("8 steps"))


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
    expect(page.get_by_role("alert")).to_contain_text("This server asks for a token")
    page.get_by_label("This server asks for a token").fill("secret")
    page.get_by_role("button", name="Use it").click()
    expect(page.locator("#voice")).to_contain_text("tiny-test")
    page.get_by_label("What should it sound like?").fill("drum")
    page.keyboard.press("Enter")
    expect(page.locator("#title")).to_have_text("drum")


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
    page.get_by_role("button", name="dog barking").click()
    expect(page.locator("#title")).to_have_text("dog barking")
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
