"""TensorRT engines on a GPU: single graphs, and a whole clip in one CUDA graph."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.backends.session import Array, Session
from clipsynth_rt.backends.tensorrt import api as trt_api
from clipsynth_rt.backends.tensorrt import cuda
from clipsynth_rt.backends.tensorrt.buffers import fill_up, pad_tokens
from clipsynth_rt.backends.tensorrt.captured import CapturedClip, ClipKey, Engine, Player
from clipsynth_rt.backends.tensorrt.engine_cache import EngineCache, is_built, load_engine
from clipsynth_rt.backends.tensorrt.engines import (
    BATCH_SIZES,
    EngineSpec,
    batch_size,
    clip_engines,
    engine_spec,
)
from clipsynth_rt.bundles.bundle import Bundle, GraphFile
from clipsynth_rt.bundles.manifest import DISTILLED, TensorSpec, frame_bucket
from clipsynth_rt.errors import BackendError, ClipSynthError, InputError, ProviderUnavailableError

MAX_GRAPHS = 4
"""Captured clips that are kept with their buffers; the least recently used is dropped first."""
MAX_PLAYERS = 8
"""Single engines that are kept with their buffers, in the same way."""


class TrtBackend:
    """A bundle's engines on one GPU.

    Calls from several threads take turns; two backends have a stream and buffers each and do not
    wait for each other.

    Args:
        bundle: An opened bundle.
        provider: ``tensorrt`` or ``tensorrt-rtx``.
        precision: See ``engines.engine_precision``.
        cache: Of engines; None is the user's.
        library: In place of the provider's own.
        device: In place of this process's own.
        use_graphs: Whether clips are captured into CUDA graphs; off, every call is enqueued anew.

    Raises:
        MissingExtraError: If the provider is not installed.
        ProviderUnavailableError: If it does not load, or there is no usable GPU.
    """

    def __init__(
        self,
        bundle: Bundle,
        provider: str,
        precision: str | Mapping[str, str] | None = None,
        *,
        cache: EngineCache | str | Path | None = None,
        library: trt_api.TensorRTApi | None = None,
        device: cuda.Device | None = None,
        use_graphs: bool = True,
    ) -> None:
        self.bundle, self.provider, self.precision = bundle, provider, precision
        self.use_graphs = use_graphs
        self.cache = cache if isinstance(cache, EngineCache) else EngineCache(cache)
        self.library = library or trt_api.load_library(provider)
        self.device = device or cuda.open_device()
        self.targets = self.library.targets_for(self.device.compute_capability)
        self.stream = self.device.create_stream()
        self.captures = 0
        self.peak_device_bytes = 0
        self._lock = threading.RLock()
        # an engine lives as long as a clip or a session that plays it
        self._engines: weakref.WeakValueDictionary[str, Engine] = weakref.WeakValueDictionary()
        self._clips: OrderedDict[ClipKey, CapturedClip] = OrderedDict()
        self._players: OrderedDict[str, Player] = OrderedDict()
        self._closed = False

    def missing(self, specs: Sequence[EngineSpec]) -> list[EngineSpec]:
        """Return the engines that would have to be built first."""
        return [s for s in specs if not is_built(s, self.library, self.targets, self.cache)]

    def clip(self, key: ClipKey) -> CapturedClip:
        """Return a captured clip, capturing it if it is not among the last ``MAX_GRAPHS``.

        Raises:
            EngineError: If an engine cannot be built, loaded or captured.
            BackendError: If the device is out of memory.
        """
        with self._lock:
            self._check_open()
            if key not in self._clips:
                while len(self._clips) >= MAX_GRAPHS:
                    self._clips.popitem(last=False)[1].close()
                self._clips[key] = CapturedClip(self, key)
                self.captures += 1
                self._note_memory()
            self._clips.move_to_end(key)
            return self._clips[key]

    def play(
        self,
        key: ClipKey,
        inputs: Mapping[str, Array],
    ) -> NDArray[np.float32]:
        """Run a whole clip, and return its waveforms, float32 [B, T].

        Args:
            key: What to capture, if it is not captured yet.
            inputs: As ``CapturedClip.inputs`` lists them.

        Raises:
            InputError: If an input is missing or of another shape.
            EngineError: See ``clip``.
            BackendError: If the GPU fails.
        """
        with self._lock:
            return self.clip(key).play(inputs)

    def session(self, graph: GraphFile) -> TrtSession:
        """Return one graph as a session."""
        return TrtSession(self, graph)

    def run_graph(self, spec: EngineSpec, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one engine once; its buffers are kept for the next time.

        Raises:
            InputError: If an input is missing or of another shape.
            EngineError: If the engine cannot be built or loaded.
            BackendError: If the GPU fails.
        """
        with self._lock:
            self._check_open()
            if spec.label not in self._players:
                while len(self._players) >= MAX_PLAYERS:
                    self._players.popitem(last=False)[1].close()
                self._players[spec.label] = Player(self, spec)
                self._note_memory()
            self._players.move_to_end(spec.label)
            return self._players[spec.label].run(inputs)

    def engine(self, spec: EngineSpec) -> Engine:
        """Return a loaded engine, building it if need be."""
        found = self._engines.get(spec.label)
        if found is None:
            loaded = load_engine(spec, self.library, self.targets, self.cache)
            found = Engine(spec, loaded, self)
            self._engines[spec.label] = found
        return found

    def close(self) -> None:
        """Free all device memory; the backend cannot be used afterwards."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for clip in self._clips.values():
                clip.close()
            for player in self._players.values():
                player.close()
            self._clips.clear()
            self._players.clear()
            self.device.destroy_stream(self.stream)

    def __del__(self) -> None:
        # device memory is not Python's: whoever forgets to close would lose it until the end
        with contextlib.suppress(Exception):
            self.close()

    def __enter__(self) -> TrtBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(f"{self.provider}: this synthesizer is closed; open another")

    def _note_memory(self) -> None:
        self.peak_device_bytes = max(self.peak_device_bytes, self.device.memory_in_use())


class TrtSession(Session):
    """One graph of a bundle, run by engines of fixed shapes.

    A batch is split into the batches that engines exist for, its last part filled up by repeating
    the last clip; tokens are padded to the context length. Frames have to be one of the buckets:
    what to put behind a shorter mel is the caller's to say.
    """

    def __init__(self, backend: TrtBackend, graph: GraphFile) -> None:
        self.name = graph.name
        self._backend, self._graph = backend, graph

    @property
    def provider(self) -> str:
        """``tensorrt`` or ``tensorrt-rtx``."""
        return self._backend.provider

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output by name.

        Raises:
            InputError: If an input does not fit the graph, or no engine holds it.
            EngineError: If an engine cannot be built or loaded.
            BackendError: If the GPU fails.
        """
        sizes = self._sizes(inputs)
        batch = sizes.get("B", 1)
        parts = []
        for start in range(0, batch, BATCH_SIZES[-1]):
            count = min(BATCH_SIZES[-1], batch - start)
            parts.append(self._run_part(inputs, sizes, start, count))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run_part(
        self, inputs: Mapping[str, Array], sizes: Mapping[str, int], start: int, count: int
    ) -> dict[str, Array]:
        # pictures come one by one, and have one engine
        size = 1 if count == 1 else batch_size(count)
        spec = engine_spec(
            self._backend.bundle,
            self.name,
            self._backend.precision,
            batch=size,
            frames=sizes.get("F", 0),
            conditions=sizes.get("G", 1),
        )
        filled = {}
        for name, tensor in self._graph.spec.inputs.items():
            value = inputs[name]
            if "B" in tensor.shape:
                value = fill_up(_rows(value, tensor, start, count), size, tensor.shape.index("B"))
            if "L" in tensor.shape:
                value = pad_tokens(value, spec.shapes[name][tensor.shape.index("L")])
            filled[name] = value
        found = self._backend.run_graph(spec, filled)
        return {name: value[:count] for name, value in found.items()}

    def _sizes(self, inputs: Mapping[str, Array]) -> dict[str, int]:
        """Return the size of each named dimension.

        Raises:
            InputError: If inputs are missing, or do not agree with the graph or each other.
        """
        promised = self._graph.spec.inputs
        if inputs.keys() != promised.keys():
            raise InputError(
                f"{self.name}: inputs are {', '.join(sorted(inputs)) or 'none'} and should be "
                f"{', '.join(sorted(promised))}"
            )
        sizes: dict[str, int] = {}
        for name, tensor in promised.items():
            shape = np.shape(inputs[name])
            fits = len(shape) == len(tensor.shape)
            for have, want in zip(shape, tensor.shape, strict=False):
                fits &= have == (sizes.setdefault(want, have) if isinstance(want, str) else want)
            if not fits:
                raise InputError(
                    f"{self.name}: {name} is {list(shape)} and should be {list(tensor.shape)}"
                )
        return sizes


def probe(provider: str) -> str:
    """Load a provider and the GPU; return the problem, or an empty string if engines run here."""
    try:
        # the cheapest first: many machines have neither
        trt_api.check_installed(provider)
        device = cuda.open_device()
        return trt_api.load_library(provider).refusal(device.compute_capability)
    except ClipSynthError as error:
        return str(error)


def require(provider: str) -> None:
    """Check that a provider asked for by name loads.

    Raises:
        ProviderUnavailableError: If not, with the library's own message.
    """
    if problem := probe(provider):
        raise ProviderUnavailableError(
            f"provider {provider} is not available: {problem}; see clipsynth-rt doctor"
        )


def why_not_ready(
    bundle: Bundle, provider: str, precision: str | Mapping[str, str] | None = None
) -> str:
    """Return which engine of a bundle's default clip is not built, or an empty string."""
    library = trt_api.load_library(provider)
    targets = library.targets_for(cuda.open_device().compute_capability)
    manifest = bundle.manifest
    denoiser = manifest.usual_denoiser
    specs = clip_engines(
        bundle,
        precision,
        batch=1,
        frames=frame_bucket(manifest.diffusion.default_frames, manifest),
        # guidance is in the weights of a distilled denoiser
        guided=denoiser != DISTILLED and manifest.diffusion.guidance_scale != 1.0,
        denoiser=denoiser,
    )
    cache = EngineCache()
    missing = [spec.label for spec in specs if not is_built(spec, library, targets, cache)]
    return f"no engine {missing[0]} is built; run clipsynth-rt build" if missing else ""


def _rows(value: Array, tensor: TensorSpec, start: int, count: int) -> Array:
    axis = tensor.shape.index("B")
    return np.take(value, range(start, start + count), axis)
