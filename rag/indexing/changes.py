"""What changes between the documents in an index and the documents as they are now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rag.files import sha256_text
from rag.indexing.chunking import Chunker
from rag.stores.text import RowChange, RowSummary, StoredChunk, store_row
from rag.types import Document


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """The rows that go and come, and the texts whose vectors are needed."""

    change: RowChange
    texts: Mapping[str, str]
    """Hash to text of everything embedded in the rows that come."""
    added: int
    changed: int
    removed: tuple[str, ...]
    unchanged: int

    @property
    def is_empty(self) -> bool:
        """Whether the documents are what the index holds already."""
        return not (self.added or self.changed or self.removed)

    def whole(self) -> ChangeSet:
        """Return the plan of a fresh build, which also ends everything the index held."""
        return replace(self, change=replace(self.change, whole=True))


def compare_documents(
    documents: Sequence[Document], there: Mapping[str, str], rows: Sequence[RowSummary], chunker: Chunker
) -> ChangeSet:
    """Return what turns the index (ids with content hashes, and its rows) into the documents.

    Only documents whose content hash differs are cut; a chunk whose embedded text is already a chunk of the
    same document keeps its id, and its row too when nothing else about it changed.
    """
    comings = tuple(d for d in documents if there.get(d.id) != d.sha256)
    ids = {d.id for d in documents}
    leavings = tuple(id for id in there if id not in ids)
    touched = {d.id for d in comings} | set(leavings)
    old: defaultdict[tuple[str, str], list[RowSummary]] = defaultdict(list)
    for row in reversed(rows):
        if row.doc in touched:
            old[row.doc, row.embedded].append(row)
    texts: dict[str, str] = {}
    same: set[int] = set()
    new: list[StoredChunk] = []
    for chunk in (chunk for document in comings for chunk in chunker.chunks(document)):
        text = chunker.embedded_text(chunk)
        key = sha256_text(text)
        match = old[chunk.doc, key].pop() if old[chunk.doc, key] else None
        coming = store_row(replace(chunk, id=match.id if match else 0), key)
        if match and match.sha256 == coming.sha256:
            same.add(match.id)
        else:
            new.append(coming)
            texts[key] = text
    out = tuple(row.id for row in rows if row.doc in touched and row.id not in same)
    changed = tuple(d.id for d in comings if d.id in there)
    return ChangeSet(
        RowChange((*leavings, *changed), comings, out, tuple(new)),
        texts,
        len(comings) - len(changed),
        len(changed),
        leavings,
        len(documents) - len(comings),
    )
