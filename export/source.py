"""What an export starts from: the trained networks of a checkpoint, checked against each other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from clipsynth_rt.errors import CheckpointError, ManifestError
from clipsynth_rt.spec import DiffusionSpec, MelSpec, decode
from clipsynth_rt.training.checkpoint import load_part, load_weights
from clipsynth_rt.training.clip import Clip, load_clip
from clipsynth_rt.training.models.unet import UNet, UNetConfig
from clipsynth_rt.training.models.vocoder import load_vocoder


@dataclass(frozen=True)
class ExportSource:
    """The networks of one voice, in evaluation mode, and what is known of them.

    Attributes:
        folder: The checkpoint folder.
        unet: The denoiser.
        mel: What it makes, and the vocoder reads.
        diffusion: Its noise process.
        clip: The encoder that conditions it.
        vocoder: Weight norm folded.
        facts: The denoiser's configuration and training, as its checkpoint has them.
    """

    folder: Path
    unet: UNet
    mel: MelSpec
    diffusion: DiffusionSpec
    clip: Clip
    vocoder: nn.Module
    facts: dict[str, Any]


def load_source(
    folder: str | Path,
    clip: str | None = None,
    clip_pretrained: str | None = None,
    sentence_encoder: str | Path | None = None,
) -> ExportSource:
    """Load a checkpoint folder for export.

    Args:
        folder: Holds the parts ``denoiser``, ``vocoder`` and ``clip``.
        clip: Another checkpoint folder or an open_clip model, in place of the part ``clip``.
        clip_pretrained: open_clip's tag or checkpoint file.
        sentence_encoder: Folder of the text tower's weights; default: its installed package.

    Raises:
        CheckpointError: If a part is missing, damaged or of another configuration, or two parts
            do not fit together.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder; train a voice first")
    tensors, facts = load_part(folder, "denoiser")
    where = folder / "denoiser.json"
    try:
        config = decode(UNetConfig, facts["unet"], "unet")
        mel = decode(MelSpec, facts["mel"], "mel")
        diffusion = decode(DiffusionSpec, facts["diffusion"], "diffusion")
        unet = UNet(config)
    except KeyError as error:
        raise CheckpointError(f"{where}: {error.args[0]} is missing") from error
    except (ManifestError, ValueError, TypeError) as error:
        raise CheckpointError(f"{where}: {error}") from error
    load_weights(unet, tensors, str(folder / "denoiser.safetensors"))
    vocoder, vocoder_facts = load_vocoder(folder)
    encoder = load_clip(clip or folder, clip_pretrained, model_dir=sentence_encoder)
    heard = decode(MelSpec, vocoder_facts.get("mel", {}), "mel")
    for name, made, read in (
        ("n_mels", config.n_mels, mel.n_mels),
        ("frames_multiple", config.frames_multiple, diffusion.frames_multiple),
        ("condition_dim", config.condition_dim, encoder.dim),
    ):
        if made != read:
            raise CheckpointError(
                f"{where}: unet.{name} is {made}, and what it is used with says {read}; these "
                "parts were not trained together"
            )
    if heard != mel:
        raise CheckpointError(
            f"{folder / 'vocoder.json'}: mel differs from the one in denoiser.json; train the "
            "vocoder on the mel spectrograms that the denoiser makes"
        )
    return ExportSource(folder, unet.eval(), mel, diffusion, encoder, vocoder.eval(), facts)


def checkpoint_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each network's weights, by part."""
    parts = ("clip", "denoiser", "vocoder")
    files = {part: folder / f"{part}.safetensors" for part in parts}
    return {part: file_sha256(path) for part, path in files.items() if path.is_file()}


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
