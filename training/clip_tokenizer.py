"""CLIP's byte-pair tokenizer as a ``tokenizers`` object, so that the runtime can read it."""

from __future__ import annotations

from typing import Any

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from clipsynth_rt.errors import CheckpointError

# Radford et al. 2021, arXiv:2103.00020, section 2.4: contractions, words, single digits, the rest.
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


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
