"""The verdict: was the recommendation confirmed, overturned, or is it still open?

The gate asks the chosen arm to beat the arms named in the plan on the same questions. Among arms that cannot be
told apart from the best, the cheapest one wins: an arm that costs more must win by more than noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from advisor.comparison import cheapest_within_noise, compare, gate_state, mean, more_questions
from rag.stats import Paired
from runners.known import find
from runners.plan import Plan
from runners.trial import ArmScores

LEANING_BELOW = 30
"""Fewer test questions than this, and the verdict only leans (product.md)."""


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
    more = more_questions(pairs, plan, against, count) if outcome == "undecided" else None
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


def _outcome(choice: str, winner: str, gate: bool | None, against: dict[str, Paired]) -> str:
    if gate is False:
        return "overturned"
    if winner == choice and gate:
        return "confirmed"
    if winner != choice and against[winner].high < 0:
        return "overturned"
    return "undecided"


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
    score = f"{choice} scored {mean(arms[choice]):.2f}"
    others = [arm for arm in arms.values() if arm.arm != choice]
    rival = max(others, key=mean, default=None)
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
