"""Train the classifier that judges the voice, on real training clips alone."""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from clipsynth_rt.bundles.manifest import MelSpec, decode, encode
from clipsynth_rt.errors import CheckpointError, DataError, ManifestError
from clipsynth_training.checkpoint import load_component, load_weights, save_component
from clipsynth_training.classifier.network import AUXILIARY_SHAPE, ClassifierConfig, SoundClassifier
from clipsynth_training.denoiser.conditions import ConditionedMels, check_all_heard
from clipsynth_training.run.autocast import mixed_precision

logger = logging.getLogger(__name__)

GAIN_NATS = 0.8
"""Standard deviation of the level: what is judged is scaled to one peak, and a generated clip's
crest factor is not a recording's."""
HEARD_PEAK = 0.9
"""Peak to which waveforms are brought before a classifier hears them."""
GRAIN = 0.12
"""Largest standard deviation of the noise that an auxiliary classifier learns to hear through."""


def augment(mel: Tensor, spec: MelSpec, generator: torch.Generator) -> Tensor:
    """Vary level, pitch and onset, and hide a band and a stretch, of mels [B, M, F].

    Source:
        Masking: Park et al. 2019, arXiv:1904.08779 (SpecAugment).
    """
    floor = spec.floor_normalised
    count, bins, frames = mel.shape
    where = generator.device
    gain = torch.randn(count, 1, 1, generator=generator, device=where) * (GAIN_NATS / spec.std)
    mel = torch.where(mel > floor + 1e-3, mel + gain.to(mel.device), mel).clamp_min(floor)
    draws = torch.randint(0, 1 << 30, (count, 6), generator=generator, device=where)
    draws = draws.to(mel.device)
    # [B, 1] each, so that a row of positions makes [B, positions]
    pitch, onset, width, band, length, start = draws.unsqueeze(2).unbind(1)
    bin_, frame = (torch.arange(size, device=mel.device) for size in (bins, frames))
    from_bin, from_frame = bin_ - (pitch % 5 - 2), frame - onset % 16
    low, first = band % bins, start % frames
    heard_bins = (from_bin >= 0) & (from_bin < bins)
    heard_bins &= (bin_ < low) | (bin_ >= low + width % 9)
    heard_frames = (from_frame >= 0) & ((frame < first) | (frame >= first + length % 33))
    rows = from_bin.clamp(0, bins - 1)[:, :, None].expand(-1, -1, frames)
    columns = from_frame.clamp_min(0)[:, None].expand(-1, bins, -1)
    moved = mel.gather(1, rows).gather(2, columns)
    return moved.where(heard_bins[:, :, None] & heard_frames[:, None], floor)


def grained(mel: Tensor, generator: torch.Generator) -> Tensor:
    """Add noise of another strength, up to ``GRAIN``, to each of mels [B, M, F]."""
    where = generator.device
    strength = GRAIN * torch.rand(len(mel), 1, 1, generator=generator, device=where)
    noise = torch.randn(mel.shape, generator=generator, device=where)
    return mel + (strength * noise).to(mel.device)


def train_classifier(
    train: ConditionedMels,
    labels: tuple[str, ...],
    mel_spec: MelSpec,
    out_dir: str | Path,
    *,
    validation: ConditionedMels | None = None,
    epochs: int = 12,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    seed: int = 0,
    start: SoundClassifier | None = None,
    auxiliary: bool = False,
) -> dict[str, float]:
    """Train on the labelled clips of ``train`` and write the part ``classifier``.

    Args:
        train: Clips; those without a label are left out.
        labels: Names of ``train.label``'s values.
        mel_spec: Analysis of the clips.
        out_dir: Checkpoint folder.
        validation: Clips to report top-1 on after each epoch.
        epochs: Passes over the data, under a one-cycle learning rate.
        batch_size: Clips a step.
        learning_rate: Peak rate of AdamW.
        seed: Of weights, order and augmentation.
        start: A classifier of the same ``labels`` to begin with; a random one if None.
        auxiliary: Make one for ``train_distil``, of ``AUXILIARY_SHAPE``, that grain does not sway:
            a student would learn to make it.

    Returns:
        ``validation_top1`` where validation clips were given.

    Raises:
        DataError: If no clip has a label, or a label has no clip.
        CheckpointError: If ``start`` knows other labels, or is of another shape.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    indices = (train.label >= 0).nonzero().flatten()
    if len(indices) == 0:
        raise DataError("no labelled clips: give --labels labels.csv")
    check_all_heard(train.label[indices], labels)
    shape = AUXILIARY_SHAPE if auxiliary else {}
    config = ClassifierConfig(labels=labels, n_mels=mel_spec.n_mels, **shape)
    model = SoundClassifier(config).to(memory_format=torch.channels_last)
    if start is not None:
        if start.config != config:
            raise CheckpointError(
                "the classifier to begin with knows other labels or is of another shape"
            )
        model.load_state_dict(start.state_dict())
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.02)
    steps = epochs * math.ceil(len(indices) / batch_size)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps)
    metrics: dict[str, float] = {}
    for epoch in range(epochs):
        model.train()
        order = indices[torch.randperm(len(indices), generator=generator)]
        for batch in order.split(batch_size):
            mel = augment(train.mels[batch].float(), mel_spec, generator)
            if auxiliary:
                mel = grained(mel, generator)
            with mixed_precision("cpu"):
                logits, _ = model(mel)
            loss = F.cross_entropy(logits.float(), train.label[batch], label_smoothing=0.05)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            cycle.step()
        if validation is not None:
            keep = (validation.label >= 0).nonzero().flatten()
            probability, _ = classify(model, validation.mels[keep].float())
            right = probability.argmax(dim=1) == validation.label[keep]
            metrics["validation_top1"] = float(right.float().mean())
        logger.info("epoch %d: loss %.3f %s", epoch + 1, float(loss.detach()), metrics)
        facts = {"classifier": encode(config), "mel": encode(mel_spec), "metrics": metrics}
        save_component(out_dir, "classifier", model.state_dict(), facts)
    return metrics


def load_classifier(folder: str | Path) -> tuple[SoundClassifier, MelSpec]:
    """Read the part ``classifier`` of a checkpoint folder.

    Raises:
        CheckpointError: If it is missing, damaged or of another configuration.
    """
    tensors, facts = load_component(folder, "classifier")
    try:
        config = decode(ClassifierConfig, facts["classifier"], "classifier")
        spec = decode(MelSpec, facts["mel"], "mel")
    except (ManifestError, KeyError) as error:
        raise CheckpointError(f"{folder}: classifier.json: {error}") from error
    model = SoundClassifier(dataclasses.replace(config)).to(memory_format=torch.channels_last)
    load_weights(model, tensors, f"{folder}/classifier.safetensors")
    return model.eval(), spec


@torch.no_grad()
def classify(model: SoundClassifier, mel: Tensor, batch_size: int = 128) -> tuple[Tensor, Tensor]:
    """Return posteriors [B, C] and embeddings [B, E] of mels [B, M, F], float32."""
    model.eval()
    outputs = [model(part) for part in mel.split(batch_size)]
    logits = torch.cat([o[0] for o in outputs]).float()
    return logits.softmax(dim=1), torch.cat([o[1] for o in outputs]).float()
