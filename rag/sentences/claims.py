"""The checkable parts of a sentence: content words, numbers, dates, names and quotations, and whether it is negated."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from rag.quantities.comparing import Quantity, unbounded
from rag.quantities.labels import find_labels
from rag.quantities.reading import read_quantities
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
    r"(?:hello|hi|hey|dear|greetings|welcome|good (?:day|morning|afternoon|evening)|guten (?:tag|morgen|abend)"
    r"|hallo|hola"
    r"|buen[oa]s (?:d[ií]as|tardes|noches))"
    r"(?: (?:there|back|again|all|everyone))?"
    r"(?:,? (?:from|to|at|and welcome to)(?: ?[\w'’&-]+){1,5}|,? (?-i:[A-Z])[\w'’-]+)?"
    r"|(?:many )?thank(?:s| you)(?: (?:so|very) much)?(?: again)?"
    r"(?: for (?:asking|your \w+(?: \w+)?|getting in touch|reaching out|\w+ing (?:with |to |at |by )?(?:me|us"
    r"|our \w+)))?"
    r"|happy \w+ing(?: ahead)?|enjoy (?:your|the) (?:stay|visit|trip|day|meal|journey|ride|evening|weekend|show|tour)"
    r"|have (?:a|an) (?:\w+ )?(?:day|evening|weekend|trip|stay|journey|time|week|one)(?: ahead)?"
    r"|safe travels?|good luck|good ?-?bye|bye|cheers"
    r"|take care|(?:see|talk to) you (?:soon|there|later|then)|you(?:['’]re"
    r"| are) (?:very )?welcome(?: to ask[^.;:]{0,30})?"
    r"|(?:my|our) pleasure"
    r"|(?:best|kind|warm)(?:est)? (?:regards|wishes)|yours (?:sincerely|faithfully|truly)|sincerely"
    r"|mit freundlichen gr[uü](?:ß|ss)en"
    r"|viel (?:spa(?:ß|ss)|erfolg)|gute reise|saludos(?: cordiales)?|buen viaje"
    r"|(?:please )?(?:just )?(?:let (?:me|us) know|feel free to (?:ask|contact|call|write|reach|message)"
    r"|(?:do not|don['’]t) hesitate to (?:ask|contact|call|write|reach|message)"
    r"|ask (?:me|us|away))\b[^.;:]{0,70}"
    r"|(?:i|we) (?:hope|trust) (?:this|that|it) helps?(?: you)?|hope (?:this|that|it) helps"
    r"|(?:i|we)(?:['’]m|['’]re| am| are) (?:always )?"
    r"(?:happy|glad|here) to help(?: you)?(?: further)?|(?:i|we) look forward to [^.;:]{0,50}"
    r")\W*",
    re.I,
)
"""A whole sentence of greeting, thanks, wishes or an offer of help."""
_MIN_QUOTED_WORDS = 3
"""Fewer words in quotation marks are taken for emphasis or a name, not for a quotation."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The checkable parts of one sentence or clause."""

    words: frozenset[str]
    """Stemmed content words; numbers are compared by value, as ``numbers``."""
    numbers: frozenset[str]
    """Numbers and times that are not part of a date."""
    dates: frozenset[Date]
    quantities: tuple[Quantity, ...]
    """Its amounts and times, without bounds."""
    labels: frozenset[str]
    """Names that end in a number: "line12"."""
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


@lru_cache(maxsize=4096)
def _claim(sentence: str) -> Claim:
    dated = without_dates(sentence)
    content = frozenset(word for word in content_words(dated) if not _FIGURE.fullmatch(word))
    return Claim(
        content,
        extract_numbers(dated),
        extract_dates(sentence),
        tuple(unbounded(q) for q in read_quantities(sentence) if q.date is None),
        find_labels(sentence),
        proper_names(dated),
        quotations(sentence),
        is_negated(sentence),
    )


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
