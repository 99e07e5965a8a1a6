"""The `index` export: the run's passages, vectors and metadata as one Parquet file, for any other database.

`make_index_export` is the target's maker, `write_parquet` writes and verifies the file. pyarrow is imported inside
functions.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from rag.errors import BadInput
from rag.files import canonical_json
from rag.index import Index
from rag.types import Chunk
from runners.export.job import ExportedFiles, ExportJob, require_disk_space
from runners.run_folder import INDEX, RETRIEVER, TUNED_INDEX
from runners.runs.retrieval import EMBEDDER_FOLDER

PASSAGES_FILE = "passages.parquet"
_USAGE = """```python
import pyarrow.parquet as pq

table = pq.read_table("passages.parquet")  # id, text, vector, metadata (JSON), fingerprint
```

Vectors have length 1: search them by inner product. Questions must be embedded by the embedder named below, of that
fingerprint, with its prompt before a question where one is named; another one's vectors mean nothing beside these.
"""
_TUNED_USAGE = """
The embedder was tuned in this run: it is in `embedder`, a folder of sentence-transformers.
"""
COLUMNS = ("id", "text", "vector", "metadata", "fingerprint")
ROWS_PER_BATCH = 4096
"""Rows written at a time, so that a large index is never in memory twice."""
_CHUNK_FIELDS = ("doc", "title", "heading", "ordinal", "start", "end", "line_start", "line_end", "page")


def make_index_export(job: ExportJob) -> ExportedFiles:
    """Write the file; raise `BadInput` for a run without an index, or with a damaged one."""
    arm = job.source.session.searched_arm
    tuned = arm is not None and arm.retriever == "tuned"
    folder = job.source.run.path / (TUNED_INDEX if tuned else INDEX)
    if job.source.plan.index is None or not folder.is_dir():
        raise BadInput(
            "this run has no index: none of its arms searches one",
            "its rows or all of it: --to provider-jsonl, bundle",
        )
    index = Index.open(folder)
    texts = sum(len(chunk.text.encode()) for chunk in index.backend.all_chunks())
    facts = index.backend.facts
    require_disk_space(job.out, 4 * index.dimension * facts.chunks + 2 * texts)
    checked = write_parquet(index, job.folder / PASSAGES_FILE)
    usage = _USAGE
    if tuned:
        shutil.copytree(job.source.run.path / RETRIEVER / EMBEDDER_FOLDER, job.folder / EMBEDDER_FOLDER)
        usage += _TUNED_USAGE
    made_from = {
        "embedder": f"{index.embedder}, fingerprint {index.fingerprint[:16]}",
        **_prompt_facts(index),
        "generation of the index": str(index.generation),
        "documents, passages": f"{facts.documents:,}, {facts.chunks:,}",
    }
    return ExportedFiles(usage, checked, made_from=made_from)


def _prompt_facts(index: Index) -> dict[str, str]:
    """Return the prompts that belong to the vectors, for the card; {} where there are none."""
    names = {"query_prompt": "before a question", "document_prompt": "before a passage"}
    return {
        f"prompt {text}": repr(index.encoding[key]) for key, text in names.items() if index.encoding.get(key)
    }


def write_parquet(index: Index, file: Path) -> dict[str, Any]:
    """Write every passage of an open index in the order of ids, then read the file back.

    Columns: `id` int64, `text` string, `vector` a fixed-size list of float32 (of unit length, as searched), `metadata` a
    JSON object (document, title, position, the document's own metadata), `fingerprint` the embedder's. The file's
    metadata names the embedder, the generation and the settings.

    Returns:
        What was compared, for the card.

    Raises:
        BadInput: the file does not hold what the index holds.
    """
    import pyarrow as pa
    from pyarrow import parquet

    facts = {
        "tunewise.embedder": index.embedder,
        "tunewise.fingerprint": index.fingerprint,
        "tunewise.dimension": str(index.dimension),
        "tunewise.generation": str(index.generation),
        "tunewise.settings": canonical_json(index.settings.to_json()),
        "tunewise.encoding": canonical_json(index.encoding),
    }
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), index.dimension), nullable=False),
            pa.field("metadata", pa.string(), nullable=False),
            pa.field("fingerprint", pa.string(), nullable=False),
        ],
        metadata=facts,
    )
    with parquet.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
        for chunks, vectors in _batches(index):
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


def _batches(index: Index) -> Iterator[tuple[tuple[Chunk, ...], np.ndarray]]:
    """Yield chunks with their vectors, [chunks, dimension]."""
    remaining = index.backend.all_chunks()
    while chunks := tuple(islice(remaining, ROWS_PER_BATCH)):
        yield chunks, index.vectors([chunk.id for chunk in chunks])


def _metadata(index: Index, chunk: Chunk) -> dict[str, Any]:
    return {
        **{name: getattr(chunk, name) for name in _CHUNK_FIELDS},
        "document": dict(index.backend.metadata(chunk.doc)),
    }


def _read_back(index: Index, file: Path) -> dict[str, Any]:
    """Compare every row of the written file with the index, batch by batch."""
    from pyarrow import parquet

    rows = 0
    with parquet.ParquetFile(file, page_checksum_verification=True) as written:
        batches = written.iter_batches(batch_size=ROWS_PER_BATCH)
        for (chunks, vectors), batch in zip(_batches(index), batches, strict=True):
            texts = batch.column("text").to_pylist()
            flat = batch.column("vector").values.to_numpy(zero_copy_only=False)
            same_vectors = np.array_equal(flat.reshape(-1, index.dimension), vectors)
            same = texts == [chunk.text for chunk in chunks] and same_vectors
            if not same or batch.column("id").to_pylist() != [chunk.id for chunk in chunks]:
                raise BadInput(f"{file.name} does not have the same content as the index", "export it again")
            rows += len(texts)
    return {
        "rows read back and equal": rows,
        "length of a vector": index.dimension,
        "embedder": index.embedder,
    }
