"""One NVIDIA GPU through ``cuda-bindings``: memory, a stream, copies and graphs. No torch."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.errors import BackendError, MissingExtraError, ProviderUnavailableError

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"

ALIGNMENT = 256
"""Bytes that the start of a tensor is a multiple of."""


class Device:
    """The current CUDA device.

    Args:
        api: ``cuda.bindings.runtime``, or what behaves like it.

    Raises:
        ProviderUnavailableError: If there is no device, or its driver is too old.

    Attributes:
        name: The GPU's.
        compute_capability: Such as (8, 6).
        allocated: Bytes that this object holds on the device.
        peak: Most bytes that it has held at once.
    """

    def __init__(self, api: Any) -> None:
        self.api = api
        self.allocated = 0
        self.peak = 0
        self._sizes: dict[int, int] = {}
        try:
            (count,) = self._call("cudaGetDeviceCount")
            if count < 1:
                raise BackendError("no CUDA device")
            (properties,) = self._call("cudaGetDeviceProperties", 0)
            # the first call that makes a context: a driver that cannot is refused here
            (self._free_at_start, self.total) = self._call("cudaMemGetInfo")
        except BackendError as error:
            raise ProviderUnavailableError(str(error)) from error
        name = properties.name
        self.name = name.decode() if isinstance(name, bytes) else str(name)
        self.compute_capability = (int(properties.major), int(properties.minor))

    def driver(self) -> str:
        """Return the newest CUDA version that the driver supports, such as ``13.0``."""
        (number,) = self._call("cudaDriverGetVersion")
        return f"{number // 1000}.{number % 1000 // 10}"

    def memory_in_use(self) -> int:
        """Return how much less device memory is free than when this object was made, in bytes.

        Counts what libraries allocate (weights, kernels), and other processes on the device.
        """
        free, _ = self._call("cudaMemGetInfo")
        return max(0, int(self._free_at_start) - int(free))

    def alloc(self, size: int) -> int:
        """Return the address of ``size`` bytes on the device.

        Raises:
            BackendError: If there are none left.
        """
        (address,) = self._call("cudaMalloc", max(size, 1))
        self._sizes[int(address)] = size
        self.allocated += size
        self.peak = max(self.peak, self.allocated)
        return int(address)

    def free(self, address: int) -> None:
        """Give memory of ``alloc`` back."""
        self._call("cudaFree", address)
        self.allocated -= self._sizes.pop(address)

    def alloc_pinned(self, size: int) -> tuple[int, NDArray[np.uint8]]:
        """Return the address of ``size`` bytes of page-locked host memory, and a view of them."""
        (address,) = self._call("cudaHostAlloc", max(size, 1), 0)
        block = (ctypes.c_uint8 * size).from_address(int(address))
        return int(address), np.frombuffer(memoryview(block), np.uint8)

    def free_pinned(self, address: int) -> None:
        """Give memory of ``alloc_pinned`` back."""
        self._call("cudaFreeHost", address)

    def create_stream(self) -> Any:
        """Return a stream that does not wait for the default one."""
        (stream,) = self._call("cudaStreamCreateWithFlags", self.api.cudaStreamNonBlocking)
        return stream

    def destroy_stream(self, stream: Any) -> None:
        """Give a stream back."""
        self._call("cudaStreamDestroy", stream)

    def wait(self, stream: Any) -> None:
        """Wait until a stream has nothing left to do.

        Raises:
            BackendError: If something on it failed.
        """
        self._call("cudaStreamSynchronize", stream)

    def copy_in(self, device: int, host: int, size: int, stream: Any) -> None:
        """Copy host memory to the device, in the order of ``stream``."""
        self._copy(device, host, size, "cudaMemcpyHostToDevice", stream)

    def copy_out(self, host: int, device: int, size: int, stream: Any) -> None:
        """Copy device memory to the host, in the order of ``stream``."""
        self._copy(host, device, size, "cudaMemcpyDeviceToHost", stream)

    def _copy(self, target: int, source: int, size: int, way: str, stream: Any) -> None:
        kind = getattr(self.api.cudaMemcpyKind, way)
        self._call("cudaMemcpyAsync", target, source, size, kind, stream)

    def capture(self, stream: Any, enqueue: Callable[[], None]) -> Any:
        """Record what ``enqueue`` puts on a stream, and return it as an executable graph.

        Raises:
            BackendError: If something in it cannot be captured.
        """
        # this thread alone: another may allocate meanwhile without spoiling the capture
        mode = self.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)
        try:
            enqueue()
        except BaseException:
            # a stream stays in capture mode until told otherwise
            with contextlib.suppress(BackendError):
                (broken,) = self._call("cudaStreamEndCapture", stream)
                self._call("cudaGraphDestroy", broken)
            raise
        (graph,) = self._call("cudaStreamEndCapture", stream)
        try:
            (executable,) = self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)
        return executable

    def upload(self, executable: Any, stream: Any) -> None:
        """Prepare a graph on the device, so that its first launch is as fast as the next."""
        self._call("cudaGraphUpload", executable, stream)

    def launch(self, executable: Any, stream: Any) -> None:
        """Play a captured graph."""
        self._call("cudaGraphLaunch", executable, stream)

    def destroy_graph(self, executable: Any) -> None:
        """Give a captured graph back."""
        self._call("cudaGraphExecDestroy", executable)

    def _call(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        """Call a function of the CUDA runtime.

        Raises:
            BackendError: If it fails, with CUDA's own words.
        """
        error, *values = getattr(self.api, name)(*arguments)
        if int(error) != 0:
            _, words = self.api.cudaGetErrorString(error)
            said = words.decode() if isinstance(words, bytes) else str(words)
            raise BackendError(f"{name}: {said}{_advice(getattr(error, 'name', ''))}")
        return tuple(values)


def _advice(error: str) -> str:
    if error == "cudaErrorMemoryAllocation":
        return "; free device memory (clipsynth-rt doctor), or use --provider cpu"
    if error == "cudaErrorInsufficientDriver":
        return "; install or update the NVIDIA driver, or use --provider cpu"
    return ""


def is_installed(module: str) -> bool:
    """Return whether a module could be imported, without importing it."""
    parent, _, rest = module.rpartition(".")
    # None in sys.modules forbids an import; find_spec imports parents, and raises for None
    if sys.modules.get(module, module) is None or (rest and parent and not is_installed(parent)):
        return False
    return importlib.util.find_spec(module) is not None


@functools.lru_cache
def open_device() -> Device:
    """Return the CUDA device of this process.

    Raises:
        MissingExtraError: If ``cuda-bindings`` is not installed.
        ProviderUnavailableError: If there is no device, or its driver is too old.
    """
    if not is_installed("cuda.bindings"):
        raise MissingExtraError("cuda-bindings", "tensorrt-rtx")
    try:
        # at once: importing the bindings takes a tenth of a second and more, for nothing where
        # there is no driver
        ctypes.CDLL(_DRIVER)
    except OSError as error:
        raise ProviderUnavailableError(
            f"no NVIDIA driver here ({error}); install one, or use --provider cpu"
        ) from error
    try:
        from cuda.bindings import runtime
    # what is missing is a library that the module itself loads
    except (ImportError, RuntimeError) as error:
        raise ProviderUnavailableError(f"cuda-bindings does not load ({error})") from error
    return Device(runtime)
