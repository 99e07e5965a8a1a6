"""Citations attached by code: which passage supports a sentence, if any does.

A passage supports a sentence when every number and name of the sentence stands in it, when neither denies
what the other says, and when enough of the sentence's content words are there, also of those that are not in
the passage's title. Models of the size that tunewise tunes do not write reliable marks themselves, so their
own are stripped and these are put in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rag.facts import numbers, polarity
from rag.types import Chunk, Citation, Hit
from rag.words import content_words, sentence_spans, words

ENOUGH = 0.5
"""Share of a sentence's content words that its passage must hold. On 1,500 human replies to questions about
places this accepts 72 % of the true passages and 3 % of other facts of the same place."""
_MARK = re.compile(r"\s*(?:\[\s*\d+(?:\s*[,;]\s*\d+)*\s*\]|【\s*\d+[^】]*】)")
_FIGURE = re.compile(r"\d+(?:am|pm|st|nd|rd|th)?")
_LEAD = re.compile(r"\W*(?:yes|no|sorry|sure|unfortunately)\s*[,.;:!–—-]+\s*", re.I)
_OPPOSITES = (
    ("open", "clos"), ("before", "after"), ("arriv", "depart"), ("inside", "outside"), ("rise", "fall"),
    ("first", "last"), ("cheap", "expensive"), ("allow", "forbid"), ("allow", "ban"), ("summer", "winter"),
)  # fmt: skip
"""Stems of words that turn a statement round without a "not"."""
_NAME = re.compile(r"(?<=[\w,;:)] )[A-Z][\w'’-]+")


@dataclass(frozen=True, slots=True)
class Support:
    """The best supporting passage and the place in it that bears the sentence out."""

    chunk: Chunk
    position: int
    """The passage's position among those given, from 0."""
    start: int
    end: int
    """The quote is ``chunk.text[start:end]``."""
    score: float
    """Share of the sentence's content words in the passage, then in the quote: 0 to 2."""

    @property
    def quote(self) -> str:
        """The supporting sentence, an exact substring of the chunk."""
        return self.chunk.text[self.start : self.end]


def strip_marks(text: str) -> str:
    """Return the text without ``[n]`` marks."""
    return _MARK.sub("", text).strip()


def support(sentence: str, passages: Sequence[Chunk]) -> Support | None:
    """Return the passage that supports a sentence best, or None; of equals the first."""
    best: Support | None = None
    for position, chunk in enumerate(passages):
        found = _support(sentence, chunk, position)
        if found and (best is None or found.score > best.score):
            best = found
    return best


def attach(answer: str, hits: Sequence[Hit]) -> tuple[str, tuple[Citation, ...]]:
    """Return the answer with ``[n]`` after each supported sentence, and a citation for each factual sentence.

    ``n`` is the hit's position from 1. A sentence without support gets no mark and a citation with n 0 and
    ``supported`` false. Questions ("Shall I ...?") and sentences that state nothing need no citation.
    """
    text = strip_marks(answer)
    chunks = [hit.chunk for hit in hits]
    marked, at = "", 0
    citations = []
    for start, end in sentence_spans(text):
        sentence = text[start:end]
        marked += text[at:end]
        at = end
        if not states_something(sentence):
            continue
        found = support(sentence, chunks)
        citations.append(_citation(found) if found else _UNSUPPORTED)
        marked += f" [{found.position + 1}]" if found else ""
    return marked + text[at:], tuple(citations)


def states_something(sentence: str) -> bool:
    """Return whether a sentence makes a statement that could be checked: no question, and some content."""
    return not sentence.rstrip().endswith("?") and bool(content_words(sentence) or numbers(sentence))


def names(sentence: str) -> set[str]:
    """Return the words of names, stemmed: capitalised inside the sentence, unless most of its words are."""
    found = [match.group() for match in _NAME.finditer(sentence)]
    return (
        {word for name in found for word in words(name)} if len(found) <= len(sentence.split()) / 2 else set()
    )


_UNSUPPORTED = Citation(0, "", "", None, 0, 0, 0, 0, "", supported=False)


def _support(sentence: str, chunk: Chunk, position: int) -> Support | None:
    claim, wanted = _content(sentence), numbers(sentence)
    whole = f"{chunk.title}. {chunk.heading}. {chunk.text}"
    counted = numbers(whole)
    there = set(words(whole)) | counted
    if not (claim or wanted) or not wanted <= counted or not names(sentence) <= there:
        return None
    covered = _share(claim | wanted, there)
    beyond = (claim | wanted) - set(words(chunk.title))
    if covered < ENOUGH or _share(beyond, there) < ENOUGH:
        return None
    quote = _quote(claim | wanted, _denies(sentence), chunk)
    if quote is None:
        return None
    start, end, share = quote
    return Support(chunk, position, start, end, covered + share)


def _quote(claim: set[str], denies: bool, chunk: Chunk) -> tuple[int, int, float] | None:
    """Return the sentence of the chunk that says most of the claim; None when that one contradicts it."""
    best: tuple[float, bool, int, int] | None = None
    for start, end in sentence_spans(chunk.text):
        piece = chunk.text[start:end]
        said = set(words(piece)) | numbers(piece)
        agrees = _denies(piece) == denies and not _opposed(claim, said)
        found = _share(claim, said), agrees, -start, end
        best = max(best, found) if best else found
    if best is None or best[0] == 0 or not best[1]:
        return None
    return -best[2], best[3], best[0]


def _opposed(claim: set[str], said: set[str]) -> bool:
    """Return whether a piece holds the opposite of a word of the claim, and not the word itself."""
    pairs = (*_OPPOSITES, *((b, a) for a, b in _OPPOSITES))
    return any(a in claim and a not in said and b in said for a, b in pairs)


def _denies(text: str) -> bool:
    """Return whether the statement itself denies; a leading "No," answers the question, not the passage."""
    lead = _LEAD.match(text)
    return polarity(text[lead.end() if lead else 0 :] or text) == "no"


def _content(sentence: str) -> set[str]:
    """Return the content words that are no numbers, which are compared by value."""
    return {word for word in content_words(sentence) if not _FIGURE.fullmatch(word)}


def _share(claim: set[str], there: set[str]) -> float:
    return len(claim & there) / len(claim) if claim else 1.0


def _citation(found: Support) -> Citation:
    chunk = found.chunk
    exact = len(chunk.text) == chunk.end - chunk.start
    start, end = (chunk.start + found.start, chunk.start + found.end) if exact else (chunk.start, chunk.end)
    first = chunk.line_start + chunk.text.count("\n", 0, found.start) if exact else chunk.line_start
    last = first + found.quote.count("\n") if exact else chunk.line_end
    return Citation(
        found.position + 1, chunk.doc, chunk.title, chunk.page, first, last, start, end, found.quote
    )
