"""Make the pictures and sounds that the README shows: python docs/make_assets.py.

Sounds are those of the shipped voice with seed 3; the page is shot in Chromium (Playwright).
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from PIL import Image

from clipsynth_rt import Synthesizer
from clipsynth_rt.audio.plot import plot_clip

ASSETS = Path(__file__).parent / "assets"
QUERIES = ("drum", "dog", "rain", "siren")
SEED = 3
PORT = 8123


def make_sounds() -> None:
    """Write one MP3 a query, and their mel spectrograms side by side."""
    pictures = []
    with Synthesizer.from_bundle(provider="cpu") as synthesizer:
        for query in QUERIES:
            clip = synthesizer.synth(query, seed=SEED)
            clip.save(ASSETS / f"{query}.mp3")
            png = plot_clip(clip, synthesizer.bundle.manifest.mel)
            pictures.append(Image.open(io.BytesIO(png)).convert("RGB"))
    width, height = pictures[0].size
    sheet = Image.new("RGB", (2 * width, 2 * height), "white")
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % 2 * width, number // 2 * height))
    sheet.save(ASSETS / "spectrograms.png", optimize=True)


def make_page() -> None:
    """Write a picture of the page with a sound on it."""
    from playwright.sync_api import sync_playwright

    server = subprocess.Popen(
        [sys.executable, "-m", "clipsynth_rt", "serve", "--port", str(PORT), "--provider", "cpu"]
    )
    try:
        address = f"http://127.0.0.1:{PORT}"
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/readyz", timeout=1)
                break
            except OSError:
                time.sleep(0.5)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox"]
            )
            tab = browser.new_page(viewport={"width": 1000, "height": 1120})
            tab.goto(address)
            tab.wait_for_timeout(1500)
            tab.locator("input[type=text], input[type=search], #query").first.fill("drum")
            tab.keyboard.press("Enter")
            tab.wait_for_timeout(4000)
            tab.evaluate("scrollTo(0, 0)")
            tab.screenshot(path=ASSETS / "page.png")
            browser.close()
    finally:
        server.terminate()
        server.wait()
    shot = Image.open(ASSETS / "page.png").convert("RGB")
    # a palette of 64 colours: the picture is in every clone
    shot.quantize(64).save(ASSETS / "page.png", optimize=True)


if __name__ == "__main__":
    ASSETS.mkdir(exist_ok=True)
    make_sounds()
    make_page()
