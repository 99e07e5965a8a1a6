"""Whether tuning changed when an arm refuses: fewer correct refusals, or more false ones, on the same questions.

:func:`refusal_drift` compares each tuned arm with its untuned counterpart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rag.evaluation.clusters import mean_by_question
from rag.evaluation.statistics import paired_test
from runners.data.questions import Question
from runners.plan.arm_names import method_of
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep

DRIFT_P = 0.05
"""Largest p value of a permutation test that counts as a change."""

Row = dict[str, Any]


def refusal_drift(plan: Plan, questions: Sequence[Question], rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Compare each tuned arm's refusals with those of the same arm without tuning, from the trial's answers.

    The untuned counterpart has the same inputs: retrieval when the tuned arm has it (the threshold refuses
    for both), otherwise the bare instructions; when that arm was not measured, prompting.

    Args:
        plan: the run's plan.
        questions: the test questions.
        rows: the rows of `trial/answers.jsonl`; several seeds of an arm are averaged question by question.

    Returns:
        One row for each tuned arm, with the intervals of the paired differences and a warning where one is
        due.
    """
    refused: dict[tuple[str, str], list[bool]] = {}
    for row in rows:
        if "refused" in row:
            refused.setdefault((row["arm"], row["id"]), []).append(bool(row["refused"]))
    share = {key: sum(flags) / len(flags) for key, flags in refused.items()}
    rows_of_arms = []
    for arm in plan.arms:
        base = _untuned(plan, arm) if arm.weights else None
        if base:
            rows_of_arms.append(_compare(plan, arm.arm, base, questions, share))
    return rows_of_arms


def _untuned(plan: Plan, arm: EvaluateStep) -> str | None:
    """Return the name of the untuned arm of the same model with the same inputs, else prompting, else None."""
    model = plan.model_of(arm)
    bare = [c for c in plan.arms if not c.weights and not c.model and plan.model_of(c) == model]
    same_inputs = [
        candidate.arm
        for candidate in bare
        if (candidate.retrieval, candidate.shots) == (arm.retrieval, arm.shots)
    ]
    prompting = (candidate.arm for candidate in bare if method_of(candidate.arm) == "prompting")
    return next(iter(same_inputs), next(prompting, None))


def _compare(
    plan: Plan, arm: str, base: str, questions: Sequence[Question], share: Mapping[tuple[str, str], float]
) -> Row:
    """Return an arm's shares of refusals beside its base's, with the intervals of the paired differences."""
    row: Row = {"arm": arm, "against": base}
    for answerable, name in ((False, "unanswerable"), (True, "answerable")):
        ids = [
            question.id
            for question in questions
            if question.answerable is answerable
            and (arm, question.id) in share
            and (base, question.id) in share
        ]
        now, was = ([share[arm_name, id] for id in ids] for arm_name in (arm, base))
        if not ids:
            row[name] = None
            continue
        originals = {question.id: question.original for question in questions}
        documents = {question.original: question.doc_id for question in questions}
        of_arm, of_base = (mean_by_question(values, [originals[id] for id in ids]) for values in (now, was))
        sources = [documents[original] for original in dict.fromkeys(originals[id] for id in ids)]
        pair = paired_test(arm, base, of_arm, of_base, plan.seed, sources)
        row[name] = {
            "before": sum(was) / len(ids),
            "after": sum(now) / len(ids),
            "difference": pair.difference,
            "low": pair.low,
            "high": pair.high,
            "p": pair.p,
            "n": len(ids),
        }
    text = _warning(row)
    return {**row, "warned": bool(text), "text": text}


def _warning(row: Row) -> str:
    """Return the warning, "" when nothing changed by more than noise."""
    changes = []
    unanswerable, answerable = row["unanswerable"], row["answerable"]
    if unanswerable and unanswerable["high"] < 0 and unanswerable["p"] < DRIFT_P:
        changes.append(
            f"refuses {_count_of(unanswerable, 'after')} questions without an answer, "
            f"{row['against']} {_count_of(unanswerable, 'before')}"
        )
    if answerable and answerable["low"] > 0 and answerable["p"] < DRIFT_P:
        changes.append(
            f"refuses {_count_of(answerable, 'after')} questions that have an answer, "
            f"{row['against']} {_count_of(answerable, 'before')}"
        )
    return f"{row['arm']} {' and '.join(changes)}" if changes else ""


def _count_of(part: Row, when: str) -> str:
    return f"{part[when] * part['n']:.0f} of {part['n']}"
