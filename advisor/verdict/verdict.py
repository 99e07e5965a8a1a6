"""The verdict: whether the recommendation is confirmed, overturned or still undecided.

The gate requires the chosen arm to surely beat the arms named in the plan, on the same questions
(:mod:`advisor.verdict.comparison` defines "surely"). An arm that costs more must win by more than noise:
otherwise the cheapest arm within noise is the winner. So the outcome is

- confirmed, when the gate is met and no cheaper arm is within noise of the recommended one;
- overturned, when an arm is surely better, or the gate is surely not met, or a cheaper arm scored the same on
  every question;
- undecided otherwise, with the number of questions that would decide.

:func:`judge_trial` is the entry point. :func:`gains_by_score` says which scores tuning raised and which it
did not: a format is soon learned, a skill or a fact seldom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from advisor.costs.arm_costs import upkeep_costs
from advisor.verdict.comparison import (
    ArmComparison,
    ArmStanding,
    cheapest_within_noise,
    compare_with_others,
    corrected_comparisons,
    mean_combined,
    questions_needed,
)
from advisor.verdict.wording import VerdictFacts, verdict_text
from rag.evaluation.statistics import PairedDifference, cluster_by_document, paired_test
from runners.models.registry import find_known_model
from runners.plan.schema import Plan
from runners.plan.score_names import SCORE_BY_NAME
from runners.trial.trial import ArmScores

LOW_SCORE = 0.5
"""A score that tuning did not raise is only mentioned where it is below this: a good one could not be raised
much.
"""
LEANING_BELOW = 30
"""With fewer test questions than this the verdict is only a tendency ("leaning")."""


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
    """None when the interval still includes both answers."""
    more_documents_needed: int | None = None
    """The number of documents those questions come from, where questions share documents."""
    margin: dict[str, Any] | None = None
    """The comparison named in the text: against which arm, difference, low, high and p_holm."""
    taught: str = ""
    """Which scores tuning surely raised and which stayed low; "" without tuning, or when all of them rose."""

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as `report --json` prints it."""
        return asdict(self)


def gains_by_score(plan: Plan, arms: Mapping[str, ArmScores]) -> str:
    """Return a sentence on which weighted scores tuning raised over the untuned base, and which not.

    The base is asked in the same way: with passages (rag) where the choice has them, else by the prompt
    alone. "" unless some score was surely raised (interval and Holm-corrected p, as everywhere) and some
    other was not.
    """
    step = next((step for step in plan.arms if step.arm == plan.choice), None)
    if step is None or step.weights is None:
        return ""
    base = "rag" if step.retrieval else "prompting"
    if base not in arms or plan.choice not in arms:
        return ""
    names = ["right", *(name for name, weight in plan.weights.items() if weight > 0 and name != "right")]
    pairs = [pair for name in names if (pair := _paired_gain(arms[plan.choice], arms[base], name, plan.seed))]
    comparisons = corrected_comparisons(pairs)
    raised = [f"{name} ({c.pair.difference:+.2f})" for name, c in comparisons.items() if c.above]
    stayed = [
        f"{name} ({_mean_score(arms[plan.choice], name):.2f}, {_mean_score(arms[base], name):.2f} before)"
        for name, c in comparisons.items()
        if not c.above and SCORE_BY_NAME[name].gain(_mean_score(arms[plan.choice], name)) < LOW_SCORE
    ]
    if not (raised and stayed):
        return ""
    return f"Tuning surely raised {_joined(raised)} over {base}, but not {_joined(stayed)}."


def judge_trial(
    plan: Plan, arms: Sequence[ArmScores], model: str, lost: Mapping[str, str] | None = None
) -> tuple[Verdict, tuple[PairedDifference, ...]]:
    """Compare the chosen arm with every other on the combined score of the same questions.

    Args:
        plan: the plan.
        arms: the scores of every arm.
        model: the name of the base model.
        lost: arms that were not trained as planned, each with the count of its rows in words. They are compared with no
            arm; where the choice is one of them there is no verdict on it.

    Raises:
        ValueError: the plan's choice was not among the arms measured.
    """
    lost = lost or {}
    by_name = {arm.arm: arm for arm in arms if arm.combined}
    if plan.choice not in by_name:
        raise ValueError(f"the arm {plan.choice} was not measured")
    if plan.choice in lost:
        return _without_verdict(plan, by_name, model, lost), ()
    by_name = {name: arm for name, arm in by_name.items() if name not in lost}
    cost = upkeep_costs(plan.steps, {name: arm.tokens for name, arm in by_name.items()})
    standing = compare_with_others(plan.choice, by_name, plan.gate.must_beat, plan.gate.by, plan.seed)
    missing = tuple(name for name in plan.gate.must_beat if name not in by_name)
    gate = None if standing.gate_met and missing else standing.gate_met
    winner = cheapest_within_noise(by_name, cost, standing, plan.seed)
    outcome = _outcome(standing, gate, winner)
    blocking = _undecided_comparisons(standing, winner) if outcome == "undecided" else []
    needed = None if missing else questions_needed(blocking)
    rival = _rival(outcome, standing, by_name, blocking)
    count = min([len(by_name[plan.choice].combined), *(c.pair.questions for c in standing.shown.values())])
    strength, limits = _strength_and_limits(plan, by_name, rival, count)
    limits = (*limits, *(_left_out_sentence(name, lost[name]) for name in lost))
    text = verdict_text(
        VerdictFacts(
            outcome, winner, standing, by_name, rival, missing, needed, count, model, limits, frozenset(lost)
        )
    )
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
        _margin(standing, rival),
        gains_by_score(plan, by_name),
    )
    return verdict, tuple(comparison.pair for comparison in standing.shown.values())


def _left_out_sentence(arm: str, rows: str) -> str:
    """Return a sentence on an arm that is left out of the comparison."""
    return f"{arm} was not trained as planned and is left out of the comparison: {rows}."


def _without_verdict(
    plan: Plan, arms: Mapping[str, ArmScores], model: str, lost: Mapping[str, str]
) -> Verdict:
    """Return the undecided verdict of a trial whose recommended arm was not trained as planned.

    The arm to use until then is the cheapest one within noise of the best of the others; the recommended one only when
    there is no other.
    """
    others = {name: arm for name, arm in arms.items() if name not in lost}
    winner = plan.choice
    if others:
        cost = upkeep_costs(plan.steps, {name: arm.tokens for name, arm in others.items()})
        best = min(others, key=lambda name: (-round(mean_combined(others[name]), 9), cost[name]))
        standing = compare_with_others(best, others, (), 0.0, plan.seed)
        winner = cheapest_within_noise(others, cost, standing, plan.seed)
    strength, _ = _strength_and_limits(plan, arms, None, len(arms[plan.choice].combined))
    until = f"Of the other arms the cheapest within noise is {winner}." if others else ""
    sentences = (
        f"No verdict on {plan.choice} with {model}: it was not trained as planned: {lost[plan.choice]}.",
        *(_left_out_sentence(name, lost[name]) for name in lost if name != plan.choice),
        until,
    )
    text = " ".join(filter(None, sentences))
    return Verdict("undecided", strength, plan.choice, winner, model, text, None, None)


def same_model(a: str, b: str) -> bool:
    """Return whether two names mean the same known model."""
    models = [find_known_model(name) for name in (a, b)]
    return a == b or (models[0] is not None and models[0] == models[1])


def _paired_gain(tuned: ArmScores, base: ArmScores, name: str, seed: int) -> PairedDifference | None:
    """Return the paired gain in one score over the questions that both arms have it for; else None."""
    gain = SCORE_BY_NAME[name].gain
    before = {
        question: gain(scores[name])
        for question, scores in zip(base.questions, base.scores, strict=True)
        if name in scores
    }
    rows = [
        (gain(scores[name]), before[question], document)
        for question, scores, document in zip(tuned.questions, tuned.scores, tuned.sources(), strict=True)
        if name in scores and question in before
    ]
    if not rows:
        return None
    after, earlier, documents = zip(*rows, strict=True)
    return paired_test(tuned.arm, name, after, earlier, seed, documents)


def _mean_score(arm: ArmScores, name: str) -> float:
    return fmean(arm.of(name))


def _joined(parts: list[str]) -> str:
    """Return the parts as a list in words."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _outcome(standing: ArmStanding, gate: bool | None, winner: str) -> str:
    """Return confirmed, overturned or undecided."""
    if gate is False or standing.better or (winner in standing.shown and standing.shown[winner].same):
        return "overturned"
    return "confirmed" if gate and winner == standing.choice and standing.shown else "undecided"


def _undecided_comparisons(standing: ArmStanding, winner: str) -> list[ArmComparison]:
    """Return what keeps the verdict open: pairs of the gate, and the cheaper arm that is within noise."""
    comparisons = {name: comparison for name, comparison in standing.gate.items() if not comparison.above}
    if winner in standing.shown and winner not in standing.gate:
        comparisons[winner] = standing.shown[winner]
    return list(comparisons.values())


def _rival(
    outcome: str, standing: ArmStanding, arms: Mapping[str, ArmScores], blocking: Sequence[ArmComparison]
) -> ArmComparison | None:
    """Return the comparison to name: what overturned, what is still open, else the strongest other arm."""
    if standing.better:
        return standing.shown[standing.better[0]]
    if outcome == "overturned":
        lost = [c for c in (*standing.gate.values(), *standing.shown.values()) if c.below]
        return min(lost, key=lambda c: c.pair.difference)
    if blocking:
        return min(blocking, key=lambda c: c.pair.difference - c.by)
    return max(standing.shown.values(), key=lambda c: mean_combined(arms[c.pair.b]), default=None)


def _strength_and_limits(
    plan: Plan, arms: Mapping[str, ArmScores], rival: ArmComparison | None, count: int
) -> tuple[str, tuple[str, ...]]:
    """Return the verdict's strength, the weakest that applies, and a sentence for each weakness."""
    sentences = []
    strength = "measured"
    documents = cluster_by_document(arms[plan.choice].sources())
    if not documents.by_document:
        sentences.append(
            f"The questions come from {documents.documents} documents, too few to judge by: "
            "the intervals hold for these and no others."
        )
    spread = max((arms[n].seed_spread for n in (plan.choice, rival.pair.b)), default=0.0) if rival else 0.0
    if rival and 0 < abs(rival.pair.difference) < spread:
        sentences.append(f"The difference is smaller than the spread between training seeds ({spread:.2f}).")
    if count < LEANING_BELOW:
        strength = "leaning"
        sentences.append(f"Under {LEANING_BELOW} questions it only leans.")
    arm_model = next((step.model for step in plan.arms if step.arm == plan.choice), None)
    measured = (arm_model or plan.model).name
    wanted = plan.answers.get("model")
    meant = plan.model.name if wanted is None or wanted.value is None else str(wanted.value)
    if not same_model(meant, measured):
        strength = "proxy"
        sentences.append(f"Measured on {measured}, not on {meant}: a proxy, no more.")
    return strength, tuple(sentences)


def _margin(standing: ArmStanding, rival: ArmComparison | None) -> dict[str, Any] | None:
    """Return the named comparison as JSON values."""
    if rival is None:
        return None
    pair = asdict(standing.shown[rival.pair.b].pair)
    return {"against": pair["b"]} | {key: pair[key] for key in ("difference", "low", "high", "p", "p_holm")}
