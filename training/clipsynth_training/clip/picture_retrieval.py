"""How well an encoder matches pictures and words: recall at 1 and 5, against chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipsynth_rt.errors import DataError
from clipsynth_training.clip.encoder import Clip
from clipsynth_training.data.pictures.catalogue import HasPictureTerms, Picture, pictures_for
from clipsynth_training.data.pictures.raster import composite, dark_colour, rasterise_all

RANKS = (1, 5)


def retrieval_report(
    clip: Clip,
    pictures: Sequence[Picture],
    concepts: Sequence[HasPictureTerms] = (),
    cache: Path | None = None,
) -> dict[str, Any]:
    """Measure retrieval over pictures that training never saw.

    Args:
        clip: The encoder; queries go through its templates.
        pictures: Held-out pictures, drawn on white.
        concepts: Corpus concepts: a second measurement takes only their pictures and names.
        cache: Where ``rasterise_all`` may keep the drawings.

    Returns:
        ``{"names": ..., "concepts": ...}``, each with the numbers of ``recalls``. ``names`` asks
        for a picture's own first name among all of them, ``concepts`` for the concept's name.

    Raises:
        DataError: If there is no picture.
    """
    if not pictures:
        raise DataError("retrieval: no held-out pictures")
    drawn, pixels = rasterise_all(pictures, clip.image_size, cache)
    pixels = pixels.copy()
    for i, picture in enumerate(drawn):
        if picture.tint:
            seed = np.random.default_rng(int.from_bytes(picture.id.encode()[-8:]))
            pixels[i, ..., :3] = dark_colour(seed)
    images = clip.encode_images(composite(pixels, np.array([255, 255, 255], np.uint8)))
    captions = sorted({picture.names[0] for picture in drawn})
    column = {caption: i for i, caption in enumerate(captions)}
    truth = torch.zeros(len(drawn), len(captions), dtype=torch.bool)
    for row, picture in enumerate(drawn):
        truth[row, column[picture.names[0]]] = True
    report = {"names": recalls(images, clip.encode_queries(captions), truth)}

    row_of = {picture.id: row for row, picture in enumerate(drawn)}
    matched = [(concept, pictures_for(concept, drawn)) for concept in concepts]
    matched = [(concept, found) for concept, found in matched if found]
    if matched:
        rows = sorted({row_of[p.id] for _, found in matched for p in found})
        truth = torch.zeros(len(drawn), len(matched), dtype=torch.bool)
        for i, (_, found) in enumerate(matched):
            truth[[row_of[p.id] for p in found], i] = True
        texts = clip.encode_queries([concept.name for concept, _ in matched])
        report["concepts"] = recalls(images[rows], texts, truth[rows])
    return report


def recalls(images: Tensor, texts: Tensor, truth: Tensor) -> dict[str, float]:
    """Return recall at 1 and 5 in both directions, and what guessing would reach.

    Args:
        images: Unit embeddings [I, D].
        texts: Unit embeddings [C, D].
        truth: bool [I, C]; every row and column has at least one pair.

    Returns:
        ``image_to_text@k``, ``text_to_image@k`` (a hit is any true pair among the first k),
        ``..._chance@k``, and the numbers of pictures and texts.
    """
    scores = images @ texts.T
    result: dict[str, float] = {"pictures": len(images), "texts": len(texts)}
    for name, score, pairs in (
        ("image_to_text", scores, truth),
        ("text_to_image", scores.T, truth.T),
    ):
        order = score.argsort(dim=1, descending=True)
        hits = pairs.gather(1, order)
        for k in RANKS:
            result[f"{name}@{k}"] = hits[:, :k].any(1).float().mean().item()
            result[f"{name}_chance@{k}"] = _chance(pairs.sum(1).tolist(), pairs.shape[1], k)
    return {key: round(value, 4) for key, value in result.items()}


def _chance(true_pairs: Sequence[int], total: int, k: int) -> float:
    """Probability that k of ``total`` drawn without replacement hold a true one, averaged."""
    k = min(k, total)
    misses = [math.comb(total - n, k) / math.comb(total, k) for n in true_pairs]
    return 1.0 - sum(misses) / len(misses)
