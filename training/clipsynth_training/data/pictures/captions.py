"""What may be said of each picture: its names, its concepts and weaker keywords."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipsynth_training.data.pictures.catalogue import Picture, pictures_for
from clipsynth_training.data.sounds import Concept

NAME, CONCEPT, OTHER = 3.0, 3.0, 1.0
"""Shares of a picture's names, its concepts' names, and all its keywords together."""
MOST_PICTURES = 400
"""A keyword of more pictures than this ("objects") says nothing about any of them."""


@dataclass(frozen=True)
class Captions:
    """Phrases, and which of them describe which picture.

    Attributes:
        phrases: P distinct phrases.
        phrase: int64 [N, K] indices of each picture's phrases, padded.
        weight: float32 [N, K], zero where padded.
        of_concept: bool [N]: shows one of the corpus's concepts.
        picture_weight: float32 [N]: less for the many pictures of one name or concept.
    """

    phrases: tuple[str, ...]
    phrase: Tensor
    weight: Tensor
    of_concept: Tensor
    picture_weight: Tensor

    def draw(self, rows: Tensor, random: torch.Generator) -> Tensor:
        """Return one phrase index for each of ``rows``."""
        column = torch.multinomial(self.weight[rows], 1, generator=random)
        return self.phrase[rows].gather(1, column).squeeze(1)


def caption_pictures(pictures: Sequence[Picture], concepts: Sequence[Concept]) -> Captions:
    """Collect the phrases of ``pictures``."""
    shown: dict[str, list[Concept]] = {}
    concept_size: dict[str, int] = {}
    for concept in concepts:
        found = pictures_for(concept, pictures)
        concept_size[concept.name] = len(found)
        for picture in found:
            shown.setdefault(picture.id, []).append(concept)
    keyword_count = Counter(keyword for p in pictures for keyword in p.keywords)
    name_count = Counter(p.names[0] for p in pictures)
    index: dict[str, int] = {}
    rows: list[list[tuple[int, float]]] = []
    picture_weight = []
    for picture in pictures:
        own = shown.get(picture.id, [])
        strong = [concept.name for concept in own]
        weak = [k for k in picture.keywords if keyword_count[k] <= MOST_PICTURES]
        weak += [keyword for concept in own for keyword in concept.keywords]
        groups = ((picture.names, NAME), (strong, CONCEPT), (weak, OTHER))
        rows.append(
            [
                (index.setdefault(phrase, len(index)), share / len(group))
                for group, share in groups
                for phrase in group
            ]
        )
        crowd = min((concept_size[c.name] for c in own), default=name_count[picture.names[0]])
        picture_weight.append(crowd**-0.5)
    width = max(len(row) for row in rows)
    phrase = torch.zeros(len(rows), width, dtype=torch.long)
    weight = torch.zeros(len(rows), width)
    for i, row in enumerate(rows):
        phrase[i, : len(row)] = torch.tensor([p for p, _ in row])
        weight[i, : len(row)] = torch.tensor([w for _, w in row])
    return Captions(
        phrases=tuple(index),
        phrase=phrase,
        weight=weight,
        of_concept=torch.tensor([p.id in shown for p in pictures]),
        picture_weight=torch.tensor(picture_weight),
    )
