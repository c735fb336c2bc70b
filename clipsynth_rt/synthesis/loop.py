"""Seamless loops: the end of a mel leads into its beginning, and the waveform follows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.synthesis.samplers import Mel
from clipsynth_rt.synthesis.windows import crossfade

VOCODED_BEYOND = 16
"""Frames from beyond the ends that the vocoder sees, and over which the waveform is crossfaded."""
_ATTACK_FRAMES = 4
_ATTACK_DB = (10.0, 20.0)
"""How much louder than the end a beginning must be to count as an attack: not, and wholly."""


def close_mel(mel: Mel, loop_frames: int, spec: MelSpec) -> Mel:
    """Return a mel whose last frame leads into its first, float32 [M, loop_frames].

    What was sampled beyond the loop is faded out over the loop's beginning, while that fades in: so
    the first frame continues the last one. A beginning that is an attack (much louder than what
    it follows) is not faded in, because that would take the attack off; it is a seam that one
    hears as what it is, the sound beginning again.

    Args:
        mel: Normalised, float32 [M, F], F > ``loop_frames``.
        loop_frames: Length of the loop.
        spec: Of the mel.
    """
    overlap = min(mel.shape[1] - loop_frames, loop_frames)
    level = np.exp(mel.astype(np.float64) * spec.std + spec.mean)
    head, tail = level[:, :overlap], level[:, loop_frames : loop_frames + overlap]
    rise = np.sin(0.5 * np.pi * (np.arange(overlap) + 0.5) / overlap) ** 2
    attack = _attack(head, tail)
    mixed = head * (attack + (1.0 - attack) * rise) + tail * (1.0 - rise)
    closed = mel[:, :loop_frames].copy()
    closed[:, :overlap] = (np.log(np.maximum(mixed, spec.floor)) - spec.mean) / spec.std
    return closed


def _attack(head: NDArray[np.float64], tail: NDArray[np.float64]) -> float:
    """Return how far a beginning is an attack after what came before it, 0 to 1."""
    begins, goes_on = head[:, :_ATTACK_FRAMES].mean(), tail[:, :_ATTACK_FRAMES].mean()
    low, high = _ATTACK_DB
    louder = 20.0 * np.log10(begins / goes_on)
    return float(np.clip((louder - low) / (high - low), 0.0, 1.0))


def vocode_loop(
    vocode: Callable[[Mel], NDArray[np.float32]], mel: Mel, hop_length: int, num_samples: int
) -> NDArray[np.float32]:
    """Return the waveform of a closed mel, float32 [num_samples], seamless when repeated.

    The vocoder sees the mel go on over both ends, and what it makes beyond the last sample is faded
    into the beginning.

    Args:
        vocode: Mel [M, F] to waveform [F * hop_length].
        mel: From ``close_mel``, float32 [M, F].
        hop_length: Samples a frame.
        num_samples: Length of the loop, less than a frame short of the mel's or equal to it.
    """
    frames = mel.shape[1]
    context = min(VOCODED_BEYOND, frames)
    around = np.concatenate([mel[:, -context:], mel, mel[:, :context]], axis=1)
    sound = vocode(np.ascontiguousarray(around))[context * hop_length :]
    begin = min(context * hop_length, num_samples)
    loop = sound[:num_samples].copy()
    loop[:begin] = crossfade(sound[num_samples : num_samples + begin], sound[:begin])
    return loop
