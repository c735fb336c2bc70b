"""Training configuration of the denoiser, read from TOML; the presets lie in ``configs/``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from clipsynth_rt.bundles.manifest import DiffusionSpec, MelSpec, decode, encode
from clipsynth_rt.errors import InputError, ManifestError
from clipsynth_rt.files import read_toml
from clipsynth_training.denoiser.unet import UNet, UNetConfig
from clipsynth_training.run.ranges import (
    ABOVE_ZERO,
    BELOW_ONE,
    FROM_ONE,
    FROM_ZERO,
    SHARE,
    check_ranges,
)

VARIANTS = ("image", "text", "hybrid")
"""CLIPSynth, CLIPSynth-Text and CLIPSynth-Hybrid (Dong et al. 2023): what conditions training."""
_OPTIMISER = {
    "batch_size": FROM_ONE,
    "accumulate": FROM_ONE,
    "learning_rate": ABOVE_ZERO,
    "warmup_steps": FROM_ZERO,
    "weight_decay": FROM_ZERO,
    "gradient_clip": ABOVE_ZERO,
    "ema_decay": BELOW_ONE,
    "condition_dropout": SHARE,
    "condition_noise": FROM_ZERO,
    "crop_frames": FROM_ZERO,
}
_DIFFUSION = {"num_train_timesteps": FROM_ONE, "time_shift": ABOVE_ZERO}


@dataclass(frozen=True)
class OptimiserConfig:
    """How the denoiser is trained.

    Attributes:
        variant: One of ``VARIANTS``.
        batch_size: Clips a step, over all processes and parts.
        accumulate: Parts that a batch is computed in, one after the other: the same step in less
            memory.
        learning_rate: Peak rate of AdamW.
        warmup_steps: Linear warm-up.
        weight_decay: Decoupled weight decay.
        gradient_clip: Largest gradient norm.
        ema_decay: Decay a step of the averaged weights that are evaluated and shipped.
        condition_dropout: Share of clips trained with the null condition, for guidance.
        condition_noise: Length of the Gaussian noise added to the unit-length condition.
        crop_frames: Train on windows of this many frames, half of them from a clip's start; 0 for
            whole clips. Half the window is twice the clips an hour; finish on whole clips.
        loss: ``v`` (plain error of v) or ``min_snr`` (weighted, gamma 5).
        seed: Of weights, order and noise.
    """

    variant: str = "hybrid"
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float = 8e-4
    warmup_steps: int = 200
    weight_decay: float = 1e-2
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    condition_dropout: float = 0.1
    condition_noise: float = 0.3
    crop_frames: int = 0
    loss: str = "v"
    seed: int = 0


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a denoiser, but for its data."""

    unet: UNetConfig = field(default_factory=UNetConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    mel: MelSpec = field(default_factory=MelSpec)
    diffusion: DiffusionSpec = field(default_factory=DiffusionSpec)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data; the inverse of ``from_dict``."""
        return {
            "unet": self.unet.to_dict(),
            "optimiser": encode(self.optimiser),
            "mel": encode(self.mel),
            "diffusion": encode(self.diffusion),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any], where: str = "configuration") -> TrainConfig:
        """Read a configuration.

        Raises:
            InputError: If a section, key or value is not known; the message names it.
        """
        sections = {"unet", "optimiser", "mel", "diffusion"}
        if unknown := sorted(data.keys() - sections):
            raise InputError(f"{where}: no such section: {unknown[0]}; have {sorted(sections)}")
        try:
            config = cls(
                unet=decode(UNetConfig, data.get("unet", {}), "unet"),
                optimiser=decode(OptimiserConfig, data.get("optimiser", {}), "optimiser"),
                mel=decode(MelSpec, data.get("mel", {}), "mel"),
                diffusion=decode(DiffusionSpec, data.get("diffusion", {}), "diffusion"),
            )
        except ManifestError as error:
            raise InputError(f"{where}: {error}") from error
        if config.optimiser.variant not in VARIANTS:
            raise InputError(f"{where}: optimiser.variant must be one of {', '.join(VARIANTS)}")
        if config.optimiser.loss not in ("v", "min_snr"):
            raise InputError(f"{where}: optimiser.loss must be v or min_snr")
        check_ranges(config.optimiser, _OPTIMISER, f"{where}: optimiser.")
        check_ranges(config.diffusion, _DIFFUSION, f"{where}: diffusion.")
        if config.unet.n_mels != config.mel.n_mels:
            raise InputError(f"{where}: unet.n_mels differs from mel.n_mels")
        multiple = config.unet.frames_multiple
        spec = dataclasses.replace(config.diffusion, frames_multiple=multiple)
        return dataclasses.replace(config, diffusion=spec)


def preset_names() -> list[str]:
    """Return the names of the denoiser presets that ship."""
    folder = resources.files("clipsynth_training").joinpath("configs")
    names = (Path(entry.name) for entry in folder.iterdir())
    return sorted(n.stem.removeprefix("denoiser_") for n in names if n.match("denoiser_*.toml"))


def load_config(name_or_path: str) -> TrainConfig:
    """Read a preset by name (``edge``, ``paper``, ``tiny``) or a TOML file by path.

    Raises:
        InputError: If there is no such preset or file, or it is malformed.
    """
    preset = resources.files("clipsynth_training").joinpath(
        "configs", f"denoiser_{name_or_path}.toml"
    )
    if not preset.is_file() and not Path(name_or_path).is_file():
        raise InputError(
            f"{name_or_path}: no such preset or file; presets: {', '.join(preset_names())}"
        )
    table = read_toml(preset if preset.is_file() else name_or_path)
    config = TrainConfig.from_dict(table, name_or_path)
    _check_network(config, name_or_path)
    return config


def _check_network(config: TrainConfig, where: str) -> None:
    """Build the network and call it once on a short mel: sizes must fit each other."""
    unet = config.unet
    sizes = (unet.condition_dim, unet.embedding, unet.groups, *unet.stem, *unet.channels)
    if min(sizes) < 1:
        raise InputError(f"{where}: unet: sizes must be at least 1, got {min(sizes)}")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            mel = torch.zeros(1, unet.n_mels, 2 * unet.frames_multiple)
            UNet(unet)(mel, torch.zeros(1), torch.zeros(1, unet.condition_dim))
        except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{where}: unet: no network has these sizes ({reason})") from error
