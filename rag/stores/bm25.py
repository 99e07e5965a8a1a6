"""Lexical search: BM25 over stemmed words, saved as plain arrays and JSON, which bm25s writes.

:class:`TermRows` holds the words of an index's chunks as numbers; it is stored with a generation, so that an update
reads only new texts. :class:`BM25Index` scores questions against it. Words are numbered in order of first appearance,
so that equal texts in equal order give equal files, however many updates were between.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from rag.errors import BadInput
from rag.stores import base
from rag.text.words import content_words, count_noun, words

_VOCABULARY = "vocab.index.json"
_PARAMETERS = "params.index.json"
_WORDS = "terms.json"
_ROWS = "terms.npy"
_LENGTHS = "term_lengths.npy"
_DENSE_FACTOR = 16
"""Where more than one row in so many is in a posting, one number for every row is faster than sorting the rows."""


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

    @staticmethod
    def frequencies(folder: Path, rows: np.ndarray) -> Counter[int]:
        """Return in how many of the given ``rows`` (positions, ascending) of saved words each word's number occurs."""
        numbers, lengths = (base.read_array(folder / name, mapped=True) for name in (_ROWS, _LENGTHS))
        ends = lengths.cumsum()
        counts: Counter[int] = Counter()
        for row in rows.tolist():
            counts.update(np.unique(numbers[ends[row] - lengths[row] : ends[row]]).tolist())
        return counts

    @classmethod
    def load(cls, folder: Path, rows: int) -> TermRows:
        """Read what :meth:`save` wrote (the caller has verified the files); BadInput for another number of rows."""
        vocabulary = tuple(json.loads((folder / _WORDS).read_text(encoding="utf-8")))
        numbers, lengths = (base.read_array(folder / name) for name in (_ROWS, _LENGTHS))
        if len(lengths) != rows or lengths.sum() != len(numbers):
            raise BadInput(f"{folder} covers the words of {count_noun(len(lengths), 'chunk')}, not {rows}")
        return cls(vocabulary, numbers, lengths)


class BM25Index:
    """BM25 over a list of texts; rows are numbered in the order of the texts."""

    def __init__(
        self, scores: Mapping[str, np.ndarray], rows: int, vocabulary: Path | None, retriever: Any = None
    ) -> None:
        """Take a finished index; use :meth:`build`, :meth:`of` or :meth:`load`.

        Args:
            scores: of all words and rows, a sparse matrix in CSC layout: column = word, row = text.
            rows: number of rows.
            vocabulary: the file of the words, read at the first search; None if the retriever has them.
            retriever: the :class:`bm25s.BM25` of an index that can be saved.
        """
        self._scores = scores
        self._rows = rows
        self._vocabulary_file = vocabulary
        self._retriever = retriever

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
        idf = inverse_frequency(rows, frequency)
        tf = counts.astype(np.float32)
        norm = length_norm(terms.lengths, terms.lengths.mean() if rows else 0.0, k1, b)
        retriever = bm25s.BM25(k1=k1, b=b, backend="numpy")
        # bm25s expects an entry for the empty token, which is the last word and occurs in no row
        retriever.vocab_dict = {word: n for n, word in enumerate([*terms.vocabulary, ""])}
        retriever.nonoccurrence_array = None
        retriever.unique_token_ids_set = set(retriever.vocab_dict.values())
        scores = {
            "data": idf[word] * (tf / (norm[row] + tf)),
            "indices": row.astype(np.int32),
            "indptr": np.concatenate([[0], frequency.cumsum()]).astype(np.int64),
        }
        retriever.scores = {**scores, "num_docs": rows}
        return cls(scores, rows, None, retriever)

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """The number of each word."""
        if self._vocabulary_file is None:
            return cast("dict[str, int]", self._retriever.vocab_dict)
        numbers: dict[str, int] = json.loads(self._vocabulary_file.read_text(encoding="utf-8"))
        return numbers

    def postings(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows that contain a word, ascending, int32, and its score in each, float32."""
        start, end = (int(self._scores["indptr"][n]) for n in (number, number + 1))
        return self._scores["indices"][start:end], self._scores["data"][start:end]

    def scores(self, question: str) -> np.ndarray:
        """Return the BM25 score of every row, float32 [rows]; 0 where no content word of the question occurs."""
        rows, values = self.matches(question)
        scores = np.zeros(self._rows, dtype=np.float32)
        scores[rows] = values
        return scores

    def matches(self, question: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows that contain a content word of the question, ascending, int64, and their scores, float32.

        Only the postings of the question's words are read, so that time and memory do not grow with the other rows.
        """
        numbers = [self.numbers[word] for word in query_words(question) if word in self.numbers]
        return summed_postings([self.postings(number) for number in numbers], self._rows)

    def save(self, folder: Path) -> None:
        """Write the arrays and the vocabulary into an existing folder."""
        self._retriever.save(folder, show_progress=False, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path, rows: int, *, mapped: bool = False) -> BM25Index:
        """Read what :meth:`save` wrote; ``mapped`` leaves the arrays in their files.

        Raises:
            BadInput: if it has another number of rows.
        """
        covered = json.loads((folder / _PARAMETERS).read_text(encoding="utf-8"))["num_docs"]
        if covered != rows:
            raise BadInput(f"{folder} covers {covered} chunks, not {rows}")
        scores = {
            # a plain view of the mapped file: every slice of a memmap makes another one
            name: np.asarray(base.read_array(folder / f"{name}.csc.index.npy", mapped=mapped)).view(
                np.ndarray
            )
            for name in ("data", "indices", "indptr")
        }
        return cls(scores, rows, folder / _VOCABULARY)


def word_lengths(folder: Path) -> np.ndarray:
    """Return the number of words of each row of saved :class:`TermRows`, int64 [rows], left in its file."""
    return base.read_array(folder / _LENGTHS, mapped=True)


def query_words(question: str) -> list[str]:
    """Return the words that a question is searched by, with repeats.

    A question of stop words only ("who are you") is searched with all its words.
    """
    return content_words(question) or words(question)


def summed_postings(
    postings: Sequence[tuple[np.ndarray, np.ndarray]], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of all postings, ascending, int64, and the sum of their scores, float32; rows of score 0 left out.

    The scores of the words are added in their order, as bm25s adds them, so that the sums have the same bits.

    Args:
        postings: rows, each only once, and scores of each word.
        count: number of rows that there are.
    """
    if not postings:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    if _DENSE_FACTOR * sum(len(own_rows) for own_rows, _ in postings) > count:
        every_score = np.zeros(count, dtype=np.float32)
        for own_rows, own_scores in postings:
            every_score[own_rows] += own_scores
        matching_rows = np.flatnonzero(every_score > 0)
        return matching_rows, every_score[matching_rows]
    rows = np.unique(np.concatenate([own_rows for own_rows, _ in postings]))
    scores = np.zeros(len(rows), dtype=np.float32)
    for own_rows, own_scores in postings:
        scores[np.searchsorted(rows, own_rows)] += own_scores
    matching = scores > 0
    return rows[matching].astype(np.int64), scores[matching]


def inverse_frequency(rows: int, frequency: np.ndarray) -> np.ndarray:
    """Return ln(1 + (N - n + 0.5) / (n + 0.5)) for N rows, n of which contain a word; float32."""
    return np.log(1 + (rows - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)


def length_norm(lengths: np.ndarray, mean_length: float, k1: float, b: float) -> np.ndarray:
    """Return k1 * (1 - b + b * length / mean length) for each row, float32."""
    return (k1 * ((1 - b) + b * lengths / max(mean_length, 1e-9))).astype(np.float32)


def _renumbered(vocabulary: Sequence[str], numbers: np.ndarray, lengths: np.ndarray) -> TermRows:
    """Number the words by first appearance and drop those that no row has any more."""
    present, first = np.unique(numbers, return_index=True)
    order = present[np.argsort(first)]
    renumbering = np.zeros(len(vocabulary), dtype=np.int32)
    renumbering[order] = np.arange(len(order), dtype=np.int32)
    return TermRows(tuple(vocabulary[n] for n in order.tolist()), renumbering[numbers], lengths)
