"""Write one generation: rows into the text store, vectors and words into files, then the pointer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rag.embedding.protocol import Encoder
from rag.errors import BadInput
from rag.indexing import generations
from rag.indexing.changes import ChangeSet
from rag.indexing.chunking import Chunker
from rag.indexing.delta import TEXT_SUM, PublishedGeneration
from rag.indexing.encoding import RECORD
from rag.indexing.segments import LEXICAL_FOLDER, load_base_store, load_store, load_terms
from rag.indexing.vectors import KnownVectors, ResolvedVectors, UnitEmbedder, embed_units, resolve_vectors
from rag.settings import IndexSettings
from rag.stores.base import AUTO, STORES
from rag.stores.bm25 import BM25Index, TermRows
from rag.stores.choose import StoreMeasurement, choose_store
from rag.stores.sqlite import REBUILD_HINT
from rag.stores.text import GenerationRecord, RowSummary, TextStore
from rag.stores.vector_cache import VectorCache
from rag.types import OnEvent
from rag.version import __version__


@dataclass(frozen=True, slots=True)
class PreviousGeneration:
    """The verified generation that a new one is made from; number 0 and empty for the first."""

    number: int = 0
    next_id: int = 1
    last: int = 0
    """The highest number ever used for a generation; the new one takes the next."""
    manifest: dict[str, Any] = field(default_factory=dict)
    rows: Sequence[RowSummary] = ()
    known: KnownVectors = field(default_factory=lambda: KnownVectors({}, None))
    terms: TermRows | None = None
    """The words of the rows; None if they must be read from the texts again."""

    def as_published(self) -> PublishedGeneration:
        """Return the generation as the result of an update without changes."""
        texts = {row.embedded for row in self.rows}
        return PublishedGeneration(self.number, len(self.rows), texts, str(self.manifest["store"]))


def read_previous(folder: Path, text: TextStore, number: int) -> PreviousGeneration:
    """Verify a generation and read what an update needs of it; BadInput if any part is damaged."""
    generation = generations.open_verified(folder, number)
    manifest = generation.manifest
    rows = text.summaries(number)
    if not text.has_digest(number, str(manifest["text_sha256"])):
        raise BadInput(
            f"{folder} is damaged: its texts do not belong to {generations.generation_name(number)}",
            REBUILD_HINT,
        )
    store = load_store(generation.path, manifest, mapped=False)
    terms = None
    if manifest["made_by"] == __version__:
        base_ids = load_base_store(generation.path, manifest).ids
        terms = load_terms(generation.path, manifest, base_ids)
    known = KnownVectors({row.embedded: row.id for row in rows}, store)
    return PreviousGeneration(number, int(manifest["next_id"]), number, manifest, rows, known, terms)


def write_generation(
    folder: Path,
    text: TextStore,
    cache: VectorCache,
    previous: PreviousGeneration,
    changes: ChangeSet,
    encoder: Encoder,
    facts: dict[str, Any],
    on_event: OnEvent,
    embed: UnitEmbedder = embed_units,
) -> PublishedGeneration:
    """Write a change as the next generation and publish it.

    Embedding comes first and is stored unit by unit; then one transaction writes the rows and assigns ids; then the
    files are written and the pointer is replaced. If the process is killed at any point, the previous generation
    remains usable.
    """
    settings = IndexSettings.from_json(facts["settings"])
    resolved = resolve_vectors(
        changes.texts,
        previous.known,
        cache,
        lambda: encoder,
        on_event,
        embed,
        unit_chars=settings.unit_chars,
    )
    number = previous.last + 1
    record = text.apply(number, changes.change, facts, previous.next_id)
    rows = text.summaries(number)
    matrix = _matrix(rows, resolved, previous, int(facts["dimension"]))
    chunker = Chunker(encoder, settings)
    terms = _terms(text, number, rows, previous, changes, chunker)
    text_sum = text.digest_sum(number) if len(rows) >= settings.large_chunks else ""
    name, measured = write_generation_files(
        folder, record, rows, matrix, terms, previous.manifest.get("store"), text_sum
    )
    on_event({"event": "index.published", "generation": number, "chunks": len(rows)})
    texts = {row.embedded for row in rows}
    return PublishedGeneration(number, len(rows), texts, name, resolved.embedded, resolved.cached, measured)


def write_generation_files(
    folder: Path,
    record: GenerationRecord,
    rows: Sequence[RowSummary],
    matrix: np.ndarray,
    terms: TermRows,
    store: str | None,
    text_sum: str = "",
) -> tuple[str, tuple[StoreMeasurement, ...]]:
    """Write and publish the files of a whole generation.

    Args:
        folder: of the index.
        record: of the generation.
        rows: its chunks.
        matrix: their vectors, float32 [rows, dimension].
        terms: their words.
        store: the previously chosen store, None to choose one.
        text_sum: sum of the hashes of all rows, recorded for large indexes; "" for none.

    Returns:
        Name and measurements of the store.
    """
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
        **({TEXT_SUM: text_sum} if text_sum else {}),
    }
    generations.publish_generation(folder, record.number, prepared, facts)
    return name, measured


def index_facts(encoder: Encoder, settings: IndexSettings, record: dict[str, Any]) -> dict[str, Any]:
    """Return what determines an index's vectors: the embedder's fingerprint and record, and the chunker's settings."""
    return {
        **({RECORD: record} if record else {}),
        "embedder": encoder.name,
        "fingerprint": encoder.fingerprint,
        "dimension": encoder.dimension,
        "settings": settings.to_json(),
    }


def _matrix(
    rows: Sequence[RowSummary], resolved: ResolvedVectors, previous: PreviousGeneration, dimension: int
) -> np.ndarray:
    """Return every row's vector, float32 [rows, dimension]: resolved for new texts, copied for the others."""
    matrix = np.empty((len(rows), dimension), dtype=np.float32)
    unchanged = [n for n, row in enumerate(rows) if row.embedded not in resolved.vectors]
    if unchanged and previous.known.store is not None:
        ids = np.array([rows[n].id for n in unchanged], dtype=np.int64)
        matrix[unchanged] = previous.known.store.vectors(ids)
    for n in sorted(set(range(len(rows))).difference(unchanged)):
        matrix[n] = resolved.vectors[rows[n].embedded]
    return matrix


def _terms(
    text: TextStore,
    number: int,
    rows: Sequence[RowSummary],
    previous: PreviousGeneration,
    changes: ChangeSet,
    chunker: Chunker,
) -> TermRows:
    """Return the words of every row; only new texts are read."""
    if previous.rows and previous.terms is None:
        return TermRows.of([chunker.embedded_text(row.chunk) for row in text.chunks(number)])
    old_position = {row.id: n for n, row in enumerate(previous.rows)}
    kept_rows = np.array([old_position[row.id] for row in rows if row.id in old_position], dtype=np.int64)
    new_terms = TermRows.of([changes.texts[row.embedded] for row in rows if row.id not in old_position])
    return (previous.terms or TermRows.of(())).extended(kept_rows, new_terms)
