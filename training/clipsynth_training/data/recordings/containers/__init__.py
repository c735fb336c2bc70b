"""The container formats that packages keep recordings in, each read in memory."""

from clipsynth_training.data.recordings.containers.c4group import unpack_c4group
from clipsynth_training.data.recordings.containers.cat import unpack_cat
from clipsynth_training.data.recordings.containers.rcc import unpack_rcc
from clipsynth_training.data.recordings.containers.wad import unpack_wad

__all__ = ["unpack_c4group", "unpack_cat", "unpack_rcc", "unpack_wad"]
