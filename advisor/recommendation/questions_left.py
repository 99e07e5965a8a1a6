"""Which questions are still worth asking, how many at most, and what is known from which source."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from itertools import product
from typing import Any

from advisor.questionnaire.answers import Answers, format_answer
from advisor.questionnaire.model_questions import SEVERAL_KEYS
from advisor.questionnaire.profile import Profile
from advisor.questionnaire.question_types import Question
from advisor.questionnaire.questions import QUESTION_BY_ID, QUESTIONS
from advisor.recommendation.ranking import first_choice

DERIVED_ANSWERS: Mapping[str, Mapping[str, Any]] = {
    "documents": {"task_needs_facts": "new", "corpus_tokens": 50_000},
    "examples": {"labelled_examples": 300, "output_format": "free"},
    "model": {"model_params_b": None},
}
"""What changes with an answer: a file gives the counts of its content (here typical values), while a model's
name may not give its size.
"""
READ_ANSWERS: frozenset[str] = frozenset(key for question in QUESTIONS for key in question.when.reads)
"""The answers that decide whether another question is asked."""
SOURCE_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("you said", ("asked", "flag", "file")),
    ("your settings", ("config",)),
    ("measured", ("probed", "counted")),
    ("this machine", ("detected",)),
    ("by default", ("default",)),
)
"""Headings for the sources of answers, in the order they are shown."""


def is_worth_asking(question: Question, known: Mapping[str, Any], everything: bool) -> bool:
    """Return whether a question can still matter and was not answered by a file, the model or the machine.

    ``everything`` includes questions of detail and those already measured.
    """
    if not question.when(known):
        return False
    measured = bool(question.measured_by) and known.get(question.id) is not None
    return everything or not (question.detail or measured)


def max_questions_left(known: Mapping[str, Any], settled: Collection[str], everything: bool = False) -> int:
    """Return the most questions that can still follow, whatever is answered: exact, and it never rises.

    Dynamic programming over the paths through the questionnaire; states that agree in the answers that later
    questions read are solved once (about a millisecond).

    Args:
        known: the answers so far.
        settled: the questions not to be asked again.
        everything: whether questions of detail are asked too.
    """
    open_questions = [question for question in QUESTIONS if question.id not in settled]
    later: list[frozenset[str]] = [frozenset()]
    for question in reversed(open_questions):
        later.append(later[-1] | {question.id, *question.when.reads})
    later.reverse()
    seen: dict[tuple[int, frozenset[tuple[str, Any]]], int] = {}

    def longest(start: int, state: dict[str, Any]) -> int:
        """Return the longest path from a question on, given what is known."""
        if start == len(open_questions):
            return 0
        key = (start, frozenset((k, v) for k, v in state.items() if k in later[start]))
        if key not in seen:
            question = open_questions[start]
            if not is_worth_asking(question, state, everything):
                seen[key] = longest(start + 1, state)
            elif question.id not in READ_ANSWERS:
                seen[key] = 1 + longest(start + 1, state)
            else:
                seen[key] = 1 + max(
                    longest(start + 1, _with_answer(state, question, v)) for v in _distinct_answers(question)
                )
        return seen[key]

    return longest(0, dict(known))


def can_decide(question: Question, profile: Profile) -> bool:
    """Return whether some answer to this question alone would make another method the choice."""
    choice = first_choice(profile).choice
    return any(
        first_choice(_profile_with_answer(profile, question, value)).choice != choice
        for value in question.trial
    )


def known_by_source(answers: Answers) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return for each group of sources its answers as "id value"; groups without any are left out."""
    rows = []
    for title, sources in SOURCE_GROUPS:
        keys = [key for key in answers if answers[key].source in sources and _is_shown(answers, key)]
        if keys:
            rows.append((title, tuple(f"{key} {format_answer(answers[key].value, 24)}" for key in keys)))
    return tuple(rows)


def unknown_answers(answers: Answers) -> tuple[str, ...]:
    """Return the ids that could still matter and have no answer, in the questionnaire's order."""
    values = answers.values_known
    return tuple(
        question.id
        for question in QUESTIONS
        if values.get(question.id) is None
        and is_worth_asking(question, values, True)
        and question.id not in ("goal", "prompt", "questions", "columns", *SEVERAL_KEYS)
    )


@lru_cache
def _distinct_answers(question: Question) -> tuple[Any, ...]:
    """Return one value for each class of answers that no condition of any question can tell apart."""
    readers = [other.when for other in QUESTIONS if question.id in other.when.reads]
    representatives: dict[tuple[bool, ...], Any] = {}
    for value in question.trial:
        outcomes = []
        for when in readers:
            others = [key for key in when.reads if key != question.id]
            outcomes += [
                when({**dict(zip(others, values, strict=True)), question.id: value})
                for values in product(*(QUESTION_BY_ID[key].trial for key in others))
            ]
        representatives.setdefault(tuple(outcomes), value)
    return tuple(representatives.values())


def _with_answer(state: Mapping[str, Any], question: Question, value: Any) -> dict[str, Any]:
    """Return what is known after an answer; a file that is given adds the counts of its content."""
    derived = DERIVED_ANSWERS.get(question.id, {}) if value is not None else {}
    return {**state, question.id: value, **derived}


def _profile_with_answer(profile: Profile, question: Question, value: Any) -> Profile:
    """Return the profile after an answer, with what a file adds."""
    if question.kind in ("text", "path", "columns", "models"):
        for key, derived in DERIVED_ANSWERS.get(question.id, {}).items():
            profile = profile.change(key, derived if value is not None else None)
    return profile.change(question.id, value)


def _is_shown(answers: Answers, key: str) -> bool:
    """Return whether an answer is listed: not unknowns, nor numbers of a GPU that does not exist."""
    no_gpu = "gpu_kind" in answers and answers["gpu_kind"].value == "none"
    return answers[key].value is not None and not (no_gpu and key in ("gpu_count", "gpu_memory_gib"))
