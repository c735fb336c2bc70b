"""A vocoder's training run as data: what is trained, on which spectrogram, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipsynth_rt.bundles.manifest import MelSpec, decode
from clipsynth_rt.errors import InputError, ManifestError
from clipsynth_rt.files import read_toml
from clipsynth_training.run.ranges import ABOVE_ZERO, BELOW_ONE, FROM_ONE, FROM_ZERO, check_ranges
from clipsynth_training.vocoder.discriminators import DiscriminatorConfig
from clipsynth_training.vocoder.losses import TRAINING_RESOLUTIONS
from clipsynth_training.vocoder.network import VocoderConfig, decode_vocoder_config


@dataclass(frozen=True)
class VocoderTraining:
    """How to train. The weights are of the losses in ``vocoder/losses.py``.

    ``compile`` fuses operations with TorchInductor, which needs a C++ compiler and minutes to
    start. A light vocoder's spectrum is compared with the true one from the start, its sound only
    from step ``waveform_from``: without rendering, a step costs a third. ``adversarial_from`` is
    the step at which the discriminators join. ``mel_noise`` (nats, from step ``mel_noise_from``)
    roughens the input as a denoiser does.
    """

    steps: int = 20000
    batch_size: int = 16
    segment_frames: int = 64
    learning_rate: float = 1e-3
    final_learning_rate: float = 0.05
    warmup_steps: int = 100
    betas: tuple[float, ...] = (0.8, 0.99)
    weight_decay: float = 0.01
    gradient_clip: float = 5.0
    ema: float = 0.999
    seed: int = 0
    mixed_precision: bool = True
    compile: bool = False
    stft_weight: float = 1.0
    mel_weight: float = 1.0
    amplitude_weight: float = 1.0
    phase_weight: float = 1.0
    waveform_from: int = 0
    adversarial_from: int = 1_000_000_000
    adversarial_weight: float = 1.0
    feature_weight: float = 2.0
    discriminator_learning_rate: float = 2e-4
    mel_noise: float = 0.0
    mel_noise_from: int = 0
    log_every: int = 50
    save_every: int = 500
    validation_clips: int = 32


_RANGES = {
    **dict.fromkeys(("steps", "batch_size", "log_every", "save_every"), FROM_ONE),
    **dict.fromkeys(("learning_rate", "discriminator_learning_rate", "gradient_clip"), ABOVE_ZERO),
    **dict.fromkeys(("final_learning_rate", "weight_decay", "warmup_steps"), FROM_ZERO),
    **dict.fromkeys(("stft_weight", "mel_weight", "amplitude_weight", "phase_weight"), FROM_ZERO),
    **dict.fromkeys(("adversarial_weight", "feature_weight", "mel_noise"), FROM_ZERO),
    "ema": BELOW_ONE,
}


@dataclass(frozen=True)
class VocoderTrainConfig:
    """A whole run: model, analysis, training and discriminators."""

    vocoder: VocoderConfig
    mel: MelSpec = field(default_factory=MelSpec)
    training: VocoderTraining = field(default_factory=VocoderTraining)
    discriminators: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)


def read_vocoder_config(source: str | Path | Mapping[str, Any]) -> VocoderTrainConfig:
    """Read a TOML file, a name of ``configs/vocoder_<name>.toml``, or parsed.

    Raises:
        InputError: If there is no such file, or it cannot be understood; the message names the
            field.
    """
    where = "configuration"
    if not isinstance(source, Mapping):
        path = Path(source)
        if not path.suffix:
            path = Path(__file__).parents[1] / "configs" / f"vocoder_{source}.toml"
        where = str(path)
        source = read_toml(path)
    kinds = {"mel": MelSpec, "training": VocoderTraining, "discriminators": DiscriminatorConfig}
    if unknown := source.keys() - kinds.keys() - {"vocoder"}:
        raise InputError(f"{where}: {min(unknown)}: unknown key")
    try:
        parts = {name: decode(kind, source.get(name, {}), name) for name, kind in kinds.items()}
        vocoder = decode_vocoder_config(source.get("vocoder", {}))
    except ManifestError as error:
        raise InputError(f"{where}: {error}") from error
    config = VocoderTrainConfig(vocoder, **parts)
    check_ranges(config.training, _RANGES, f"{where}: training.")
    # the longest window of the losses, reflected at both ends
    frames, hop = config.training.segment_frames, config.mel.hop_length
    half = max(n_fft for n_fft, _, _ in TRAINING_RESOLUTIONS) // 2
    if frames * hop <= half:
        raise InputError(
            f"{where}: training.segment_frames must be above {half // hop}, got {frames}"
        )
    if len(config.training.betas) != 2 or not all(0.0 <= b < 1.0 for b in config.training.betas):
        raise InputError(f"{where}: training.betas must be two numbers from 0 to below 1")
    return config
