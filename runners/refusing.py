"""What a refusal sounds like: that the documents do not hold it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag.words import content_words

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


def is_refusal(answer: str, refusals: Sequence[str]) -> bool:
    """Whether an answer says that the documents do not hold it: a known phrase, or close to a refusal of the plan."""
    first = answer.strip().split("?")[0]
    if _REFUSAL.search(first):
        return True
    said = set(content_words(first))
    return any(_overlap(said, set(content_words(known.split("?")[0]))) >= 0.6 for known in refusals)


def _overlap(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b) if a and b else 0.0
