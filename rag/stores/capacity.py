"""Bytes that an index takes, by formula: vectors and compressed codes of FAISS, HNSW and tables of PostgreSQL.

The formulas are of the file formats, so that a size can be told before anything is built; published and measured sizes are
compared with them in ``benchmarks/published_retrieval.py``. Imports no numpy.
"""

from __future__ import annotations

ID_BYTES = 8
"""An id in FAISS and a row id in LanceDB."""
HNSW_NEIGHBOURS = 16
"""pgvector's default ``m``: links of a vector in each layer above the lowest, which has twice as many."""
FAISS_GRAPH_LINKS = 32
"""Links of FAISS's ``HNSW32`` over the centroids of inverted lists."""
_PAGE_BYTES = 8192 - 24
"""A page of PostgreSQL without its head."""
_LINE_POINTER = 4
_TUPLE_HEAD = 24


def value_bytes(vectors: str) -> int:
    """Return the bytes of one value of a type of pgvector: 4 for ``vector``, 2 for ``halfvec``."""
    return {"vector": 4, "halfvec": 2}[vectors]


def flat_bytes(rows: int, dimension: int) -> int:
    """Return the bytes of exact vectors with their ids: four a value and eight an id (FAISS's ``IDMap2,Flat``)."""
    return rows * (4 * dimension + ID_BYTES)


def ivf_bytes(rows: int, code_bytes: int, lists: int, dimension: int, graph: bool = False) -> int:
    """Return the bytes of a FAISS index of inverted lists: a code and an id for each row, and the lists' centroids.

    Args:
        rows: vectors.
        code_bytes: of one vector: its dimension for SQ8, one for each sub-vector for PQ with 8 bits.
        lists: inverted lists.
        dimension: of the centroids; after OPQ that of the rotated vectors.
        graph: whether the centroids are searched by HNSW32: 64 links in the lowest layer, 32 in each further one,
            which holds one in 32, at 4 bytes; an offset of 8 bytes and a level of 4 (faiss/impl/HNSW.h).
    """
    links = 2 * FAISS_GRAPH_LINKS + FAISS_GRAPH_LINKS / (FAISS_GRAPH_LINKS - 1)
    centroid = 4 * dimension + (round(4 * links) + 12 if graph else 0)
    return rows * (code_bytes + ID_BYTES) + lists * centroid


def hnsw_bytes(rows: int, dimension: int, vectors: str = "vector", neighbours: int = HNSW_NEIGHBOURS) -> int:
    """Return the bytes of pgvector's HNSW index, which it also needs in memory while it is built, and to be fast.

    An element holds 72 bytes, the vector with its head of 8, and lies on one page with its list of neighbours: 4 bytes and
    6 for each of 2 m neighbours in layer 0 (and m in each further layer, 1 / (m - 1) of them on average); both are padded
    to 8 and have a line pointer of 4, and a page ends with 8 bytes (src/hnsw.h of pgvector 0.8). Measured at 100,000 rows
    of 384 dimensions, m 16: 2,045 bytes a row for vector and 1,174 for halfvec; the formula gives 2,048 and 1,170.

    Args:
        rows: vectors.
        dimension: of a vector.
        vectors: ``vector`` (4 bytes a value) or ``halfvec`` (2).
        neighbours: pgvector's ``m``.
    """
    page = _PAGE_BYTES - 8
    element = _padded(72 + 8 + dimension * value_bytes(vectors)) + _LINE_POINTER
    links = 2 * neighbours * 6 + round(6 * neighbours / (neighbours - 1))
    listed = _padded(4 + links) + _LINE_POINTER
    if element + listed <= page:
        return -(-rows * 8192 // (page // (element + listed)))
    # too large for one page: the element has a page of its own, the lists of neighbours share others
    return rows * 8192 + -(-rows * 8192 // (page // listed))


def heap_bytes(rows: int, payload: int) -> int:
    """Return the bytes of a table of PostgreSQL whose rows hold ``payload`` bytes of values in the row itself.

    A row has a head of 24 bytes (23, padded), is padded to 8 and has a line pointer of 4; whole rows fill a page of 8,168
    (PostgreSQL's documentation, "Database Page Layout"). Larger rows, which PostgreSQL stores outside, are not counted.
    """
    return -(-rows * 8192 // (_PAGE_BYTES // (_padded(_TUPLE_HEAD + payload) + _LINE_POINTER)))


def _padded(size: int) -> int:
    return -(-size // 8) * 8
