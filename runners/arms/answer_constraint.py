"""What a plan's answers are held to while they are generated, from its checks.

:func:`answer_constraint` returns the constraint, the same for every arm that generates; :func:`constraint_report` says in a
sentence what it is, or why there is none. A check of labels or of JSON is followed as it is, a pattern where one of the
whole answer stands for it (:mod:`runners.arms.whole_patterns`); lengths, forbidden texts and patterns about openings,
closings or the shape of free text are judged afterwards only.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, TypedDict

from runners.arms.whole_patterns import NotWhole, whole_pattern
from runners.inference.constraints.constraint import OutputConstraint
from runners.plan.schema import Plan, StyleCheck
from runners.plan.steps import EvaluateStep
from runners.scoring.scores import ANSWER_GROUP
from runners.scoring.style_checks import rule_text

_VALUE = f"(?P<{ANSWER_GROUP}>"


class _ConstraintKeyword(TypedDict, total=False):
    constraint: OutputConstraint


@dataclass(frozen=True, slots=True)
class _Held:
    """A constraint, or None, and the sentence about it."""

    constraint: OutputConstraint | None
    report: str


def answer_constraint(plan: Plan) -> OutputConstraint | None:
    """Return what the plan's answers are held to; None where nothing is, or where the plan says ``constrain: off``.

    The plan's refusals are allowed too where it has an index or weighs refusals. Kept: it is called for every question.
    """
    return _held(plan).constraint


def constraint_keyword(plan: Plan) -> _ConstraintKeyword:
    """Return the constraint as a keyword of a generator's calls; {} without one."""
    constraint = answer_constraint(plan)
    return {"constraint": constraint} if constraint is not None else {}


def constraint_input(plan: Plan, step: EvaluateStep) -> dict[str, Any]:
    """Return the constraint as something that a step's answers depend on; {} for answers that are held to nothing."""
    if step.classifier or step.labels == "scored" or (constraint := answer_constraint(plan)) is None:
        return {}
    return {"constraint": asdict(constraint)}


def constraint_report(plan: Plan) -> str:
    """Return a sentence: what the answers are held to, or why they are not."""
    return _held(plan).report


def demands_form(check: StyleCheck) -> bool:
    """Return whether a check asks for JSON or for a value in a named place, to which answers should be held."""
    return check.kind == "json_schema" or (check.kind == "regex" and _VALUE in check.value)


def _held(plan: Plan) -> _Held:
    if plan.constrain == "off":
        return _Held(None, "answers are not constrained to a form: the plan has constrain: off")
    refuses = plan.index is not None or plan.weights.get("refusal", 0) > 0
    checks = json.dumps([check.model_dump(mode="json") for check in plan.checks], ensure_ascii=False)
    return _of_checks(checks, plan.prompts.refusals if refuses else ())


@lru_cache(maxsize=64)
def _of_checks(checks_json: str, refusals: tuple[str, ...]) -> _Held:
    """Return the constraint of checks in JSON: of labels before JSON, of JSON before patterns."""
    checks = [StyleCheck(**values) for values in json.loads(checks_json)]
    refused: list[str] = []
    candidates: list[tuple[int, OutputConstraint, str]] = []
    for check in checks:
        try:
            rank, constraint, words = _candidate(check)
        except NotWhole as error:
            refused.append(f'the check "{_words(check)}": {error}')
            continue
        labels = constraint.value if constraint.kind == "labels" else ()
        constraint = replace(constraint, also=tuple(text for text in refusals if text not in labels))
        if problem := _problem(constraint):
            refused.append(f'the check "{_words(check)}": {problem}')
        else:
            candidates.append((rank, constraint, words))
    if candidates:
        _, constraint, words = min(candidates, key=lambda candidate: candidate[0])
        return _Held(
            constraint,
            f"answers are constrained to {words}{' or a refusal of the plan' * bool(constraint.also)}",
        )
    why = "; ".join(refused) or "the plan has no checks"
    return _Held(None, f"answers are not constrained to a form: {why}")


def _words(check: StyleCheck) -> str:
    return rule_text(check) or textwrap.shorten(f"{check.kind}: {check.value}", 100, placeholder=" ...")


def _candidate(check: StyleCheck) -> tuple[int, OutputConstraint, str]:
    """Return the constraint of one check, its rank (the lowest is taken) and what it is in words; NotWhole without one.

    Labels come before JSON and JSON before patterns; of patterns, whole values come first, then forms with a fixed
    beginning, such as cards, then last lines, then numbers of lines.
    """
    if check.kind == "labels" and check.value:
        labels = [str(label) for label in check.value]
        return 0, OutputConstraint.of_labels(labels), f"the {len(labels)} labels of the plan"
    if check.kind == "json_schema":
        words = "JSON with the keys and types of the plan's schema"
        return 1, OutputConstraint.of_schema(check.value), words
    if check.kind != "regex":
        raise NotWhole("it is judged when the answer is whole")
    whole = whole_pattern(check.value)
    valued = _VALUE in check.value
    rank = 4 if whole.tail else 2 if valued else 3 if whole.opening else 5
    return rank, OutputConstraint("regex", whole.pattern, tail=whole.tail), f"a form: {_words(check)}"


def _problem(constraint: OutputConstraint) -> str:
    """Return why a grammar cannot be made of a constraint, as llguidance says it; "" where it can."""
    from llguidance import LLMatcher

    if constraint.kind == "json_schema":
        grammar = LLMatcher.grammar_from_json_schema(str(constraint.value))
    elif constraint.kind == "regex":
        grammar = LLMatcher.grammar_from_regex(str(constraint.value))
    else:
        return ""
    failed, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    return messages[0].splitlines()[0] if failed and messages else ""
