"""Pictures of mel spectrograms, with Pillow alone."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.audio.clip import AudioClip
from clipsynth_rt.audio.mel import band_edges_hz, mel_spectrogram
from clipsynth_rt.bundles.manifest import MelSpec

if TYPE_CHECKING:
    from PIL.Image import Image

_ROW_PX = 4
"""Height of a mel bin."""
_WIDTHS = (480, 1600)
"""Least and most pixels of the time axis."""
_MARGIN = (64, 34, 16, 40)
"""Left, top, right and bottom, in pixels."""
_TICKS_HZ = (100, 200, 500, 1000, 2000, 5000, 10000, 20000)
_TICKS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_COLOURS = (
    (8, 8, 24),
    (52, 20, 98),
    (130, 34, 108),
    (205, 66, 74),
    (246, 140, 52),
    (252, 250, 190),
)
"""Dark to light, evenly spaced in lightness, so that it reads in grey as well."""
_LABEL_PX = 12


def plot_clip(clip: AudioClip, spec: MelSpec) -> bytes:
    """Return a PNG of a clip's mel spectrogram, analysed from its waveform.

    Raises:
        InputError: If the clip is too short to analyse.
    """
    title = clip.query if clip.query.isprintable() else ascii(clip.query)
    picture = mel_picture(mel_spectrogram(clip.waveform, spec), spec, title)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def mel_picture(mel: NDArray[np.float32], spec: MelSpec, title: str = "") -> Image:
    """Return a picture of a normalised mel, with its axes in seconds and hertz.

    Args:
        mel: float32 [M, F].
        spec: Of the mel.
        title: Above it.
    """
    import PIL.Image
    import PIL.ImageDraw
    import PIL.ImageFont

    width = int(np.clip(mel.shape[1], *_WIDTHS))
    height = mel.shape[0] * _ROW_PX
    left, top, right, bottom = _MARGIN
    pixels = PIL.Image.fromarray(_coloured(mel[::-1], spec)).resize(
        (width, height), PIL.Image.Resampling.NEAREST
    )
    page = PIL.Image.new("RGB", (left + width + right, top + height + bottom), "white")
    page.paste(pixels, (left, top))
    draw = PIL.ImageDraw.Draw(page)
    font = PIL.ImageFont.load_default(_LABEL_PX)
    base = top + height
    draw.text((left, top - 20), title[:80], "black", font)
    for second in _ticks_s(spec.seconds(mel.shape[1])):
        x = left + second / spec.seconds(mel.shape[1]) * width
        draw.line((x, base, x, base + 4), "black")
        draw.text((x, base + 6), f"{second:g}", "black", font, anchor="ma")
    draw.text((left + width / 2, base + 22), "time, s", "black", font, anchor="ma")
    for hz, row in _ticks_hz(spec):
        y = base - (row + 0.5) * _ROW_PX
        draw.line((left - 4, y, left, y), "black")
        draw.text((left - 7, y), f"{hz}", "black", font, anchor="rm")
    draw.text((left - 7, top - 20), "Hz", "black", font, anchor="ra")
    return page


def _coloured(mel: NDArray[np.float32], spec: MelSpec) -> NDArray[np.uint8]:
    """Return RGB [M, F, 3]: dark at the floor, light at the loudest."""
    low, high = spec.floor_normalised, max(float(mel.max()), spec.floor_normalised + 1.0)
    share = np.clip((mel - low) / (high - low), 0.0, 1.0)
    at = np.linspace(0.0, 1.0, len(_COLOURS))
    channels = [np.interp(share, at, channel) for channel in zip(*_COLOURS, strict=True)]
    return np.ascontiguousarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def _ticks_hz(spec: MelSpec) -> list[tuple[int, float]]:
    """Return the frequencies to label and their rows, those left out that would overlap."""
    peaks = band_edges_hz(spec)[1:-1]
    ticks: list[tuple[int, float]] = []
    for hz in _TICKS_HZ:
        row = float(np.interp(hz, peaks, np.arange(len(peaks))))
        apart = not ticks or (row - ticks[-1][1]) * _ROW_PX > _LABEL_PX
        if peaks[0] <= hz <= peaks[-1] and apart:
            ticks.append((hz, row))
    return ticks


def _ticks_s(length_s: float) -> list[float]:
    """Return the times to label: about eight."""
    gap = next((gap for gap in _TICKS_S if length_s / gap <= 9), _TICKS_S[-1])
    return [round(i * gap, 6) for i in range(int(length_s / gap + 1e-9) + 1)]
