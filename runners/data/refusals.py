"""Recognise refusals ("that is not in our documents") and texts that state the absence of a value ("n/a").

:func:`is_refusal` is used on answers and on replies of examples; :func:`is_no_value` on gold answers and fields.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag.text.words import content_words

# Phrasings of "it is not in our documents", each with the documents or the speaker as its subject, so that a plain
# denial ("tickets do not include the shuttle") does not match. A plan's own refusals are compared in addition.
_SOURCE = (
    r"(?:notes?|documents?|documentation|passages?|records?|files?|pages?|context|sources?|guides?|papers?|handbooks?"
    r"|manuals?|information)"
)
_ABSENT = r"(?:not|n't|n’t|no|nothing|never|silent|open|lacks?|without|cannot|nowhere|unable)"
_TOLD = (
    r"(?:mention|say|said|cover|state|list|includ|contain|answer|tell|told|hold|found|find|record|provid|give|entry"
    r"|silent|open)"
)
_REFUSAL = re.compile(
    rf"\b{_SOURCE}\b[^.?!]{{0,40}}?\b(?:do|does|did|is|are|has|have)?\s?{_ABSENT}\b[^.?!]{{0,40}}?(?:{_TOLD}\w*\b)?"
    rf"|\b{_ABSENT}\b[^.?!]{{0,50}}\b{_TOLD}\w*\b[^.?!]{{0,30}}\b(?:in|by|from|among)\b[^.?!]{{0,25}}\b{_SOURCE}\b"
    rf"|\b(?:no|nothing|not any)\b[^.?!]{{0,25}}\b(?:in|from|among)\b[^.?!]{{0,25}}\b{_SOURCE}\b"
    rf"|\b(?:I|we)(?:'m|’m| am| are| do| could| can| have| was| were)?\s?{_ABSENT}\b[^.?!]{{0,30}}"
    rf"\b(?:find|found|know|sure|see|entry|information|answer|record|note|details?|able|have)\b",
    re.IGNORECASE,
)


def is_refusal(answer: str, refusals: Sequence[str], formulas: Sequence[str] = ()) -> bool:
    """Whether an answer says that the documents do not hold it: a known phrase, or similar to a refusal of the plan.

    Similar means that the content words have a Jaccard similarity of at least 0.6.

    Args:
        answer: the answer.
        refusals: the plan's own refusals.
        formulas: sentences that every answer may have, such as a greeting; they are left out of the comparison.
    """
    statement = _statement(answer, formulas)
    if _REFUSAL.search(statement):
        return True
    words = set(content_words(statement))
    return any(
        _overlap(words, set(content_words(_statement(refusal, formulas)))) >= 0.6 for refusal in refusals
    )


def _statement(text: str, formulas: Sequence[str]) -> str:
    """Return the text up to its first question mark, without the formulas."""
    for formula in formulas:
        text = text.replace(formula, " ")
    return text.strip().split("?")[0]


def _overlap(a: set[str], b: set[str]) -> float:
    """Return the Jaccard similarity of two sets, 0 when one is empty."""
    return len(a & b) / len(a | b) if a and b else 0.0


_NOTHING = frozenset(
    {
        "",
        "none",
        "null",
        "nil",
        "n a",
        "na",
        "nothing",
        "unknown",
        "unspecified",
        "unstated",
        "missing",
        "absent",
        "no value",
        "no answer",
        "empty",
        "not applicable",
    }
)
_SAID = "stated|mentioned|specified|given|provided|available|known|disclosed|listed|indicated|recorded|found"
_NOT_SAID = re.compile(
    rf"(?:\w+ ){{0,4}}(?:not|\w+n t) (?:{_SAID})(?: here| anywhere| (?:in|by|on|from|within)(?: \w+){{1,5}})?"
)


def is_no_value(text: str) -> bool:
    """Whether the whole text states the absence of a value: "", "n/a", "null", "[]", "It is not stated."

    A text that continues after that, or has a number, counts as a value ("not stated, but 12 euros").
    """
    plain = " ".join(re.findall(r"\w+", text.casefold()))
    return plain in _NOTHING or bool(_NOT_SAID.fullmatch(plain) and not re.search(r"\d", plain))


def all_no_value(golds: Sequence[str]) -> bool:
    """Whether there are gold answers and every one states the absence of a value."""
    return bool(golds) and all(is_no_value(gold) for gold in golds)
