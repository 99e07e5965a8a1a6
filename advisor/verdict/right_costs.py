"""What a right answer costs: the cost of all answers by the number of right ones, and which arm gives most for the money.

**The interval.** The ratio of two means over the same questions, both clustered by document, wordings of a question as one
value. On the log scale the distances of the share's Wilson bounds and of the cost's Student bounds are combined with the
correlation of the two means (MOVER: Zou and Donner 2008), so that with answers of equal cost it is that cost by the
bounds of the share. Fieller's interval, which takes the share for normal, held in 86 to 94 % of simulated trials with one in
ten right, this one in 94 to 98 % (benchmarks/LOG.md). Where no answer is right there is a bound only: the lower one of
the cost by the upper one of the share.

**Which arm gives most right answers for the money.** The one with the least cost of a right answer among those that can be
used. It is *sure* where every other such arm costs surely more: ratios of all pairs of these arms are compared on the same
questions, the p corrected for all pairs (Holm), so that it does not matter that the arm was picked by its result. A pair is
tested twice, by the difference of the log ratios and by that of the products of one's cost with the other's share; the
larger p counts, for the first is too sure with few right answers, the second where shares are far apart. As in the score
test of Tango (1998), answers that are the same so far are no proof that they would be the same on other questions.

Costs are in USD, where prices are known, else in seconds; arms in seconds are not compared with arms in USD. Training is
not part of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import median, quantiles

import numpy as np

from advisor.costs.arm_costs import asks_server, costs_of_answers, monthly_calls, only_explains
from advisor.verdict.comparison import SIGNIFICANCE_LEVEL
from advisor.verdict.right_answers import RIGHT
from advisor.verdict.run_records import RunRecords
from rag.evaluation.clusters import (
    LEVEL,
    MIN_CLUSTERS,
    MIN_SPREAD,
    cluster_by_document,
    clustered_error,
    document_groups,
    mean_by_question,
    student_p,
    weighted_questions,
)
from rag.evaluation.statistics import clustered_share, holm_correction
from runners.report.records import ArmReport, CostPerRight, Estimate, MostRight, SecondsAlone, Verdict
from runners.report.trial_report import CallVolume, TrialReport, arm_named
from runners.trial.trial import ArmScores


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedAnswers:
    """The answers of an arm that could be judged: what each cost and whether it is right, by what was asked."""

    costs: Mapping[str, float]
    right: Mapping[str, float]
    originals: Mapping[str, str]
    """The question that each wording asks."""
    documents: Mapping[str, str | None]
    """By question."""
    in_usd: bool
    weights: Mapping[str, float]
    """How often each is asked; {} when all are asked as often."""

    def values(self, asked: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[str | None]]:
        """Return cost, right answers and document of each question, both values float [questions]."""
        questions = [self.originals[one] for one in asked]
        cost, right = (
            mean_by_question([of[one] for one in asked], questions, self._times(asked))
            for of in (self.costs, self.right)
        )
        return np.array(cost), np.array(right), [self.documents[one] for one in dict.fromkeys(questions)]

    def _times(self, asked: Sequence[str]) -> list[float]:
        return [self.weights[one] for one in asked] if self.weights else []

    def weights_of(self, asked: Sequence[str]) -> list[float]:
        """Return how often each question is asked, in the order of :meth:`values`; [] when all are asked as often."""
        times, questions = self._times(asked), [self.originals[one] for one in asked]
        return weighted_questions(times, questions, times)[1] if times else []


@dataclass(frozen=True, slots=True)
class _MeanCost:
    """A mean cost with the factor between it and the ends of its interval."""

    mean: float
    factor: float


def judged_answers(arm: ArmScores, costs: Sequence[float], in_usd: bool = True) -> JudgedAnswers:
    """Return the answers of an arm that could be judged; ``costs`` has one for each that was given."""
    rows = zip(arm.questions, arm.originals, costs, arm.scores, strict=True)
    judged = {asked: (of, cost, scores[RIGHT]) for asked, of, cost, scores in rows if RIGHT in scores}
    return JudgedAnswers(
        costs={asked: cost for asked, (_, cost, _) in judged.items()},
        right={asked: right for asked, (_, _, right) in judged.items()},
        originals={asked: of for asked, (of, _, _) in judged.items()},
        documents=dict(zip(arm.originals, arm.documents or [None] * len(arm.questions), strict=True)),
        in_usd=in_usd,
        weights=dict(zip(arm.questions, arm.asked, strict=False)),
    )


def cost_per_right(answers: JudgedAnswers, calls: float) -> CostPerRight | None:
    """Return the cost of a right answer with its 95 % interval, by the rule of this module; None without judged answers.

    Args:
        answers: of one arm.
        calls: a month.
    """
    if not answers.costs:
        return None
    cost, right, documents = answers.values(list(answers.costs))
    mean = _mean_cost(cost, documents)
    units = cluster_by_document(documents)
    # As a bootstrap of documents is, the normal quantile of the share is too narrow for them; few have Student's t already.
    level = LEVEL if units.few or units.units < 2 else _student_level(units.units)
    share = clustered_share(right.tolist(), documents, level, answers.weights_of(list(answers.costs)))
    low, high, each = mean.mean / mean.factor / share.high, None, None
    if share.mean > MIN_SPREAD:
        each = mean.mean / share.mean
        together = _correlation(cost, right, units.index)
        wide = math.log(mean.factor)
        low = each / math.exp(_combined(wide, math.log(share.high / share.mean), together))
        high = each * math.exp(_combined(wide, math.log(share.mean / share.low), together))
    thousand = 1000 * mean.mean
    return CostPerRight(
        in_usd=answers.in_usd,
        usd=_rounded(each) if answers.in_usd else None,
        seconds=None if answers.in_usd else _rounded(each),
        low=_rounded(low) or 0.0,
        high=_rounded(high),
        per_1000=Estimate(
            mean=_rounded(thousand) or 0.0,
            low=_rounded(thousand / mean.factor) or 0.0,
            high=_rounded(thousand * mean.factor) or 0.0,
        ),
        month=_rounded(calls * mean.mean) or 0.0,
    )


def most_right(answers: Mapping[str, JudgedAnswers]) -> MostRight | None:
    """Return which of these arms gives most right answers for the money, and whether that is sure; None where none can.

    Args:
        answers: of the arms that can be used, by arm.
    """
    right = {name: arm for name, arm in answers.items() if sum(arm.right.values()) > 0}
    in_usd = any(arm.in_usd for arm in right.values())
    compared = {name: arm for name, arm in right.items() if arm.in_usd == in_usd}
    if not compared:
        return None
    # Of arms that cost nothing the one with more right answers.
    least = min(compared, key=lambda name: (_ratio(compared[name]), -sum(compared[name].right.values())))
    pairs = list(combinations(compared, 2))
    chances = holm_correction([same_ratio_p(compared[a], compared[b]) for a, b in pairs])
    sure = {frozenset(pair) for pair, p in zip(pairs, chances, strict=True) if p <= SIGNIFICANCE_LEVEL}
    perhaps = tuple(name for name in compared if name != least and {least, name} not in sure)
    return MostRight(
        arm=least,
        in_usd=in_usd,
        sure=len(compared) > 1 and not perhaps,
        perhaps=perhaps,
        no_price=tuple(name for name in right if name not in compared),
    )


def same_ratio_p(a: JudgedAnswers, b: JudgedAnswers) -> float:
    """Return the two-sided p of two arms whose right answers cost the same; 1 with fewer than ``MIN_CLUSTERS`` documents."""
    asked = [one for one in a.costs if one in b.costs]
    (cost_a, right_a, documents), (cost_b, right_b, _) = a.values(asked), b.values(asked)
    units = cluster_by_document(documents)
    means = [float(values.mean()) if asked else 0.0 for values in (cost_a, right_a, cost_b, right_b)]
    of_a, share_a, of_b, share_b = means
    if units.units < MIN_CLUSTERS or not units.by_document or min(share_a, share_b) < MIN_SPREAD:
        return 1.0
    if min(of_a, of_b) <= 0:  # no cost at all is less than any
        return 1.0 if max(of_a, of_b) <= 0 else 0.0
    groups = None if units.single else units
    logs = cost_b / of_b - right_b / share_b - cost_a / of_a + right_a / share_a
    products = cost_b * share_a + right_a * of_b - cost_a * share_b - right_b * of_a
    tested = (
        (math.log(of_b / share_b) - math.log(of_a / share_a), logs),
        (of_b * share_a - of_a * share_b, products),
    )
    freedom = units.effective if units.few else float(units.units)
    # If the true ratios were equal, shares would differ by so much: then at least so many answers would, seen or not.
    apart = min(share_a, share_b) * (1 - math.exp(-abs(tested[0][0])))
    least = math.sqrt(apart * (1 - apart) / cost_a.size) / min(share_a, share_b)
    scales = (1.0, max(of_a * share_b, of_b * share_a))
    # About the difference of equal ratios, none, and not about the one seen: with few wrong answers that is too small.
    errors = [
        math.hypot(max(clustered_error(values, groups), least * scale), seen / math.sqrt(cost_a.size - 1))
        for (seen, values), scale in zip(tested, scales, strict=True)
    ]
    lower = student_p(-np.abs(np.array([seen for seen, _ in tested])), np.array(errors), freedom)
    return float(min(1.0, 2 * lower.max()))


def right_ratio(a: ArmScores, b: ArmScores) -> Estimate | None:
    """Return the right answers of one arm by those of another on the same questions, with the 95 % interval.

    The interval is that of :func:`cost_per_right`, with the share of the first arm in place of the cost. None where the
    second arm has no right answer, or no question was judged for both.
    """
    of_a, of_b = (judged_answers(arm, [0.0] * len(arm.questions)) for arm in (a, b))
    asked = [one for one in of_a.right if one in of_b.right]
    (_, right_a, documents), (_, right_b, _) = of_a.values(asked), of_b.values(asked)
    if not asked or right_b.mean() <= MIN_SPREAD:
        return None
    units = cluster_by_document(documents)
    level = LEVEL if units.few or units.units < 2 else _student_level(units.units)
    weights = of_a.weights_of(asked)
    one, other = (clustered_share(right.tolist(), documents, level, weights) for right in (right_a, right_b))
    if one.mean <= MIN_SPREAD:
        return Estimate(mean=0.0, low=0.0, high=_rounded(one.high / other.low) or 0.0)
    each, together = one.mean / other.mean, _correlation(right_a, right_b, units.index)
    down = _combined(math.log(one.mean / one.low), math.log(other.high / other.mean), together)
    up = _combined(math.log(one.high / one.mean), math.log(other.mean / other.low), together)
    low, high = each / math.exp(down), each * math.exp(up)
    return Estimate(mean=_rounded(each) or 0.0, low=_rounded(low) or 0.0, high=_rounded(high) or 0.0)


def with_right_costs(report: TrialReport, records: RunRecords, arms: Sequence[ArmScores]) -> TrialReport:
    """Return a report with the cost of a right answer of each arm, and the arm that gives most of them for the money.

    Args:
        report: without them.
        records: of the run.
        arms: the scores that were judged.
    """
    plan, verdict = records.plan, report.verdict
    calls, source = monthly_calls(plan)
    usd = {arm.arm: costs_of_answers(arm, plan, records.gpu) for arm in arms}
    priced = any(any(costs or ()) for costs in usd.values())
    answers = {}
    for arm in arms:
        costs = usd[arm.arm] if priced else None
        answers[arm.arm] = judged_answers(arm, arm.seconds if costs is None else costs, costs is not None)
    remote = {step.arm for step in plan.arms if asks_server(plan, step)}
    requests = {arm.arm: _timed(arm.seconds) for arm in arms if arm.arm in remote and arm.seconds}
    rows = tuple(
        replace(
            row,
            cost_per_right=cost_per_right(answers[row.arm], calls) if row.arm in answers else None,
            requests=requests.get(row.arm),
        )
        for row in report.arms
    )
    left_out = set(verdict.excluded) | {
        name for name in answers if only_explains(name) and name != verdict.use
    }
    usable = {name: arm for name, arm in answers.items() if name not in left_out}
    most = most_right(usable) if verdict.use else None
    volume = CallVolume(calls=calls, source=source)
    verdict = replace(verdict, most_right_for_money=most)
    lines = three_answers(verdict, rows, volume, plan.gate.not_worse_by)
    return replace(report, arms=rows, volume=volume, verdict=replace(verdict, three_answers=lines))


def three_answers(
    verdict: Verdict, arms: Sequence[ArmReport], volume: CallVolume, by: float
) -> tuple[str, ...]:
    """Return the best arm, the cheapest that is not worse, the one with most right answers for the money; () without one.

    Args:
        verdict: of the trial.
        arms: with the costs of a right answer.
        volume: the calls of a month.
        by: the margin: worse by less counts as not worse.
    """
    most, best = verdict.most_right_for_money, arm_named(arms, verdict.in_place_of or verdict.use)
    if most is None or best is None:
        return ()
    itself = f"{best.arm} itself; of no cheaper arm was that shown."
    cheaper = verdict.use if verdict.in_place_of else verdict.not_worse
    return (
        f"Best: {best.arm}, {best.right_text} right.",
        f"Cheapest that is clearly not worse by {by:g} or more: {f'{cheaper}.' if cheaper else itself}",
        _most_right_line(verdict, most, arms, volume),
    )


def _most_right_line(verdict: Verdict, most: MostRight, arms: Sequence[ArmReport], volume: CallVolume) -> str:
    """Return the third of these answers, with the cost of the arm to use beside it, and what costs less but is left out."""
    costs = {arm.arm: arm.cost_per_right for arm in arms if arm.cost_per_right}
    own = costs[most.arm]
    text = f"Most right answers for the {'money' if most.in_usd else 'time'}, of the arms that can be used: {most.arm}"
    if most.sure:
        text += ", clearly"
    elif most.perhaps:
        text += f"; {' or '.join(most.perhaps)} may give as many"
    month = f"{volume.calls:,.0f} calls a month ({volume.source})"
    text += f". A right answer costs {right_cost_text(own)}, {month} {_month(arms, most.arm, volume)}"
    use = costs.get(verdict.use or "")
    if verdict.use != most.arm and use and use.in_usd == own.in_usd:
        text += f"; of {verdict.use} {right_cost_text(use)}, and {_month(arms, verdict.use, volume)}"
    cheaper = [
        f"{name}, {cost_text(other.each or 0.0, own.in_usd)} (it {why})"
        for name, why in verdict.excluded.items()
        if (other := costs.get(name)) and other.in_usd == own.in_usd
        if (other.each or math.inf) < (own.each or 0.0)
    ]
    if cheaper:
        text += f". Cannot be used, though a right answer costs less: {'; '.join(cheaper)}"
    if most.no_price:
        text += f". Not compared, for no price is known: {', '.join(most.no_price)}"
    return f"{text}."


def _month(arms: Sequence[ArmReport], name: str | None, volume: CallVolume) -> str:
    arm = arm_named(arms, name)
    if arm is None or arm.cost_per_right is None or arm.right is None:
        return ""
    rights = float(f"{arm.right.share * volume.calls:.2g}")
    return f"{cost_text(arm.cost_per_right.month, arm.cost_per_right.in_usd)} with about {rights:,.0f} right"


def right_cost_text(cost: CostPerRight) -> str:
    """Return the cost of a right answer with its interval; where none was right, the bound."""
    if cost.each is None or cost.high is None:
        return f"more than {cost_text(cost.low, cost.in_usd)}: none was right"
    each, low, high = (cost_text(amount, cost.in_usd) for amount in (cost.each, cost.low, cost.high))
    if len({text.partition(" ")[2] for text in (each, low, high)}) == 1:  # one unit
        low, high = low.partition(" ")[0], high.partition(" ")[0]
    return f"{each} ({low} to {high})"


def cost_text(amount: float, in_usd: bool) -> str:
    """Return USD, or seconds in the unit that fits them, to two digits."""
    if in_usd:
        return f"{_two_digits(amount)} USD"
    if amount < 90:
        return f"{_two_digits(amount)} s"
    return f"{_two_digits(amount / 60)} min" if amount < 5400 else f"{_two_digits(amount / 3600)} h"


def _two_digits(value: float) -> str:
    """Return a number to two significant digits, those before the point in full, never with an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    text = f"{float(f'{value:.2g}'):.12f}"
    return text.rstrip("0").rstrip(".")


def _timed(seconds: Sequence[float]) -> SecondsAlone:
    p95 = quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) >= 20 else max(seconds)
    return SecondsAlone(seconds=median(seconds), p95=p95, n=len(seconds))


def _ratio(answers: JudgedAnswers) -> float:
    return sum(answers.costs.values()) / sum(answers.right.values())


def _mean_cost(cost: np.ndarray, documents: Sequence[str | None]) -> _MeanCost:
    """Return the mean with the factor of its 95 % interval: exp of Student's half width over the mean."""
    from scipy.special import stdtrit

    mean, groups = float(cost.mean()), document_groups(cost, documents)
    error = clustered_error(cost, groups)
    if mean <= 0 or not error > MIN_SPREAD * mean:  # no spread, or a single question
        return _MeanCost(mean, 1.0)
    units = cost.size if groups is None else groups.effective if groups.few else groups.units
    return _MeanCost(mean, math.exp(float(stdtrit(units - 1, 0.5 + LEVEL / 2)) * error / mean))


def _student_level(units: int) -> float:
    """Return the confidence level whose normal quantile is that of Student's t over so many documents."""
    from scipy.special import ndtr, stdtrit

    # of two documents Student's quantile is 12.7, beyond which float64 has no normal level below 1
    return min(float(2 * ndtr(stdtrit(units - 1, 0.5 + LEVEL / 2)) - 1), 1 - 1e-9)


def _correlation(cost: np.ndarray, right: np.ndarray, index: np.ndarray) -> float:
    """Return the correlation of two means whose values are clustered alike; 0 where one has no spread."""
    costs, rights = (np.bincount(index, values - values.mean()) for values in (cost, right))
    spread = math.sqrt(float((costs**2).sum() * (rights**2).sum()))
    return float((costs * rights).sum()) / spread if spread > 0 else 0.0


def _combined(one: float, other: float, correlation: float) -> float:
    """Return the distance of a difference from its bound, by the distances of its two parts."""
    return math.sqrt(max(0.0, one**2 + other**2 - 2 * correlation * one * other))


def _rounded(value: float | None) -> float | None:
    """Return a cost to six significant digits; the smallest are millionths of a cent."""
    return None if value is None else float(f"{value:.6g}")
