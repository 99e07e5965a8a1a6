"""What a cause was decided by, in a sentence; and whether an answer is wrong by its form alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rag.text.sanitize import single_line
from rag.text.words import sentences
from runners.data.questions import Question
from runners.failures.causes import Replay
from runners.failures.gold_search import GoldPlace
from runners.plan.schema import Plan
from runners.scoring.correctness import card_fields, references_of
from runners.scoring.free_text import MOSTLY_OTHER, text_states_fact
from runners.scoring.scores import fault_by_plan, form_scores, json_slots, missing_form
from runners.scoring.style_checks import failed_checks

SHOWN_CHARACTERS = 90
"""Of an answer or a sentence that is quoted."""


def fault_of_form(
    plan: Plan, question: Question, answer: str, scores: Mapping[str, float], facts: Sequence[str]
) -> str:
    """Return what of its form is wrong with an answer that states the gold; "" where it does not, or nothing is wrong."""
    if not question.answerable:
        return ""
    if scores["right"] >= 1.0:
        rules = failed_checks(answer, plan.checks) if scores.get("style", 1.0) < 1.0 else ()
        return f"the answer is right, but not in the form of the checks: {'; '.join(rules)}" if rules else ""
    if plan.refuses(answer):
        return ""
    if any(value is not None for value in form_scores(question, answer, plan.checks).values()):
        wanted = _values(references_of(question))
        broken = missing_form([answer], plan.checks) or (scores.get("valid_json") == 0.0 and "no valid JSON")
        if broken and wanted and all(_has_value(answer, value) for value in wanted):
            return f"the answer has the gold's values, but not their form: {broken}"
        return ""
    if fault_by_plan(plan, question, answer) != MOSTLY_OTHER:
        return ""
    known = (*facts, *references_of(question))
    for sentence in sentences(answer):
        if any(text_states_fact(sentence, fact, question.question, known) for fact in facts):
            return f"the answer states it among much else: {quoted(sentence)}"
    return ""


def evidence_text(row: Mapping[str, Any], place: GoldPlace, replay: Replay, arm: str) -> str:
    """Return what was seen of an answer: where its gold passage is, and what it is with that passage."""
    where = f"{place.gold.location(short=True)} states it ({quoted(place.sentence)})"
    return f"{where}; {_found_text(place, arm)}; {_replay_text(row, replay)}{_conflict_text(row)}"


def no_answer_text(row: Mapping[str, Any]) -> str:
    """Return what an answer rests on where the question has none."""
    cited = sorted({citation["doc"] for citation in row["citations"] if citation["n"]})
    basis = f"; the answer cites {', '.join(cited)}" if cited else ", and nothing supports the answer"
    return f"the question has no answer in the documents{basis}"


def no_passage_text(facts: Sequence[str], row: Mapping[str, Any]) -> str:
    """Return that no passage states a gold answer, with what the answer rests on, as the gold may be what is wrong."""
    text = (
        f"no passage states {quoted(facts[0]) if facts else 'the gold answer'} as the answer to this question"
    )
    supported = next(
        (citation for citation in row["citations"] if citation["n"] and citation["supported"]), None
    )
    if supported and not row["refused"]:
        text += f"; the answer rests on {supported['doc']}: is the gold right?"
    return text


def quoted(text: str) -> str:
    """Return a text in quotation marks, on one line and cut where it is long."""
    line = single_line(text)
    return f"“{line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1].rstrip() + '…'}”"


def _found_text(place: GoldPlace, arm: str) -> str:
    if place.retrieved is None:
        return f"{arm} looks nothing up"
    if place.shown:
        return f"it was shown{f', at rank {place.rank} of the search' if place.rank else ''}"
    if place.rank is None:
        return "it is not among the first hits of the search"
    return f"the search has it at rank {place.rank}, and it was not shown"


def _replay_text(row: Mapping[str, Any], replay: Replay) -> str:
    how = "with it alone" if replay.passages == "alone" else "with it first"
    if replay.right:
        return f"{how} the answer is right: {quoted(replay.answer)}"
    if replay.refused:
        return f"{how} it is refused{' too' if row['refused'] else ''}"
    return f"{how} the answer is wrong{'' if row['refused'] else ' too'}: {quoted(replay.answer)}"


def _conflict_text(row: Mapping[str, Any]) -> str:
    return "; passages that were shown contradict each other" if row.get("conflicts") else ""


def _values(references: Sequence[str]) -> list[str]:
    """Return the values of a structured gold: of JSON, of a card, of a marked final answer, else the label itself."""
    reference = references[0] if references else ""
    if slots := json_slots(reference):
        return [value for _, value in slots]
    if fields := card_fields(reference):
        return list(fields.values())
    return [re.sub(r".*(?:####|:)\s*", "", reference.strip().splitlines()[-1])] if reference.strip() else []


def _has_value(answer: str, value: str) -> bool:
    return bool(re.search(rf"(?<!\w){re.escape(value.casefold())}(?!\w)", answer.casefold()))
