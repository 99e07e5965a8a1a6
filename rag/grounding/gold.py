"""Find the chunk of a whole corpus that supports a reply: the gold passage of a training row."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from rag.grounding import citations, evidence
from rag.grounding.claims import Claim, proper_names
from rag.text.words import content_words, sentences, words
from rag.types import Chunk

_LOOKED_AT = 30
"""Chunks that share the rarest words with reply and question; only these are read closely."""


class GoldFinder:
    """The words of all chunks, indexed once, so that many replies can be looked up."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        """Index the content words of titles, headings and texts."""
        self._chunks = chunks
        self._holding: defaultdict[str, list[int]] = defaultdict(list)
        self._titles: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        for row, chunk in enumerate(chunks):
            self._titles[tuple(words(chunk.title))].append(row)
            for word in sorted(set(content_words(f"{chunk.title} {chunk.heading} {chunk.text}"))):
                self._holding[word].append(row)
        self._longest = max(map(len, self._titles), default=0)

    def find(self, reply: str, question: str = "") -> Chunk | None:
        """Return the chunk that supports the first of the reply's statements that any chunk supports, or None.

        Not of the first statement alone: a greeting states something too. Chunks whose whole title is named in
        question or reply are asked first, so that of two places with the same rule the one that was asked about is
        found. Another chunk must hold every name of both. Within each group, chunks are ranked by the rarity of the
        words they share with question and reply.
        """
        said = (s for s in sentences(citations.strip_marks(reply)) if citations.is_factual(s))
        return next((chunk for statement in said if (chunk := self._of(statement, question))), None)

    def _of(self, statement: str, question: str) -> Chunk | None:
        ranked = self._ranked(statement, question)
        named = self._named(f"{question} . {statement}")
        made = Claim.of(statement)
        for row in sorted(named & set(ranked), key=ranked.index):
            if evidence.best_support(made, [self._chunks[row]]):
                return self._chunks[row]
        wanted = proper_names(f"{question} {statement}")
        for row in ranked[:_LOOKED_AT]:
            chunk = self._chunks[row]
            there = set(words(f"{chunk.title} {chunk.heading} {chunk.text}"))
            if wanted <= there and evidence.best_support(made, [chunk]):
                return chunk
        return None

    def _ranked(self, statement: str, question: str) -> list[int]:
        weights: defaultdict[int, float] = defaultdict(float)
        for word in sorted({*content_words(statement), *content_words(question)}):
            holding = self._holding.get(word, [])
            rarity = math.log(1 + len(self._chunks) / (1 + len(holding)))
            for row in holding:
                weights[row] += rarity
        return sorted(weights, key=lambda row: (-weights[row], row))

    def _named(self, text: str) -> set[int]:
        """Return the chunks whose whole title occurs in the text, the longest titles only."""
        said = words(text)
        for size in range(self._longest, 0, -1):
            runs = {tuple(said[at : at + size]) for at in range(len(said) - size + 1)}
            rows = {row for run in sorted(runs) for row in self._titles.get(run, [])}
            if rows:
                return rows
        return set()
