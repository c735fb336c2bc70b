"""Embeddings of sounds by networks that others trained, where the user has their weights.

Each is loaded only when it is named, from a local file or folder: ``vggish=FILE``, ``panns=FILE``,
``clap=FOLDER``, and ``inception=FILE`` for mel images. Nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import resample_poly
from torch import Tensor, nn

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.errors import InputError, MissingExtraError
from clipsynth_training.evaluate.cache import digest, file_hash
from clipsynth_training.mel import MelSpectrogram

Audio = NDArray[np.float32]
EXTRA = "judges"
BATCH = 16


class Embedder(Protocol):
    """Turns waveforms into vectors.

    Attributes:
        name: ``vggish``, ``panns``, ``clap`` or ``inception``.
        fingerprint: Hash of its weights.
    """

    name: str
    fingerprint: str

    def embed(self, clips: Sequence[Audio], sample_rate: int) -> NDArray[np.float32]:
        """Return float32 [N, E] of waveforms [T]."""


class VGGish:
    """The embedding that the Fréchet audio distance was proposed with, averaged over a clip.

    Source:
        Hershey et al. 2017, arXiv:1609.09430; Kilgour et al. 2019, arXiv:1812.08466.
    """

    name = "vggish"

    def __init__(self, weights: Path) -> None:
        with _library("torchvggish"):
            import torchvggish.torchvggish as library
            from torchvggish import vggish_input
        self._examples = vggish_input.waveform_to_examples
        self.fingerprint = file_hash(weights)
        self._model = library.VGG(library.make_layers(), postprocess=False)
        _load(self._model, _read(weights), weights)

    @torch.inference_mode()
    def embed(self, clips: Sequence[Audio], sample_rate: int) -> NDArray[np.float32]:
        """Return float32 [N, 128]; a clip of under 0.96 s is repeated to that."""
        rows = []
        for clip in resampled(clips, sample_rate, 16000):
            sound = np.resize(clip, max(len(clip), 15600 + 400))
            examples = self._examples(sound.astype(np.float64), 16000).detach()
            rows.append(self._model(examples).mean(dim=0).numpy())
        return np.stack(rows)


class PANNs:
    """Cnn14 of the pretrained audio neural networks, trained on AudioSet.

    Source:
        Kong et al. 2020, arXiv:1912.10211.
    """

    name = "panns"

    def __init__(self, weights: Path) -> None:
        with _library("panns_hear"):
            import panns_hear
        self._library = panns_hear
        self.fingerprint = file_hash(weights)
        with _loading(weights):
            self._model = panns_hear.load_model(str(weights), torch.device("cpu"))

    @torch.inference_mode()
    def embed(self, clips: Sequence[Audio], sample_rate: int) -> NDArray[np.float32]:
        """Return float32 [N, 2048]."""
        sounds = resampled(clips, sample_rate, self._model.sample_rate)

        def run(batch: Tensor) -> Tensor:
            found: Tensor = self._library.get_scene_embeddings(batch, self._model)
            return found

        return _in_batches(np.stack(sounds), run)


class Clap:
    """A CLAP model in the form that transformers reads; also gives the CLAP score.

    Source:
        Wu et al. 2023, arXiv:2211.06687.
    """

    name = "clap"

    def __init__(self, folder: Path) -> None:
        with _library("transformers"):
            from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; clap=FOLDER is a saved ClapModel")
        files = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors"))
        self.fingerprint = digest({path.name: file_hash(path) for path in files})
        with _loading(folder):
            local: dict[str, Any] = {"local_files_only": True}
            model: Any = ClapModel.from_pretrained(folder, use_safetensors=True, **local)
            self._model = model.eval()
            self._features = ClapFeatureExtractor.from_pretrained(folder, **local)
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **local)

    @torch.inference_mode()
    def embed(self, clips: Sequence[Audio], sample_rate: int) -> NDArray[np.float32]:
        """Return unit vectors, float32 [N, E]."""
        rate = self._features.sampling_rate
        rows = []
        for start in range(0, len(clips), BATCH):
            sounds = resampled(clips[start : start + BATCH], sample_rate, rate)
            # the fused variant would pick windows of a long clip at random; ours are short
            inputs = self._features(sounds, sampling_rate=rate, return_tensors="pt")
            rows.append(self._model.get_audio_features(**inputs).pooler_output.numpy())
        return np.concatenate(rows)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors of texts, float32 [N, E]."""
        tokens = self._tokenizer(list(texts), padding=True, return_tensors="pt")
        return np.asarray(self._model.get_text_features(**tokens).pooler_output.numpy(), np.float32)


class Inception:
    """Inception v3 over mel spectrograms as grey pictures: what FID is measured on.

    Figures under torchvision's weights compare with each other, not with those under the
    TensorFlow weights of Heusel et al.

    Source:
        Dong et al. 2023 (CLIPSynth: FID on mel spectrograms); Heusel et al. 2017, arXiv:1706.08500.
    """

    name = "inception"

    def __init__(self, weights: Path, mel_spec: MelSpec) -> None:
        with _library("torchvision"):
            from torchvision.models import Inception3
        self.fingerprint = file_hash(weights)
        self._spec, self._mel = mel_spec, MelSpectrogram(mel_spec)
        self._model = Inception3(transform_input=False, init_weights=False)
        _load(self._model, _read(weights), weights)
        self._model.fc = nn.Identity()

    @torch.inference_mode()
    def embed(self, clips: Sequence[Audio], sample_rate: int) -> NDArray[np.float32]:
        """Return float32 [N, 2048]; silence is black, full scale white."""
        floor = self._spec.floor_normalised

        def run(batch: Tensor) -> Tensor:
            mel = self._mel(batch)
            # the network reads -1..1; 0 nats is the level of a full-scale tone, give or take
            top = (0.0 - self._spec.mean) / self._spec.std
            grey = ((mel - floor) / (top - floor)).clamp(0.0, 1.0) * 2.0 - 1.0
            image = nn.functional.interpolate(grey[:, None].flip(2), (299, 299), mode="bilinear")
            found: Tensor = self._model(image.expand(-1, 3, -1, -1))
            return found

        return _in_batches(np.stack(clips), run)


def load_embedder(text: str, mel_spec: MelSpec) -> Embedder:
    """Load an embedder named as ``NAME=PATH``.

    Raises:
        InputError: If the name is unknown, or the file is missing or holds something else.
        MissingExtraError: If its library is not installed.
    """
    makers: dict[str, Callable[[Path], Embedder]] = {
        "vggish": VGGish,
        "panns": PANNs,
        "clap": Clap,
        "inception": lambda path: Inception(path, mel_spec),
    }
    name, _, path = text.partition("=")
    if name not in makers:
        raise InputError(
            f"unknown embedding {name!r}; use one of {', '.join(makers)}, as NAME=PATH"
        )
    if not path:
        raise InputError(f"{name}: needs its weights, which do not ship; give {name}=PATH")
    if not Path(path).exists():
        raise InputError(f"{path}: no such file; {name}=PATH names the weights of {name}")
    return makers[name](Path(path))


def resampled(clips: Sequence[Audio], rate: int, wanted: int) -> list[Audio]:
    """Return waveforms at another sample rate."""
    if rate == wanted:
        return list(clips)
    common = math.gcd(rate, wanted)
    up, down = wanted // common, rate // common
    return [resample_poly(clip, up, down).astype(np.float32) for clip in clips]


def _in_batches(sounds: Audio, run: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
    parts = torch.split(torch.from_numpy(sounds), BATCH)
    return np.concatenate([run(part).float().numpy() for part in parts])


@contextlib.contextmanager
def _library(module: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries about their own dependencies
            yield
    except ModuleNotFoundError as error:
        raise MissingExtraError((error.name or module).partition(".")[0], EXTRA) from error


@contextlib.contextmanager
def _loading(path: Path) -> Iterator[None]:
    # torch and transformers raise a dozen kinds of error for files of another kind
    try:
        yield
    except Exception as error:
        raise InputError(f"{path}: cannot be loaded ({' '.join(str(error).split())[:200]})") from (
            error
        )


def _read(path: Path) -> dict[str, Any]:
    with _loading(path):
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        tensors: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return tensors


def _load(model: nn.Module, tensors: dict[str, Any], path: Path) -> None:
    with _loading(path):
        model.load_state_dict(tensors)
    model.eval()
