"""Seamless loops: is the seam as smooth as what lies inside?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipsynth_rt import Synthesizer
from clipsynth_rt.audio.mel import mel_spectrogram
from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.synthesis.loop import close_mel, vocode_loop

SPEC = MelSpec()
HOP = SPEC.hop_length


def steady(frames: int, seed: int = 0) -> np.ndarray:
    """A wandering sound without a beginning, as normalised mel [80, F]."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(scale=0.05, size=(80, frames)), axis=1)
    return (0.5 + walk - walk.mean(axis=1, keepdims=True)).astype(np.float32)


def flux(mel: np.ndarray) -> np.ndarray:
    """How much each frame differs from the one before it, the first from the last."""
    return np.sqrt(((mel - np.roll(mel, 1, axis=1)) ** 2).mean(axis=0))


@pytest.mark.parametrize("seed", range(4))
def test_the_seam_of_a_mel_is_no_worse_than_its_inside(seed: int) -> None:
    mel = steady(360, seed)
    closed = close_mel(mel, 320, SPEC)
    assert closed.shape == (80, 320)
    seams = flux(closed)
    assert seams[0] <= seams[1:].max()
    # a plain cut is worse, or the test would say nothing
    assert flux(mel[:, :320])[0] > 3.0 * seams[0]
    # only the beginning is touched
    np.testing.assert_array_equal(closed[:, 40:], mel[:, 40:320])


def test_an_attack_stays_one() -> None:
    mel = np.full((80, 72), SPEC.floor_normalised, np.float32)
    mel[20:40, :30] = np.linspace(3.0, -0.7, 30)
    closed = close_mel(mel, 64, SPEC)
    # the first frame is as loud as it was: a fade-in would have taken 60 dB off
    np.testing.assert_allclose(closed[20:40, 0], mel[20:40, 0], atol=0.05)


def oscillators(mel: np.ndarray) -> np.ndarray:
    """A vocoder with a memory: tones whose phase goes on from frame to frame."""
    level = np.exp(mel[:8] - 2.0).repeat(HOP, axis=1)
    hz = 200.0 * (1.0 + np.arange(8))[:, None] * np.ones(level.shape[1])
    phase = 2.0 * np.pi * np.cumsum(hz, axis=1) / 22050
    return (level * np.sin(phase)).sum(axis=0).astype(np.float32) / 8.0


@pytest.mark.parametrize("missing", [0, 1, 100, HOP - 1])
def test_the_seam_of_a_waveform_is_no_worse_than_its_inside(missing: int) -> None:
    closed = close_mel(steady(72), 64, SPEC)
    loop = vocode_loop(oscillators, closed, HOP, 64 * HOP - missing)
    assert loop.shape == (64 * HOP - missing,)
    jumps = np.abs(np.diff(loop, prepend=loop[-1]))
    assert jumps[0] <= jumps[1:].max()
    # twice in a row, the mel around the seam moves no more than elsewhere
    twice = flux(mel_spectrogram(np.tile(loop, 2), SPEC))
    inside = twice[6:58]
    assert twice[60:69].max() <= 1.05 * inside.max()


@pytest.mark.parametrize("duration", [None, 0.02, 1.0, 3.0])
def test_a_loop_from_words(tiny_bundle: Path, duration: float | None) -> None:
    with Synthesizer.from_bundle(tiny_bundle, "cpu", threads=1) as synthesizer:
        clip = synthesizer.synth("drum", duration=duration, loop=True, num_steps=2)
        # as long as without a loop, and no fade-out at the end
        assert len(clip.waveform) == (44 * HOP if duration is None else round(duration * 22050))
        jumps = np.abs(np.diff(clip.waveform, prepend=clip.waveform[-1]))
        assert jumps[0] <= jumps[1:].max()
        assert 0.0 < np.abs(clip.waveform).max() <= 0.98
        again = synthesizer.synth_batch(
            ["dog", "drum"], seed=[1, 0], duration=duration, loop=True, num_steps=2
        )
        np.testing.assert_allclose(again[1].waveform, clip.waveform, atol=1e-6)
