"""Search by words: BM25 (bm25s) over stemmed words, saved as plain arrays and JSON.

The vocabulary is numbered in order of first appearance, so that equal texts give equal files.

The words of an index's chunks as numbers, kept with a generation so that an update reads only new texts.

Words are numbered in order of first appearance, so that equal texts in equal order give equal files, however
many updates lie between.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag.errors import BadInput
from rag.stores import base
from rag.stores.base import NUMPY_READ_LOCK
from rag.text.words import content_words, words

if TYPE_CHECKING:
    import bm25s


_WORDS, _ROWS, _LENGTHS = "terms.json", "terms.npy", "term_lengths.npy"


@dataclass(frozen=True, slots=True)
class TermRows:
    """Rows of word numbers, one after the other."""

    vocabulary: tuple[str, ...]
    numbers: np.ndarray
    """int32 [all words of all rows]."""
    lengths: np.ndarray
    """int64 [rows]: how many words each row has."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> TermRows:
        """Split texts into stemmed words and number them."""
        vocabulary: dict[str, int] = {}
        rows = [[vocabulary.setdefault(word, len(vocabulary)) for word in words(text)] for text in texts]
        numbers = np.fromiter((n for row in rows for n in row), dtype=np.int32)
        return cls(tuple(vocabulary), numbers, np.array([len(row) for row in rows], dtype=np.int64))

    def then(self, rows: np.ndarray, more: TermRows) -> TermRows:
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
    def load(cls, folder: Path, rows: int) -> TermRows:
        """Read what ``save`` wrote (the caller has verified the files); BadInput for another number of rows."""
        vocabulary = tuple(json.loads((folder / _WORDS).read_text(encoding="utf-8")))
        numbers, lengths = (base.read_array(folder / name) for name in (_ROWS, _LENGTHS))
        if len(lengths) != rows or lengths.sum() != len(numbers):
            raise BadInput(f"{folder} covers the words of {len(lengths)} chunks, not {rows}")
        return cls(vocabulary, numbers, lengths)


def _renumbered(vocabulary: Sequence[str], numbers: np.ndarray, lengths: np.ndarray) -> TermRows:
    """Number the words by first appearance and drop those that no row has any more."""
    present, first = np.unique(numbers, return_index=True)
    order = present[np.argsort(first)]
    place = np.zeros(len(vocabulary), dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return TermRows(tuple(vocabulary[n] for n in order.tolist()), place[numbers], lengths)


class BM25Index:
    """BM25 over a list of texts; rows are numbered as the texts were given."""

    def __init__(self, retriever: bm25s.BM25, rows: int) -> None:
        """Wrap a finished index; use ``build`` or ``load``."""
        self._retriever = retriever
        self._rows = rows

    @classmethod
    def build(cls, texts: Sequence[str], k1: float, b: float) -> BM25Index:
        """Index the texts."""
        return cls.of(TermRows.of(texts), k1, b)

    @classmethod
    def of(cls, terms: TermRows, k1: float, b: float) -> BM25Index:
        """Index rows of words; the same scores as ``bm25s.BM25.index``, whole arrays at a time."""
        import bm25s

        rows, words_known = len(terms.lengths), len(terms.vocabulary)
        place = np.repeat(np.arange(rows, dtype=np.int64), terms.lengths)
        pairs, counts = np.unique(terms.numbers.astype(np.int64) * rows + place, return_counts=True)
        word, row = np.divmod(pairs, max(rows, 1))
        frequency = np.bincount(word, minlength=words_known + 1)
        rarity = np.log(1 + (rows - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
        mean = terms.lengths.mean() if rows else 0.0
        tf = counts.astype(np.float32)
        length = (k1 * ((1 - b) + b * terms.lengths / max(mean, 1e-9))).astype(np.float32)
        retriever = bm25s.BM25(k1=k1, b=b, backend="numpy")
        retriever.vocab_dict = {word: n for n, word in enumerate([*terms.vocabulary, ""])}
        retriever.nonoccurrence_array = None
        retriever.unique_token_ids_set = set(retriever.vocab_dict.values())
        retriever.scores = {
            "data": rarity[word] * (tf / (length[row] + tf)),
            "indices": row.astype(np.int32),
            "indptr": np.concatenate([[0], frequency.cumsum()]).astype(np.int64),
            "num_docs": rows,
        }
        return cls(retriever, rows)

    def scores(self, question: str) -> np.ndarray:
        """Return the BM25 score of every row, float32; 0 where no content word of the question occurs.

        A question of stop words only ("who are you") is searched with all its words.
        """
        asked = content_words(question) or words(question)
        known = [word for word in asked if word in self._retriever.vocab_dict]
        if not known:
            return np.zeros(self._rows, dtype=np.float32)
        return np.asarray(self._retriever.get_scores(known), dtype=np.float32)

    def save(self, folder: Path) -> None:
        """Write the arrays and the vocabulary into an existing folder."""
        self._retriever.save(folder, show_progress=False, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path, rows: int) -> BM25Index:
        """Read what ``save`` wrote; BadInput when it covers another number of rows."""
        import bm25s

        with NUMPY_READ_LOCK:
            retriever = bm25s.BM25.load(folder, load_corpus=False, show_progress=False, allow_pickle=False)
        if retriever.scores["num_docs"] != rows:
            raise BadInput(f"{folder} covers {retriever.scores['num_docs']} chunks, not {rows}")
        return cls(retriever, rows)
