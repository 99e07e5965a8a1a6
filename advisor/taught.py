"""What tuning taught and what it did not, score by score: a format is soon learned, a skill or a fact seldom."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from advisor.comparison import contests
from rag.stats import Paired, paired
from runners.measures import BY_NAME
from runners.plan import Plan
from runners.trial import ArmScores

LOW = 0.5
"""A score that tuning did not raise is only worth a sentence where it is below this: one that was good already could
not be raised much."""


def taught(plan: Plan, arms: Mapping[str, ArmScores]) -> str:
    """Say which weighted scores the tuned choice raised over the same base untuned, and which stayed low.

    The base is asked in the same way: with passages (rag) where the choice has them, else by the prompt alone. ""
    unless some score was surely raised (interval and Holm-corrected p, as everywhere) and some other was not.
    """
    step = next((step for step in plan.arms if step.arm == plan.choice), None)
    if step is None or step.weights is None:
        return ""
    base = "rag" if step.retrieval else "prompting"
    if base not in arms or plan.choice not in arms:
        return ""
    names = [name for name, weight in plan.weights.items() if weight > 0]
    pairs = [pair for name in names if (pair := _raised(arms[plan.choice], arms[base], name, plan.seed))]
    found = contests(pairs)
    raised = [f"{name} ({c.pair.difference:+.2f})" for name, c in found.items() if c.above]
    stayed = [
        f"{name} ({_mean(arms[plan.choice], name):.2f}, {_mean(arms[base], name):.2f} before)"
        for name, c in found.items()
        if not c.above and BY_NAME[name].gain(_mean(arms[plan.choice], name)) < LOW
    ]
    if not (raised and stayed):
        return ""
    return f"Tuning surely raised {_listed(raised)} over {base}, but not {_listed(stayed)}."


def _raised(tuned: ArmScores, base: ArmScores, name: str, seed: int) -> Paired | None:
    """The paired gain in one score over the questions for which both arms have it; None without any."""
    gain = BY_NAME[name].gain
    before = {q: gain(s[name]) for q, s in zip(base.questions, base.scores, strict=True) if name in s}
    rows = [
        (gain(scores[name]), before[q], document)
        for q, scores, document in zip(tuned.questions, tuned.scores, tuned.sources(), strict=True)
        if name in scores and q in before
    ]
    if not rows:
        return None
    after, earlier, documents = zip(*rows, strict=True)
    return paired(tuned.arm, name, after, earlier, seed, documents)


def _mean(arm: ArmScores, name: str) -> float:
    return fmean(arm.of(name))


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
