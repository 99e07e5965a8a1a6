"""Citations attached by code: which passages bear out a sentence, if any do.

A sentence that no passage supports as a whole (``rag.evidence``) is tried clause by clause. Models of the size that
tunewise tunes do not write reliable marks themselves, so their own are stripped and these are put in.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from rag import claim
from rag.evidence import Support, mentions, support
from rag.facts import numbers
from rag.types import Chunk, Citation, Hit
from rag.words import content_words, sentence_spans

__all__ = ["Support", "attach", "grounds", "states_something", "strip_marks", "support"]

SUPPORTED, PARTLY, UNSUPPORTED = "supported", "partly", "unsupported"
_MARK = re.compile(r"(?<!\s)\s*(?:\[\s*\d+(?:\s*[,;]\s*\d+)*\s*\]|【\s*\d[^】]*】)")


def strip_marks(text: str) -> str:
    """Return the text without ``[n]`` marks."""
    return _MARK.sub("", text).strip()


def grounds(sentence: str, passages: Sequence[Chunk]) -> tuple[str, list[Support]]:
    """Return how far the passages bear a sentence out, and those that do, each once.

    supported: one passage holds all of it and most words of each clause, or passages of one document hold all its
    clauses. partly: some clauses are held, or all by passages of several documents, which need not speak of one thing.
    """
    parts = claim.clauses(sentence)
    whole = support(sentence, passages)
    if whole and all(mentions(part, whole.chunk) for part in parts):
        return SUPPORTED, [whole]
    each = [support(part, passages) for part in parts]
    held = {found.position: found for found in each if found}
    if not held:
        return (PARTLY, [whole]) if whole else (UNSUPPORTED, [])
    together = None not in each and len({found.chunk.doc for found in held.values()}) == 1
    return SUPPORTED if together else PARTLY, [held[position] for position in sorted(held)]


def attach(
    answer: str, hits: Sequence[Hit], formulas: Collection[str] = ()
) -> tuple[str, tuple[Citation, ...]]:
    """Return the answer with ``[n]`` after each sentence that is borne out, and the citations of each factual one.

    ``n`` is the hit's position from 1. A sentence without support gets no mark and a citation with n 0. Each citation
    says where its sentence stands in the returned answer. Questions ("Shall I ...?"), sentences that state nothing
    and ``formulas``, such as a house's greeting, need no citation.
    """
    text = strip_marks(answer)
    chunks = [hit.chunk for hit in hits]
    marked, at = "", 0
    citations: list[Citation] = []
    for start, end in sentence_spans(text):
        marked += text[at:start]
        place, at = (len(marked), len(marked) + end - start), end
        marked += text[start:end]
        if text[start:end].strip() in formulas or not states_something(text[start:end]):
            continue
        level, found = grounds(text[start:end], chunks)
        citations += [_citation(one, hits[one.position], level, place) for one in found] or [_none(place)]
        marked += "".join(f" [{one.position + 1}]" for one in found)
    return marked + text[at:], tuple(citations)


def states_something(sentence: str) -> bool:
    """Return whether a sentence makes a statement that could be checked: no question, and some content."""
    return not sentence.rstrip().endswith("?") and bool(content_words(sentence) or numbers(sentence))


def _citation(found: Support, hit: Hit, level: str, place: tuple[int, int]) -> Citation:
    chunk = found.chunk
    exact = len(chunk.text) == chunk.end - chunk.start
    start, end = (chunk.start + found.start, chunk.start + found.end) if exact else (chunk.start, chunk.end)
    first = chunk.line_start + chunk.text.count("\n", 0, found.start) if exact else chunk.line_start
    last = first + found.quote.count("\n") if exact else chunk.line_end
    return Citation(
        found.position + 1, chunk.doc, chunk.title, chunk.page, first, last, start, end, found.quote,
        level == SUPPORTED, hit.date, hit.valid_until, hit.expired, level, *place,
    )  # fmt: skip


def _none(place: tuple[int, int]) -> Citation:
    return Citation(0, "", "", None, 0, 0, 0, 0, "", False, "", "", False, UNSUPPORTED, *place)
