"""What tuning taught and what not, on made-up scores whose answer is known."""

from __future__ import annotations

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
    """An arm that has the given share of questions right, on scores that are 0 or 1."""

    def values(share: float) -> list[float]:
        return [float(n * 7 % COUNT < share * COUNT) for n in range(COUNT)]

    rows = [
        {"style": s, "final_answer": f, "false_refusal": r}
        for s, f, r in zip(values(style), values(final), values(false_refusal), strict=True)
    ]
    combined = tuple((row["style"] + row["final_answer"]) / 2 for row in rows)
    ids = tuple(f"q{n}" for n in range(COUNT))
    return ArmScores(name, ids, tuple(rows), combined, (0.1,) * COUNT, (9,) * COUNT, (5,) * COUNT)


def test_a_format_is_learned_and_a_skill_is_not() -> None:
    arms = [arm("prompting", 0.0, 0.025), arm("lora", 0.95, 0.05)]
    said = gains_by_score(plan(), {a.arm: a for a in arms})
    assert (
        said == "Tuning surely raised style (+0.95) over prompting, but not final_answer (0.05, 0.03 before)."
    )
    assert judge_trial(plan(), arms, "m")[0].taught == said


def test_a_hybrid_is_held_against_the_base_with_passages() -> None:
    arms = {a.arm: a for a in (arm("prompting", 0, 0), arm("rag", 0.1, 0.3), arm("hybrid", 0.9, 0.3))}
    assert "over rag, but not final_answer (0.30, 0.30 before)" in gains_by_score(plan("hybrid"), arms)
    del arms["rag"]
    assert gains_by_score(plan("hybrid"), arms) == ""


def test_what_is_good_already_and_what_gets_less_bad_is_no_failure() -> None:
    good = {a.arm: a for a in (arm("prompting", 0, 0.9), arm("lora", 1, 0.9))}
    assert gains_by_score(plan(), good) == ""
    bad = {a.arm: a for a in (arm("prompting", 0, 0.9, 0.8), arm("lora", 1, 0.9, 0.8))}
    assert "but not false_refusal (0.80, 0.80 before)" in gains_by_score(plan(), bad)


def test_nothing_is_said_where_nothing_was_taught_or_nothing_tuned() -> None:
    arms = {a.arm: a for a in (arm("prompting", 0.1, 0), arm("rag", 0.9, 0), arm("lora", 0.1, 0))}
    assert gains_by_score(plan(), arms) == ""
    assert gains_by_score(plan("rag"), arms) == ""
