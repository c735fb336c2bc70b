"""How well a denoiser does on clips that it never trained on."""

from __future__ import annotations

import torch

from clipsynth_training.denoiser.batches import Batch
from clipsynth_training.denoiser.conditions import ConditionedMels
from clipsynth_training.denoiser.config import TrainConfig
from clipsynth_training.denoiser.diffusion import sample_times, velocity_loss
from clipsynth_training.denoiser.unet import UNet

EVALUATION_CLIPS = 256


@torch.no_grad()
def held_out_losses(
    model: UNet, data: ConditionedMels, config: TrainConfig, device: torch.device
) -> dict[str, float]:
    """Return the v-loss under text and under image conditions, as far as ``data`` has them.

    Clips, times and noise are the same at every call, so figures compare across runs.

    Args:
        model: In evaluation mode, on ``device``.
        data: Held-out clips.
        config: Supplies the noise process and the batch size.
        device: Where ``model`` is.

    Returns:
        ``held_out_text`` and ``held_out_image``.
    """
    losses = {}
    for kind in ("text", "image"):
        keep = (data.label >= 0) if kind == "text" else data.has_image
        indices = keep.nonzero().flatten()[:EVALUATION_CLIPS]
        if len(indices) == 0:
            continue
        generator = torch.Generator().manual_seed(0)
        total = 0.0
        for rows in indices.split(config.optimiser.batch_size):
            mel = data.mels[rows].float()
            condition = data.conditions(rows, kind, generator)
            t = sample_times(len(rows), config.diffusion, generator)
            noise = torch.randn(mel.shape, generator=generator)
            batch = Batch(mel, condition, t, noise).to(device)
            loss = velocity_loss(model, batch.mel, batch.condition, batch.t, batch.noise)
            total += float(loss) * len(rows)
        losses[f"held_out_{kind}"] = total / len(indices)
    return losses
