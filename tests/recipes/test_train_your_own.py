"""The README's recipe for a voice of one's own, word for word but for its length."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from clipsynth_rt.cli.main import main

av = pytest.importorskip("av")
pytest.importorskip("torch")

README = Path(__file__).parents[2] / "README.md"
DENOISER = """
[unet]
channels = [8, 16]
blocks = [1, 1]
time_attention = [false, false]
full_attention = [false, true]
embedding = 16
groups = 4
[optimiser]
batch_size = 2
"""
VOCODER = """
[vocoder]
kind = "istft"
channels = 16
hidden = 32
blocks = 1
refinements = 1
[training]
batch_size = 2
segment_frames = 16
waveform_from = 1
"""
# what keeps the test short: nothing else of a command is changed
SHORTER = {
    ("train", "denoiser"): ["--max-steps", "2", "--config", "{denoiser}"],
    ("train", "vocoder"): ["--max-steps", "2", "--config", "{vocoder}"],
}


def commands() -> list[list[str]]:
    """Return the commands of the section on training, up to the first sound."""
    section = README.read_text().split("## Train your own")[1].split("```sh")[1].split("```")[0]
    lines = [line.split("  #")[0].strip() for line in section.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("clipsynth-rt")]


def write_video(path: Path, pitch_hz: float, seconds: float = 4.2) -> None:
    rate = 22050
    time = np.arange(round(seconds * rate)) / rate
    sound = (0.4 * np.sin(2 * np.pi * pitch_hz * time) * 32767).astype(np.int16)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=4)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=rate, layout="mono")
        for number in range(round(seconds * 4)):
            pixels = np.full((64, 64, 3), (40 * number) % 256, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(video.encode())
        frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        frame.sample_rate = rate
        container.mux(audio.encode(frame))
        container.mux(audio.encode())


@pytest.mark.slow
def test_the_recipe_ends_in_a_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_videos").mkdir()
    for number, pitch_hz in enumerate((220.0, 330.0, 440.0, 550.0)):
        write_video(tmp_path / "my_videos" / f"{number}.mp4", pitch_hz)
    configs = {"denoiser": tmp_path / "denoiser.toml", "vocoder": tmp_path / "vocoder.toml"}
    configs["denoiser"].write_text(DENOISER)
    configs["vocoder"].write_text(VOCODER)
    found = commands()
    assert [line[0] for line in found] == ["data", "train", "train", "export", "synth"]
    for line in found:
        more = [part.format(**configs) for part in SHORTER.get(tuple(line[:2]), [])]
        done = CliRunner().invoke(main, [*line, *more])
        assert done.exit_code == 0, f"{shlex.join(line)}: {done.output} {done.stderr}"
    sound, rate = soundfile.read(re.search(r"\S+\.wav", " ".join(found[-1]))[0])
    assert len(sound) > rate
    assert np.isfinite(sound).all()
