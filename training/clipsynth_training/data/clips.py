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
from PIL import Image

from clipsynth_rt.bundles.manifest import MelSpec
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
    """

    numbers: list[int]
    mel: NDArray[np.float16]
    frames: NDArray[np.uint8]
    audio: NDArray[np.int16]
    has_pictures: bool = True


def read_video(path: str | Path, cut: CutSpec) -> Clips:
    """Decode one video and cut it into clips, each of peak ``PEAK``.

    Raises:
        UnusableError: For a file that is broken, has no audio or no picture track, is silent or is
            too short.
    """
    try:
        sound, start_s, has_pictures = _read_sound(path, cut)
        numbers, windows = _cut(sound, cut)
        if has_pictures:
            frames = _read_pictures(path, _picture_times(numbers, start_s, cut), cut)
        else:
            size = cut.image_size
            frames = np.zeros((len(numbers), cut.images, size, size, 3), np.uint8)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnusableError("broken", f"{error}") from error
    return _analyse(numbers, windows, frames, cut, has_pictures)


def read_sound(path: str | Path, cut: CutSpec) -> Clips:
    """Decode the sound of one file and cut it into clips without pictures (``frames`` has K = 0).

    Raises:
        UnusableError: For a file that is broken, has no sound, is silent or is too short.
    """
    try:
        sound, _, _ = _read_sound(path, dataclasses.replace(cut, keep_pictureless=True))
        numbers, windows = _cut(sound, cut)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnusableError("broken", f"{error}") from error
    frames = np.zeros((len(numbers), 0, cut.image_size, cut.image_size, 3), np.uint8)
    return _analyse(numbers, windows, frames, cut, has_pictures=False)


def _analyse(
    numbers: list[int],
    windows: NDArray[np.float32],
    frames: NDArray[np.uint8],
    cut: CutSpec,
    has_pictures: bool,
) -> Clips:
    audio = to_int16(windows)
    with torch.inference_mode():
        # of the sound as it is stored: what a vocoder learns to give back is what was analysed
        waveform = torch.from_numpy(audio.astype(np.float32) / 32767.0)
        mel = _mel(cut.mel)(waveform).to(torch.float16).numpy()
    return Clips(numbers, mel, frames, audio, has_pictures)


@functools.lru_cache(maxsize=2)
def _mel(spec: MelSpec) -> MelSpectrogram:
    return MelSpectrogram(spec)


def _read_sound(path: str | Path, cut: CutSpec) -> tuple[NDArray[np.float32], float, bool]:
    """Return the sound [T] as far as clips need it, when it starts, and if there are pictures."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            raise UnusableError("no_audio")
        has_pictures = bool(container.streams.video)
        if not has_pictures and not cut.keep_pictureless:
            raise UnusableError("no_video")
        resampler = av.AudioResampler("fltp", "mono", cut.mel.sample_rate)
        parts: list[NDArray[np.float32]] = []
        start_s = None
        needed = cut.starts[-1] + cut.samples
        for frame in container.decode(container.streams.audio[0]):
            if start_s is None:
                start_s = frame.time or 0.0
            for part in resampler.resample(frame):
                parts.append(part.to_ndarray()[0])
                needed -= part.samples
            if needed <= 0:
                break
        else:
            if start_s is not None:  # a resampler that never saw a frame cannot be flushed
                parts += [part.to_ndarray()[0] for part in resampler.resample(None)]
    sound = np.concatenate([np.zeros(0, np.float32), *parts])
    if not np.isfinite(sound).all():
        raise UnusableError("broken", "the sound is not finite")
    return sound, start_s or 0.0, has_pictures


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
    wanted = iter(np.argsort(times, axis=None))
    flat = times.ravel()
    pictures = np.zeros((flat.size, cut.image_size, cut.image_size, 3), np.uint8)
    with av.open(str(path)) as container:
        shown, place = None, next(wanted)
        for frame in container.decode(container.streams.video[0]):
            now = frame.time or 0.0
            while shown is not None and place is not None and flat[place] < now:
                pictures[place] = square(shown, cut.image_size)
                place = next(wanted, None)
            if place is None:
                break
            shown = frame
        if shown is None:
            raise UnusableError("no_video", "the picture track is empty")
        while place is not None:  # the sound outlasts the pictures
            pictures[place] = square(shown, cut.image_size)
            place = next(wanted, None)
    return pictures.reshape(*times.shape, cut.image_size, cut.image_size, 3)


def square(frame: av.VideoFrame, size: int) -> NDArray[np.uint8]:
    """Return the centre square of a decoded frame, upright, as uint8 [size, size, 3]."""
    image = frame.to_image()
    turn = getattr(frame, "rotation", 0)  # a telephone held upright; PyAV 14 and later say so
    if turn:
        image = image.rotate(turn, expand=True)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box).convert("RGB"))
