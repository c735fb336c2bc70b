"""The voice that ships: it opens, it is whole, and it speaks."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import clipsynth_rt
from clipsynth_rt import Bundle, Synthesizer
from clipsynth_rt.cli.main import main

ROOT = Path(clipsynth_rt.__file__).parent / "bundles" / "default"


@pytest.fixture(scope="module")
def voice():
    return Synthesizer.from_bundle(threads=2)


def test_bundle_is_whole_and_small():
    bundle = Bundle.open(None)
    bundle.verify()
    assert sum(f.stat().st_size for f in ROOT.rglob("*") if f.is_file()) < 60e6
    manifest = bundle.manifest
    assert manifest.license == "Apache-2.0"
    assert manifest.condition.templates == ("a photo of {query}",)
    assert 0 < manifest.metrics["text"]["top1"] <= 1
    assert (ROOT / "MODEL_CARD.md").is_file()
    assert {"piano", "drum kit"} & {n for names in manifest.concepts.values() for n in names}
    assert len(manifest.concepts) > 1


def test_different_queries_are_different_sounds(voice):
    drum, flute = voice.synth_batch(["drum", "flute"], seed=[0, 0])
    for clip in (drum, flute):
        assert np.isfinite(clip.waveform).all()
        assert np.abs(clip.waveform).max() > 0.02
    # a struck drum is broadband, a flute's energy lies in few partials
    assert flatness(drum.waveform) > flatness(flute.waveform)


def flatness(waveform: np.ndarray) -> float:
    """Spectral flatness: geometric over arithmetic mean of the power spectrum."""
    power = np.square(np.abs(np.fft.rfft(waveform))) + 1e-9
    return float(np.exp(np.log(power).mean()) / power.mean())


def test_the_readme_command_writes_a_drum(tmp_path):
    out = tmp_path / "drum.wav"
    result = CliRunner().invoke(main, ["synth", "drum", "-o", str(out), "--json"])
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert {"rtf", "audio_s", "stages_s", "provider", "num_steps", "network_calls"} <= set(report)
    assert (report["num_steps"], report["network_calls"], report["distilled"]) == (2, 2, True)
    sound, rate = soundfile.read(out)
    assert rate == 22050
    assert len(sound) / rate == pytest.approx(report["audio_s"], abs=1e-3)
    assert np.abs(sound).max() > 0.02


def test_guidance_is_the_ordinary_denoisers(voice):
    clip = voice.synth("drum", num_steps=2, guidance_scale=3.0)
    assert (clip.distilled, clip.network_calls) == (False, 4)
    assert np.isfinite(clip.waveform).all()
    assert np.abs(clip.waveform).max() > 0.02


def test_a_picture_speaks_too(voice):
    from PIL import Image

    picture = Image.fromarray(np.full((80, 120, 3), 200, np.uint8))
    clip = voice.synth(image=picture, num_steps=2)
    assert np.isfinite(clip.waveform).all()
