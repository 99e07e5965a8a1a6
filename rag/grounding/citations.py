"""Citations attached by code: which passages bear out a sentence, if any do.

A sentence that no passage supports as a whole (``rag.grounding.evidence``) is tried clause by clause. Models of the size that
tunewise tunes do not write reliable marks themselves, so their own are stripped and these are put in.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from rag.grounding import claims
from rag.grounding.evidence import Support, best_support, mentions_claim
from rag.text.numbers import extract_numbers
from rag.text.words import content_words, sentence_spans
from rag.types import Chunk, Citation, Hit

SUPPORTED, PARTLY, UNSUPPORTED = "supported", "partly", "unsupported"
_MARK = re.compile(r"(?<!\s)\s*(?:\[\s*\d+(?:\s*[,;]\s*\d+)*\s*\]|【\s*\d[^】]*】)")


def strip_marks(text: str) -> str:
    """Return the text without ``[n]`` marks and without space around it."""
    return remove_marks(text).strip()


def remove_marks(text: str) -> str:
    """Return the text without ``[n]`` marks."""
    return _MARK.sub("", text)


def marked_end(text: str, end: int) -> int:
    """Return the offset in ``text`` that becomes ``end`` in ``without_marks(text)``; a mark right there stays behind it."""
    for mark in _MARK.finditer(text):
        if mark.start() >= end:
            break
        end += len(mark.group())
    return end


def supporting_passages(sentence: str, passages: Sequence[Chunk]) -> tuple[str, list[Support]]:
    """Return how far the passages bear a sentence out, and those that do, each once.

    supported: one passage holds all of it and most words of each clause, or passages of one document hold all its
    clauses. partly: some clauses are held, or all by passages of several documents, which need not speak of one thing.
    """
    parts = claims.clause_claims(sentence)
    whole = best_support(sentence, passages)
    if whole and all(mentions_claim(part, whole.chunk) for part in parts):
        return SUPPORTED, [whole]
    each = [best_support(part, passages) for part in parts]
    held = {found.position: found for found in each if found}
    if not held:
        return (PARTLY, [whole]) if whole else (UNSUPPORTED, [])
    together = None not in each and len({found.chunk.doc for found in held.values()}) == 1
    return SUPPORTED if together else PARTLY, [held[position] for position in sorted(held)]


class SentenceCiter:
    """Cites an answer sentence by sentence, so that an answer can be cited while it is generated.

    Each sentence is compared with the passages once, also where the whole answer is cited after its parts. Questions
    ("Shall I ...?"), sentences that state nothing and ``formulas``, such as a greeting, need no citation.
    """

    def __init__(self, hits: Sequence[Hit], formulas: Collection[str] = ()) -> None:
        """Take the passages, numbered from 1 as citations number them, and the sentences to leave alone."""
        self._hits = hits
        self._chunks = [hit.chunk for hit in hits]
        self._formulas = formulas
        self._grounds: dict[str, tuple[str, list[Support]]] = {}
        self.text = ""
        """What was added so far, with marks."""
        self.citations: list[Citation] = []
        """Of what was added so far; each says where its sentence is in ``text``."""

    @property
    def compared(self) -> int:
        """How many sentences were compared with the passages."""
        return len(self._grounds)

    def add(self, text: str) -> str:
        """Append whole sentences that have no marks; return them with ``[n]`` after each that is supported."""
        before, at = len(self.text), 0
        for start, end in sentence_spans(text):
            sentence = text[start:end]
            self.text += text[at:start]
            span = (len(self.text), len(self.text) + len(sentence))
            self.text += sentence
            at = end
            if sentence.strip() not in self._formulas and is_factual(sentence):
                self._cite(sentence, span)
        self.text += text[at:]
        return self.text[before:]

    def whole(self, answer: str) -> tuple[str, tuple[Citation, ...]]:
        """Return a whole answer as :func:`attach` does; what was added before is only saved work."""
        citer = SentenceCiter(self._hits, self._formulas)
        citer._grounds = self._grounds
        citer.add(strip_marks(answer))
        return citer.text, tuple(citer.citations)

    def _cite(self, sentence: str, span: tuple[int, int]) -> None:
        if sentence not in self._grounds:
            self._grounds[sentence] = supporting_passages(sentence, self._chunks)
        level, found = self._grounds[sentence]
        cited = [_citation(one, self._hits[one.position], level, span) for one in found]
        self.citations += cited or [_none(span)]
        self.text += "".join(f" [{one.position + 1}]" for one in found)


def attach_citations(
    answer: str, hits: Sequence[Hit], formulas: Collection[str] = ()
) -> tuple[str, tuple[Citation, ...]]:
    """Return the answer with ``[n]`` after each sentence that is borne out, and the citations of each factual one.

    ``n`` is the hit's position from 1. A sentence without support gets no mark and a citation with n 0. Each citation
    says where its sentence stands in the returned answer. See :class:`Citer` for what needs no citation.
    """
    return SentenceCiter(hits, formulas).whole(answer)


def is_factual(sentence: str) -> bool:
    """Return whether a sentence makes a statement that could be checked: no question, and some content."""
    return not sentence.rstrip().endswith("?") and bool(content_words(sentence) or extract_numbers(sentence))


def _citation(found: Support, hit: Hit, level: str, place: tuple[int, int]) -> Citation:
    chunk = found.chunk
    exact = len(chunk.text) == chunk.end - chunk.start
    start, end = (chunk.start + found.start, chunk.start + found.end) if exact else (chunk.start, chunk.end)
    first = chunk.line_start + chunk.text.count("\n", 0, found.start) if exact else chunk.line_start
    last = first + found.quote.count("\n") if exact else chunk.line_end
    return Citation(
        found.position + 1,
        chunk.doc,
        chunk.title,
        chunk.page,
        first,
        last,
        start,
        end,
        found.quote,
        level == SUPPORTED,
        hit.date,
        hit.valid_until,
        hit.expired,
        level,
        *place,
    )


def _none(place: tuple[int, int]) -> Citation:
    return Citation(0, "", "", None, 0, 0, 0, 0, "", False, "", "", False, UNSUPPORTED, *place)
