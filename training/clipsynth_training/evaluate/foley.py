"""The classes and the format of the DCASE 2023 Task 7 contest, Foley sound synthesis.

Seven classes, 4 s, mono, 22,050 Hz, 100 clips a class. Its evaluation set does not ship.

Source:
    Choi et al. 2023, arXiv:2304.12521.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.audio.load import read_clip
from clipsynth_rt.errors import DataError, InputError
from clipsynth_training.evaluate.measures.embedders import resampled

SAMPLE_RATE = 22050
SECONDS = 4.0
CLIPS = 100
QUERIES = {
    "DogBark": "dog bark",
    "Footstep": "footsteps",
    "GunShot": "gunshot",
    "Keyboard": "typing on a keyboard",
    "MovingMotorVehicle": "moving motor vehicle",
    "Rain": "rain",
    "SneezeCough": "sneeze or cough",
}
"""What a voice is asked for each class."""
_LONGEST_S = 60.0
Audio = NDArray[np.float32]


def find_classes(folder: Path) -> dict[str, list[Path]]:
    """Return the sounds of each class, by folders that are named like the classes.

    Upper case, spaces, hyphens and underscores do not matter: ``sneeze_cough`` is found too.

    Raises:
        InputError: If there is no such folder, or a class has fewer than two sounds.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --foley names one with a folder a class")
    below = {_plain(path.name): path for path in sorted(folder.iterdir()) if path.is_dir()}
    found = {}
    for name in QUERIES:
        place = below.get(_plain(name))
        files = sorted(place.glob("*.wav")) if place is not None else []
        if len(files) < 2:
            raise InputError(
                f"{folder}: needs a folder {name} with two WAV files or more; the classes are "
                f"{', '.join(QUERIES)}"
            )
        found[name] = files
    return found


def read_class(files: Sequence[Path]) -> list[Audio]:
    """Return sounds in the contest's format, float32 [SECONDS * SAMPLE_RATE] each.

    Raises:
        DataError: If one cannot be read.
    """
    sounds = []
    for path in files:
        try:
            clip = read_clip(path, _LONGEST_S)
        except InputError as error:
            raise DataError(str(error)) from error
        sounds += contest_format([clip.waveform], clip.sample_rate)
    return sounds


def contest_format(sounds: Sequence[Audio], rate: int) -> list[Audio]:
    """Return sounds at ``SAMPLE_RATE``, cut or filled with silence to ``SECONDS``."""
    count = round(SECONDS * SAMPLE_RATE)
    at_rate = resampled(sounds, rate, SAMPLE_RATE)
    return [np.pad(sound[:count], (0, max(0, count - len(sound)))) for sound in at_rate]


def mean_of_classes(by_class: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each figure over the classes: the contest ranks by that of FAD."""
    names = next(iter(by_class.values())).keys()
    return {name: float(np.mean([row[name] for row in by_class.values()])) for name in names}


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
