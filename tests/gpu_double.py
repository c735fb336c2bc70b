"""A GPU that is none: CUDA's runtime and TensorRT's API over host memory and ONNX Runtime.

It computes what a GPU would, records every call, and refuses what the documentation forbids:
allocating or waiting while a stream is captured, capturing an engine that has not run before,
running one without memory or addresses, using memory after it was freed. Fresh memory is NaN.
"""

from __future__ import annotations

import ctypes
import enum
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime

_KINDS = {1: np.float32, 7: np.int64, 10: np.float16}


class Error(enum.IntEnum):
    cudaSuccess = 0  # noqa: N815
    cudaErrorInvalidValue = 1  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorInsufficientDriver = 35  # noqa: N815
    cudaErrorNoDevice = 100  # noqa: N815
    cudaErrorStreamCaptureUnsupported = 900  # noqa: N815


WORDS = {
    Error.cudaErrorInvalidValue: b"invalid argument",
    Error.cudaErrorMemoryAllocation: b"out of memory",
    Error.cudaErrorInsufficientDriver: b"CUDA driver version is insufficient for CUDA runtime",
    Error.cudaErrorNoDevice: b"no CUDA-capable device is detected",
    Error.cudaErrorStreamCaptureUnsupported: b"operation not permitted when stream is capturing",
}
KINDS = ("cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost")


class Stream:
    def __init__(self, number: int) -> None:
        self.number = number
        self.recording: list[Any] | None = None
        self.alive = True

    def __int__(self) -> int:
        return self.number


class Cuda:
    """``cuda.bindings.runtime``, as far as it is used."""

    cudaStreamNonBlocking = 1  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(**{name: name for name in KINDS})  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(  # noqa: N815
        cudaStreamCaptureModeThreadLocal="thread-local"
    )

    def __init__(self, total: int = 1 << 30, compute_capability: tuple[int, int] = (8, 6)) -> None:
        self.total = total
        self.compute_capability = compute_capability
        self.calls: list[tuple[str, Any]] = []
        self.device: dict[int, tuple[Any, int]] = {}
        self.pinned: dict[int, tuple[Any, int]] = {}
        self.streams: dict[int, Stream] = {}
        self.graphs: set[int] = set()
        self.executables: dict[int, list[Any]] = {}
        self.failing: dict[str, Error] = {}

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def used(self) -> int:
        return sum(size for _, size in self.device.values())

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if not name.startswith("cuda") or not callable(value):
            return value

        def call(*arguments: Any) -> Any:
            self.calls.append((name, arguments))
            if error := self.failing.get(name):
                return (error,)
            return value(*arguments)

        return call

    # device

    def cudaGetDeviceCount(self) -> Any:
        return Error.cudaSuccess, 1

    def cudaGetDeviceProperties(self, _: int) -> Any:
        major, minor = self.compute_capability
        return Error.cudaSuccess, SimpleNamespace(name=b"Double", major=major, minor=minor)

    def cudaDriverGetVersion(self) -> Any:
        return Error.cudaSuccess, 13010

    def cudaMemGetInfo(self) -> Any:
        return Error.cudaSuccess, self.total - self.used(), self.total

    def cudaGetErrorString(self, error: Error) -> Any:
        return Error.cudaSuccess, WORDS[error]

    # memory

    def cudaMalloc(self, size: int) -> Any:
        if self._capturing():
            return (Error.cudaErrorStreamCaptureUnsupported, None)
        if self.used() + size > self.total:
            return (Error.cudaErrorMemoryAllocation, None)
        return Error.cudaSuccess, _allocate(self.device, size)

    def cudaFree(self, address: int) -> Any:
        if self._capturing() or self.device.pop(address, None) is None:
            return (Error.cudaErrorInvalidValue,)
        return (Error.cudaSuccess,)

    def cudaHostAlloc(self, size: int, _: int) -> Any:
        if self._capturing():
            return (Error.cudaErrorStreamCaptureUnsupported, None)
        return Error.cudaSuccess, _allocate(self.pinned, size)

    def cudaFreeHost(self, address: int) -> Any:
        return (Error.cudaSuccess if self.pinned.pop(address, None) else Error(1),)

    def cudaMemcpyAsync(
        self, target: int, source: int, size: int, kind: str, stream: Stream
    ) -> Any:
        sides = (self.device, self.pinned) if kind == KINDS[0] else (self.pinned, self.device)
        for address, side in zip((target, source), sides, strict=True):
            if not _inside(side, address, size):
                return (Error.cudaErrorInvalidValue,)
        self.put(stream, lambda: ctypes.memmove(target, source, size))
        return (Error.cudaSuccess,)

    # streams and graphs

    def cudaStreamCreateWithFlags(self, _: int) -> Any:
        stream = Stream(1000 + len(self.streams))
        self.streams[stream.number] = stream
        return Error.cudaSuccess, stream

    def cudaStreamDestroy(self, stream: Stream) -> Any:
        stream.alive = False
        return (Error.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: Stream) -> Any:
        if stream.recording is not None or not stream.alive:
            return (Error.cudaErrorStreamCaptureUnsupported,)
        return (Error.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: Stream, _: str) -> Any:
        stream.recording = []
        return (Error.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: Stream) -> Any:
        graph = len(self.calls)
        self.executables[graph] = stream.recording or []
        stream.recording = None
        self.graphs.add(graph)
        return Error.cudaSuccess, graph

    def cudaGraphInstantiate(self, graph: int, _: int) -> Any:
        executable = -graph
        self.executables[executable] = self.executables[graph]
        return Error.cudaSuccess, executable

    def cudaGraphDestroy(self, graph: int) -> Any:
        self.graphs.remove(graph)
        del self.executables[graph]
        return (Error.cudaSuccess,)

    def cudaGraphUpload(self, executable: int, _: Stream) -> Any:
        return (Error.cudaSuccess if executable in self.executables else Error(1),)

    def cudaGraphLaunch(self, executable: int, stream: Stream) -> Any:
        for work in self.executables[executable]:
            work()
        return (Error.cudaSuccess,)

    def cudaGraphExecDestroy(self, executable: int) -> Any:
        del self.executables[executable]
        return (Error.cudaSuccess,)

    # for the engines

    def put(self, stream: Stream, work: Any) -> None:
        assert stream.alive
        if stream.recording is not None:
            stream.recording.append(work)
        else:
            work()

    def _capturing(self) -> bool:
        return any(stream.recording is not None for stream in self.streams.values())

    def left(self) -> dict[str, int]:
        """What has not been given back."""
        return {
            "device": len(self.device),
            "pinned": len(self.pinned),
            "graphs": len(self.graphs) + len(self.executables),
            "streams": sum(stream.alive for stream in self.streams.values()),
        }


def _allocate(side: dict[int, tuple[Any, int]], size: int) -> int:
    block = (ctypes.c_uint8 * (size + 512))()
    address = -(-ctypes.addressof(block) // 256) * 256
    ctypes.memset(address, 0xFF, size)
    side[address] = (block, size)
    return address


def _inside(side: dict[int, tuple[Any, int]], address: int, size: int) -> bool:
    return any(start <= address and address + size <= start + n for start, (_, n) in side.items())


def read(address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(ctypes.string_at(address, count), dtype).reshape(shape)


class Tensorrt:
    """The module ``tensorrt`` or ``tensorrt_rtx``, as far as it is used.

    Args:
        cuda: Where contexts run.
        rtx: Which of the two.
    """

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    class IProgressMonitor:
        pass

    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")
    BuilderFlag = SimpleNamespace(REQUIRE_USER_ALLOCATION="user-allocation")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    ComputeCapability = enum.Enum("ComputeCapability", "NONE CURRENT SM75 SM80 SM86 SM120")

    def __init__(self, cuda: Cuda, version: str = "1.0", *, rtx: bool = True) -> None:
        self.cuda, self.rtx = cuda, rtx
        self.__version__ = version
        self.builds: list[dict[str, Any]] = []
        self.refusal = ""
        self.unplayable = ""
        self.capturable = True
        self.compiled = 0

    def Builder(self, logger: Any) -> Any:
        trt = self

        class Builder:
            def create_network(self, flags: int) -> Any:
                return SimpleNamespace(flags=flags, model=None, inputs=[], num_layers=0)

            def create_builder_config(self) -> Any:
                return Config()

            def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
                monitor = getattr(config, "progress_monitor", None)
                if monitor is not None:
                    monitor.phase_start("build", None, 4)
                    monitor.phase_start("inner", "build", 100)
                    for step in range(4):
                        monitor.step_complete("inner", step)
                        monitor.step_complete("build", step)
                    monitor.phase_finish("build")
                if trt.refusal:
                    logger.log(trt.ILogger.ERROR, trt.refusal)
                    return None
                shapes = {tensor.name: list(tensor.shape) for tensor in network.inputs}
                trt.builds.append({"shapes": shapes, "flags": network.flags, **vars(config)})
                return json.dumps(shapes).encode() + b"\n" + network.model

        class Config:
            def __init__(self) -> None:
                self.flag_set: list[str] = []
                self.targets: dict[int, str] = {}

            def set_flag(self, flag: str) -> None:
                self.flag_set.append(flag)

            def set_compute_capability(self, value: Any, index: int) -> None:
                self.targets[index] = value.name

            def create_timing_cache(self, data: bytes) -> Any:
                assert not trt.rtx, "deprecated in TensorRT for RTX: a no-op that warns"
                if data and not data.startswith(b"timing"):
                    return None
                return SimpleNamespace(serialize=lambda: b"timing" + data[6:] + b"+")

            def set_timing_cache(self, cache: Any, _: bool) -> bool:
                self.timing = cache
                return True

        return Builder()

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        class Parser:
            num_errors = 0

            def parse(self, data: bytes) -> bool:
                try:
                    model = onnx.load_from_string(data)
                    onnx.checker.check_model(model)
                except Exception:
                    self.num_errors = 1
                    return False
                network.model = data
                for value in model.graph.input:
                    dims = value.type.tensor_type.shape.dim
                    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dims)
                    network.inputs.append(SimpleNamespace(name=value.name, shape=shape))
                network.num_inputs = len(network.inputs)
                network.get_input = lambda i: network.inputs[i]
                return True

            def get_error(self, _: int) -> Any:
                return SimpleNamespace(desc=lambda: "Failed to parse the ONNX model.")

        return Parser()

    def Runtime(self, logger: Any) -> Any:
        trt = self

        class Runtime:
            def deserialize_cuda_engine(self, plan: bytes) -> Any:
                if trt.unplayable:
                    logger.log(trt.ILogger.ERROR, trt.unplayable)
                    return None
                try:
                    header, model = plan.split(b"\n", 1)
                    return Engine(trt, json.loads(header), model)
                except Exception as error:
                    message = f"Serialization assertion failed ({error!r:.40})"
                    logger.log(trt.ILogger.ERROR, message)
                    return None

        return Runtime()


class Engine:
    """An engine that ONNX Runtime computes."""

    device_memory_size_v2 = 4096

    def __init__(self, trt: Tensorrt, shapes: dict[str, list[int]], model: bytes) -> None:
        self.trt = trt
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
        self.inputs = {
            node.name: (tuple(shapes[node.name]), kinds[node.type])
            for node in self.session.get_inputs()
        }
        ones = {name: np.ones(shape, kind) for name, (shape, kind) in self.inputs.items()}
        names = [node.name for node in self.session.get_outputs()]
        found = self.session.run(names, ones)
        self.outputs = {
            name: (value.shape, value.dtype) for name, value in zip(names, found, strict=True)
        }
        self.names = [*self.inputs, *self.outputs]
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, i: int) -> str:
        return self.names[i]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return {**self.inputs, **self.outputs}[name][0]

    def create_runtime_config(self) -> Any:
        assert self.trt.rtx
        return RuntimeConfig()

    def create_execution_context(self, config: Any) -> Any:
        kernels = None
        if self.trt.rtx:
            assert config.strategy == "user"
            kernels = config.cache
        else:
            assert config == "user"
        return Context(self, kernels)


class RuntimeConfig:
    """TensorRT for RTX's, with its cache of kernels: as many as the engine has compiled."""

    strategy = ""

    def __init__(self) -> None:
        self.cache: Any = None

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> Any:
        return RuntimeCache()

    def set_runtime_cache(self, cache: Any) -> bool:
        self.cache = cache
        return True


class RuntimeCache:
    data = b""

    def deserialize(self, data: bytes) -> bool:
        if not data.startswith(b"kernels"):
            return False
        self.data = data
        return True

    def serialize(self) -> bytes:
        return self.data


class Context:
    """An execution context; it keeps its memory and addresses until told otherwise."""

    def __init__(self, engine: Engine, kernels: Any) -> None:
        self.engine, self.cuda, self.kernels = engine, engine.trt.cuda, kernels
        self.addresses: dict[str, int] = {}
        self.memory: tuple[int, int] | None = None
        self.has_run = False

    def set_device_memory(self, address: int, size: int) -> None:
        self.memory = (address, size)

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert name in self.engine.names, name
        assert address % 256 == 0, f"{name} is not aligned"
        self.addresses[name] = address
        return True

    def is_stream_capturable(self, _: int) -> bool:
        return self.engine.trt.capturable

    def execute_async_v3(self, number: int) -> bool:
        stream = self.cuda.streams[number]
        self.cuda.calls.append(("enqueue", tuple(self.engine.names)))
        engine, addresses = self.engine, dict(self.addresses)
        if addresses.keys() != set(engine.names) or self.memory is None:
            return False
        if not _inside(self.cuda.device, *self.memory):
            return False
        if stream.recording is not None and not self.has_run:
            return False  # kernels are compiled in the first run, which a capture forbids
        if not self.has_run and self.kernels is not None and not self.kernels.data:
            self.engine.trt.compiled += 1
            self.kernels.data = b"kernels of " + ",".join(engine.names).encode()
        self.has_run = True
        self.cuda.put(stream, lambda: self._compute(addresses))
        return True

    def _compute(self, addresses: dict[str, int]) -> None:
        engine = self.engine
        for name, (shape, kind) in {**engine.inputs, **engine.outputs}.items():
            size = int(np.prod(shape)) * np.dtype(kind).itemsize
            assert _inside(self.cuda.device, addresses[name], size), f"{name} is outside memory"
        inputs = {n: read(addresses[n], *facts) for n, facts in engine.inputs.items()}
        for name, value in zip(
            engine.outputs, engine.session.run([*engine.outputs], inputs), strict=True
        ):
            data = np.ascontiguousarray(value).tobytes()
            ctypes.memmove(addresses[name], data, len(data))
