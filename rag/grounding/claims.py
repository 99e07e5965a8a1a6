"""The checkable parts of a sentence: content words, numbers, dates, names and quotations, and whether it is negated."""

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
_COURTESY = re.compile(
    r"\W*(?:"
    r"(?:hello|hi|hey|dear|greetings|welcome|good (?:day|morning|afternoon|evening)|guten (?:tag|morgen|abend)|hallo|hola"
    r"|buen[oa]s (?:d[ií]as|tardes|noches))(?: (?:there|back|again|all|everyone))?"
    r"(?:,? (?:from|to|at|and welcome to)(?: ?[\w'’&-]+){1,5}|,? (?-i:[A-Z])[\w'’-]+)?"
    r"|(?:many )?thank(?:s| you)(?: (?:so|very) much)?(?: again)?(?: for (?:asking|your \w+(?: \w+)?|getting in touch|reaching out))?"
    r"|happy \w+ing(?: ahead)?|enjoy (?:your|the) (?:stay|visit|trip|day|meal|journey|ride|evening|weekend|show|tour)"
    r"|have (?:a|an) (?:\w+ )?(?:day|evening|weekend|trip|stay|journey|time|week|one)(?: ahead)?|safe travels?|good luck|cheers"
    r"|take care|(?:see|talk to) you (?:soon|there|later|then)|you['’]re (?:very )?welcome|(?:my|our) pleasure"
    r"|(?:best|kind|warm)(?:est)? (?:regards|wishes)|yours (?:sincerely|faithfully|truly)|sincerely|mit freundlichen gr[uü](?:ß|ss)en"
    r"|viel (?:spa(?:ß|ss)|erfolg)|gute reise|saludos(?: cordiales)?|buen viaje"
    r"|(?:please )?(?:just )?(?:let (?:me|us) know|feel free to (?:ask|contact|call|write|reach|message)"
    r"|(?:do not|don['’]t) hesitate to (?:ask|contact|call|write|reach|message)|ask (?:me|us|away))\b[^.;:]{0,70}"
    r"|(?:i|we) (?:hope|trust) (?:this|that|it) helps?(?: you)?|hope (?:this|that|it) helps|(?:i|we)(?:['’]m|['’]re| am| are) (?:always )?"
    r"(?:happy|glad|here) to help(?: you)?(?: further)?|(?:i|we) look forward to [^.;:]{0,50}"
    r")\W*",
    re.I,
)
"""A whole sentence of greeting, thanks, wishes or an offer of help."""
_MIN_QUOTED_WORDS = 3
"""Fewer words in quotation marks are taken for emphasis or a name, not for a quotation."""
_CLAUSES = re.compile(r"[,;:]\s+|\s+[–—-]\s+(?!\d)|,?\s+(?:and|but|while|whereas|although|because|so|or)\s+")


@dataclass(frozen=True, slots=True)
class Claim:
    """The checkable parts of one sentence or clause."""

    words: frozenset[str]
    """Stemmed content words; numbers are compared by value, as ``numbers``."""
    numbers: frozenset[str]
    """Numbers and times that are not part of a date."""
    dates: frozenset[Date]
    names: frozenset[str]
    """Stemmed words of names."""
    quotes: tuple[str, ...]
    """Quotations, as :func:`normalise_quotation` returns them."""
    denies: bool
    """Whether the statement is negated."""

    @classmethod
    def of(cls, sentence: str) -> Claim:
        """Return the claim of a sentence; recent ones are cached, since sentences of answers and passages recur."""
        return _claim(sentence)

    @property
    def checkable(self) -> bool:
        """Whether there is enough to compare: two content words, or one with a number or a date."""
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
    """Return the sentence's clauses as claims of their own, each with the names of the whole; [] for a single clause.

    A clause that says too little by itself is joined to the one before it.
    """
    pieces: list[str] = []
    start = 0
    for cut in [*(match.span() for match in _CLAUSES.finditer(sentence)), (len(sentence), len(sentence))]:
        piece = sentence[start : cut[0]]
        if pieces and not Claim.of(piece).checkable:
            pieces[-1] += f", {piece}"
        else:
            pieces.append(piece)
        start = cut[1]
    if len(pieces) > 1 and not Claim.of(pieces[0]).checkable:
        pieces[:2] = [f"{pieces[0]}, {pieces[1]}"]
    whole = proper_names(without_dates(sentence))
    return [replace(Claim.of(piece), names=whole) for piece in pieces] if len(pieces) > 1 else []


def proper_names(sentence: str) -> frozenset[str]:
    """Return the stemmed words of names: capitalised inside the sentence, unless most of its words are (a heading)."""
    names = [match.group() for match in _NAME.finditer(sentence)]
    if len(names) > len(sentence.split()) / 2:
        return frozenset()
    first = _FIRST.match(sentence)
    if first and first[1].lower() not in STOP_WORDS:
        names.append(first[1])
    return frozenset(word for name in names for word in words(name))


def quotations(sentence: str) -> tuple[str, ...]:
    """Return the quotations of a sentence: what is in quotation marks and long enough not to be emphasis."""
    quotes = (normalise_quotation(next(filter(None, match.groups()))) for match in _QUOTED.finditer(sentence))
    return tuple(quote for quote in quotes if len(quote.split()) >= _MIN_QUOTED_WORDS)


def normalise_quotation(text: str) -> str:
    """Return the text as quotations are compared: one form of letters, quotes and dashes, no outer punctuation."""
    # NFKC maps ligatures, full-width letters and non-breaking spaces to the plain characters
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = re.sub(r"[\"“”„«»‘’'`]", "'", re.sub("[‐‑‒–—−]", "-", plain))
    return " ".join(plain.split()).strip(" .,;:!?…'-")


def is_courtesy(sentence: str) -> bool:
    """Return whether a sentence only greets, thanks, wishes or offers help, so that there is nothing to check in it."""
    return _COURTESY.fullmatch(sentence.strip()) is not None and not extract_numbers(sentence)


def is_negated(text: str) -> bool:
    """Return whether the statement itself is negated; a leading "No," answers the question and does not count."""
    lead = _LEAD.match(text)
    return polarity(text[lead.end() if lead else 0 :] or text) == "no"
