"""Check an index for damage, and rebuild its derived files from its text.

Vectors, words, manifest and pointer are all derived: what is damaged is rebuilt as the next generation, with vectors
from any verified file that still has them, and from the embedder only for the others. The text itself has no second
copy in the index: if it is damaged, the index must be built again from the documents.
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
from rag.indexing.chunking import Chunker
from rag.indexing.encoding import recorded_encoder
from rag.indexing.segments import LEXICAL_FOLDER, load_base_store, load_store, load_terms
from rag.indexing.vectors import KnownVectors, resolve_vectors
from rag.indexing.writer import write_generation_files
from rag.settings import IndexSettings
from rag.stores.bm25 import TermRows
from rag.stores.sqlite import REBUILD_HINT
from rag.stores.text import GenerationRecord, RowChange, RowSummary, StoredChunk, TextStore
from rag.stores.vector_cache import VectorCache
from rag.types import OnEvent


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair found and did."""

    damage: tuple[str, ...]
    """Each damaged part in one line; empty if there was no damage."""
    generation: int
    """The generation that is current now."""
    embedded: int = 0
    """Texts that had to be embedded again; all other vectors were recovered."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``index check --repair --json`` prints."""
        return {"schema": 1, **asdict(self)}


def check_index(folder: Path) -> dict[str, Any]:
    """Verify every retained generation, row and vector; return counts, or raise BadInput."""
    number = generations.current_generation(folder)
    if not number:
        raise BadInput(
            f"{folder} is not an index: it has no {generations.CURRENT_POINTER}", generations.REPAIR_HINT
        )
    numbers = generations.generation_numbers(folder)
    verified = [generations.open_verified(folder, n, sha256_file) for n in sorted({*numbers, number})]
    manifest = next(g.manifest for g in verified if g.number == number)
    with TextStore(folder) as text:
        text.check()
        documents = _verify_text(text, number, manifest["text_sha256"])
        rows = text.summaries(number)
    path = folder / generations.generation_name(number)
    store = load_store(path, manifest, mapped=False)
    load_terms(path, manifest, load_base_store(path, manifest).ids)
    if not np.array_equal(np.sort(store.ids), np.array([row.id for row in rows], dtype=np.int64)):
        raise BadInput(f"{folder} is damaged: vectors and chunks have different ids", generations.REPAIR_HINT)
    return {
        "schema": 1,
        "generation": number,
        "generations": numbers,
        "documents": documents,
        "chunks": len(rows),
        "files": sum(len(g.manifest["files"]) for g in verified),
        "store": manifest["store"],
        "embedder": manifest["embedder"],
        "fingerprint": manifest["fingerprint"],
    }


def repair_index(
    folder: Path, embedder: Callable[[], Encoder], on_event: OnEvent | None = None
) -> RepairReport:
    """Find damage and repair it; ``embedder`` is called only if vectors are lost everywhere.

    Raises:
        BadInput: if the text itself is damaged.
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
            if published == record.number and _is_intact(folder, published):
                for number in generations.generation_numbers(folder):
                    if number != published and not _is_intact(folder, number):
                        generations.remove_generation(folder, number)
                return RepairReport(tuple(damage), published)
            rebuild = _Rebuild(folder, text, cache, record, embedder, on_event or (lambda event: None))
            return RepairReport(tuple(damage), *rebuild.run())


class _Rebuild:
    """Rebuilds the derived files of one generation under the next number."""

    def __init__(
        self,
        folder: Path,
        text: TextStore,
        cache: VectorCache,
        record: GenerationRecord,
        embedder: Callable[[], Encoder],
        on_event: OnEvent,
    ) -> None:
        self._folder = folder
        self._text = text
        self._cache = cache
        self._record = record
        self._embedder = embedder
        self._on_event = on_event
        self._settings = IndexSettings.from_json(record.facts["settings"])

    def run(self) -> tuple[int, int]:
        """Publish the generation; return its number and how many texts were embedded."""
        old_number = self._record.number
        facts = self._record.facts
        rows = self._text.chunks(old_number)
        texts = self._texts(rows)
        text_by_hash = {row.embedded: text for row, text in zip(rows, texts, strict=True)}
        resolved = resolve_vectors(
            text_by_hash,
            self._known(),
            self._cache,
            self._encoder,
            self._on_event,
            unit_chars=self._settings.unit_chars,
        )
        last = max(old_number, *generations.generation_numbers(self._folder), *self._text.numbers())
        self._text.roll_back(old_number)
        record = self._text.apply(last + 1, RowChange(), facts, generations.next_chunk_id(self._folder))
        matrix = np.array([resolved.vectors[row.embedded] for row in rows], dtype=np.float32)
        matrix = matrix.reshape(len(rows), int(facts["dimension"]))
        summaries = [RowSummary(row.chunk.id, row.chunk.doc, row.embedded, row.sha256) for row in rows]
        write_generation_files(self._folder, record, summaries, matrix, TermRows.of(texts), self._store())
        for number in generations.generation_numbers(self._folder):
            if number != record.number and not _is_intact(self._folder, number):
                generations.remove_generation(self._folder, number)
        self._text.delete_before(generations.remove_old_generations(self._folder, record.number))
        return record.number, resolved.embedded

    def _texts(self, rows: list[StoredChunk]) -> list[str]:
        """Return the text that was embedded for each row; the embedder is needed only if a prefix was shortened."""
        plain = Chunker(_UnlimitedEncoder(), self._settings)  # type: ignore[arg-type]
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
        return recorded_encoder(self._folder, self._record.facts, self._embedder())

    def _known(self) -> KnownVectors:
        """Return the vectors of the generation if its own files are intact."""
        path = self._folder / generations.generation_name(self._record.number)
        with suppress(BadInput, OSError):
            manifest = generations.trusted_manifest(self._folder, self._record.number)
            files = {n: e for n, e in manifest["files"].items() if f"{LEXICAL_FOLDER}/" not in n}
            if all(sha256_file(path / name) == entry["sha256"] for name, entry in files.items()):
                store = load_store(path, manifest, mapped=False)
                ids = set(store.ids.tolist())
                rows = self._text.summaries(self._record.number)
                return KnownVectors({row.embedded: row.id for row in rows if row.id in ids}, store)
        return KnownVectors({}, None)

    def _store(self) -> str | None:
        """Return the name of the store that was chosen, if the manifest can be trusted."""
        with suppress(BadInput):
            return str(generations.trusted_manifest(self._folder, self._record.number)["store"])
        return None


class _UnlimitedEncoder:
    """Stands in for an embedder with an unlimited window, so that no prefix is shortened."""

    max_tokens = 1

    def count_tokens(self, text: str) -> int:
        return 0


def _damage(folder: Path) -> list[str]:
    """Return the damage to the pointer and the generations, one line each."""
    damage = []
    number = 0
    try:
        number = generations.current_generation(folder)
        if not number:
            damage.append(f"{generations.CURRENT_POINTER} is missing")
    except BadInput as error:
        damage.append(error.message)
    for generation in sorted({*generations.generation_numbers(folder), *([number] if number else [])}):
        try:
            generations.open_verified(folder, generation, sha256_file)
        except BadInput as error:
            damage.append(error.message)
    return damage


def _is_intact(folder: Path, number: int) -> bool:
    try:
        return bool(generations.open_verified(folder, number, sha256_file))
    except BadInput:
        return False


def _newest(folder: Path, text: TextStore) -> GenerationRecord:
    """Return the record of the generation to restore: the current one, or the newest if the pointer names none."""
    try:
        number = generations.current_generation(folder)
    except BadInput:
        number = 0
    if not number:
        recorded = text.numbers()
        finished = [n for n in generations.generation_numbers(folder) if n in recorded]
        number = max(finished or recorded, default=0)
    record = text.record(number)
    if record is None:
        raise BadInput(f"{folder} has no generation that can be restored", REBUILD_HINT)
    _verify_text(text, number, record.text_sha256)
    return record


def _verify_text(text: TextStore, number: int, sha256: str) -> int:
    """Verify every row of a generation against its hash and all rows against the generation's; return the document count."""
    documents = text.documents(number)
    for id in documents:
        text.document(id, number)
    text.chunks(number)
    if not text.has_digest(number, sha256):
        raise BadInput(
            f"the texts of {generations.generation_name(number)} are damaged: rows are missing", REBUILD_HINT
        )
    return len(documents)
