"""Make one generation: rows into the text store, vectors and words into files, then the pointer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rag import generations
from rag.change import Plan
from rag.chunk import Chunker
from rag.encoder import Encoder
from rag.errors import BadInput
from rag.lexical import Lexical
from rag.settings import IndexSettings
from rag.stores.base import AUTO, STORES, store_class
from rag.stores.cache import VectorCache
from rag.stores.choose import Measured, choose
from rag.stores.database import REBUILD
from rag.stores.rows import Record, Summary
from rag.stores.text import TextStore
from rag.terms import Terms
from rag.types import OnEvent
from rag.vectors import Found, Known, find
from rag.version import __version__

LEXICAL = "lexical"


@dataclass(frozen=True, slots=True)
class Before:
    """The verified generation that a new one is made from; number 0 and nothing in it for the first."""

    number: int = 0
    next_id: int = 1
    last: int = 0
    """The highest number ever given to a generation; the new one takes the next."""
    manifest: dict[str, Any] = field(default_factory=dict)
    rows: Sequence[Summary] = ()
    known: Known = field(default_factory=lambda: Known({}, None))
    terms: Terms | None = None
    """The words of the rows; None when they must be read from the texts again."""

    def as_made(self) -> Made:
        """Return the generation as the result of an update that had nothing to do."""
        texts = {row.embedded for row in self.rows}
        return Made(self.number, len(self.rows), texts, str(self.manifest["store"]))


@dataclass(frozen=True, slots=True)
class Made:
    """A generation that is current now."""

    number: int
    chunks: int
    texts: Collection[str]
    """The hashes of all embedded texts in it."""
    store: str
    embedded: int = 0
    cached: int = 0
    stores: tuple[Measured, ...] = ()


def read_before(folder: Path, text: TextStore, number: int) -> Before:
    """Verify a generation and read what an update needs of it; BadInput when anything in it is damaged."""
    generation = generations.verified(folder, number)
    manifest = generation.manifest
    rows = text.summaries(number)
    if text.digest(number) != manifest["text_sha256"]:
        raise BadInput(f"{folder} is damaged: its texts do not belong to {generations.name(number)}", REBUILD)
    store = store_class(manifest["store"]).load(generation.path, manifest["dimension"])
    same_words = manifest["made_by"] == __version__
    terms = Terms.load(generation.path / LEXICAL, len(rows)) if same_words else None
    known = Known({row.embedded: row.id for row in rows}, store)
    return Before(number, int(manifest["next_id"]), number, manifest, rows, known, terms)


def make(
    folder: Path,
    text: TextStore,
    cache: VectorCache,
    before: Before,
    plan: Plan,
    encoder: Encoder,
    facts: dict[str, Any],
    tell: OnEvent,
) -> Made:
    """Carry out a plan as the next generation and publish it.

    Embedding comes first and is kept unit by unit; then one transaction writes the rows and gives out ids;
    then the files are made and the pointer is replaced. Killed anywhere, the generation before still answers.
    """
    found = find(plan.texts, before.known, cache, lambda: encoder, tell)
    number = before.last + 1
    record = text.apply(number, plan.change, facts, before.next_id)
    rows = text.summaries(number)
    matrix = _matrix(rows, found, before, int(facts["dimension"]))
    chunker = Chunker(encoder, IndexSettings.from_json(facts["settings"]))
    terms = _terms(text, number, rows, before, plan, chunker)
    name, measured = write(folder, record, rows, matrix, terms, before.manifest.get("store"))
    tell({"event": "index.published", "generation": number, "chunks": len(rows)})
    texts = {row.embedded for row in rows}
    return Made(number, len(rows), texts, name, found.embedded, found.cached, measured)


def write(
    folder: Path,
    record: Record,
    rows: Sequence[Summary],
    matrix: np.ndarray,
    terms: Terms,
    store: str | None,
) -> tuple[str, tuple[Measured, ...]]:
    """Write and publish the files of a generation; ``store`` is the one chosen before, None to choose."""
    settings = IndexSettings.from_json(record.facts["settings"])
    prepared = generations.workplace(folder, record.number)
    ids = np.array([row.id for row in rows], dtype=np.int64)
    wanted = str(store) if settings.store == AUTO and store in STORES else settings.store
    name, vectors, measured = choose(wanted, ids, matrix, measuring=store is None)
    vectors.save(prepared)
    (prepared / LEXICAL).mkdir()
    terms.save(prepared / LEXICAL)
    Lexical.of(terms, settings.k1, settings.b).save(prepared / LEXICAL)
    facts = {
        "number": record.number,
        **record.facts,
        "store": name,
        "chunks": len(rows),
        "next_id": record.next_id,
        "text_sha256": record.text_sha256,
        "made_by": __version__,
    }
    generations.publish(folder, record.number, prepared, facts)
    return name, measured


def facts_of(encoder: Encoder, settings: IndexSettings) -> dict[str, Any]:
    """Return what decides an index's vectors: the embedder's fingerprint and the chunker's settings."""
    return {
        "embedder": encoder.name,
        "fingerprint": encoder.fingerprint,
        "dimension": encoder.dimension,
        "settings": settings.to_json(),
    }


def _matrix(rows: Sequence[Summary], found: Found, before: Before, dimension: int) -> np.ndarray:
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
    text: TextStore, number: int, rows: Sequence[Summary], before: Before, plan: Plan, chunker: Chunker
) -> Terms:
    """Return the words of every row; only the texts that came are read."""
    if before.rows and before.terms is None:
        return Terms.of([chunker.embedded_text(row.chunk) for row in text.chunks(number)])
    place = {row.id: n for n, row in enumerate(before.rows)}
    kept = np.array([place[row.id] for row in rows if row.id in place], dtype=np.int64)
    came = Terms.of([plan.texts[row.embedded] for row in rows if row.id not in place])
    return (before.terms or Terms.of(())).then(kept, came)
