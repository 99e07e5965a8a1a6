"""Look an index over for damage, and make its derived files again from its text.

Vectors, words, manifest and pointer are all derived: what is damaged is made anew as the next generation,
with vectors from whatever verified file still holds them, and the embedder only for those that none does.
The text itself has no second copy here: where it is damaged the index must be built again from the documents.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag.embedding.protocol import Encoder
from rag.errors import BadInput
from rag.files import disk_full_as_problem, sha256_file, sha256_text, writer_lock
from rag.indexing import generations
from rag.indexing.build import require_same_embedder
from rag.indexing.chunking import Chunker
from rag.indexing.vectors import KnownVectors, resolve_vectors
from rag.indexing.writer import LEXICAL_FOLDER, write_generation_files
from rag.settings import IndexSettings
from rag.stores.base import store_class
from rag.stores.bm25 import TermRows
from rag.stores.sqlite import REBUILD_HINT
from rag.stores.text import GenerationRecord, RowChange, RowSummary, StoredChunk, TextStore
from rag.stores.vector_cache import VectorCache
from rag.types import OnEvent


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair found and did."""

    damage: tuple[str, ...]
    """Each damaged part in one line; empty when the index was whole."""
    generation: int
    """The generation that is current now."""
    embedded: int = 0
    """Texts that had to be embedded again; the other vectors were still there."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``index check --repair --json`` prints."""
        return {"schema": 1, **asdict(self)}


def check_index(folder: Path) -> dict[str, Any]:
    """Verify every kept generation, every row and every vector; return counts, or raise BadInput."""
    number = generations.current_generation(folder)
    if not number:
        raise BadInput(
            f"{folder} is not an index: it has no {generations.CURRENT_POINTER}", generations.REPAIR_HINT
        )
    kept = generations.generation_numbers(folder)
    found = [generations.open_verified(folder, n) for n in sorted({*kept, number})]
    manifest = next(g.manifest for g in found if g.number == number)
    with TextStore(folder) as text:
        text.check()
        documents = _verified_text(text, number, manifest["text_sha256"])
        rows = text.summaries(number)
    path = folder / generations.generation_name(number)
    store = store_class(manifest["store"]).load(path, manifest["dimension"])
    TermRows.load(path / LEXICAL_FOLDER, len(rows))
    if not np.array_equal(np.sort(store.ids), np.array([row.id for row in rows], dtype=np.int64)):
        raise BadInput(f"{folder} is damaged: vectors and chunks have different ids", generations.REPAIR_HINT)
    return {
        "schema": 1,
        "generation": number,
        "generations": kept,
        "documents": documents,
        "chunks": len(rows),
        "files": sum(len(g.manifest["files"]) for g in found),
        "store": manifest["store"],
        "embedder": manifest["embedder"],
        "fingerprint": manifest["fingerprint"],
    }


def repair_index(
    folder: Path, embedder: Callable[[], Encoder], on_event: OnEvent | None = None
) -> RepairReport:
    """Find damage and mend it; ``embedder`` is called only when vectors are lost everywhere.

    Raises BadInput when the text itself is damaged.
    """
    with disk_full_as_problem(folder), writer_lock(folder), TextStore(folder, write=True) as text:
        text.check()
        damage = list(_damage(folder))
        record = _newest(folder, text)
        with VectorCache(folder, record.facts["fingerprint"], record.facts["dimension"]) as cache:
            lost = cache.check()[1]
            if cache.was_reset or lost:
                damage.append(
                    f"the vector cache lost {'everything' if cache.was_reset else f'{lost} vectors'}"
                )
            published = 0
            with suppress(BadInput):
                published = generations.current_generation(folder)
            if published == record.number and _is_whole(folder, published):
                for number in generations.generation_numbers(folder):
                    if number != published and not _is_whole(folder, number):
                        generations.remove_generation(folder, number)
                return RepairReport(tuple(damage), published)
            mended = _Mending(folder, text, cache, record, embedder, on_event or (lambda event: None))
            return RepairReport(tuple(damage), *mended.run())


class _Mending:
    """Makes the derived files of one generation again, under the next number."""

    def __init__(
        self,
        folder: Path,
        text: TextStore,
        cache: VectorCache,
        record: GenerationRecord,
        embedder: Callable[[], Encoder],
        tell: OnEvent,
    ) -> None:
        self._folder, self._text, self._cache, self._record = folder, text, cache, record
        self._embedder, self._tell = embedder, tell
        self._settings = IndexSettings.from_json(record.facts["settings"])

    def run(self) -> tuple[int, int]:
        """Publish the generation; return its number and how many texts were embedded."""
        old, facts = self._record.number, self._record.facts
        rows = self._text.chunks(old)
        texts = self._texts(rows)
        wanted = {row.embedded: text for row, text in zip(rows, texts, strict=True)}
        found = resolve_vectors(wanted, self._known(), self._cache, self._encoder, self._tell)
        last = max(old, *generations.generation_numbers(self._folder), *self._text.numbers())
        self._text.roll_back(old)
        record = self._text.apply(last + 1, RowChange(), facts, generations.next_chunk_id(self._folder))
        matrix = np.array([found.vectors[row.embedded] for row in rows], dtype=np.float32)
        matrix = matrix.reshape(len(rows), int(facts["dimension"]))
        summaries = [RowSummary(r.chunk.id, r.chunk.doc, r.embedded, r.sha256) for r in rows]
        write_generation_files(self._folder, record, summaries, matrix, TermRows.of(texts), self._store())
        for number in generations.generation_numbers(self._folder):
            if number != record.number and not _is_whole(self._folder, number):
                generations.remove_generation(self._folder, number)
        self._text.delete_before(generations.remove_old_generations(self._folder, record.number))
        return record.number, found.embedded

    def _texts(self, rows: list[StoredChunk]) -> list[str]:
        """Return what was embedded of each row; the embedder is asked only where a prefix was shortened."""
        plain = Chunker(_Boundless(), self._settings)  # type: ignore[arg-type]
        texts = [plain.embedded_text(row.chunk) for row in rows]
        wrong = [n for n, row in enumerate(rows) if sha256_text(texts[n]) != row.embedded]
        if wrong:
            real = Chunker(self._encoder(), self._settings)
            for n in wrong:
                texts[n] = real.embedded_text(rows[n].chunk)
                if sha256_text(texts[n]) != rows[n].embedded:
                    raise BadInput(
                        f"{self._folder} was cut by another version of tunewise, so its words cannot be read again",
                        REBUILD_HINT,
                    )
        return texts

    def _encoder(self) -> Encoder:
        encoder = self._embedder()
        require_same_embedder(self._folder, self._record.facts, encoder)
        return encoder

    def _known(self) -> KnownVectors:
        """Return the vectors of the generation when its own files hold them still, unharmed."""
        path = self._folder / generations.generation_name(self._record.number)
        with suppress(BadInput, OSError):
            manifest = generations.trusted_manifest(self._folder, self._record.number)
            files = {n: e for n, e in manifest["files"].items() if not n.startswith(f"{LEXICAL_FOLDER}/")}
            if all(sha256_file(path / name) == entry["sha256"] for name, entry in files.items()):
                store = store_class(manifest["store"]).load(path, manifest["dimension"])
                ids = set(store.ids.tolist())
                rows = self._text.summaries(self._record.number)
                return KnownVectors({row.embedded: row.id for row in rows if row.id in ids}, store)
        return KnownVectors({}, None)

    def _store(self) -> str | None:
        """Return the name of the store that was chosen, where the manifest can still be believed."""
        with suppress(BadInput):
            return str(generations.trusted_manifest(self._folder, self._record.number)["store"])
        return None


class _Boundless:
    """Stands for an embedder with room for every prefix."""

    max_tokens = 1

    def count_tokens(self, text: str) -> int:
        return 0


def _damage(folder: Path) -> list[str]:
    """Return what is wrong with the pointer and the generations, one line each."""
    found = []
    number = 0
    try:
        number = generations.current_generation(folder)
        if not number:
            found.append(f"{generations.CURRENT_POINTER} is missing")
    except BadInput as error:
        found.append(error.message)
    for each in sorted({*generations.generation_numbers(folder), *([number] if number else [])}):
        try:
            generations.open_verified(folder, each)
        except BadInput as error:
            found.append(error.message)
    return found


def _is_whole(folder: Path, number: int) -> bool:
    try:
        return bool(generations.open_verified(folder, number))
    except BadInput:
        return False


def _newest(folder: Path, text: TextStore) -> GenerationRecord:
    """Return the record of the generation to restore: the current one, or the newest when none is named."""
    try:
        number = generations.current_generation(folder)
    except BadInput:
        number = 0
    if not number:
        written = text.numbers()
        finished = [n for n in generations.generation_numbers(folder) if n in written]
        number = max(finished or written, default=0)
    record = text.record(number)
    if record is None:
        raise BadInput(f"{folder} holds no generation that can be restored", REBUILD_HINT)
    _verified_text(text, number, record.text_sha256)
    return record


def _verified_text(text: TextStore, number: int, sha256: str) -> int:
    """Read every row of a generation against its hash, and all against the generation's; count documents."""
    documents = text.documents(number)
    for id in documents:
        text.document(id, number)
    text.chunks(number)
    if text.digest(number) != sha256:
        raise BadInput(
            f"the texts of {generations.generation_name(number)} are damaged: rows are missing", REBUILD_HINT
        )
    return len(documents)
