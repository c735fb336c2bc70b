"""Listening tests as static pages: MUSHRA, and comparisons of two sounds.

A kit is a folder: ``index.html`` with the test, ``clips/`` under names that tell nothing, and
``key.json``, which says what each clip is and stays with the experimenter.
"""

from __future__ import annotations

import itertools
import logging
import math
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from clipsynth_rt.audio.clip import AudioClip
from clipsynth_rt.errors import InputError, MissingExtraError, OutputError
from clipsynth_rt.files import writable_folder, write_json, write_text
from clipsynth_training.evaluate.report.html import render

logger = logging.getLogger(__name__)

Sound = tuple[NDArray[np.float32], int]
"""A waveform [T] and its sample rate."""
REFERENCE, ANCHOR = "reference", "anchor"
ANCHORS_HZ = (3500.0, 7000.0)
"""Cut-offs of the low and the mid anchor that BS.1534-3 asks for."""
TARGET_LUFS = -23.0
PEAK_DB = -1.0
SOUND_FILES = (".wav", ".flac", ".ogg")
_ANCHOR_EDGE_HZ = 500.0  # from the last frequency that passes to the first that does not


def mushra_kit(
    sounds: str | Path,
    out: str | Path,
    *,
    reference: str = "real",
    systems: Sequence[str] = (),
    anchors_hz: Sequence[float] | None = None,
    title: str = "Listening test",
    seed: int = 0,
) -> Path:
    """Write a MUSHRA test: each system beside a hidden reference and low-pass anchors.

    Args:
        sounds: ``SYSTEM/NAME.wav`` (or flac, ogg); a trial is a name that every system has.
        out: The kit's folder; must not hold a kit yet.
        reference: The system that the others are rated against.
        systems: Which to rate; all but the reference if empty.
        anchors_hz: Cut-off of each anchor, made from the reference; ``ANCHORS_HZ`` if None, the
            mid one only where every reference has a sample rate above 15 kHz.
        title: Of the page.
        seed: Of the order of clips within the kit; every listener's page shuffles anew.

    Returns:
        The page.

    Raises:
        InputError: If a system or its sounds are missing, a system is named as the hidden reference
            or an anchor is, or a sound is silent or too short.
        MissingExtraError: If pyloudnorm is not installed.
        OutputError: If the kit cannot be written.

    Source:
        Recommendation ITU-R BS.1534-3 (2015).
    """
    found = _read(Path(sounds))
    _known(found, [reference, *systems])
    rated = list(systems) or [name for name in found if name != reference]
    if not rated:
        raise InputError(f"{sounds}: holds no system but the reference {reference}")
    for system in rated:
        if system == REFERENCE or system.startswith(f"{ANCHOR} "):
            raise InputError(
                f"{sounds}: system {system!r} has the name of a clip that the test adds; "
                "rename its folder"
            )
    names = _common(found, [reference, *rated], Path(sounds))
    originals = {name: _load(found[reference][name]) for name in names}
    if anchors_hz is None:
        anchors_hz = _anchors(min(rate for _, rate in originals.values()), Path(sounds))
    trials = []
    for name, original in originals.items():
        stimuli = {system: _load(found[system][name]) for system in rated}
        stimuli[REFERENCE] = original
        for hz in anchors_hz:
            stimuli[f"{ANCHOR} {hz:g} Hz"] = (low_pass(*original, hz), original[1])
        trials.append({"name": name, "open": REFERENCE, "stimuli": stimuli})
    return _write(Path(out), "mushra", title, trials, seed)


def ab_kit(
    sounds: str | Path,
    out: str | Path,
    *,
    systems: Sequence[str] = (),
    title: str = "Listening test",
    question: str = "Which one sounds more like “{name}”?",
    seed: int = 0,
) -> Path:
    """Write a test of preference between every two systems, sound by sound.

    Args:
        sounds: See ``mushra_kit``.
        out: See ``mushra_kit``.
        systems: At least two; all if empty. One that is named twice counts once.
        title: Of the page.
        question: Asked of each pair; ``{name}`` is the sound's name.
        seed: See ``mushra_kit``.

    Returns:
        The page.

    Raises:
        ClipSynthError: As ``mushra_kit``.
    """
    found = _read(Path(sounds))
    compared = list(dict.fromkeys(systems)) or list(found)
    _known(found, compared)
    if len(compared) < 2:
        raise InputError(f"{sounds}: needs two systems to compare; has {', '.join(compared)}")
    trials = [
        {"name": name, "stimuli": {system: _load(found[system][name]) for system in pair}}
        for name in _common(found, compared, Path(sounds))
        for pair in itertools.combinations(compared, 2)
    ]
    return _write(Path(out), "ab", title, trials, seed, question)


def low_pass(waveform: NDArray[np.float32], rate: int, cutoff_hz: float) -> NDArray[np.float32]:
    """Return an anchor: flat to the cut-off, 60 dB down half a kilohertz above, no delay.

    BS.1534-3 asks for 0.1 dB up to 3.5 kHz, 25 dB at 4 kHz and 50 dB at 4.5 kHz.

    Raises:
        InputError: If the sound has nothing above the cut-off to take away.
    """
    if rate <= _least_rate(cutoff_hz):
        raise InputError(
            f"an anchor at {cutoff_hz:g} Hz needs sounds of over {_least_rate(cutoff_hz):g} Hz"
        )
    taps, beta = signal.kaiserord(65.0, _ANCHOR_EDGE_HZ / (rate / 2))
    filter_ = signal.firwin(
        taps | 1, cutoff_hz + _ANCHOR_EDGE_HZ / 2, window=("kaiser", beta), fs=rate
    )  # odd: symmetric about a sample
    return np.asarray(signal.convolve(waveform, filter_, mode="same"), np.float32)


def _least_rate(cutoff_hz: float) -> float:
    """Return the sample rate, Hz, that sounds must pass for an anchor at ``cutoff_hz``."""
    return 2 * (cutoff_hz + _ANCHOR_EDGE_HZ)


def _anchors(rate: int, sounds: Path) -> tuple[float, ...]:
    """Return the anchors of BS.1534-3 that ``rate`` allows; the low one is not done without."""
    low, mid = ANCHORS_HZ
    if rate > _least_rate(mid):
        return low, mid
    logger.warning(
        "%s: no anchor at %g Hz, which BS.1534-3 asks for: it needs sounds of over %g Hz, got %d",
        sounds, mid, _least_rate(mid), rate,
    )  # fmt: skip
    return (low,)


def match_levels(sounds: Mapping[str, Sound], where: str) -> dict[str, NDArray[np.float32]]:
    """Return waveforms of one loudness: -23 LUFS, or less where a peak would pass -1 dBFS.

    Raises:
        InputError: If a sound is silent or shorter than 0.4 s.
        MissingExtraError: If pyloudnorm is not installed.

    Source:
        Recommendation ITU-R BS.1770-4; EBU R 128 (the level).
    """
    loudness = {name: _loudness(*sound, f"{where}, {name}") for name, sound in sounds.items()}
    peaks = {name: 20 * math.log10(np.abs(x).max()) for name, (x, _) in sounds.items()}
    target = min(TARGET_LUFS, *(loudness[name] + PEAK_DB - peaks[name] for name in sounds))
    return {
        name: (x * 10 ** ((target - loudness[name]) / 20)).astype(np.float32)
        for name, (x, _) in sounds.items()
    }


def _loudness(waveform: NDArray[np.float32], rate: int, where: str) -> float:
    try:
        import pyloudnorm
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyloudnorm", "evaluate") from error
    if len(waveform) < 0.4 * rate:
        raise InputError(f"{where}: shorter than 0.4 s, too short to measure its loudness")
    with np.errstate(divide="ignore"):
        value = float(pyloudnorm.Meter(rate).integrated_loudness(waveform.astype(np.float64)))
    if not math.isfinite(value):
        raise InputError(f"{where}: is silent; leave it out")
    return value


def _read(folder: Path) -> dict[str, dict[str, Path]]:
    """Return system -> name -> file."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; it should hold SYSTEM/NAME.wav")
    found = {
        sub.name: {p.stem: p for p in sorted(sub.iterdir()) if p.suffix.lower() in SOUND_FILES}
        for sub in sorted(folder.iterdir())
        if sub.is_dir()
    }
    found = {system: files for system, files in found.items() if files}
    if not found:
        raise InputError(f"{folder}: holds no sounds as SYSTEM/NAME.wav, .flac or .ogg")
    return found


def _known(found: Mapping[str, Any], systems: Sequence[str]) -> None:
    for system in systems:
        if system not in found:
            raise InputError(f"no system {system!r} among the sounds; have {', '.join(found)}")


def _common(
    found: Mapping[str, Mapping[str, Path]], systems: Sequence[str], folder: Path
) -> list[str]:
    names = sorted(set.intersection(*(set(found[system]) for system in systems)))
    if not names:
        raise InputError(f"{folder}: no sound is there for each of {', '.join(systems)}")
    return names


def _load(path: Path) -> Sound:
    import soundfile

    try:
        waveform, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise InputError(f"{path}: cannot be read as a sound ({error})") from error
    return waveform.mean(axis=1), rate


def _write(
    out: Path,
    kind: str,
    title: str,
    trials: Sequence[Mapping[str, Any]],
    seed: int,
    question: str = "",
) -> Path:
    if (out / "key.json").exists():
        raise OutputError(f"{out}: holds a listening test already; choose another folder")
    clips = writable_folder(writable_folder(out) / "clips")
    order = np.random.default_rng(seed)
    shown, key = [], {}
    for number, trial in enumerate(trials):
        levelled = match_levels(trial["stimuli"], trial["name"])
        names = list(levelled)
        places: dict[str, str] = {}
        for place in order.permutation(len(names)):
            system = names[place]
            id_ = f"{number:03d}-{len(places)}-{secrets.token_hex(3)}"
            rate = trial["stimuli"][system][1]
            AudioClip(levelled[system], rate).save(clips / f"{id_}.wav")
            places[id_] = system
        key[f"{number:03d}"] = {"name": trial["name"], "clips": places}
        entry: dict[str, Any] = {"id": f"{number:03d}", "stimuli": list(places)}
        entry["name"] = trial["name"].replace("_", " ")
        if "open" in trial:
            # a copy under its own name: the hidden one must not be told by its file
            entry["reference"] = f"{number:03d}-reference"
            rate = trial["stimuli"][trial["open"]][1]
            opened = AudioClip(levelled[trial["open"]], rate)
            opened.save(clips / f"{entry['reference']}.wav")
        shown.append(entry)
    test = {"kit": secrets.token_hex(8), "kind": kind, "title": title, "question": question}
    write_text(out / "index.html", render("listening.html", test={**test, "trials": shown}))
    write_json(out / "key.json", {**test, "trials": key})
    return out / "index.html"
