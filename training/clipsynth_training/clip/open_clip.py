"""Any open_clip model as the CLIP encoder, with a tokenizer that the runtime can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from torch import Tensor, nn

from clipsynth_rt.errors import CheckpointError, MissingExtraError
from clipsynth_training.clip.encoder import Clip

# Radford et al. 2021, arXiv:2103.00020, section 2.4: contractions, words, single digits, the rest.
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class OpenClipText(nn.Module):
    """open_clip's text encoder with the interface of ``TextTower``."""

    def __init__(self, model: nn.Module, context_length: int) -> None:
        super().__init__()
        self.model = model
        self.context_length = context_length

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return float32 [B, D]; shorter rows are padded, as open_clip wants its full context."""
        ids = F.pad(input_ids * attention_mask, (0, self.context_length - input_ids.shape[1]))
        return F.normalize(self.model.encode_text(ids).float(), dim=-1)


class OpenClipImage(nn.Module):
    """open_clip's image encoder with its input normalisation inside."""

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Return float32 [B, D] for RGB ``image`` [B, 3, S, S] in [0, 1]."""
        return F.normalize(self.model.encode_image((image - self.mean) / self.std).float(), dim=-1)


def load_open_clip(name: str, pretrained: str | None, allow_random: bool = False) -> Clip:
    """Load an open_clip model; ``clip.load_clip`` describes the arguments.

    Raises:
        CheckpointError: If there is no such model, or its weights cannot be loaded.
        MissingExtraError: If open_clip is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise MissingExtraError("open_clip_torch", "train") from error
    on_hub = name.startswith("hf-hub:")
    if not on_hub and name not in open_clip.list_models():
        raise CheckpointError(
            f"{name}: neither a checkpoint folder nor an open_clip model; "
            "open_clip.list_models() names those that there are"
        )
    if pretrained is None and not on_hub and not allow_random:
        raise CheckpointError(f"{name}: no weights named; give a pretrained tag or a checkpoint")
    try:
        model = open_clip.create_model(name, pretrained=pretrained).eval()
    except Exception as error:  # hub, network, file and shape errors, of a dozen types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{name}: the weights {pretrained or 'of the hub'} cannot be loaded ({reason:.160})"
        ) from error
    size = model.visual.image_size
    size = size[0] if isinstance(size, (tuple, list)) else size
    tokenizer = open_clip_tokenizer(open_clip.get_tokenizer(name))
    context = int(getattr(model, "context_length", 77))
    with torch.no_grad():
        dim = model.encode_image(torch.zeros(1, 3, size, size)).shape[-1]
    return Clip(
        name=f"open_clip:{name}:{pretrained}",
        text_tower=OpenClipText(model, context).eval(),
        image_tower=OpenClipImage(model, model.visual.image_mean, model.visual.image_std).eval(),
        tokenizer=tokenizer,
        dim=dim,
        image_size=size,
        context_length=context,
        facts={"kind": "open_clip", "name": name, "pretrained": pretrained},
    )


def open_clip_tokenizer(tokenizer: Any) -> Tokenizer:
    """Return ``tokenizer``, one of open_clip's, as a ``tokenizers.Tokenizer``.

    Args:
        tokenizer: What ``open_clip.get_tokenizer`` returned.

    Raises:
        CheckpointError: If it is of a kind that has no ``tokenizer.json``.
    """
    backend = getattr(getattr(tokenizer, "tokenizer", None), "backend_tokenizer", None)
    if backend is not None:  # a Hugging Face tokenizer already holds one
        result = Tokenizer.from_str(backend.to_str())
        result.no_padding()
        result.no_truncation()
        return result
    if not hasattr(tokenizer, "bpe_ranks"):
        raise CheckpointError(
            f"open_clip tokenizer {type(tokenizer).__name__} cannot be exported; "
            "choose a model with CLIP's own tokenizer"
        )
    end = "<end_of_text>"
    start = "<start_of_text>"
    vocab = dict(tokenizer.encoder)
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    result = Tokenizer(
        BPE(vocab=vocab, merges=merges, end_of_word_suffix="</w>", unk_token=end, dropout=None)
    )
    result.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    result.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    result.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, vocab[start]), (end, vocab[end])]
    )
    result.decoder = decoders.ByteLevel()
    return result
