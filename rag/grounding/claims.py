"""What of a sentence can be checked: its content words, numbers, dates, names and quotations, and what it denies."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from functools import lru_cache

from rag.text.dates import Date, extract_dates, without_dates
from rag.text.numbers import extract_numbers, polarity
from rag.text.words import STOP_WORDS, content_words, words

_FIGURE = re.compile(r"\d+(?:am|pm|st|nd|rd|th)?")
_LEAD = re.compile(r"\W*(?:yes|no|sorry|sure|unfortunately)\s*[,.;:!–—-]+\s*", re.I)
_NAME = re.compile(r"(?<=[\w,;:)] )[A-Z][\w'’-]+")
_FIRST = re.compile(r"\W*([A-Z][\w'’-]+) (?=[A-Z])")
_QUOTED = re.compile(r"“([^”]+)”|„([^“”]+)[“”]|«([^»]+)»|\"([^\"]+)\"")
_LEAST_QUOTED = 3
"""Words from which on quotation marks are taken for a quotation, and not for emphasis or a name."""
_CLAUSES = re.compile(r"[,;:]\s+|\s+[–—-]\s+(?!\d)|,?\s+(?:and|but|while|whereas|although|because|so|or)\s+")


@dataclass(frozen=True, slots=True)
class Claim:
    """The checkable parts of one sentence or clause."""

    words: frozenset[str]
    """Stemmed content words; numbers are compared by value, as ``numbers``."""
    numbers: frozenset[str]
    """Numbers and times that belong to no date."""
    dates: frozenset[Date]
    names: frozenset[str]
    """Stemmed words of names."""
    quotes: tuple[str, ...]
    """Quotations, as ``normal`` leaves them."""
    denies: bool

    @classmethod
    def of(cls, sentence: str) -> Claim:
        """Return what a sentence claims; recent sentences of answers and passages are remembered."""
        return _claim(sentence)

    @property
    def checkable(self) -> bool:
        """Whether it says enough to be looked up: two content words, or one with a number or a date."""
        return len(self.words) + bool(self.numbers or self.dates) > 1


@lru_cache(maxsize=4096)
def _claim(sentence: str) -> Claim:
    dated = without_dates(sentence)
    content = frozenset(word for word in content_words(dated) if not _FIGURE.fullmatch(word))
    return Claim(
        content,
        extract_numbers(dated),
        extract_dates(sentence),
        proper_names(dated),
        quotations(sentence),
        is_negated(sentence),
    )


def clause_claims(sentence: str) -> list[Claim]:
    """Return the sentence's clauses as claims of their own, each with the names of the whole; [] for a single one.

    A piece that says too little by itself belongs to the one before it.
    """
    pieces: list[str] = []
    at = 0
    for cut in [*(match.span() for match in _CLAUSES.finditer(sentence)), (len(sentence), len(sentence))]:
        piece = sentence[at : cut[0]]
        if pieces and not Claim.of(piece).checkable:
            pieces[-1] += f", {piece}"
        else:
            pieces.append(piece)
        at = cut[1]
    if len(pieces) > 1 and not Claim.of(pieces[0]).checkable:
        pieces[:2] = [f"{pieces[0]}, {pieces[1]}"]
    whole = proper_names(without_dates(sentence))
    return [replace(Claim.of(piece), names=whole) for piece in pieces] if len(pieces) > 1 else []


def proper_names(sentence: str) -> frozenset[str]:
    """Return the words of names, stemmed: capitalised inside the sentence, unless most of its words are."""
    found = [match.group() for match in _NAME.finditer(sentence)]
    if len(found) > len(sentence.split()) / 2:
        return frozenset()
    first = _FIRST.match(sentence)
    if first and first[1].lower() not in STOP_WORDS:
        found.append(first[1])
    return frozenset(word for name in found for word in words(name))


def quotations(sentence: str) -> tuple[str, ...]:
    """Return what the sentence puts into quotation marks, when it is long enough to be somebody's words."""
    said = (normalise_quotation(next(filter(None, match.groups()))) for match in _QUOTED.finditer(sentence))
    return tuple(quote for quote in said if len(quote.split()) >= _LEAST_QUOTED)


def normalise_quotation(text: str) -> str:
    """Return the text as quotations are compared: one spelling of letters, quotes and dashes, no outer punctuation."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = re.sub(r"[\"“”„«»‘’'`]", "'", re.sub("[‐‑‒–—−]", "-", plain))
    return " ".join(plain.split()).strip(" .,;:!?…'-")


def is_negated(text: str) -> bool:
    """Return whether the statement itself denies; a leading "No," answers the question, not the passage."""
    lead = _LEAD.match(text)
    return polarity(text[lead.end() if lead else 0 :] or text) == "no"
