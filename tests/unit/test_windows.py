"""Long mels in overlapping windows, and waveforms vocoded in parts."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from clipsynth_rt import Synthesizer
from clipsynth_rt.errors import InputError
from clipsynth_rt.synthesis.windows import Windows, crossfade, vocode_windows, windowed


@pytest.mark.parametrize("frames", [353, 360, 616, 617, 1000, 5168])
def test_windows_cover_every_frame_with_shares_of_one(frames: int) -> None:
    windows = Windows.over(frames, 352, 88, 8)
    total = np.zeros(frames)
    for start, weight in zip(windows.starts, windows.weights, strict=True):
        assert 0 <= start <= frames - 352
        total[start : start + 352] += weight
    np.testing.assert_allclose(total, 1.0, atol=1e-6)
    assert windows.starts[0] == 0
    assert windows.starts[-1] == frames - 352
    # all but the last keep to the network's strides, and neighbours share what was asked for
    assert all(start % 8 == 0 for start in windows.starts[:-1])
    gaps = np.diff(windows.starts)
    assert (gaps > 0).all()
    assert gaps.max() <= 352 - 88 + 8


def test_what_one_window_holds_is_one_window() -> None:
    windows = Windows.over(100, 352, 88, 8)
    assert (len(windows), windows.size, windows.starts) == (1, 100, (0,))

    def step(x: np.ndarray, *_: object) -> tuple[np.ndarray, np.ndarray]:
        return x, x

    assert windowed(step, windows) is step


def test_a_step_that_looks_at_one_frame_does_not_notice_windows() -> None:
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 2, 8, 500)).astype(np.float32)

    def step(
        x: np.ndarray, t: float, s: float, eta: float, noise: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return x * t + noise * eta, x - s

    whole = step(x, 0.5, 0.25, 0.1, noise)
    parts = windowed(step, Windows.over(500, 176, 40, 8))(x, 0.5, 0.25, 0.1, noise)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_where_windows_overlap_they_are_averaged_by_their_weights() -> None:
    windows, number = Windows.over(500, 176, 40, 8), itertools.count()

    def step(x: np.ndarray, *_: object) -> tuple[np.ndarray, np.ndarray]:
        made = np.full_like(x, next(number))
        return made, -made

    zero = np.zeros((1, 2, 500), np.float32)
    x_next, x0 = windowed(step, windows)(zero, 0.5, 0.25, 0.0, zero)
    mean = np.zeros(500, np.float32)
    for k, (start, weight) in enumerate(zip(windows.starts, windows.weights, strict=True)):
        mean[start : start + 176] += k * weight
    # what the test rests on: some frames are neither the one window's nor the other's
    assert (mean % 1.0 > 0.1).sum() > 50
    np.testing.assert_allclose(x_next, np.broadcast_to(mean, x_next.shape), atol=1e-5)
    np.testing.assert_allclose(x0, np.broadcast_to(-mean, x0.shape), atol=1e-5)


def test_vocoded_parts_meet_in_the_middle_of_what_both_hold() -> None:
    number = itertools.count(1)

    def vocode(part: np.ndarray) -> np.ndarray:
        return np.full(part.shape[1] * 4, next(number), np.float32)

    sound = vocode_windows(vocode, np.zeros((2, 336), np.float32), 200, 4)
    assert (sound[: 164 * 4] == 1.0).all()
    assert (sound[172 * 4 :] == 2.0).all()


def test_a_vocoder_without_memory_does_not_notice_parts() -> None:
    mel = np.random.default_rng(1).normal(size=(3, 700)).astype(np.float32)
    sizes = []

    def vocode(part: np.ndarray) -> np.ndarray:
        sizes.append(part.shape[1])
        return np.repeat(part.sum(axis=0), 4)

    sound = vocode_windows(vocode, mel, 200, 4)
    np.testing.assert_allclose(sound, vocode(mel), atol=1e-5)
    assert set(sizes[:-1]) == {200}


@pytest.mark.parametrize("phase", [0.0, 1.0, np.pi / 2])
def test_a_crossfade_keeps_the_power(phase: float) -> None:
    t = np.arange(4096) / 22050
    old, new = np.sin(2 * np.pi * 440 * t), np.sin(2 * np.pi * 440 * t + phase)
    mixed = crossfade(old.astype(np.float32), new.astype(np.float32))
    power = [float((part**2).mean()) for part in np.split(mixed, 8)]
    np.testing.assert_allclose(power, 0.5, atol=0.06)
    assert mixed[0] == pytest.approx(old[0], abs=1e-3)
    assert mixed[-1] == pytest.approx(new[-1], abs=1e-3)
    assert len(crossfade(mixed[:0], mixed[:0])) == 0


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m"])
def test_a_sound_longer_than_the_denoiser_learnt(tiny_bundle: Path, sampler: str) -> None:
    with Synthesizer.from_bundle(tiny_bundle, "cpu", threads=1) as synthesizer:
        clip = synthesizer.synth("drum", duration=5.0, num_steps=3, sampler=sampler, seed=4)
        assert clip.audio_s == 5.0
        windows = synthesizer.windows(432)
        assert (windows.size, len(windows)) == (168, 4)
        assert clip.network_calls == 3 * 2 * 4
        # the tiny denoiser looks at one frame at a time, so windows change nothing but rounding
        condition = synthesizer.encode_text(["drum"])
        long = synthesizer.sample(condition, [4], 432, num_steps=3, sampler=sampler)
        short = synthesizer.sample(condition, [4], 168, num_steps=3, sampler=sampler)
        np.testing.assert_allclose(long[..., :168], short, atol=1e-5)


def test_the_longest_sound(tiny_bundle: Path) -> None:
    with Synthesizer.from_bundle(tiny_bundle, "cpu", threads=1) as synthesizer:
        assert synthesizer.synth("drum", duration=60.0, num_steps=1).audio_s == 60.0
        with pytest.raises(InputError, match=r"duration must be from 0\.01161 to 60 s, got 60\.1"):
            synthesizer.synth("drum", duration=60.1)
