"""What the denoiser trains on: mels, and for each clip the embeddings that may condition it."""

from __future__ import annotations

import csv
import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.errors import DataError, InputError
from clipsynth_rt.files import read_toml
from clipsynth_training.clip.frame_embeddings import embed_frames
from clipsynth_training.data.shards import ShardSet, video_id
from clipsynth_training.data.sounds import load_concepts
from clipsynth_training.data.streaming import StreamedMels, too_large
from clipsynth_training.run.distributed import rank_and_count

logger = logging.getLogger(__name__)

TEXT_TEMPLATES = (
    "a photo of {query}",
    "a photo of a {query}",
    "a picture of {query}",
    "the sound of {query}",
    "{query}",
)
"""Templates that -Text and -Hybrid train with; the first is the paper's and the runtime's."""

NAME_SHARE = 0.4
"""Share of a label's phrasings that are its name itself, at least about."""


@dataclass
class ConditionedMels:
    """Clips and their conditions, in memory, but for mels that are streamed.

    Attributes:
        mels: Normalised mel spectrograms, float16 [N, M, F], or what is indexed like them.
        image: Frame embeddings, unit length, float32 [N, K, D]; K may be 0.
        has_image: Whether a clip has pictures at all, bool [N].
        text: Text embeddings, float32 [C, V, D]: V phrasings of each of C labels; C may be 0.
        label: Row of ``text`` of each clip, int64 [N]; -1 where unlabelled.
        passes: How often an epoch of training holds each clip, int64 [N]; None for once.
    """

    mels: Tensor | StreamedMels
    image: Tensor
    has_image: Tensor
    text: Tensor
    label: Tensor
    passes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.mels)

    @property
    def streams(self) -> bool:
        """Whether mels are read from the disk as they are indexed, and not held in memory."""
        return not isinstance(self.mels, Tensor)

    def usable(self, variant: str) -> Tensor:
        """Return the indices of clips that ``variant`` can train on, int64.

        Raises:
            DataError: If there is none.
        """
        labelled = self.label >= 0
        keep = {
            "image": self.has_image,
            "text": labelled,
            "hybrid": self.has_image | labelled,
        }[variant]
        indices = keep.nonzero().flatten()
        if len(indices) == 0:
            needs = "labels (--labels labels.csv)" if variant == "text" else "pictures"
            raise DataError(f"no clip can train variant {variant}: it needs {needs}")
        if self.passes is not None:
            indices = indices.repeat_interleave(self.passes[indices])
        return indices

    def oversample(self, times: Mapping[str, int], names: Sequence[str]) -> None:
        """Let an epoch of training hold the clips of some labels more often than once.

        Args:
            times: Label -> how often.
            names: Labels in the order of ``text``'s rows.

        Raises:
            InputError: If a label is not among ``names``.
        """
        if unknown := sorted(times.keys() - set(names)):
            raise InputError(f"no clip is labelled {unknown[0]!r}; see labels.csv")
        by_label = torch.tensor([*(times.get(name, 1) for name in names), 1])
        self.passes = by_label[self.label]  # -1, unlabelled, takes the last

    def conditions(self, indices: Tensor, variant: str, generator: torch.Generator) -> Tensor:
        """Draw one condition [B, D] for each clip: a random frame, or a random phrasing.

        Hybrid takes either with even odds where a clip has both.
        """
        count = len(indices)
        label, has_image = self.label[indices], self.has_image[indices]
        text_share = {"image": 0.0, "text": 1.0, "hybrid": 0.5}[variant]
        take_text = torch.rand(count, generator=generator) < text_share
        take_text = (take_text | ~has_image) & (label >= 0)
        frame = torch.randint(max(1, self.image.shape[1]), (count,), generator=generator)
        phrasing = torch.randint(max(1, self.text.shape[1]), (count,), generator=generator)
        out = torch.zeros(count, max(self.image.shape[2], self.text.shape[2]))
        if take_text.any():
            out[take_text] = self.text[label[take_text], phrasing[take_text]]
        if (~take_text).any():
            out[~take_text] = self.image[indices[~take_text], frame[~take_text]]
        return out


def read_labels(path: str | Path, column: str = "concept") -> dict[str, str]:
    """Return clip id -> concept, or another column, from a ``labels.csv``.

    Raises:
        DataError: If the file is missing, it or one of its rows lacks ``id`` or ``column``, or an
            id has two of the latter.
    """
    try:
        # spreadsheets begin their UTF-8 with a byte order mark
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {"id", column} <= set(rows.fieldnames or ()):
                raise DataError(f"{path}: needs the columns id and {column}")
            labels: dict[str, str] = {}
            for row in rows:
                # a short row has None where nothing stands
                id_, value = row["id"], (row[column] or "").strip()
                if not id_ or not value:
                    raise DataError(f"{path}: line {rows.line_num} has no id or no {column}")
                if labels.setdefault(id_, value) != value:
                    raise DataError(
                        f"{path}: line {rows.line_num}: {id_} is {value} here and {labels[id_]} "
                        "before"
                    )
            return labels
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


@functools.cache
def load_phrasings() -> dict[str, list[str]]:
    """Return what else each concept may be called; see ``data.make_phrasings``."""
    table = resources.files("clipsynth_training.data.phrasings").joinpath("phrasings.toml")
    return read_toml(table)


def phrasings(label: str) -> list[str]:
    """Return the texts that name ``label``, in templates: its name, keywords and other phrasings.

    The name comes with every template, and again until it has ``NAME_SHARE`` of the texts, for it
    is what is asked for most; the others come with two templates each, the runtime's one of them.
    """
    keywords = {c.name: c.keywords for c in load_concepts()}.get(label, ())
    texts = [template.format(query=label) for template in TEXT_TEMPLATES]
    others = []
    for number, phrase in enumerate((*keywords, *load_phrasings().get(label, ()))):
        others.append(TEXT_TEMPLATES[0].format(query=phrase))
        others.append(TEXT_TEMPLATES[1 + number % 4].format(query=phrase))
    wanted = NAME_SHARE / (1.0 - NAME_SHARE) * len(others)
    return texts * max(1, round(wanted / len(texts))) + others


def load_conditioned(
    shards_dir: str | Path,
    clip: object,
    mel_spec: MelSpec,
    labels_csv: str | Path | None = None,
    kinds: Sequence[str] = (),
    *,
    stream: bool | None = False,
) -> ConditionedMels:
    """Read shards and embed their frames, and their labels where given.

    Args:
        shards_dir: What ``clipsynth-rt data prepare`` wrote.
        clip: From ``clipsynth_training.clip.encoder.load_clip``.
        mel_spec: The analysis that the shards must have.
        labels_csv: Optional labels, for -Text, -Hybrid and evaluation.
        kinds: Keep clips of these kinds alone (``labels_csv``'s column ``kind``); empty for all.
        stream: Read mels from the disk as they are needed; None for a corpus that would crowd the
            memory.

    Raises:
        DataError: If shards or labels cannot be used, or no clip is of one of ``kinds``.
        InputError: If ``kinds`` are given without ``labels_csv``.
    """
    shards = ShardSet.open(shards_dir, mel_spec)
    if len(shards) == 0:
        raise DataError(f"{shards_dir}: holds no clips")
    rows = rows_of_kinds(shards, labels_csv, kinds)
    mels = _mels(shards, rows, stream)
    image, has_image = embed_frames(shards, clip)
    labels = read_labels(labels_csv) if labels_csv is not None else {}
    names = sorted(set(labels.values()))
    text = embed_labels(names, clip) if names else torch.zeros(0, 1, clip.dim)
    label = torch.tensor(label_indices(shards.ids, labels, names))
    if rows is not None:
        image, has_image, label = image[rows], has_image[rows], label[rows]
    return ConditionedMels(mels, image, has_image, text, label)


def load_texts(
    shards_dir: str | Path,
    clip: object,
    mel_spec: MelSpec,
    labels_csv: str | Path,
    kinds: Sequence[str] = (),
) -> tuple[ConditionedMels, list[str]]:
    """Read labelled clips and the texts of their labels, without pictures.

    Returns:
        The clips, and the names of their labels in the order of ``text``'s rows.

    Raises:
        DataError: If shards or labels cannot be used, or no clip is of one of ``kinds``.
    """
    data, names = load_labelled(shards_dir, mel_spec, labels_csv, kinds=kinds)
    return replace(data, text=embed_labels(names, clip)), list(names)


def _mels(shards: ShardSet, rows: list[int] | None, stream: bool | None) -> Tensor | StreamedMels:
    count = len(shards) if rows is None else len(rows)
    if stream is None:
        stream = too_large(shards, count, rank_and_count()[1])
    if stream:
        logger.info("%d clips are read from %d shards as needed", count, len(shards.files))
        return StreamedMels(shards, None if rows is None else np.array(rows))
    return torch.from_numpy(np.ascontiguousarray(shards.mels(rows)))


def rows_of_kinds(
    shards: ShardSet, labels_csv: str | Path | None, kinds: Sequence[str]
) -> list[int] | None:
    """Return the rows of clips of some kinds (``labels_csv``'s column ``kind``); None for all.

    Raises:
        DataError: If no clip is of one of ``kinds``, or the labels cannot be read.
        InputError: If ``kinds`` are given without ``labels_csv``.
    """
    if not kinds:
        return None
    if labels_csv is None:
        raise InputError("kinds of clips are told by labels.csv, and none was given")
    kind = read_labels(labels_csv, "kind")
    rows = [i for i, id_ in enumerate(shards.ids) if kind.get(video_id(id_)) in kinds]
    if not rows:
        known = ", ".join(sorted(set(kind.values())))
        raise DataError(f"{labels_csv}: no clip is of kind {', '.join(kinds)}; kinds: {known}")
    return rows


def load_labelled(
    shards_dir: str | Path,
    mel_spec: MelSpec,
    labels_csv: str | Path,
    names: Sequence[str] = (),
    kinds: Sequence[str] = (),
) -> tuple[ConditionedMels, tuple[str, ...]]:
    """Read mels and labels alone, for the classifier.

    Args:
        shards_dir: What ``clipsynth-rt data prepare`` wrote.
        mel_spec: The analysis that the shards must have.
        labels_csv: Labels of the clips.
        names: Labels in the order of their numbers; those of ``labels_csv``, sorted, if empty.
        kinds: Keep clips of these kinds alone; empty for all.

    Raises:
        DataError: If shards or labels cannot be used, or no clip is of one of ``kinds``.
    """
    shards = ShardSet.open(shards_dir, mel_spec)
    labels = read_labels(labels_csv)
    names = tuple(names) or tuple(sorted(set(labels.values())))
    rows = rows_of_kinds(shards, labels_csv, kinds)
    ids = shards.ids if rows is None else [shards.ids[row] for row in rows]
    label = torch.tensor(label_indices(ids, labels, names))
    mels = _mels(shards, rows, stream=False)
    none = torch.zeros(len(mels), dtype=torch.bool)
    empty = torch.zeros(len(mels), 0, 1), torch.zeros(0, 1, 1)
    return ConditionedMels(mels, empty[0], none, empty[1], label), names


def label_indices(ids: Sequence[str], labels: Mapping[str, str], names: Sequence[str]) -> list[int]:
    """Return the index in ``names`` of each clip's label, -1 where it has none of them.

    Args:
        ids: Clip ids; a window of a longer video is its video's id, ``#`` and a number.
        labels: Video id -> label.
        names: Labels in the order of their indices.
    """
    index = {name: number for number, name in enumerate(names)}
    return [index.get(labels.get(video_id(clip), ""), -1) for clip in ids]


def check_all_heard(
    label: Tensor | NDArray[np.int64], names: Sequence[str], numbers: Sequence[int] | None = None
) -> None:
    """Check that every one of ``names`` has a clip among ``label`` [N].

    Args:
        label: Of each clip.
        names: Labels.
        numbers: What each of them is in ``label``; from 0 on if None.

    Raises:
        DataError: If not: what learns from such clips would forget, or never know, the others.
    """
    heard = set(label.tolist())
    numbers = range(len(names)) if numbers is None else numbers
    if unheard := [n for n, number in zip(names, numbers, strict=True) if number not in heard]:
        raise DataError(
            f"the shards hold no clip of {len(unheard)} of {len(names)} labels ({unheard[0]}, ...):"
            " clips without a picture are taken by clipsynth-rt data prepare --keep-pictureless"
        )


def embed_labels(names: Sequence[str], clip: object) -> Tensor:
    """Return text embeddings [C, V, D]; short lists of phrasings repeat up to the longest."""
    lists = [phrasings(name) for name in names]
    longest = max(len(texts) for texts in lists)
    rows = [clip.encode_text([t[i % len(t)] for i in range(longest)]) for t in lists]
    return torch.stack(rows)
