"""Mixed precision where the device multiplies bfloat16, and full precision where it only could."""

from __future__ import annotations

import functools
import platform

import torch


def mixed_precision(device_type: str, enabled: bool = True) -> torch.autocast:
    """Return a context of bfloat16 autocast, of no effect where it would be slower.

    A processor without bfloat16 products emulates them, tens of times slower than float32.

    Args:
        device_type: Such as ``cpu`` or ``cuda``.
        enabled: What the configuration wants.
    """
    if device_type == "cpu":
        enabled = enabled and cpu_has_bfloat16()
    return torch.autocast(device_type, torch.bfloat16, enabled=enabled)


@functools.cache
def cpu_has_bfloat16() -> bool:
    """Return whether this processor multiplies bfloat16 natively."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN's own answer below is yes for any AVX-512, where it emulates
        return bool(torch.cpu._is_avx512_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
