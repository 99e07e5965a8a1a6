"""One arm to use, or none: the contradictions of a walk as a new user would make it, on planted scores."""

from __future__ import annotations

from dataclasses import replace

from advisor.verdict.verdict import judge_trial
from runners.plan.schema import Plan, parse_plan
from runners.report.records import Verdict
from runners.trial.trial import ArmScores
from tests.support.planted_arms import arm, first, plan


def tickets_plan() -> Plan:
    """Return the plan of 300 tickets for seven teams: a classifier, examples in the prompt, and full fine-tuning."""
    return parse_plan(
        {
            "name": "tickets",
            "choice": "full",
            "model": {"name": "smollm2-135m-instruct"},
            "data": {"examples": "e", "questions": "q"},
            "steps": [
                {"kind": "train", "arm": "full", "method": "full"},
                {"kind": "evaluate", "arm": "prompting"},
                {"kind": "evaluate", "arm": "few-shot", "shots": 7},
                {"kind": "evaluate", "arm": "classifier", "classifier": True},
                {"kind": "evaluate", "arm": "full", "weights": "full"},
            ],
            "weights": {"label": 1},
            "gate": {"must_beat": ["prompting", "few-shot", "classifier"]},
            "answers": {"output_format": {"value": "labels", "source": "asked"}},
        }
    )


def tickets() -> list[ArmScores]:
    """Return what was measured: 35 of 35 in .12 s, 33 of 35 in 1.95 s, and the advised arm 21 of 35."""
    counts = {"prompting": (9, 0.4), "few-shot": (33, 1.953), "classifier": (35, 0.119), "full": (21, 0.35)}
    arms = []
    for name, (right, seconds) in counts.items():
        row = arm(name, first(right, 35), combined=1.0)
        arms.append(replace(row, seconds=(seconds,) * 35))
    return arms


def bakery() -> list[ArmScores]:
    """Return 24 questions, four of them without an answer: rag is right once, by a refusal, and no arm more than twice."""
    rag = arm("rag", [*first(0, 20), *first(1, 4)], unanswerable=4)
    tuned = arm("hybrid", [*first(2, 20), *first(0, 4)], unanswerable=4)
    return [arm("prompting", first(0), unanswerable=4), rag, tuned]


def judged(trial_plan: Plan, arms: list[ArmScores]) -> Verdict:
    return judge_trial(trial_plan, arms, "smollm2-135m-instruct")[0]


def test_better_and_faster_arm_is_used() -> None:
    """Few-shot, with 33 of 35 at sixteen times the seconds, was "the cheapest arm that is not clearly worse"."""
    verdict = judged(tickets_plan(), tickets())
    assert (verdict.use, verdict.winner) == ("classifier", "classifier")
    assert "use few-shot" not in verdict.text


def test_arm_that_answers_by_a_refusal_alone_is_not_used() -> None:
    verdict = judged(plan({"must_cite": "yes"}, gate={"must_beat": ["prompting", "rag"]}), bakery())
    assert verdict.use is None
    assert "use rag" not in verdict.text


def test_winner_and_use_are_the_same_arm_or_none() -> None:
    assert judged(plan({}, gate={"must_beat": ["prompting"]}), bakery()).winner is None
    cites = [
        arm("lora", first(50, 60), citation=[0.0] * 60),
        arm("hybrid", first(40, 60), citation=[1.0] * 60),
    ]
    verdict = judged(plan({"must_cite": "yes"}, gate={"must_beat": ["lora"]}), cites)
    assert (verdict.use, verdict.winner) == ("hybrid", "hybrid")
