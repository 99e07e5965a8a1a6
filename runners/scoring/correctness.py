"""What counts as a right answer: one definition for the trial, the report, the live scores and ``eval``.

:func:`is_right` decides by the form of the gold. Labels, JSON, a marked final answer and cards of ``KEY: value``
lines must have the gold's values. Free text must state the fact, and little else
(:func:`runners.scoring.free_text.text_states_fact`): a copied passage, a list of key words or numbers, the question
repeated, or an answer that says something else in the fact's place is not right, although it holds the fact's words.

The thresholds were chosen on finished trials and on wrong answers made from them; docs/how-it-measures.md says how far the
rule agrees with answers that were judged by hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from runners.data.questions import Question
from runners.data.refusals import all_no_value, is_no_value
from runners.scoring.free_text import FACT_SHARE, SHORT_FACT, fault_of, fault_of_parts, text_states_fact
from runners.scoring.statements import content_tokens, language_of, numbers_of

_CARD_LINE = re.compile(r"\s*[-*]?\s*(?P<key>[^\W\d_][\w ./()-]{0,30}?)\s*:\s+(?P<value>\S.*)")
_LAST_LINE = re.compile(
    r"\W*(?:####|(?:final )?answer:|result:|antwort:|ergebnis:|respuesta:|\\boxed)\s*(?P<answer>.+)", re.I
)


def is_right(
    question: Question,
    answer: str,
    refused: bool,
    gold: str = "",
    absence_is_legal: bool = False,
    forms: Mapping[str, float | None] | None = None,
) -> bool | None:
    """Return whether an answer is right; None where the question has no gold to compare with.

    Style, wording and citations do not count. Whether the result is None depends on the question alone, so that every
    arm is judged on the same questions.

    Args:
        question: the question with its gold.
        answer: the reply without citation marks.
        refused: whether the reply is a refusal.
        gold: the text of the gold span, "" when the question has none.
        absence_is_legal: whether "not stated" can be right for an answerable question.
        forms: the scores ``label``, ``slot_f1`` and ``final_answer`` of the answer, as far as its gold has that form.
    """
    fault = fault_of_answer(question, answer, refused, gold, absence_is_legal, forms)
    return None if fault is None else not fault


def fault_of_answer(
    question: Question,
    answer: str,
    refused: bool,
    gold: str = "",
    absence_is_legal: bool = False,
    forms: Mapping[str, float | None] | None = None,
) -> str | None:
    """Return why an answer is not right, "" where it is, None where :func:`is_right` returns None; its arguments."""
    if not question.answerable:
        return "" if refused else "it is no refusal, and the question has no answer (answerable: false)"
    references = references_of(question)
    if lacks_answer(question, absence_is_legal):
        return (
            ""
            if refused or is_no_value(answer)
            else "it states a value, and the gold says that there is none"
        )
    by_form = [value for value in (forms or {}).values() if value is not None]
    facts = gold_texts(question, gold)
    if not (by_form or facts):
        return None
    if refused:
        return "it is a refusal, and the question has an answer"
    if by_form:
        return "" if min(by_form) >= 1.0 else "its value is another than the gold's"
    if (by_line := _by_lines(question, answer, references)) is not None:
        return "" if by_line else "its values are others than the gold's"
    known = tuple(dict.fromkeys((*facts, *question.answers, *question.all_of, *references)))
    if question.all_of and not question.fact:
        fault = fault_of_parts(answer, question.all_of, question.question, known)
        if fault or not question.answers:
            return fault
    first = ""
    for fact in facts:
        if not (fault := fault_of(answer, fact, question.question, known)):
            return ""
        first = first or fault
    return first


def lacks_answer(question: Question, absence_is_legal: bool = False) -> bool:
    """Return whether saying that there is no answer is right: an arm that always says so is right on such questions."""
    return not question.answerable or (absence_is_legal and all_no_value(references_of(question)))


def references_of(question: Question) -> tuple[str, ...]:
    """Return the replies that an answer is compared with: the references, else the short answers."""
    return question.references or ((question.reference,) if question.reference else question.short_answers)


def gold_texts(question: Question, gold: str) -> tuple[str, ...]:
    """Return the texts that count as the fact.

    The row's own fact, else its short answers or parts, else the gold span, else every reference.
    """
    if question.fact:
        return (question.fact,)
    if question.short_answers:
        return question.short_answers
    if gold:
        return (gold,)
    return question.references or ((question.reference,) if question.reference else ())


def _by_lines(question: Question, answer: str, references: Sequence[str]) -> bool | None:
    """Return whether a card or a marked last line has the values of the nearest reference; None for other gold.

    A card is a text of two and more lines ``KEY: value`` only, or one line whose key is in capitals. Where the question
    has short answers, parts or a fact besides, those are compared instead.
    """
    if question.fact or (question.short_answers and question.short_answers != tuple(references)):
        return None
    cards = [fields for reference in references if (fields := card_fields(reference))]
    if cards:
        given = card_fields(answer, strict=False)
        return any(_same_card(given, fields) for fields in cards)
    marked = [line for reference in references if (line := _marked_line(reference))]
    if marked:
        given_line = _marked_line(answer)
        return any(given_line is not None and _same_value(given_line, line) for line in marked)
    return None


def card_fields(text: str, strict: bool = True) -> dict[str, str]:
    """Return the fields of a card of ``KEY: value`` lines by key, {} for a text that is none.

    With ``strict`` every line must be a field, and a single line needs a key in capitals; else other lines are left out.
    """
    lines = [line for line in text.strip().splitlines() if line.strip()]
    matches = [_CARD_LINE.fullmatch(line) for line in lines]
    if strict and not (all(matches) and (len(lines) > 1 or any(m and m["key"].isupper() for m in matches))):
        return {}
    return {" ".join(m["key"].casefold().split()): m["value"].strip() for m in matches if m}


def _same_card(given: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return given.keys() == wanted.keys() and all(
        _same_value(given[key], value) for key, value in wanted.items()
    )


def _same_value(given: str, wanted: str) -> bool:
    """Return whether a field has the wanted value: the same text or number; a sentence must state the same."""
    plain, wanted_plain = (
        " ".join(re.findall(r"\w+(?:[.,:]\w+)*", text.casefold())) for text in (given, wanted)
    )
    if plain == wanted_plain or (is_no_value(given) and is_no_value(wanted)):
        return True
    language = language_of(wanted)
    if len(wanted.split()) <= SHORT_FACT:
        numbers = numbers_of(wanted, language)
        same_words = set(content_tokens(given, language)) == set(content_tokens(wanted, language))
        return bool(numbers) and numbers == numbers_of(given, language) and same_words
    return text_states_fact(given, wanted)


def _marked_line(text: str) -> str | None:
    """Return what the last line has after "####" or "Answer:", None when it is no such line."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    match = _LAST_LINE.fullmatch(lines[-1].strip()) if lines else None
    return match["answer"].strip(" {}$") if match else None


def stored_right(scores: Mapping[str, float], answerable: bool = True) -> bool:
    """Return whether an answer of a finished run is right, from its stored scores.

    Runs of before have no score ``right``; for them the rule of their time decides: it refuses exactly when it should,
    else it has every number and half the words of the gold; without facts the combined score decides.
    """
    if "right" in scores:
        return scores["right"] >= 0.5
    if "refusal" in scores and (scores["refusal"] < 1.0 or not answerable):
        return scores["refusal"] >= 1.0
    if "fact_recall" in scores:
        return scores["fact_recall"] >= FACT_SHARE and scores.get("agreement", 1.0) >= 1.0
    return scores["combined"] >= FACT_SHARE
