"""Embeddings of the pictures in shards, computed once and kept beside them.

``embeddings/<encoder>/shard-NNNNN.safetensors`` in a shard folder holds ``image`` float32
[N, K, D] and ``has_image`` bool [N] of that shard. ``<encoder>`` is a hash of the image tower's
weights, so another CLIP does not read them, and a shard that was written anew is embedded anew.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from clipsynth_rt.errors import InputError, OutputError
from clipsynth_rt.files import replacing
from clipsynth_training.checkpoint import hash_weights
from clipsynth_training.data.shards import ShardSet
from clipsynth_training.run.distributed import rank_and_count, wait_for_all

logger = logging.getLogger(__name__)


def embed_frames(shards: ShardSet, clip: Any) -> tuple[Tensor, Tensor]:
    """Return frame embeddings [N, K, D] and whether a clip has pictures at all, bool [N].

    Under ``torchrun`` each process embeds its share of the shards that are not embedded yet.

    Args:
        shards: The clips; one shard's frames at a time are held in memory.
        clip: From ``clipsynth_training.clip.encoder.load_clip``.

    Raises:
        InputError: If the frames are of another size than the encoder's.
    """
    per_clip, size = shards.sizes["frames"][:2]
    if per_clip == 0:
        return torch.zeros(len(shards), 0, clip.dim), torch.zeros(len(shards), dtype=torch.bool)
    if size != clip.image_size:
        raise InputError(
            f"shards hold frames of {size} pixels and this CLIP takes {clip.image_size}; "
            f"run: clipsynth-rt data prepare --frame-size {clip.image_size}"
        )
    cache = _Cache(shards, clip)
    rank, processes = rank_and_count()
    if processes > 1:
        for number in range(rank, len(shards.files), processes):
            cache.get(number)
        wait_for_all()
    numbers = tqdm(range(len(shards.files)), "pictures", disable=None, leave=False)
    parts = [cache.get(number) for number in numbers]
    image, has_image = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return image, has_image


class _Cache:
    def __init__(self, shards: ShardSet, clip: Any) -> None:
        self.shards, self.clip = shards, clip
        self.folder = shards.folder / "embeddings" / encoder_key(clip)
        self.writable = True

    def get(self, number: int) -> tuple[Tensor, Tensor]:
        """Return ``image`` and ``has_image`` of one shard, from the cache or by computing them."""
        path = self.folder / self.shards.files[number].name
        origin = _origin(self.shards.files[number])
        stored = _read(path, origin)
        if stored is None:
            stored = self._compute(number)
            self._write(path, origin, stored)
        return stored

    def _compute(self, number: int) -> tuple[Tensor, Tensor]:
        frames = self.shards.frames(self.shards.rows_of(number))
        count, per_clip = frames.shape[:2]
        image = self.clip.encode_images(frames.reshape(-1, *frames.shape[2:]))
        # clips without a picture track are kept with black frames
        has_image = torch.from_numpy(frames.reshape(count, -1).max(axis=1) > 0)
        return image.float().cpu().reshape(count, per_clip, -1), has_image

    def _write(self, path: Path, origin: str, stored: tuple[Tensor, Tensor]) -> None:
        if not self.writable:
            return
        tensors = {"image": stored[0].contiguous(), "has_image": stored[1].to(torch.uint8)}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                save_file(tensors, temporary, {"origin": origin})
        except (OSError, OutputError, SafetensorError) as error:
            self.writable = False
            logger.warning("%s: embeddings are not kept for the next run (%s)", path, error)


def _read(path: Path, origin: str) -> tuple[Tensor, Tensor] | None:
    try:
        with safe_open(path, "pt") as stored:
            if (stored.metadata() or {}).get("origin") != origin:
                return None
            return stored.get_tensor("image"), stored.get_tensor("has_image").bool()
    except (OSError, SafetensorError):  # none yet, or cut off: computed and written anew
        return None


def _origin(path: Path) -> str:
    facts = path.stat()
    return f"{facts.st_size} {facts.st_mtime_ns}"


def encoder_key(clip: Any) -> str:
    """Return a name for an encoder's image tower: the same weights, the same name."""
    digest = hashlib.sha256()
    hash_weights(clip.image_tower, digest)
    return digest.hexdigest()[:16]
