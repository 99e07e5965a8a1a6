"""Find the chunks of a whole corpus that support a reply: the gold passages of a training example."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from rag.grounding import citations, evidence
from rag.grounding.fields import Field, structured_fields
from rag.sentences.claims import proper_names
from rag.text.words import content_words, sentences, words
from rag.types import Chunk

_MAX_CANDIDATES = 30
"""Chunks that share the rarest words with reply and question; only these are compared in full."""
MIN_FIELDS_SUPPORTED = 0.5
"""Share of a structured reply's checkable fields that the passages must support."""
_MAX_PASSAGES = 3
"""Most passages of one structured reply; more would fill the prompt."""


class GoldFinder:
    """An inverted index over all chunks, built once, so that many replies can be looked up."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        """Index the content words of titles, headings and texts."""
        self._chunks = chunks
        self._rows_with: defaultdict[str, list[int]] = defaultdict(list)
        self._titles: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        for row, chunk in enumerate(chunks):
            self._titles[tuple(words(chunk.title))].append(row)
            for word in sorted(set(content_words(f"{chunk.title} {chunk.heading} {chunk.text}"))):
                self._rows_with[word].append(row)
        self._longest_title = max(map(len, self._titles), default=0)

    def find(self, reply: str, question: str = "") -> Chunk | None:
        """Return the chunk that supports the first of the reply's statements that any chunk supports, or None.

        Not only the first statement is tried: a greeting states something too. Chunks whose whole title occurs in
        question or reply are tried first, so that of two places with the same rule the one that was asked about is
        found. Any other chunk must contain every name of both. Statements that no chunk supports as a whole are
        tried by their clauses. Within each group, chunks are ranked by the rarity of
        the words they share with question and reply.
        """
        statements = [
            sentence for sentence in sentences(citations.strip_marks(reply)) if citations.is_factual(sentence)
        ]
        for by_clause in (False, True):
            for statement in statements:
                if chunk := self._supporting(statement, question, by_clause):
                    return chunk
        return None

    def find_all(self, reply: str, question: str = "") -> tuple[Chunk, ...]:
        """Return the chunks that support a reply, best first; () when none does.

        A structured reply (:func:`rag.grounding.fields.structured_fields`) is judged field by field: chunks of one
        document that together support at least :data:`MIN_FIELDS_SUPPORTED` of its checkable fields, as few as possible.
        Other replies are judged by their statements, as :meth:`find` does, and have one chunk.
        """
        fields = tuple(
            field for field in structured_fields(citations.strip_marks(reply)) if evidence.is_checkable(field)
        )
        if fields and (chunks := self._supporting_fields(fields, reply, question)):
            return chunks
        chunk = self.find(reply, question)
        return (chunk,) if chunk else ()

    def most_related(self, reply: str, question: str, most: int) -> tuple[Chunk, ...]:
        """Return the chunks that share the rarest words with reply and question, whether or not they support it."""
        return tuple(self._chunks[row] for row in self._ranked(reply, question)[:most])

    def _supporting_fields(self, fields: Sequence[Field], reply: str, question: str) -> tuple[Chunk, ...]:
        """Return chunks of one document that together support enough of the fields, the best first; () for none."""
        ranked = self._ranked(reply, question)
        named = self._named(f"{question} . {reply}")
        candidates = [row for row in ranked if row in named] + ranked[:_MAX_CANDIDATES]
        supported = {
            row: {n for n, field in enumerate(fields) if evidence.supports_field(field, self._chunks[row])}
            for row in dict.fromkeys(candidates)
        }
        first = max(supported, key=lambda row: (len(supported[row]), row in named), default=None)
        if first is None or not supported[first]:
            return ()
        chosen, known = [first], set(supported[first])
        of_document = [row for row in supported if self._chunks[row].doc == self._chunks[first].doc]
        while len(known) < len(fields) and len(chosen) < _MAX_PASSAGES:
            best = max(of_document, key=lambda row: len(supported[row] - known))
            if not supported[best] - known:
                break
            chosen.append(best)
            known |= supported[best]
        # a single field is as likely to be in another document by chance
        enough = len(known) >= max(MIN_FIELDS_SUPPORTED * len(fields), min(2, len(fields)))
        return tuple(self._chunks[row] for row in chosen) if enough else ()

    def _supporting(self, statement: str, question: str, by_clause: bool) -> Chunk | None:
        ranked = self._ranked(statement, question)
        named = self._named(f"{question} . {statement}")
        for row in sorted(named & set(ranked), key=ranked.index):
            if _supports(statement, self._chunks[row], by_clause):
                return self._chunks[row]
        names = proper_names(f"{question} {statement}")
        for row in ranked[:_MAX_CANDIDATES]:
            chunk = self._chunks[row]
            chunk_words = set(words(f"{chunk.title} {chunk.heading} {chunk.text}"))
            if names <= chunk_words and _supports(statement, chunk, by_clause):
                return chunk
        return None

    def _ranked(self, statement: str, question: str) -> list[int]:
        """Return the chunks that share a word with statement or question, by the summed rarity of the shared words."""
        weights: defaultdict[int, float] = defaultdict(float)
        for word in sorted({*content_words(statement), *content_words(question)}):
            rows = self._rows_with.get(word, [])
            # inverse document frequency: words of few chunks weigh more; both 1s keep it finite and positive
            rarity = math.log(1 + len(self._chunks) / (1 + len(rows)))
            for row in rows:
                weights[row] += rarity
        return sorted(weights, key=lambda row: (-weights[row], row))

    def _named(self, text: str) -> set[int]:
        """Return the chunks whose whole title occurs in the text, those with the longest titles only."""
        text_words = words(text)
        for size in range(self._longest_title, 0, -1):
            runs = {tuple(text_words[start : start + size]) for start in range(len(text_words) - size + 1)}
            rows = {row for run in sorted(runs) for row in self._titles.get(run, [])}
            if rows:
                return rows
        return set()


def _supports(statement: str, chunk: Chunk, by_clause: bool) -> bool:
    """Return whether a chunk supports a statement, or one of its clauses, or says it but for one word."""
    if not by_clause:
        near = evidence.nearest_support(statement, [chunk])
        # a restriction that an answer leaves out does not make it another fact
        return evidence.best_support(statement, [chunk]) is not None or (near is not None and near.limited)
    return (
        any(evidence.clause_supports(statement, [chunk]))
        or evidence.nearest_support(statement, [chunk]) is not None
    )
