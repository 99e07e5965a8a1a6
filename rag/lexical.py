"""Search by words: BM25 (bm25s) over stemmed words, saved as plain arrays and JSON.

The vocabulary is numbered in order of first appearance, so that equal texts give equal files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag.arrays import READING
from rag.errors import BadInput
from rag.terms import Terms
from rag.words import content_words, words

if TYPE_CHECKING:
    import bm25s


class Lexical:
    """BM25 over a list of texts; rows are numbered as the texts were given."""

    def __init__(self, retriever: bm25s.BM25, rows: int) -> None:
        """Wrap a finished index; use ``build`` or ``load``."""
        self._retriever = retriever
        self._rows = rows

    @classmethod
    def build(cls, texts: Sequence[str], k1: float, b: float) -> Lexical:
        """Index the texts."""
        return cls.of(Terms.of(texts), k1, b)

    @classmethod
    def of(cls, terms: Terms, k1: float, b: float) -> Lexical:
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
    def load(cls, folder: Path, rows: int) -> Lexical:
        """Read what ``save`` wrote; BadInput when it covers another number of rows."""
        import bm25s

        with READING:
            retriever = bm25s.BM25.load(folder, load_corpus=False, show_progress=False, allow_pickle=False)
        if retriever.scores["num_docs"] != rows:
            raise BadInput(f"{folder} covers {retriever.scores['num_docs']} chunks, not {rows}")
        return cls(retriever, rows)
