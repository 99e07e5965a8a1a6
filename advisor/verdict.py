"""The verdict: was the recommendation confirmed, overturned, or is it still open?

The gate asks the chosen arm to beat the arms named in the plan on the same questions. Among arms that cannot be
told apart from the best, the cheapest one wins: an arm that costs more must win by more than noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rag.stats import Paired, paired
from runners.known import find
from runners.plan import Plan
from runners.trial import ArmScores

# From cheap to costly: what has to be built, kept and run for each arm.
COST_ORDER = ("prompting", "few-shot", "rag", "lora", "qlora", "full", "naive-stack", "hybrid")
LEANING_BELOW = 30
"""Fewer test questions than this, and the verdict only leans (product.md)."""
Z = 1.959963984540054 + 0.8416212335729143
"""Normal quantiles for a two-sided 5 % test with 80 % power."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the trial says about the recommendation."""

    outcome: str
    """confirmed, overturned or undecided."""
    strength: str
    """measured, leaning (fewer than 30 test questions) or proxy (another model than the plan's)."""
    recommended: str
    winner: str
    model: str
    text: str
    more_questions_needed: int | None
    gate_met: bool | None
    """None when the interval still holds both answers."""

    def to_json(self) -> dict[str, Any]:
        """The verdict as `report --json` prints it."""
        return asdict(self)


def judge(plan: Plan, arms: Sequence[ArmScores], model: str) -> tuple[Verdict, tuple[Paired, ...]]:
    """Compare the chosen arm with every other on the combined score of the same questions.

    ValueError when the plan's choice was not among the arms measured.
    """
    by_name = {arm.arm: arm for arm in arms if arm.combined}
    if plan.choice not in by_name:
        raise ValueError(f"the arm {plan.choice} was not measured")
    chosen = by_name[plan.choice]
    pairs = tuple(compare(chosen, other, plan.seed) for name, other in by_name.items() if name != plan.choice)
    against = {pair.b: pair for pair in pairs}
    winner = cheapest_within_noise(by_name, plan.seed)
    gate = gate_state([against[name] for name in plan.gate.must_beat if name in against], plan.gate.by)
    count = len(chosen.combined)
    outcome = _outcome(plan.choice, winner, gate, against)
    more = _more_questions(pairs, plan, against, count) if outcome == "undecided" else None
    text = _words(plan.choice, winner, outcome, by_name, against, model, count, more)
    wanted = plan.answers.get("model")
    proxy = (
        wanted is not None and wanted.value is not None and not same_model(str(wanted.value), plan.model.name)
    )
    strength = "proxy" if proxy else "leaning" if count < LEANING_BELOW else "measured"
    return Verdict(outcome, strength, plan.choice, winner, model, text, more, gate), pairs


def same_model(a: str, b: str) -> bool:
    """Whether two names mean the same known model."""
    found = [find(name) for name in (a, b)]
    return a == b or (found[0] is not None and found[0] == found[1])


def compare(a: ArmScores, b: ArmScores, seed: int) -> Paired:
    """Paired difference of two arms over the questions both have answered."""
    of_b = dict(zip(b.questions, b.combined, strict=True))
    both = [(x, of_b[q]) for q, x in zip(a.questions, a.combined, strict=True) if q in of_b]
    return paired(a.arm, b.arm, [x for x, _ in both], [y for _, y in both], seed)


def cheapest_within_noise(arms: dict[str, ArmScores], seed: int) -> str:
    """The cheapest arm that the best one does not surely beat (95 % paired interval above zero)."""
    best = max(arms.values(), key=lambda arm: (_mean(arm), -_cost(arm.arm)))
    equal = [arm.arm for arm in arms.values() if arm.arm == best.arm or compare(best, arm, seed).low <= 0]
    return min(equal, key=_cost)


def gate_state(pairs: Sequence[Paired], by: float) -> bool | None:
    """True when every pair's interval lies above `by`, False when one lies surely not, None in between."""
    if all(pair.low > by for pair in pairs):
        return True
    return False if any(pair.difference <= by for pair in pairs) else None


def _outcome(choice: str, winner: str, gate: bool | None, against: dict[str, Paired]) -> str:
    if gate is False:
        return "overturned"
    if winner == choice and gate:
        return "confirmed"
    if winner != choice and against[winner].high < 0:
        return "overturned"
    return "undecided"


def _more_questions(
    pairs: Sequence[Paired], plan: Plan, against: dict[str, Paired], count: int
) -> int | None:
    """Questions still needed to tell the closest open pair apart with 80 % power at the difference seen."""
    named = [against[name] for name in plan.gate.must_beat if name in against] or list(pairs)
    unsure = [p for p in named if p.low <= plan.gate.by < p.high and p.difference > plan.gate.by]
    needed = []
    for pair in unsure:
        standard_error = (pair.high - pair.low) / (2 * 1.959963984540054)
        needed.append(count * (Z * standard_error / (pair.difference - plan.gate.by)) ** 2)
    return max(1, math.ceil(max(needed)) - count) if needed else None


def _words(
    choice: str,
    winner: str,
    outcome: str,
    arms: dict[str, ArmScores],
    against: dict[str, Paired],
    model: str,
    count: int,
    more: int | None,
) -> str:
    score = f"{choice} scored {_mean(arms[choice]):.2f}"
    others = [arm for arm in arms.values() if arm.arm != choice]
    rival = max(others, key=_mean, default=None)
    if rival is None:
        return f"Only {choice} was measured, on {count} questions with {model}: {score}."
    pair = against[rival.arm]
    margin = f"{pair.difference:+.2f} [{pair.low:+.2f}, {pair.high:+.2f}] against {rival.arm}"
    ending = {
        "confirmed": "The recommendation holds.",
        "overturned": f"The recommendation does not hold: use {winner}.",
        "undecided": f"Not decided; until then the cheapest arm within noise is {winner}.",
    }[outcome]
    need = f" About {more} more questions would decide it." if more else ""
    return f"{score} on {count} questions with {model}, {margin}. {ending}{need}"


def _mean(arm: ArmScores) -> float:
    return sum(arm.combined) / len(arm.combined)


def _cost(arm: str) -> int:
    return COST_ORDER.index(arm) if arm in COST_ORDER else len(COST_ORDER)
