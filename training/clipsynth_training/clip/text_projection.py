"""The text tower's projection: fitted once to what words mean, then locked.

The text tower is finished before any picture is seen, as in LiT. So a denoiser that was trained
on its embeddings stays valid while the image tower goes on improving.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from clipsynth_training.clip.encoder import MINILM_CONTEXT, Clip, Projection
from clipsynth_training.data.sounds import Concept
from clipsynth_training.run.autocast import mixed_precision

NUM_PHRASES = 3000
"""Names of pictures that stand for everything else that one may say."""
CONCEPT_REPEATS = 5
"""How often the corpus's own words are counted against those names in the principal axes."""
TEMPERATURE = 0.1


def fit_projection(
    projection: Projection,
    encoder: nn.Module,
    tokenizer: Any,
    concepts: Sequence[Concept],
    names: Sequence[str],
    template: str,
    structure_weight: float,
    steps: int = 400,
    seed: int = 0,
) -> dict[str, float]:
    """Fit ``projection`` so that concepts stand apart and their other names stay with them.

    It begins as half-whitened principal axes: without whitening a few axes that all words share
    hold most of the length. Then each keyword is drawn to its concept and away from the others,
    while ``structure_weight`` holds the angles among all other phrases where they were.

    Returns:
        ``mean_cosine`` and ``max_cosine`` between different concepts' names, and
        ``keyword_top1``, the share of keywords whose nearest concept is their own.
    """
    own = [c.name for c in concepts]
    pairs = [(i, keyword) for i, c in enumerate(concepts) for keyword in c.keywords]
    others = sorted(set(names))
    others = random.Random(seed).sample(others, min(NUM_PHRASES, len(others)))

    def embed(phrases: Sequence[str]) -> Tensor:
        return embed_phrases(encoder, tokenizer, phrases, [template])[0]

    concept_vectors, keyword_vectors = embed(own), embed([keyword for _, keyword in pairs])
    target = torch.tensor([i for i, _ in pairs])
    everything = torch.cat([embed(others), *[concept_vectors, keyword_vectors] * CONCEPT_REPEATS])
    _init_half_whitened(projection, everything)
    with torch.no_grad():
        before = projection(everything)
    optimiser = torch.optim.Adam([projection.requires_grad_(True).linear.weight], lr=1e-3)
    choice = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        logits = projection(keyword_vectors) @ projection(concept_vectors).T / TEMPERATURE
        rows = torch.randint(len(everything), (512,), generator=choice)
        after = projection(everything[rows])
        bent = (after @ after.T - before[rows] @ before[rows].T).square().mean()
        loss = F.cross_entropy(logits, target) + structure_weight * bent
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        points = projection(concept_vectors)
        cosines = (points @ points.T)[~torch.eye(len(points), dtype=torch.bool)]
        nearest = (projection(keyword_vectors) @ points.T).argmax(1)
    projection.requires_grad_(False).zero_grad()  # no gradient is left for others to count
    return {
        "mean_cosine": round(cosines.mean().item(), 4),
        "max_cosine": round(cosines.max().item(), 4),
        "keyword_top1": round((nearest == target).float().mean().item(), 4),
    }


def embed_phrases(
    encoder: nn.Module,
    tokenizer: Any,
    phrases: Sequence[str],
    templates: Sequence[str],
    cache_dir: Path | None = None,
) -> Tensor:
    """Return the locked sentence embeddings of every phrase in every template, [T, P, W].

    They are computed once, under bf16 autocast, and kept in ``cache_dir``.
    """
    key = hashlib.sha256("\n".join([*templates, "", *phrases]).encode()).hexdigest()
    cache = cache_dir / f"sentences-{key[:16]}.safetensors" if cache_dir else None
    if cache is not None and cache.is_file():
        with safe_open(cache, "pt") as stored:
            return stored.get_tensor("sentences")
    prompts = [template.format(query=phrase) for template in templates for phrase in phrases]
    locked = Clip("", encoder, encoder, tokenizer, encoder.width, 0, MINILM_CONTEXT)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # less padding
    result = torch.empty(len(prompts), encoder.width)
    starts = range(0, len(order), 256)
    with mixed_precision("cpu"):
        for start in tqdm(starts, desc="embedding phrases", disable=None):
            rows = order[start : start + 256]
            result[rows] = locked.encode_text([prompts[i] for i in rows])
    result = result.view(len(templates), len(phrases), -1)
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        temporary = cache.with_name(cache.name + ".tmp")
        save_file({"sentences": result}, temporary)
        temporary.replace(cache)
    return result


@torch.no_grad()
def _init_half_whitened(projection: Projection, sentences: Tensor) -> None:
    """Principal axes, each divided by the square root of its standard deviation.

    Source:
        Su et al. 2021, arXiv:2103.15316 (whitening of sentence embeddings), with half its power.
    """
    projection.mean.copy_(sentences.mean(0))
    _, spread, axes = torch.linalg.svd(sentences - projection.mean, full_matrices=False)
    size = min(projection.linear.out_features, len(axes))
    weight = axes[:size] * (spread[:size, None] / spread[0]).clamp(min=1e-3).rsqrt()
    projection.linear.weight.zero_()
    projection.linear.weight[:size] = weight * (size**0.5 / weight.norm())
