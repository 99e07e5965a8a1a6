"""Citations attached by code: which passages support each sentence of an answer.

:func:`attach_citations` cites a whole answer, :class:`SentenceCiter` an answer sentence by sentence while it is
generated, and :func:`cite` returns only the citations. Support is decided by :mod:`rag.grounding.evidence`; a sentence
that no passage supports as a whole is tried clause by clause. Models of the size that tunewise tunes do not write
reliable citation marks themselves, so marks in the answer are removed and these are inserted.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import replace

from rag.grounding.evidence import Support, best_support, clause_supports, is_contradicted, nearest_support
from rag.sentences.claims import is_courtesy
from rag.sentences.pronouns import resolve_pronouns
from rag.text.numbers import extract_numbers
from rag.text.words import content_words, sentence_spans
from rag.types import Chunk, Citation, Hit

SUPPORTED, PARTLY, UNSUPPORTED = "supported", "partly", "unsupported"
_MAX_BEFORE = 4
"""Sentences of an answer in which the name for a pronoun is looked for, with its own."""
_MARK = re.compile(r"(?<!\s)\s*(?:\[\s*\d+(?:\s*[,;]\s*\d+)*\s*\]|【\s*\d[^】]*】)")


def strip_marks(text: str) -> str:
    """Return the text without ``[n]`` marks and without surrounding white space."""
    return remove_marks(text).strip()


def remove_marks(text: str) -> str:
    """Return the text without ``[n]`` marks."""
    return _MARK.sub("", text)


def marked_end(text: str, end: int) -> int:
    """Return the offset in ``text`` that becomes ``end`` in ``remove_marks(text)``, in front of a mark at that offset."""
    for mark in _MARK.finditer(text):
        if mark.start() >= end:
            break
        end += len(mark.group())
    return end


def supporting_passages(sentence: str, passages: Sequence[Chunk]) -> tuple[str, list[Support]]:
    """Return how far the passages support a sentence, and the supporting ones, each once.

    ``supported``: one passage supports all of it, or passages of one document support all its clauses. ``partly``: some
    clauses are supported, or all by passages of several documents, which need not be about the same thing, or all but
    for one word that stands where the passage has another; or the passage says it with a restriction that the sentence
    lacks ("with a pass", "only if", "except"). ``unsupported``: none is.
    """
    whole = best_support(sentence, passages)
    if whole:
        return SUPPORTED, [whole]
    supports = clause_supports(sentence, passages)
    by_position = {support.position: support for support in supports if support}
    if not by_position:
        near = nearest_support(sentence, passages)
        return (PARTLY, [near]) if near else (UNSUPPORTED, [])
    together = None not in supports and len({support.chunk.doc for support in by_position.values()}) == 1
    together = together and not is_contradicted(sentence, passages)
    return SUPPORTED if together else PARTLY, [by_position[position] for position in sorted(by_position)]


class SentenceCiter:
    """Cites an answer sentence by sentence, so that an answer can be cited while it is generated.

    Each sentence is compared with the passages once, also if the whole answer is cited after its parts. Questions
    ("Shall I ...?"), sentences that state nothing ("Let me know if you need more.") and ``formulas`` need no citation.
    """

    def __init__(self, hits: Sequence[Hit], formulas: Container[str] = ()) -> None:
        """Store the passages.

        Args:
            hits: the passages, which citations number from 1 in this order.
            formulas: sentences that need no citation.
        """
        self._hits = hits
        self._chunks = [hit.chunk for hit in hits]
        self._formulas = formulas
        self._supports: dict[str, tuple[str, list[Support]]] = {}
        self._sentences: list[str] = []
        self.text = ""
        """What was added so far, with marks."""
        self.citations: list[Citation] = []
        """Citations of what was added so far, with the offsets of their sentences in ``text``."""

    @property
    def compared(self) -> int:
        """Number of different sentences that were compared with the passages."""
        return len(self._supports)

    def add(self, text: str, after: str = "") -> str:
        """Append whole sentences without marks; return them with ``[n]`` after each supported one.

        Args:
            text: the sentences.
            after: what follows them and is added later; without it "2." at the end begins no item of a list.
        """
        before = len(self.text)
        position = 0
        for start, end in sentence_spans(text + after):
            if end > len(text):
                break
            sentence = text[start:end]
            self.text += text[position:start]
            span = (len(self.text), len(self.text) + len(sentence))
            self.text += sentence
            position = end
            self._sentences.append(sentence)
            if sentence.strip() not in self._formulas and is_factual(sentence):
                self._cite(sentence, span)
        self.text += text[position:]
        return self.text[before:]

    def whole(self, answer: str) -> tuple[str, tuple[Citation, ...]]:
        """Return a whole answer as :func:`attach_citations` does, reusing the comparisons made by :meth:`add`."""
        citer = SentenceCiter(self._hits, self._formulas)
        citer._supports = self._supports
        citer.add(strip_marks(answer))
        return citer.text, tuple(citer.citations)

    def _cite(self, sentence: str, span: tuple[int, int]) -> None:
        sentence = resolve_pronouns(self._sentences[-_MAX_BEFORE:])[-1]
        if sentence not in self._supports:
            self._supports[sentence] = supporting_passages(sentence, self._chunks)
        level, supports = self._supports[sentence]
        cited = [_citation(support, self._hits[support.position], level, span) for support in supports]
        self.citations += cited or [_uncited(span)]
        self.text += "".join(f" [{support.position + 1}]" for support in supports)


def attach_citations(
    answer: str, hits: Sequence[Hit], formulas: Container[str] = ()
) -> tuple[str, tuple[Citation, ...]]:
    """Return the answer with ``[n]`` after each supported sentence, and the citations of each factual one.

    ``n`` is the hit's position from 1. A sentence without support gets no mark and a citation with n = 0. The offsets of a
    citation refer to the returned answer. See :class:`SentenceCiter` for what needs no citation.
    """
    return SentenceCiter(hits, formulas).whole(answer)


def cite(text: str, hits: Sequence[Hit]) -> list[Citation]:
    """Return the citations of a text: for each factual sentence the passages that support it.

    Args:
        text: an answer; ``[n]`` marks in it are ignored.
        hits: the passages it may rest on, as :meth:`rag.Index.search` returns them.

    Returns:
        One citation for each supporting passage of a sentence, with its number ``n`` (the hit's position from 1), its
        place in the source document and an exact quote. ``support`` is "supported", "partly" (some clauses, all but for
        one word, or without a restriction of the passage, then ``limited``) or "unsupported", and ``supported`` whether it
        is the first. A sentence that no passage supports has one citation with n = 0 and ``supported`` False.
        ``text[answer_start:answer_end]`` is the sentence.
    """
    marked, citations = attach_citations(text, hits)
    unmarked = remove_marks(text)
    leading = len(unmarked) - len(unmarked.lstrip())

    def in_text(offset: int) -> int:
        """Return the offset in ``text`` of an offset in the marked answer."""
        return marked_end(text, leading + len(remove_marks(marked[:offset])))

    return [
        replace(
            citation,
            answer_start=in_text(citation.answer_start),
            answer_end=in_text(citation.answer_end),
        )
        for citation in citations
    ]


def is_factual(sentence: str) -> bool:
    """Return whether a sentence states something that could be checked: no question, no greeting, and with some content."""
    if sentence.rstrip().endswith("?") or is_courtesy(sentence):
        return False
    return bool(content_words(sentence) or extract_numbers(sentence))


def _citation(support: Support, hit: Hit, level: str, span: tuple[int, int]) -> Citation:
    """Return the citation of one supporting sentence, with its place in the source and in the answer."""
    chunk = support.chunk
    # only a text that is a slice of the source has exact offsets and lines; else the chunk's own are given
    exact = len(chunk.text) == chunk.end - chunk.start
    start, end = (
        (chunk.start + support.start, chunk.start + support.end) if exact else (chunk.start, chunk.end)
    )
    first = chunk.line_start + chunk.text.count("\n", 0, support.start) if exact else chunk.line_start
    last = first + support.quote.count("\n") if exact else chunk.line_end
    return Citation(
        n=support.position + 1,
        doc=chunk.doc,
        title=chunk.title,
        page=chunk.page,
        line_start=first,
        line_end=last,
        char_start=start,
        char_end=end,
        quote=support.quote,
        supported=level == SUPPORTED,
        date=hit.date,
        valid_until=hit.valid_until,
        expired=hit.expired,
        support=level,
        limited=support.limited,
        answer_start=span[0],
        answer_end=span[1],
    )


def _uncited(span: tuple[int, int]) -> Citation:
    return Citation(supported=False, support=UNSUPPORTED, answer_start=span[0], answer_end=span[1])
