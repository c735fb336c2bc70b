"""Finished sound: trimming, peak limit, and files that appear whole or not at all."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.audio.limiter import PEAK as PEAK
from clipsynth_rt.audio.limiter import limit_peaks as limit_peaks
from clipsynth_rt.audio.ogg import with_serial
from clipsynth_rt.audio.provenance import tag_for
from clipsynth_rt.errors import InputError, OutputError
from clipsynth_rt.files import write_atomically
from clipsynth_rt.timing import real_time_factor

FORMATS = ("wav", "flac", "ogg", "mp3")
_SUBTYPES = {"ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}
FADE_S = 0.01
"""Fade at the end of a clip, so that a sound cut while it rings does not click."""
_BLOCK = 65536


@dataclass
class AudioClip:
    """A waveform and how it came about.

    Attributes:
        waveform: float32 [T] in [-1, 1], mono.
        sample_rate: In Hz.
        query: What was asked for: the text, or the image's name.
        seed: Of this clip's noise.
        num_steps: Denoising steps.
        guidance_scale: Guidance scale w.
        network_calls: Evaluations of the denoiser network for this clip: one a step where
            guidance is off, two (in one batch) where it is on.
        distilled: Whether the bundle's distilled denoiser made it.
        provider: Where the graphs really ran, such as ``cpu`` or ``cuda``.
        bundle: Name of the voice.
        bundle_sha256: ``Bundle.sha256`` of the voice.
        stages_s: Seconds a stage (``text``, ``denoise``, ``vocode``; on engines ``text``,
            ``prepare``, ``clip``; ``write`` once saved). For a clip of a batch, its equal share.
    """

    waveform: NDArray[np.float32]
    sample_rate: int
    query: str = ""
    seed: int = 0
    num_steps: int = 0
    guidance_scale: float = 1.0
    network_calls: int = 0
    distilled: bool = False
    provider: str = ""
    bundle: str = ""
    bundle_sha256: str = ""
    stages_s: dict[str, float] = field(default_factory=dict)

    @property
    def audio_s(self) -> float:
        """Length in seconds."""
        return len(self.waveform) / self.sample_rate

    @property
    def rtf(self) -> float:
        """Real-time factor over all stages so far; loading the bundle is not one of them."""
        return real_time_factor(sum(self.stages_s.values()), self.audio_s)

    def encode(self, format: str = "wav", *, tag: bool = True) -> bytes:
        """Return the clip as a sound file's bytes (wav and flac: 16 bit; ogg: Vorbis).

        Args:
            format: One of ``FORMATS``.
            tag: Whether the file says that it is synthetic and where it came from; see
                ``provenance``.

        >>> clip = AudioClip(np.zeros(2205, np.float32), 22050, query="silence")
        >>> clip.encode("flac")[:4], clip.audio_s
        (b'fLaC', 0.1)

        Raises:
            InputError: If ``format`` is not one of ``FORMATS``, or libsndfile does not write it.
        """
        if format not in FORMATS:
            raise InputError(f"unknown format {format!r}; use one of {', '.join(FORMATS)}")
        import soundfile

        if format.upper() not in soundfile.available_formats():
            raise InputError(f"libsndfile {soundfile.__libsndfile_version__} writes no {format}")
        buffer = io.BytesIO()
        subtype = _SUBTYPES.get(format, "PCM_16")
        with soundfile.SoundFile(
            buffer, "w", self.sample_rate, 1, subtype, format=format.upper()
        ) as sound:
            # before the sound: libsndfile writes strings into the header
            for name, text in self._tag(format).items() if tag else ():
                setattr(sound, name, text)
            if format in _SUBTYPES:
                # libsndfile keeps a whole write of Vorbis on the stack
                for start in range(0, len(self.waveform), _BLOCK):
                    sound.write(self.waveform[start : start + _BLOCK])
            else:
                sound.write(to_int16(self.waveform))
        if format == "ogg":
            # libsndfile draws the stream's number at random: equal requests give equal bytes
            return with_serial(buffer.getvalue(), self.seed & 0xFFFFFFFF)
        return buffer.getvalue()

    def _tag(self, format: str) -> dict[str, str]:
        return tag_for(
            self.query, self.seed, self.bundle, self.bundle_sha256, ascii_only=format == "mp3"
        )

    def save(self, path: str | Path, format: str | None = None, *, tag: bool = True) -> Path:
        """Write a sound file, whole or not at all, and return its path.

        Args:
            path: Where; an existing file is replaced.
            format: One of ``FORMATS``; None goes by the file name's extension.
            tag: See ``encode``.

        Raises:
            InputError: If the format is unknown or contradicts the extension.
            OutputError: If the file cannot be written.
        """
        start = time.perf_counter()
        path = Path(path)
        write_atomically(path, self.encode(format_for(path, format), tag=tag))
        self.stages_s["write"] = time.perf_counter() - start
        return path

    def write_to(self, stream: BinaryIO, format: str = "wav", *, tag: bool = True) -> None:
        """Write a sound file's bytes to an open binary stream.

        Raises:
            InputError: If the format is unknown.
            OutputError: If the stream cannot be written.
        """
        start = time.perf_counter()
        data = self.encode(format, tag=tag)
        try:
            stream.write(data)
            stream.flush()
        except OSError as error:
            raise OutputError(f"standard output: cannot be written ({error.strerror})") from error
        self.stages_s["write"] = time.perf_counter() - start


def finish(
    waveform: NDArray[np.float32], num_samples: int, sample_rate: int
) -> NDArray[np.float32]:
    """Cut a vocoded waveform to length, fade its end, and limit its peaks.

    The level that the model chose is kept; see ``limit_peaks``.

    Args:
        waveform: float32 [T], T >= ``num_samples``.
        num_samples: Length of the result.
        sample_rate: In Hz.

    Raises:
        NumericalError: If a sample is not finite.
    """
    clip = waveform[:num_samples].astype(np.float32)
    fade = min(len(clip), round(FADE_S * sample_rate))
    if fade:
        clip[-fade:] *= np.cos(np.linspace(0.0, 0.5 * np.pi, fade, dtype=np.float32)) ** 2
    return limit_peaks(clip)


def to_int16(waveform: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return 16-bit samples; 32767, because +1.0 x 32768 would wrap to the lowest value."""
    scaled: NDArray[np.int16] = np.rint(np.clip(waveform, -1.0, 1.0) * 32767.0).astype(np.int16)
    return scaled


def format_for(path: str | Path, format: str | None = None) -> str:
    """Return the format of a file to write, by the caller's choice or by its extension.

    Raises:
        InputError: If there is no telling, or the two contradict each other.
    """
    extension = Path(path).suffix.lower().removeprefix(".")
    if format is None:
        if extension in FORMATS:
            return extension
        endings = ", ".join(f".{name}" for name in FORMATS)
        raise InputError(f"{path}: unknown extension; use {endings}, or choose with --format")
    if format not in FORMATS:
        raise InputError(f"unknown format {format!r}; use one of {', '.join(FORMATS)}")
    if extension in FORMATS and extension != format:
        raise InputError(f"{path}: the name says {extension} and the format {format}")
    return format
