"""Checkpoints: a folder with one safetensors file a network, and the specs it was trained with.

A checkpoint folder holds ``<part>.safetensors`` (weights, float32) and ``<part>.json`` (the
configuration that rebuilds the network, plus what was measured). Nothing is pickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clipsynth_rt.errors import CheckpointError


def default_checkpoint() -> Path:
    """Return the folder of the checkpoint that ships with the package."""
    return Path(str(resources.files("clipsynth_rt.training"))) / "checkpoints" / "default"


def save_part(
    folder: str | Path, part: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> None:
    """Write one network's weights and configuration, each whole or not at all.

    Args:
        folder: Checkpoint folder; made if missing.
        part: ``denoiser``, ``vocoder``, ``clip``, ``classifier`` or a training state's name.
        tensors: State dict; stored contiguous, on the CPU.
        config: JSON data that ``load_part`` returns unchanged.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stored = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    weights, facts = folder / f"{part}.safetensors", folder / f"{part}.json"
    save_file(stored, f"{weights}.tmp")
    os.chmod(f"{weights}.tmp", 0o666 & ~_umask())  # safetensors leaves 0600
    Path(f"{facts}.tmp").write_text(json.dumps(config, indent=1) + "\n")
    os.replace(f"{weights}.tmp", weights)
    os.replace(f"{facts}.tmp", facts)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def load_part(folder: str | Path, part: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_part`` wrote.

    Raises:
        CheckpointError: If a file is missing or damaged; the message names it.
    """
    weights, facts = Path(folder) / f"{part}.safetensors", Path(folder) / f"{part}.json"
    for path in (weights, facts):
        if not path.is_file():
            raise CheckpointError(
                f"{path}: no such file; is {folder} a checkpoint folder with a trained {part}?"
            )
    try:
        return load_file(weights), json.loads(facts.read_text())
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{weights}: damaged ({error}); train or copy it again") from error


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load ``tensors`` into ``module``, refusing a checkpoint of another configuration.

    Raises:
        CheckpointError: If names or shapes differ; the message names the first that does.
    """
    have = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in sorted(have.keys() | given.keys()):
        if have.get(name) != given.get(name):
            raise CheckpointError(
                f"{where}: {name} is {given.get(name)} in the checkpoint and {have.get(name)} in "
                "this configuration; use the configuration that it was trained with"
            )
    with torch.no_grad():
        module.load_state_dict(dict(tensors))
