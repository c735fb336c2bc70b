"""Tensors in device memory and in page-locked host memory, and arrays brought to their shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clipsynth_rt.backends.session import Array
from clipsynth_rt.backends.tensorrt import cuda
from clipsynth_rt.errors import InputError


class Arena:
    """Tensors side by side in one device buffer, and where asked in one pinned host buffer.

    Inputs of a clip are one copy that way, however many there are.
    """

    def __init__(
        self, device: cuda.Device, tensors: Mapping[str, tuple[tuple[int, ...], str]], pinned: bool
    ) -> None:
        self._device = device
        self.tensors = dict(tensors)
        self._offsets: dict[str, int] = {}
        size = 0
        for name, (shape, dtype) in tensors.items():
            self._offsets[name] = size
            size += _aligned(num_bytes(shape, dtype))
        self.size = size
        self._address: int | None = device.alloc(size)
        self._host: int | None = None
        self._views: dict[str, Array] = {}
        if pinned:
            try:
                self._host, memory = device.alloc_pinned(size)
            except BaseException:
                self.close()
                raise
            memory[:] = 0
            for name, (shape, dtype) in tensors.items():
                start = self._offsets[name]
                flat = memory[start : start + num_bytes(shape, dtype)]
                self._views[name] = flat.view(dtype).reshape(shape)

    def address(self, name: str) -> int:
        """Return where a tensor lies on the device."""
        assert self._address is not None
        return self._address + self._offsets[name]

    def set(self, inputs: Mapping[str, Array], where: str) -> None:
        """Copy arrays into pinned memory.

        Raises:
            InputError: If one is missing, unknown or of another shape.
        """
        if inputs.keys() != self._views.keys():
            odd = sorted(inputs.keys() ^ self._views.keys())
            raise InputError(f"{where}: inputs differ in {', '.join(odd)}")
        for name, value in inputs.items():
            view = self._views[name]
            if np.shape(value) != view.shape or np.asarray(value).dtype != view.dtype:
                raise InputError(
                    f"{where}: {name} is {np.asarray(value).dtype} {list(np.shape(value))} instead "
                    f"of {view.dtype} {list(view.shape)}"
                )
            view[...] = value

    def get(self) -> dict[str, Array]:
        """Return copies of what lies in pinned memory."""
        return {name: view.copy() for name, view in self._views.items()}

    def upload(self, stream: Any) -> None:
        """Copy pinned memory to the device."""
        assert self._address is not None
        assert self._host is not None
        self._device.copy_in(self._address, self._host, self.size, stream)

    def download(self, stream: Any) -> None:
        """Copy the device's tensors to pinned memory."""
        assert self._address is not None
        assert self._host is not None
        self._device.copy_out(self._host, self._address, self.size, stream)

    def close(self) -> None:
        """Give the memory back."""
        # a view into memory that is gone would crash whoever reads it
        self._views.clear()
        address, host = self._address, self._host
        self._address = self._host = None
        if address is not None:
            self._device.free(address)
        if host is not None:
            self._device.free_pinned(host)


def fill_up(rows: Array, size: int, axis: int = 0) -> Array:
    """Repeat the last of ``rows`` until there are ``size`` of them."""
    more = size - rows.shape[axis]
    if more <= 0:
        return rows
    last = np.take(rows, [-1], axis)
    return np.concatenate([rows, np.repeat(last, more, axis)], axis)


def pad_tokens(tokens: Array, length: int) -> Array:
    """Append zeros to ids or masks [B, L]: a mask of zero hides whatever the id says.

    Raises:
        InputError: If there are more than ``length``.
    """
    if tokens.shape[1] > length:
        raise InputError(f"text_encoder: {tokens.shape[1]} tokens and at most {length} fit")
    return np.pad(tokens, ((0, 0), (0, length - tokens.shape[1])))


def num_bytes(shape: Sequence[int], dtype: str) -> int:
    """Return the size of a tensor."""
    return int(np.prod(shape)) * np.dtype(dtype).itemsize


def _aligned(size: int) -> int:
    return -(-size // cuda.ALIGNMENT) * cuda.ALIGNMENT
