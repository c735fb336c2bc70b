"""The gap between text and image embeddings: how wide it is, and what narrows it.

A denoiser that learnt from pictures is asked by texts, which lie elsewhere in the CLIP space (Liang
et al. 2022, arXiv:2203.02053). Noise on the training conditions is one remedy
(``optimiser.condition_noise``); the cures here need no training of the denoiser.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.errors import InputError
from clipsynth_training.checkpoint import hash_weights
from clipsynth_training.clip import bert, frame_embeddings, image_tower, published_network
from clipsynth_training.clip import encoder as encoders
from clipsynth_training.clip import open_clip as open_clip_encoder
from clipsynth_training.clip import prior as priors
from clipsynth_training.clip.encoder import Clip
from clipsynth_training.clip.prior import load_prior
from clipsynth_training.evaluate.cache import code_version, digest, file_hash
from clipsynth_training.evaluate.measures.intervals import mean_interval, statistic_interval

Embeddings = NDArray[np.float32]
CURES = ("none", "mean_shift", "prior")
ENCODER_CODE = code_version(
    encoders, frame_embeddings, open_clip_encoder, bert, image_tower, published_network
)


@dataclass(frozen=True)
class Clouds:
    """Matched embeddings of the corpus in both modalities, of unit length.

    Attributes:
        image: Of clips' pictures, float32 [N, D].
        text: Of concepts' names in the encoder's templates, float32 [C, D].
        label: Concept of each clip, int64 [N].
    """

    image: Embeddings
    text: Embeddings
    label: NDArray[np.int64]

    def measure(self, image: Embeddings | None = None, text: Embeddings | None = None) -> Any:
        """Return the gap, of these embeddings or of cured ones in their place.

        Returns:
            ``centroid_distance`` between the clouds' means (0 is no gap, 2 the widest), and
            ``matched_cosine`` of a picture with its own concept's text, with 95% intervals.

        Source:
            Liang et al. 2022, arXiv:2203.02053, section 4.
        """
        pictures = self.image if image is None else image
        texts = self.text if text is None else text
        # both means over clips, so that concepts weigh alike
        matched = texts[self.label]

        def distance(rows: NDArray[np.int64]) -> float:
            return float(np.linalg.norm((pictures[rows] - matched[rows]).mean(axis=0)))

        everything = np.arange(len(pictures))
        value = distance(everything)
        cosine = (pictures * matched).sum(axis=1)
        return {
            "centroid_distance": value,
            "centroid_distance_interval": statistic_interval(value, len(everything), distance),
            "matched_cosine": float(cosine.mean()),
            "matched_cosine_interval": mean_interval(cosine),
        }


@dataclass(frozen=True)
class Cure:
    """What is done to query embeddings before the denoiser reads them.

    Attributes:
        name: One of ``CURES``.
        fingerprint: Of everything that decides it.
        text: Text embeddings [B, D] -> conditions [B, D].
        image: Pictures uint8 [B, S, S, 3] -> conditions [B, D].
    """

    name: str
    fingerprint: str
    text: Callable[[Embeddings], Embeddings]
    image: Callable[[NDArray[np.uint8]], Embeddings]


def check_cure(name: str | None, prior: str | Path | None) -> None:
    """Check a cure's name, None for no choice, and that it has what it needs.

    Raises:
        InputError: If not.
    """
    if name is not None and name not in CURES:
        raise InputError(f"unknown cure {name!r}; use one of {', '.join(CURES)}")
    if name == "prior" and prior is None:
        raise InputError("cure prior needs --prior FOLDER: run clipsynth-rt train prior first")


def make_cure(name: str, clip: Clip, clouds: Clouds, prior: str | Path | None = None) -> Cure:
    """Return a cure.

    ``none`` takes the towers' embeddings as they are. ``mean_shift`` moves a query by the
    difference of the clouds' means (Liang et al. 2022, section 5). ``prior`` maps a text to the
    image embedding expected for it (Dong et al. 2023, arXiv:2306.09635, CLIPSonic), and leaves
    pictures alone.

    Raises:
        InputError: If the name is unknown, or ``prior`` is asked for without a folder.
        CheckpointError: If the prior cannot be read.
    """
    check_cure(name, prior)
    text: Callable[[Embeddings], Embeddings] = lambda x: x  # noqa: E731
    image: Callable[[Embeddings], Embeddings] = lambda x: x  # noqa: E731
    basis = {"cure": name, "encoder": encoder_fingerprint(clip), "code": CURE_CODE}
    if name == "mean_shift":
        shift = (clouds.image - clouds.text[clouds.label]).mean(axis=0)
        basis["shift"] = shift.tolist()
        text, image = (lambda x: _unit(x + shift)), (lambda x: _unit(x - shift))
    elif name == "prior":
        if prior is None:
            raise InputError(
                "cure prior: needs --prior FOLDER; make it with clipsynth-rt train prior"
            )
        network = load_prior(prior)
        basis["prior"] = prior_fingerprint(prior)
        if network.dim != clouds.text.shape[1]:
            raise InputError(
                f"{prior}: its embeddings have {network.dim} dimensions, this encoder's "
                f"{clouds.text.shape[1]}; train the prior with this encoder"
            )
        text = network.apply_to

    def of_pictures(pictures: NDArray[np.uint8]) -> Embeddings:
        return image(clip.encode_images(pictures).numpy())

    return Cure(name, digest(basis), text, of_pictures)


def encoder_fingerprint(clip: Clip) -> str:
    """Return one hash of what decides an encoder's embeddings: weights, tokens, templates, code."""
    found = hashlib.sha256(clip.tokenizer.to_str().encode())
    for tower in (clip.image_tower, clip.text_tower):
        hash_weights(tower, found)
    settings = [clip.context_length, clip.image_size, list(clip.templates)]
    return digest({"towers": found.hexdigest(), "settings": settings, "code": ENCODER_CODE})


def prior_fingerprint(folder: str | Path) -> str:
    """Return one hash of a prior's files.

    Raises:
        DataError: If one cannot be read.
    """
    files = [Path(folder) / f"prior.{end}" for end in ("safetensors", "json")]
    return digest({path.name: file_hash(path) for path in files})


def _unit(x: Embeddings) -> Embeddings:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


CURE_CODE = code_version(make_cure, _unit, priors)
