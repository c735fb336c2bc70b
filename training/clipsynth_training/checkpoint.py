"""Checkpoints: a folder with one safetensors file a network, and the specs it was trained with.

A checkpoint folder holds ``<part>.safetensors`` (weights, float32) and ``<part>.json`` (the
configuration that rebuilds the network, plus what was measured). Nothing is pickled.

What a run needs to go on lies beside them as a training state, ``<name>-<step>.safetensors``: one
file that holds its JSON too, so that one rename makes it appear, and a kill at any moment leaves
the states before it whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clipsynth_rt.errors import CheckpointError, MissingExtraError, OutputError
from clipsynth_rt.files import replacing, write_json

logger = logging.getLogger(__name__)

KEPT_STATES = 2
"""Training states that stay: the newest, and the one to go back to should it be damaged."""


def default_checkpoint() -> Path:
    """Return the folder of the checkpoint that the shipped voice was exported from.

    It is a distribution of its own, so that devices that only play do not carry it.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import clipsynth_checkpoints
    except ModuleNotFoundError as error:
        raise MissingExtraError("clipsynth_checkpoints", "train") from error
    return Path(clipsynth_checkpoints.DEFAULT)


def save_component(
    folder: str | Path, part: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> None:
    """Write one network's weights and configuration, each whole or not at all.

    Args:
        folder: Checkpoint folder; made if missing.
        part: ``denoiser``, ``vocoder``, ``clip``, ``classifier`` or a training state's name.
        tensors: State dict; stored contiguous, on the CPU.
        config: JSON data that ``load_component`` returns unchanged.

    Raises:
        OutputError: If they cannot be written.
    """
    folder = _made(folder)
    _save_tensors(folder / f"{part}.safetensors", _stored(tensors))
    write_json(folder / f"{part}.json", config)


def _made(folder: str | Path) -> Path:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror})") from error
    return Path(folder)


def _stored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}


def _save_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            raise OutputError(f"{path}: cannot be written ({error})") from error
        os.chmod(temporary, 0o666 & ~_umask())  # safetensors leaves 0600
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())  # or a power cut may leave the new name with no content


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def load_component(folder: str | Path, part: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_component`` wrote.

    Raises:
        CheckpointError: If a file is missing or damaged, or its JSON is no object; the message
            names it.
    """
    weights, facts = Path(folder) / f"{part}.safetensors", Path(folder) / f"{part}.json"
    for path in (weights, facts):
        if not path.is_file():
            raise CheckpointError(
                f"{path}: no such file; is {folder} a checkpoint folder with a trained {part}?"
            )
    try:
        tensors = load_file(weights)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{weights}: damaged ({error}); train or copy it again") from error
    return tensors, _read_facts(facts)


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    # of a wrong encoding, too, and of brackets too deep to follow
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); train or copy it again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds no JSON object; train or copy it again")
    return found


def save_state(
    folder: str | Path,
    name: str,
    step: int,
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any],
) -> Path:
    """Write a training state, whole or not at all, and drop all but the ``KEPT_STATES`` newest.

    Args:
        folder: Checkpoint folder; made if missing.
        name: Such as ``denoiser_state``.
        step: Steps taken so far.
        tensors: Stored contiguous, on the CPU.
        facts: JSON data that ``load_state`` returns unchanged.

    Returns:
        The file.

    Raises:
        OutputError: If it cannot be written; earlier states stay.
    """
    folder = _made(folder)
    for left in folder.glob(f".{name}-*.tmp"):  # of a run that was killed while it wrote
        left.unlink(missing_ok=True)
    path, stored = folder / f"{name}-{step:08d}.safetensors", _stored(tensors)
    metadata = {"facts": json.dumps(dict(facts)), "crc32": str(_checksum(stored))}
    _save_tensors(path, stored, metadata)
    # a state of a later step is of a run that was abandoned for this one
    others = [other for other in _numbered(folder, name) if other != path]
    earlier = [other for other in others if other.name < path.name]
    keep = {path, *earlier[: KEPT_STATES - 1]}
    old_pair = [folder / f"{name}{suffix}" for suffix in (".json", ".safetensors")]
    for other in [*others, *(old_pair if len(keep) == KEPT_STATES else [])]:
        if other not in keep:
            other.unlink(missing_ok=True)
    return path


def load_state(folder: str | Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read the newest training state that is whole; None where there is none at all.

    A damaged one is named in a warning, and the one before it is taken. States of version 0.1, a
    pair of files as ``save_component`` writes them, are read too.

    Raises:
        CheckpointError: If there are states and all are damaged; the message names the newest.
    """
    folder = Path(folder)
    states = _numbered(folder, name)
    pair = folder / f"{name}.json"
    if pair.is_file():
        before = [s for s in states if s.name < f"{name}-{_pair_step(pair):08d}"]
        states.insert(len(states) - len(before), pair)
    first: CheckpointError | None = None
    for path in states:
        try:
            loaded = load_component(folder, name) if path == pair else _read_state(path)
        except CheckpointError as error:
            logger.warning("%s", error)
            first = first or error
            continue
        if first is not None:
            logger.warning("%s: taken in its place", path)
        return loaded
    if first is not None:
        raise CheckpointError(f"{first}; nor is an older state whole: move them away to begin anew")
    return None


def _numbered(folder: Path, name: str) -> list[Path]:
    """Return the training states, newest first."""
    return sorted(folder.glob(f"{name}-[0-9]*.safetensors"), reverse=True)


def _pair_step(path: Path) -> int:
    try:
        return int(json.loads(path.read_text())["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}
        facts, expected = json.loads(metadata["facts"]), int(metadata["crc32"])
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: damaged ({error})") from error
    if _checksum(tensors) != expected:
        raise CheckpointError(f"{path}: damaged (its checksum is another)")
    return tensors, facts


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    value = 0
    for key in sorted(tensors):
        value = zlib.crc32(tensors[key].reshape(-1).view(torch.uint8).numpy(), value)
    return value


def hash_weights(module: nn.Module, digest: hashlib._Hash) -> None:
    """Add names, types, shapes and values of a module's weights to a hash."""
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())


def check_weights(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse a checkpoint of another configuration; a module on device ``meta`` tells, too.

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


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load ``tensors`` into ``module``.

    Raises:
        CheckpointError: If they are of another configuration; see ``check_weights``.
    """
    check_weights(module, tensors, where)
    with torch.no_grad():
        module.load_state_dict(dict(tensors))
