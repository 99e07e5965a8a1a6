"""Trials whose answer is known: arms that are equal, and arms with a planted difference.

Scores are as real ones are: between 0 and 1, with ties, made of style (yes or no), shares of three facts, agreement
and F1; questions of one document are alike, and an arm can be good or bad at a document. The 1,000 trials of the
project's promise run with ``--deep`` and print their rates; CI runs fewer, against the bound of a binomial.

    pytest --deep -s tests/advisor/verdict/test_null_trials.py
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from advisor.verdict.comparison import (
    SIGNIFICANCE_LEVEL,
    ArmComparison,
    corrected_comparisons,
    questions_needed,
)
from advisor.verdict.verdict import judge_trial
from rag.evaluation.statistics import PairedDifference, paired_test
from runners.plan.schema import Plan, parse_plan
from runners.trial.trial import ArmScores

ARMS = ("prompting", "few-shot", "rag", "lora", "hybrid")
SHAPES = ((12, 0), (30, 0), (45, 3), (60, 0), (60, 4))
"""Questions, and about how many of them share a document; 0 is none."""
PROMISED = 0.064
"""Most false alarms of a nominal 5 % test over 1,000 trials: two standard errors of 1,000 above 5 %."""


def sources(draw: np.random.Generator, questions: int, each: int) -> np.ndarray:
    """Return the document number of each question; documents hold 1 to 2 * each - 1 questions."""
    if not each:
        return np.arange(questions)
    sizes = draw.integers(1, 2 * each, questions)
    return np.repeat(np.arange(questions), sizes)[:questions]


def scores(draw: np.random.Generator, documents: np.ndarray, lifts: Sequence[float]) -> np.ndarray:
    """Return combined scores, [arms, questions]; ``lifts`` say how much better each arm is, in log odds."""
    count = len(documents)
    hard = draw.normal(0, 0.9, count)[documents] + draw.normal(0, 0.8, count)
    own = draw.normal(0, 1, (len(lifts), count))[:, documents]
    chance = 1 / (1 + np.exp(-(hard + own + np.asarray(lifts)[:, None])))
    shape = chance.shape
    style, agreement = draw.random(shape) < 0.85, draw.random(shape) < chance
    facts, f1 = draw.binomial(3, chance) / 3, draw.beta(1 + 4 * chance, 3).round(2)
    return np.asarray((style + facts + agreement / 2 + f1 / 2) / 3)


def most(trials: int, rate: float = SIGNIFICANCE_LEVEL) -> int:
    """Return the most false alarms that a test with this rate gives in all but one of a thousand sessions."""
    return int(stats.binom.ppf(0.999, trials, rate))


def alarms(trials: int, questions: int, each: int, resamples: int) -> dict[str, float]:
    """Return how often two equal arms differ: by the interval, by p, by both, and with documents ignored."""
    draw, found = np.random.default_rng(questions + each), np.zeros(4)
    for trial in range(trials):
        documents = sources(draw, questions, each)
        a, b = scores(draw, documents, (0, 0))
        pair = paired_test("a", "b", a, b, trial, documents.astype(str).tolist(), resamples=resamples)
        blind = paired_test("a", "b", a, b, trial, resamples=resamples)
        out, unlikely = pair.low > 0 or pair.high < 0, pair.p <= SIGNIFICANCE_LEVEL
        found += [out, unlikely, out and unlikely, blind.p <= SIGNIFICANCE_LEVEL]
    return dict(zip(("interval", "p", "both", "documents ignored"), (found / trials).tolist(), strict=True))


def plan(choice: str = "hybrid") -> Plan:
    """A plan with every arm, and the gate that the advisor drafts: all arms that cost less."""
    evaluate: list[dict[str, Any]] = [
        {"arm": "prompting"},
        {"arm": "few-shot", "shots": 3},
        {"arm": "rag", "retrieval": True},
        {"arm": "lora", "weights": "lora"},
        {"arm": "hybrid", "weights": "hybrid", "retrieval": True},
    ]
    return parse_plan(
        {
            "name": "p",
            "choice": choice,
            "model": {"name": "m"},
            "weights": {"style": 1},
            "data": {"documents": "d", "examples": "e", "questions": "q"},
            "steps": [
                {"kind": "index"},
                {"kind": "train", "arm": "lora"},
                {"kind": "train", "arm": "hybrid", "rows": "retrieval"},
                *({"kind": "evaluate", **each} for each in evaluate),
            ],
            "gate": {"must_beat": list(ARMS[: ARMS.index(choice)])},
        }
    )


def outcomes(trials: int, lifts: Sequence[float], choice: str = "hybrid") -> dict[str, float]:
    """Return the shares of trials confirmed, overturned, and with a winner that costs more than prompting."""
    draw, made = np.random.default_rng(len(choice)), plan(choice)
    found = dict.fromkeys(("confirmed", "overturned", "undecided", "costlier winner"), 0)
    for _ in range(trials):
        documents = sources(draw, 60, 4)
        names = tuple(documents.astype(str))
        ids, each = tuple(str(n) for n in range(60)), scores(draw, documents, lifts)
        arms = [
            ArmScores(arm, ids, ({},) * 60, tuple(row), (0.1,) * 60, (9,) * 60, (9,) * 60, names)
            for arm, row in zip(ARMS, each.tolist(), strict=True)
        ]
        verdict, _ = judge_trial(made, arms, "m")
        found[verdict.outcome] += 1
        found["costlier winner"] += verdict.winner != "prompting"
    return {name: count / trials for name, count in found.items()}


@pytest.mark.parametrize(("questions", "each"), [(30, 0), (45, 3)])
def test_equal_arms_seldom_differ_significantly(questions: int, each: int) -> None:
    found = alarms(200, questions, each, 1000)
    assert found["both"] * 200 <= most(200)
    assert not each or found["documents ignored"] * 200 > most(200), "why documents are drawn whole"


def test_costlier_equal_arm_is_seldom_confirmed() -> None:
    found = outcomes(40, (0, 0, 0, 0, 0))
    assert found["confirmed"] * 40 <= most(40)
    assert found["overturned"] * 40 <= most(40)


def test_planted_difference_is_found() -> None:
    found = outcomes(12, (0, 0.3, 0.6, 0.6, 5))
    assert found["confirmed"] >= 0.9
    better = outcomes(12, (0, 0, 5, 0, 0))
    assert better["overturned"] >= 0.9


def test_questions_needed_have_the_stated_power() -> None:
    """The power calculation after 40 questions, against trials of the size that it gives."""
    seen = PairedDifference(
        a="a",
        b="b",
        difference=0.06,
        low=-0.01,
        high=0.13,
        p=0.07,
        error=0.2 / math.sqrt(40),
        questions=40,
        units=40,
    )
    needed = questions_needed([ArmComparison(seen)])
    assert needed is not None
    size, draw, trials = 40 + needed.questions, np.random.default_rng(11), 150
    found = 0
    for seed in range(trials):
        difference = draw.normal(0.06, 0.2, size).tolist()
        found += corrected_comparisons(
            [paired_test("a", "b", difference, [0.0] * size, seed, resamples=1000)]
        )["b"].above
    assert 0.7 <= found / trials <= 0.9  # 80 %, give or take three standard errors


@pytest.mark.slow
@pytest.mark.parametrize(("questions", "each"), SHAPES)
def test_false_alarm_rate_is_kept(questions: int, each: int) -> None:
    found = alarms(1000, questions, each, 10_000)
    print(f"\n{questions} questions, {each or 'none'} a document:", found)
    assert found["both"] <= PROMISED


@pytest.mark.slow
@pytest.mark.parametrize(
    "lifts",
    [(0, 0, 0, 0, 0), (-3, -3, 0, -3, 0), (-3, -3, -3, 0, 0)],
    ids=["all equal", "rag as good", "lora as good"],
)
def test_false_verdict_rate_is_kept(lifts: tuple[float, ...]) -> None:
    found = outcomes(1000, lifts)
    print(f"\n{lifts}:", found)
    assert found["confirmed"] <= 0.05
    if not any(lifts):
        assert found["overturned"] <= 0.05
