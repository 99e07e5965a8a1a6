"""How often the arm to use is named wrongly, and how often it is found: simulated through the function that decides.

    python -m benchmarks.simulated_use [--part threshold|margin|needed] [--trials N]

``threshold``: no arm is above ``usable_from`` (all are right at exactly that share), so every arm that is named is wrong;
and one arm is truly above it, so naming none is. ``margin``: a cheaper arm is worse by exactly ``gate.not_worse_by``, so
taking it is wrong; and one that is as good, so not taking it is a loss. ``needed``: the questions that a verdict says would
show a cheaper arm to be not worse, against how often that many do. Fixed seeds. Every question is of a document of its own
unless ``each`` says how many one document has; these are then alike.
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
    taken = 0
    for _ in range(trials):
        taken += decide(answers(draw, shares, count, each, alike), 0.0, each).reason.count("not worse than")
    return taken / trials


def share_at_needed(count: int, trials: int = 200, alike: float = 0.8) -> tuple[float, float]:
    """Return the median number of questions that verdicts say show an equal arm to be not worse, and how often it does."""
    draw = np.random.default_rng(count)
    stated = []
    for _ in range(trials):
        found = decide(answers(draw, [0.8, 0.8], count, alike=alike), 0.0)
        if found.cheaper and found.cheaper.more_questions_needed:
            stated.append(count + found.cheaper.more_questions_needed)
    total = int(np.median(stated))
    shown = 0
    for _ in range(trials):
        found = decide(answers(draw, [0.8, 0.8], total, alike=alike), 0.0)
        shown += not found.cheaper
    return total, shown / trials


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
        for count in (30, 60):
            total, shown = share_at_needed(count, asked.trials // 2)
            print(
                f"{count} questions say that {total} show an equal arm to be not worse; that many do in {shown:.2f}"
            )


if __name__ == "__main__":
    main()
