"""Rewrite a follow-up question so that it can be searched for without the conversation before it.

:func:`stand_alone` is the entry point. It uses rules, not a model: a 135M base model rewrites questions worse
than no rewriting at all. What the follow-up refers to (by a pronoun, "what about", or hardly any content
words of its own) is named by the subject of the previous question.
"""

from __future__ import annotations

import re
from itertools import dropwhile

from rag.text.words import content_words

_REFERRING_WORDS = re.compile(
    r"\b(?:it|its|they|them|their|that|those|these|this|there|then|same|one|ones|he|she|him|her)\b",
    re.IGNORECASE,
)
_OPENING = re.compile(r"^(?:and|but|so|or|also|what about|how about)\b[\s,]*", re.IGNORECASE)
_NAME = re.compile(r"\b[A-Z][\w'’-]*(?:\s+(?:(?:of|the|de|and)\s*)?[A-Z][\w'’-]*)*")
_NO_NAMES = frozenset(
    """What When Where Which Who Whom Whose Why How Is Are Was Were Do Does Did Can Could Will Would Shall Should May
    Might Must Has Have Had I The A An If On In At For And But To Hello Hi Please My We You Any There""".split()  # noqa: SIM905
)
_DATES = re.compile(
    r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?|January|February|March|April|May|June|July|August|September|October"
    r"|November|December|Christmas|Easter"
)
_HOW_MUCH = re.compile(
    r"^\W*how\s+(?:long|many|much|often|far|old|big|large|early|late|soon)\b", re.IGNORECASE
)
"""An opening that asks for a quantity: its second word is not what the question is about."""
FOLLOWUP_MAX_WORDS = 2
"""A question with no more content words than this is a follow-up."""

MAX_ADDED_CHARS = 1_000
"""Most characters that naming another subject may add: a long name replacing many short ones would fill the memory."""


def stand_alone(question: str, previous: str) -> str:
    """Return the question with its subject named, or unchanged when it needs nothing from the previous one."""
    if not previous or not is_followup(question):
        return question
    names, previous_names = _names(question), _names(previous)
    if names and previous_names:
        # "What about the Saltbox Pass?" is the last question again, about something else.
        growth = previous.count(previous_names[0]) * (len(names[0]) - len(previous_names[0]))
        return previous.replace(previous_names[0], names[0]) if growth <= MAX_ADDED_CHARS else question
    subject = subject_of(previous, question)
    if not subject:
        return question
    rest = _OPENING.sub("", question.strip())
    return f"About {subject}: {rest}"


def is_followup(question: str) -> bool:
    """Return whether a question can only be understood with the one before it."""
    if _OPENING.match(question.strip()):
        return True
    if _names(question):
        return False
    return bool(_REFERRING_WORDS.search(question)) or len(content_words(question)) <= FOLLOWUP_MAX_WORDS


def subject_of(previous: str, question: str) -> str:
    """Return what the previous question was about: its names, else its content words that the new one lacks."""
    names = _names(previous)
    if names:
        return " and ".join(dict.fromkeys(names))
    question_words = set(content_words(question))
    words = [
        w
        for w in re.findall(r"[\w'’-]+", _HOW_MUCH.sub("", previous))
        if set(content_words(w)) - question_words and w not in _NO_NAMES
    ]
    return " ".join(words[:6])


def _names(text: str) -> list[str]:
    names = []
    for match in _NAME.finditer(text):
        words = list(dropwhile(_NO_NAMES.__contains__, match.group().split()))
        if words and not _DATES.fullmatch(words[-1]):
            names.append(" ".join(words))
    return names
