"""Whether a passage bears out a structured reply (a card, JSON, a table) or a piece of code, value by value."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag.grounding.evidence import supports_field
from rag.grounding.fields import Field
from rag.grounding.gold import MIN_FIELDS_SUPPORTED
from rag.quantities.reading import read_quantities
from rag.sentences.clauses import is_covered
from rag.sentences.statements import read_statement
from rag.text.words import sentence_spans, words
from runners.synthesis.passage_reading import (
    CODE_MARK,
    CODE_QUOTES,
    MAX_BEHIND,
    QUOTED,
    PassageReading,
    PassageSentence,
    ReplySupport,
    asked_elsewhere,
    is_verbatim,
    same_sense,
    strange_names,
)

_MIN_QUOTED = 0.6
"""Share of the content words of a value that one sentence has, from which the value is a quotation of it."""
_MIN_QUOTED_WORDS = 3
"""Content words that such a quotation has at least."""

_MIN_ITEMS = 2
"""Items from which names with values are a list."""
_LABELLED = re.compile(
    r"(?:^|[,;|(:.\n])\s*(?P<label>[^\W\d][\w+./'’-]*(?: [^\W\d][\w+./'’-]*){0,2}?)[ :=]+"
    r"(?P<value>\d\w*(?:\.\w+)*|yes|no|none|never)(?=\s*(?:[,;|)\n]|\.?\s*$))",
    re.I,
)
"""An item of a list of names with their values: "Monday 9, Tuesday 10"."""


def check_fields(fields: Sequence[Field], given: PassageReading) -> ReplySupport:
    """Return whether the passage has every value of a structured reply, and one where the question points.

    A value in words may be derived (a priority, a yes), at most half of them; a number, a command or an address may not,
    and neither may a quotation be changed.

    Args:
        fields: the values of the reply, two or more.
        given: the passage and the question.
    """
    if name := asked_elsewhere(given):
        return ReplySupport("", f"the question is about {name}, which the passage does not name")
    pieces = _pieces(given.passage.text)
    missing = [field for field in fields if not _has_value(field, given, pieces)]
    exact = [field for field in missing if CODE_MARK.search(field.value) or read_quantities(field.value)]
    if exact or len(missing) > (1 - MIN_FIELDS_SUPPORTED) * len(fields):
        return ReplySupport("", f"the passage does not have {(exact or missing)[0].value!r}")
    if changed := next((field for field in missing if _is_changed(field.value, given)), None):
        return ReplySupport("", f"the passage has another value than {changed.value!r}")
    best = max(sentence.relevance for sentence in given.sentences)
    own = [place.relevance for field in fields if (place := _place(field.value, given)) is not None]
    if own and best - max(own) > MAX_BEHIND:
        return ReplySupport("", "the values of the reply are in another place than the one asked about")
    return ReplySupport(QUOTED, spans=((0, len(given.passage.text)),))


def _pieces(text: str) -> list[str]:
    """Return the words of a text in order, letter for letter, without the marks around them."""
    return [piece for word in text.split() if (piece := word.strip(CODE_QUOTES))]


def _has_value(field: Field, given: PassageReading, pieces: Sequence[str]) -> bool:
    """Return whether a passage has a field's value.

    Of a command or an address each piece must be there letter for letter, and all in their order; what the question names
    may stand in the place of another.
    """
    if not CODE_MARK.search(field.value):
        return supports_field(field, given.passage)
    asked = frozenset(_pieces(given.question))
    known = frozenset(pieces)
    own = _pieces(field.value)
    if not all(piece in known or piece in asked for piece in own):
        return False
    # what the passage does not have comes from the question, and may stand anywhere
    return _in_order([piece for piece in own if piece in known], pieces)


def _in_order(own: Sequence[str], pieces: Sequence[str]) -> bool:
    """Return whether pieces follow each other in a text, with at most as many others between as they are."""
    if not own:
        return True
    for start in (n for n, piece in enumerate(pieces) if piece == own[0]):
        window = iter(pieces[start : start + 2 * len(own)])
        if all(piece in window for piece in own):
            return True
    return False


def _is_changed(value: str, given: PassageReading) -> bool:
    """Return whether a sentence of a value in words is one of the passage with something changed."""
    return any(_is_changed_sentence(value[start:end], given) for start, end in sentence_spans(value))


def _is_changed_sentence(value: str, given: PassageReading) -> bool:
    claim = read_statement(value)
    content = claim.content
    if len(content) < _MIN_QUOTED_WORDS:
        return False

    def shared(sentence: PassageSentence) -> int:
        return sum(is_covered(word, sentence.words) for word in content)

    nearest = max(given.sentences, key=shared)
    if shared(nearest) < _MIN_QUOTED * len(content):
        return False
    strange = [word for word in content if not is_covered(word, nearest.words | given.title)]
    return bool(strange) or not same_sense(claim, [nearest])


def _place(value: str, given: PassageReading) -> PassageSentence | None:
    """Return the sentence in which a value stands, where several do the most relevant; None for none.

    A sentence that is the value and nothing else comes before one that also has other words.
    """
    plain = re.sub(r"\s+", " ", value).strip(CODE_QUOTES)
    whole = [s for s in given.sentences if re.sub(r"\s+", " ", s.text).strip(CODE_QUOTES) == plain]
    places = whole or [s for s in given.sentences if plain in s.text or is_verbatim(value, s.text)]
    return max(places, key=lambda sentence: sentence.relevance, default=None)


def mislabelled(text: str, given: PassageReading, places: Sequence[PassageSentence]) -> str:
    """Return why a short reply is the value of another name than the question's, "" where it is not.

    Looked at are sentences that list names with values ("Monday 9, Tuesday 10").

    Args:
        text: the reply.
        given: the passage and the question.
        places: the sentences that have it.
    """
    value = text.strip(CODE_QUOTES + " ").lower()
    asked = frozenset(words(given.question))
    reason = ""
    for sentence in sorted(places, key=lambda place: -place.relevance):
        items = _labelled_values(sentence)
        if len(items) < _MIN_ITEMS or value not in items.values():
            return ""
        named = {label for label in items if frozenset(words(label)) <= asked}
        if named and any(items[label] == value for label in named):
            return ""
        # where none is named, a name of the question that the passage does not have stands for one
        if not named and not strange_names(given):
            return ""
        reason = reason or f"{text!r} is the value of another name than the question's"
    return reason


def stands_at_label(text: str, given: PassageReading) -> bool:
    """Return whether a list of names with values has a reply as the value of a name in the question."""
    value = text.strip(CODE_QUOTES + " ").lower()
    asked = frozenset(words(given.question))
    return any(
        len(items := _labelled_values(sentence)) >= _MIN_ITEMS
        and any(own == value and frozenset(words(label)) <= asked for label, own in items.items())
        for sentence in given.sentences
    )


def _labelled_values(sentence: PassageSentence) -> dict[str, str]:
    """Return the values of a sentence by the names before them, the first of each, in small letters."""
    items: dict[str, str] = {}
    for match in _LABELLED.finditer(sentence.text):
        items.setdefault(match["label"].lower(), match["value"].lower())
    return items
