"""Make one generation: rows into the text store, vectors and words into files, then the pointer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rag.embedding.protocol import Encoder
from rag.errors import BadInput
from rag.indexing import generations
from rag.indexing.changes import ChangeSet
from rag.indexing.chunking import Chunker
from rag.indexing.vectors import KnownVectors, ResolvedVectors, resolve_vectors
from rag.settings import IndexSettings
from rag.stores.base import AUTO, STORES, store_class
from rag.stores.bm25 import BM25Index, TermRows
from rag.stores.choose import StoreMeasurement, choose_store
from rag.stores.sqlite import REBUILD_HINT
from rag.stores.text import GenerationRecord, RowSummary, TextStore
from rag.stores.vector_cache import VectorCache
from rag.types import OnEvent
from rag.version import __version__

LEXICAL_FOLDER = "lexical"


@dataclass(frozen=True, slots=True)
class PreviousGeneration:
    """The verified generation that a new one is made from; number 0 and nothing in it for the first."""

    number: int = 0
    next_id: int = 1
    last: int = 0
    """The highest number ever given to a generation; the new one takes the next."""
    manifest: dict[str, Any] = field(default_factory=dict)
    rows: Sequence[RowSummary] = ()
    known: KnownVectors = field(default_factory=lambda: KnownVectors({}, None))
    terms: TermRows | None = None
    """The words of the rows; None when they must be read from the texts again."""

    def as_made(self) -> PublishedGeneration:
        """Return the generation as the result of an update that had nothing to do."""
        texts = {row.embedded for row in self.rows}
        return PublishedGeneration(self.number, len(self.rows), texts, str(self.manifest["store"]))


@dataclass(frozen=True, slots=True)
class PublishedGeneration:
    """A generation that is current now."""

    number: int
    chunks: int
    texts: Collection[str]
    """The hashes of all embedded texts in it."""
    store: str
    embedded: int = 0
    cached: int = 0
    stores: tuple[StoreMeasurement, ...] = ()


def read_previous(folder: Path, text: TextStore, number: int) -> PreviousGeneration:
    """Verify a generation and read what an update needs of it; BadInput when anything in it is damaged."""
    generation = generations.open_verified(folder, number)
    manifest = generation.manifest
    rows = text.summaries(number)
    if text.digest(number) != manifest["text_sha256"]:
        raise BadInput(
            f"{folder} is damaged: its texts do not belong to {generations.generation_name(number)}",
            REBUILD_HINT,
        )
    store = store_class(manifest["store"]).load(generation.path, manifest["dimension"])
    same_words = manifest["made_by"] == __version__
    terms = TermRows.load(generation.path / LEXICAL_FOLDER, len(rows)) if same_words else None
    known = KnownVectors({row.embedded: row.id for row in rows}, store)
    return PreviousGeneration(number, int(manifest["next_id"]), number, manifest, rows, known, terms)


def write_generation(
    folder: Path,
    text: TextStore,
    cache: VectorCache,
    before: PreviousGeneration,
    plan: ChangeSet,
    encoder: Encoder,
    facts: dict[str, Any],
    tell: OnEvent,
) -> PublishedGeneration:
    """Carry out a plan as the next generation and publish it.

    Embedding comes first and is kept unit by unit; then one transaction writes the rows and gives out ids;
    then the files are made and the pointer is replaced. Killed anywhere, the generation before still answers.
    """
    found = resolve_vectors(plan.texts, before.known, cache, lambda: encoder, tell)
    number = before.last + 1
    record = text.apply(number, plan.change, facts, before.next_id)
    rows = text.summaries(number)
    matrix = _matrix(rows, found, before, int(facts["dimension"]))
    chunker = Chunker(encoder, IndexSettings.from_json(facts["settings"]))
    terms = _terms(text, number, rows, before, plan, chunker)
    name, measured = write_generation_files(folder, record, rows, matrix, terms, before.manifest.get("store"))
    tell({"event": "index.published", "generation": number, "chunks": len(rows)})
    texts = {row.embedded for row in rows}
    return PublishedGeneration(number, len(rows), texts, name, found.embedded, found.cached, measured)


def write_generation_files(
    folder: Path,
    record: GenerationRecord,
    rows: Sequence[RowSummary],
    matrix: np.ndarray,
    terms: TermRows,
    store: str | None,
) -> tuple[str, tuple[StoreMeasurement, ...]]:
    """Write and publish the files of a generation; ``store`` is the one chosen before, None to choose."""
    settings = IndexSettings.from_json(record.facts["settings"])
    prepared = generations.prepare_folder(folder, record.number)
    ids = np.array([row.id for row in rows], dtype=np.int64)
    wanted = str(store) if settings.store == AUTO and store in STORES else settings.store
    name, vectors, measured = choose_store(wanted, ids, matrix, measuring=store is None)
    vectors.save(prepared)
    (prepared / LEXICAL_FOLDER).mkdir()
    terms.save(prepared / LEXICAL_FOLDER)
    BM25Index.of(terms, settings.k1, settings.b).save(prepared / LEXICAL_FOLDER)
    facts = {
        "number": record.number,
        **record.facts,
        "store": name,
        "chunks": len(rows),
        "next_id": record.next_id,
        "text_sha256": record.text_sha256,
        "made_by": __version__,
    }
    generations.publish_generation(folder, record.number, prepared, facts)
    return name, measured


def index_facts(encoder: Encoder, settings: IndexSettings) -> dict[str, Any]:
    """Return what decides an index's vectors: the embedder's fingerprint and the chunker's settings."""
    return {
        "embedder": encoder.name,
        "fingerprint": encoder.fingerprint,
        "dimension": encoder.dimension,
        "settings": settings.to_json(),
    }


def _matrix(
    rows: Sequence[RowSummary], found: ResolvedVectors, before: PreviousGeneration, dimension: int
) -> np.ndarray:
    """Return every row's vector: found for the rows that came, unchanged for the others."""
    matrix = np.empty((len(rows), dimension), dtype=np.float32)
    kept = [n for n, row in enumerate(rows) if row.embedded not in found.vectors]
    if kept and before.known.store is not None:
        ids = np.array([rows[n].id for n in kept], dtype=np.int64)
        matrix[kept] = before.known.store.vectors(ids)
    for n in sorted(set(range(len(rows))).difference(kept)):
        matrix[n] = found.vectors[rows[n].embedded]
    return matrix


def _terms(
    text: TextStore,
    number: int,
    rows: Sequence[RowSummary],
    before: PreviousGeneration,
    plan: ChangeSet,
    chunker: Chunker,
) -> TermRows:
    """Return the words of every row; only the texts that came are read."""
    if before.rows and before.terms is None:
        return TermRows.of([chunker.embedded_text(row.chunk) for row in text.chunks(number)])
    place = {row.id: n for n, row in enumerate(before.rows)}
    kept = np.array([place[row.id] for row in rows if row.id in place], dtype=np.int64)
    came = TermRows.of([plan.texts[row.embedded] for row in rows if row.id not in place])
    return (before.terms or TermRows.of(())).extended(kept, came)
