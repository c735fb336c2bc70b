"""One video file to clips: mel spectrogram, pictures and waveform."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_training.data.media import Sound, read_pictures, read_sound_track
from clipsynth_training.data.shards import to_int16
from clipsynth_training.mel import MelSpectrogram

SILENCE = 1e-3
"""Peak below which a clip is silent (-60 dB of full scale)."""
PEAK = 0.95
"""Peak of a stored clip: loudness says nothing about what sounds, and int16 has few bits."""


@dataclass(frozen=True)
class CutSpec:
    """How a video becomes clips.

    Attributes:
        mel: The analysis of the sound; ``mel.sample_rate`` is what it is resampled to.
        num_frames: Mel frames of a clip.
        hop_frames: Mel frames from the start of one clip of a video to the next.
        clips_per_video: At most; they are taken from the start of the sound.
        images: Pictures of a clip, at the middles of equal parts of it.
        image_size: Their height and width in pixels.
        min_seconds: A shorter sound is not used; one shorter than a clip ends in silence.
        keep_pictureless: Take files without a picture track too, with black for pictures:
            sound for text-conditioned training.
    """

    mel: MelSpec = field(default_factory=MelSpec)
    num_frames: int = 352
    hop_frames: int = 352
    clips_per_video: int = 10
    images: int = 3
    image_size: int = 128
    min_seconds: float = 1.0
    keep_pictureless: bool = False

    @property
    def samples(self) -> int:
        """Samples of a clip."""
        return self.num_frames * self.mel.hop_length

    @property
    def starts(self) -> list[int]:
        """First sample of each clip that a long enough video gives."""
        hop = self.hop_frames * self.mel.hop_length
        return [number * hop for number in range(self.clips_per_video)]


class UnusableError(Exception):
    """A video that gives no clip; carries a short reason and what exactly was wrong."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Clips:
    """The clips of one video.

    Attributes:
        numbers: Which window of the video each is.
        mel: float16 [n, M, F]; frames: uint8 [n, K, S, S, 3]; audio: int16 [n, T].
        has_pictures: False where ``frames`` is black for want of a picture track.
        remarks: What was unusual about the sound, see ``media.Sound``.
    """

    numbers: list[int]
    mel: NDArray[np.float16]
    frames: NDArray[np.uint8]
    audio: NDArray[np.int16]
    has_pictures: bool = True
    remarks: tuple[str, ...] = ()


def read_video(path: str | Path, cut: CutSpec) -> Clips:
    """Decode one video and cut it into clips, each of peak ``PEAK``.

    Raises:
        UnusableError: For a file that is broken, has no audio or no picture track, is silent or is
            too short.
    """
    try:
        sound = _read_sound(path, cut)
        numbers, windows = _cut(sound.samples, cut)
        if sound.has_pictures:
            frames = _read_pictures(path, _picture_times(numbers, sound.start_s, cut), cut)
        else:
            size = cut.image_size
            frames = np.zeros((len(numbers), cut.images, size, size, 3), np.uint8)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnusableError("broken", f"{error}") from error
    return _analyse(numbers, windows, frames, cut, sound)


def read_sound(path: str | Path, cut: CutSpec) -> Clips:
    """Decode the sound of one file and cut it into clips without pictures (``frames`` has K = 0).

    Raises:
        UnusableError: For a file that is broken, has no sound, is silent or is too short.
    """
    try:
        sound = _read_sound(path, dataclasses.replace(cut, keep_pictureless=True))
        numbers, windows = _cut(sound.samples, cut)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnusableError("broken", f"{error}") from error
    frames = np.zeros((len(numbers), 0, cut.image_size, cut.image_size, 3), np.uint8)
    return _analyse(numbers, windows, frames, cut, dataclasses.replace(sound, has_pictures=False))


def _analyse(
    numbers: list[int],
    windows: NDArray[np.float32],
    frames: NDArray[np.uint8],
    cut: CutSpec,
    sound: Sound,
) -> Clips:
    audio = to_int16(windows)
    with torch.inference_mode():
        # of the sound as it is stored: what a vocoder learns to give back is what was analysed
        waveform = torch.from_numpy(audio.astype(np.float32) / 32767.0)
        mel = _mel(cut.mel)(waveform).to(torch.float16).numpy()
    return Clips(numbers, mel, frames, audio, sound.has_pictures, sound.remarks)


@functools.lru_cache(maxsize=2)
def _mel(spec: MelSpec) -> MelSpectrogram:
    return MelSpectrogram(spec)


def _read_sound(path: str | Path, cut: CutSpec) -> Sound:
    """Return the sound as far as clips need it."""
    sound = read_sound_track(path, cut.mel.sample_rate, cut.starts[-1] + cut.samples)
    if sound is None:
        raise UnusableError("no_audio")
    if not sound.has_pictures and not cut.keep_pictureless:
        raise UnusableError("no_video")
    return sound


def _cut(sound: NDArray[np.float32], cut: CutSpec) -> tuple[list[int], NDArray[np.float32]]:
    """Return the numbers of the windows that are not silent, and the windows, [n, T]."""
    seconds = len(sound) / cut.mel.sample_rate
    if seconds < cut.min_seconds:
        raise UnusableError("too_short", f"{seconds:.2f} s, less than {cut.min_seconds:g} s")
    numbers, windows = [], []
    for number, start in enumerate(cut.starts):
        window = sound[start : start + cut.samples]
        if number > 0 and len(window) < cut.samples:
            break
        peak = float(np.abs(window).max())
        if peak >= SILENCE:
            numbers.append(number)
            windows.append(np.pad(window * (PEAK / peak), (0, cut.samples - len(window))))
    if not numbers:
        raise UnusableError("silent", f"the peak is below {SILENCE:g}")
    return numbers, np.stack(windows)


def _picture_times(numbers: list[int], start_s: float, cut: CutSpec) -> NDArray[np.float64]:
    """Return when to take the pictures of each window, in seconds, [n, K]."""
    starts = np.array([cut.starts[number] for number in numbers]) / cut.mel.sample_rate
    inside = (np.arange(cut.images) + 0.5) / cut.images * cut.mel.seconds(cut.num_frames)
    return start_s + starts[:, None] + inside


def _read_pictures(path: str | Path, times: NDArray[np.float64], cut: CutSpec) -> NDArray[np.uint8]:
    """Return what is on the screen at ``times`` [n, K], as uint8 [n, K, S, S, 3]."""
    order = np.argsort(times, axis=None)
    shown = read_pictures(path, times.ravel()[order].tolist(), cut.image_size)
    if shown is None:
        raise UnusableError("no_video", "the picture track is empty")
    pictures = np.empty((times.size, cut.image_size, cut.image_size, 3), np.uint8)
    pictures[order] = np.stack(shown)
    return pictures.reshape(*times.shape, *pictures.shape[1:])
