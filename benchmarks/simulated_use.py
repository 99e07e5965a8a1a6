"""How often the arm to use is named wrongly, and how often it is found: simulated through the function that decides.

    python -m benchmarks.simulated_use [--part threshold|margin|needed] [--trials N]

``threshold``: no arm is above ``usable_from`` (all are right at exactly that share), so every arm that is named is wrong;
and one arm is truly above it, so naming none is. ``margin``: a cheaper arm is worse by exactly ``gate.not_worse_by``, so
taking it is wrong; and one that is as good, so not taking it is a loss. ``needed``: the questions that a verdict says would
show that a cheaper arm is not worse, or that one is above ``usable_from``, against how often that many do (stated: 0.8).
Fixed seeds. Every question is of a document of its own unless ``each`` says how many one document has; these are then
alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from advisor.verdict.arm_choice import ArmToUse, Trial, choose_arm
from advisor.verdict.comparison import ArmStanding
from advisor.verdict.usable import usable_from
from runners.plan.schema import Plan, parse_plan
from runners.trial.trial import ArmScores

ARMS = ("prompting", "few-shot", "rag", "lora", "hybrid")
BY = 0.1
COUNTS = (30, 60, 120, 240)
NEEDED = (
    ((0.78, 0.80), 0.0, 100, 0.5),
    ((0.78, 0.80), 0.0, 50, 0.8),
    ((0.78, 0.80), 0.0, 50, 0.5),
    ((0.60,), 0.5, 40, 0.5),
    ((0.58,), 0.5, 50, 0.5),
    ((0.85,), 0.8, 60, 0.5),
)
"""Shares of right answers, the threshold, the questions asked and how alike the arms are, of what ``needed`` simulates."""


def plan_of(arms: Sequence[str], threshold: float) -> Plan:
    """Return a plan of these arms, the cheapest first, with this threshold."""
    return parse_plan(
        {
            "name": "simulated",
            "choice": arms[-1],
            "model": {"name": "smollm2-135m-instruct"},
            "data": {"examples": "e", "questions": "q"},
            "steps": [{"kind": "evaluate", "arm": name} for name in arms],
            "weights": {"style": 1},
            "gate": {"must_beat": [], "not_worse_by": BY},
            "answers": {"usable_from": {"value": threshold, "source": "asked"}},
        }
    )


def decide(right: np.ndarray, threshold: float, each: int = 1) -> ArmToUse:
    """Return the arm to use by right (1) and wrong (0) answers, float [arms, questions]; the first arm is the cheapest.

    Args:
        right: of arms whose answers take a second, two, four and so on.
        threshold: the share of right answers from which an arm is usable.
        each: questions of one document.
    """
    names = ARMS[-len(right) :]
    count = right.shape[1]
    ids, documents = tuple(map(str, range(count))), tuple(f"d{n // each}" for n in range(count))
    arms = {
        name: ArmScores(
            name,
            ids,
            tuple({"right": value} for value in row),
            tuple(row),
            (2.0**position,) * count,
            (1,) * count,
            (1,) * count,
            documents,
        )
        for position, (name, row) in enumerate(zip(names, right.tolist(), strict=True))
    }
    trial = Trial(plan_of(names, threshold), arms, {name: rank for rank, name in enumerate(names)})
    assert usable_from(trial.plan) == threshold
    return choose_arm(trial, ArmStanding(names[-1], {}, {}))


def answers(
    draw: np.random.Generator, shares: Sequence[float], count: int, each: int = 1, alike: float = 0.5
) -> np.ndarray:
    """Return answers of arms that are right with these shares, float [arms, questions].

    ``alike`` of the questions are right or wrong for all arms by the same luck; of those of one document half are.
    """
    groups = np.arange(count) // each

    def luck() -> np.ndarray:
        alone = draw.random((len(shares), count))
        together = draw.random((len(shares), groups[-1] + 1))[:, groups]
        return alone if each == 1 else np.where(draw.random((len(shares), count)) < 0.5, alone, together)

    own, common = luck(), luck()[:1]
    mixed = np.where(draw.random(count) < alike, common, own)
    return (mixed < np.array(shares)[:, None]).astype(float)


def share_named(
    shares: Sequence[float],
    count: int,
    threshold: float,
    each: int = 1,
    trials: int = 400,
    alike: float = 0.5,
) -> float:
    """Return the share of trials in which any arm is named as the one to use."""
    draw = np.random.default_rng([len(shares), count, each, int(100 * threshold)])
    named = (decide(answers(draw, shares, count, each, alike), threshold, each).arm for _ in range(trials))
    return sum(name is not None for name in named) / trials


def share_taken(
    behind: Sequence[float], count: int, each: int = 1, trials: int = 400, alike: float = 0.5
) -> float:
    """Return the share of trials in which a cheaper arm is used in place of the best; they are ``behind`` by so much."""
    draw = np.random.default_rng([len(behind), count, each, int(100 * behind[0])])
    shares = [0.85 - loss for loss in behind] + [0.85]
    taken = (decide(answers(draw, shares, count, each, alike), 0.0, each).in_place_of for _ in range(trials))
    return sum(name is not None for name in taken) / trials


def share_at_needed(
    shares: Sequence[float], threshold: float, count: int, trials: int = 200, alike: float = 0.5
) -> tuple[int, float]:
    """Return the number of questions that is said to be enough for the first arm to be used, and how often it is.

    With two arms they are to show that the first, which is cheaper, is not worse; with one that it is above the threshold.
    The number is stated for the difference seen, so it is the median over trials in which that is the true one.

    Args:
        shares: of right answers of one arm or two.
        threshold: the share of right answers from which an arm is usable.
        count: the questions of the trials that say how many are enough; too few to use the arm where it is right so often.
        trials: with that many questions.
        alike: the share of the questions that are right or wrong for both by the same luck.
    """
    draw = np.random.default_rng([count, int(1000 * shares[0]), int(10 * alike)])
    stated: list[int] = []
    while len(stated) < trials // 10:
        right = answers(draw, shares, count, alike=alike)
        if round(right[-1].sum() - right[0].sum()) != round(count * (shares[-1] - shares[0])):
            continue
        if len(shares) == 1 and right.sum() != round(count * shares[0]):
            continue
        use = decide(right, threshold)
        missing = use.cheaper or use.unusable
        if missing and missing.more_questions_needed:
            stated.append(count + missing.more_questions_needed)
    total = round(np.median(stated))
    enough = ARMS[-len(shares)]
    uses = (decide(answers(draw, shares, total, alike=alike), threshold).arm for _ in range(trials))
    return total, sum(use == enough for use in uses) / trials


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("threshold", "margin", "needed"))
    parser.add_argument("--trials", type=int, default=400)
    asked = parser.parse_args()
    if asked.part in (None, "threshold"):
        print("threshold  questions  each  arms  named, none above  named, one above by .2")
        for threshold in (0.5, 0.8):
            for count, each, arms in [(n, 1, k) for n in COUNTS for k in (1, 5)] + [(120, 4, 5), (240, 8, 5)]:
                wrong = share_named([threshold] * arms, count, threshold, each, asked.trials)
                above = [threshold - 0.1] * (arms - 1) + [min(0.95, threshold + 0.2)]
                found = share_named(above, count, threshold, each, asked.trials)
                print(f"{threshold:5}  {count:9}  {each:4}  {arms:4}  {wrong:17.3f}  {found:.3f}")
    if asked.part in (None, "margin"):
        print("questions  each  cheaper  alike  taken, worse by .10  taken, as good")
        for count, each, cheaper, alike in [
            *((n, 1, k, a) for n in COUNTS for k in (1, 4) for a in (0.5, 0.9)),
            (120, 4, 1, 0.5),
            (240, 8, 1, 0.5),
        ]:
            wrong, found = (
                share_taken([loss] * cheaper, count, each, asked.trials, alike) for loss in (BY, 0.0)
            )
            print(f"{count:9}  {each:4}  {cheaper:7}  {alike:5}  {wrong:19.3f}  {found:.3f}")
    if asked.part in (None, "needed"):
        print("shares      threshold  asked  said to be enough  found")
        for shares, threshold, count, alike in NEEDED:
            total, found = share_at_needed(shares, threshold, count, asked.trials, alike)
            print(f"{shares!s:10}  {threshold:9}  {count:5}  {total:17}  {found:.3f}", flush=True)


if __name__ == "__main__":
    main()
