"""Words of an index in PostgreSQL: postings in blocks of chunk ids, changed block by block, scored by BM25.

A row of the table ``postings`` holds, for one word and one block of :data:`BLOCK_IDS` chunk ids, the offsets of the chunks
that contain the word, how often they do, and their lengths. A search fetches the rows of its words, about five bytes for
each chunk that contains one, and scores them here with the operations of the files' index, so that the best are the best
by exact BM25. Full text search of the database itself (``ts_rank``) knows no document frequencies, and a table with a
row for each word and chunk takes some 80 bytes a row.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from rag.backends.word_scores import CollectionStatistics, WordCounts, posting_scores
from rag.files import sha256_text

BLOCK_IDS = 1 << 14
"""Chunk ids in one block; an offset takes two bytes."""
_MAX_WORD = 64
"""Longer words are stored by their hash, because an entry of a b-tree has a limit of 2.7 kB."""


class PostingRow(NamedTuple):
    """One row of the table, without its generations; the arrays are little-endian unsigned integers."""

    word: str
    block: int
    offsets: bytes
    """Ids minus the first id of the block, ascending, two bytes each."""
    counts: bytes
    """Occurrences of the word in each chunk, of as many bytes as the largest needs."""
    lengths: bytes
    """Words of each chunk, likewise."""


class Postings(NamedTuple):
    """A posting row as arrays, [chunks] each."""

    offsets: np.ndarray
    counts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def read(cls, row: PostingRow) -> Postings:
        """Return the arrays of a row."""
        size = len(row.offsets) // 2
        offsets = np.frombuffer(row.offsets, dtype="<u2")
        counts, lengths = (
            np.frombuffer(data, dtype=f"<u{len(data) // size}") for data in (row.counts, row.lengths)
        )
        return cls(offsets, counts, lengths)

    def row(self, word: str, block: int) -> PostingRow:
        """Return the arrays as a row."""
        return PostingRow(
            word, block, self.offsets.astype("<u2").tobytes(), _packed(self.counts), _packed(self.lengths)
        )

    def changed(self, removed: np.ndarray, more: Postings) -> Postings:
        """Return these without some offsets and with those of new chunks, ascending."""
        stays = ~np.isin(self.offsets, removed)
        joined = [
            np.concatenate([old[stays].astype(np.int64), new]) for old, new in zip(self, more, strict=True)
        ]
        order = np.argsort(joined[0], kind="stable")
        return Postings(*(array[order] for array in joined))


NO_POSTINGS = Postings(*(np.empty(0, dtype=np.int64) for _ in range(3)))


def word_key(word: str) -> str:
    """Return how a word is stored: itself, or its hash if it is long."""
    return word if len(word) <= _MAX_WORD else f"sha256 {sha256_text(word)}"


def posting_rows(rows: Iterable[tuple[int, WordCounts]]) -> Iterator[PostingRow]:
    """Yield the posting rows of chunks given by ascending id, holding one block at a time."""
    for block, members in groupby(rows, key=lambda row: row[0] // BLOCK_IDS):
        for word, postings in block_postings(members).items():
            yield postings.row(word, block)


def block_postings(rows: Iterable[tuple[int, WordCounts]]) -> dict[str, Postings]:
    """Return the postings of chunks of one block, given by ascending id, by stored word, sorted."""
    vocabulary: dict[str, int] = {}
    numbers, offsets, counts, lengths = (array("I") for _ in range(4))
    for id, words in rows:
        size = len(words.counts)
        numbers.extend(vocabulary.setdefault(word, len(vocabulary)) for word in words.counts)
        counts.extend(words.counts.values())
        offsets.extend([id % BLOCK_IDS] * size)
        lengths.extend([words.length] * size)
    by_word = np.argsort(np.array(numbers, dtype=np.int64), kind="stable")
    columns = [np.array(column, dtype=np.int64)[by_word] for column in (offsets, counts, lengths)]
    ends = (
        np.bincount(numbers, minlength=len(vocabulary)).cumsum()
        if vocabulary
        else np.empty(0, dtype=np.int64)
    )
    starts = np.concatenate([[0], ends])
    return {
        word_key(word): Postings(*(column[starts[n] : ends[n]] for column in columns))
        for word, n in sorted(vocabulary.items())
    }


def scored_matches(
    query: Sequence[str], rows: Sequence[PostingRow], statistics: CollectionStatistics
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of all chunks that contain a word of a question, ascending, int64, and their BM25 scores, float32.

    Args:
        query: :func:`rag.backends.word_scores.query_words`.
        rows: the posting rows of these words, by ascending block.
        statistics: of the generation.
    """
    keys = {word: word_key(word) for word in query}
    sizes: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        sizes[row.word] += len(row.offsets) // 2
    ids, scores = [], []
    for block, members in groupby(rows, key=lambda row: row.block):
        sums = np.zeros(BLOCK_IDS, dtype=np.float32)
        added = {row.word: _added_scores(row, sizes[row.word], statistics) for row in members}
        # in the order of the question, as the files' index adds them, so that the sums have the same bits
        for word in query:
            if (entry := added.get(keys[word])) is not None:
                sums[entry[0]] += entry[1]
        offsets = np.flatnonzero(sums)
        scores.append(sums[offsets])
        ids.append(offsets + block * BLOCK_IDS)
    if not ids:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    return np.concatenate(ids), np.concatenate(scores)


def best_rows(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the positions of the highest scores, best first, equal ones in their order; at most ``count``."""
    if count >= len(scores):
        return np.argsort(-scores, kind="stable")
    lowest = np.partition(scores, len(scores) - count)[len(scores) - count]
    candidates = np.flatnonzero(scores >= lowest)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:count]


def _added_scores(
    row: PostingRow, frequency: int, statistics: CollectionStatistics
) -> tuple[np.ndarray, np.ndarray]:
    """Return the offsets of a posting row, and what its word adds to their scores."""
    offsets, counts, lengths = Postings.read(row)
    return offsets, posting_scores(counts, lengths, frequency, statistics)


def _packed(values: np.ndarray) -> bytes:
    largest = int(values.max()) if len(values) else 0
    size = 1 if largest < 1 << 8 else 2 if largest < 1 << 16 else 4
    return values.astype(f"<u{size}").tobytes()
