"""Mels of a corpus that may be larger than the memory, read row by row from its shards.

Shards are memory-mapped, so a row is one contiguous read of some 56 kB, and a fresh global
permutation an epoch is exact: any batch of any epoch can be read without what came before, which
is what makes a resumed run repeat an unbroken one bit by bit, and streaming equal memory. A tar
reader such as WebDataset reads in sequence, shuffles within a buffer alone and cannot start in
the middle of an epoch; it is the better choice where rows cannot be read at random (object
stores, spinning disks), and a second copy of the corpus in another format where they can.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipsynth_training.data.shards import ShardSet

MEMORY_SHARE = 0.5
"""Mels are streamed by themselves where they would take more of the memory than this."""


class StreamedMels:
    """Indexed like the tensor float16 [N, M, F] that would hold the mels, but reads from disk.

    Args:
        shards: Where they lie.
        rows: Which of them, int64 [N]; all if None.

    Attributes:
        shape: (N, M, F).
    """

    def __init__(self, shards: ShardSet, rows: NDArray[np.int64] | None = None) -> None:
        self._shards = shards
        self._rows = np.arange(len(shards)) if rows is None else rows
        self.shape = torch.Size([len(self._rows), *shards.sizes["mel"]])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Tensor | NDArray[np.int64] | slice) -> Tensor:
        """Return mels float16 [n, M, F] of the rows that ``index`` picks."""
        picked = index if isinstance(index, slice) else np.asarray(index)
        return torch.from_numpy(self._shards.mels(self._rows[picked]))


def too_large(shards: ShardSet, count: int, processes: int = 1) -> bool:
    """Say whether ``count`` mels in each of ``processes`` crowd this machine's memory."""
    mel_bytes = 2 * count * int(np.prod(shards.sizes["mel"])) * processes
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # no POSIX; the caller can still ask to stream
        return False
    return mel_bytes > MEMORY_SHARE * memory
