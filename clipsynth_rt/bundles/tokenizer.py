"""Prompts to token ids, through the bundle's own tokenizer.json."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.errors import BundleError, InputError

logger = logging.getLogger(__name__)

LENGTH_MULTIPLE = 8
"""Tokens; what a prompt is filled up to costs less than a millisecond."""


class Tokenizer:
    """A thin layer over the ``tokenizers`` library.

    Args:
        data: What tokenizer.json holds.
        context_length: Most tokens that the text encoder reads, special ones included.
        path: Where it came from, for messages.

    Raises:
        BundleError: If it is no tokenizer.
    """

    def __init__(
        self, data: bytes, context_length: int, path: str | Path = "tokenizer.json"
    ) -> None:
        import tokenizers

        try:
            tokenizer = tokenizers.Tokenizer.from_buffer(data)
        # the library raises bare Exception for whatever is wrong with the file
        except Exception as error:
            raise BundleError(f"{path}: not a tokenizer ({error})") from error
        # a stored padding length would make every prompt as long as the longest possible one
        padding = tokenizer.padding or {}
        pad_id, pad_token = int(padding.get("pad_id", 0)), str(padding.get("pad_token", "[PAD]"))
        # few lengths, so that a backend that makes kernels for each has them after the first prompt
        multiple = None if context_length % LENGTH_MULTIPLE else LENGTH_MULTIPLE
        tokenizer.enable_padding(pad_id=pad_id, pad_token=pad_token, pad_to_multiple_of=multiple)
        tokenizer.enable_truncation(context_length)
        self._tokenizer = tokenizer
        self.context_length = context_length

    def tokenize(self, prompts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the ids and the attention mask of ``prompts``, both int64 [B, L].

        L is the longest prompt's length, filled up to a multiple of ``LENGTH_MULTIPLE`` where the
        context length is one. A prompt that needs more than ``context_length`` tokens is
        cut, with a warning on this module's logger.

        Raises:
            InputError: If a prompt is not valid Unicode.
        """
        try:
            encodings = self._tokenizer.encode_batch(list(prompts))
        # lone surrogates, from arguments that are not UTF-8
        except (UnicodeEncodeError, TypeError) as error:
            raise InputError(f"query is not valid Unicode text: {prompts!r:.80}") from error
        cut = [p for p, encoding in zip(prompts, encodings, strict=True) if encoding.overflowing]
        if cut:
            # one line, however many templates the query stands in
            logger.warning(
                "query cut to the first %d tokens: %.60s...", self.context_length, cut[0]
            )
        ids = np.array([encoding.ids for encoding in encodings], np.int64)
        mask = np.array([encoding.attention_mask for encoding in encodings], np.int64)
        return ids, mask
