"""Read the vectors and words of a generation, whole or made of a base and a delta.

::

    gen-000002/manifest.json, vectors.faiss, lexical/    a whole generation
    gen-000003/vectors.faiss, lexical/                   the same files again (hard links): the base
               delta/vectors.faiss, delta/lexical/       rows added since the base was built
               delta/removed.npy                         ids of the base that are left out
               delta/removed_words.npy                   words of these rows and in how many of them each occurs

The folder of a generation is complete by itself: an older one can be removed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from rag.indexing.generations import DELTA_KIND
from rag.settings import IndexSettings
from rag.stores.base import VectorStore, read_array, store_class, stored_class
from rag.stores.bm25 import BM25Index, TermRows, word_lengths
from rag.stores.segments import SegmentedStore, SegmentedWords, WordSegment

LEXICAL_FOLDER = "lexical"
DELTA_FOLDER = "delta"
DELTA_STORE = "flat"
"""Store of the added vectors: few enough for an exact search."""
REMOVED_FILE = "removed.npy"
REMOVED_WORDS_FILE = "removed_words.npy"
MAPPED = os.name == "posix"
"""Whether files are mapped into memory; elsewhere a mapped file could not be deleted."""


def is_delta(manifest: dict[str, Any]) -> bool:
    """Return whether a generation's manifest is that of a base and a delta."""
    return bool(manifest["kind"] == DELTA_KIND)


def load_base_store(path: Path, manifest: dict[str, Any], *, mapped: bool = MAPPED) -> VectorStore:
    """Return the vector store that the last whole build wrote."""
    return stored_class(str(manifest["store"])).load(path, int(manifest["dimension"]), mapped=mapped)


def load_store(path: Path, manifest: dict[str, Any], *, mapped: bool = MAPPED) -> VectorStore:
    """Return the vectors of a generation.

    Args:
        path: folder of the generation.
        manifest: its verified manifest.
        mapped: leave the vectors in their files.
    """
    base = load_base_store(path, manifest, mapped=mapped)
    if not is_delta(manifest):
        return base
    added = store_class(DELTA_STORE).load(path / DELTA_FOLDER, int(manifest["dimension"]), mapped=mapped)
    return SegmentedStore(base, added, removed_ids(path))


def removed_ids(path: Path) -> np.ndarray:
    """Return the ids of the base that a delta generation leaves out, ascending, int64."""
    return read_array(path / DELTA_FOLDER / REMOVED_FILE)


def load_words(path: Path, manifest: dict[str, Any], base_ids: np.ndarray) -> BM25Index | SegmentedWords:
    """Return BM25 over a generation's chunks.

    Args:
        path: folder of the generation.
        manifest: its verified manifest.
        base_ids: ids of the base's rows in their order; not used for a whole generation.
    """
    lexical = path / LEXICAL_FOLDER
    if not is_delta(manifest):
        return BM25Index.load(lexical, int(manifest["chunks"]), mapped=MAPPED)
    settings = IndexSettings.from_json(manifest["settings"])
    delta = path / DELTA_FOLDER
    base = BM25Index.load(lexical, len(base_ids), mapped=MAPPED)
    removed = np.flatnonzero(np.isin(base_ids, removed_ids(path)))
    frequency = {int(word): int(count) for word, count in read_array(delta / REMOVED_WORDS_FILE)}
    segments = [WordSegment(base, word_lengths(lexical), removed, frequency)]
    if added := int(manifest["delta_chunks"]):
        none = np.empty(0, dtype=np.int64)
        bm25 = BM25Index.load(delta / LEXICAL_FOLDER, added, mapped=MAPPED)
        segments.append(WordSegment(bm25, word_lengths(delta / LEXICAL_FOLDER), none, {}))
    return SegmentedWords(segments, settings.k1, settings.b)


def load_terms(path: Path, manifest: dict[str, Any], base_ids: np.ndarray) -> TermRows:
    """Return the words of every row of a generation, as a whole build would number them."""
    lexical = path / LEXICAL_FOLDER
    if not is_delta(manifest):
        return TermRows.load(lexical, int(manifest["chunks"]))
    remaining = np.flatnonzero(~np.isin(base_ids, removed_ids(path)))
    base = TermRows.load(lexical, len(base_ids))
    return base.extended(remaining, delta_terms(path, manifest))


def delta_terms(path: Path, manifest: dict[str, Any]) -> TermRows:
    """Return the words of the rows that were added to the base."""
    return TermRows.load(path / DELTA_FOLDER / LEXICAL_FOLDER, int(manifest["delta_chunks"]))
