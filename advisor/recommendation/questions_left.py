"""Which questions are still worth asking, and how many that can be at most.

What is known of a situation and from where, and what is not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from itertools import product
from typing import Any

from advisor.questionnaire.answers import Answers, format_answer
from advisor.questionnaire.profile import Profile
from advisor.questionnaire.questions import QUESTION_BY_ID, QUESTIONS, Question
from advisor.recommendation.ranking import rank_methods

DERIVED_ANSWERS: Mapping[str, Mapping[str, Any]] = {
    "documents": {"task_needs_facts": "new", "corpus_tokens": 50_000},
    "examples": {"labelled_examples": 300, "output_format": "free"},
    "model": {"model_params_b": None},
}
"""What changes with an answer: a file tells what it holds (a value that stands for what may be counted), while
a model's name may tell no size."""
READ_ANSWERS: frozenset[str] = frozenset(key for question in QUESTIONS for key in question.when.reads)
"""The answers on which it depends whether another question is asked."""


def is_worth_asking(question: Question, known: Mapping[str, Any], everything: bool) -> bool:
    """Say whether a question can still matter and was not told by a file, the model or the machine."""
    if not question.when(known):
        return False
    measured = bool(question.measured_by) and known.get(question.id) is not None
    return everything or not (question.detail or measured)


def max_questions_left(known: Mapping[str, Any], settled: Collection[str], everything: bool = False) -> int:
    """Return the most questions that can still follow, whatever is answered: exact, and it never rises.

    ``settled`` are the questions not to be asked again. Takes every way through the questionnaire, once per set
    of answers that later questions read (dynamic programming: about a millisecond).
    """
    open_questions = [question for question in QUESTIONS if question.id not in settled]
    later: list[frozenset[str]] = [frozenset()]
    for question in reversed(open_questions):
        later.append(later[-1] | {question.id, *question.when.reads})
    later.reverse()
    seen: dict[tuple[int, frozenset[tuple[str, Any]]], int] = {}

    def longest(start: int, state: dict[str, Any]) -> int:
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
                seen[key] = 1 + max(longest(start + 1, _after(state, question, v)) for v in _kinds(question))
        return seen[key]

    return longest(0, dict(known))


def can_decide(question: Question, profile: Profile) -> bool:
    """Say whether some answer to this question alone would make another method first."""
    choice = rank_methods(profile).choice
    return any(rank_methods(_tried(profile, question, value)).choice != choice for value in question.trial)


@lru_cache
def _kinds(question: Question) -> tuple[Any, ...]:
    """Return one value for each kind of answer that no condition of any question can tell apart."""
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


def _after(state: Mapping[str, Any], question: Question, value: Any) -> dict[str, Any]:
    """Return what is known after an answer; a file that is given tells what it holds."""
    derived = DERIVED_ANSWERS.get(question.id, {}) if value is not None else {}
    return {**state, question.id: value, **derived}


def _tried(profile: Profile, question: Question, value: Any) -> Profile:
    if question.kind in ("text", "path"):
        for key, derived in DERIVED_ANSWERS.get(question.id, {}).items():
            profile = profile.change(key, derived if value is not None else None)
    return profile.change(question.id, value)


SOURCE_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("you said", ("asked", "flag", "file")),
    ("your settings", ("config",)),
    ("measured", ("probed", "counted")),
    ("this machine", ("detected",)),
    ("by default", ("default",)),
)
"""The words for where answers come from, in the order they are shown."""


def known_by_source(answers: Answers) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return for each kind of source its answers as "id value"; sources without any are left out."""
    rows = []
    for title, sources in SOURCE_GROUPS:
        keys = [key for key in answers if answers[key].source in sources and _tells(answers, key)]
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
        and question.id not in ("goal", "prompt", "questions")
    )


def _tells(answers: Answers, key: str) -> bool:
    """Leave out unknowns, and the numbers of a GPU that is not there."""
    no_gpu = "gpu_kind" in answers and answers["gpu_kind"].value == "none"
    return answers[key].value is not None and not (no_gpu and key in ("gpu_count", "gpu_memory_gib"))
