"""Build or update an index at a URL: load documents, compare, chunk, embed only what is new, publish one change.

The steps are those of :mod:`rag.indexing.build`; the backend's writer takes the place of the folder. Vectors are stored in a
folder of this machine's cache unit by unit as they are embedded, so that a build that was killed goes on where it stopped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from platformdirs import user_cache_path

from rag.backends.base import BackendWriter, IndexChange, backend_class, shown_url
from rag.embedding.protocol import Encoder
from rag.errors import BadInput, UsageProblem
from rag.files import disk_full_as_problem, sha256_text, write_bytes
from rag.indexing.build import BuildReport, UpdateOptions, build_report
from rag.indexing.changes import ChangeSet, compare_documents
from rag.indexing.chunking import Chunker
from rag.indexing.delta import PublishedGeneration
from rag.indexing.encoding import (
    IndexEncoder,
    checked_encoder,
    configured_encoder,
    recorded_encoder,
    require_unchanged_path,
)
from rag.indexing.vectors import KnownVectors, ResolvedVectors, resolve_vectors
from rag.indexing.writer import index_facts
from rag.loading.incremental import SCAN_STATE_FILE, ScanState, read_scan_state
from rag.loading.reader import LoadedDocuments
from rag.search.backend import Backend, IndexFacts
from rag.settings import IndexSettings
from rag.stores.vector_cache import MIN_CACHED_VECTORS, SPARE_FACTOR, VectorCache
from rag.types import OnEvent
from rag.version import __version__

CHECKED_AT_ONCE = 2_000
"""Vectors that a check reads at a time."""


def build_at(
    url: str,
    documents: Path,
    encoder: Encoder,
    settings: IndexSettings,
    on_event: OnEvent | None = None,
    only: Collection[str] | None = None,
) -> BuildReport:
    """Build an index at a URL from nothing, replacing what it contained when the new one is complete.

    Args:
        url: of the index; see :data:`rag.backends.base.BACKENDS`.
        documents: a folder of documents, or one file.
        encoder: embeds the chunks.
        settings: of the index; the vector store is the backend's own.
        on_event: receives progress events.
        only: ids of the documents to index, None for all.

    Raises:
        BadInput: the documents cannot be loaded, or another process is writing the index.
        CannotRun: the server cannot be reached, or was lost; what was embedded is kept for the next build.
    """
    with backend_class(url).writer(url) as writer:
        run = _Run(url, writer, on_event)
        scan_state = ScanState({}, {}, trust_mtime=False)
        loaded = run.load(documents, scan_state)
        if only is not None:
            wanted = frozenset(only)
            loaded = replace(loaded, documents=tuple(doc for doc in loaded.documents if doc.id in wanted))
        encoder = configured_encoder(encoder, settings)
        plan = compare_documents(loaded.documents, {}, (), Chunker(encoder, settings)).whole()
        run.notify({"event": "index.chunked", "chunks": len(plan.change.chunks_in), "new": len(plan.texts)})
        previous = writer.facts()
        manifest = previous.manifest() if previous else None
        checked = checked_encoder(run.folder, encoder, plan.texts.values(), manifest, run.notify)
        comparable = previous is not None and previous.fingerprint == checked.encoder.fingerprint
        resolved, facts = run.publish(plan, checked, settings, comparable)
        # with the scan state of a partial build, an update would never read the documents that were left out
        if only is None:
            run.save_state(scan_state)
        return run.report(loaded, plan, resolved, facts, checked)


def update_at(
    url: str,
    documents: Path,
    encoder: Encoder,
    on_event: OnEvent | None = None,
    options: UpdateOptions | None = None,
) -> BuildReport:
    """Update the index at a URL to the present documents; only changed chunks are embedded.

    Args:
        url: of the index.
        documents: as given to :func:`build_at`.
        encoder: the one that the index was built with.
        on_event: receives progress events.
        options: None for the defaults.

    Raises:
        BadInput: there is no index, the embedder is another one, or another process is writing the index.
        UsageProblem: ``purge``, and the backend cannot do that.
    """
    options = options or UpdateOptions()
    with backend_class(url).writer(url) as writer:
        run = _Run(url, writer, on_event)
        previous = writer.facts()
        if previous is None:
            raise BadInput(f"there is no index at {run.shown} to update", "build it first")
        purge = getattr(writer, "purge", None)
        if options.purge and purge is None:
            raise UsageProblem(
                f"{run.shown}: this backend has no --purge", "delete the index and build it again"
            )
        manifest = previous.manifest()
        encoder = recorded_encoder(run.shown, manifest, encoder)
        stored = writer.documents()
        scan_state = ScanState(run.read_state(), stored, options.trust_mtime)
        loaded = run.load(documents, scan_state)
        present = {document.id: document.sha256 for document in loaded.documents}
        affected = [id for id, sha256 in stored.items() if present.get(id) != sha256]
        chunker = Chunker(encoder, previous.settings)
        plan = compare_documents(loaded.documents, stored, writer.summaries(affected), chunker)
        checked = checked_encoder(run.folder, encoder, plan.texts.values(), manifest, run.notify)
        require_unchanged_path(run.shown, manifest, checked.encoder)
        resolved, facts = ResolvedVectors({}, 0, 0), previous
        if not plan.is_empty:
            chunks = previous.chunks - len(plan.change.chunks_out) + len(plan.change.chunks_in)
            run.notify({"event": "index.chunked", "chunks": chunks, "new": len(plan.texts)})
            resolved, facts = run.publish(plan, checked, previous.settings, comparable=True)
        gone = set(plan.removed)
        if options.purge and purge is not None:
            gone |= set(purge())
            with VectorCache(run.folder, checked.encoder.fingerprint, checked.encoder.dimension) as cache:
                cache.trim(plan.texts, purge=True)
        run.save_state(scan_state)
        return run.report(loaded, plan, resolved, facts, checked, sorted(gone))


def publish_at(
    url: str, documents: Path, encoder: Encoder, settings: IndexSettings, on_event: OnEvent | None = None
) -> BuildReport:
    """Update the index at a URL if it has these settings and vectors of this embedder, else build it from nothing.

    The arguments are those of :func:`build_at`.
    """
    with backend_class(url).writer(url) as writer:
        facts = writer.facts()
    # how it is searched changes no row, so an index of before is updated as it is
    fits = facts is not None and settings == replace(
        facts.settings, weigh_by_rarity=settings.weigh_by_rarity, question_adapter=settings.question_adapter
    )
    if fits and facts is not None:
        try:
            recorded_encoder(shown_url(url), facts.manifest(), encoder)
        except BadInput:
            fits = False
    if fits:
        return update_at(url, documents, encoder, on_event)
    return build_at(url, documents, encoder, settings, on_event)


def build_folder(url: str) -> Path:
    """Return the folder of this machine that holds the vectors and the scan state of builds of an index at a URL.

    It is below TUNEWISE_CACHE or the user's cache folder, under a name made from host, port, path and index.
    """
    parts = urlsplit(url)
    index = parse_qs(parts.query).get("index", [""])[0]
    key = sha256_text("\n".join((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, index)))
    chosen = os.environ.get("TUNEWISE_CACHE")
    root = Path(chosen).expanduser() if chosen else user_cache_path("tunewise", appauthor=False)
    return root / "indexes" / key[:16]


def check_backend(backend: Backend, shown: str) -> dict[str, Any]:
    """Verify the index of a backend: counts, ids, dimensions and lengths of vectors, and the hashes of rows if it has any.

    Returns:
        Counts and facts, under the keys of :meth:`rag.index.Index.check` as far as they apply.

    Raises:
        BadInput: naming the damage.
    """
    facts = backend.facts
    verify = getattr(backend, "verify", None)
    details = dict(verify()) if verify is not None else {}
    documents = set(backend.document_ids())
    batch: list[int] = []
    chunks = 0

    def check_vectors() -> None:
        vectors = backend.vectors(np.array(batch, dtype=np.int64))
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        # halfvec has 11 bits: the length of a rounded unit vector differs from 1 by 2^-11 at most
        if vectors.shape[1] != facts.dimension or not np.allclose(lengths, 1, atol=1e-3):
            raise BadInput(f"{shown} is damaged: vectors that are not of length 1", "build it again")

    for chunk in backend.all_chunks():
        if chunk.doc not in documents:
            raise BadInput(
                f"{shown} is damaged: chunk {chunk.id} is of {chunk.doc!r}, which is not there",
                "build it again",
            )
        batch.append(chunk.id)
        chunks += 1
        if len(batch) == CHECKED_AT_ONCE:
            check_vectors()
            batch.clear()
    if batch:
        check_vectors()
    if (len(documents), chunks) != (facts.documents, facts.chunks):
        raise BadInput(
            f"{shown} is damaged: {len(documents)} documents and {chunks} chunks, recorded are {facts.documents} "
            f"and {facts.chunks}",
            "build it again",
        )
    body = {"schema": 1, "generation": facts.generation, "documents": len(documents), "chunks": chunks}
    return {
        **body,
        "dimension": facts.dimension,
        "embedder": facts.embedder,
        "fingerprint": facts.fingerprint,
        **details,
    }


class _Run:
    """One build or update of an index at a URL."""

    def __init__(self, url: str, writer: BackendWriter, on_event: OnEvent | None) -> None:
        self.shown = shown_url(url)
        self.folder = build_folder(url)
        self.notify: OnEvent = on_event or (lambda event: None)
        self._writer = writer
        self._start = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)

    def load(self, documents: Path, scan_state: ScanState) -> LoadedDocuments:
        """Load the documents and report their number."""
        loaded = scan_state.load(documents)
        self.notify({"event": "index.loaded", "found": loaded.total, "documents": len(loaded.documents)})
        return loaded

    def publish(
        self, plan: ChangeSet, checked: IndexEncoder, settings: IndexSettings, comparable: bool
    ) -> tuple[ResolvedVectors, IndexFacts]:
        """Embed what is new and publish the change; ``comparable``: vectors of the index can be used again."""
        encoder = checked.encoder
        known = self._writer.known_vectors(list(plan.texts)) if comparable else {}
        missing = {text: plan.texts[text] for text in plan.texts if text not in known}
        with (
            disk_full_as_problem(self.folder),
            VectorCache(self.folder, encoder.fingerprint, encoder.dimension) as cache,
        ):
            resolved = resolve_vectors(
                missing,
                KnownVectors({}, None),
                cache,
                lambda: encoder,
                self.notify,
                unit_chars=settings.unit_chars,
            )
            vectors: Mapping[str, np.ndarray] = {**known, **resolved.vectors}
            self.notify({"event": "index.writing", "chunks": len(plan.change.chunks_in)})
            facts = self._writer.publish(
                IndexChange(plan.change, plan.texts, vectors, index_facts(encoder, settings, checked.record))
            )
            # which other texts the index has is not asked of the database, so that an update costs what changes
            cache.trim(plan.texts, fewest=max(MIN_CACHED_VECTORS, SPARE_FACTOR * facts.chunks))
        self.notify({"event": "index.published", "generation": facts.generation, "chunks": facts.chunks})
        return resolved, facts

    def read_state(self) -> dict[str, Any]:
        """Return the files as they were when last read, as the index stores them."""
        state = self._writer.state()
        if state is None:
            return {}
        write_bytes(self.folder / SCAN_STATE_FILE, state)
        return dict(read_scan_state(self.folder, __version__))

    def save_state(self, scan_state: ScanState) -> None:
        """Store the files as they are now with the index, and here for the path of the documents."""
        scan_state.save(self.folder, __version__)
        self._writer.put_state((self.folder / SCAN_STATE_FILE).read_bytes())

    def report(
        self,
        loaded: LoadedDocuments,
        plan: ChangeSet,
        resolved: ResolvedVectors,
        facts: IndexFacts,
        checked: IndexEncoder,
        gone: Collection[str] = (),
    ) -> BuildReport:
        """Return the account of every document."""
        published = PublishedGeneration(
            number=facts.generation,
            chunks=facts.chunks,
            texts=(),
            store=urlsplit(self.shown).scheme,
            embedded=resolved.embedded,
            cached=resolved.cached,
        )
        remarks = tuple(getattr(self._writer, "remarks", ()))
        return build_report(loaded, plan, published, self._start, checked, gone, remarks)
