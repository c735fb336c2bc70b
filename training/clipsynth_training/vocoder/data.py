"""Sound to train a vocoder on: random stretches of clips, at random levels."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.errors import DataError
from clipsynth_training.data.shards import ShardSet

QUIET = 1e-3
"""A stretch whose loudest sample is below this (full scale 1) teaches nothing."""


class AudioSource(Protocol):
    """Clips by number: ``len`` of them, each int16 [T]."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, index: int) -> NDArray[np.int16]:
        """Return one clip, full scale 32767."""


class _ShardAudio:
    def __init__(self, shards: ShardSet) -> None:
        self.shards = shards

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> NDArray[np.int16]:
        return self.shards.audio(int(index))


def open_audio(path: str | Path) -> AudioSource:
    """Open clips: a shard folder of ``clipsynth-rt data prepare``, or an int16 .npy [N, T].

    Raises:
        DataError: If it is neither, or holds no clip.
    """
    path = Path(path)
    source: AudioSource
    if path.suffix == ".npy":
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a readable .npy file ({error})") from error
        if array.ndim != 2 or array.dtype != np.int16:
            raise DataError(f"{path}: {array.dtype} {list(array.shape)}, not int16 [N, T]")
        source = array
    else:
        source = _ShardAudio(ShardSet.open(path))
    if not len(source):
        raise DataError(f"{path}: holds no clip")
    return source


def draw_segments(
    source: AudioSource, count: int, length: int, rng: np.random.Generator, tries: int = 32
) -> NDArray[np.float32]:
    """Return random stretches of random clips, float32 [count, length], half of them turned down.

    Args:
        source: The clips.
        count: Stretches.
        length: Samples of each.
        rng: Source of the choices.
        tries: Draws before a quiet stretch is taken all the same.

    Raises:
        DataError: If a clip is shorter than ``length``.
    """
    rows = []
    for _ in range(count):
        for _ in range(tries):
            clip = source[int(rng.integers(len(source)))]
            if len(clip) < length:
                raise DataError(f"a clip has {len(clip)} samples, segments need {length}")
            start = int(rng.integers(len(clip) - length + 1))
            row = clip[start : start + length].astype(np.float32) / 32767.0
            if np.abs(row).max() >= QUIET:
                break
        # 0 to -12 dB: mels from the denoiser are not all as loud as the corpus
        rows.append(row * 10.0 ** (-0.6 * max(0.0, rng.uniform(-1.0, 1.0))))
    return np.stack(rows).astype(np.float32)


def held_out_clips(source: AudioSource, count: int) -> NDArray[np.float32]:
    """Return ``count`` clips spread evenly over ``source``, float32 [count, T]."""
    rows: Any = np.unique(np.linspace(0, len(source) - 1, count).round().astype(int))
    return np.stack([source[int(row)] for row in rows]).astype(np.float32) / 32767.0
