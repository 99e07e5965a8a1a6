"""The verdict: was the recommendation confirmed, overturned, or is it still open?

The gate asks the chosen arm to surely beat the arms named in the plan, on the same questions (what is sure:
:mod:`advisor.comparison`). An arm that costs more must win by more than noise: otherwise the cheapest arm within noise
is the winner. So the outcome is

- confirmed, when the gate is met and no cheaper arm is within noise of the recommended one;
- overturned, when an arm is surely better, or the gate is surely not met, or a cheaper arm scored the same on every
  question;
- undecided otherwise, with the number of questions that would decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from advisor.comparison import Contest, Standing, cheapest_within_noise, mean, standing
from advisor.power import more_needed
from advisor.sentence import Judged, sentence
from advisor.taught import taught
from advisor.upkeep import costs
from rag.clusters import clusters
from rag.stats import Paired
from runners.known import find
from runners.plan import Plan
from runners.trial import ArmScores

LEANING_BELOW = 30
"""Fewer test questions than this, and the verdict only leans."""


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
    more_documents_needed: int | None = None
    """The documents' worth of those questions, where questions share documents."""
    margin: dict[str, Any] | None = None
    """The contest named in the text: against which arm, difference, low, high and p_holm."""
    taught: str = ""
    """Which scores tuning surely raised and which stayed low; "" where nothing was tuned or all of it rose."""

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
    cost = costs(plan.steps, {name: arm.tokens for name, arm in by_name.items()})
    at = standing(plan.choice, by_name, plan.gate.must_beat, plan.gate.by, plan.seed)
    missing = tuple(name for name in plan.gate.must_beat if name not in by_name)
    gate = None if at.gate_met and missing else at.gate_met
    winner = cheapest_within_noise(by_name, cost, at, plan.seed)
    outcome = _outcome(at, gate, winner)
    blocking = _open(at, winner) if outcome == "undecided" else []
    needed = None if missing else more_needed(blocking)
    rival = _rival(outcome, at, by_name, blocking)
    count = min([len(by_name[plan.choice].combined), *(c.pair.questions for c in at.shown.values())])
    strength, limits = _limits(plan, by_name, rival, count)
    text = sentence(Judged(outcome, winner, at, by_name, rival, missing, needed, count, model, limits))
    more = (needed.questions, needed.documents) if needed else (None, None)
    verdict = Verdict(
        outcome,
        strength,
        plan.choice,
        winner,
        model,
        text,
        more[0],
        gate,
        more[1],
        _margin(at, rival),
        taught(plan, by_name),
    )
    return verdict, tuple(contest.pair for contest in at.shown.values())


def same_model(a: str, b: str) -> bool:
    """Whether two names mean the same known model."""
    found = [find(name) for name in (a, b)]
    return a == b or (found[0] is not None and found[0] == found[1])


def _outcome(at: Standing, gate: bool | None, winner: str) -> str:
    if gate is False or at.better or (winner in at.shown and at.shown[winner].same):
        return "overturned"
    return "confirmed" if gate and winner == at.choice and at.shown else "undecided"


def _open(at: Standing, winner: str) -> list[Contest]:
    """Return what keeps the verdict open: pairs of the gate, and the cheaper arm that is within noise."""
    found = {name: contest for name, contest in at.gate.items() if not contest.above}
    if winner in at.shown and winner not in at.gate:
        found[winner] = at.shown[winner]
    return list(found.values())


def _rival(
    outcome: str, at: Standing, arms: Mapping[str, ArmScores], blocking: Sequence[Contest]
) -> Contest | None:
    """Return the contest to name: what overturned, what is still open, else the strongest other arm."""
    if at.better:
        return at.shown[at.better[0]]
    if outcome == "overturned":
        lost = [c for c in (*at.gate.values(), *at.shown.values()) if c.below]
        return min(lost, key=lambda c: c.pair.difference)
    if blocking:
        return min(blocking, key=lambda c: c.pair.difference - c.by)
    return max(at.shown.values(), key=lambda c: mean(arms[c.pair.b]), default=None)


def _limits(
    plan: Plan, arms: Mapping[str, ArmScores], rival: Contest | None, count: int
) -> tuple[str, tuple[str, ...]]:
    """Return the verdict's strength, the weakest that applies, and a sentence for everything that weakens it."""
    said = []
    strength = "measured"
    documents = clusters(arms[plan.choice].sources())
    if not documents.by_document:
        said.append(
            f"The questions come from {documents.documents} documents, too few to judge by: "
            "the intervals hold for these and no others."
        )
    spread = max((arms[n].seed_spread for n in (plan.choice, rival.pair.b)), default=0.0) if rival else 0.0
    if rival and 0 < abs(rival.pair.difference) < spread:
        said.append(f"The difference is smaller than the spread between training seeds ({spread:.2f}).")
    if count < LEANING_BELOW:
        strength = "leaning"
        said.append(f"Under {LEANING_BELOW} questions it only leans.")
    own = next((step.model for step in plan.arms if step.arm == plan.choice), None)
    measured = (own or plan.model).name
    wanted = plan.answers.get("model")
    meant = plan.model.name if wanted is None or wanted.value is None else str(wanted.value)
    if not same_model(meant, measured):
        strength = "proxy"
        said.append(f"Measured on {measured}, not on {meant}: a proxy, no more.")
    return strength, tuple(said)


def _margin(at: Standing, rival: Contest | None) -> dict[str, Any] | None:
    if rival is None:
        return None
    pair = asdict(at.shown[rival.pair.b].pair)
    return {"against": pair["b"]} | {key: pair[key] for key in ("difference", "low", "high", "p", "p_holm")}
