"""Scores of one answer against one question's gold, each between 0 and 1; no model judges another.

:func:`score_answer` computes every score that applies to a question, :func:`combined_score` weighs them. A
score that cannot be computed for a question (no gold of that kind) is absent, never zero.

The module also holds the scores' parts: the final answer after written-out working (the group ``answer`` in a
check's pattern), text overlap with a reference (ROUGE-L as its paper defines it, chrF by sacreBLEU), and the
comparison of JSON answers slot by slot.

ROUGE-L is not taken from the ``rouge-score`` package: its tokeniser drops every letter that is not a to z, so that answers
in Chinese score 0 against themselves. With the words of :func:`rouge_l` given to it, its values are the same
(tests/runners/scoring/test_text_overlap.py) and it takes 5 times as long. Its import loads nltk (1.7 s, 185 MB more
memory), and it is published as source without a wheel, last in 2022.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from rag.text.numbers import extract_numbers, polarity
from rag.text.words import content_words
from rag.types import Citation
from runners.data.questions import Question
from runners.data.refusals import all_no_value, is_no_value
from runners.plan.patterns import TimedPattern, compile_pattern
from runners.plan.schema import Plan, StyleCheck
from runners.plan.score_names import SCORE_BY_NAME
from runners.scoring.correctness import fault_of_answer, gold_texts, is_right, lacks_answer, references_of
from runners.scoring.style_checks import in_style, rule_text

if TYPE_CHECKING:
    from sacrebleu.metrics.chrf import CHRF

ANSWER_GROUP = "answer"
"""The name of the group, as in ``#### (?P<answer>[0-9]+)$``, that marks the final answer in a check's pattern."""
RIGHT_SHARE = 0.8
"""What a right answer scores before style, wording and citations are graded, which add the rest.

High enough that grading never outweighs correctness: an arm right on share p of the questions scores between .8 p and p,
so one that is right on more than a quarter more of them leads however the two are graded. Low enough that a fifth
of the score still tells apart arms that are right equally often.
"""
NO_ANSWER_SHARE = 0.15
"""Largest share of an arm's mean that questions without an answer have together.

An arm that refuses everything is right on all of them and on nothing else: it scores at most .15, below an arm that answers
three in ten of the other questions right and refuses none (.85 * .3 * .8 = .20).
"""
PART_OF_RIGHT = frozenset(
    [
        "right",
        "agreement",
        "label",
        "slot_f1",
        "final_answer",
        "valid_json",
        "exact_match",
        "refusal",
        "correct_refusal",
        "false_refusal",
        "spurious",
    ]
)
"""Scores that being right includes: they do not tell right answers apart, so they grade only answers without gold."""
SlotCounts = Counter[tuple[str, str]]
"""Counts of (path, value) pairs, both as text; a list contributes its path once for each member."""


def score_answer(
    plan: Plan,
    question: Question,
    answer: str,
    citations: Sequence[Citation],
    retrieval: bool,
    gold: str = "",
) -> dict[str, float]:
    """Return every score of one answer that can be computed, by the names of :mod:`runners.plan.score_names`.

    ``right`` is defined in :mod:`runners.scoring.correctness`. An arm without retrieval cannot cite, so its citation
    score is 0; where no arm of the plan retrieves there is no such score. When the gold says that there is no value,
    and the plan allows that ("absence is legal"), neither facts nor refusals are scored; whether a value was invented
    is.

    Args:
        plan: the run's plan: checks, refusals, answers.
        question: the question with its gold.
        answer: the reply without citation marks.
        citations: the citations of the reply.
        retrieval: whether the arm retrieves.
        gold: the text of the gold span, "" when the question has none.
    """
    references = references_of(question)
    absence_legal = absence_is_legal(plan)
    no_value = absence_legal is True and question.answerable and all_no_value(references)
    forms = form_scores(question, answer, plan.checks)
    refused = _is_refused(plan, answer, no_value, forms)
    scores: dict[str, float | None] = {"style": in_style(answer, plan.checks)}
    if no_value:
        scores["spurious"] = float(not (refused or is_no_value(answer)))
    else:
        scores["refusal"] = float(refused is not question.answerable)
        scores["false_refusal" if question.answerable else "correct_refusal"] = float(refused)
    if question.answerable and not no_value:
        facts = gold_texts(question, gold)
        scores["fact_recall"] = best_score(fact_recall(answer, fact, question.question) for fact in facts)
        scores["agreement"] = best_score(fact_agreement(answer, fact) for fact in facts)
        if refused:  # a refusal states nothing, even where it happens to deny
            scores |= {name: 0.0 for name in ("fact_recall", "agreement") if scores[name] is not None}
        can_cite = retrieval or "citation" not in inapplicable_scores(plan)
        scores["citation"] = citation_share(citations, retrieval) if can_cite else None
        scores["citation_precision"] = citation_precision(citations) if retrieval else None
    if question.answerable:
        scores |= _reference_scores(answer, references, absence_legal is not False) | forms
    right = is_right(question, answer, refused, gold, absence_legal is True, forms)
    scores = {"right": None if right is None else float(right), **scores}
    return {name: value for name, value in scores.items() if value is not None}


def fault_by_plan(plan: Plan, question: Question, answer: str, gold: str = "") -> str | None:
    """Return why an answer is not right in a run of the plan, "" where it is, None where the question has no gold.

    ``gold`` is the text of the gold span, which is in the index; without it the span is not looked at.
    """
    legal = absence_is_legal(plan) is True
    forms = form_scores(question, answer, plan.checks)
    no_value = legal and question.answerable and all_no_value(references_of(question))
    return fault_of_answer(question, answer, _is_refused(plan, answer, no_value, forms), gold, legal, forms)


def _is_refused(plan: Plan, answer: str, no_value: bool, forms: Mapping[str, float | None]) -> bool:
    """Return whether an answer refuses; a gold label that is a refusal of the plan ("not stated") is the answer."""
    return plan.refuses(answer) and (no_value or forms.get("label") != 1.0)


def form_scores(question: Question, answer: str, checks: Sequence[StyleCheck]) -> dict[str, float | None]:
    """Return ``final_answer``, ``label`` and ``slot_f1`` against the nearest reference, where the gold has that form.

    They are {} for a question without an answer.
    """
    references = references_of(question) if question.answerable else ()
    scores = {"final_answer": best_score(final_answer(answer, reference, checks) for reference in references)}
    if any(check.kind == "labels" for check in checks):
        scores["label"] = best_score(
            float(_label_normalised(answer) == _label_normalised(reference)) for reference in references
        )
    records = [slots for reference in references if (slots := json_slots(reference)) is not None]
    if records:
        scores["slot_f1"] = best_score(slot_f1(answer, slots) for slots in records)
    return scores


def combined_score(scores: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Return the combined score of one answer: 0 when it is not right, else RIGHT_SHARE and up to 1 by its grade.

    ``right * (RIGHT_SHARE + (1 - RIGHT_SHARE) * grade)``. The grade is the weighted mean of the weighted scores that
    apply to the question and that a right answer may still lack, such as style and citation (1 when there is none).
    Where the answer cannot be judged (no gold), the weighted mean of all scores that apply is the result (0 when none
    does). A score of which less is better counts as 1 minus its value.
    """
    applied = {name: weight for name, weight in weights.items() if name in scores and weight > 0}
    if "right" not in scores:
        return _weighted_mean(scores, applied, 0.0)
    graded = {name: weight for name, weight in applied.items() if name not in PART_OF_RIGHT}
    return scores["right"] * (RIGHT_SHARE + (1 - RIGHT_SHARE) * _weighted_mean(scores, graded, 1.0))


def _weighted_mean(scores: Mapping[str, float], weights: Mapping[str, float], default: float) -> float:
    total = sum(weights.values())
    gains = sum(SCORE_BY_NAME[name].gain(scores[name]) * weight for name, weight in weights.items())
    return gains / total if total else default


def question_weights(plan: Plan, questions: Sequence[Question]) -> dict[str, float]:
    """Return the weight of each question by its id, 1 on average.

    They are those of :func:`asked_weights`, unless the questions on which "there is no answer" is right are more than
    NO_ANSWER_SHARE of all: then each of those weighs less, so that together they have that share.
    """
    legal = absence_is_legal(plan) is True
    without = {question.id for question in questions if lacks_answer(question, legal)}
    asked = asked_weights(questions) or {question.id: 1.0 for question in questions}
    share = sum(asked[id] for id in without) / len(questions) if questions else 0.0
    if not NO_ANSWER_SHARE < share < 1:
        return asked
    low, high = NO_ANSWER_SHARE / share, (1 - NO_ANSWER_SHARE) / (1 - share)
    return {id: weight * (low if id in without else high) for id, weight in asked.items()}


def asked_weights(questions: Sequence[Question]) -> dict[str, float]:
    """Return how often each question is asked by its id, 1 on average, as the weights of the rows say; {} if all are equal.

    Each wording of a question has the weight of its row.
    """
    if len({question.weight for question in questions}) < 2:
        return {}
    scale = len(questions) / sum(question.weight for question in questions)
    return {question.id: question.weight * scale for question in questions}


def inapplicable_scores(plan: Plan) -> dict[str, str]:
    """Return the scores that no arm of a plan can have, each with the reason."""
    if any(arm.retrieval for arm in plan.arms):
        return {}
    reason = "no arm looks passages up, so none can cite"
    return {"citation": reason, "citation_precision": reason}


def fact_recall(answer: str, fact: str, question: str = "") -> float | None:
    """Return the share of the fact's content words that the answer contains; None when there are none.

    Words of the question are left out. A bare yes or no has no content words: there the polarity is compared.
    """
    question_words = set(content_words(question))
    wanted = Counter(word for word in content_words(fact) if word not in question_words)
    if not wanted:
        return float((polarity(answer) == "no") == (polarity(fact) == "no")) if _bare_polarity(fact) else None
    answer_words = set(content_words(answer)) | extract_numbers(answer)
    return sum(n for word, n in wanted.items() if word in answer_words) / sum(wanted.values())


def fact_agreement(answer: str, fact: str) -> float | None:
    """Return 1.0 when the answer has the polarity and every number of the fact, else 0.0; None when it has neither."""
    numbers = extract_numbers(fact)
    fact_polarity = polarity(fact)
    if not numbers and fact_polarity is None:
        return None
    same_polarity = fact_polarity is None or (polarity(answer) == "no") == (fact_polarity == "no")
    return float(numbers <= extract_numbers(answer) and same_polarity)


def token_f1(answer: str, reference: str) -> float:
    """Return SQuAD's token F1: the harmonic mean of word precision and recall.

    Punctuation and articles are left out.
    """
    a, b = Counter(_squad_normalised(answer).split()), Counter(_squad_normalised(reference).split())
    common = sum((a & b).values())
    return 2 * common / (sum(a.values()) + sum(b.values())) if common else 0.0


def citation_share(citations: Sequence[Citation], retrieval: bool) -> float:
    """Return the share of an answer's factual sentences that the passages they cite support in full.

    The literature calls this citation recall. ``citations`` has a row for every factual sentence, also for
    those without a mark, and one row per passage where a sentence has several.
    """
    if not retrieval or not citations:
        return 0.0
    sentences = {(c.answer_start, c.answer_end) if c.answer_end else n: c for n, c in enumerate(citations)}
    return sum(c.supported for c in sentences.values()) / len(sentences)


def citation_precision(citations: Sequence[Citation]) -> float | None:
    """Return the share of the marks ``[n]`` whose sentence is supported in full; None for an answer without marks.

    Marks are added by code, and only where a passage supports part of the sentence, so this is 1 minus the
    share of marks at sentences that are supported only in part.
    """
    marks = [c.supported for c in citations if c.n]
    return sum(marks) / len(marks) if marks else None


def best_score(values: object) -> float | None:
    """Return the largest value that could be computed; None when none could."""
    computed = [value for value in values if value is not None]  # type: ignore[attr-defined]
    return max(computed) if computed else None


def marks_answer(checks: Sequence[StyleCheck]) -> bool:
    """Return whether one of the checks says where a reply's final answer is."""
    return bool(_patterns(checks))


def final_answer(answer: str, gold: str, checks: Sequence[StyleCheck]) -> float | None:
    """Compare the final answer of a reply with that of the gold.

    Numbers are compared as numbers (1,200 equals 1200.00), any other text without case and repeated white
    space.

    Returns:
        1.0 when they are equal, 0.0 when they differ or the reply has none; None when the gold has none.
    """
    for pattern in _patterns(checks):
        wanted = _extract_final_answer(pattern, gold)
        if wanted is not None:
            return float(_extract_final_answer(pattern, answer) == wanted)
    return None


def missing_form(texts: Sequence[str], checks: Sequence[StyleCheck]) -> str:
    """Return the rule for final answers that none of the texts meets, "" where one does or the checks have no such rule.

    Rules for final answers are labels and patterns with the group ``answer``. A question none of whose gold answers meets
    them cannot be answered rightly by a reply that does; other checks are of the wording, which does not decide on right.

    Args:
        texts: the gold answers of one question, or a reply.
        checks: the checks of a plan.
    """
    plain = [text.strip() for text in texts]
    for check in checks:
        if check.kind == "labels":
            met = any(
                _label_normalised(text) in map(_label_normalised, map(str, check.value)) for text in plain
            )
        elif check.kind == "regex" and (marked := _patterns([check])):
            met = any(_extract_final_answer(marked[0], text) is not None for text in plain)
        else:
            continue
        if plain and not met:
            return rule_text(check) or f"{check.kind}: {check.value}"
    return ""


def rouge_l(answer: str, reference: str) -> float:
    """Return ROUGE-L: the F-measure of the longest common subsequence of words (Lin 2004).

    Sentence level, precision and recall weigh the same. Words are runs of letters, digits and underscores,
    compared without case. Two texts without words score 1 when they are equal and 0 otherwise (rouge-score: 0).
    """
    a, b = _words(answer), _words(reference)
    if not a or not b:
        return float(answer.strip() == reference.strip())
    return 2 * longest_common_subsequence(a, b) / (len(a) + len(b))


def longest_common_subsequence(a: list[str], b: list[str]) -> int:
    """Return the length of the longest common subsequence of two lists.

    Bit-parallel algorithm of Hyyrö (2004): one addition of len(a)-bit integers for each item of ``b``.
    """
    positions_of: dict[str, int] = {}
    for position, item in enumerate(a):
        positions_of[item] = positions_of.get(item, 0) | 1 << position
    all_ones = (1 << len(a)) - 1
    unmatched = all_ones
    # Each step of the common subsequence clears one bit of `unmatched`; the carry of the addition moves a match
    # to the next free position.
    for item in b:
        candidates = unmatched & positions_of.get(item, 0)
        unmatched = ((unmatched + candidates) | (unmatched - candidates)) & all_ones
    return len(a) - unmatched.bit_count()


def chrf(answer: str, reference: str) -> float:
    """Return chrF2 by sacreBLEU: the F2 measure of character n-grams, n from 1 to 6, white space left out (Popović 2015).

    Precision and recall are means over the orders that both texts are long enough for; case counts. No words
    are needed, so it also serves languages without spaces. Two texts without characters score 1 (sacreBLEU: 0).
    """
    if answer.split() == reference.split():
        return 1.0
    return float(_chrf_metric().sentence_score(answer, [reference]).score) / 100


def json_slots(text: str) -> SlotCounts | None:
    """Return the filled slots of a JSON object or array; None when the whole text is neither.

    ``{"a": {"b": "X "}, "c": [1, 2], "d": null}`` has a.b = x, c[] = 1 and c[] = 2. Null and empty texts,
    lists and objects are no values. Texts are compared without case and without outer or repeated spaces; 1
    and 1.0 are equal.
    """
    try:
        value = json.loads(text)
        return Counter(_flatten("", value)) if isinstance(value, dict | list) else None
    except (ValueError, RecursionError):
        return None


def slot_f1(answer: str, gold: SlotCounts) -> float:
    """Return the F1 of an answer's slots: the harmonic mean of precision and recall against the gold's.

    0 when the answer is not JSON, since no program could read it.
    """
    given = json_slots(answer)
    if given is None:
        return 0.0
    total = given.total() + gold.total()
    return 2 * (given & gold).total() / total if total else 1.0


def spurious_slots(answer: str, gold: SlotCounts) -> float | None:
    """Return the share of the answer's slots whose path the gold does not have; None when it is not JSON."""
    given = json_slots(answer)
    if given is None:
        return None
    gold_paths = {path for path, _ in gold}
    invented = sum(count for (path, _), count in given.items() if path not in gold_paths)
    return invented / given.total() if given else 0.0


def _extract_final_answer(pattern: TimedPattern, text: str) -> float | str | None:
    match = pattern.search(text.strip())
    if match is None or not (text_of_answer := match[ANSWER_GROUP]):
        return None
    try:
        return float(re.sub(r"[$,\s]", "", text_of_answer))
    except ValueError:
        return " ".join(text_of_answer.casefold().split())


def _patterns(checks: Sequence[StyleCheck]) -> list[TimedPattern]:
    patterns = [compile_pattern(check.value) for check in checks if check.kind == "regex"]
    return [pattern for pattern in patterns if ANSWER_GROUP in pattern.groups]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


@cache
def _chrf_metric() -> CHRF:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def _flatten(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the path and normalised value of every filled slot below a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(f"{path}.{key}" if path else str(key), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _flatten(f"{path}[]", inner)
    elif isinstance(value, str):
        if plain := " ".join(value.casefold().split()):
            yield path, plain
    elif value is not None:
        number = isinstance(value, float) and value.is_integer()
        yield path, json.dumps(int(value) if number else value)


def _reference_scores(answer: str, references: Sequence[str], optional: bool) -> dict[str, float | None]:
    """Return the scores against the nearest reference.

    With ``optional``, slots that a JSON reference lacks may be missing, so invented ones are scored too.
    """
    scores = {
        "token_f1": best_score(token_f1(answer, reference) for reference in references),
        "exact_match": best_score(
            float(_squad_normalised(answer) == _squad_normalised(reference)) for reference in references
        ),
        "rouge_l": best_score(rouge_l(answer, reference) for reference in references),
        "chrf": best_score(chrf(answer, reference) for reference in references),
    }
    records = [slots for reference in references if (slots := json_slots(reference)) is not None]
    if records:
        scores["valid_json"] = float(json_slots(answer) is not None)
        if optional:
            shares = [share for slots in records if (share := spurious_slots(answer, slots)) is not None]
            scores["spurious"] = min(shares, default=None)
    return scores


def absence_is_legal(plan: Plan) -> bool | None:
    """Return the plan's answer to whether "not stated" can be right; None when it was not answered."""
    answered = plan.answers.get("absence_is_legal")
    return None if answered is None or answered.value is None else answered.value in (True, "yes", "true")


def _label_normalised(text: str) -> str:
    return " ".join(re.split(r"[\s_-]+", text.casefold().strip().strip(".\"'`")))


def _bare_polarity(fact: str) -> bool:
    return _squad_normalised(fact) in {"yes", "no"}


def _squad_normalised(text: str) -> str:
    return " ".join(
        re.sub(r"\b(?:a|an|the)\b", " ", re.sub(r"[^\w\s.]|\.(?!\d)", " ", text.casefold())).split()
    )
