"""Every vocoder behind one interface: normalised log-mel [B, M, F] -> waveform [B, T]."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from clipsynth_rt.bundles.manifest import MelSpec, decode
from clipsynth_rt.errors import CheckpointError, ManifestError
from clipsynth_training.checkpoint import load_component, load_weights
from clipsynth_training.vocoder.hifigan import HifiGan, HifiGanConfig
from clipsynth_training.vocoder.istft import IstftVocoder, IstftVocoderConfig

VocoderConfig = IstftVocoderConfig | HifiGanConfig

_KINDS = {
    "istft": (IstftVocoderConfig, IstftVocoder),
    "hifigan": (HifiGanConfig, HifiGan),
}


def decode_vocoder_config(data: Mapping[str, Any]) -> VocoderConfig:
    """Read a vocoder's configuration from parsed JSON or TOML.

    Raises:
        ManifestError: If the kind or a key is unknown, or a value has the wrong type.
    """
    kind = data.get("kind")
    if kind not in _KINDS:
        raise ManifestError(f"vocoder.kind: {kind!r} is not one of {sorted(_KINDS)}")
    return decode(_KINDS[kind][0], data, "vocoder")


def build_vocoder(
    config: Mapping[str, Any] | VocoderConfig, mel: MelSpec | None = None
) -> nn.Module:
    """Return an untrained vocoder.

    Args:
        config: Its configuration, or the JSON of a checkpoint's ``vocoder`` part, which names
            the mel spectrogram too.
        mel: What the vocoder reads; the default ``MelSpec`` if nobody says.

    Raises:
        ManifestError: If ``config`` cannot be understood.
        ValueError: If its parts do not fit together or do not fit ``mel``.
    """
    if isinstance(config, Mapping):
        if mel is None and "mel" in config:
            mel = decode(MelSpec, config["mel"], "mel")
        config = decode_vocoder_config(config.get("vocoder", config))
    return _KINDS[config.kind][1](config, mel or MelSpec())


def load_vocoder(folder: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Read the trained vocoder of a checkpoint folder, ready to run or to export.

    Returns:
        The vocoder (in evaluation mode, weight norm folded), and the part's JSON.

    Raises:
        CheckpointError: If it is missing, damaged or of another configuration.
    """
    tensors, config = load_component(folder, "vocoder")
    where = str(Path(folder) / "vocoder.safetensors")
    try:
        vocoder = build_vocoder(config)
    except (ManifestError, ValueError) as error:
        raise CheckpointError(f"{Path(folder) / 'vocoder.json'}: {error}") from error
    load_weights(vocoder, tensors, where)
    return vocoder.eval().fold_(), config
