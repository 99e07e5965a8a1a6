"""Questions made from documents, for tuning an index when nobody has asked any yet; every one marked synthetic.

A statement of a chunk is turned round (``grammar.turned``) and kept when no other passage could answer the
question too: all passages that hold its content words must be the statement's own. Where the words alone do
not tell, the document's title is named. Made questions use the words of the documents, so they can judge how
these are cut, but not how much words should count against meaning.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rag.durable import sha256_text
from rag.grammar import turned
from rag.types import Chunk
from rag.words import content_words, sentence_spans, words

_INSIDE = re.compile(r"(?<=[a-z,;] )[A-Z][\w'’-]*")
"""Words that have a capital letter inside a sentence; those that never have a small one are names."""
_FEWEST_WORDS = 2
"""Content words that a question must have besides those of the title."""


@dataclass(frozen=True, slots=True)
class Made:
    """A question made from one statement of a chunk."""

    id: str
    question: str
    answers: tuple[str, ...]
    """The words asked for, or yes or no."""
    doc_id: str
    spans: tuple[tuple[int, int], ...]
    """Where the statement stands in the document's source text."""
    statement: str
    answerable: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the question as a row of a questions file, marked synthetic."""
        return {
            "id": self.id, "question": self.question, "answers": list(self.answers), "doc_id": self.doc_id,
            "spans": [{"start": start, "end": end} for start, end in self.spans], "answerable": True,
            "synthetic": True,
        }  # fmt: skip


def make(chunks: Sequence[Chunk], most: int, seed: int = 0) -> tuple[Made, ...]:
    """Return at most ``most`` questions, from as many documents as possible; the same chunks give the same.

    English statements only: documents in other languages give none.
    """
    corpus = _Corpus(chunks)
    by_document: defaultdict[str, list[Chunk]] = defaultdict(list)
    for chunk in chunks:
        by_document[chunk.doc].append(chunk)
    ranked: list[list[Made]] = []
    for doc in sorted(by_document, key=lambda doc: _draw(seed, doc)):
        made = {each.question: each for chunk in by_document[doc] for each in corpus.questions(chunk)}
        if made:
            ranked.append(
                sorted(made.values(), key=lambda m: (m.answers[0] in ("yes", "no"), _draw(seed, m.id)))
            )
        if len(ranked) == most:
            break
    rounds = (found[n] for n in range(most) for found in ranked if n < len(found))
    return tuple(islice(rounds, most))


class _Corpus:
    """Which chunks hold which words."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._chunks = chunks
        self._holding: defaultdict[str, set[int]] = defaultdict(set)
        inside: set[str] = set()
        small: set[str] = set()
        for row, chunk in enumerate(chunks):
            for word in words(f"{chunk.title} {chunk.heading} {chunk.text}"):
                self._holding[word].add(row)
            inside.update(_INSIDE.findall(chunk.text))
            small.update(word for word in chunk.text.split() if word.islower())
        self._names = frozenset(word for word in inside if word.lower() not in small)

    def questions(self, chunk: Chunk) -> Iterator[Made]:
        """Yield what the statements of a chunk answer and nothing else in the corpus does."""
        for start, end in sentence_spans(chunk.text):
            statement = chunk.text[start:end]
            found = turned(statement, self._names)
            if found is None:
                continue
            span = _place(chunk, start, end)
            question = self._told_apart(found.question, chunk, span)
            if question and not _repeats(question, chunk):
                name = f"made-{sha256_text(f'{chunk.doc}:{question}')[:12]}"
                yield Made(name, question, (found.answer,), chunk.doc, (span,), statement)

    def _told_apart(self, question: str, chunk: Chunk, span: tuple[int, int]) -> str:
        """Return the question, with the title where it needs one; nothing when others could answer it too."""
        wanted, title = set(content_words(question)), set(content_words(chunk.title))
        if len(wanted - title) < _FEWEST_WORDS:
            return ""
        if self._is_only(wanted, chunk, span) and (title <= wanted or not self._is_common(wanted, chunk)):
            return question
        if title and not title <= wanted and self._is_only(wanted | title, chunk, span):
            return f"According to {chunk.title}, {question[0].lower()}{question[1:]}"
        return ""

    def _is_only(self, wanted: set[str], chunk: Chunk, span: tuple[int, int]) -> bool:
        """Return whether all chunks that hold these words hold the statement itself."""
        return all(
            c.doc == chunk.doc and c.start < span[1] and span[0] < c.end for c in self._holders(wanted)
        )

    def _is_common(self, wanted: set[str], chunk: Chunk) -> bool:
        """Return whether another document holds all of these words but one: it may say the same in other words."""
        return any(c.doc != chunk.doc for word in sorted(wanted) for c in self._holders(wanted - {word}))

    def _holders(self, wanted: set[str]) -> list[Chunk]:
        rows = set.intersection(*sorted((self._holding[word] for word in wanted), key=len))
        return [self._chunks[row] for row in rows]


def _place(chunk: Chunk, start: int, end: int) -> tuple[int, int]:
    """Return the place of ``chunk.text[start:end]`` in the source; the chunk's own where that is not exact."""
    exact = len(chunk.text) == chunk.end - chunk.start
    return (chunk.start + start, chunk.start + end) if exact else (chunk.start, chunk.end)


def _repeats(question: str, chunk: Chunk) -> bool:
    """Return whether the question stands word for word in the chunk."""
    return f" {' '.join(words(question))} " in f" {' '.join(words(chunk.text))} "


def _draw(seed: int, text: str) -> str:
    return sha256_text(f"{seed}\0{text}")
