"""Prompts to token ids, through the bundle's own tokenizer.json."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.errors import BundleError, InputError

logger = logging.getLogger(__name__)

LENGTH_MULTIPLE = 8
"""Tokens; what a prompt is filled up to costs less than a millisecond."""

MAX_BYTES = 32 * 2**20
"""Of tokenizer.json; the vocabularies of published CLIP models take 4 MB at most."""

KINDS = {
    "normalizer": frozenset(
        {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Replace", "Sequence"}
        | {"Strip", "StripAccents"}
    ),
    "pre_tokenizer": frozenset(
        {"BertPreTokenizer", "ByteLevel", "Digits", "Metaspace", "Punctuation", "Sequence"}
        | {"Split", "Whitespace", "WhitespaceSplit"}
    ),
    "model": frozenset({"BPE", "Unigram", "WordLevel", "WordPiece"}),
    "post_processor": frozenset(
        {"BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing"}
    ),
}
"""Parts that a bundle's tokenizer may have. ``Precompiled`` panics on damaged tables."""

PATTERNS = frozenset(
    {
        r"\s+",
        # CLIP's words (clipsynth_training.clip.open_clip)
        r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
        # GPT-2's words
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    }
)
"""Regular expressions that a bundle's tokenizer may have: others may take exponential time."""

MAX_PARTS = 16
"""Members of all sequences of a normaliser or pre-tokeniser."""

_TRIALS = (
    "",
    "drum",
    "a dog's bark, 2 times!",
    "Türklingel स्वर 太鼓 🥁 e\u0301 \u200b\x07",
    "a" * 2000,
)
"""Every tokenizer encodes these when it is loaded."""


class Tokenizer:
    """A thin layer over the ``tokenizers`` library.

    Args:
        data: What tokenizer.json holds.
        context_length: Most tokens that the text encoder reads, special ones included.
        path: Where it came from, for messages.

    Raises:
        BundleError: If it is no tokenizer, has parts beyond ``KINDS`` and ``PATTERNS``, or fails
            on one of the texts that it is tried on.
    """

    def __init__(
        self, data: bytes, context_length: int, path: str | Path = "tokenizer.json"
    ) -> None:
        import tokenizers

        self._path = path
        if len(data) > MAX_BYTES:
            raise BundleError(f"{path}: {len(data):,} bytes; at most {MAX_BYTES:,}")
        _check_parts(data, path)
        with self._reported("not a tokenizer"):
            tokenizer = tokenizers.Tokenizer.from_buffer(data)
        # a stored padding length would make every prompt as long as the longest possible one
        padding = tokenizer.padding or {}
        pad_id, pad_token = int(padding.get("pad_id", 0)), str(padding.get("pad_token", "[PAD]"))
        # few lengths, so that a backend that makes kernels for each has them after the first prompt
        multiple = None if context_length % LENGTH_MULTIPLE else LENGTH_MULTIPLE
        tokenizer.enable_padding(pad_id=pad_id, pad_token=pad_token, pad_to_multiple_of=multiple)
        tokenizer.enable_truncation(context_length)
        self._tokenizer = tokenizer
        self.context_length = context_length
        for text in _TRIALS:
            with self._reported("fails on a text"):
                tokenizer.encode_batch([text])

    @contextlib.contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        """Turn what the library raises into a BundleError.

        Raises:
            BundleError: For a bare Exception, and for a panic of its Rust code: a BaseException.
        """
        try:
            yield
        except (KeyboardInterrupt, SystemExit, UnicodeEncodeError, TypeError):
            raise
        except BaseException as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BundleError(f"{self._path}: {what} ({reason:.200})") from error

    def tokenize(self, prompts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the ids and the attention mask of ``prompts``, both int64 [B, L].

        L is the longest prompt's length, filled up to a multiple of ``LENGTH_MULTIPLE`` where the
        context length is one. A prompt that needs more than ``context_length`` tokens is
        cut, with a warning on this module's logger.

        Raises:
            InputError: If a prompt is not valid Unicode.
        """
        try:
            with self._reported("fails on a text"):
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


def _check_parts(data: bytes, path: str | Path) -> None:
    """Refuse parts that may panic, take exponential time or multiply a text.

    Raises:
        BundleError: If there is one, or ``data`` is no tokenizer.
    """
    try:
        whole = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not a tokenizer ({error!s:.200})") from error
    if not isinstance(whole, dict):
        raise BundleError(f"{path}: not a tokenizer (expected an object)")
    for place, kinds in KINDS.items():
        parts = list(_parts(whole.get(place)))
        if len(parts) > MAX_PARTS:
            raise BundleError(f"{path}: {place}: over {MAX_PARTS} parts")
        growth = 1
        for part in parts:
            # older files leave the type of the model out
            kind = part.get("type", "WordPiece" if place == "model" else None)
            if kind not in kinds:
                raise BundleError(
                    f"{path}: {place} {kind!r:.40} is not one that a bundle may use: "
                    f"{', '.join(sorted(kinds))}"
                )
            growth *= _check_pattern(part, f"{path}: {place} {kind}")
        if growth > _MAX_GROWTH:
            raise BundleError(f"{path}: {place}: multiplies a text by {growth}")


_MAX_GROWTH = 8


def _check_pattern(part: Mapping[str, Any], where: str) -> int:
    """Return by how much a part that replaces text may multiply it."""
    pattern = part.get("pattern")
    if not isinstance(pattern, dict):
        return 1
    content = str(part.get("content", ""))
    if "Regex" in pattern:
        if pattern["Regex"] not in PATTERNS:
            raise BundleError(
                f"{where}: the pattern {pattern['Regex']!r:.60} is not one that a bundle may use"
            )
        return max(1, len(content))
    found = str(pattern.get("String", ""))
    if not found:
        raise BundleError(f"{where}: an empty pattern")
    return max(1, -(-len(content) // len(found)))


def _parts(part: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a part, or the members of a sequence however deep."""
    pending = [part]
    while pending:
        one = pending.pop()
        if one is None:
            continue
        if not isinstance(one, dict):
            yield {"type": one}
            continue
        lists = [one.get(key) for key in ("normalizers", "pretokenizers", "processors")]
        members = [member for found in lists if isinstance(found, list) for member in found]
        if one.get("type") == "Sequence":
            pending += members
        else:
            yield one
