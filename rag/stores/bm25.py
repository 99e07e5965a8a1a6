"""Lexical search: BM25 (bm25s) over stemmed words, saved as plain arrays and JSON.

:class:`TermRows` holds the words of an index's chunks as numbers; it is stored with a generation, so that an update
reads only new texts. :class:`BM25Index` scores questions against it. Words are numbered in order of first appearance,
so that equal texts in equal order give equal files, however many updates were between.
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

_WORDS = "terms.json"
_ROWS = "terms.npy"
_LENGTHS = "term_lengths.npy"


@dataclass(frozen=True, slots=True)
class TermRows:
    """The words of several texts as numbers, concatenated."""

    vocabulary: tuple[str, ...]
    numbers: np.ndarray
    """Position of each word in the vocabulary, int32 [words of all rows]."""
    lengths: np.ndarray
    """Number of words of each row, int64 [rows]."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> TermRows:
        """Split texts into stemmed words and number them."""
        vocabulary: dict[str, int] = {}
        rows = [[vocabulary.setdefault(word, len(vocabulary)) for word in words(text)] for text in texts]
        numbers = np.fromiter((n for row in rows for n in row), dtype=np.int32)
        return cls(tuple(vocabulary), numbers, np.array([len(row) for row in rows], dtype=np.int64))

    def extended(self, rows: np.ndarray, more: TermRows) -> TermRows:
        """Return the given ``rows`` (positions, ascending) of these followed by all rows of ``more``."""
        starts = np.concatenate([[0], self.lengths.cumsum()])
        # +1 at the start and -1 behind the end of each row that stays: the running sum is 1 inside of them
        mask = np.zeros(len(self.numbers) + 1, dtype=np.int32)
        np.add.at(mask, starts[rows], 1)
        np.add.at(mask, starts[rows + 1], -1)
        kept_numbers = self.numbers[mask.cumsum()[:-1] > 0]
        own = {word: n for n, word in enumerate(self.vocabulary)}
        vocabulary = [*self.vocabulary, *(word for word in more.vocabulary if word not in own)]
        positions = {word: n for n, word in enumerate(vocabulary)}
        renumbering = np.array([positions[word] for word in more.vocabulary], dtype=np.int32)
        numbers = np.concatenate(
            [kept_numbers, renumbering[more.numbers] if len(renumbering) else more.numbers]
        )
        return _renumbered(vocabulary, numbers, np.concatenate([self.lengths[rows], more.lengths]))

    def save(self, folder: Path) -> None:
        """Write three files into an existing folder."""
        (folder / _WORDS).write_text(json.dumps(self.vocabulary, ensure_ascii=False), encoding="utf-8")
        np.save(folder / _ROWS, self.numbers, allow_pickle=False)
        np.save(folder / _LENGTHS, self.lengths, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path, rows: int) -> TermRows:
        """Read what :meth:`save` wrote (the caller has verified the files); BadInput for another number of rows."""
        vocabulary = tuple(json.loads((folder / _WORDS).read_text(encoding="utf-8")))
        numbers, lengths = (base.read_array(folder / name) for name in (_ROWS, _LENGTHS))
        if len(lengths) != rows or lengths.sum() != len(numbers):
            raise BadInput(f"{folder} covers the words of {len(lengths)} chunks, not {rows}")
        return cls(vocabulary, numbers, lengths)


class BM25Index:
    """BM25 over a list of texts; rows are numbered in the order of the texts."""

    def __init__(self, retriever: bm25s.BM25, rows: int) -> None:
        """Wrap a finished index; use :meth:`build`, :meth:`of` or :meth:`load`."""
        self._retriever = retriever
        self._rows = rows

    @classmethod
    def build(cls, texts: Sequence[str], k1: float, b: float) -> BM25Index:
        """Index the texts."""
        return cls.of(TermRows.of(texts), k1, b)

    @classmethod
    def of(cls, terms: TermRows, k1: float, b: float) -> BM25Index:
        """Index rows of words with whole-array operations; the scores equal those of ``bm25s.BM25.index``.

        Computes the score of every (word, row) pair in advance, as bm25s does (Lù 2024, arXiv 2407.03618), in the
        Lucene variant of BM25 (Robertson and Zaragoza 2009; Kamphuis et al. 2020): idf * tf / (tf + k1 * (1 - b + b *
        length / mean length)) with idf = ln(1 + (N - n + 0.5) / (n + 0.5)).
        """
        import bm25s

        rows = len(terms.lengths)
        vocabulary_size = len(terms.vocabulary)
        row_of_word = np.repeat(np.arange(rows, dtype=np.int64), terms.lengths)
        # one number for each (word, row) pair, so that one np.unique counts all pairs, sorted by word
        pairs, counts = np.unique(terms.numbers.astype(np.int64) * rows + row_of_word, return_counts=True)
        word, row = np.divmod(pairs, max(rows, 1))
        frequency = np.bincount(word, minlength=vocabulary_size + 1)
        idf = np.log(1 + (rows - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
        mean_length = terms.lengths.mean() if rows else 0.0
        tf = counts.astype(np.float32)
        length_norm = (k1 * ((1 - b) + b * terms.lengths / max(mean_length, 1e-9))).astype(np.float32)
        retriever = bm25s.BM25(k1=k1, b=b, backend="numpy")
        # bm25s expects an entry for the empty token, which is the last word and occurs in no row
        retriever.vocab_dict = {word: n for n, word in enumerate([*terms.vocabulary, ""])}
        retriever.nonoccurrence_array = None
        retriever.unique_token_ids_set = set(retriever.vocab_dict.values())
        retriever.scores = {
            # a sparse matrix in CSC layout: column = word, row = text
            "data": idf[word] * (tf / (length_norm[row] + tf)),
            "indices": row.astype(np.int32),
            "indptr": np.concatenate([[0], frequency.cumsum()]).astype(np.int64),
            "num_docs": rows,
        }
        return cls(retriever, rows)

    def scores(self, question: str) -> np.ndarray:
        """Return the BM25 score of every row, float32 [rows]; 0 where no content word of the question occurs."""
        rows, values = self.matches(question)
        scores = np.zeros(self._rows, dtype=np.float32)
        scores[rows] = values
        return scores

    def matches(self, question: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows that contain a content word of the question, ascending, int64, and their scores, float32.

        A question of stop words only ("who are you") is searched with all its words. Only the postings of the
        question's words are read, so that time and memory do not grow with the other rows. The scores of the words are
        added in the order of the question, as bm25s adds them, so that the sums have the same bits.
        """
        query_words = self._known_words(question)
        numbers = [self._retriever.vocab_dict[word] for word in query_words]
        indptr, indices = (self._retriever.scores[name] for name in ("indptr", "indices"))
        spans = [slice(int(indptr[number]), int(indptr[number + 1])) for number in numbers]
        if not spans:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        rows = np.unique(np.concatenate([indices[span] for span in spans]))
        scores = np.zeros(len(rows), dtype=np.float32)
        for span in spans:
            scores[np.searchsorted(rows, indices[span])] += self._retriever.scores["data"][span]
        matching = scores > 0
        return rows[matching].astype(np.int64), scores[matching]

    def _known_words(self, question: str) -> list[str]:
        """Return the words of a question that some row contains, with repeats."""
        query_words = content_words(question) or words(question)
        return [word for word in query_words if word in self._retriever.vocab_dict]

    def save(self, folder: Path) -> None:
        """Write the arrays and the vocabulary into an existing folder."""
        self._retriever.save(folder, show_progress=False, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path, rows: int) -> BM25Index:
        """Read what :meth:`save` wrote; BadInput if it has another number of rows."""
        import bm25s

        with NUMPY_READ_LOCK:
            retriever = bm25s.BM25.load(folder, load_corpus=False, show_progress=False, allow_pickle=False)
        if retriever.scores["num_docs"] != rows:
            raise BadInput(f"{folder} covers {retriever.scores['num_docs']} chunks, not {rows}")
        return cls(retriever, rows)


def _renumbered(vocabulary: Sequence[str], numbers: np.ndarray, lengths: np.ndarray) -> TermRows:
    """Number the words by first appearance and drop those that no row has any more."""
    present, first = np.unique(numbers, return_index=True)
    order = present[np.argsort(first)]
    renumbering = np.zeros(len(vocabulary), dtype=np.int32)
    renumbering[order] = np.arange(len(order), dtype=np.int32)
    return TermRows(tuple(vocabulary[n] for n in order.tolist()), renumbering[numbers], lengths)
