"""Gains of tuning by score, on synthetic scores."""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

from advisor.verdict.comparison import SIGNIFICANCE_LEVEL
from advisor.verdict.verdict import gains_by_score, judge_trial
from runners.plan.schema import Plan, parse_plan
from runners.trial.trial import ArmScores

COUNT = 40


def plan(choice: str = "lora") -> Plan:
    steps = [
        {"kind": "index"},
        {"kind": "evaluate", "arm": "prompting"},
        {"kind": "evaluate", "arm": "rag", "retrieval": True},
        {"kind": "train", "arm": "lora"},
        {"kind": "evaluate", "arm": "lora", "weights": "lora"},
        {"kind": "train", "arm": "hybrid", "rows": "retrieval"},
        {"kind": "evaluate", "arm": "hybrid", "weights": "hybrid", "retrieval": True},
    ]
    return parse_plan(
        {
            "name": "p",
            "choice": choice,
            "model": {"name": "smollm2-135m-instruct"},
            "steps": steps,
            "data": {"documents": "d", "examples": "e", "questions": "q"},
            "weights": {"style": 1, "final_answer": 1, "false_refusal": 0.5},
        }
    )


def arm(name: str, style: float, final: float, false_refusal: float = 0.0) -> ArmScores:
    """Return an arm that has the given share of questions right, on scores that are 0 or 1."""

    def values(share: float) -> list[float]:
        return [float(n * 7 % COUNT < share * COUNT) for n in range(COUNT)]

    rows = [
        {"style": s, "final_answer": f, "false_refusal": r}
        for s, f, r in zip(values(style), values(final), values(false_refusal), strict=True)
    ]
    combined = tuple((row["style"] + row["final_answer"]) / 2 for row in rows)
    ids = tuple(f"q{n}" for n in range(COUNT))
    return ArmScores(name, ids, tuple(rows), combined, (0.1,) * COUNT, (9,) * COUNT, (5,) * COUNT)


def test_gains_name_raised_and_low_scores() -> None:
    arms = [arm("prompting", 0.0, 0.025), arm("lora", 0.95, 0.05)]
    text = gains_by_score(plan(), {a.arm: a for a in arms})
    assert (
        text
        == "Tuning clearly raised style (+0.95) over prompting, but not final answer (0.05, 0.03 before)."
    )
    assert judge_trial(plan(), arms, "m")[0].taught == text


def test_hybrid_gains_are_over_rag() -> None:
    arms = {a.arm: a for a in (arm("prompting", 0, 0), arm("rag", 0.1, 0.3), arm("hybrid", 0.9, 0.3))}
    assert "over rag, but not final answer (0.30, 0.30 before)" in gains_by_score(plan("hybrid"), arms)
    del arms["rag"]
    assert gains_by_score(plan("hybrid"), arms) == ""


def test_gains_skip_scores_that_were_good_already() -> None:
    good = {a.arm: a for a in (arm("prompting", 0, 0.9), arm("lora", 1, 0.9))}
    assert gains_by_score(plan(), good) == ""
    bad = {a.arm: a for a in (arm("prompting", 0, 0.9, 0.8), arm("lora", 1, 0.9, 0.8))}
    assert "but not false refusal (0.80, 0.80 before)" in gains_by_score(plan(), bad)


def test_no_gains_text_without_gain_or_tuning() -> None:
    arms = {a.arm: a for a in (arm("prompting", 0.1, 0), arm("rag", 0.9, 0), arm("lora", 0.1, 0))}
    assert gains_by_score(plan(), arms) == ""
    assert gains_by_score(plan("rag"), arms) == ""


def test_a_tuning_that_changes_nothing_seldom_raised_a_score() -> None:
    draw, named, trials, count = np.random.default_rng(0), 0, 80, 30
    ids = tuple(f"q{n}" for n in range(count))
    for _ in range(trials):
        arms = {}
        for name in ("prompting", "lora"):
            style, final = (draw.random((2, count)) < 0.3).astype(float)
            rows = tuple({"style": a, "final_answer": b} for a, b in zip(style, final, strict=True))
            values = tuple(((style + final) / 2).tolist())
            arms[name] = ArmScores(name, ids, rows, values, (0.1,) * count, (9,) * count, (5,) * count)
        named += gains_by_score(plan(), arms) != ""
    assert named <= binom.ppf(0.999, trials, SIGNIFICANCE_LEVEL)
