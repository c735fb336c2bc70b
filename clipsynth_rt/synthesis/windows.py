"""Mels of any length from a denoiser that learnt short ones: overlapping windows.

Every denoising step looks at one window after the other, and where windows overlap takes the
weighted mean of what they say. Neighbours agree a little more with every step, so that a long sound
is one sound and not several put together.

Source:
    Bar-Tal et al. 2023, arXiv:2302.08113 (MultiDiffusion), in one dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.synthesis.samplers import Mel, Step

Weights = NDArray[np.float32]
VOCODER_OVERLAP = 64
"""Frames that parts of a long mel share when they are vocoded."""
VOCODER_FADE = 8
"""Frames of the crossfade between two parts."""


@dataclass(frozen=True)
class Windows:
    """Where windows of one size lie along a number of frames.

    Attributes:
        size: Frames of a window.
        starts: First frame of each, from 0, rising.
        weights: Share that each window has in each of its frames, float32 [windows, size]; over
            every frame they add up to one.
    """

    size: int
    starts: tuple[int, ...]
    weights: Weights

    @classmethod
    def over(cls, num_frames: int, size: int, overlap: int, multiple: int = 1) -> Windows:
        """Cover ``num_frames`` with as few windows of ``size`` as overlap by ``overlap`` or more.

        Args:
            num_frames: F; one window of all of it where F <= ``size``.
            size: A multiple of ``multiple``.
            overlap: Frames, less than ``size``.
            multiple: Windows start at multiples of this, so that each sees the frames in the same
                phase of the network's strides.
        """
        if num_frames <= size:
            return cls(num_frames, (0,), np.ones((1, num_frames), np.float32))
        count = -(-(num_frames - overlap) // (size - overlap))
        last = num_frames - size
        # rounding down keeps the overlap of all but the last pair; the last window ends with F
        evenly = [i * last // (count - 1) // multiple * multiple for i in range(count - 1)]
        starts = (*evenly, last)
        return cls(size, starts, _weights(num_frames, size, starts))

    def __len__(self) -> int:
        """Return how many windows there are."""
        return len(self.starts)


def _weights(num_frames: int, size: int, starts: tuple[int, ...]) -> Weights:
    """Return triangles over the windows, made to add up to one in every frame."""
    position = np.arange(size) + 0.5
    triangle = np.minimum(position, size - position)
    rows = np.tile(triangle, (len(starts), 1))
    total = np.zeros(num_frames)
    for row, start in zip(rows, starts, strict=True):
        total[start : start + size] += row
    shares = [row / total[start : start + size] for row, start in zip(rows, starts, strict=True)]
    return np.stack(shares).astype(np.float32)


def windowed(step: Step, windows: Windows) -> Step:
    """Return a denoiser step over all frames, made of steps over windows.

    Args:
        step: Takes mels of ``windows.size`` frames.
        windows: Where they lie.
    """
    if len(windows) == 1:
        return step

    def whole(x: Mel, t: float, s: float, eta: float, noise: Mel) -> tuple[Mel, Mel]:
        x_next, x0 = np.zeros_like(x), np.zeros_like(x)
        for start, weight in zip(windows.starts, windows.weights, strict=True):
            part = slice(start, start + windows.size)
            cut = (np.ascontiguousarray(mel[..., part]) for mel in (x, noise))
            one_next, one_x0 = step(next(cut), t, s, eta, next(cut))
            x_next[..., part] += weight * one_next
            x0[..., part] += weight * one_x0
        return x_next, x0

    return whole


def vocode_windows(
    vocode: Callable[[Mel], NDArray[np.float32]], mel: Mel, size: int, hop_length: int
) -> NDArray[np.float32]:
    """Return a waveform, float32 [F * hop_length], vocoded in parts of at most ``size`` frames.

    Args:
        vocode: Mel [M, F] to waveform [F * hop_length].
        mel: float32 [M, F].
        size: Frames of a part, more than ``VOCODER_OVERLAP``.
        hop_length: Samples a frame.
    """
    windows = Windows.over(mel.shape[1], size, min(VOCODER_OVERLAP, size // 2))
    if len(windows) == 1:
        return vocode(mel)
    sound = np.zeros(mel.shape[1] * hop_length, np.float32)
    last_end = 0
    for start in windows.starts:
        end = start + size
        part = vocode(np.ascontiguousarray(mel[:, start:end]))
        # in the middle of what both have, so that each was made with what lies around it
        fade = (start + last_end - VOCODER_FADE) // 2 if start else 0
        solid = fade + VOCODER_FADE if start else 0
        cut, whole, begin = fade * hop_length, solid * hop_length, start * hop_length
        sound[cut:whole] = crossfade(sound[cut:whole], part[cut - begin : whole - begin])
        sound[whole : end * hop_length] = part[whole - begin :]
        last_end = end
    return sound


def crossfade(old: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a fade from one sound to another of the same length [T], of even power.

    A vocoder may give the same tone different phases, so power is kept by how alike the two are,
    not by the assumption that they are the same or have nothing in common.

    Source:
        Fink et al. 2016, "Signal-matched power-complementary cross-fading and dry-wet mixing",
        DAFx-16.
    """
    if len(old) == 0:
        return old
    angle = 0.5 * np.pi * (np.arange(len(old)) + 0.5) / len(old)
    fall, rise = np.cos(angle) ** 2, np.sin(angle) ** 2
    energy = float(np.sqrt(np.dot(old, old) * np.dot(new, new)))
    alike = float(np.dot(old, new)) / energy if energy > 0.0 else 1.0
    # the power of fall * old + rise * new, for two sounds of power one
    power = fall**2 + rise**2 + 2.0 * max(alike, 0.0) * fall * rise
    mixed: NDArray[np.float32] = ((fall * old + rise * new) / np.sqrt(power)).astype(np.float32)
    return mixed
