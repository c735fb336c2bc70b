"""Prompts to token ids."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from clipsynth_rt.bundles.tokenizer import Tokenizer
from clipsynth_rt.errors import BundleError, InputError


@pytest.fixture
def tokenizer(tiny_bundle: Path) -> Tokenizer:
    return Tokenizer((tiny_bundle / "tokenizer.json").read_bytes(), 12)


def test_ids_and_mask(tokenizer: Tokenizer) -> None:
    ids, mask = tokenizer.tokenize(["drum", "a photo of Piano"])
    # the vocabulary of the tiny bundle: [PAD] 0, [UNK] 1, drum 2, piano 3, a 7, photo 8, of 9
    assert ids.tolist() == [[2, 0, 0, 0], [7, 8, 9, 3]]
    assert mask.tolist() == [[1, 0, 0, 0], [1, 1, 1, 1]]
    assert ids.dtype == mask.dtype == "int64"


def test_no_longer_than_the_longest_prompt(tokenizer: Tokenizer) -> None:
    # although tokenizer.json says to pad to the context length
    assert tokenizer.tokenize(["drum"])[0].shape == (1, 1)


def test_lengths_are_few_where_the_context_allows_it(tiny_bundle: Path) -> None:
    tokenizer = Tokenizer((tiny_bundle / "tokenizer.json").read_bytes(), 16)
    for count, length in ((1, 8), (8, 8), (9, 16), (40, 16)):
        ids, mask = tokenizer.tokenize(["drum " * count])
        assert ids.shape == (1, length)
        assert mask.sum() == min(count, 16)


def test_a_long_prompt_is_cut_with_one_warning(
    tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        ids, _ = tokenizer.tokenize(["drum " * 50, "piano " * 50])
    assert ids.shape == (2, 12)
    assert [record.getMessage() for record in caplog.records] == [
        "query cut to the first 12 tokens: " + ("drum " * 50)[:60] + "..."
    ]


def test_a_prompt_that_just_fits_is_not_cut(
    tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    assert tokenizer.tokenize(["drum " * 12])[0].shape == (1, 12)
    assert not caplog.records


def test_not_unicode(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="not valid Unicode"):
        tokenizer.tokenize(["dr\udcffum"])


@pytest.mark.parametrize("text", ["", "{}", "not json"])
def test_not_a_tokenizer(text: str) -> None:
    with pytest.raises(BundleError, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer(text.encode(), 12)
