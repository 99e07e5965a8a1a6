"""How often the interval of what a right answer costs holds, and how often an arm is wrongly called the cheapest by it.

    python -m benchmarks.simulated_costs [--part coverage|sure] [--trials N]

Arms answer the same questions. Questions of one document are alike in what is right and in how long answers are; an
answer's tokens vary, and right answers are longer or shorter than wrong ones. ``coverage`` is the share of trials whose 95 %
interval holds the true cost of a right answer (:func:`advisor.verdict.right_costs.cost_per_right`, priced by tokens as a
hosted arm is). ``sure`` is the share of trials in which :func:`advisor.verdict.right_costs.most_right` is sure of an arm,
with arms whose right answers truly cost the same, and with one that costs less. Fixed seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from advisor.costs.arm_costs import costs_of_answers
from advisor.verdict.right_costs import cost_per_right, judged_answers, most_right
from runners.plan.schema import Plan, parse_plan
from runners.trial.trial import ArmScores

QUESTIONS = 60
DOCUMENTS = (60, 20, 12, 8)
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
LONGER = (0.6, 1.0, 1.7)
"""Tokens of a right answer over those of a wrong one."""
ALIKE = (0.0, 0.3, 1.0)
"""Standard deviation between documents of how hard they are, in those of a single question."""
INPUT_TOKENS, OUTPUT_TOKENS = 400.0, 150.0
SPREAD_IN, SPREAD_OUT, SPREAD_DOCUMENTS = 0.3, 0.5, 0.3
"""Standard deviations of the logarithms of token counts: of questions, of answers, between documents."""
EQUAL = ((0.5, 0.5), (0.2, 0.8), (0.9, 0.9), (0.3,) * 4, (0.5, 0.6, 0.7, 0.8), (0.1, 0.3, 0.5, 0.7, 0.9, 0.6))
"""Shares of right answers of arms whose right answers cost the same."""


def hosted_plan() -> Plan:
    """Return the plan of one arm whose model has a list price."""
    return parse_plan(
        {
            "name": "costs",
            "choice": "prompting",
            "model": {"name": "openai:gpt-6.1-terra@https://api.openai.com/v1"},
            "data": {"questions": "q"},
            "steps": [{"kind": "evaluate", "arm": "prompting"}],
            "weights": {"right": 1},
        }
    )


def documents_of(draw: np.random.Generator, documents: int) -> np.ndarray:
    """Return the document of each question, int [questions]: of half of the trials alike in size."""
    shares = np.ones(documents) if draw.random() < 0.5 else draw.uniform(0.5, 1.5, documents)
    return np.concatenate(
        [np.arange(documents), draw.choice(documents, QUESTIONS - documents, p=shares / shares.sum())]
    )


def simulated_arm(
    draw: np.random.Generator,
    documents: np.ndarray,
    hard: np.ndarray,
    share: float,
    longer: float,
    alike: float,
    name: str = "prompting",
) -> ArmScores:
    """Return an arm whose expected share of right answers is ``share``; ``hard`` is what all arms find hard."""
    count = int(documents.max()) + 1
    own = draw.normal(0, alike / 2, count)[documents] + draw.normal(0, 1, len(documents))
    of_all = np.sqrt(alike**2 + 0.25 + alike**2 / 4 + 1)
    right = hard + own < norm.ppf(share) * of_all
    of_document = draw.normal(0, SPREAD_DOCUMENTS, (2, count))[:, documents]
    tokens_in = INPUT_TOKENS * np.exp(of_document[0] + draw.normal(0, SPREAD_IN, len(documents)))
    tokens_out = OUTPUT_TOKENS * np.where(right, longer, 1.0)
    tokens_out *= np.exp(of_document[1] + draw.normal(0, SPREAD_OUT, len(documents)))
    return ArmScores(
        name,
        tuple(map(str, range(len(documents)))),
        tuple({"right": float(value)} for value in right),
        tuple(right.astype(float)),
        (0.1,) * len(documents),
        tuple(round(value) for value in tokens_in),
        tuple(round(value) for value in tokens_out),
        tuple(documents.astype(str)),
    )


def hardness(draw: np.random.Generator, documents: np.ndarray, alike: float) -> np.ndarray:
    """Return how hard each question is for all arms, float [questions]."""
    of_document = draw.normal(0, alike, int(documents.max()) + 1)[documents]
    return np.asarray(of_document + draw.normal(0, 0.5, len(documents)))


def true_ratio(share: float, longer: float, of_input: float, of_output: float) -> float:
    """Return the expected cost of an answer over the expected share of right ones; prices are of a million tokens."""
    mean_in = INPUT_TOKENS * np.exp((SPREAD_DOCUMENTS**2 + SPREAD_IN**2) / 2)
    mean_out = OUTPUT_TOKENS * np.exp((SPREAD_DOCUMENTS**2 + SPREAD_OUT**2) / 2)
    mean_out *= share * longer + 1 - share
    return float((mean_in * of_input + mean_out * of_output) / 1e6 / share)


def share_covered(
    documents: int, share: float, longer: float, alike: float, trials: int, seed: int = 0
) -> float:
    """Return the share of trials whose interval holds the true cost; without a right answer the bound must hold."""
    plan, held = hosted_plan(), 0
    draw = np.random.default_rng([seed, documents, int(100 * share), int(10 * longer), int(10 * alike)])
    true = true_ratio(share, longer, 1.0, 5.0)
    for _ in range(trials):
        of_question = documents_of(draw, documents)
        arm = simulated_arm(draw, of_question, hardness(draw, of_question, alike), share, longer, alike)
        cost = cost_per_right(judged_answers(arm, costs_of_answers(arm, plan) or ()), 1000.0)
        held += cost is not None and cost.low <= true <= (np.inf if cost.high is None else cost.high)
    return held / trials


def share_sure(
    documents: int,
    shares: Sequence[float],
    longer: float,
    alike: float,
    trials: int,
    cheaper: float = 1.0,
    seed: int = 0,
) -> float:
    """Return the share of trials that are sure of an arm, or say of some arm that it surely gives fewer right answers.

    All arms' right answers truly cost the same, but those of the first arm ``cheaper`` times that; with less than 1,
    counted is how often that one is surely the best.
    """
    draw = np.random.default_rng([seed, documents, len(shares), int(100 * shares[0]), int(10 * longer)])
    plan, told_apart = hosted_plan(), 0
    ratios = [true_ratio(share, longer, 1.0, 5.0) for share in shares]
    for _ in range(trials):
        of_question = documents_of(draw, documents)
        hard = hardness(draw, of_question, alike)
        arms = {}
        for number, (share, ratio) in enumerate(zip(shares, ratios, strict=True)):
            arm = simulated_arm(draw, of_question, hard, share, longer, alike)
            scale = (1.0 if number else cheaper) / ratio
            arms[str(number)] = judged_answers(
                arm, [scale * usd for usd in costs_of_answers(arm, plan) or ()]
            )
        most = most_right(arms)
        if most is None:
            continue
        with_right = sum(sum(arm.right.values()) > 0 for arm in arms.values())
        told_apart += most.sure and most.arm == "0" if cheaper < 1 else len(most.perhaps) < with_right - 1
    return told_apart / trials


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--part", choices=("coverage", "sure"))
    parser.add_argument("--trials", type=int, default=2000)
    options = parser.parse_args()
    trials = options.trials
    cells = [(documents, alike, longer) for documents in DOCUMENTS for alike in ALIKE for longer in LONGER]
    if options.part != "sure":
        print("coverage: documents, alike, longer, then shares", *SHARES)
        for documents, alike, longer in cells:
            held = (share_covered(documents, share, longer, alike, trials) for share in SHARES)
            print(documents, alike, longer, *(f"{value:.3f}" for value in held), flush=True)
    if options.part != "coverage":
        print("sure of equal arms: documents, alike, longer, then", *EQUAL)
        for documents, alike, longer in cells:
            told = (share_sure(documents, shares, longer, alike, trials) for shares in EQUAL)
            print(documents, alike, longer, *(f"{value:.3f}" for value in told), flush=True)
        print("sure of the arm whose right answers cost half: documents, then", *EQUAL[:4])
        for documents in DOCUMENTS:
            told = (share_sure(documents, shares, 1.0, 0.3, trials // 10, 0.5) for shares in EQUAL[:4])
            print(documents, *(f"{value:.2f}" for value in told), flush=True)


if __name__ == "__main__":
    main()
