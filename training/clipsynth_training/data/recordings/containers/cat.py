"""The sound bank of OpenTTD and Transport Tycoon (``.cat``).

A table of offsets and sizes (two little-endian 32-bit numbers each) ends where the first sound
begins. At each offset lie the sound's name, with its length in one byte before it, and a RIFF
WAVE file. Bit 31 of an offset marks the newer revision and is no part of it.

Source:
    The format notes of OpenTTD's catcodec tool.
"""

from __future__ import annotations

from clipsynth_rt.errors import InputError
from clipsynth_training.data.recordings.containers.fields import fields_at, slice_at

_OFFSET_BITS = 0x7FFF_FFFF
_MAX_SOUNDS = 4096


def unpack_cat(data: bytes, what: str = "sound bank") -> dict[str, bytes]:
    """Return the WAVE files of a bank as ``00.wav``, ``01.wav`` and so on.

    Raises:
        InputError: If it is not a sound bank, or is damaged.
    """
    (first,) = fields_at("<I", data, 0, what)
    count, rest = divmod(first & _OFFSET_BITS, 8)
    if rest or not 0 < count <= _MAX_SOUNDS:
        raise InputError(f"{what}: not a sound bank of OpenTTD")
    sounds = {}
    for index in range(count):
        (offset,) = fields_at("<I", data, 8 * index, what)
        offset &= _OFFSET_BITS
        (name_length,) = fields_at("<B", data, offset, what)
        start = offset + 1 + name_length
        magic, size, kind = fields_at("<4sI4s", data, start, what)
        if magic != b"RIFF" or kind != b"WAVE":
            raise InputError(f"{what}: sound {index} is not a WAVE file")
        sounds[f"{index:02d}.wav"] = slice_at(data, start, 8 + size, f"{what}: sound {index}")
    return sounds
