"""The style checks of a plan, applied to one reply by rule: patterns, lengths, labels, forbidden texts, JSON schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Sequence

from rag.errors import BadInput
from rag.sentences.statements import states_fact
from rag.text.numbers import extract_numbers
from rag.text.words import content_words
from runners.plan.bounded_schema import TooMuchWork, first_error
from runners.plan.patterns import TimedPattern, compile_pattern
from runners.plan.schema import Plan, StyleCheck

_LITERAL = re.compile(r"(?:[\w ,;'’!?-]|\\s\+|\\\W)+")
"""A pattern that stands for itself: words, escaped characters and white space between them."""
MAX_SCHEMA_STEPS = 200_000
"""Work that the check of one answer by a JSON Schema may take: some seconds; see :mod:`runners.plan.bounded_schema`."""
MAX_OWN_WORDS = 4
"""Content words that a closing line may have beside those that its check demands: "Quote tag GEN when you call.\""""


class Formulas(Container[str]):
    """The sentences of a plan that need no citation: its formulas, and opening and closing lines that a check demands.

    A check such as "closes with 'when you call.'" demands the words of a line, not a fact in it: a line that has a
    number, or a verb after a subject, is judged as any other sentence.
    """

    def __init__(self, plan: Plan) -> None:
        """Read the plan's formulas and style checks."""
        self._fixed = frozenset(plan.prompts.formulas)
        self._demanded = [pattern for check in plan.checks if (pattern := demanded_words(check))]

    def __contains__(self, sentence: object) -> bool:
        """Return whether a sentence needs no citation."""
        if not isinstance(sentence, str):
            return False
        text = sentence.strip()
        return text in self._fixed or any(is_only_demanded(text, pattern) for pattern in self._demanded)


def demanded_words(check: StyleCheck) -> TimedPattern | None:
    """Return the pattern of a check that demands certain words at the beginning or the end of a reply; None for others."""
    if check.kind != "regex" or check.value.startswith("^") == check.value.endswith("$"):
        return None
    literal = check.value.removeprefix("^").removesuffix("$")
    return compile_pattern(check.value) if _LITERAL.fullmatch(literal) and content_words(literal) else None


def is_only_demanded(sentence: str, pattern: TimedPattern) -> bool:
    """Return whether a sentence has the demanded words and, beside them, nothing that could be a fact."""
    match = pattern.search(sentence)
    if not match:
        return False
    rest = f"{sentence[: match.start()]} {sentence[match.end() :]}"
    return not extract_numbers(rest) and len(content_words(rest)) <= MAX_OWN_WORDS and not states_fact(rest)


_SHARE = re.compile(r" \(\d+ % of [\d,]+ examples\)$")


def failed_checks(reply: str, checks: Sequence[StyleCheck]) -> tuple[str, ...]:
    """Return the text of each check that a reply does not meet; empty when all are met.

    A check without a text is described as "kind: value".
    """
    text = reply.strip()
    return tuple(check.text or f"{check.kind}: {check.value}" for check in checks if not _passes(text, check))


def in_style(reply: str, checks: Sequence[StyleCheck]) -> float | None:
    """Return 1.0 when every check is met and 0.0 otherwise; None when the plan has no checks."""
    if not checks:
        return None
    return float(not failed_checks(reply, checks))


def rule_text(check: StyleCheck) -> str:
    """Return what a check demands, without the share of the examples that meets it ("... (97 % of 934 examples)")."""
    return _SHARE.sub("", check.text)


def _passes(text: str, check: StyleCheck) -> bool:
    if check.kind == "regex":
        return compile_pattern(check.value).search(text, check.text) is not None
    if check.kind == "max_words":
        return len(text.split()) <= check.value
    if check.kind == "labels":
        labels = {str(label).strip() for label in check.value}
        return text in labels or text.rstrip(".") in labels
    if check.kind == "must_not":
        return not any(part.casefold() in text.casefold() for part in check.value)
    return _matches_schema(text, check)


def _matches_schema(text: str, check: StyleCheck) -> bool:
    def occurs(pattern: str, searched: str) -> bool:
        # As in a JSON Schema, where `.` matches no line break.
        return compile_pattern(pattern, 0).search(searched, check.text) is not None

    try:
        return first_error(check.value, json.loads(text), occurs, MAX_SCHEMA_STEPS) is None
    except (ValueError, RecursionError):
        return False
    except TooMuchWork:
        raise BadInput(
            f"the JSON Schema of the check {check.text!r} takes too much work to check an answer of {len(text)} characters",
            "write it with fewer references and lists that repeat each other, in the plan's checks",
        ) from None
