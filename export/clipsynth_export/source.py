"""What an export starts from: the trained networks of a checkpoint, checked against each other."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from clipsynth_rt.bundles.manifest import DiffusionSpec, MelSpec, decode
from clipsynth_rt.errors import CheckpointError, ManifestError
from clipsynth_rt.files import sha256_of
from clipsynth_training.checkpoint import load_component, load_weights
from clipsynth_training.clip.encoder import Clip, load_clip
from clipsynth_training.denoiser.unet import UNet, UNetConfig
from clipsynth_training.vocoder.network import load_vocoder

# what both denoisers of a bundle share: the manifest says it once
_PROCESS = ("schedule", "prediction", "num_train_timesteps", "time_shift", "x0_min", "x0_max")


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
        distilled: A second denoiser, made of the first; None where there is none.
        distilled_facts: As ``facts``, of that.
    """

    folder: Path
    unet: UNet
    mel: MelSpec
    diffusion: DiffusionSpec
    clip: Clip
    vocoder: nn.Module
    facts: dict[str, Any]
    distilled: UNet | None = None
    distilled_facts: dict[str, Any] = field(default_factory=dict)


def load_source(
    folder: str | Path,
    clip: str | None = None,
    clip_pretrained: str | None = None,
    sentence_encoder: str | Path | None = None,
) -> ExportSource:
    """Load a checkpoint folder for export.

    Args:
        folder: Holds the parts ``denoiser``, ``vocoder`` and ``clip``, and may hold
            ``denoiser_distilled``.
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
    where = folder / "denoiser.json"
    unet, mel, diffusion, facts = _load_denoiser(folder, "denoiser")
    config = unet.config
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
    distilled, steps, more = _load_distilled(folder, unet, mel, diffusion)
    # the steps of a distilled denoiser are its own part's to say
    diffusion = replace(diffusion, distilled_steps=steps)
    return ExportSource(
        folder, unet, mel, diffusion, encoder, vocoder.eval(), facts, distilled, more
    )


def _load_denoiser(folder: Path, part: str) -> tuple[UNet, MelSpec, DiffusionSpec, dict[str, Any]]:
    """Return a denoiser in evaluation mode, its mel and noise process, and all of its facts."""
    tensors, facts = load_component(folder, part)
    where = folder / f"{part}.json"
    try:
        config = decode(UNetConfig, facts["unet"], "unet")
        mel = decode(MelSpec, facts["mel"], "mel")
        diffusion = decode(DiffusionSpec, facts["diffusion"], "diffusion")
        unet = UNet(config)
    except KeyError as error:
        raise CheckpointError(f"{where}: {error.args[0]} is missing") from error
    except (ManifestError, ValueError, TypeError) as error:
        raise CheckpointError(f"{where}: {error}") from error
    load_weights(unet, tensors, str(folder / f"{part}.safetensors"))
    return unet.eval(), mel, diffusion, facts


def _load_distilled(
    folder: Path, usual: UNet, mel: MelSpec, diffusion: DiffusionSpec
) -> tuple[UNet | None, tuple[int, ...], dict[str, Any]]:
    """Return the distilled denoiser, its step counts and its facts, if the folder holds one."""
    part = "denoiser_distilled"
    if not any((folder / f"{part}.{end}").is_file() for end in ("safetensors", "json")):
        return None, (), {}
    unet, own_mel, own, facts = _load_denoiser(folder, part)
    where = folder / f"{part}.json"
    try:
        steps = decode(tuple[int, ...], facts["distilled_steps"], "distilled_steps")
    except KeyError as error:
        raise CheckpointError(f"{where}: distilled_steps is missing") from error
    except ManifestError as error:
        raise CheckpointError(f"{where}: {error}") from error
    most = diffusion.num_train_timesteps
    if not steps or len(set(steps)) < len(steps) or not all(1 <= n <= most for n in steps):
        raise CheckpointError(
            f"{where}: distilled_steps {list(steps)} are not different numbers from 1 to {most}"
        )
    if own_mel != mel:
        raise CheckpointError(f"{where}: mel differs from the one in denoiser.json; distil it anew")
    for name in ("n_mels", "condition_dim", "frames_multiple"):
        if getattr(unet.config, name) != getattr(usual.config, name):
            raise CheckpointError(f"{where}: unet.{name} differs from the one in denoiser.json")
    for name in _PROCESS:
        if getattr(own, name) != getattr(diffusion, name):
            raise CheckpointError(
                f"{where}: diffusion.{name} differs from the one in denoiser.json"
            )
    return unet, steps, facts


def checkpoint_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each network's weights, by part."""
    parts = ("clip", "denoiser", "denoiser_distilled", "vocoder")
    files = {part: folder / f"{part}.safetensors" for part in parts}
    return {part: sha256_of(path) for part, path in files.items() if path.is_file()}
