"""Facts about a model, written in one place.

Training writes these dataclasses into a checkpoint, export copies them into the bundle's
``manifest.json``, and the runtime reads them; no number is typed twice. Standard library only.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from clipsynth_rt.errors import InputError, ManifestError

SCHEMA_VERSION = 3
"""Version of manifest.json that this package writes; it reads this one and older ones.

2 may hold a second denoiser, ``DISTILLED``; 3 may list ``concepts``.
"""

MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 16 * 2**20

DENOISER = "denoiser_step"
"""The graph of the ordinary denoiser, which takes any number of steps and any guidance."""
DISTILLED = "denoiser_step_distilled"
"""The graph of a denoiser distilled to few steps with guidance in them; not every bundle has it."""
DENOISERS = (DENOISER, DISTILLED)

FRAME_BUCKETS = (176, 352, 704)
"""Lengths that engines are built for, in frames; a clip runs in the smallest that holds it, and a
clip of more frames than the longest is sampled in windows."""

MAX_GUIDANCE = 30.0
"""Guidance scales beyond this only saturate the clipped estimate of x0."""

BOUNDS: dict[str, tuple[float, float]] = {
    "mel.sample_rate": (1_000, 384_000),
    "mel.n_fft": (16, 65_536),
    "mel.hop_length": (16, 65_536),
    "mel.win_length": (16, 65_536),
    "mel.n_mels": (1, 1_024),
    "mel.f_min_hz": (0.0, 192_000.0),
    "mel.f_max_hz": (1.0, 192_000.0),
    "mel.power": (0.1, 4.0),
    "mel.floor": (1e-12, 1e3),
    "mel.mean": (-1e3, 1e3),
    "mel.std": (1e-3, 1e3),
    "diffusion.num_train_timesteps": (1, 100_000),
    "diffusion.time_shift": (1e-3, 1e3),
    "diffusion.num_steps": (1, 100_000),
    "diffusion.guidance_scale": (0.0, MAX_GUIDANCE),
    "diffusion.frames_multiple": (1, 100_000),
    "diffusion.max_frames": (1, 1_000_000),
    "diffusion.default_frames": (1, 1_000_000),
    "diffusion.x0_min": (-1e3, 1e3),
    "diffusion.x0_max": (-1e3, 1e3),
    "condition.dim": (1, 65_536),
    "condition.context_length": (1, 4_096),
    "condition.image_size": (1, 4_096),
}
"""Lowest and highest value of every number: beyond, a clip fails later, or never ends."""

MAX_FRAMES_PER_S = 1_000
MAX_DISTILLED_STEPS = 16
MAX_TEMPLATES = 100
MAX_CONCEPTS = 10_000
MAX_TEXT = 1_000
"""Characters of a name or template."""

T = TypeVar("T")


@dataclass(frozen=True)
class MelSpec:
    """How a waveform becomes a normalised log-mel spectrogram, float32 [B, n_mels, F].

    The defaults are HiFi-GAN's analysis (Kong et al. 2020, arXiv:2010.05646) up to the Nyquist
    frequency (cymbals and rain live above its 8 kHz), with a floor 78 dB below a full-scale tone:
    below it lie only the tails of reverb, which would take up half of the range. Frames are
    ``T / hop_length`` exactly, because the waveform is reflect-padded by
    (n_fft - hop_length) / 2 on each side.
    """

    sample_rate: int = 22050
    n_fft: int = 1024
    hop_length: int = 256
    win_length: int = 1024
    n_mels: int = 80
    f_min_hz: float = 0.0
    f_max_hz: float = 11025.0
    mel_scale: str = "slaney"
    norm: str = "slaney"
    power: float = 1.0
    padding: str = "reflect_same"
    log: str = "natural"
    floor: float = 1e-3
    mean: float = -5.5
    std: float = 1.9

    def frames(self, duration_s: float) -> int:
        """Return how many frames hold ``duration_s`` seconds, rounded up."""
        return max(1, math.ceil(duration_s * self.sample_rate / self.hop_length - 1e-9))

    def seconds(self, num_frames: int) -> float:
        """Return the length in seconds of ``num_frames`` frames."""
        return num_frames * self.hop_length / self.sample_rate

    @property
    def floor_normalised(self) -> float:
        """Value of silence in a normalised mel spectrogram."""
        return (math.log(self.floor) - self.mean) / self.std


@dataclass(frozen=True)
class DiffusionSpec:
    """The noise process that the denoiser was trained on, and how it is sampled by default.

    ``x0_min`` and ``x0_max`` bound the normalised mel: the denoiser step clips its estimate of x0
    to them (static thresholding, Saharia et al. 2022, arXiv:2205.11487), because guidance pushes
    estimates beyond what any sound has. ``time_shift`` k moves the cosine schedule towards noise by
    2 log k in log-SNR, in training and in sampling (Hoogeboom et al. 2023, arXiv:2301.11093): a mel
    spectrogram's neighbours are alike, so coarse structure survives high noise levels.

    ``distilled_steps`` are the step counts that the graph ``DISTILLED`` was made for, the usual one
    first; none where a bundle has no such graph. It takes one network call a step, because guidance
    is in its weights, by DDIM without noise over the times of any other sampling (Salimans & Ho
    2022, arXiv:2202.00512; Meng et al. 2023, arXiv:2210.03142).
    """

    schedule: str = "cosine"
    prediction: str = "v"
    num_train_timesteps: int = 1000
    time_shift: float = 1.0
    num_steps: int = 8
    guidance_scale: float = 2.0
    frames_multiple: int = 8
    max_frames: int = 1376
    default_frames: int = 352
    x0_min: float = -0.742
    x0_max: float = 4.2
    distilled_steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class FileSpec:
    """One file of a bundle: path relative to the manifest, and its SHA-256 in hex."""

    path: str
    sha256: str


@dataclass(frozen=True)
class ConditionSpec:
    """The CLIP embedding that conditions the denoiser, float32 [B, dim], of unit length."""

    encoder: str
    dim: int
    context_length: int
    templates: tuple[str, ...]
    image_size: int
    tokenizer: FileSpec | None = None


@dataclass(frozen=True)
class TensorSpec:
    """Type and shape of one graph input or output; a string is a named dynamic dimension."""

    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphSpec:
    """One ONNX graph: its interface, and one file a precision."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    files: dict[str, FileSpec]


@dataclass(frozen=True)
class Manifest:
    """Everything that a bundle says about itself (manifest.json).

    ``default_precision`` names the file that the runtime takes for each graph where the caller
    does not choose; ``concepts`` are the names that the voice learnt, by group (empty where a
    bundle does not say); ``parity`` is precision -> graph -> measured errors; ``metrics`` and
    ``provenance`` are free-form records of how good the voice is and where it came from.
    """

    schema_version: int
    name: str
    license: str
    mel: MelSpec
    diffusion: DiffusionSpec
    condition: ConditionSpec
    graphs: dict[str, GraphSpec]
    default_precision: dict[str, str]
    concepts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    parity: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def usual_denoiser(self) -> str:
        """The graph that a plain query runs: ``DISTILLED`` where there is one."""
        return DISTILLED if self.diffusion.distilled_steps else DENOISER

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Manifest:
        """Read a manifest from parsed JSON, refusing what it does not know.

        Raises:
            ManifestError: If the schema is newer, a key is unknown or missing, a value has the
                wrong type, or two parts disagree; the message carries the field's path.
        """
        version = data.get("schema_version") if isinstance(data, Mapping) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ManifestError(
                f"schema_version {version} is newer than {SCHEMA_VERSION}, the newest that this "
                "clipsynth-rt reads; upgrade with: pip install -U clipsynth-rt"
            )
        manifest = decode(cls, data, "")
        manifest.check()
        return manifest

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data; the inverse of ``from_dict``."""
        data: dict[str, Any] = encode(self)
        return data

    def check(self) -> None:
        """Check that the parts agree with each other.

        Raises:
            ManifestError: If they do not.
        """
        self._check_texts()
        self._check_numbers()
        for name in ("text_encoder", DENOISER, "vocoder"):
            if name not in self.graphs:
                raise ManifestError(f"graphs.{name}: missing; a bundle cannot speak without it")
        mels, dim = self.mel.n_mels, self.condition.dim
        expect = [
            (DENOISER, "inputs", "x", 1, mels, "mel.n_mels"),
            (DENOISER, "inputs", "condition", 2, dim, "condition.dim"),
            ("vocoder", "inputs", "mel", 1, mels, "mel.n_mels"),
            ("text_encoder", "outputs", "embedding", 1, dim, "condition.dim"),
        ]
        if "image_encoder" in self.graphs:
            expect.append(("image_encoder", "outputs", "embedding", 1, dim, "condition.dim"))
        for graph, side, tensor, axis, value, source in expect:
            where = f"graphs.{graph}.{side}.{tensor}"
            spec = getattr(self.graphs[graph], side).get(tensor)
            if spec is None or len(spec.shape) <= axis:
                raise ManifestError(f"{where}: missing or of too few dimensions")
            if spec.shape[axis] != value:
                raise ManifestError(f"{where}: {spec.shape[axis]} differs from {source} {value}")
        for graph, graph_spec in self.graphs.items():
            chosen = self.default_precision.get(graph)
            if chosen not in graph_spec.files:
                raise ManifestError(
                    f"default_precision.{graph}: {chosen!r} is not one of "
                    f"{sorted(graph_spec.files)}"
                )
        self._check_distilled()
        if self.diffusion.schedule != "cosine" or self.diffusion.prediction != "v":
            raise ManifestError("diffusion: only the cosine schedule with v-prediction is known")
        if not self.condition.templates:
            raise ManifestError("condition.templates: at least one is needed")
        for template in self.condition.templates:
            if "{query}" not in template:
                raise ManifestError(f"condition.templates: {template!r} has no {{query}}")

    def _check_texts(self) -> None:
        """Refuse texts that a terminal would obey, and more of them than a clip can use."""
        condition, concepts = self.condition, [n for names in self.concepts.values() for n in names]
        if len(condition.templates) > MAX_TEMPLATES:
            raise ManifestError(
                f"condition.templates: {len(condition.templates)}; at most {MAX_TEMPLATES}"
            )
        if len(concepts) > MAX_CONCEPTS:
            raise ManifestError(f"concepts: {len(concepts)}; at most {MAX_CONCEPTS}")
        graphs = [(f"graphs.{name}", graph) for name, graph in self.graphs.items()]
        texts = [
            ("name", self.name),
            ("license", self.license),
            ("condition.encoder", condition.encoder),
            *(("condition.templates", template) for template in condition.templates),
            *(("concepts", text) for text in (*self.concepts, *concepts)),
            *(("graphs", name) for name in self.graphs),
            *((where, precision) for where, graph in graphs for precision in graph.files),
        ]
        for where, text in texts:
            if not text.isprintable():
                raise ManifestError(f"{where}: {text!a:.80} has control characters")
            if len(text) > MAX_TEXT:
                raise ManifestError(f"{where}: {len(text)} characters; at most {MAX_TEXT}")

    def _check_numbers(self) -> None:
        """Refuse numbers that would only fail later, or make a clip endless."""
        for where, (low, high) in BOUNDS.items():
            part, name = where.split(".")
            value = getattr(getattr(self, part), name)
            if not low <= value <= high:
                raise ManifestError(f"{where}: {value!r:.60} is not from {low:,g} to {high:,g}")
        mel, diffusion = self.mel, self.diffusion
        if mel.n_fft < mel.hop_length or (mel.n_fft - mel.hop_length) % 2:
            raise ManifestError(
                f"mel.n_fft: {mel.n_fft} is not hop_length {mel.hop_length} plus an even number"
            )
        if mel.win_length > mel.n_fft:
            raise ManifestError(f"mel.win_length: {mel.win_length} is more than n_fft {mel.n_fft}")
        if mel.sample_rate > MAX_FRAMES_PER_S * mel.hop_length:
            raise ManifestError(
                f"mel.hop_length: {mel.hop_length} makes over {MAX_FRAMES_PER_S:,} frames a second"
            )
        if not mel.f_min_hz < mel.f_max_hz <= mel.sample_rate / 2:
            raise ManifestError(
                f"mel.f_max_hz: {mel.f_max_hz:g} is not from f_min_hz {mel.f_min_hz:g} to half the "
                f"sample rate {mel.sample_rate / 2:g}"
            )
        if diffusion.x0_min >= diffusion.x0_max:
            raise ManifestError(f"diffusion.x0_min: not below x0_max {diffusion.x0_max}")
        most = diffusion.max_frames - diffusion.max_frames % diffusion.frames_multiple
        if most == 0 or diffusion.default_frames > most:
            name = "frames_multiple" if most == 0 else "default_frames"
            raise ManifestError(f"diffusion.{name}: more than max_frames {diffusion.max_frames}")
        if diffusion.num_steps > diffusion.num_train_timesteps:
            raise ManifestError("diffusion.num_steps: more than num_train_timesteps")

    def _check_distilled(self) -> None:
        """Check that there is a distilled denoiser where its steps are named, and only there."""
        counts, most = self.diffusion.distilled_steps, self.diffusion.num_train_timesteps
        where = "diffusion.distilled_steps"
        if len(counts) > MAX_DISTILLED_STEPS:
            raise ManifestError(f"{where}: {len(counts)} numbers; at most {MAX_DISTILLED_STEPS}")
        for count in counts:
            if not 1 <= count <= most:
                raise ManifestError(f"{where}: {count!r:.60} is not from 1 to {most}")
        if len(set(counts)) < len(counts):
            raise ManifestError(f"{where}: {list(counts)!r:.60} names a number twice")
        graph = self.graphs.get(DISTILLED)
        if graph is None:
            if counts:
                raise ManifestError(f"graphs.{DISTILLED}: missing, and {where} names steps of it")
            return
        if not counts:
            raise ManifestError(f"{where}: empty, and graphs.{DISTILLED} is there")
        usual = self.graphs[DENOISER]
        for side in ("inputs", "outputs"):
            if getattr(graph, side) != getattr(usual, side):
                raise ManifestError(f"graphs.{DISTILLED}.{side}: other than {DENOISER}'s")


def encode(value: Any) -> Any:
    """Return ``value`` (a spec, or containers of them) as plain JSON data."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def decode(kind: type[T], data: Any, path: str = "") -> T:
    """Read a spec of type ``kind`` from plain JSON data.

    Args:
        kind: A dataclass of this module, or any annotation that one uses.
        data: Parsed JSON.
        path: Where ``data`` stands in the document, for messages (``mel.hop_length``).

    Raises:
        ManifestError: If a key is unknown or missing or a value has the wrong type.
    """
    return typing.cast(T, _decode(kind, data, path))


def _decode(kind: Any, data: Any, path: str) -> Any:
    origin = typing.get_origin(kind)
    if kind is Any:
        return data
    if origin in (typing.Union, types.UnionType):
        return _decode_union(kind, data, path)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data, path)
    if origin is dict:
        if not isinstance(data, Mapping):
            raise ManifestError(f"{path or 'manifest'}: expected an object, got {data!r:.60}")
        item = typing.get_args(kind)[1]
        return {str(k): _decode(item, v, f"{path}.{k}") for k, v in data.items()}
    if origin is tuple:
        if not isinstance(data, (list, tuple)):
            raise ManifestError(f"{path}: expected a list, got {data!r:.60}")
        item = typing.get_args(kind)[0]
        return tuple(_decode(item, v, f"{path}[{i}]") for i, v in enumerate(data))
    if kind is float and type(data) in (int, float):
        try:
            value = float(data)
        except OverflowError:  # an integer of hundreds of digits
            value = math.inf
        if not math.isfinite(value):
            raise ManifestError(f"{path}: {data!r:.60} is not finite")
        return value
    if type(data) is not kind:
        raise ManifestError(f"{path}: expected {kind.__name__}, got {data!r:.60}")
    return data


def _decode_union(kind: Any, data: Any, path: str) -> Any:
    options = typing.get_args(kind)
    if data is None and type(None) in options:
        return None
    for option in options:
        if option is type(None):
            continue
        if dataclasses.is_dataclass(option) or type(data) is option:
            return _decode(option, data, path)
    raise ManifestError(f"{path}: {data!r:.60} is not one of the types allowed here")


def _decode_dataclass(kind: Any, data: Any, path: str) -> Any:
    where = path or "manifest"
    if not isinstance(data, Mapping):
        raise ManifestError(f"{where}: expected an object, got {data!r:.60}")
    prefix = f"{path}." if path else ""
    known = {f.name: f for f in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    for key in data:
        if key not in known:
            raise ManifestError(f"{prefix}{key}: unknown key; written by another version?")
    values = {}
    for name, f in known.items():
        if name in data:
            values[name] = _decode(hints[name], data[name], f"{prefix}{name}")
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ManifestError(f"{prefix}{name}: missing")
    return kind(**values)


def frame_buckets(manifest: Manifest) -> tuple[int, ...]:
    """Return the lengths of a bundle's engines: ``FRAME_BUCKETS``, as far as its clips go."""
    diffusion = manifest.diffusion
    multiple = diffusion.frames_multiple
    longest = diffusion.max_frames - diffusion.max_frames % multiple
    rounded = (-(-frames // multiple) * multiple for frames in FRAME_BUCKETS)
    return tuple(sorted({min(frames, longest) for frames in rounded}))


def frame_bucket(num_frames: int, manifest: Manifest) -> int:
    """Return the smallest bucket that holds ``num_frames``.

    Raises:
        InputError: If none does.
    """
    buckets = frame_buckets(manifest)
    found = next((bucket for bucket in buckets if bucket >= num_frames), None)
    if found is None:
        raise InputError(
            f"no engine holds {num_frames} frames; the longest is {buckets[-1]} "
            f"({manifest.mel.seconds(buckets[-1]):.2f} s): shorten the clip, or use --provider "
            "cuda or cpu"
        )
    return found
