"""Build or update an index: load, compare, chunk, embed only what is new, publish one generation.

What a build or update did, with every document found accounted for.
"""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rag.embedding.language import language_note
from rag.embedding.protocol import Encoder
from rag.errors import BadInput
from rag.files import disk_full_as_problem, writer_lock
from rag.indexing import generations
from rag.indexing.changes import ChangeSet, compare_documents
from rag.indexing.chunking import Chunker
from rag.indexing.vectors import KnownVectors
from rag.indexing.writer import (
    PreviousGeneration,
    PublishedGeneration,
    index_facts,
    read_previous,
    write_generation,
)
from rag.loading import incremental
from rag.loading.base import Skipped
from rag.loading.incremental import ScanState
from rag.loading.reader import LoadedDocuments
from rag.settings import IndexSettings
from rag.stores import text, vector_cache
from rag.stores.choose import StoreMeasurement
from rag.stores.sqlite import database_files, is_database
from rag.stores.text import TextStore
from rag.stores.vector_cache import VectorCache
from rag.types import OnEvent
from rag.version import __version__


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
    """Texts that were embedded; the others kept their vectors, or had them in the cache."""
    cached: int
    """Texts whose vectors came from the cache."""
    generation: int
    store: str
    """The vector store used."""
    seconds: float
    stores: tuple[StoreMeasurement, ...] = ()
    """What was measured of the stores, where one was chosen or an approximate one was asked for."""
    remarks: tuple[str, ...] = ()
    """What else the user should be told of the documents."""
    gone: tuple[str, ...] = ()
    """The documents that the generation before still held, and this one does not."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``index build|update --json`` prints."""
        body = {"schema": 1, **asdict(self), "skipped": [item.to_json() for item in self.skipped]}
        del body["gone"]
        return {name: value for name, value in body.items() if value or name not in ("stores", "remarks")}


@dataclass(frozen=True, slots=True)
class UpdateOptions:
    """How an update is to be done."""

    purge: bool = False
    """Leave nothing of what was removed or changed: no older generation, no vector, no byte in a file."""
    trust_mtime: bool = False
    """Believe a file's size and time instead of hashing it."""


def build_index(
    folder: Path,
    documents: Path,
    encoder: Encoder,
    settings: IndexSettings,
    on_event: OnEvent | None,
    only: Collection[str] | None = None,
) -> BuildReport:
    """Build a generation from nothing, replacing what the index held; see ``Index.build``."""
    strangers = _strangers(folder)
    if strangers:
        raise BadInput(
            f"{folder} is not an index and not empty: it holds {strangers[0]}", "choose another folder"
        )
    missing = _missing(folder)
    with disk_full_as_problem(folder), writer_lock(folder), _leaving_nothing_behind(folder, missing):
        began = time.monotonic()
        tell = on_event or _unheard
        files = ScanState({}, {}, trust_mtime=False)
        loaded = _loaded(documents, files, tell)
        if only is not None:
            kept, wanted = loaded.documents, frozenset(only)
            loaded = replace(loaded, documents=tuple(document for document in kept if document.id in wanted))
        plan = compare_documents(loaded.documents, {}, (), Chunker(encoder, settings))
        tell({"event": "index.chunked", "chunks": len(plan.change.chunks_in), "new": len(plan.texts)})
        before = _salvaged(folder, encoder)
        with (
            TextStore(folder, write=True) as store,
            VectorCache(folder, encoder.fingerprint, encoder.dimension) as cached,
        ):
            store.roll_back(before.number)
            store.delete_before(generations.remove_old_generations(folder, before.number))
            made = write_generation(
                folder, store, cached, before, plan.whole(), encoder, index_facts(encoder, settings), tell
            )
            _tidy(folder, store, cached, made.number, made.texts, purge=False)
        if only is None:  # else an update would take the files for known and never read what was left out
            files.save(folder, __version__)
        return _report(loaded, plan, made, began, encoder)


def update_index(
    folder: Path, documents: Path, encoder: Encoder, on_event: OnEvent | None, wish: UpdateOptions
) -> BuildReport:
    """Bring the index to what the documents are now; see ``Index.update``."""
    if not generations.current_generation(folder):
        raise BadInput(f"{folder} is not an index: there is nothing to update", "build it first")
    with disk_full_as_problem(folder), writer_lock(folder), TextStore(folder, write=True) as store:
        began = time.monotonic()
        tell = on_event or _unheard
        published = generations.current_generation(folder)
        store.roll_back(published)
        store.delete_before(generations.remove_old_generations(folder, published))
        before = read_previous(folder, store, published)
        require_same_embedder(folder, before.manifest, encoder)
        settings = IndexSettings.from_json(before.manifest["settings"])
        there = store.documents(published)
        files = ScanState(incremental.read_scan_state(folder, __version__), there, wish.trust_mtime)
        loaded = _loaded(documents, files, tell)
        plan = compare_documents(loaded.documents, there, before.rows, Chunker(encoder, settings))
        with VectorCache(folder, encoder.fingerprint, encoder.dimension) as cached:
            if plan.is_empty:
                made = before.as_made()
            else:
                chunks = len(before.rows) - len(plan.change.chunks_out) + len(plan.change.chunks_in)
                tell({"event": "index.chunked", "chunks": chunks, "new": len(plan.texts)})
                made = write_generation(
                    folder, store, cached, before, plan, encoder, index_facts(encoder, settings), tell
                )
            gone = store.removed_documents(made.number)
            if wish.purge or not plan.is_empty:
                _tidy(folder, store, cached, made.number, made.texts, wish.purge)
        files.save(folder, __version__)
        return _report(loaded, plan, made, began, encoder, gone)


def require_same_embedder(folder: Path, manifest: dict[str, Any], encoder: Encoder) -> None:
    """Refuse an embedder whose vectors cannot be compared with those of the index."""
    if manifest["fingerprint"] != encoder.fingerprint:
        raise BadInput(
            f"{folder} was built with another embedder: it holds vectors of {manifest['embedder']} "
            f"({manifest['fingerprint']}), this is {encoder.name} ({encoder.fingerprint})",
            f"use {manifest['embedder']}, or rebuild the index: "
            f"tunewise index build {shlex.quote(str(folder))} --documents DOCUMENTS --embedder {encoder.name}",
        )


def _loaded(documents: Path, files: ScanState, tell: OnEvent) -> LoadedDocuments:
    loaded = files.load(documents)
    tell({"event": "index.loaded", "found": loaded.found, "documents": len(loaded.documents)})
    return loaded


def _salvaged(folder: Path, encoder: Encoder) -> PreviousGeneration:
    """Return what a fresh build may still use of an index, however damaged: numbers, ids, vectors.

    What an interrupted writer left is taken back first. A text store that cannot be read is deleted: no
    generation can be opened without it.
    """
    published, lost = 0, False
    try:
        published = generations.current_generation(folder)
    except BadInput:
        lost = True
    if not lost and (published or max(generations.generation_numbers(folder), default=0) <= 1):
        generations.remove_old_generations(folder, published)
    last = max(published, *generations.generation_numbers(folder), 0)
    next_id = generations.next_chunk_id(folder)
    known = KnownVectors({}, None)
    try:
        if (folder / text.TEXT_DATABASE).exists():
            with TextStore(folder, write=True) as store:
                store.check()
                if not last or published:
                    store.roll_back(published)
                next_id = store.next_id(next_id)
                last = max(last, *store.numbers(), 0)
                with suppress(BadInput):
                    before = read_previous(folder, store, published)
                    if before.manifest["fingerprint"] == encoder.fingerprint:
                        known = before.known
    except BadInput:
        for path in database_files(folder / text.TEXT_DATABASE):
            path.unlink(missing_ok=True)
    return PreviousGeneration(published, next_id, last, known=known)


def _tidy(
    folder: Path, store: TextStore, cached: VectorCache, number: int, used: Collection[str], purge: bool
) -> None:
    """Forget what no kept generation holds; with ``purge``, everything that the current one does not."""
    store.delete_before(
        generations.remove_old_generations(folder, number, keep=1 if purge else generations.KEPT_GENERATIONS)
    )
    if purge:
        store.vacuum()
    cached.trim(used, purge=purge)


def _strangers(folder: Path) -> list[str]:
    """Return what stands in a folder that no index made; such a folder is never written into."""
    if (
        not folder.exists()
        or (folder / generations.CURRENT_POINTER).exists()
        or generations.generation_numbers(folder)
    ):
        return []
    if not folder.is_dir():
        return [f"nothing, being a file: {folder.name}"]
    if is_database(folder / text.TEXT_DATABASE):
        return []
    ours = {
        path.name
        for name in (vector_cache.CACHE_DATABASE, incremental.SCAN_STATE_FILE)
        for path in database_files(folder / name)
    }
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".") and p.name not in ours)


def _missing(folder: Path) -> list[Path]:
    """Return the folders that a build will make, innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


@contextmanager
def _leaving_nothing_behind(folder: Path, made: list[Path]) -> Iterator[None]:
    """Remove what a failed first build wrote, and the folders it made; an interrupted one keeps its progress."""
    blank = not (folder / generations.CURRENT_POINTER).exists()
    try:
        yield
    except Exception:
        if blank and not (folder / generations.CURRENT_POINTER).exists():
            generations.remove_old_generations(folder, 0)
            for name in (text.TEXT_DATABASE, vector_cache.CACHE_DATABASE, incremental.SCAN_STATE_FILE):
                for path in database_files(folder / name):
                    path.unlink(missing_ok=True)
            if folder in made:
                shutil.rmtree(folder, ignore_errors=True)
            for path in made[1:]:
                with suppress(OSError):
                    path.rmdir()
        raise


def _unheard(event: dict[str, Any]) -> None:
    """Hear nothing."""


def _report(
    loaded: LoadedDocuments,
    plan: ChangeSet,
    made: PublishedGeneration,
    began: float,
    encoder: Encoder,
    gone: Collection[str] = (),
) -> BuildReport:
    foreign = language_note(list(plan.texts.values()), encoder)
    return BuildReport(
        found=loaded.found,
        indexed=plan.added + plan.changed,
        added=plan.added,
        changed=plan.changed,
        removed=len(plan.removed),
        unchanged=plan.unchanged,
        skipped=loaded.skipped,
        chunks=made.chunks,
        embedded=made.embedded,
        cached=made.cached,
        generation=made.number,
        store=made.store,
        seconds=round(time.monotonic() - began, 3),
        stores=made.stores,
        remarks=(*loaded.remarks, *([foreign] if foreign else [])),
        gone=tuple(gone),
    )
