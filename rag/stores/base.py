"""The protocol of a vector store, the table of stores, the checks that all stores share, and reading of numpy files."""

from __future__ import annotations

import threading
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from rag.errors import BadInput
from rag.files import disk_full_as_problem
from rag.plugins import STORES as STORES_GROUP
from rag.plugins import PluginGroup, UnusablePlugin

STORES: dict[str, str] = {"flat": "rag.stores.faiss:FlatStore", "ivf": "rag.stores.faiss:IvfStore"}
"""Name to "module:class"; the module is imported only when the store is used."""
OLDER_STORES = {"exact": "flat", "hnsw": "flat", "sq8": "flat"}
"""Stores of 0.2.0 that are no longer written, and the one in which an update writes their vectors, read as exact ones."""
AUTO = "auto"
"""Not a store but a setting: the fastest store that finds what exact search finds; see :mod:`rag.stores.choose`."""
NUMPY_READ_LOCK = threading.Lock()
"""Held while a ``.npy`` header is read, by this module or by a library. numpy reads it with ``ast.literal_eval``, and
CPython 3.11 counts the recursion depth of that in one place for all threads: two at once can raise ``SystemError: AST
constructor recursion depth mismatch``."""


class VectorStore(Protocol):
    """Unit vectors under int64 ids, searched by inner product; the caller gives the ids, each only once.

    Nothing is ever deleted from a store: a new generation gets a store of its own, made from the vectors that remain.
    So no store needs deletion, which HNSW does not support, and which shifts the rows of a flat FAISS index.
    """

    def __init__(self, dimension: int) -> None:
        """Create an empty store for vectors of this dimension."""

    @property
    def ids(self) -> np.ndarray:
        """All ids, int64, in the order in which they were added."""

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Add float32 [n, dimension] under n new ids; BadInput if the store was loaded mapped."""

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return the stored vectors of ids, float32 [len(ids), dimension]; KeyError for an unknown id."""

    def search(
        self, queries: np.ndarray, k: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (ids int64, scores float32), each [len(queries), min(k, stored)], best first; scores are exact.

        Args:
            queries: unit vectors, float32 [queries, dimension].
            k: number of results for each query.
            among: the only ids that may be returned, None for all: the best k of them, exactly; unknown ids are ignored.
        """

    def save(self, folder: Path) -> None:
        """Write the store's files into an existing folder; equal contents give equal bytes."""

    @classmethod
    def load(cls, folder: Path, dimension: int, *, mapped: bool = False) -> Self:
        """Read what :meth:`save` wrote; the caller has verified the files' hashes.

        ``mapped`` leaves the vectors in the file (memory-mapped), shared by all readers; such a store cannot be added
        to.
        """


def _check_plugin(name: str, store: Any) -> type[VectorStore]:
    missing = [
        part for part in ("ids", "add", "vectors", "search", "save", "load") if not hasattr(store, part)
    ]
    if not isinstance(store, type) or missing:
        raise UnusablePlugin(f"not a class with {', '.join(missing) or 'the methods of VectorStore'}")
    return store


PLUGINS = PluginGroup(STORES_GROUP, (*STORES, AUTO), _check_plugin)


def stored_class(name: str) -> type[VectorStore]:
    """Return the class that reads a store by the name in a manifest, which may be one of :data:`OLDER_STORES`."""
    if name not in OLDER_STORES:
        return store_class(name)
    older: type[VectorStore] = import_module("rag.stores.exact").ExactStore
    return older


def is_store(name: str) -> bool:
    """Return whether a store of this name is built in or provided by a plug-in."""
    return name in STORES or name in PLUGINS.plugins


def unknown_store(name: str, *more: str) -> BadInput:
    """Return the error for an unknown store name; its hint lists the known ones."""
    names = ", ".join((*more, *STORES, *PLUGINS.plugins))
    return BadInput(f"unknown vector store {name!r}", f"there are: {names}")


def store_class(name: str) -> type[VectorStore]:
    """Return the class of a store by its name; BadInput for an unknown name."""
    if not is_store(name):
        raise unknown_store(name)
    if name not in STORES:
        return PLUGINS.load(name)
    module, _, attribute = STORES[name].partition(":")
    store: type[VectorStore] = getattr(import_module(module), attribute)
    return store


def checked_vectors(vectors: np.ndarray, dimension: int) -> np.ndarray:
    """Return vectors as contiguous float32 [n, dimension]; BadInput for another shape or a value that is not finite.

    FAISS itself checks the shape by an assertion that ``python -O`` removes, and accepts NaN.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise BadInput(f"vectors have the shape {vectors.shape}, but this index has [n, {dimension}]")
    if not np.isfinite(vectors).all():
        raise BadInput("a vector has a value that is not a finite number")
    return vectors


def checked_ids(ids: np.ndarray, count: int, taken: np.ndarray) -> np.ndarray:
    """Return ids as int64 [count]; BadInput if the count differs or an id is negative, repeated or already taken."""
    ids = np.ascontiguousarray(ids, dtype=np.int64)
    if ids.shape != (count,):
        raise BadInput(f"{count} vectors came with ids of the shape {ids.shape}")
    if len(np.unique(ids)) != count or (ids < 0).any() or np.isin(ids, taken).any():
        raise BadInput("vector ids must be new, unique and not negative")
    return ids


def refuse_mapped(mapped: bool) -> None:
    """Raise BadInput if a mapped store is to be changed; FAISS would abort the whole process."""
    if mapped:
        raise BadInput("this vector store is mapped from its file and cannot be added to", "load it unmapped")


def sample_queries(vectors: np.ndarray, count: int) -> np.ndarray:
    """Return artificial queries, unit float32 [count, dimension]: each is between two stored vectors."""
    draw = np.random.default_rng(1234)
    first, second = (vectors[draw.integers(0, len(vectors), count)] for _ in range(2))
    # twice as close to the first: a query that equals a stored vector would be too easy; clip avoids a division by 0
    middle = 2 * first + second
    return np.asarray(middle / np.linalg.norm(middle, axis=1, keepdims=True).clip(1e-9), dtype=np.float32)


def store_recall(returned: np.ndarray, wanted: np.ndarray) -> float:
    """Return the share of the wanted ids that were returned, over all rows; both arrays are [queries, k]."""
    pairs = zip(returned.tolist(), wanted.tolist(), strict=True)
    return sum(len(set(row) & set(wanted_row)) for row, wanted_row in pairs) / max(1, wanted.size)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a ``.npy`` file as ``numpy.save`` does, which would overlook what cannot be written when the file is closed.

    Raises:
        CannotRun: the disk is full.
    """
    layout = np.lib.format
    with disk_full_as_problem(path), path.open("wb") as stream:
        layout.write_array_header_1_0(stream, layout.header_data_from_array_1_0(array))
        stream.write(np.ascontiguousarray(array).data)


def read_array(path: Path, *, mapped: bool = False) -> np.ndarray:
    """Return the array of a ``.npy`` file, memory-mapped read-only if ``mapped``; never unpickled."""
    with NUMPY_READ_LOCK:
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    return array
