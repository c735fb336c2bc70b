"""Training shards: clips as mel spectrogram, pictures and waveform, in safetensors files.

A shard folder holds ``shards.json`` (the ``MelSpec``, sizes and the clip ids of each shard) and
``shard-NNNNN.safetensors``, each with ``mel`` float16 [N, M, F] (normalised), ``frames`` uint8
[N, K, S, S, 3] and ``audio`` int16 [N, T]. Safetensors files are memory-mapped, so rows are read
from the disk when they are asked for, and a corpus may be larger than the memory.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from clipsynth_rt.bundles.manifest import MelSpec, decode, encode
from clipsynth_rt.errors import DataError, ManifestError, OutputError
from clipsynth_rt.files import replacing, writable_folder, write_json

INDEX = "shards.json"
FORMAT = 1
DTYPES = {"mel": ("F16", 3), "frames": ("U8", 5), "audio": ("I16", 2)}
"""Tensors of a shard: safetensors' name of their type, and their number of dimensions."""
OPEN = 256
"""Shards kept open: a corpus may have more than a process may open files."""
WINDOW = re.compile(r"#\d+$")
"""What ends the id of a video's second and later clips."""


def video_id(clip: str) -> str:
    """Return the id of the video that a clip was cut from.

    >>> video_id("take#1 drum#2"), video_id("take#1 drum")
    ('take#1 drum', 'take#1 drum')
    """
    return WINDOW.sub("", clip)


def to_int16(audio: NDArray[np.floating]) -> NDArray[np.int16]:
    """Return ``audio`` in [-1, 1] as int16; full scale is 32767, so that +1.0 does not wrap."""
    return np.asarray(np.round(np.clip(audio, -1.0, 1.0) * 32767.0), np.int16)


class ShardWriter:
    """Adds clips to a shard folder, new or begun by an earlier run.

    A shard and the index appear whole or not at all, so a run that is killed loses at most the
    shard that it was filling; ``done`` says which clips need not be made again.

    Args:
        folder: Shard folder; made if missing.
        mel_spec: How the mel spectrograms were computed.
        shard_size: Clips in a shard; the clips of one ``add`` call are never divided.

    Raises:
        OutputError: If the folder cannot be written to.
        DataError: If it holds shards of another ``MelSpec``, or damaged ones.
    """

    def __init__(self, folder: str | Path, mel_spec: MelSpec, shard_size: int = 512) -> None:
        self.folder = writable_folder(Path(folder))
        self.mel_spec = mel_spec
        self.shard_size = shard_size
        self._shards: list[dict[str, Any]] = []
        self._sizes: dict[str, list[int]] | None = None
        if (self.folder / INDEX).exists():
            index = _read_index(self.folder, mel_spec)
            self._shards, self._sizes = index["shards"], index["sizes"]
        self.done = {clip for shard in self._shards for clip in shard["ids"]}
        self._ids: list[str] = []
        self._pictureless: list[str] = []
        self._rows: dict[str, list[NDArray[Any]]] = {name: [] for name in DTYPES}

    def add(
        self,
        ids: Sequence[str],
        mel: NDArray[np.floating],
        frames: NDArray[np.uint8],
        audio: NDArray[np.int16],
        *,
        has_pictures: bool = True,
    ) -> None:
        """Add clips, which stay together in one shard; a full shard is written.

        Args:
            ids: Names, unique in the folder.
            mel: [n, M, F], normalised; stored as float16.
            frames: uint8 [n, K, S, S, 3].
            audio: int16 [n, T].
            has_pictures: False for clips whose ``frames`` show nothing of the video.

        Raises:
            DataError: If an id is not new, or a shape differs from that of earlier clips.
            OutputError: If the shard cannot be written.
        """
        for clip in ids:
            if clip in self.done:
                raise DataError(f"{self.folder}: clip {clip!r} is there already")
            self.done.add(clip)
        arrays: dict[str, NDArray[Any]] = {
            "mel": np.asarray(mel, np.float16),
            "frames": frames,
            "audio": audio,
        }
        sizes = {name: list(array.shape[1:]) for name, array in arrays.items()}
        if self._sizes is None:
            self._sizes = sizes
        if sizes != self._sizes:
            raise DataError(
                f"{self.folder}: clip {ids[0]!r} has sizes {sizes}, the clips before it "
                f"{self._sizes}; prepare into another folder"
            )
        self._ids.extend(ids)
        self._pictureless.extend([] if has_pictures else ids)
        for name, array in arrays.items():
            self._rows[name].append(array)
        if len(self._ids) >= self.shard_size:
            self.flush()

    def flush(self) -> None:
        """Write the clips that wait as a shard, if there are any.

        Raises:
            OutputError: If it cannot be written.
        """
        if not self._ids:
            return
        name = f"shard-{len(self._shards):05d}.safetensors"
        arrays = {key: np.concatenate(rows) for key, rows in self._rows.items()}
        with replacing(self.folder / name) as temporary:
            try:
                save_file(arrays, temporary)
            except SafetensorError as error:
                raise OutputError(f"{self.folder / name}: cannot be written ({error})") from error
        self._shards.append({"file": name, "ids": self._ids, "pictureless": self._pictureless})
        write_json(
            self.folder / INDEX,
            {
                "format": FORMAT,
                "mel": encode(self.mel_spec),
                "sizes": self._sizes,
                "shards": self._shards,
            },
        )
        self._ids, self._pictureless = [], []
        self._rows = {key: [] for key in DTYPES}


class ShardSet:
    """A shard folder, read lazily. Rows keep the order in which they were written.

    Attributes:
        folder: Where it is.
        mel_spec: How the mel spectrograms were computed.
        ids: Clip names, one a row.
        has_pictures: bool [N]; False for a clip whose ``frames`` are black for want of pictures.
        files: The shards.
        sizes: Shape of one row of ``mel`` [M, F], ``frames`` [K, S, S, 3] and ``audio`` [T].
    """

    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        self.folder = folder
        self.mel_spec: MelSpec = index["mel"]
        self.sizes: dict[str, list[int]] = index["sizes"]
        self.ids: list[str] = [clip for shard in index["shards"] for clip in shard["ids"]]
        pictureless = {clip for shard in index["shards"] for clip in shard["pictureless"]}
        self.has_pictures = np.array([clip not in pictureless for clip in self.ids], bool)
        self.files = [folder / shard["file"] for shard in index["shards"]]
        counts = [len(shard["ids"]) for shard in index["shards"]]
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._handle = self._handles()

    @classmethod
    def open(cls, folder: str | Path, mel_spec: MelSpec | None = None) -> ShardSet:
        """Open a shard folder, checking the index and every file's header.

        Args:
            folder: What ``clipsynth-rt data prepare`` wrote.
            mel_spec: The analysis that the caller needs; any if None.

        Raises:
            DataError: If the index or a shard is missing or damaged, or of another ``MelSpec``;
                the message names the file.
        """
        folder = Path(folder)
        shards = cls(folder, _read_index(folder, mel_spec))
        for number in range(len(shards.files)):
            shards._check(number)
        return shards

    def __len__(self) -> int:
        return len(self.ids)

    def mels(self, rows: int | Iterable[int] | None = None) -> NDArray[np.float16]:
        """Return normalised log-mels, float16 [N, M, F]: all, those of ``rows``, or one [M, F]."""
        return self._read("mel", rows)

    def frames(self, rows: int | Iterable[int] | None = None) -> NDArray[np.uint8]:
        """Return pictures, uint8 [N, K, S, S, 3]: all, those of ``rows``, or one clip's."""
        return self._read("frames", rows)

    def audio(self, rows: int | Iterable[int] | None = None) -> NDArray[np.int16]:
        """Return waveforms, int16 [N, T] (full scale 32767): all, those of ``rows``, or one [T]."""
        return self._read("audio", rows)

    def __getstate__(self) -> dict[str, Any]:
        # open files do not travel to another process; each opens its own
        return {key: value for key, value in self.__dict__.items() if key != "_handle"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._handle = self._handles()

    def rows_of(self, number: int) -> range:
        """Return the rows that lie in shard ``number``."""
        return range(int(self._starts[number]), int(self._starts[number + 1]))

    def _read(self, name: str, rows: int | Iterable[int] | None) -> NDArray[Any]:
        if rows is None:
            return self._read_all(name)
        single = isinstance(rows, (int, np.integer))
        listed = [rows] if isinstance(rows, (int, np.integer)) else list(rows)
        wanted = np.asarray(listed, dtype=np.int64)
        if wanted.size and not (-len(self) <= wanted.min() and wanted.max() < len(self)):
            raise IndexError(f"rows {wanted.min()}..{wanted.max()} of {len(self)}")
        wanted = wanted % max(len(self), 1)
        values = self._empty(name, len(wanted))
        shards = np.searchsorted(self._starts, wanted, side="right") - 1
        for number in np.unique(shards):
            stored = self._handle(int(number)).get_slice(name)
            for place in np.flatnonzero(shards == number):
                row = int(wanted[place] - self._starts[number])
                values[place] = stored[row : row + 1][0]
        return values[0] if single else values

    def _read_all(self, name: str) -> NDArray[Any]:
        values = self._empty(name, len(self))
        for number in range(len(self.files)):
            start, stop = self._starts[number], self._starts[number + 1]
            values[start:stop] = self._handle(number).get_tensor(name)
        return values

    def _empty(self, name: str, count: int) -> NDArray[Any]:
        dtype = {"mel": np.float16, "frames": np.uint8, "audio": np.int16}[name]
        return np.empty((count, *self.sizes[name]), dtype)

    def _handles(self) -> Callable[[int], Any]:
        """Return a function that opens shard ``number``, and keeps the last ``OPEN`` open."""
        # not a reference to self, which would keep the files open until a garbage collection
        return functools.lru_cache(OPEN)(functools.partial(_open_shard, self.files, self.folder))

    def _check(self, number: int) -> None:
        handle, path = self._handle(number), self.files[number]
        count = int(self._starts[number + 1] - self._starts[number])
        if set(handle.keys()) != set(DTYPES):
            raise DataError(f"{path}: holds {sorted(handle.keys())}, not {sorted(DTYPES)}")
        for name, (dtype, _) in DTYPES.items():
            stored = handle.get_slice(name)
            found = (stored.get_dtype(), list(stored.get_shape()))
            if found != (dtype, [count, *self.sizes[name]]):
                raise DataError(
                    f"{path}: {name} is {found}, not {(dtype, [count, *self.sizes[name]])} as "
                    f"{INDEX} says; prepare {self.folder} again"
                )


def _open_shard(files: Sequence[Path], folder: Path, number: int) -> Any:
    try:
        return safe_open(files[number], "numpy")
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{files[number]}: missing or damaged ({error}); prepare {folder} again"
        ) from error


def _read_index(folder: Path, mel_spec: MelSpec | None) -> dict[str, Any]:
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise DataError(f"{path}: format {index['format']}, not {FORMAT}; prepare it again")
        spec = decode(MelSpec, index["mel"], "mel")
        sizes = {name: [int(size) for size in index["sizes"][name]] for name in DTYPES}
        shards = [
            {"file": str(shard["file"])}
            | {key: [str(clip) for clip in shard[key]] for key in ("ids", "pictureless")}
            for shard in index["shards"]
        ]
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}; make it with: clipsynth-rt data prepare VIDEOS {folder}"
        ) from error
    except (ValueError, KeyError, TypeError, ManifestError) as error:
        raise DataError(f"{path}: damaged ({error}); prepare it again") from error
    for name, (_, dimensions) in DTYPES.items():
        if len(sizes[name]) != dimensions - 1:
            raise DataError(f"{path}: damaged (sizes.{name} is {sizes[name]}); prepare it again")
    if mel_spec is not None and spec != mel_spec:
        want, have = asdict(mel_spec), asdict(spec)
        name = next(key for key in want if want[key] != have[key])
        raise DataError(
            f"{path}: mel.{name} is {have[name]}, this run needs {want[name]}; prepare it again"
        )
    return {"mel": spec, "sizes": sizes, "shards": shards}
