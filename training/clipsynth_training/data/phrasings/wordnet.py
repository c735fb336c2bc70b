"""Synonyms from WordNet's database files, as Debian's package wordnet-base installs them.

The format is that of wndb(5WN). NLTK's and wn's readers want files that Debian does not ship.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clipsynth_rt.errors import DataError


@dataclass(frozen=True)
class Synset:
    """The words of one meaning, and how it is defined."""

    lemmas: tuple[str, ...]
    gloss: str


class WordNet:
    """The nouns of WordNet.

    Args:
        folder: Holds ``index.noun`` and ``data.noun`` (Debian: ``/usr/share/wordnet``).

    Raises:
        DataError: If they are missing.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            index = (Path(folder) / "index.noun").read_text(encoding="ascii")
            self._data = (Path(folder) / "data.noun").read_bytes()
        except OSError as error:
            raise DataError(
                f"{folder}: no WordNet ({error.strerror}); run: apt-get install wordnet-base"
            ) from error
        self._offsets: dict[str, list[int]] = {}
        for line in index.splitlines():
            if line.startswith(" "):  # the licence
                continue
            # lemma pos synset_cnt p_cnt [ptr_symbol...] sense_cnt tagsense_cnt offset [offset...]
            fields = line.split()
            self._offsets[fields[0]] = [int(field) for field in fields[-int(fields[2]) :]]

    def senses(self, noun: str) -> list[Synset]:
        """Return the meanings of ``noun``, most frequent first."""
        return [self._synset(at) for at in self._offsets.get(noun.replace(" ", "_").lower(), ())]

    def _synset(self, offset: int) -> Synset:
        line = self._data[offset : self._data.index(b"\n", offset)].decode("ascii")
        facts, _, gloss = line.partition("|")
        # offset lex_filenum ss_type w_cnt(hex) word lex_id [word lex_id...]
        fields = facts.split()
        words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
        return Synset(tuple(word.replace("_", " ") for word in words), gloss.strip())
