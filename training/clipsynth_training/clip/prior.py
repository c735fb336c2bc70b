"""A prior from text to image embeddings, so that a denoiser that learnt from pictures reads texts.

CLIPSonic (Dong et al. 2023, arXiv:2306.09635) closes the modality gap with DALL-E 2's diffusion
prior. On a corpus of about a hundred concepts the expected image embedding says nearly as much, and
regression finds it in minutes on a CPU.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.errors import CheckpointError, DataError
from clipsynth_training.checkpoint import load_component, load_weights, save_component
from clipsynth_training.clip.encoder import Clip
from clipsynth_training.clip.frame_embeddings import embed_frames
from clipsynth_training.data.shards import ShardSet
from clipsynth_training.denoiser.conditions import (
    ConditionedMels,
    embed_labels,
    label_indices,
    read_labels,
)
from clipsynth_training.denoiser.config import OptimiserConfig
from clipsynth_training.denoiser.diffusion import perturb_condition

logger = logging.getLogger(__name__)
PART = "prior"


class TextToImagePrior(nn.Module):
    """Unit text embeddings [B, D] to the unit image embeddings expected for them [B, D].

    A residual block: where nothing was learnt, a text stays where it is.
    """

    def __init__(self, dim: int, hidden: int = 512) -> None:
        super().__init__()
        self.dim = dim
        self.norm = nn.LayerNorm(dim)
        self.hidden = nn.Linear(dim, hidden)
        self.out = nn.Linear(hidden, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, text: Tensor) -> Tensor:
        """Return float32 [B, D] of unit length."""
        return F.normalize(text + self.out(F.gelu(self.hidden(self.norm(text)))), dim=-1)

    @torch.inference_mode()
    def apply_to(self, text: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return float32 [B, D] for arrays."""
        return self(torch.from_numpy(np.asarray(text, np.float32))).numpy()


def train_prior(
    data: ConditionedMels,
    out_dir: str | Path,
    *,
    validation: ConditionedMels | None = None,
    steps: int = 2000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    noise: float = 0.3,
    hidden: int = 512,
    seed: int = 0,
    facts: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Train a prior on the labelled clips of ``data`` that have pictures, and write it.

    Args:
        data: Frame embeddings, and the phrasings of each label.
        out_dir: Checkpoint folder; gets the part ``prior``.
        validation: Clips to measure on; ``data`` itself if None.
        steps: Optimiser steps.
        batch_size: Pairs a step: a random phrasing of a clip's label and a random frame of it.
        learning_rate: Peak of AdamW's one-cycle rate.
        noise: Length of the Gaussian noise on texts, so that what lies near them maps alike.
        hidden: Width of the network.
        seed: Of weights and pairs.
        facts: Stored with it.

    Returns:
        Mean cosine of a text with its clips' pictures, ``cosine_before`` and ``cosine_after``.

    Raises:
        DataError: If no labelled clip has a picture.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    rows = _pairs(data)
    model = TextToImagePrior(data.text.shape[2], hidden)
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps)
    perturbation = OptimiserConfig(condition_noise=noise, condition_dropout=0.0)
    for step in range(steps):
        batch = rows[torch.randint(len(rows), (batch_size,), generator=generator)]
        text = perturb_condition(data.conditions(batch, "text", generator), perturbation, generator)
        image = data.conditions(batch, "image", generator)
        loss = (1.0 - (model(text) * image).sum(dim=1)).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        cycle.step()
        if (step + 1) % 500 == 0:
            logger.info("prior step %d: 1 - cosine %.4f", step + 1, float(loss.detach()))
    model.eval()
    measured = _measure(model, validation if validation is not None else data)
    config = {"dim": model.dim, "hidden": hidden, "steps": steps, "metrics": measured}
    save_component(out_dir, PART, model.state_dict(), {**config, **(facts or {})})
    return measured


def load_pairs(
    shards_dir: str | Path, clip: Clip, mel_spec: MelSpec, labels_csv: str | Path
) -> ConditionedMels:
    """Read what a prior trains on: labels' phrasings and pictures, without the sounds.

    Raises:
        DataError: If shards or labels cannot be used.
        InputError: If the pictures are not of the encoder's size.
    """
    shards = ShardSet.open(shards_dir, mel_spec)
    labels = read_labels(labels_csv)
    names = sorted(set(labels.values()))
    label = torch.tensor(label_indices(shards.ids, labels, names))
    image, shown = embed_frames(shards, clip)
    return ConditionedMels(
        torch.zeros(len(label), 0, 0), image, shown, embed_labels(names, clip), label
    )


def load_prior(folder: str | Path) -> TextToImagePrior:
    """Read the part ``prior`` of a checkpoint folder.

    Raises:
        CheckpointError: If it is missing, damaged or of another configuration.
    """
    tensors, facts = load_component(folder, PART)
    try:
        model = TextToImagePrior(int(facts["dim"]), int(facts["hidden"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}/{PART}.json: {error} is missing or wrong") from error
    load_weights(model, tensors, f"{folder}/{PART}.safetensors")
    return model.eval()


def _pairs(data: ConditionedMels) -> Tensor:
    rows = ((data.label >= 0) & data.has_image).nonzero().flatten()
    if len(rows) == 0:
        raise DataError("no labelled clip has pictures; a prior needs both (--labels labels.csv)")
    return rows


@torch.no_grad()
def _measure(model: TextToImagePrior, data: ConditionedMels) -> dict[str, float]:
    rows = _pairs(data)
    text, image = data.text[data.label[rows], 0], data.image[rows].mean(dim=1)
    image = F.normalize(image, dim=-1)
    cosines = {"cosine_before": text, "cosine_after": model(text)}
    return {name: round(float((x * image).sum(1).mean()), 4) for name, x in cosines.items()}
