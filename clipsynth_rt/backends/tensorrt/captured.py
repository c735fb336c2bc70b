"""What plays on the GPU: one engine, or a whole clip captured into one CUDA graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.backends.session import Array
from clipsynth_rt.backends.tensorrt import cuda
from clipsynth_rt.backends.tensorrt.buffers import Arena, num_bytes
from clipsynth_rt.backends.tensorrt.engines import (
    EngineSpec,
    clip_engines,
)
from clipsynth_rt.bundles.manifest import DENOISER
from clipsynth_rt.errors import EngineError

if TYPE_CHECKING:
    from clipsynth_rt.backends.tensorrt.backend import TrtBackend


@dataclass(frozen=True)
class ClipKey:
    """What a captured clip is captured for; all else is an input.

    Attributes:
        frames: One of ``frame_buckets``.
        batch: One of ``BATCH_SIZES``.
        num_steps: Denoising steps N.
        guided: Whether two conditions are mixed.
        from_text: Whether the text encoder runs; else the condition is an input.
        stochastic: Whether every step gets noise of its own (eta above 0).
        denoiser: The graph that takes the steps.
    """

    frames: int
    batch: int
    num_steps: int
    guided: bool
    from_text: bool = True
    stochastic: bool = False
    denoiser: str = DENOISER


class Engine:
    """A loaded engine, and the kernels that the GPU compiles for it.

    Args:
        spec: What it is.
        engine: From ``TensorRTApi.deserialise``.
        backend: Supplies library and cache.
    """

    def __init__(self, spec: EngineSpec, engine: Any, backend: TrtBackend) -> None:
        self.spec, self.engine = spec, engine
        self._library, self._cache = backend.library, backend.cache
        # kernels are this GPU's own, whatever the engine was built for
        self._target = backend.targets[0]
        self._known = self._cache.kernels(spec, self._library, self._target)
        self._config, self._kernels = self._library.runtime_config(engine, self._known)

    def create_context(self) -> Any:
        """Return an execution context without scratch memory."""
        return self._library.create_context(self.engine, self._config)

    def keep_kernels(self) -> None:
        """Keep what the first run compiled, for the next process."""
        if self._kernels is None:
            return
        data = bytes(self._kernels.serialize() or b"")
        if data and data != self._known:
            self._known = data
            self._cache.keep_kernels(self.spec, self._library, self._target, data)

    @property
    def scratch_bytes(self) -> int:
        """Working memory of one run."""
        return int(self.engine.device_memory_size_v2)

    def output_shape(self, name: str) -> tuple[int, ...]:
        """Return an output's shape, fixed since the engine was built."""
        return tuple(self.engine.get_tensor_shape(name))


class _Runnable:
    """Engines with contexts of their own, one shared scratch buffer, and arenas."""

    def __init__(self, backend: TrtBackend) -> None:
        self._backend, self._device = backend, backend.device
        self._engines: list[Engine] = []
        self._contexts: list[Any] = []
        self._arenas: list[Arena] = []
        self._scratch: int | None = None
        self._executable: Any = None

    def _arena(
        self, tensors: Mapping[str, tuple[tuple[int, ...], str]], pinned: bool = False
    ) -> Arena:
        arena = Arena(self._device, tensors, pinned)
        self._arenas.append(arena)
        return arena

    def _start(self) -> None:
        """Make a context for each engine; they run one after the other, so they share scratch."""
        size = max(engine.scratch_bytes for engine in self._engines)
        self._scratch = self._device.alloc(size)
        for engine in self._engines:
            context = engine.create_context()
            context.set_device_memory(self._scratch, size)
            self._contexts.append(context)

    def _enqueue_engine(self, context: Any, label: str) -> None:
        if not context.execute_async_v3(int(self._backend.stream)):
            raise EngineError(f"{label}: {self._backend.provider} could not start it")

    def close(self) -> None:
        """Give everything back."""
        if self._executable is not None:
            self._device.destroy_graph(self._executable)
            self._executable = None
        # contexts before the memory that they use, and engines after their contexts
        self._contexts.clear()
        self._engines.clear()
        for arena in self._arenas:
            arena.close()
        self._arenas.clear()
        if self._scratch is not None:
            self._device.free(self._scratch)
            self._scratch = None


class CapturedClip(_Runnable):
    """Text encoder, N denoiser steps, vocoder and copies in one CUDA graph.

    Everything that differs from clip to clip of one ``ClipKey`` lies in fixed buffers: tokens,
    conditions, guidance weights, times, eta, noise.

    Args:
        backend: Supplies engines, device and stream.
        key: What to capture.

    Raises:
        EngineError: If an engine cannot be built, loaded or captured.
        BackendError: If the device is out of memory; nothing of it stays there.

    Attributes:
        inputs: Name -> (shape, dtype) of what ``play`` takes.
    """

    def __init__(self, backend: TrtBackend, key: ClipKey) -> None:
        super().__init__(backend)
        self.key = key
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        backend, key = self._backend, self.key
        specs = clip_engines(
            backend.bundle,
            backend.precision,
            batch=key.batch,
            frames=key.frames,
            guided=key.guided,
            denoiser=key.denoiser,
        )
        if not key.from_text:
            specs = specs[1:]
        self._engines = [backend.engine(spec) for spec in specs]
        text, step = specs[0].shapes, specs[-2].shapes
        mel = step["x"]
        many = key.num_steps if key.stochastic else 1
        if key.stochastic and num_bytes(mel, "float32") % cuda.ALIGNMENT:
            raise EngineError(
                f"{key.denoiser}: {mel[1]} bins by {mel[2]} frames do not lie on {cuda.ALIGNMENT} "
                "bytes, which eta above 0 needs on engines; use eta 0"
            )
        self.inputs: dict[str, tuple[tuple[int, ...], str]] = {
            # a row of 256 bytes a time, because a tensor's address has to be aligned
            "times": ((key.num_steps + 1, cuda.ALIGNMENT // 4), "float32"),
            "condition": (step["condition"], "float32"),
            "weights": (step["weights"], "float32"),
            "eta": (step["eta"], "float32"),
            "x": (mel, "float32"),
            "noise": ((many, *mel), "float32"),
        }
        if key.from_text:
            self.inputs |= {name: (shape, "int64") for name, shape in text.items()}
        self._in = self._arena(self.inputs, pinned=True)
        self._mels = self._arena({n: (mel, "float32") for n in ("even", "odd", "x0")})
        waveform = self._engines[-1].output_shape("waveform")
        self._out = self._arena({"waveform": (waveform, "float32")}, pinned=True)
        self._start()
        self._bind()
        # the first run compiles and allocates, which a capture forbids
        self._enqueue()
        self._device.wait(backend.stream)
        for engine in self._engines:
            engine.keep_kernels()
        if backend.use_graphs:
            self._check_capturable()
            self._executable = self._device.capture(backend.stream, self._enqueue)
            self._device.upload(self._executable, backend.stream)
            self._device.wait(backend.stream)

    def _bind(self) -> None:
        """Give the contexts every address that stays the same from step to step."""
        *text, step, vocoder = self._contexts
        for context in text:
            for name in ("input_ids", "attention_mask"):
                context.set_tensor_address(name, self._in.address(name))
            # straight into the first of the mixed conditions
            context.set_tensor_address("embedding", self._in.address("condition"))
        for name in ("condition", "weights", "eta"):
            step.set_tensor_address(name, self._in.address(name))
        step.set_tensor_address("x0", self._mels.address("x0"))
        last = ("even", "odd")[self.key.num_steps % 2]
        vocoder.set_tensor_address("mel", self._mels.address(last))
        vocoder.set_tensor_address("waveform", self._out.address("waveform"))

    def _enqueue(self) -> None:
        """Put one clip on the stream."""
        stream = self._backend.stream
        *text, step, vocoder = self._contexts
        self._in.upload(stream)
        for context in text:
            self._enqueue_engine(context, "text_encoder")
        noise_bytes = num_bytes(*self.inputs["x"]) if self.key.stochastic else 0
        source = self._in.address("x")
        for i in range(self.key.num_steps):
            times = self._in.address("times") + i * cuda.ALIGNMENT
            # steps write to two buffers in turn: "odd" after the first, "even" after the second
            target = self._mels.address("odd" if i % 2 == 0 else "even")
            addresses = {
                "t": times,
                "s": times + cuda.ALIGNMENT,
                "noise": self._in.address("noise") + i * noise_bytes,
                "x": source,
                "x_next": target,
            }
            for name, address in addresses.items():
                step.set_tensor_address(name, address)
            self._enqueue_engine(step, self.key.denoiser)
            source = target
        self._enqueue_engine(vocoder, "vocoder")
        self._out.download(stream)

    def _check_capturable(self) -> None:
        for context, engine in zip(self._contexts, self._engines, strict=True):
            ask = getattr(context, "is_stream_capturable", None)
            if ask is not None and not ask(int(self._backend.stream)):
                raise EngineError(
                    f"{engine.spec.label}: {self._backend.provider} cannot capture this engine "
                    "into a CUDA graph"
                )

    def play(self, inputs: Mapping[str, Array]) -> NDArray[np.float32]:
        """Run the clip and return waveforms, float32 [B, T].

        Raises:
            InputError: If an input is missing or of another shape.
            BackendError: If the GPU fails.
        """
        self._in.set(inputs, "clip")
        if self._executable is not None:
            self._device.launch(self._executable, self._backend.stream)
        else:
            self._enqueue()
        self._device.wait(self._backend.stream)
        waveform: NDArray[np.float32] = self._out.get()["waveform"]
        return waveform


class Player(_Runnable):
    """One engine with its own buffers.

    Raises:
        EngineError: If the engine cannot be built or loaded.
        BackendError: If the device is out of memory.
    """

    def __init__(self, backend: TrtBackend, spec: EngineSpec) -> None:
        super().__init__(backend)
        self.spec = spec
        self._ran = False
        try:
            engine = backend.engine(spec)
            self._engines = [engine]
            promised = spec.graph.spec
            self._in = self._arena(
                {n: (shape, promised.inputs[n].dtype) for n, shape in spec.shapes.items()}, True
            )
            outputs = promised.outputs
            self._out = self._arena(
                {n: (engine.output_shape(n), t.dtype) for n, t in outputs.items()}, True
            )
            self._start()
            for name in spec.shapes:
                self._contexts[0].set_tensor_address(name, self._in.address(name))
            for name in outputs:
                self._contexts[0].set_tensor_address(name, self._out.address(name))
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output by name."""
        self._in.set(inputs, self.spec.graph.name)
        self._in.upload(self._backend.stream)
        self._enqueue_engine(self._contexts[0], self.spec.label)
        self._out.download(self._backend.stream)
        self._device.wait(self._backend.stream)
        if not self._ran:
            self._ran = True
            self._engines[0].keep_kernels()
        return self._out.get()
