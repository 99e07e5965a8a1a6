"""The public retrieval sets: documents, questions with gold, and the vectors of a workbench kept in a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rag.embedding.protocol import Encoder
from rag.evaluation.workbench import Workbench
from rag.loading.reader import load_documents
from rag.stores.vector_cache import VectorCache
from rag.types import Document

NAMES = {
    "hybrid_concierge": "documents.jsonl",
    "chunk_eval": "documents",
    "xquad_en": "documents.jsonl",
    "xquad_es": "documents.jsonl",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A question with its gold document and spans; ``split`` is empty where the set has none."""

    question: str
    doc: str
    spans: tuple[tuple[int, int], ...]
    split: str


@dataclass(frozen=True, slots=True)
class Set:
    """One public set."""

    name: str
    documents: tuple[Document, ...]
    rows: tuple[Row, ...]


def read(data: Path, name: str) -> Set:
    """Read a set of the public data folder."""
    documents = load_documents(data / name / NAMES[name]).documents
    ids = {document.id for document in documents}
    lines = (data / name / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = []
    for row in map(json.loads, lines):
        doc = row["doc_id"] if row["doc_id"] in ids else f"{row['doc_id']}.md"
        spans = row.get("spans") or ([row] if "start" in row else [])
        places = tuple((span["start"], span["end"]) for span in spans)
        rows.append(Row(row["question"], doc, places, row.get("split", "")))
    assert {row.doc for row in rows} <= ids, name
    return Set(name, documents, tuple(rows))


@contextmanager
def bench(found: Set, encoder: Encoder, kept: Path) -> Iterator[Workbench]:
    """Put a set on a workbench whose vectors are kept in a folder, so that a second run embeds nothing."""
    folder = kept / found.name
    folder.mkdir(parents=True, exist_ok=True)
    with VectorCache(folder, encoder.fingerprint, encoder.dimension) as cache:
        yield Workbench(found.documents, encoder, cache)
