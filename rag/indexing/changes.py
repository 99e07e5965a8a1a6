"""The difference between the documents of an index and the documents as they are now, in rows of the text store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from rag.files import sha256_text
from rag.stores.text import RowChange, RowSummary, StoredChunk, store_row
from rag.types import Chunk, Document


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """The rows to remove and to add, and the texts whose vectors are needed."""

    change: RowChange
    texts: Mapping[str, str]
    """The embedded texts of the added rows, by hash."""
    added: int
    changed: int
    removed: tuple[str, ...]
    unchanged: int

    @property
    def is_empty(self) -> bool:
        """Whether the documents are equal to those of the index."""
        return not (self.added or self.changed or self.removed)

    def whole(self) -> ChangeSet:
        """Return the change of a fresh build, which also removes all earlier rows."""
        return replace(self, change=replace(self.change, whole=True))


class ChunkSource(Protocol):
    """What gives the chunks of documents: a :class:`rag.indexing.chunking.Chunker`, or chunks that were cut before."""

    def chunks(self, document: Document) -> list[Chunk]:
        """Return the document's chunks in order, with ids still 0."""

    def embedded_text(self, chunk: Chunk) -> str:
        """Return the text that is embedded and searched for a chunk."""


def compare_documents(
    documents: Sequence[Document],
    stored: Mapping[str, str],
    rows: Sequence[RowSummary],
    chunker: ChunkSource,
) -> ChangeSet:
    """Return the change that turns the index into the documents.

    Only documents whose content hash differs are cut. A chunk whose embedded text was already a chunk of the same
    document keeps its id, and its row too if nothing else about it changed.

    Args:
        documents: as they are now.
        stored: content hash of each document in the index, by id.
        rows: the chunks of the index.
        chunker: cuts the changed documents.
    """
    to_cut = tuple(document for document in documents if stored.get(document.id) != document.sha256)
    ids = {document.id for document in documents}
    removed = tuple(id for id in stored if id not in ids)
    affected = {document.id for document in to_cut} | set(removed)
    old_rows: defaultdict[tuple[str, str], list[RowSummary]] = defaultdict(list)
    for row in reversed(rows):
        if row.doc in affected:
            old_rows[row.doc, row.embedded].append(row)
    texts: dict[str, str] = {}
    unchanged_ids: set[int] = set()
    new_rows: list[StoredChunk] = []
    for chunk in (chunk for document in to_cut for chunk in chunker.chunks(document)):
        text = chunker.embedded_text(chunk)
        key = sha256_text(text)
        match = old_rows[chunk.doc, key].pop() if old_rows[chunk.doc, key] else None
        new_row = store_row(replace(chunk, id=match.id if match else 0), key)
        if match and match.sha256 == new_row.sha256:
            unchanged_ids.add(match.id)
        else:
            new_rows.append(new_row)
            texts[key] = text
    removed_ids = tuple(row.id for row in rows if row.doc in affected and row.id not in unchanged_ids)
    changed = tuple(document.id for document in to_cut if document.id in stored)
    return ChangeSet(
        RowChange((*removed, *changed), to_cut, removed_ids, tuple(new_rows)),
        texts,
        len(to_cut) - len(changed),
        len(changed),
        removed,
        len(documents) - len(to_cut),
    )
