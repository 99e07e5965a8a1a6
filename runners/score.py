"""Scores of one answer against one question's gold, each between 0 and 1; no model judges another.

A score that cannot be computed for a question (no gold of that kind) is absent, never zero.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from rag.facts import content_words, numbers, polarity
from rag.types import Citation
from runners.checks import in_style
from runners.data import Question
from runners.plan import Plan

# Ways of saying "it is not in our documents", each with the documents or the speaker as its subject, so that a plain
# denial ("tickets do not include the shuttle") is none. A plan's own refusals are added to them.
_SOURCE = r"(?:notes?|documents?|documentation|passages?|records?|files?|pages?|context|sources?|guides?|information)"
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


def score_answer(
    plan: Plan,
    question: Question,
    answer: str,
    citations: Sequence[Citation],
    retrieval: bool,
    gold: str = "",
) -> dict[str, float]:
    """All scores of one answer; `gold` is the text of the gold span, when the question has one.

    style: every check of the plan met. fact_recall: share of the gold's content words, question words left out,
    that the answer contains. agreement: the same polarity and every number of the gold. token_f1, exact_match:
    against the nearest reference. citation: share of factual sentences that a cited passage supports, 0 for an arm
    that cannot cite. refusal: refused when, and only when, there is no answer.
    """
    refused = is_refusal(answer, plan.prompts.refusals)
    found = {"style": in_style(answer, plan.checks)}
    found["refusal"] = float(refused is not question.answerable)
    if question.answerable:
        facts = gold_texts(question, gold)
        found["fact_recall"] = best(fact_recall(answer, fact, question.question) for fact in facts)
        found["agreement"] = best(agreement(answer, fact) for fact in facts)
        if refused:  # a refusal states nothing, even where it happens to deny
            found |= {name: 0.0 for name in ("fact_recall", "agreement") if found[name] is not None}
        references = question.references or (
            (question.reference,) if question.reference else question.answers
        )
        found["token_f1"] = best(token_f1(answer, r) for r in references)
        found["exact_match"] = best(float(_plain(answer) == _plain(r)) for r in references)
        found["citation"] = citation_share(citations, retrieval)
    return {name: value for name, value in found.items() if value is not None}


def combined(scores: dict[str, float], weights: dict[str, float]) -> float:
    """Weighted mean of the scores that apply to this question; 0 when none of the weighted ones does."""
    applied = {name: weight for name, weight in weights.items() if name in scores and weight > 0}
    total = sum(applied.values())
    return sum(scores[name] * weight for name, weight in applied.items()) / total if total else 0.0


def gold_texts(question: Question, gold: str) -> tuple[str, ...]:
    """What counts as the fact: the row's own fact, else its short answers, else the gold span, else the reference."""
    if question.fact:
        return (question.fact,)
    if question.answers:
        return question.answers
    return tuple(text for text in (gold, question.reference) if text)[:1]


def fact_recall(answer: str, fact: str, question: str = "") -> float | None:
    """Share of the fact's content words (question words left out) that the answer contains; None without any.

    A bare yes or no has no content words: its fact is its polarity.
    """
    asked = set(content_words(question))
    wanted = Counter(word for word in content_words(fact) if word not in asked)
    if not wanted:
        return float((polarity(answer) == "no") == (polarity(fact) == "no")) if _bare_polarity(fact) else None
    there = set(content_words(answer)) | numbers(answer)
    return sum(n for word, n in wanted.items() if word in there) / sum(wanted.values())


def agreement(answer: str, fact: str) -> float | None:
    """1 when polarity and every number of the fact are in the answer, else 0; None when it has neither."""
    wanted = numbers(fact)
    sign = polarity(fact)
    if not wanted and sign is None:
        return None
    same_sign = sign is None or (polarity(answer) == "no") == (sign == "no")
    return float(wanted <= numbers(answer) and same_sign)


def token_f1(answer: str, reference: str) -> float:
    """SQuAD's token F1: harmonic mean of word precision and recall, punctuation and articles left out."""
    a, b = Counter(_plain(answer).split()), Counter(_plain(reference).split())
    common = sum((a & b).values())
    return 2 * common / (sum(a.values()) + sum(b.values())) if common else 0.0


def citation_share(citations: Sequence[Citation], retrieval: bool) -> float:
    """Share of an answer's factual sentences that are supported by the passage they cite."""
    if not retrieval or not citations:
        return 0.0
    return sum(c.supported for c in citations) / len(citations)


def is_refusal(answer: str, refusals: Sequence[str]) -> bool:
    """Whether an answer says that the documents do not hold it: a known phrase, or close to a refusal of the plan."""
    first = answer.strip().split("?")[0]
    if _REFUSAL.search(first):
        return True
    said = set(content_words(first))
    return any(_overlap(said, set(content_words(known.split("?")[0]))) >= 0.6 for known in refusals)


def best(values: object) -> float | None:
    """The largest value that could be computed; None when none could."""
    known = [value for value in values if value is not None]  # type: ignore[attr-defined]
    return max(known) if known else None


def _overlap(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b) if a and b else 0.0


def _bare_polarity(fact: str) -> bool:
    return _plain(fact) in {"yes", "no"}


def _plain(text: str) -> str:
    return " ".join(
        re.sub(r"\b(?:a|an|the)\b", " ", re.sub(r"[^\w\s.]|\.(?!\d)", " ", text.casefold())).split()
    )
