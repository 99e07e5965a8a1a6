"""The `index` export: the run's passages and vectors as one Parquet file. Light."""

from __future__ import annotations

from rag.errors import BadInput
from runners.export.job import Job, Made
from runners.export.parcel import require_room
from runners.rundir import INDEX

FILE = "passages.parquet"
_HOW = """```python
import pyarrow.parquet as pq

table = pq.read_table("passages.parquet")  # id, text, vector, metadata (JSON), fingerprint
```

Vectors have length 1: search them by inner product. Questions must be embedded by the embedder named below, of that
fingerprint; another one's vectors mean nothing beside these.
"""


def make(job: Job) -> Made:
    """Write the file; BadInput for a run without an index, or with a damaged one."""
    from rag.index import Index
    from rag.parquet import write_parquet

    folder = job.source.run.path / INDEX
    if job.source.plan.index is None or not folder.is_dir():
        raise BadInput(
            "this run has no index: none of its arms retrieves",
            "its rows or all of it: --to provider-jsonl, bundle",
        )
    index = Index.open(folder)
    texts = sum(len(chunk.text.encode()) for chunk in index.chunks)
    require_room(job.out, 4 * index.dimension * len(index.chunks) + 2 * texts)
    found = write_parquet(index, job.made / FILE)
    of = {
        "embedder": f"{index.embedder}, fingerprint {index.fingerprint[:16]}",
        "generation of the index": str(index.generation),
        "documents, passages": f"{len({c.doc for c in index.chunks}):,}, {len(index.chunks):,}",
    }  # fmt: skip
    return Made(_HOW, found, of=of)
