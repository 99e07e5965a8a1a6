"""The protocol of a vector store, the table of stores, and the checks that all of them share.

Read saved numpy arrays, one thread at a time.

numpy reads a file's header with ``ast.literal_eval``, and CPython 3.11 counts the depth of that in one place for all
threads: two at once can raise ``SystemError: AST constructor recursion depth mismatch``.
"""

from __future__ import annotations

import threading
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from rag.errors import BadInput
from rag.plugins import STORES as STORES_GROUP
from rag.plugins import PluginGroup, UnusablePlugin

STORES: dict[str, str] = {
    "exact": "rag.stores.exact:ExactStore",
    "flat": "rag.stores.faiss:FlatStore",
    "ivf": "rag.stores.faiss:IvfStore",
    "hnsw": "rag.stores.faiss:HnswStore",
    "sq8": "rag.stores.faiss:Sq8Store",
}
"""Name to "module:class"; the module is imported only when the store is used."""
AUTO = "auto"
"""Not a store but a wish: the fastest that finds what exact search finds; see ``stores.choose``."""


class VectorStore(Protocol):
    """Unit vectors under int64 ids, searched by inner product; the caller gives the ids, each only once.

    Nothing is ever deleted from a store: a new generation gets a store of its own, made from the vectors that
    stay. So no store needs to delete, which HNSW cannot, and which shifts the rows of a flat FAISS index.
    """

    def __init__(self, dimension: int) -> None:
        """Make an empty store for vectors of one length."""

    @property
    def ids(self) -> np.ndarray:
        """All ids, int64, in the order in which they were added."""

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Add float32 [n, dimension] under n new ids; BadInput when the store was loaded mapped."""

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return the stored vectors of ids, float32 [len(ids), dimension]; KeyError for an unknown id."""

    def search(
        self, queries: np.ndarray, k: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (ids, scores), each [len(queries), min(k, stored)], best first; scores are exact.

        ``among`` names the only ids that may be found: the best k of them, exactly; unknown ones are ignored.
        """

    def save(self, folder: Path) -> None:
        """Write the store's files into an existing folder; equal contents give equal bytes."""

    @classmethod
    def load(cls, folder: Path, dimension: int, *, mapped: bool = False) -> Self:
        """Read what ``save`` wrote; the caller has verified the files' hashes.

        ``mapped`` leaves the vectors in the file, shared by all readers; such a store cannot be added to.
        """


def _check_plugin(name: str, store: Any) -> type[VectorStore]:
    missing = [
        part for part in ("ids", "add", "vectors", "search", "save", "load") if not hasattr(store, part)
    ]
    if not isinstance(store, type) or missing:
        raise UnusablePlugin(f"not a class with {', '.join(missing) or 'the methods of VectorStore'}")
    return store


PLUGINS = PluginGroup(STORES_GROUP, (*STORES, AUTO), _check_plugin)


def is_store(name: str) -> bool:
    """Return whether a store of this name is built in or given by a plug-in."""
    return name in STORES or name in PLUGINS.plugins


def unknown_store(name: str, *more: str) -> BadInput:
    """Return the error for a name that no store has; its hint lists the names there are."""
    names = ", ".join((*more, *STORES, *PLUGINS.plugins))
    return BadInput(f"unknown vector store {name!r}", f"there are: {names}")


def store_class(name: str) -> type[VectorStore]:
    """Return the class of a store by its name; BadInput lists the names there are."""
    if not is_store(name):
        raise unknown_store(name)
    if name not in STORES:
        return PLUGINS.load(name)
    module, _, attribute = STORES[name].partition(":")
    found: type[VectorStore] = getattr(import_module(module), attribute)
    return found


def checked_vectors(vectors: np.ndarray, dimension: int) -> np.ndarray:
    """Return vectors as contiguous float32 [n, dimension]; BadInput on another shape or a value not finite.

    FAISS itself checks the shape by an assertion that ``python -O`` removes, and accepts NaN.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise BadInput(f"vectors have the shape {vectors.shape}, but this index holds [n, {dimension}]")
    if not np.isfinite(vectors).all():
        raise BadInput("a vector holds a value that is not a finite number")
    return vectors


def checked_ids(ids: np.ndarray, count: int, taken: np.ndarray) -> np.ndarray:
    """Return ids as int64 [count]; BadInput when the count differs or an id is negative, doubled or taken."""
    ids = np.ascontiguousarray(ids, dtype=np.int64)
    if ids.shape != (count,):
        raise BadInput(f"{count} vectors came with ids of the shape {ids.shape}")
    if len(np.unique(ids)) != count or (ids < 0).any() or np.isin(ids, taken).any():
        raise BadInput("vector ids must be new, unique and not negative")
    return ids


def refuse_mapped(mapped: bool) -> None:
    """Raise BadInput when a mapped store is to be changed; FAISS would abort the whole process."""
    if mapped:
        raise BadInput("this vector store is mapped from its file and cannot be added to", "load it unmapped")


def sample_queries(vectors: np.ndarray, count: int) -> np.ndarray:
    """Return made queries, unit float32 [count, dimension]: each lies between two stored vectors."""
    draw = np.random.default_rng(1234)
    first, second = (vectors[draw.integers(0, len(vectors), count)] for _ in range(2))
    middle = 2 * first + second
    return np.asarray(middle / np.linalg.norm(middle, axis=1, keepdims=True).clip(1e-9), dtype=np.float32)


def store_recall(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the share of the wanted ids that were found, over all rows."""
    pairs = zip(found.tolist(), wanted.tolist(), strict=True)
    return sum(len(set(f) & set(w)) for f, w in pairs) / max(1, wanted.size)


NUMPY_READ_LOCK = threading.Lock()
"""Held while a header is read, by this module or by a library that reads arrays for us."""


def read_array(path: Path, *, mapped: bool = False) -> np.ndarray:
    """Return the array of a ``.npy`` file, mapped read-only where that is asked for; never unpickled."""
    with NUMPY_READ_LOCK:
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    return array
