"""Sound files as what a synthesis starts from."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.audio.clip import AudioClip
from clipsynth_rt.errors import InputError, MissingExtraError

_RATES = (1_000, 768_000)
_MAX_CHANNELS = 64
_MAX_BYTES = 256_000_000
"""Most that is read from a pipe."""


def load_sound(
    source: str | Path | AudioClip, sample_rate: int, max_s: float, min_samples: int = 1
) -> NDArray[np.float32]:
    """Return a sound as float32 [T], mono, at ``sample_rate``.

    Channels are averaged. Another sample rate is converted by soxr (the extra ``sound``).

    Args:
        source: A file that libsndfile reads (WAV, FLAC, OGG, MP3, AIFF...), or a clip.
        sample_rate: Of the result, in Hz.
        max_s: Longest sound that is taken, in seconds.
        min_samples: Length of the shortest result that is taken, in samples.

    Raises:
        InputError: If the file cannot be read, is too short or longer than ``max_s``, or holds what
            is not finite.
        MissingExtraError: If the rate differs and soxr is not installed.
    """
    if isinstance(source, AudioClip):
        name, rate, sound = "init", source.sample_rate, source.waveform
        if len(sound) > max_s * rate:
            raise InputError(f"init: sound of {len(sound) / rate:.1f} s; at most {max_s:g} s")
    else:
        name = str(source)
        rate, sound = _read(source, max_s)
    if len(sound) == 0:
        raise InputError(f"{name}: there is no sound in it")
    if not np.isfinite(sound).all():
        raise InputError(f"{name}: holds samples that are not finite")
    # before it is converted, which rounds the length
    if len(sound) * sample_rate < min_samples * rate:
        raise InputError(
            f"{name}: the sound is too short, {1000 * len(sound) / rate:.3g} ms; at least "
            f"{1000 * min_samples / sample_rate:.3g} ms are needed"
        )
    if rate == sample_rate:
        return np.ascontiguousarray(sound, np.float32)
    try:
        import soxr
    except ModuleNotFoundError as error:
        raise MissingExtraError("soxr", "sound") from error
    converted: NDArray[np.float32] = soxr.resample(sound.astype(np.float32), rate, sample_rate)
    return converted


def read_clip(source: str | Path | BinaryIO, max_s: float) -> AudioClip:
    """Return a sound file as a clip, mono, at its own sample rate.

    Args:
        source: A file, a named pipe or an open stream; the last two are read to their end.
        max_s: Longest sound that is taken, in seconds.

    Raises:
        InputError: If it cannot be read, or is longer than ``max_s``.
    """
    rate, sound = _read(source, max_s)
    return AudioClip(np.ascontiguousarray(sound, np.float32), rate)


def _read(source: str | Path | BinaryIO, max_s: float) -> tuple[int, NDArray[np.float32]]:
    import soundfile

    name = str(source) if isinstance(source, (str, Path)) else "standard input"
    try:
        with soundfile.SoundFile(_openable(source)) as file:
            rate, channels, frames = file.samplerate, file.channels, file.frames
            low, high = _RATES
            if not low <= rate <= high or channels > _MAX_CHANNELS:
                raise InputError(f"{name}: {channels} channels at {rate} Hz; not a sound to use")
            # the header may say anything: no more is read than is taken
            if frames > max_s * rate:
                raise InputError(
                    f"{name}: sound of {frames / rate:.1f} s; at most {max_s:g} s, cut it first"
                )
            sound = file.read(int(max_s * rate) + 1, dtype="float32", always_2d=True)
    # libsndfile's errors are RuntimeError
    except (RuntimeError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name}: cannot be read as a sound ({reason})") from error
    return rate, sound.mean(axis=1)


def _openable(source: str | Path | BinaryIO) -> str | BinaryIO:
    """Return a source as what libsndfile can seek in, under a name that it can take.

    Raises:
        InputError: If there is no such file, or a pipe gives too much.
        OSError: If it cannot be read.
    """
    if isinstance(source, (str, Path)):
        if not os.path.exists(source) or os.path.isdir(source):
            raise InputError(f"{source}: no such sound file")
        # the name may hold bytes that are no UTF-8, which soundfile does not pass on
        if os.path.isfile(source) and not any("\ud800" <= c <= "\udfff" for c in str(source)):
            return str(source)
        with open(source, "rb") as stream:
            return _in_memory(stream, str(source))
    return _in_memory(source, "standard input")


def _in_memory(stream: BinaryIO, name: str) -> BinaryIO:
    data = stream.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise InputError(f"{name}: over {_MAX_BYTES // 1_000_000} MB; cut the sound first")
    return io.BytesIO(data)
