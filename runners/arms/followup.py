"""Turn a follow-up into a question that stands alone, so that it can be searched for.

Rules, not a model: a 135M base model rewrites questions worse than not at all. What the follow-up leans on (a
pronoun, "what about", or hardly any words of its own) is replaced by naming what the last question was about.
"""

from __future__ import annotations

import re
from itertools import dropwhile

from rag.text.words import content_words

_LEANS = re.compile(
    r"\b(?:it|its|they|them|their|that|those|these|this|there|then|same|one|ones|he|she|him|her)\b",
    re.IGNORECASE,
)
_OPENING = re.compile(r"^(?:and|but|so|or|also|what about|how about)\b[\s,]*", re.IGNORECASE)
_NAME = re.compile(r"\b[A-Z][\w'’-]*(?:\s+(?:(?:of|the|de|and)\s*)?[A-Z][\w'’-]*)*")
_ASKING = frozenset(
    """What When Where Which Who Whom Whose Why How Is Are Was Were Do Does Did Can Could Will Would Shall Should May
    Might Must Has Have Had I The A An If On In At For And But To Hello Hi Please My We You Any There""".split()  # noqa: SIM905
)
_DATES = re.compile(
    r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?|January|February|March|April|May|June|July|August|September|October"
    r"|November|December|Christmas|Easter"
)
FOLLOWUP_MAX_WORDS = 2
"""A question with no more content words than this cannot stand alone."""

MAX_ADDED_CHARS = 1_000
"""Characters that naming another subject may add: a long name in the place of many short ones would fill memory."""


def stand_alone(question: str, previous: str) -> str:
    """The question with its subject named, or as it is when it needs nothing from the previous one."""
    if not previous or not is_followup(question):
        return question
    own, before = _names(question), _names(previous)
    if own and before:  # "What about the Saltbox Pass?": the last question again, about something else
        growth = previous.count(before[0]) * (len(own[0]) - len(before[0]))
        return previous.replace(before[0], own[0]) if growth <= MAX_ADDED_CHARS else question
    subject = subject_of(previous, question)
    if not subject:
        return question
    rest = _OPENING.sub("", question.strip())
    return f"About {subject}: {rest}"


def is_followup(question: str) -> bool:
    """Whether a question needs the one before it."""
    if _OPENING.match(question.strip()):
        return True
    if _names(question):
        return False
    return bool(_LEANS.search(question)) or len(content_words(question)) <= FOLLOWUP_MAX_WORDS


def subject_of(previous: str, question: str) -> str:
    """What the previous question was about: its names, else its content words that the new one lacks."""
    names = _names(previous)
    if names:
        return " and ".join(dict.fromkeys(names))
    asked = set(content_words(question))
    words = [
        w for w in re.findall(r"[\w'’-]+", previous) if set(content_words(w)) - asked and w not in _ASKING
    ]
    return " ".join(words[:6])


def _names(text: str) -> list[str]:
    found = []
    for match in _NAME.finditer(text):
        words = list(dropwhile(_ASKING.__contains__, match.group().split()))
        if words and not _DATES.fullmatch(words[-1]):
            found.append(" ".join(words))
    return found
