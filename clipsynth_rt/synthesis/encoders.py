"""Texts and pictures to the embeddings that a denoiser is conditioned on."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.bundles.tokenizer import Tokenizer
from clipsynth_rt.errors import NumericalError
from clipsynth_rt.synthesis.images import load_image
from clipsynth_rt.synthesis.options import check_query
from clipsynth_rt.synthesis.sessions import Sessions

if TYPE_CHECKING:
    from PIL.Image import Image

Embedding = NDArray[np.float32]
Tokens = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Ids and attention mask, int64 [B, L] each."""


class Encoders:
    """CLIP's two towers over a bundle's graphs.

    Args:
        sessions: The loaded graphs.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions, self._bundle = sessions, sessions.bundle
        if self._bundle.manifest.condition.tokenizer is not None:
            # beside the other graphs: a vocabulary takes longer to read than a prompt to encode
            sessions.on_load("text_encoder", lambda: self._tokenizer)

    def encode_text(
        self, queries: Sequence[str], templates: Sequence[str] | None = None
    ) -> Embedding:
        """Return CLIP text embeddings, float32 [B, D], of unit length.

        The embedding of a query in several templates is their normalised mean (Radford et al.
        2021, arXiv:2103.00020, section 3.1.4).

        Raises:
            InputError: If a query is blank.
            NumericalError: If an embedding is not finite.
        """
        texts = [check_query(query) for query in queries]
        known: dict[str, Embedding] = {}
        for text in texts:
            if text in known:
                continue
            templates = templates or self._bundle.manifest.condition.templates
            # not str.format: braces in a query or a template are just characters
            ids, mask = self.tokenize([t.replace("{query}", text) for t in templates])
            # one run a query: quantised graphs scale activations by the whole batch, and a clip
            # must not depend on its neighbours
            inputs = {"input_ids": ids, "attention_mask": mask}
            embeddings = self._sessions.get("text_encoder").run(inputs)["embedding"]
            known[text] = _unit(embeddings.mean(axis=0), "text_encoder")
        return np.stack([known[text] for text in texts])

    def encode_images(self, images: Sequence[str | Path | Image]) -> Embedding:
        """Return CLIP image embeddings, float32 [B, D], of unit length.

        Raises:
            InputError: If a picture cannot be read, or the bundle has no image encoder.
            NumericalError: If an embedding is not finite.
        """
        size = self._bundle.manifest.condition.image_size
        session = self._sessions.get("image_encoder")
        rows = []
        for image in images:
            pixels = load_image(image, size)[None]
            rows.append(_unit(session.run({"image": pixels})["embedding"][0], "image_encoder"))
        return np.stack(rows)

    def tokenize(self, prompts: Sequence[str]) -> Tokens:
        """Return ids and attention mask of prompts, both int64 [B, L].

        Raises:
            InputError: If a prompt is not valid Unicode.
        """
        return self._tokenizer.tokenize(prompts)

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer:
        length = self._bundle.manifest.condition.context_length
        spec = self._bundle.tokenizer_spec()
        return Tokenizer(self._bundle.read(spec), length, self._bundle.path / spec.path)


def _unit(vector: Embedding, where: str) -> Embedding:
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0.0:
        raise NumericalError(f"{where} gave an embedding of length {length}")
    return (vector / length).astype(np.float32)
