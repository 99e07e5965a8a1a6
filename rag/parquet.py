"""An index as one Parquet file, for whatever database comes next: passages, vectors, places. pyarrow is imported inside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rag.durable import canonical_json
from rag.errors import BadInput
from rag.index import Index
from rag.types import Chunk

COLUMNS = ("id", "text", "vector", "metadata", "fingerprint")
ROWS = 4096
"""Rows written at a time, so that a large index is never in memory twice."""
_PLACES = ("doc", "title", "heading", "ordinal", "start", "end", "line_start", "line_end", "page")


def write_parquet(index: Index, file: Path) -> dict[str, Any]:
    """Write every passage of an open index in the order of ids, then read the file back; return what was found.

    ``id`` int64, ``text`` string, ``vector`` a list of float32 of fixed length (unit length, as searched), ``metadata``
    a JSON object (document, title, place, the document's own metadata), ``fingerprint`` the embedder's. The file's own
    metadata names the embedder, the generation and the settings. Raises BadInput when what is read back differs.
    """
    import pyarrow as pa
    from pyarrow import parquet

    facts = {
        "tunewise.embedder": index.embedder, "tunewise.fingerprint": index.fingerprint,
        "tunewise.dimension": str(index.dimension), "tunewise.generation": str(index.generation),
        "tunewise.settings": canonical_json(index.settings.to_json()),
    }  # fmt: skip
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False), pa.field("text", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), index.dimension), nullable=False),
            pa.field("metadata", pa.string(), nullable=False), pa.field("fingerprint", pa.string(), nullable=False),
        ],
        metadata=facts,
    )  # fmt: skip
    with parquet.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
        for chunks, vectors in _parts(index):
            flat = pa.array(vectors.reshape(-1), type=pa.float32())
            columns = [
                pa.array([chunk.id for chunk in chunks], type=pa.int64()),
                pa.array([chunk.text for chunk in chunks], type=pa.string()),
                pa.FixedSizeListArray.from_arrays(flat, index.dimension),
                pa.array([canonical_json(_metadata(index, chunk)) for chunk in chunks], type=pa.string()),
                pa.array([index.fingerprint] * len(chunks), type=pa.string()),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return _read_back(index, file)


def _parts(index: Index) -> Iterator[tuple[tuple[Chunk, ...], np.ndarray]]:
    for start in range(0, len(index.chunks), ROWS):
        chunks = index.chunks[start : start + ROWS]
        yield chunks, index.vectors([chunk.id for chunk in chunks])


def _metadata(index: Index, chunk: Chunk) -> dict[str, Any]:
    return {
        **{name: getattr(chunk, name) for name in _PLACES},
        "document": dict(index.documents.metadata(chunk.doc)),
    }


def _read_back(index: Index, file: Path) -> dict[str, Any]:
    """Compare every row of the written file with the index, part by part."""
    from pyarrow import parquet

    rows = 0
    with parquet.ParquetFile(file, page_checksum_verification=True) as written:
        batches = written.iter_batches(batch_size=ROWS)
        for (chunks, vectors), batch in zip(_parts(index), batches, strict=True):
            texts = batch.column("text").to_pylist()
            found = batch.column("vector").values.to_numpy(zero_copy_only=False).reshape(-1, index.dimension)
            same = texts == [chunk.text for chunk in chunks] and np.array_equal(found, vectors)
            if not same or batch.column("id").to_pylist() != [chunk.id for chunk in chunks]:
                raise BadInput(f"{file.name} does not hold what the index holds", "export it again")
            rows += len(texts)
    return {
        "rows read back and equal": rows,
        "length of a vector": index.dimension,
        "embedder": index.embedder,
    }
