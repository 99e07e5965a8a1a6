"""Build or update an index: load, compare, chunk, embed only what is new, publish one generation."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rag import generations, sources
from rag.change import Plan, compare
from rag.chunk import Chunker
from rag.durable import writer_lock, writing_into
from rag.encoder import Encoder
from rag.errors import BadInput
from rag.language import language_note
from rag.load.walk import Loaded
from rag.publish import Before, Made, facts_of, make, read_before
from rag.report import BuildReport
from rag.settings import IndexSettings
from rag.sources import Sources
from rag.stores import cache, text
from rag.stores.cache import VectorCache
from rag.stores.database import is_database, sidecars
from rag.stores.text import TextStore
from rag.types import OnEvent
from rag.vectors import Known
from rag.version import __version__


@dataclass(frozen=True, slots=True)
class Wish:
    """How an update is to be done."""

    purge: bool = False
    """Leave nothing of what was removed or changed: no older generation, no vector, no byte in a file."""
    trust_mtime: bool = False
    """Believe a file's size and time instead of hashing it."""


def build(
    folder: Path, documents: Path, encoder: Encoder, settings: IndexSettings, on_event: OnEvent | None,
    only: Collection[str] | None = None,
) -> BuildReport:  # fmt: skip
    """Build a generation from nothing, replacing what the index held; see ``Index.build``."""
    strangers = _strangers(folder)
    if strangers:
        raise BadInput(
            f"{folder} is not an index and not empty: it holds {strangers[0]}", "choose another folder"
        )
    missing = _missing(folder)
    with writing_into(folder), writer_lock(folder), _leaving_nothing_behind(folder, missing):
        began = time.monotonic()
        tell = on_event or _unheard
        files = Sources({}, {}, trust_mtime=False)
        loaded = _loaded(documents, files, tell)
        if only is not None:
            kept, wanted = loaded.documents, frozenset(only)
            loaded = replace(loaded, documents=tuple(document for document in kept if document.id in wanted))
        plan = compare(loaded.documents, {}, (), Chunker(encoder, settings))
        tell({"event": "index.chunked", "chunks": len(plan.change.chunks_in), "new": len(plan.texts)})
        before = _salvaged(folder, encoder)
        with (
            TextStore(folder, write=True) as store,
            VectorCache(folder, encoder.fingerprint, encoder.dimension) as cached,
        ):
            store.take_back(before.number)
            store.forget(generations.sweep(folder, before.number))
            made = make(
                folder, store, cached, before, plan.whole(), encoder, facts_of(encoder, settings), tell
            )
            _tidy(folder, store, cached, made.number, made.texts, purge=False)
        if only is None:  # else an update would take the files for known and never read what was left out
            files.save(folder, __version__)
        return _report(loaded, plan, made, began, encoder)


def update(
    folder: Path, documents: Path, encoder: Encoder, on_event: OnEvent | None, wish: Wish
) -> BuildReport:
    """Bring the index to what the documents are now; see ``Index.update``."""
    if not generations.current(folder):
        raise BadInput(f"{folder} is not an index: there is nothing to update", "build it first")
    with writing_into(folder), writer_lock(folder), TextStore(folder, write=True) as store:
        began = time.monotonic()
        tell = on_event or _unheard
        published = generations.current(folder)
        store.take_back(published)
        store.forget(generations.sweep(folder, published))
        before = read_before(folder, store, published)
        same_embedder(folder, before.manifest, encoder)
        settings = IndexSettings.from_json(before.manifest["settings"])
        there = store.documents(published)
        files = Sources(sources.read(folder, __version__), there, wish.trust_mtime)
        loaded = _loaded(documents, files, tell)
        plan = compare(loaded.documents, there, before.rows, Chunker(encoder, settings))
        with VectorCache(folder, encoder.fingerprint, encoder.dimension) as cached:
            if plan.is_empty:
                made = before.as_made()
            else:
                chunks = len(before.rows) - len(plan.change.chunks_out) + len(plan.change.chunks_in)
                tell({"event": "index.chunked", "chunks": chunks, "new": len(plan.texts)})
                made = make(folder, store, cached, before, plan, encoder, facts_of(encoder, settings), tell)
            gone = store.departed(made.number)
            if wish.purge or not plan.is_empty:
                _tidy(folder, store, cached, made.number, made.texts, wish.purge)
        files.save(folder, __version__)
        return _report(loaded, plan, made, began, encoder, gone)


def same_embedder(folder: Path, manifest: dict[str, Any], encoder: Encoder) -> None:
    """Refuse an embedder whose vectors cannot be compared with those of the index."""
    if manifest["fingerprint"] != encoder.fingerprint:
        raise BadInput(
            f"{folder} was built with another embedder: it holds vectors of {manifest['embedder']} "
            f"({manifest['fingerprint']}), this is {encoder.name} ({encoder.fingerprint})",
            f"use {manifest['embedder']}, or rebuild the index: "
            f"tunewise index build {shlex.quote(str(folder))} --documents DOCUMENTS --embedder {encoder.name}",
        )


def _loaded(documents: Path, files: Sources, tell: OnEvent) -> Loaded:
    loaded = files.load(documents)
    tell({"event": "index.loaded", "found": loaded.found, "documents": len(loaded.documents)})
    return loaded


def _salvaged(folder: Path, encoder: Encoder) -> Before:
    """Return what a fresh build may still use of an index, however damaged: numbers, ids, vectors.

    What an interrupted writer left is taken back first. A text store that cannot be read is deleted: no
    generation can be opened without it.
    """
    published, lost = 0, False
    try:
        published = generations.current(folder)
    except BadInput:
        lost = True
    if not lost and (published or max(generations.numbers(folder), default=0) <= 1):
        generations.sweep(folder, published)
    last = max(published, *generations.numbers(folder), 0)
    next_id = generations.next_id(folder)
    known = Known({}, None)
    try:
        if (folder / text.FILE).exists():
            with TextStore(folder, write=True) as store:
                store.check()
                if not last or published:
                    store.take_back(published)
                next_id = store.next_id(next_id)
                last = max(last, *store.numbers(), 0)
                with suppress(BadInput):
                    before = read_before(folder, store, published)
                    if before.manifest["fingerprint"] == encoder.fingerprint:
                        known = before.known
    except BadInput:
        for path in sidecars(folder / text.FILE):
            path.unlink(missing_ok=True)
    return Before(published, next_id, last, known=known)


def _tidy(
    folder: Path, store: TextStore, cached: VectorCache, number: int, used: Collection[str], purge: bool
) -> None:
    """Forget what no kept generation holds; with ``purge``, everything that the current one does not."""
    store.forget(generations.sweep(folder, number, keep=1 if purge else generations.KEEP))
    if purge:
        store.scrub()
    cached.trim(used, purge=purge)


def _strangers(folder: Path) -> list[str]:
    """Return what stands in a folder that no index made; such a folder is never written into."""
    if not folder.exists() or (folder / generations.CURRENT).exists() or generations.numbers(folder):
        return []
    if not folder.is_dir():
        return [f"nothing, being a file: {folder.name}"]
    if is_database(folder / text.FILE):
        return []
    ours = {path.name for name in (cache.FILE, sources.FILE) for path in sidecars(folder / name)}
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".") and p.name not in ours)


def _missing(folder: Path) -> list[Path]:
    """Return the folders that a build will make, innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


@contextmanager
def _leaving_nothing_behind(folder: Path, made: list[Path]) -> Iterator[None]:
    """Remove what a failed first build wrote, and the folders it made; an interrupted one keeps its progress."""
    blank = not (folder / generations.CURRENT).exists()
    try:
        yield
    except Exception:
        if blank and not (folder / generations.CURRENT).exists():
            generations.sweep(folder, 0)
            for name in (text.FILE, cache.FILE, sources.FILE):
                for path in sidecars(folder / name):
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
    loaded: Loaded, plan: Plan, made: Made, began: float, encoder: Encoder, gone: Collection[str] = ()
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
