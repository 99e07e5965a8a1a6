"""Copy an index to a URL without embedding anything, and compare the copy with its source.

Documents with their source texts, chunks, words, vectors and facts are written as one generation, which readers see whole or
not at all. Chunks keep their ids. Not copied is the note of which files were read, so that the first update reads them all.
The texts and vectors of the index are held in memory meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from functools import lru_cache
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from rag.backends.base import IndexChange, WritableBackend, backend_class, shown_url
from rag.backends.consent import index_location
from rag.backends.files import FilesBackend
from rag.errors import BadInput, UsageProblem
from rag.files import sha256_text
from rag.indexing.chunking import chunk_prefix
from rag.indexing.generations import CURRENT_POINTER, current_generation
from rag.search.backend import Backend, ChunkSelection, IndexFacts
from rag.search.query import Query
from rag.stores.text import RowChange, StoredChunk, TextStore
from rag.text.words import count_noun
from rag.types import Chunk, Document, OnEvent

QUERIES = 100
"""Questions that both indexes are asked: vectors and words of chunks that are spread over the index."""
HITS = 10
"""Answers that are compared for each question."""
QUESTION_WORDS = 6
"""Words of a chunk that make a question."""
APPROXIMATE_RECALL = 0.99
"""A copy that searches its vectors approximately must find this share of the exact answers."""
WORD_TOLERANCE = 1e-5
SCORE_TOLERANCE = 1e-6
"""Inner products that differ by rounding only are a tie."""
HALFVEC_ROUNDING = 2.0**-11
"""Largest relative error of a number that ``halfvec`` rounds to 11 bits."""
HALFVEC_SMALLEST = 2.0**-25
"""Largest error of a number below the smallest normal one of 16 bits."""
_BATCH = 2_000
"""Chunks that are read at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyReport:
    """What was copied, and how the copy compares with its source."""

    source: str
    target: str
    generation: int
    documents: int
    chunks: int
    dimension: int
    vectors: str
    """How the vectors compare: ``equal`` bit for bit, or rounded to ``halfvec``."""
    queries: int
    """Questions asked of both, by vector and by words."""
    recall: float
    """Share of the exact answers that the copy's search by vector found; 1 where all answers are the same."""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``index copy --json`` prints."""
        return {"schema": 1, **asdict(self)}


def copy_index(
    source: Path | str, target: str, on_event: OnEvent | None = None, *, overwrite: bool = False
) -> CopyReport:
    """Copy an index to a URL and verify the copy.

    Args:
        source: folder or URL of the index.
        target: URL; another process must not be writing there.
        on_event: receives progress events.
        overwrite: replace an index that is at the target.

    Raises:
        UsageProblem: source and target are the same, or the target is no URL of a backend.
        BadInput: there is no index, the target has one, or the copy differs, which is said; or the source stands for a URL
            whose host is not allowed.
        CannotRun: a database or storage cannot be reached, or was lost; the target then has no new generation.
    """
    notify = on_event or (lambda event: None)
    start = time.monotonic()
    location = index_location(source)
    if shown_url(str(location)) == shown_url(target):
        raise UsageProblem(f"{shown_url(target)} is source and target", "name another target")
    target_class = backend_class(target)
    source_index = _opened(location)
    backend, shown = source_index.backend, source_index.shown
    try:
        with target_class.writer(target) as writer:
            existing = writer.facts()
            if existing is not None and not overwrite:
                raise BadInput(
                    f"{shown_url(target)} has an index already, of {count_noun(existing.chunks, 'chunk')}",
                    "choose another place, or replace it: --overwrite",
                )
            change = _read(source_index, notify)
            notify({"event": "copy.written", "chunks": len(change.rows.chunks_in)})
            writer.publish(change)
        notify({"event": "copy.verified", "done": 0, "total": len(change.rows.chunks_in)})
        copied = target_class.open(target)
        try:
            rounding, recall = _verified(source_index, copied, _Names(shown, shown_url(target)), notify)
            facts = copied.facts
        finally:
            copied.close()
    finally:
        backend.close()
    return CopyReport(
        source=shown,
        target=shown_url(target),
        generation=facts.generation,
        documents=facts.documents,
        chunks=facts.chunks,
        dimension=facts.dimension,
        vectors=rounding,
        queries=min(QUERIES, facts.chunks),
        recall=recall,
        seconds=round(time.monotonic() - start, 3),
    )


@dataclass(frozen=True, slots=True)
class _Source:
    """An opened index with the rows that no search needs."""

    backend: Backend
    chunks: Callable[[], Iterable[StoredChunk]]
    documents: Callable[[], Iterator[Document]]
    """By id, without blocks."""
    shown: str


def _opened(location: Path | str) -> _Source:
    if isinstance(location, str):
        backend: WritableBackend = backend_class(location).open(location)
        return _Source(backend, backend.stored_chunks, backend.stored_documents, shown_url(location))
    number = current_generation(location)
    if not number:
        raise BadInput(f"{location} is not an index: it has no {CURRENT_POINTER}", "build it first")
    opened = FilesBackend.open(location, number)

    def chunks() -> Iterable[StoredChunk]:
        with TextStore(location) as text:
            return text.chunks(number)

    def documents() -> Iterator[Document]:
        with TextStore(location) as text:
            for id in opened.document_ids():
                if (document := text.document(id, number)) is not None:
                    yield document

    return _Source(opened, chunks, documents, str(location))


def _read(source: _Source, notify: OnEvent) -> IndexChange:
    """Return everything of the source as one change that replaces what the target holds."""
    backend, shown = source.backend, source.shown
    facts = backend.facts
    rows: list[StoredChunk] = []
    texts: dict[str, str] = {}
    vectors: dict[str, np.ndarray] = {}
    pages = iter(source.chunks())
    while page := list(islice(pages, _BATCH)):
        matrix = backend.vectors(np.array([row.chunk.id for row in page], dtype=np.int64))
        for row, vector in zip(page, matrix, strict=True):
            if row.embedded not in texts:
                texts[row.embedded] = _embedded_text(row, shown)
                vectors[row.embedded] = vector
        rows += page
        notify({"event": "copy.read", "done": len(rows), "total": facts.chunks})
    whole = RowChange(documents_in=tuple(source.documents()), chunks_in=tuple(rows), whole=True)
    record = {**facts.manifest()}
    if not facts.encoding:
        del record["encoder"]
    return IndexChange(whole, texts, vectors, record)


def _embedded_text(row: StoredChunk, shown: str) -> str:
    """Return the text that was embedded for a chunk, which an index holds as a hash only."""
    for prefix in _prefixes(row.chunk.title, row.chunk.heading):
        text = prefix + row.chunk.text
        if sha256_text(text) == row.embedded:
            return text
    raise BadInput(
        f"{shown}: the words of chunk {row.chunk.id} are not known: none that its title gives have the recorded hash",
        "build the index again and copy that",
    )


@lru_cache(maxsize=4096)
def _prefixes(title: str, heading: str) -> tuple[str, ...]:
    """Return what :meth:`rag.indexing.chunking.Chunker.embedded_text` may have put before a chunk, longest first.

    Which of them it was depends on the embedder's tokens; the hash tells it without the embedder.
    """
    parts = [part for part in heading.split(" > ") if part]
    prefixes = [chunk_prefix(title, " > ".join(parts[n:])) for n in range(len(parts) + 1)]
    while prefixes[-1]:
        prefixes.append(prefixes[-1][: len(prefixes[-1]) * 3 // 4].rstrip())
    ends = ("" if text[-1:] in (".", "!", "?", ":") else "." for text in prefixes)
    return tuple(f"{text}{end}\n" if text else "" for text, end in zip(prefixes, ends, strict=True))


@dataclass(frozen=True, slots=True)
class _Names:
    """Source and target as messages show them."""

    source: str
    target: str

    def difference(self, what: str) -> BadInput:
        """Return the error of a copy that differs."""
        return BadInput(
            f"the copy at {self.target} differs from {self.source}: {what}", "do not use it; copy again"
        )


def _verified(opened: _Source, copy: WritableBackend, names: _Names, notify: OnEvent) -> tuple[str, float]:
    """Compare counts, documents, chunks, vectors and answers; return how vectors compare, and the recall of answers."""
    source = opened.backend
    ours, theirs = (_comparable(backend.facts) for backend in (source, copy))
    if ours != theirs:
        key = next(key for key in ours if ours[key] != theirs[key])
        raise names.difference(f"{key} is {theirs[key]!r}, not {ours[key]!r}")
    for document, copied in zip_longest(opened.documents(), copy.stored_documents()):
        if document != copied:
            raise names.difference(f"the document {(document or copied).id!r} is another one")
    details = copy.verify()
    rounding = "halfvec" if details.get("vectors") == "halfvec" else "equal"
    questions = _Questions.drawn(source)
    seen = 0
    empty: list[Chunk] = []
    for own, other in zip_longest(_pages(source), _pages(copy), fillvalue=empty):
        if own != other:
            id = next((a.id for a, b in zip(own, other, strict=False) if a != b), "at the end")
            raise names.difference(f"chunk {id} is another one")
        ids = np.array([chunk.id for chunk in own], dtype=np.int64)
        stored = source.vectors(ids)
        wrong = ~_same_vectors(stored, copy.vectors(ids), rounding)
        if wrong.any():
            raise names.difference(f"the vector of chunk {ids[wrong][0]} is another one")
        questions.compare(ids, stored)
        seen += len(ids)
        notify({"event": "copy.verified", "done": seen, "total": source.facts.chunks})
    approximate = details.get("search", "exact") != "exact"
    return rounding, questions.answered(source, copy, names, approximate=approximate, rounding=rounding)


def _comparable(facts: IndexFacts) -> dict[str, Any]:
    """Return the facts that a copy shares with its source."""
    body = {**asdict(facts), "encoding": dict(facts.encoding)}
    del body["generation"]
    return body


def _pages(backend: Backend) -> Iterator[list[Chunk]]:
    chunks = backend.all_chunks()
    while page := list(islice(chunks, _BATCH)):
        yield page


def _same_vectors(own: np.ndarray, other: np.ndarray, rounding: str) -> np.ndarray:
    """Return which vectors are equal bit for bit, or as far as the rounding allows, bool [vectors]."""
    if rounding == "equal":
        return np.asarray((own.view(np.int32) == other.view(np.int32)).all(axis=1))
    allowed = np.abs(own) * HALFVEC_ROUNDING + HALFVEC_SMALLEST
    return np.asarray((np.abs(own - other) <= allowed).all(axis=1))


@dataclass(slots=True)
class _Questions:
    """Questions from the index's own chunks, with the exact answers by vector of the source."""

    texts: list[str]
    vectors: np.ndarray
    best: np.ndarray
    """Scores of the exact answers so far, best first, float32 [questions, HITS]."""
    best_ids: np.ndarray

    @classmethod
    def drawn(cls, source: Backend) -> _Questions:
        """Take chunks at equal distances: their vectors, and some of their words."""
        every = source.select(Query(expired=True), date.today())
        ids = source.allowed_ids(every)
        chosen = (
            ids[np.unique(np.linspace(0, len(ids) - 1, min(QUERIES, len(ids))).astype(int))]
            if len(ids)
            else ids
        )
        texts = []
        for chunk in source.chunks(chosen.tolist()):
            words = chunk.text.split()
            step = max(1, len(words) // QUESTION_WORDS)
            texts.append(" ".join(words[::step][:QUESTION_WORDS]))
        vectors = source.vectors(chosen)
        shape = (len(chosen), HITS)
        return cls(texts, vectors, np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64))

    def compare(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Take more vectors of the source into the exact answers."""
        scores = np.concatenate([self.best, self.vectors @ vectors.T], axis=1)
        known = np.concatenate([self.best_ids, np.broadcast_to(ids, (len(self.texts), len(ids)))], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :HITS]
        self.best = np.take_along_axis(scores, order, axis=1)
        self.best_ids = np.take_along_axis(known, order, axis=1)

    def answered(
        self, source: Backend, copy: Backend, names: _Names, *, approximate: bool, rounding: str
    ) -> float:
        """Ask the copy; return the share of the exact answers by vector that it found.

        Raises:
            BadInput: an answer differs (up to ties), or an approximate search finds less than APPROXIMATE_RECALL.
        """
        if not self.texts:
            return 1.0
        today = date.today()
        own, other = (backend.select(Query(expired=True), today) for backend in (source, copy))
        # halfvec: two factors of 1 + 2^-11 at most, of inner products of unit vectors
        tolerance = SCORE_TOLERANCE if rounding == "equal" else 2 * HALFVEC_ROUNDING
        right = wanted = 0
        differing = []
        for n, ids in enumerate(copy.by_vector(self.vectors, HITS, [other] * len(self.texts))):
            scores = source.vectors(ids) @ self.vectors[n]
            exact = self.best[n][np.isfinite(self.best[n])]
            wanted += len(exact)
            # an answer counts as found where it is as near as the exact one of its rank
            right += int((scores >= exact[: len(scores)] - tolerance).sum())
            if len(scores) != len(exact) or (np.abs(scores - exact) > tolerance).any():
                differing.append(n)
        recall = round(right / max(1, wanted), 4)
        if differing and not approximate:
            raise names.difference(
                f"{len(differing)} of {count_noun(len(self.texts), 'question')} by vector have other answers"
            )
        if recall < APPROXIMATE_RECALL:
            raise names.difference(f"its search by vector finds {recall:.3f} of the right answers")
        if words := [text for text in self.texts if not _same_words(source, own, copy, other, text)]:
            raise names.difference(
                f"{len(words)} of {count_noun(len(self.texts), 'question')} by words have other answers, as {words[0]!r}"
            )
        return recall


def _same_words(
    source: Backend, own: ChunkSelection, copy: Backend, other: ChunkSelection, question: str
) -> bool:
    """Return whether both find the same by words: equal scores rank by rank, and of each answer in both."""
    ours, theirs = source.by_words(question, HITS, own), copy.by_words(question, HITS, other)
    ids = np.union1d(ours.ids, theirs.ids)
    if len(ours.ids) != len(theirs.ids) or not np.allclose(
        ours.scores_of(ids), theirs.scores_of(ids), rtol=WORD_TOLERANCE, atol=WORD_TOLERANCE
    ):
        return False
    return bool(
        np.allclose(
            ours.scores_of(ours.ids), ours.scores_of(theirs.ids), rtol=WORD_TOLERANCE, atol=WORD_TOLERANCE
        )
    )
