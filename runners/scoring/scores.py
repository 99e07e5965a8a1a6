"""Scores of one answer against one question's gold, each between 0 and 1; no model judges another.

A score that cannot be computed for a question (no gold of that kind) is absent, never zero.

The final answer of a reply that is worked out before it: the part that a check of the plan calls ``answer``.

How near an answer's wording is to a reference: ROUGE-L and chrF, as their papers define them. Light.

Answers that are JSON, slot by slot: which of the reference's values are there, and which are invented. Light.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from rag.text.numbers import extract_numbers, polarity
from rag.text.words import content_words
from rag.types import Citation
from runners.data.questions import Question
from runners.data.refusals import all_no_value, is_no_value, is_refusal
from runners.plan.schema import Plan, StyleCheck
from runners.plan.score_names import SCORE_BY_NAME
from runners.scoring.style_checks import in_style

ANSWER_GROUP = "answer"
"""The name of the group, as in ``#### (?P<answer>[0-9]+)$``, that marks the final answer in a check's pattern."""


def marks_answer(checks: Sequence[StyleCheck]) -> bool:
    """Whether one of the checks says where a reply's final answer stands."""
    return bool(_patterns(checks))


def final_answer(answer: str, gold: str, checks: Sequence[StyleCheck]) -> float | None:
    """1 when the final answer is the gold's, 0 when it is another or there is none; None when the gold has none.

    Numbers are compared as numbers (1,200 is 1200.00), anything else but for case and white space.
    """
    for pattern in _patterns(checks):
        wanted = _found(pattern, gold)
        if wanted is not None:
            return float(_found(pattern, answer) == wanted)
    return None


def _found(pattern: re.Pattern[str], text: str) -> float | str | None:
    match = pattern.search(text.strip())
    if match is None or not (said := match[ANSWER_GROUP]):
        return None
    try:
        return float(re.sub(r"[$,\s]", "", said))
    except ValueError:
        return " ".join(said.casefold().split())


def _patterns(checks: Sequence[StyleCheck]) -> list[re.Pattern[str]]:
    regexes = [_compiled(check.value) for check in checks if check.kind == "regex"]
    return [pattern for pattern in regexes if ANSWER_GROUP in pattern.groupindex]


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)


CHRF_ORDERS = range(1, 7)
"""Lengths of the runs of characters that chrF compares."""
CHRF_BETA = 2
"""How many times recall weighs as much as precision in chrF."""


def rouge_l(answer: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words (Lin 2004, sentence level, precision and recall alike).

    Words are runs of letters, digits and underscores, without case. Two texts without words are as near as can be
    when they are the same.
    """
    a, b = _words(answer), _words(reference)
    if not a or not b:
        return float(answer.strip() == reference.strip())
    return 2 * longest_common_subsequence(a, b) / (len(a) + len(b))


def longest_common_subsequence(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, by bits: one addition for each item of ``b`` (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for position, item in enumerate(a):
        places[item] = places.get(item, 0) | 1 << position
    every = (1 << len(a)) - 1
    open_places = every
    for item in b:
        here = open_places & places.get(item, 0)
        open_places = ((open_places + here) | (open_places - here)) & every
    return len(a) - open_places.bit_count()


def chrf(answer: str, reference: str) -> float:
    """F2 of character n-grams, n from 1 to 6, white space left out (Popović 2015).

    Precision and recall are means over the orders that both texts have; case counts. Needs no words, so it also
    serves languages that set no spaces.
    """
    a, b = "".join(answer.split()), "".join(reference.split())
    if a == b:
        return 1.0
    each = [(_grams(a, n), _grams(b, n)) for n in CHRF_ORDERS if min(len(a), len(b)) >= n]
    if not each:
        return 0.0
    shared = [(x & y).total() for x, y in each]
    precision = sum(n / x.total() for n, (x, _) in zip(shared, each, strict=True)) / len(each)
    recall = sum(n / y.total() for n, (_, y) in zip(shared, each, strict=True)) / len(each)
    below = CHRF_BETA**2 * precision + recall
    return (1 + CHRF_BETA**2) * precision * recall / below if below else 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _grams(text: str, n: int) -> Counter[str]:
    return Counter(text[at : at + n] for at in range(len(text) - n + 1))


SlotCounts = Counter[tuple[str, str]]
"""Pairs of a slot's path and its value, both as text; a list gives its path once for each member."""


def json_slots(text: str) -> SlotCounts | None:
    """Return the filled slots of a JSON object or array, None when the text, all of it, is neither.

    ``{"a": {"b": "X "}, "c": [1, 2], "d": null}`` has a.b = x, c[] = 1 and c[] = 2. Null, empty texts, lists and
    objects are no values. Texts are compared without case and outer or double spaces, 1 and 1.0 are the same.
    """
    try:
        value = json.loads(text)
        return Counter(_walk("", value)) if isinstance(value, dict | list) else None
    except (ValueError, RecursionError):
        return None


def slot_f1(answer: str, gold: SlotCounts) -> float:
    """Harmonic mean of the shares of the answer's slots that are right and of the gold's that are found.

    0 when the answer is not JSON: nothing could read it.
    """
    given = json_slots(answer)
    if given is None:
        return 0.0
    together = given.total() + gold.total()
    return 2 * (given & gold).total() / together if together else 1.0


def spurious_slots(answer: str, gold: SlotCounts) -> float | None:
    """Share of the answer's slots that the gold does not have at all; None when the answer is not JSON."""
    given = json_slots(answer)
    if given is None:
        return None
    known = {path for path, _ in gold}
    invented = sum(count for (path, _), count in given.items() if path not in known)
    return invented / given.total() if given else 0.0


def _walk(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(f"{path}.{key}" if path else str(key), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(f"{path}[]", inner)
    elif isinstance(value, str):
        if plain := " ".join(value.casefold().split()):
            yield path, plain
    elif value is not None:
        number = isinstance(value, float) and value.is_integer()
        yield path, json.dumps(int(value) if number else value)


def score_answer(
    plan: Plan,
    question: Question,
    answer: str,
    citations: Sequence[Citation],
    retrieval: bool,
    gold: str = "",
) -> dict[str, float]:
    """All scores of one answer that can be computed, as :mod:`runners.plan.score_names` lists them.

    `gold` is the text of the gold span, "" when the question has none. An arm without retrieval cannot cite: its
    citation is 0. Of a question whose gold is an absence, where absence is legal, neither facts nor refusing are
    scored: whether a value was invented is.
    """
    refused = is_refusal(answer, plan.prompts.refusals)
    golds = question.references or ((question.reference,) if question.reference else question.answers)
    legal = _absence_is_legal(plan)
    nothing = legal is True and question.answerable and all_no_value(golds)
    found = {"style": in_style(answer, plan.checks)}
    if nothing:
        found["spurious"] = float(not (refused or is_no_value(answer)))
    else:
        found["refusal"] = float(refused is not question.answerable)
        found["false_refusal" if question.answerable else "correct_refusal"] = float(refused)
    if question.answerable and not nothing:
        facts = gold_texts(question, gold)
        found["fact_recall"] = best_score(fact_recall(answer, fact, question.question) for fact in facts)
        found["agreement"] = best_score(fact_agreement(answer, fact) for fact in facts)
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
        "token_f1": best_score(token_f1(answer, gold) for gold in golds),
        "exact_match": best_score(float(_plain(answer) == _plain(gold)) for gold in golds),
        "rouge_l": best_score(rouge_l(answer, gold) for gold in golds),
        "chrf": best_score(chrf(answer, gold) for gold in golds),
    }
    found["final_answer"] = best_score(final_answer(answer, gold, plan.checks) for gold in golds)
    if any(check.kind == "labels" for check in plan.checks):
        found["label"] = best_score(float(_label(answer) == _label(gold)) for gold in golds)
    records = [slots for gold in golds if (slots := json_slots(gold)) is not None]
    if records:
        found["valid_json"] = float(json_slots(answer) is not None)
        found["slot_f1"] = best_score(slot_f1(answer, slots) for slots in records)
        if optional:
            shares = [share for slots in records if (share := spurious_slots(answer, slots)) is not None]
            found["spurious"] = min(shares, default=None)
    return found


def combined_score(scores: dict[str, float], weights: dict[str, float]) -> float:
    """Weighted mean of the scores that apply to this question; 0 when none of the weighted ones does.

    A score of which less is better counts as 1 minus its value.
    """
    applied = {name: weight for name, weight in weights.items() if name in scores and weight > 0}
    total = sum(applied.values())
    gains = sum(SCORE_BY_NAME[name].gain(scores[name]) * weight for name, weight in applied.items())
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
    there = set(content_words(answer)) | extract_numbers(answer)
    return sum(n for word, n in wanted.items() if word in there) / sum(wanted.values())


def fact_agreement(answer: str, fact: str) -> float | None:
    """1 when polarity and every number of the fact are in the answer, else 0; None when it has neither."""
    wanted = extract_numbers(fact)
    sign = polarity(fact)
    if not wanted and sign is None:
        return None
    same_sign = sign is None or (polarity(answer) == "no") == (sign == "no")
    return float(wanted <= extract_numbers(answer) and same_sign)


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


def best_score(values: object) -> float | None:
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
