"""Sound files as what a synthesis starts from."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.audio.clip import AudioClip
from clipsynth_rt.audio.mixdown import mix_to_mono
from clipsynth_rt.errors import InputError, MissingExtraError

logger = logging.getLogger(__name__)

_RATES = (1_000, 768_000)
_MAX_CHANNELS = 64
_MAX_BYTES = 256_000_000
"""Most that is read from a pipe."""
_SILENCE = 1e-3
"""Peak below which a sound is silent (-60 dB of full scale)."""
_CONTAINERS = (
    (4, b"ftyp", "mp4"),
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (0, b"\xff\xf1", "aac"),
    (0, b"\xff\xf9", "aac"),
    (0, b"\x30\x26\xb2\x75", "asf"),
    (0, b"wvPk", "wv"),
    (0, b"#!AMR", "amr"),
    (0, b"MAC ", "ape"),
)
"""Offset, signature and FFmpeg's name of formats that libsndfile does not read.

FFmpeg is told the format and guesses none: what it guesses includes playlists, which open other
files and addresses.
"""


def load_sound(
    source: str | Path | AudioClip, sample_rate: int, max_s: float, min_samples: int = 1
) -> NDArray[np.float32]:
    """Return a sound as float32 [T], mono, at ``sample_rate``.

    Channels are averaged; where they would cancel, the loudest is taken, with a warning. A silent
    sound is warned of. Another sample rate is converted by soxr (the extra ``sound``).

    Args:
        source: A file that libsndfile reads (WAV, FLAC, OGG, MP3, AIFF...) or PyAV (M4A, MP4,
            WebM, AAC, WMA...; the extra ``sound``), or a clip.
        sample_rate: Of the result, in Hz.
        max_s: Longest sound that is taken, in seconds.
        min_samples: Length of the shortest result that is taken, in samples.

    Raises:
        InputError: If the file cannot be read, is too short or longer than ``max_s``, or holds what
            is not finite.
        MissingExtraError: If the rate differs and soxr is not installed, or the format needs PyAV.
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
    if np.abs(sound).max() < _SILENCE:
        logger.warning("%s: the sound is silent; what is made of it follows the query alone", name)
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
        MissingExtraError: If its format needs PyAV, which is not installed.
    """
    rate, sound = _read(source, max_s)
    return AudioClip(np.ascontiguousarray(sound, np.float32), rate)


def _read(source: str | Path | BinaryIO, max_s: float) -> tuple[int, NDArray[np.float32]]:
    import soundfile

    name = str(source) if isinstance(source, (str, Path)) else "standard input"
    try:
        openable = _openable(source)
        container = _container(openable)
        if container is not None:
            rate, channels = _read_container(openable, container, name, max_s)
        else:
            with soundfile.SoundFile(openable) as file:
                rate = file.samplerate
                _check_form(name, rate, file.channels)
                # the header may say anything: no more is read than is taken
                if file.frames > max_s * rate:
                    raise _too_long(name, file.frames / rate, max_s)
                sound = file.read(int(max_s * rate) + 1, dtype="float32", always_2d=True)
                channels = sound.T
    # libsndfile's errors are RuntimeError
    except (RuntimeError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name}: cannot be read as a sound ({reason})") from error
    mono, cancelled = mix_to_mono(channels)
    if cancelled:
        logger.warning("%s: its channels cancel each other; the loudest is used", name)
    return rate, mono


def _check_form(name: str, rate: int, channels: int) -> None:
    low, high = _RATES
    if not low <= rate <= high or channels > _MAX_CHANNELS:
        raise InputError(f"{name}: {channels} channels at {rate} Hz; not a sound to use")


def _too_long(name: str, seconds: float, max_s: float) -> InputError:
    return InputError(f"{name}: sound of {seconds:.1f} s; at most {max_s:g} s, cut it first")


def _container(source: str | BinaryIO) -> str | None:
    """Return FFmpeg's name of a format that libsndfile does not read; None for any other."""
    if isinstance(source, str):
        with open(source, "rb") as file:
            head = file.read(16)
    else:
        head = source.read(16)
        source.seek(0)
    return next((form for at, mark, form in _CONTAINERS if head[at:].startswith(mark)), None)


def _read_container(
    source: str | BinaryIO, form: str, name: str, max_s: float
) -> tuple[int, NDArray[np.float32]]:
    """Return the sample rate and the channels [C, T] of what PyAV reads."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingExtraError("av", "sound") from error
    parts: list[NDArray[np.float32]] = []
    rate = channels = length = 0
    resampler = None
    try:
        with av.open(source, "r", format=form) as container:
            if not container.streams.audio:
                raise InputError(f"{name}: there is no sound in it")
            for frame in container.decode(container.streams.audio[0]):
                if resampler is None:
                    rate, channels = frame.sample_rate, frame.layout.nb_channels
                    _check_form(name, rate, channels)
                    resampler = av.AudioResampler("fltp", frame.layout.name, rate)
                for part in resampler.resample(frame):
                    parts.append(np.asarray(part.to_ndarray(), np.float32))
                    length += part.samples
                if length > max_s * rate:
                    seconds = max(length / rate, (container.duration or 0) / av.time_base)
                    raise _too_long(name, seconds, max_s)
    # FFmpeg's errors are of many kinds; a form that changes within the file is a ValueError
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"{name}: cannot be read as a sound ({reason})") from error
    return rate, np.concatenate([np.zeros((max(channels, 1), 0), np.float32), *parts], axis=1)


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
