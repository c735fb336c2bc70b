"""Media files decoded through FFmpeg: sound by its timestamps, pictures as a player shows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from numpy.typing import NDArray
from PIL import Image

from clipsynth_rt.audio.mixdown import mix_to_mono

GAP_S = 0.05
"""A hole in the timestamps of a sound is silence from here on: containers round to milliseconds."""
_ASPECTS = (Fraction(1, 10), Fraction(10))
"""Shapes of a pixel that are believed."""
Turn = tuple[bool, bool, bool]
"""How a stored picture becomes upright: swap its axes, then mirror x, then mirror y."""
UPRIGHT: Turn = (False, False, False)


@dataclass(frozen=True)
class Sound:
    """The sound of a media file.

    Attributes:
        samples: float32 [T], mono.
        start_s: When it starts on the file's clock.
        has_pictures: Whether the file has a picture track, cover pictures aside.
        remarks: What was unusual, as short names: ``gap``, ``damaged_packets``,
            ``opposite_phase``.
    """

    samples: NDArray[np.float32]
    start_s: float
    has_pictures: bool
    remarks: tuple[str, ...] = ()


def sound_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    """Return the sound track that a player takes: the default one, or else the first."""
    found = sorted(container.streams.audio, key=_not_default)
    return found[0] if found else None


def picture_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """Return the picture track that a player takes; the cover of an album is none."""
    moving = [
        stream
        for stream in container.streams.video
        if not stream.disposition & (Disposition.attached_pic | Disposition.still_image)
    ]
    moving.sort(key=_not_default)
    return moving[0] if moving else None


def read_sound_track(path: str | Path, sample_rate: int, needed: int) -> Sound | None:
    """Decode the sound of a file, at most ``needed`` samples and a little more.

    Each frame stands where its timestamp says: a hole of over ``GAP_S`` is silence, be it in the
    file or in place of a packet that cannot be decoded. The sample rate and the channels may
    change within the file.

    Args:
        path: The file.
        sample_rate: Of the result, in Hz.
        needed: Samples after which decoding stops.

    Returns:
        The sound; None if there is no sound track.

    Raises:
        av.FFmpegError: If the file cannot be opened, or no packet of it can be decoded.
        ValueError: If the sound is not finite.
    """
    with av.open(str(path)) as container:
        stream = sound_stream(container)
        if stream is None:
            return None
        has_pictures = picture_stream(container) is not None
        timeline = _Timeline(sample_rate, needed)
        decoder = _Tolerant(container, stream)
        for frame in decoder:
            timeline.add(frame)
            if timeline.length >= needed:
                break
        channels = timeline.finish()
    if not np.isfinite(channels).all():
        raise ValueError("the sound is not finite")
    samples, cancelled = mix_to_mono(channels)
    seen = {
        "gap": timeline.gaps, "damaged_packets": decoder.damaged, "opposite_phase": cancelled
    }  # fmt: skip
    remarks = tuple(name for name, count in seen.items() if count)
    return Sound(samples, timeline.start_s or 0.0, has_pictures, remarks)


def read_pictures(
    path: str | Path, times: Sequence[float], size: int
) -> list[NDArray[np.uint8]] | None:
    """Return what is on the screen at ``times``, in ascending order, as uint8 [S, S, 3] each.

    Returns:
        One picture a time; None if nothing is ever shown.

    Raises:
        av.FFmpegError: If the file cannot be opened, or no packet of it can be decoded.
    """
    pictures: list[NDArray[np.uint8]] = []
    with av.open(str(path)) as container:
        stream = picture_stream(container)
        if stream is None:
            return None
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
        shown = None
        for frame in _Tolerant(container, stream):
            now = frame.time or 0.0
            while shown is not None and len(pictures) < len(times) and times[len(pictures)] < now:
                pictures.append(square(shown, size, aspect))
            if len(pictures) == len(times):
                break
            shown = frame
        if shown is None:
            return None
        while len(pictures) < len(times):  # the sound outlasts the pictures
            pictures.append(square(shown, size, aspect))
    return pictures


def square(frame: av.VideoFrame, size: int, aspect: Fraction | None = None) -> NDArray[np.uint8]:
    """Return the centre square of a decoded frame as it is shown, uint8 [size, size, 3].

    Args:
        frame: Its display matrix says how it is turned and mirrored.
        size: Side of the result in pixels.
        aspect: Width of a pixel relative to its height; None is 1.
    """
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    low, high = _ASPECTS
    wide = float(aspect) if aspect is not None and low <= aspect <= high else 1.0
    side = min(image.width * wide, float(image.height))
    left, top = (image.width - side / wide) / 2, (image.height - side) / 2
    box = (left, top, left + side / wide, top + side)
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
    swap, mirror_x, mirror_y = orientation(frame)
    if swap:
        pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1])


def orientation(frame: av.VideoFrame) -> Turn:
    """Return how a frame becomes upright, by its display matrix; angles between are left alone.

    Source:
        FFmpeg, libavutil/display.h: (x', y') = (a x + c y, b x + d y) for the matrix a b u c d v
        x y w in 16.16 fixed point.
    """
    side_data: Iterable[Any] = frame.side_data
    matrix = next((bytes(d) for d in side_data if d.type == SideData.DISPLAYMATRIX), b"")
    if len(matrix) < 36:
        return UPRIGHT
    a, b, _, c, d, *_ = np.frombuffer(matrix[:36], np.int32).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def _not_default(stream: av.AudioStream | av.VideoStream) -> bool:
    return not stream.disposition & Disposition.default


class _Tolerant:
    """The frames of one track; packets that cannot be decoded are counted and passed over.

    Where they are as many as the frames, the last one's error is raised at the end.
    """

    def __init__(
        self, container: av.container.InputContainer, stream: av.AudioStream | av.VideoStream
    ) -> None:
        self._container, self._stream = container, stream
        self.damaged = 0

    def __iter__(self) -> Iterator[Any]:
        decoded, problem = 0, None
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                # the rest of the container cannot be read
                problem, self.damaged, packet = error, self.damaged + 1, None
            if packet is None:
                break
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                problem, self.damaged = error, self.damaged + 1
                continue
            decoded += len(frames)
            yield from frames
        if problem is not None and decoded <= self.damaged:
            raise problem


class _Timeline:
    """Puts the frames of a sound where their timestamps say, at one sample rate."""

    def __init__(self, sample_rate: int, needed: int) -> None:
        self._rate, self._needed = sample_rate, needed
        self._parts: list[NDArray[np.float32]] = []
        self._resampler: av.AudioResampler | None = None
        self._form: tuple[str, str, int] | None = None
        self._end_s = 0.0
        self.start_s: float | None = None
        self.length = self.gaps = 0

    def add(self, frame: av.AudioFrame) -> None:
        """Add the next frame; times that go back, or are missing, follow on what came before."""
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        time = frame.time
        if self.start_s is None:
            self.start_s = self._end_s = time or 0.0
        start_s = self.start_s
        silence = 0.0 if time is None else time - self._end_s
        if silence > GAP_S or (self._form is not None and form != self._form):
            self._flush()
        if time is not None and silence > GAP_S:
            self._end_s = time
            self.gaps += 1
            # up to where the frame belongs: what the resampler rounded does not add up
            at = round((time - start_s) * self._rate)
            count = min(at, self._needed) - self.length
            self._append(np.zeros((1, max(0, count)), np.float32))
        if self._resampler is None:
            layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
            self._resampler, self._form = av.AudioResampler("fltp", layout, self._rate), form
        self._end_s += frame.samples / frame.sample_rate
        frame.pts = None
        for part in self._resampler.resample(frame):
            self._append(part.to_ndarray())

    def finish(self) -> NDArray[np.float32]:
        """Return the channels, [1 or 2, T]."""
        self._flush()
        width = max((len(part) for part in self._parts), default=1)
        parts = [np.broadcast_to(part, (width, part.shape[1])) for part in self._parts]
        return np.concatenate([np.zeros((width, 0), np.float32), *parts], axis=1)

    def _flush(self) -> None:
        if self._resampler is not None:
            for part in self._resampler.resample(None):
                self._append(part.to_ndarray())
        self._resampler = self._form = None

    def _append(self, part: NDArray[Any]) -> None:
        self._parts.append(np.asarray(part, np.float32))
        self.length += part.shape[1]
