"""Write an update of a large index as a delta: what a few changed documents add and remove, beside an unchanged base.

An update of a whole generation rewrites all vectors and words. Small changes of a large index
(:func:`rag.indexing.generations.is_large`) are written beside the base instead, whose files are linked into the
new generation's folder. When the changes since the base exceed what the settings admit (``most_removed`` and
``added_share``), or the options or the version differ, the next update writes a whole generation again.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag.embedding.protocol import Encoder
from rag.indexing import generations
from rag.indexing.changes import ChangeSet
from rag.indexing.segments import (
    DELTA_FOLDER,
    DELTA_STORE,
    LEXICAL_FOLDER,
    REMOVED_FILE,
    REMOVED_WORDS_FILE,
    delta_terms,
    is_delta,
    load_base_store,
    load_store,
    removed_ids,
)
from rag.indexing.vectors import KnownVectors, resolve_vectors
from rag.settings import IndexSettings
from rag.stores.base import VectorStore, read_array, store_class
from rag.stores.bm25 import BM25Index, TermRows
from rag.stores.choose import StoreMeasurement
from rag.stores.digests import SUM_PREFIX
from rag.stores.text import RowSummary, TextStore
from rag.stores.vector_cache import VectorCache
from rag.types import OnEvent
from rag.version import __version__

TEXT_SUM = "text_sum"
"""Key of a manifest: the sum of the hashes of its rows, which an update changes without reading them all."""


@dataclass(frozen=True, slots=True)
class BaseGeneration:
    """The current generation of a large index, as an update needs it; no row and no vector is read yet."""

    number: int
    path: Path
    manifest: dict[str, Any]

    @property
    def chunks(self) -> int:
        """Chunks of the generation."""
        return int(self.manifest["chunks"])

    def admits(self, changes: ChangeSet) -> bool:
        """Return whether a change is small enough to be written as a delta."""
        delta = is_delta(self.manifest)
        removed = len(removed_ids(self.path)) if delta else 0
        added = int(self.manifest["delta_chunks"]) if delta else 0
        base = self.chunks - added + removed
        rows = changes.change
        settings = IndexSettings.from_json(self.manifest["settings"])
        return (
            self.manifest["made_by"] == __version__
            and removed + len(rows.chunks_out) <= settings.most_removed
            and added + len(rows.chunks_in) <= settings.added_share * base
        )


def large_generation(folder: Path, number: int) -> BaseGeneration | None:
    """Return the verified current generation if the index is large, else None."""
    generation = generations.open_verified(folder, number)
    if not generations.is_large(generation.manifest):
        return None
    return BaseGeneration(number, generation.path, generation.manifest)


@dataclass(frozen=True, slots=True)
class PublishedGeneration:
    """A generation that is now the current one."""

    number: int
    chunks: int
    texts: Collection[str]
    """The hashes of all embedded texts of the generation; () for a delta, which does not read them."""
    store: str
    embedded: int = 0
    cached: int = 0
    stores: tuple[StoreMeasurement, ...] = ()


def write_delta(
    folder: Path,
    text: TextStore,
    cache: VectorCache,
    base: BaseGeneration,
    old_rows: Iterable[RowSummary],
    changes: ChangeSet,
    encoder: Encoder,
    facts: dict[str, Any],
    on_event: OnEvent,
) -> PublishedGeneration:
    """Write a change as the next generation and publish it; the order of steps is that of ``write_generation``.

    Args:
        folder: of the index.
        text: its text store, open for writing.
        cache: its vector cache.
        base: the current generation.
        old_rows: the rows of the changed and removed documents in it.
        changes: as ``base.admits`` accepts it.
        encoder: embeds new texts.
        facts: of the index.
        on_event: receives progress events.
    """
    store = load_store(base.path, base.manifest)
    known = KnownVectors({row.embedded: row.id for row in old_rows}, store)
    unit_chars = IndexSettings.from_json(facts["settings"]).unit_chars
    resolved = resolve_vectors(changes.texts, known, cache, lambda: encoder, on_event, unit_chars=unit_chars)
    number = base.number + 1
    record = text.apply(number, changes.change, facts, int(base.manifest["next_id"]), _text_sum(text, base))
    # a row that came under the id of one that went has the same text: its vector and words stay
    gone = set(changes.change.chunks_out)
    documents = {document.id for document in changes.change.documents_in}
    rows = text.summaries(number, documents)
    new = [row for row in rows if row.id >= int(base.manifest["next_id"])]
    gone -= {row.id for row in rows}
    prepared = generations.prepare_folder(folder, number)
    _link_base(base, prepared)
    matrix = np.array([resolved.vectors[row.embedded] for row in new], dtype=np.float32)
    words = TermRows.of([changes.texts[row.embedded] for row in new])
    ids = np.array([row.id for row in new], dtype=np.int64)
    added = _write_added(base, prepared, store, gone, ids, matrix.reshape(len(new), encoder.dimension), words)
    removed = _write_removed(base, prepared, gone)
    chunks = base.chunks + len(new) - len(gone)
    manifest = {
        "number": number,
        **record.facts,
        "store": base.manifest["store"],
        "chunks": chunks,
        "delta_chunks": added,
        "delta_removed": removed,
        "next_id": record.next_id,
        "text_sha256": record.text_sha256,
        "made_by": __version__,
    }
    generations.publish_generation(folder, number, prepared, manifest, generations.DELTA_KIND)
    on_event({"event": "index.published", "generation": number, "chunks": chunks})
    return PublishedGeneration(
        number, chunks, (), str(base.manifest["store"]), resolved.embedded, resolved.cached
    )


def _text_sum(text: TextStore, base: BaseGeneration) -> str:
    """Return the sum of the hashes of the rows of a generation; read from its rows only if no manifest has it."""
    recorded = str(base.manifest.get(TEXT_SUM) or base.manifest["text_sha256"])
    return recorded if recorded.startswith(SUM_PREFIX) else text.digest_sum(base.number)


def _link_base(base: BaseGeneration, prepared: Path) -> None:
    """Link the files of the base into a folder; they are copied where the file system has no hard links."""
    for name in base.manifest["files"]:
        if name.split("/")[0] == DELTA_FOLDER:
            continue
        target = prepared / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(base.path / name, target)
        except OSError:
            shutil.copy2(base.path / name, target)
    (prepared / DELTA_FOLDER / LEXICAL_FOLDER).mkdir(parents=True)


def _write_added(
    base: BaseGeneration,
    prepared: Path,
    store: VectorStore,
    gone: set[int],
    ids: np.ndarray,
    matrix: np.ndarray,
    words: TermRows,
) -> int:
    """Write vectors and words of all rows added since the base was built; return their number.

    Args:
        base: the current generation.
        prepared: folder of the new one.
        store: vectors of the current generation.
        gone: ids that the change removes.
        ids: ids of the new rows, int64 [new].
        matrix: their vectors, float32 [new, dimension].
        words: their words.
    """
    delta = prepared / DELTA_FOLDER
    if is_delta(base.manifest):
        old_ids = store_class(DELTA_STORE).load(base.path / DELTA_FOLDER, matrix.shape[1]).ids
        remaining = np.flatnonzero(~np.isin(old_ids, list(gone)))
        words = delta_terms(base.path, base.manifest).extended(remaining, words)
        matrix = np.concatenate([store.vectors(old_ids[remaining]), matrix])
        ids = np.concatenate([old_ids[remaining], ids])
    added = store_class(DELTA_STORE)(matrix.shape[1])
    added.add(ids, matrix)
    added.save(delta)
    settings = IndexSettings.from_json(base.manifest["settings"])
    words.save(delta / LEXICAL_FOLDER)
    BM25Index.of(words, settings.k1, settings.b).save(delta / LEXICAL_FOLDER)
    return len(ids)


def _write_removed(base: BaseGeneration, prepared: Path, gone: set[int]) -> int:
    """Write which rows of the base are left out, and how often words occur in them; return the number of rows."""
    delta = prepared / DELTA_FOLDER
    base_ids = load_base_store(base.path, base.manifest).ids
    before = removed_ids(base.path) if is_delta(base.manifest) else np.empty(0, dtype=np.int64)
    newly = np.intersect1d(base_ids, np.array(sorted(gone), dtype=np.int64))
    frequency: Counter[int] = Counter()
    if is_delta(base.manifest):
        known = read_array(base.path / DELTA_FOLDER / REMOVED_WORDS_FILE)
        frequency.update({int(word): int(count) for word, count in known})
    frequency.update(
        TermRows.frequencies(base.path / LEXICAL_FOLDER, np.flatnonzero(np.isin(base_ids, newly)))
    )
    removed = np.union1d(before, newly)
    np.save(delta / REMOVED_FILE, removed, allow_pickle=False)
    pairs = np.array(sorted(frequency.items()), dtype=np.int64).reshape(-1, 2)
    np.save(delta / REMOVED_WORDS_FILE, pairs, allow_pickle=False)
    return len(removed)
