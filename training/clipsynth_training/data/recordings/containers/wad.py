"""Sound lumps of a WAD, the archive of Doom and Freedoom.

A WAD begins with ``IWAD`` or ``PWAD``, the number of lumps and where their directory lies; each
entry of the directory is an offset, a size and a name of eight bytes. Digital sounds are the lumps
``DS...``: format 3, sample rate, number of samples, then unsigned 8-bit samples of which the first
and last 16 are padding.

Source:
    Fenske et al., "The Unofficial Doom Specs" 1.666, chapters 2 and 8-2.
"""

from __future__ import annotations

import struct

from clipsynth_rt.errors import InputError
from clipsynth_training.data.recordings.containers.fields import decoded, fields_at, slice_at

_MAX_LUMPS = 100_000
_PADDING = 16
_RATES = range(4000, 96_001)


def unpack_wad(data: bytes, what: str = "WAD") -> dict[str, bytes]:
    """Return the digital sounds of a WAD as WAVE files, ``DSPISTOL.wav`` and so on.

    Raises:
        InputError: If it is not a WAD, or is damaged.
    """
    magic, count, directory_at = fields_at("<4sII", data, 0, what)
    if magic not in (b"IWAD", b"PWAD"):
        raise InputError(f"{what}: not a WAD")
    if count > _MAX_LUMPS:
        raise InputError(f"{what}: {count} lumps are too many")
    sounds = {}
    for index in range(count):
        offset, size, raw = fields_at("<II8s", data, directory_at + 16 * index, what)
        if not raw.startswith(b"DS") or size < 8:  # shorter ones are placeholders
            continue
        name = decoded(raw.rstrip(b"\0"), "ascii", what)
        if not name.isalnum():
            raise InputError(f"{what}: a sound is named {name!r}")
        lump = slice_at(data, offset, size, f"{what}: {name}")
        sounds[f"{name}.wav"] = _to_wave(lump, f"{what}: {name}")
    return sounds


def _to_wave(lump: bytes, what: str) -> bytes:
    kind, rate, count = fields_at("<HHI", lump, 0, what)
    if kind != 3 or rate not in _RATES:
        raise InputError(f"{what}: not a digital sound (format {kind}, {rate} Hz)")
    samples = slice_at(lump, 8, count, what)[_PADDING:-_PADDING]
    if not samples:
        raise InputError(f"{what}: has no samples")
    padded = samples + b"\x80" * (len(samples) % 2)  # RIFF chunks are of even size
    return b"".join(
        (
            struct.pack("<4sI4s", b"RIFF", 36 + len(padded), b"WAVE"),
            struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate, 1, 8),
            struct.pack("<4sI", b"data", len(samples)),
            padded,
        )
    )
