"""A still and a sound to a short video file: crop, flip, colour and a slow zoom."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from clipsynth_rt.files import replacing
from clipsynth_training.data.pictures.raster import composite, dark_colour

FRAME_RATE = 4
FRAME_SIZE = 128
DRAWN_SIZE = 192
"""Side of the drawing that frames are cropped from, so that the closest zoom is still sharp."""
BITEXACT = int(av.codec.context.Flags.bitexact)
SAMPLES_A_PACKET = 4096


def still_frames(
    drawing: NDArray[np.uint8], tinted: bool, seconds: float, rng: np.random.Generator
) -> list[NDArray[np.uint8]]:
    """Return the frames of a video that shows ``drawing`` for ``seconds``.

    Args:
        drawing: uint8 [S, S, 4] with straight alpha.
        tinted: Whether it is a shape without a colour of its own, to be given a dark one.
        seconds: How long the video is.
        rng: Decides colours, background, mirroring, crop and zoom.

    Returns:
        uint8 [FRAME_SIZE, FRAME_SIZE, 3] each, ``FRAME_RATE`` a second.
    """
    drawing = drawing.copy()
    if tinted:
        drawing[..., :3] = dark_colour(rng)
    white = np.full(3, 255, np.uint8)
    light = rng.integers(150, 256, 3).astype(np.uint8)
    background = white if rng.random() < 0.5 else light
    image = Image.fromarray(composite(drawing, background))
    for change, spread in (
        (ImageEnhance.Color, 0.4),
        (ImageEnhance.Brightness, 0.15),
        (ImageEnhance.Contrast, 0.2),
    ):
        image = change(image).enhance(float(rng.uniform(1.0 - spread, 1.0 + spread)))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    wide = _box(rng.uniform(0.8, 1.0), (0.0, 0.0, 1.0), rng)
    near = _box(rng.uniform(0.85, 1.0), wide, rng)
    ends = (wide, near) if rng.random() < 0.5 else (near, wide)
    frames = []
    for part in np.linspace(0.0, 1.0, math.ceil(seconds * FRAME_RATE)):
        left, top, side = (np.array(ends[0]) * (1.0 - part) + np.array(ends[1]) * part) * min(
            image.size
        )
        box = (left, top, left + side, top + side)
        size = (FRAME_SIZE, FRAME_SIZE)
        frames.append(np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box)))
    return frames


def _box(
    share: float, within: Sequence[float], rng: np.random.Generator
) -> tuple[float, float, float]:
    """Return left, top and side of a random square with ``share`` of the side of ``within``."""
    left, top, side = within
    free = side * (1.0 - share)
    return left + free * rng.random(), top + free * rng.random(), side * share


def write_video(
    path: Path, audio: NDArray[np.int16], frames: Sequence[NDArray[np.uint8]], sample_rate: int
) -> None:
    """Write an MP4 with lossless sound (FLAC) and MPEG-4 pictures; none where ``frames`` is empty.

    The bytes depend on nothing but the arguments and the version of FFmpeg: no time stamps.

    Args:
        path: Appears whole or not at all.
        audio: int16 [T].
        frames: uint8 [H, W, 3] each, ``FRAME_RATE`` a second.
        sample_rate: In hertz.

    Raises:
        OutputError: If it cannot be written.
    """
    options = {"fflags": "+bitexact"}
    with (
        replacing(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options=options) as container,
    ):
        video = None
        if frames:
            video = container.add_stream(
                "mpeg4", rate=FRAME_RATE, options={"qmin": "2", "qmax": "4"}
            )
            video.height, video.width = frames[0].shape[:2]
            video.pix_fmt = "yuv420p"
            video.codec_context.thread_count = 1
            video.codec_context.flags |= BITEXACT
        sound = container.add_stream("flac", rate=sample_rate, layout="mono", format="s16")
        sound.codec_context.flags |= BITEXACT
        if video is not None:
            for number, pixels in enumerate(frames):
                picture = av.VideoFrame.from_ndarray(pixels, "rgb24")
                picture.pts, picture.time_base = number, Fraction(1, FRAME_RATE)
                container.mux(video.encode(picture))
            container.mux(video.encode())
        for frame in _sound_frames(audio, sample_rate):
            container.mux(sound.encode(frame))
        container.mux(sound.encode())


def _sound_frames(audio: NDArray[np.int16], sample_rate: int) -> Iterator[av.AudioFrame]:
    for start in range(0, len(audio), SAMPLES_A_PACKET):
        part = np.ascontiguousarray(audio[None, start : start + SAMPLES_A_PACKET])
        frame = av.AudioFrame.from_ndarray(part, "s16", "mono")
        frame.sample_rate, frame.time_base = sample_rate, Fraction(1, sample_rate)
        frame.pts = start
        yield frame
