"""Arms compared on the same questions: who surely beats whom, and how many questions would tell."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rag.stats import Paired, paired
from runners.plan import Plan
from runners.trial import ArmScores

# From cheap to costly: what has to be built, kept and run for each arm.
COST_ORDER = (
    "prompting", "few-shot", "classifier", "long-context", "rag", "lora", "qlora", "full", "naive-stack", "hybrid",
)  # fmt: skip
Z = 1.959963984540054 + 0.8416212335729143
"""Normal quantiles for a two-sided 5 % test with 80 % power."""


def compare(a: ArmScores, b: ArmScores, seed: int) -> Paired:
    """Paired difference of two arms over the questions both have answered."""
    of_b = dict(zip(b.questions, b.combined, strict=True))
    both = [(x, of_b[q]) for q, x in zip(a.questions, a.combined, strict=True) if q in of_b]
    return paired(a.arm, b.arm, [x for x, _ in both], [y for _, y in both], seed)


def cheapest_within_noise(arms: dict[str, ArmScores], seed: int) -> str:
    """The cheapest arm that the best one does not surely beat (95 % paired interval above zero)."""
    best = max(arms.values(), key=lambda arm: (mean(arm), -_cost(arm.arm)))
    equal = [arm.arm for arm in arms.values() if arm.arm == best.arm or compare(best, arm, seed).low <= 0]
    return min(equal, key=_cost)


def gate_state(pairs: Sequence[Paired], by: float) -> bool | None:
    """True when every pair's interval lies above `by`, False when one lies surely not, None in between."""
    if all(pair.low > by for pair in pairs):
        return True
    return False if any(pair.difference <= by for pair in pairs) else None


def more_questions(pairs: Sequence[Paired], plan: Plan, against: dict[str, Paired], count: int) -> int | None:
    """Questions still needed to tell the closest open pair apart with 80 % power at the difference seen."""
    named = [against[name] for name in plan.gate.must_beat if name in against] or list(pairs)
    unsure = [p for p in named if p.low <= plan.gate.by < p.high and p.difference > plan.gate.by]
    needed = []
    for pair in unsure:
        standard_error = (pair.high - pair.low) / (2 * 1.959963984540054)
        needed.append(count * (Z * standard_error / (pair.difference - plan.gate.by)) ** 2)
    return max(1, math.ceil(max(needed)) - count) if needed else None


def mean(arm: ArmScores) -> float:
    """The arm's combined score over its questions."""
    return sum(arm.combined) / len(arm.combined)


def _cost(arm: str) -> int:
    return COST_ORDER.index(arm) if arm in COST_ORDER else len(COST_ORDER)
