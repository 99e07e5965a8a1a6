"""Whether tuning changed when an arm refuses: fewer right refusals, or more wrong ones, on the same questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runners.data.questions import Question
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep

DRIFT_P = 0.05

Row = dict[str, Any]


def refusal_drift(plan: Plan, questions: Sequence[Question], rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Compare each tuned arm's refusals with those of the same arm without tuning, from the trial's answers.

    The untuned arm is the one that is given as much: retrieval where the tuned arm has it (a threshold refuses for
    both), the bare instructions else; where it was not measured, prompting. ``rows`` are those of
    `trial/answers.jsonl`; several seeds of an arm are averaged question by question.
    """
    refused: dict[tuple[str, str], list[bool]] = {}
    for row in rows:
        if "refused" in row:
            refused.setdefault((row["arm"], row["id"]), []).append(bool(row["refused"]))
    share = {key: sum(said) / len(said) for key, said in refused.items()}
    found = []
    for arm in plan.arms:
        base = _untuned(plan, arm) if arm.weights else None
        if base:
            found.append(_compared(plan, arm.arm, base, questions, share))
    return found


def _untuned(plan: Plan, arm: EvaluateStep) -> str | None:
    bare = [a for a in plan.arms if not a.weights and not a.model]
    like = [a.arm for a in bare if (a.retrieval, a.shots) == (arm.retrieval, arm.shots)]
    return next(iter(like), next((a.arm for a in bare if a.arm == "prompting"), None))


def _compared(
    plan: Plan, arm: str, base: str, questions: Sequence[Question], share: Mapping[tuple[str, str], float]
) -> Row:
    """Return an arm's shares of refusals beside its base's, with the intervals of the paired differences."""
    from rag.evaluation.statistics import paired_test

    found: Row = {"arm": arm, "against": base}
    for answerable, name in ((False, "unanswerable"), (True, "answerable")):
        both = [
            q.id
            for q in questions
            if q.answerable is answerable and (arm, q.id) in share and (base, q.id) in share
        ]
        now, was = ([share[name_, id] for id in both] for name_ in (arm, base))
        if not both:
            found[name] = None
            continue
        pair = paired_test(arm, base, now, was, plan.seed)
        found[name] = {
            "before": sum(was) / len(both),
            "after": sum(now) / len(both),
            "difference": pair.difference,
            "low": pair.low,
            "high": pair.high,
            "p": pair.p,
            "n": len(both),
        }
    text = _said(found)
    return {**found, "warned": bool(text), "text": text}


def _said(row: Row) -> str:
    """Return the warning in words, "" when nothing changed by more than noise."""
    said = []
    off, wrong = row["unanswerable"], row["answerable"]
    if off and off["high"] < 0 and off["p"] < DRIFT_P:
        said.append(
            f"refuses {_of(off, 'after')} questions without an answer, {row['against']} {_of(off, 'before')}"
        )
    if wrong and wrong["low"] > 0 and wrong["p"] < DRIFT_P:
        said.append(
            f"refuses {_of(wrong, 'after')} questions that have an answer, {row['against']} {_of(wrong, 'before')}"
        )
    return f"{row['arm']} {' and '.join(said)}" if said else ""


def _of(part: Row, when: str) -> str:
    return f"{part[when] * part['n']:.0f} of {part['n']}"
