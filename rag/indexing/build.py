"""Build or update an index: load documents, compare, chunk, embed only what is new, publish one generation.

:func:`build_index` starts from nothing, :func:`update_index` from the current generation. Both return a
:class:`BuildReport` that accounts for every document.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rag.embedding.language import language_note
from rag.embedding.protocol import Encoder
from rag.errors import BadInput
from rag.files import disk_full_as_problem, writer_lock
from rag.indexing import file_hashes, generations
from rag.indexing.changes import ChangeSet, ChunkSource, compare_documents
from rag.indexing.chunking import Chunker
from rag.indexing.delta import PublishedGeneration, large_generation, write_delta
from rag.indexing.encoding import (
    IndexEncoder,
    checked_encoder,
    configured_encoder,
    current_manifest,
    recorded_encoder,
    require_unchanged_path,
)
from rag.indexing.segments import is_delta
from rag.indexing.vectors import KnownVectors, embed_units
from rag.indexing.writer import (
    PreviousGeneration,
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
from rag.stores.base import OLDER_STORES
from rag.stores.choose import StoreMeasurement
from rag.stores.sqlite import database_files, is_database
from rag.stores.text import TextStore
from rag.stores.vector_cache import VectorCache
from rag.types import OnEvent
from rag.version import __version__

if TYPE_CHECKING:
    import numpy as np

_BESIDE = (vector_cache.CACHE_DATABASE, incremental.SCAN_STATE_FILE, file_hashes.RECORD_FILE)
"""Files beside the text store and the generations, all of which can be made again."""
SHARDS_FOLDER = ".shards"
"""Folder in an index where an engine stores what it has done, until the index is published."""


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
    """Name of the vector store used."""
    seconds: float
    stores: tuple[StoreMeasurement, ...] = ()
    """Measurements of the stores, if one was chosen or an approximate one was asked for."""
    remarks: tuple[str, ...] = ()
    """Other remarks for the user about the documents."""
    gone: tuple[str, ...] = ()
    """Documents that the previous generation contained and this one does not."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``index build|update --json`` prints."""
        body = {"schema": 1, **asdict(self), "skipped": [item.to_json() for item in self.skipped]}
        del body["gone"]
        return {name: value for name, value in body.items() if value or name not in ("stores", "remarks")}


@dataclass(frozen=True, slots=True)
class UpdateOptions:
    """Options of an update."""

    purge: bool = False
    """Delete everything that was removed or changed: older generations, vectors, and the bytes in the files."""
    trust_mtime: bool = False
    """Take a file with unchanged size and modification time for unchanged, without hashing it."""


@dataclass(frozen=True, slots=True)
class CutDocuments:
    """Documents that an engine read, and their chunks."""

    loaded: LoadedDocuments
    chunks: ChunkSource
    root: Path | None
    """The documents path; None where an update on this machine cannot read it."""


class BuildEngine(Protocol):
    """Does the parts of a build that grow with the documents in other processes; :mod:`rag.indexing.sharded` has one.

    The results must be those of a build in this process, bit for bit.
    """

    def read(
        self,
        folder: Path,
        documents: Path | str,
        encoder: Encoder,
        settings: IndexSettings,
        on_event: OnEvent,
    ) -> CutDocuments:
        """Load and cut the documents."""

    def embed(
        self, encoder: Encoder, units: Sequence[Sequence[str]], on_event: OnEvent
    ) -> Iterable[np.ndarray]:
        """Embed units of texts: a :data:`rag.indexing.vectors.UnitEmbedder`."""

    @property
    def cut(self) -> int:
        """How many texts were longer than the embedder reads."""

    def remarks(self) -> Sequence[str]:
        """Return remarks for the user."""


def build_index(
    folder: Path,
    documents: Path | str,
    encoder: Encoder,
    settings: IndexSettings,
    on_event: OnEvent | None,
    only: Collection[str] | None = None,
    engine: BuildEngine | None = None,
) -> BuildReport:
    """Build a generation from nothing, replacing what the index contained; see :meth:`rag.index.Index.build`."""
    foreign_files = _foreign_files(folder)
    if foreign_files:
        raise BadInput(
            f"{folder} is not an index and not empty: it contains {foreign_files[0]}", "choose another folder"
        )
    new_folders = _missing_folders(folder)
    with disk_full_as_problem(folder), writer_lock(folder), _cleanup_on_failure(folder, new_folders):
        start = time.monotonic()
        notify = on_event or _ignore_event
        scan_state = ScanState({}, {}, trust_mtime=False)
        encoder, loaded, plan = _planned(
            folder, documents, scan_state, encoder, settings, notify, only, engine
        )
        notify({"event": "index.chunked", "chunks": len(plan.change.chunks_in), "new": len(plan.texts)})
        checked = checked_encoder(folder, encoder, plan.texts.values(), current_manifest(folder), notify)
        encoder = checked.encoder
        previous = _salvage(folder, encoder)
        with (
            TextStore(folder, write=True) as store,
            VectorCache(folder, encoder.fingerprint, encoder.dimension) as cache,
        ):
            store.roll_back(previous.number)
            store.delete_before(generations.remove_old_generations(folder, previous.number))
            facts = index_facts(encoder, settings, checked.record)
            embed = engine.embed if engine else embed_units
            published = write_generation(
                folder, store, cache, previous, plan.whole(), encoder, facts, notify, embed
            )
            _clean_up(folder, store, cache, published.number, published.texts, purge=False)
        # with the scan state of a partial build, an update would never read the documents that were left out
        if only is None:
            scan_state.save(folder, __version__)
        shutil.rmtree(folder / SHARDS_FOLDER, ignore_errors=True)
        if engine is not None:
            loaded = replace(loaded, remarks=(*loaded.remarks, *engine.remarks()))
            checked = replace(checked, cut_before=checked.cut_before - engine.cut)
        return build_report(loaded, plan, published, start, checked)


def update_index(
    folder: Path, documents: Path, encoder: Encoder, on_event: OnEvent | None, options: UpdateOptions
) -> BuildReport:
    """Update the index to the present documents; see :meth:`rag.index.Index.update`."""
    if not generations.current_generation(folder):
        raise BadInput(f"{folder} is not an index: there is nothing to update", "build it first")
    with disk_full_as_problem(folder), writer_lock(folder), TextStore(folder, write=True) as store:
        start = time.monotonic()
        notify = on_event or _ignore_event
        published = generations.current_generation(folder)
        store.roll_back(published)
        store.delete_before(generations.remove_old_generations(folder, published))
        base = None if options.purge else large_generation(folder, published)
        previous = read_previous(folder, store, published) if base is None else None
        manifest = base.manifest if base else previous.manifest if previous else {}
        encoder = recorded_encoder(folder, manifest, encoder)
        settings = IndexSettings.from_json(manifest["settings"])
        stored = store.documents(published)
        scan_state = ScanState(incremental.read_scan_state(folder, __version__), stored, options.trust_mtime)
        loaded = _load(documents, scan_state, notify)
        rows = previous.rows if previous else store.summaries(published, _affected(loaded, stored))
        plan = compare_documents(loaded.documents, stored, rows, Chunker(encoder, settings))
        checked = checked_encoder(folder, encoder, plan.texts.values(), manifest, notify)
        encoder = checked.encoder
        require_unchanged_path(folder, manifest, encoder)
        chunks = base.chunks if base else len(rows)
        chunks += len(plan.change.chunks_in) - len(plan.change.chunks_out)
        as_delta = base is not None and (plan.is_empty or base.admits(plan))
        if not as_delta and previous is None:
            previous = read_previous(folder, store, published)
        with VectorCache(folder, encoder.fingerprint, encoder.dimension) as cache:
            if not plan.is_empty:
                notify({"event": "index.chunked", "chunks": chunks, "new": len(plan.texts)})
            facts = index_facts(encoder, settings, checked.record)
            if previous is not None:
                current = previous.as_published()
                # the base of a delta still has vectors and words of what was removed
                if not plan.is_empty or (options.purge and is_delta(manifest)):
                    current = write_generation(folder, store, cache, previous, plan, encoder, facts, notify)
            elif base is not None:
                current = PublishedGeneration(published, base.chunks, (), str(manifest["store"]))
                if not plan.is_empty:
                    current = write_delta(folder, store, cache, base, rows, plan, encoder, facts, notify)
            gone = store.removed_documents(current.number)
            if as_delta and not plan.is_empty:
                # the vector cache is trimmed with the next whole generation: that reads the hashes of all rows
                store.delete_before(generations.remove_old_generations(folder, current.number))
            elif not as_delta and (options.purge or not plan.is_empty):
                _clean_up(folder, store, cache, current.number, current.texts, options.purge)
        scan_state.save(folder, __version__)
        if (was := str(manifest["store"])) in OLDER_STORES and current.store != was:
            remark = f"its vectors were in the store {was}, which is no longer written: they are in {current.store} now"
            loaded = replace(loaded, remarks=(*loaded.remarks, remark))
        return build_report(loaded, plan, current, start, checked, gone)


def _affected(loaded: LoadedDocuments, stored: Mapping[str, str]) -> set[str]:
    """Return the ids of the indexed documents that were changed or removed."""
    hashes = {document.id: document.sha256 for document in loaded.documents}
    return {id for id, sha256 in stored.items() if hashes.get(id) != sha256}


def _planned(
    folder: Path,
    documents: Path | str,
    scan_state: ScanState,
    encoder: Encoder,
    settings: IndexSettings,
    notify: OnEvent,
    only: Collection[str] | None,
    engine: BuildEngine | None,
) -> tuple[Encoder, LoadedDocuments, ChangeSet]:
    """Return the embedder with its settings, the documents, and the rows of a fresh build, read here or by an engine."""
    if engine is None:
        loaded = _load(Path(documents), scan_state, notify)
        encoder = configured_encoder(encoder, settings)
        chunks: ChunkSource = Chunker(encoder, settings)
    else:
        encoder = configured_encoder(encoder, settings)
        ready = engine.read(folder, documents, encoder, settings, notify)
        loaded, chunks = scan_state.adopt(ready.root, ready.loaded), ready.chunks
        notify({"event": "index.loaded", "found": loaded.total, "documents": len(loaded.documents)})
    if only is not None:
        wanted_ids = frozenset(only)
        documents_wanted = tuple(document for document in loaded.documents if document.id in wanted_ids)
        loaded = replace(loaded, documents=documents_wanted)
    return encoder, loaded, compare_documents(loaded.documents, {}, (), chunks)


def _load(documents: Path, scan_state: ScanState, notify: OnEvent) -> LoadedDocuments:
    """Load the documents and report their number."""
    loaded = scan_state.load(documents)
    notify({"event": "index.loaded", "found": loaded.total, "documents": len(loaded.documents)})
    return loaded


def _salvage(folder: Path, encoder: Encoder) -> PreviousGeneration:
    """Return what a fresh build can reuse of an index, even a damaged one: numbers, ids and vectors.

    The changes of an interrupted writer are rolled back first. A text store that cannot be read is deleted, because no
    generation can be opened without it.
    """
    published, pointer_lost = 0, False
    try:
        published = generations.current_generation(folder)
    except BadInput:
        pointer_lost = True
    if not pointer_lost and (published or max(generations.generation_numbers(folder), default=0) <= 1):
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
                    previous = read_previous(folder, store, published)
                    if previous.manifest["fingerprint"] == encoder.fingerprint:
                        known = previous.known
    except BadInput:
        for path in database_files(folder / text.TEXT_DATABASE):
            path.unlink(missing_ok=True)
    return PreviousGeneration(published, next_id, last, known=known)


def _clean_up(
    folder: Path, store: TextStore, cache: VectorCache, number: int, used: Collection[str], purge: bool
) -> None:
    """Delete what no retained generation needs; with ``purge``, everything that the current one does not need."""
    store.delete_before(
        generations.remove_old_generations(folder, number, keep=1 if purge else generations.KEPT_GENERATIONS)
    )
    if purge:
        store.vacuum()
    cache.trim(used, purge=purge)


def _foreign_files(folder: Path) -> list[str]:
    """Return the files in a folder that were not written by an index; such a folder is never written into."""
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
    own_files = {path.name for name in _BESIDE for path in database_files(folder / name)}
    return sorted(
        path.name for path in folder.iterdir() if not path.name.startswith(".") and path.name not in own_files
    )


def _missing_folders(folder: Path) -> list[Path]:
    """Return the folders that a build will create, innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


@contextmanager
def _cleanup_on_failure(folder: Path, new_folders: list[Path]) -> Iterator[None]:
    """Remove the files of a failed first build and the folders it created.

    An interrupted one keeps its progress, and shards stay: the next build with an engine goes on with them.
    """
    is_first_build = not (folder / generations.CURRENT_POINTER).exists()
    try:
        yield
    except Exception:
        if is_first_build and not (folder / generations.CURRENT_POINTER).exists():
            generations.remove_old_generations(folder, 0)
            for name in (text.TEXT_DATABASE, *_BESIDE):
                for path in database_files(folder / name):
                    path.unlink(missing_ok=True)
            if folder in new_folders and not (folder / SHARDS_FOLDER).exists():
                shutil.rmtree(folder, ignore_errors=True)
            for path in new_folders[1:]:
                with suppress(OSError):
                    path.rmdir()
        raise


def _ignore_event(event: dict[str, Any]) -> None:
    """Do nothing."""


def build_report(
    loaded: LoadedDocuments,
    plan: ChangeSet,
    published: PublishedGeneration,
    start: float,
    checked: IndexEncoder,
    removed: Collection[str] = (),
    remarks: Sequence[str] = (),
) -> BuildReport:
    """Return the account of every document.

    Args:
        loaded: the documents.
        plan: the change that was published.
        published: the current generation.
        start: time of the start, of ``time.monotonic``.
        checked: the embedder.
        removed: documents that the previous generation has and this one does not.
        remarks: more remarks for the user.
    """
    language = language_note(list(plan.texts.values()), checked.encoder)
    return BuildReport(
        found=loaded.total,
        indexed=plan.added + plan.changed,
        added=plan.added,
        changed=plan.changed,
        removed=len(plan.removed),
        unchanged=plan.unchanged,
        skipped=loaded.skipped,
        chunks=published.chunks,
        embedded=published.embedded,
        cached=published.cached,
        generation=published.number,
        store=published.store,
        seconds=round(time.monotonic() - start, 3),
        stores=published.stores,
        remarks=(*loaded.remarks, *checked.remarks(), *([language] if language else []), *remarks),
        gone=tuple(removed),
    )
