"""The words of an index's chunks as numbers, kept with a generation so that an update reads only new texts.

Words are numbered in order of first appearance, so that equal texts in equal order give equal files, however
many updates lie between.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rag import arrays
from rag.errors import BadInput
from rag.words import words

_WORDS, _ROWS, _LENGTHS = "terms.json", "terms.npy", "term_lengths.npy"


@dataclass(frozen=True, slots=True)
class Terms:
    """Rows of word numbers, one after the other."""

    vocabulary: tuple[str, ...]
    numbers: np.ndarray
    """int32 [all words of all rows]."""
    lengths: np.ndarray
    """int64 [rows]: how many words each row has."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> Terms:
        """Split texts into stemmed words and number them."""
        vocabulary: dict[str, int] = {}
        rows = [[vocabulary.setdefault(word, len(vocabulary)) for word in words(text)] for text in texts]
        numbers = np.fromiter((n for row in rows for n in row), dtype=np.int32)
        return cls(tuple(vocabulary), numbers, np.array([len(row) for row in rows], dtype=np.int64))

    def then(self, rows: np.ndarray, more: Terms) -> Terms:
        """Return these ``rows`` (positions, ascending) followed by all rows of ``more``."""
        starts = np.concatenate([[0], self.lengths.cumsum()])
        mask = np.zeros(len(self.numbers) + 1, dtype=np.int32)
        np.add.at(mask, starts[rows], 1)
        np.add.at(mask, starts[rows + 1], -1)
        kept = self.numbers[mask.cumsum()[:-1] > 0]
        known = {word: n for n, word in enumerate(self.vocabulary)}
        both = [*self.vocabulary, *(word for word in more.vocabulary if word not in known)]
        place = {word: n for n, word in enumerate(both)}
        moved = np.array([place[word] for word in more.vocabulary], dtype=np.int32)
        numbers = np.concatenate([kept, moved[more.numbers] if len(moved) else more.numbers])
        return _renumbered(both, numbers, np.concatenate([self.lengths[rows], more.lengths]))

    def save(self, folder: Path) -> None:
        """Write three files into an existing folder."""
        (folder / _WORDS).write_text(json.dumps(self.vocabulary, ensure_ascii=False), encoding="utf-8")
        np.save(folder / _ROWS, self.numbers, allow_pickle=False)
        np.save(folder / _LENGTHS, self.lengths, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path, rows: int) -> Terms:
        """Read what ``save`` wrote (the caller has verified the files); BadInput for another number of rows."""
        vocabulary = tuple(json.loads((folder / _WORDS).read_text(encoding="utf-8")))
        numbers, lengths = (arrays.read(folder / name) for name in (_ROWS, _LENGTHS))
        if len(lengths) != rows or lengths.sum() != len(numbers):
            raise BadInput(f"{folder} covers the words of {len(lengths)} chunks, not {rows}")
        return cls(vocabulary, numbers, lengths)


def _renumbered(vocabulary: Sequence[str], numbers: np.ndarray, lengths: np.ndarray) -> Terms:
    """Number the words by first appearance and drop those that no row has any more."""
    present, first = np.unique(numbers, return_index=True)
    order = present[np.argsort(first)]
    place = np.zeros(len(vocabulary), dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return Terms(tuple(vocabulary[n] for n in order.tolist()), place[numbers], lengths)
