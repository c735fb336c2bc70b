"""Recordings as mono samples at one rate."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from clipsynth_rt.errors import InputError
from clipsynth_training.data.procedural.model import SAMPLE_RATE
from clipsynth_training.data.recordings.fetch import cached_path
from clipsynth_training.data.recordings.ledger import Recording, load_recordings

_FADE_S = 0.005
_CANCELLED = 0.6  # of the loudest channel's RMS; uncorrelated channels leave 0.71


def read_recordings(
    cache: Path,
    split: str | None = None,
    recordings: Iterable[Recording] | None = None,
) -> Iterator[tuple[Recording, NDArray[np.float32]]]:
    """Yield each recording with its samples: mono float32 [T] at ``SAMPLE_RATE``, peak 1.

    Silence before and after is trimmed as the ledger says.

    Args:
        cache: Folder that ``fetch`` filled.
        split: ``train`` or ``test``; both if None.
        recordings: Which; all of the ledger if None.

    Raises:
        InputError: If a recording is missing, differs from the ledger or cannot be decoded.
    """
    for recording in load_recordings() if recordings is None else recordings:
        if split is None or recording.split == split:
            yield recording, read_recording(cache, recording)


def read_recording(cache: Path, recording: Recording) -> NDArray[np.float32]:
    """Return the samples of one recording, as ``read_recordings`` yields them."""
    path = cached_path(cache, recording)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); "
            f"run: python -m clipsynth_training.data.recordings {cache}"
        ) from error
    if hashlib.sha256(data).hexdigest() != recording.sha256:
        raise InputError(f"{path}: sha256 differs from the ledger; delete it and fetch again")
    try:
        # by path: libsndfile knows an MP3 that begins with padding only by its ending
        channels, rate = soundfile.read(path, dtype="float64", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise InputError(f"{path}: cannot be decoded ({error})") from error
    start = round(recording.start_s * rate)
    stop = len(channels) if recording.end_s is None else round(recording.end_s * rate)
    mono = _faded(
        to_mono(channels[start:stop]),
        round(_FADE_S * rate),
        before=start > 0,
        after=stop < len(channels),
    )
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE, quality="VHQ")
    peak = float(np.max(np.abs(mono), initial=0.0))
    if not np.isfinite(peak) or peak == 0.0:
        raise InputError(f"{path}: holds silence or NaN")
    return (mono / peak).astype(np.float32)


def to_mono(channels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return [T] of channels [T, C]: their mean, or the loudest one where they cancel out."""
    mean: NDArray[np.float64] = channels.mean(axis=1)
    power = np.mean(channels**2, axis=0)
    loudest = int(np.argmax(power))
    if np.mean(mean**2) < _CANCELLED**2 * power[loudest]:
        return channels[:, loudest]
    return mean


def _faded(
    samples: NDArray[np.float64], length: int, *, before: bool, after: bool
) -> NDArray[np.float64]:
    """Fade the sides that were cut, which may lie in a sound."""
    samples = samples.copy()
    ramp = np.linspace(0.0, 1.0, min(length, len(samples)), endpoint=False)
    if before:
        samples[: len(ramp)] *= ramp
    if after:
        samples[len(samples) - len(ramp) :] *= ramp[::-1]
    return samples
