"""Scores of one answer against one question's gold, each between 0 and 1; no model judges another.

A score that cannot be computed for a question (no gold of that kind) is absent, never zero.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from rag.facts import content_words, numbers, polarity
from rag.types import Citation
from runners.absence import all_absent, says_nothing
from runners.checks import in_style
from runners.data import Question
from runners.final import final_answer
from runners.measures import BY_NAME
from runners.plan import Plan
from runners.refusing import is_refusal
from runners.slots import slot_f1, slots_of, spurious_slots
from runners.wording import chrf, rouge_l


def score_answer(
    plan: Plan,
    question: Question,
    answer: str,
    citations: Sequence[Citation],
    retrieval: bool,
    gold: str = "",
) -> dict[str, float]:
    """All scores of one answer that can be computed, as :mod:`runners.measures` lists them.

    `gold` is the text of the gold span, "" when the question has none. An arm without retrieval cannot cite: its
    citation is 0. Of a question whose gold is an absence, where absence is legal, neither facts nor refusing are
    scored: whether a value was invented is.
    """
    refused = is_refusal(answer, plan.prompts.refusals)
    golds = question.references or ((question.reference,) if question.reference else question.answers)
    legal = _absence_is_legal(plan)
    nothing = legal is True and question.answerable and all_absent(golds)
    found = {"style": in_style(answer, plan.checks)}
    if nothing:
        found["spurious"] = float(not (refused or says_nothing(answer)))
    else:
        found["refusal"] = float(refused is not question.answerable)
        found["false_refusal" if question.answerable else "correct_refusal"] = float(refused)
    if question.answerable and not nothing:
        facts = gold_texts(question, gold)
        found["fact_recall"] = best(fact_recall(answer, fact, question.question) for fact in facts)
        found["agreement"] = best(agreement(answer, fact) for fact in facts)
        if refused:  # a refusal states nothing, even where it happens to deny
            found |= {name: 0.0 for name in ("fact_recall", "agreement") if found[name] is not None}
        found["citation"] = citation_share(citations, retrieval)
        found["citation_precision"] = citation_precision(citations) if retrieval else None
    if question.answerable:
        found |= _against(answer, golds, plan, legal is not False)
    return {name: value for name, value in found.items() if value is not None}


def _against(answer: str, golds: Sequence[str], plan: Plan, optional: bool) -> dict[str, float | None]:
    """Scores against the nearest reference; `optional`: slots that a JSON reference lacks may be missing."""
    found = {
        "token_f1": best(token_f1(answer, gold) for gold in golds),
        "exact_match": best(float(_plain(answer) == _plain(gold)) for gold in golds),
        "rouge_l": best(rouge_l(answer, gold) for gold in golds),
        "chrf": best(chrf(answer, gold) for gold in golds),
    }
    found["final_answer"] = best(final_answer(answer, gold, plan.checks) for gold in golds)
    if any(check.kind == "labels" for check in plan.checks):
        found["label"] = best(float(_label(answer) == _label(gold)) for gold in golds)
    records = [slots for gold in golds if (slots := slots_of(gold)) is not None]
    if records:
        found["valid_json"] = float(slots_of(answer) is not None)
        found["slot_f1"] = best(slot_f1(answer, slots) for slots in records)
        if optional:
            shares = [share for slots in records if (share := spurious_slots(answer, slots)) is not None]
            found["spurious"] = min(shares, default=None)
    return found


def combined(scores: dict[str, float], weights: dict[str, float]) -> float:
    """Weighted mean of the scores that apply to this question; 0 when none of the weighted ones does.

    A score of which less is better counts as 1 minus its value.
    """
    applied = {name: weight for name, weight in weights.items() if name in scores and weight > 0}
    total = sum(applied.values())
    gains = sum(BY_NAME[name].gain(scores[name]) * weight for name, weight in applied.items())
    return gains / total if total else 0.0


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
    """Share of an answer's factual sentences that the passages they cite bear out in full.

    This is what the literature calls citation recall; every factual sentence has a row in ``citations``, those
    without a mark too, and one for each passage where it has several.
    """
    if not retrieval or not citations:
        return 0.0
    sentences = {(c.answer_start, c.answer_end) if c.answer_end else n: c for n, c in enumerate(citations)}
    return sum(c.supported for c in sentences.values()) / len(sentences)


def citation_precision(citations: Sequence[Citation]) -> float | None:
    """Share of the marks ``[n]`` whose sentence is borne out in full; None for an answer without marks.

    Marks are put in by code, and only where a passage holds something of the sentence, so this is 1 minus the
    share of marks at sentences that are borne out only in part.
    """
    marks = [c.supported for c in citations if c.n]
    return sum(marks) / len(marks) if marks else None


def best(values: object) -> float | None:
    """The largest value that could be computed; None when none could."""
    known = [value for value in values if value is not None]  # type: ignore[attr-defined]
    return max(known) if known else None


def _absence_is_legal(plan: Plan) -> bool | None:
    """The plan's own answer to whether "not stated" can be right; None where it was not said."""
    said = plan.answers.get("absence_is_legal")
    return None if said is None or said.value is None else said.value in (True, "yes", "true")


def _label(text: str) -> str:
    return " ".join(re.split(r"[\s_-]+", text.casefold().strip().strip(".\"'`")))


def _bare_polarity(fact: str) -> bool:
    return _plain(fact) in {"yes", "no"}


def _plain(text: str) -> str:
    return " ".join(
        re.sub(r"\b(?:a|an|the)\b", " ", re.sub(r"[^\w\s.]|\.(?!\d)", " ", text.casefold())).split()
    )
