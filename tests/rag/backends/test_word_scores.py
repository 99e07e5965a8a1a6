"""BM25 from stored word counts equals the files' index."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from rag.backends.word_scores import CollectionStatistics, WordCounts, bm25_scores
from rag.stores.bm25 import BM25Index, query_words

_WORDS = [
    f"{stem}{number}" for number in range(40) for stem in ("ferry", "fare", "ticket", "the", "crossing")
]
K1, B = 1.2, 0.75


def _texts(rows: int) -> list[str]:
    draw = random.Random(5)
    texts = [" ".join(draw.choices(_WORDS, k=draw.randint(1, 60))) for _ in range(rows)]
    return [*texts, "", "the of and", "Fares' rising, rising; fares"]


def _scores(texts: list[str], question: str) -> np.ndarray:
    rows = [WordCounts.of(text) for text in texts]
    frequencies = Counter(word for row in rows for word in row.counts)
    query = query_words(question)
    counts = {word: np.array([row.counts.get(word, 0) for row in rows]) for word in set(query)}
    lengths = np.array([row.length for row in rows])
    statistics = CollectionStatistics(len(rows), int(lengths.sum()), K1, B)
    return bm25_scores(query, counts, lengths, frequencies, statistics)


@pytest.mark.parametrize(
    "question",
    [
        "When does ferry3 leave, and what is the fare7 of ferry3?",  # a repeated word counts twice
        "Is the fare rising?",
        "the of and",  # stop words only: searched with all of them
        "nothing of it occurs",
        "",
    ],
)
def test_scores_equal_the_bm25_index_of_files(question: str) -> None:
    texts = _texts(300)
    expected = BM25Index.build(texts, K1, B).scores(question)
    np.testing.assert_array_equal(_scores(texts, question), expected)


def test_scores_of_some_rows_are_those_of_all_rows() -> None:
    texts = _texts(50)
    everything = BM25Index.build(texts, K1, B).scores("ferry1 ticket2 crossing3")
    assert (everything > 0).any()
    rows = [WordCounts.of(text) for text in texts]
    frequencies = Counter(word for row in rows for word in row.counts)
    statistics = CollectionStatistics(len(rows), sum(row.length for row in rows), K1, B)
    some = np.flatnonzero(everything > 0)[:3]
    query = query_words("ferry1 ticket2 crossing3")
    # a word that none of the rows contains is left out
    counts = {word: np.array([rows[row].counts.get(word, 0) for row in some]) for word in query}
    counts = {word: array for word, array in counts.items() if array.any()}
    scores = bm25_scores(query, counts, np.array([rows[row].length for row in some]), frequencies, statistics)
    np.testing.assert_array_equal(scores, everything[some])


def test_an_index_without_rows_has_no_scores() -> None:
    scores = bm25_scores(["fare"], {}, np.empty(0, dtype=np.int64), {}, CollectionStatistics(0, 0, K1, B))
    assert scores.dtype == np.float32
    assert len(scores) == 0
