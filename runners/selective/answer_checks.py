"""How sure an arm's answers are: what the check of support refuses, rightly and wrongly, and how many repeat the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rag.grounding.context import contains_delimiter, shown_delimiter
from rag.grounding.curve import evenly
from rag.refusal.relevance import LEAST_SUPPORT, UNCITED
from rag.text.words import words
from runners.arms.prompt_selection import StoredPrompts
from runners.data.questions import Question
from runners.plan.schema import Plan
from runners.report.checks import AnswerChecks, CheckedAnswers, RiskPoint
from runners.report.records import AnswerCount, ArmReport
from runners.scoring.scores import fault_by_plan
from runners.selective.on_dev import ArmSettings, settings_of

REPEATED_RUN = 4
"""Words in a row of the instructions that count as repeated."""
REPEATED_SHARE = 0.5
"""Share of an answer's words in such runs from which it repeats the instructions."""
MOST_POINTS = 101
Row = Mapping[str, Any]


def with_checks(
    arm: ArmReport, plan: Plan, rows: Sequence[Row], questions: Mapping[str, Question], stored: StoredPrompts
) -> ArmReport:
    """Return an arm's report with what the check of support makes of its answers, and how many repeat the prompt.

    Args:
        arm: its report.
        plan: the run's plan.
        rows: the journal, of all arms.
        questions: the test questions, wordings among them, by id.
        stored: what the trial settled on dev questions.
    """
    own = [row for row in rows if row["arm"] == arm.arm]
    arm = replace(arm, repeats_prompt=repeated_prompts(plan, own))
    checked = answer_checks(plan, own, questions, settings_of(stored, plan, arm.arm))
    return arm if checked is None else replace(arm, checks=checked[0], risk_coverage=checked[1])


def repeat_warnings(arms: Sequence[ArmReport]) -> list[str]:
    """Return a sentence for each arm of whose answers more than one in twenty repeats the prompt."""
    counts = {arm.arm: count for arm in arms if (count := arm.repeats_prompt) and count.n > count.of / 20}
    return [
        f"of the answers of {arm}, {count.text} repeat the instructions or the marks of the passages: the prompt's layout, "
        "not the method"
        for arm, count in counts.items()
    ]


def answer_checks(
    plan: Plan, rows: Sequence[Row], questions: Mapping[str, Question], settings: ArmSettings
) -> tuple[AnswerChecks, tuple[RiskPoint, ...]] | None:
    """Return what the check makes of an arm's answers, and its risk-coverage curve; None for an arm that cites nothing.

    The curve ranks the answers by support and has a point for each share that may be answered, ties together.

    Args:
        plan: the run's plan.
        rows: of the journal, of the arm.
        questions: the test questions by id.
        settings: what dev answers settled for the arm.
    """
    if not any("support" in row for row in rows):
        return None
    given: list[tuple[float, bool]] = []
    refused = 0
    for row in rows:
        shown = row.get("withheld") or row
        question = questions.get(row["id"])
        fault = fault_by_plan(plan, question, shown["answer"]) if question else None
        if fault is None:
            continue
        if shown.get("refused"):
            refused += 1
        else:
            given.append((row.get("support", UNCITED), not fault))
    least = settings.applied(plan).refusal.least_support
    least = LEAST_SUPPORT if least is None else least
    checks = AnswerChecks(
        applied=settings.check,
        why=settings.why,
        least_support=least,
        mark=_counted([right for _, right in given], refused),
        refuse=_counted(
            [right for support, right in given if support >= least],
            refused + sum(s < least for s, _ in given),
        ),
    )
    return checks, _curve(given, len(given) + refused)


def _counted(right: Sequence[bool], refused: int) -> CheckedAnswers:
    return CheckedAnswers(right=sum(right), wrong=len(right) - sum(right), refused=refused)


def _curve(given: Sequence[tuple[float, bool]], asked: int) -> tuple[RiskPoint, ...]:
    cuts = sorted({support for support, _ in given}, reverse=True)
    points = []
    for cut in evenly(cuts, MOST_POINTS):
        above = [right for support, right in given if support >= cut]
        wrong = len(above) - sum(above)
        points.append(RiskPoint(answered=round(len(above) / asked, 4), wrong=round(wrong / len(above), 4)))
    return tuple(points)


def repeated_prompts(plan: Plan, rows: Sequence[Row]) -> AnswerCount:
    """Return how many of the answers that an arm's model gave repeat its prompt: its instructions, or the delimiter."""
    given = [row for row in rows if row.get("prompt") and not (row.get("withheld") or row).get("refused")]
    runs = _runs(plan.prompts.system)
    for text in (*plan.prompts.refusals, *plan.prompts.formulas):  # which instructions may quote
        runs -= _runs(text)
    return AnswerCount(n=sum(_repeats(row, runs) for row in given), of=len(given))


def _runs(text: str) -> set[tuple[str, ...]]:
    own = words(text)
    return {tuple(own[n : n + REPEATED_RUN]) for n in range(len(own) - REPEATED_RUN + 1)}


def _repeats(row: Row, runs: set[tuple[str, ...]]) -> bool:
    text = (row.get("withheld") or row)["answer"]
    delimiter = shown_delimiter(row["prompt"][-1]["content"])
    if delimiter and contains_delimiter(text, delimiter):
        return True
    own = words(text)
    covered = {
        place
        for n in range(len(own) - REPEATED_RUN + 1)
        if tuple(own[n : n + REPEATED_RUN]) in runs
        for place in range(n, n + REPEATED_RUN)
    }
    return bool(own) and len(covered) >= REPEATED_SHARE * len(own)
