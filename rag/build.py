"""Build or update an index: load, compare, chunk, embed only what is new, publish one generation."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag import generations
from rag.chunk import Chunker
from rag.durable import sha256_text, writer_lock
from rag.encoder import Encoder, OnEvent
from rag.errors import BadInput
from rag.lexical import Lexical
from rag.load.base import Skipped
from rag.load.walk import Loaded, load_documents
from rag.settings import IndexSettings
from rag.stores.base import VectorStore, store_class
from rag.stores.text import FILE, Change, Stored, TextStore, digest, stored
from rag.types import Chunk, Document


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build or update did; found = indexed + unchanged + skipped, indexed = added + changed."""

    found: int
    indexed: int
    added: int
    changed: int
    removed: int
    unchanged: int
    skipped: tuple[Skipped, ...]
    chunks: int
    """Chunks in the generation."""
    embedded: int
    """Texts that were embedded; the others kept their vectors."""
    generation: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``index build|update --json`` prints."""
        return {"schema": 1, **asdict(self), "skipped": [item.to_json() for item in self.skipped]}


@dataclass(frozen=True, slots=True)
class _Before:
    """The generation an update starts from; empty for a fresh build."""

    number: int
    next_id: int
    documents: dict[str, str]
    rows: list[Stored]
    vectors: VectorStore | None


class _Builder:
    """One build or update under the writer's lock."""

    def __init__(
        self, folder: Path, encoder: Encoder, settings: IndexSettings, on_event: OnEvent | None
    ) -> None:
        self._folder = folder
        self._encoder = encoder
        self._settings = settings
        self._chunker = Chunker(encoder, settings)
        self._tell = on_event or (lambda event: None)

    def run(self, documents: Path, fresh: bool) -> BuildReport:
        began = time.monotonic()
        loaded = load_documents(documents)
        self._tell({"event": "index.loaded", "found": loaded.found, "documents": len(loaded.documents)})
        with TextStore(self._folder, write=True) as text:
            published = generations.current(self._folder)
            text.take_back(published)
            generations.sweep(self._folder, published)
            before = self._before(text, published, fresh)
            comings = [d for d in loaded.documents if before.documents.get(d.id) != d.sha256]
            ids = {d.id for d in loaded.documents}
            leavings = [id for id in before.documents if id not in ids]
            if not comings and not leavings and published and not fresh:
                return _report(loaded, before, [], [], before.rows, 0, published, began)
            change, rows, next_id = self._change(before, comings, leavings)
            if fresh:
                change = _whole(change, text, published)
            text.apply(published + 1, change)
            embedded = self._publish(before, rows, published + 1, next_id, len(ids))
            text.forget(generations.sweep(self._folder, published + 1))
        return _report(loaded, before, comings, leavings, rows, embedded, published + 1, began)

    def _before(self, text: TextStore, published: int, fresh: bool) -> _Before:
        if not published:
            return _Before(0, 1, {}, [], None)
        manifest = generations.verified(self._folder, published).manifest
        next_id = int(manifest["next_id"])
        if fresh:
            return _Before(published, next_id, {}, [], None)
        store = store_class(self._settings.store)
        vectors = store.load(self._folder / generations.name(published), self._encoder.dimension)
        return _Before(published, next_id, text.documents(published), text.chunks(published), vectors)

    def _change(
        self, before: _Before, comings: list[Document], leavings: list[str]
    ) -> tuple[Change, list[Stored], int]:
        """Return what changes, all rows of the new generation by id, and the next free id."""
        touched = {d.id for d in comings} | set(leavings)
        kept = {row.chunk.id: row for row in before.rows if row.chunk.doc not in touched}
        old: defaultdict[tuple[str, str], list[Stored]] = defaultdict(list)
        for row in reversed(before.rows):
            if row.chunk.doc in touched:
                old[row.chunk.doc, row.embedded].append(row)
        next_id, same, new = before.next_id, set(), []
        for chunk in (chunk for document in comings for chunk in self._chunker.chunks(document)):
            embedded = sha256_text(self._chunker.embedded_text(chunk))
            match = old[chunk.doc, embedded].pop() if old[chunk.doc, embedded] else None
            row = stored(_with_id(chunk, match.chunk.id if match else next_id), embedded)
            next_id += match is None
            kept[row.chunk.id] = row
            if match and match.sha256 == row.sha256:
                same.add(row.chunk.id)
            else:
                new.append(row)
        out = [r.chunk.id for r in before.rows if r.chunk.doc in touched and r.chunk.id not in same]
        gone = (*leavings, *(d.id for d in comings if d.id in before.documents))
        rows = [kept[id] for id in sorted(kept)]
        self._tell({"event": "index.chunked", "chunks": len(rows), "new": len(new)})
        return Change(gone, tuple(comings), tuple(out), tuple(new)), rows, next_id

    def _publish(self, before: _Before, rows: list[Stored], number: int, next_id: int, documents: int) -> int:
        """Write and publish the generation's files; return how many texts were embedded."""
        texts = [self._chunker.embedded_text(row.chunk) for row in rows]
        vectors, embedded = self._vectors(before, rows, texts)
        prepared = generations.workplace(self._folder, number)
        store = store_class(self._settings.store)(self._encoder.dimension)
        store.add(np.array([row.chunk.id for row in rows], dtype=np.int64), vectors)
        store.save(prepared)
        (prepared / "lexical").mkdir()
        Lexical.build(texts, self._settings.k1, self._settings.b).save(prepared / "lexical")
        facts = {
            "number": number,
            "embedder": self._encoder.name,
            "fingerprint": self._encoder.fingerprint,
            "dimension": self._encoder.dimension,
            "settings": self._settings.to_json(),
            "documents": documents,
            "chunks": len(rows),
            "next_id": next_id,
            "text_sha256": digest(rows),
        }
        generations.publish(self._folder, number, prepared, facts)
        self._tell({"event": "index.published", "generation": number, "chunks": len(rows)})
        return embedded

    def _vectors(self, before: _Before, rows: list[Stored], texts: list[str]) -> tuple[np.ndarray, int]:
        """Return all rows' vectors; a text that had a vector keeps it, equal texts are embedded once."""
        known = {row.embedded: row.chunk.id for row in before.rows}
        missing = {
            row.embedded: text for row, text in zip(rows, texts, strict=True) if row.embedded not in known
        }
        vectors = np.empty((len(rows), self._encoder.dimension), dtype=np.float32)
        fresh = self._encoder.encode(list(missing.values()), on_event=self._tell) if missing else None
        place = {embedded: n for n, embedded in enumerate(missing)}
        for n, row in enumerate(rows):
            if row.embedded in place and fresh is not None:
                vectors[n] = fresh[place[row.embedded]]
        reused = [n for n, row in enumerate(rows) if row.embedded in known]
        if reused and before.vectors is not None:
            vectors[reused] = before.vectors.vectors(np.array([known[rows[n].embedded] for n in reused]))
        return vectors, len(missing)


def build(
    folder: Path, documents: Path, encoder: Encoder, settings: IndexSettings, on_event: OnEvent | None
) -> BuildReport:
    """Build a generation from nothing, replacing what the index held; see ``Index.build``."""
    strangers = _strangers(folder)
    if strangers:
        raise BadInput(
            f"{folder} is not an index and not empty: it holds {strangers[0]}", "choose another folder"
        )
    with writer_lock(folder):
        return _Builder(folder, encoder, settings, on_event).run(documents, fresh=True)


def update(folder: Path, documents: Path, encoder: Encoder, on_event: OnEvent | None) -> BuildReport:
    """Bring the index to what the documents are now; see ``Index.update``."""
    if not generations.current(folder):
        raise BadInput(f"{folder} is not an index: there is nothing to update", "build it first")
    with writer_lock(folder):
        manifest = generations.verified(folder, generations.current(folder)).manifest
        same_embedder(folder, manifest, encoder)
        settings = IndexSettings.from_json(manifest["settings"])
        return _Builder(folder, encoder, settings, on_event).run(documents, fresh=False)


def same_embedder(folder: Path, manifest: dict[str, Any], encoder: Encoder) -> None:
    """Refuse an embedder whose vectors cannot be compared with those of the index."""
    if manifest["fingerprint"] != encoder.fingerprint:
        raise BadInput(
            f"{folder} was built with another embedder: it holds vectors of {manifest['embedder']} "
            f"({manifest['fingerprint']}), this is {encoder.name} ({encoder.fingerprint})",
            "rebuild the index with this embedder, or use the one it was built with",
        )


def _strangers(folder: Path) -> list[str]:
    if not folder.exists() or (folder / FILE).exists() or (folder / generations.CURRENT).exists():
        return []
    if not folder.is_dir():
        return [f"nothing, being a file: {folder.name}"]
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def _whole(change: Change, text: TextStore, published: int) -> Change:
    """Return a fresh build's change, which also ends everything the index held."""
    documents = tuple(text.documents(published))
    chunks = tuple(row.chunk.id for row in text.chunks(published))
    return Change(documents, change.documents_in, chunks, change.chunks_in)


def _with_id(chunk: Chunk, id: int) -> Chunk:
    return Chunk(id, *(getattr(chunk, name) for name in Chunk.__slots__[1:]))


def _report(
    loaded: Loaded,
    before: _Before,
    comings: list[Document],
    leavings: list[str],
    rows: list[Stored],
    embedded: int,
    generation: int,
    began: float,
) -> BuildReport:
    changed = sum(document.id in before.documents for document in comings)
    return BuildReport(
        found=loaded.found,
        indexed=len(comings),
        added=len(comings) - changed,
        changed=changed,
        removed=len(leavings),
        unchanged=len(loaded.documents) - len(comings),
        skipped=loaded.skipped,
        chunks=len(rows),
        embedded=embedded,
        generation=generation,
        seconds=round(time.monotonic() - began, 3),
    )
