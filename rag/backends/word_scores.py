"""BM25 scores of given rows from stored word counts, equal to those of :class:`rag.stores.bm25.BM25Index`.

A database finds the rows that contain words of a question; it is given the counts of an index's words, and this module
computes the scores. The operations are those of the files' index, in the same order and precision (float32), so the
scores have the same bits, whichever backend holds the index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rag.stores.bm25 import inverse_frequency, length_norm
from rag.text.words import words


@dataclass(frozen=True, slots=True)
class WordCounts:
    """How often each word occurs in one embedded text."""

    counts: Mapping[str, int]
    """Occurrences of each stemmed word, in the order of first appearance."""
    length: int
    """Number of words of the text, repeats included."""

    @classmethod
    def of(cls, text: str) -> WordCounts:
        """Split an embedded text into stemmed words (:func:`rag.text.words.words`) and count them."""
        counts = Counter(words(text))
        return cls(dict(counts), sum(counts.values()))


@dataclass(frozen=True, slots=True)
class CollectionStatistics:
    """What BM25 needs to know of all rows of a generation."""

    rows: int
    """Number of rows, with words or without."""
    total_length: int
    """Number of words of all rows together; the mean length is ``total_length / rows``."""
    k1: float
    b: float


def bm25_scores(
    query: Sequence[str],
    counts: Mapping[str, np.ndarray],
    lengths: np.ndarray,
    frequencies: Mapping[str, int],
    statistics: CollectionStatistics,
) -> np.ndarray:
    """Return the BM25 score of each given row, float32 [rows]; 0 where no word of the question occurs.

    The Lucene variant of BM25 (Robertson and Zaragoza 2009; Kamphuis et al. 2020), as
    :meth:`rag.stores.bm25.BM25Index.of` has it: idf * tf / (tf + k1 * (1 - b + b * length / mean length)) with
    idf = ln(1 + (N - n + 0.5) / (n + 0.5)).

    Args:
        query: :func:`rag.stores.bm25.query_words`; a word that occurs twice counts twice.
        counts: occurrences of each word of the question in each given row, [rows] each; a word may be left out where no
            given row contains it.
        lengths: number of words of each given row, [rows].
        frequencies: number of rows of the whole generation that contain each word; words that no row contains may be
            left out.
        statistics: of the whole generation.
    """
    scores = np.zeros(len(lengths), dtype=np.float32)
    lengths = np.asarray(lengths, dtype=np.int64)
    for word in query:
        frequency = frequencies.get(word, 0)
        if not frequency or word not in counts:
            continue
        tf = np.asarray(counts[word])
        occurs = tf > 0
        scores[occurs] += posting_scores(tf[occurs], lengths[occurs], frequency, statistics)
    return scores


def posting_scores(
    counts: np.ndarray, lengths: np.ndarray, frequency: int, statistics: CollectionStatistics
) -> np.ndarray:
    """Return what one word adds to the scores of rows that contain it, float32 [rows]; see :func:`bm25_scores`.

    Args:
        counts: occurrences of the word in each row, 1 or more.
        lengths: number of words of each row.
        frequency: number of rows of the whole generation that contain the word.
        statistics: of the whole generation.
    """
    mean_length = statistics.total_length / statistics.rows if statistics.rows else 0.0
    norm = length_norm(lengths, mean_length, statistics.k1, statistics.b)
    idf = inverse_frequency(statistics.rows, np.array(frequency))
    tf = counts.astype(np.float32)
    return np.asarray(idf * (tf / (norm + tf)), dtype=np.float32)
