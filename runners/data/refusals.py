"""What a refusal sounds like: that the documents do not hold it.

Texts that say "there is no value": what a question's gold may be, and what an answer should then be. Light.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag.text.words import content_words

# Ways of saying "it is not in our documents", each with the documents or the speaker as its subject, so that a plain
# denial ("tickets do not include the shuttle") is none. A plan's own refusals are added to them.
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
    """Whether an answer says that the documents do not hold it: a known phrase, or close to a refusal of the plan.

    ``formulas``, a house's greeting for instance, stand in every answer and are left out of the comparison.
    """
    first = _bare(answer, formulas)
    if _REFUSAL.search(first):
        return True
    said = set(content_words(first))
    return any(_overlap(said, set(content_words(_bare(known, formulas)))) >= 0.6 for known in refusals)


def _bare(text: str, formulas: Sequence[str]) -> str:
    """What is said before the first question, without the formulas."""
    for formula in formulas:
        text = text.replace(formula, " ")
    return text.strip().split("?")[0]


def _overlap(a: set[str], b: set[str]) -> float:
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
    """Whether a text, all of it, stands for the absence of a value: "", "n/a", "null", "[]", "It is not stated."

    What goes on after that, or holds a number, is taken for a value ("not stated, but 12 euros").
    """
    plain = " ".join(re.findall(r"\w+", text.casefold()))
    return plain in _NOTHING or bool(_NOT_SAID.fullmatch(plain) and not re.search(r"\d", plain))


def all_no_value(golds: Sequence[str]) -> bool:
    """Whether there is gold, and every text of it says that there is no value."""
    return bool(golds) and all(is_no_value(gold) for gold in golds)
