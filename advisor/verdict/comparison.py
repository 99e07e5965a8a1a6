"""Arms compared on the same questions: which one surely does better than which.

**The rule.** One arm is surely above another when both of two things hold on the questions both answered: the
95 % paired interval is above zero, and the Holm-corrected p of the sign-flip test is at most .05. The
interval says by how much, the p keeps the error rate: of 1,000 trials of two equal arms with 12 to 60
questions the interval alone excluded zero in 5.7 to 8.7 %, most with few questions, both together in 4.0 to
5.3 % (benchmarks/LOG.md). Of effectively fewer than ten documents the interval is Student's t over documents, of
fewer than six the p too; of two or fewer nothing is sure. So two equal arms come out as surely different in 1 to
4 % of trials with 3 to 30 documents of 5 to 40 questions, in 7 % in the worst of 108 cells of 400 to 600 trials
(``python -m benchmarks.simulated_verdicts``).

**What is corrected together.** Two questions are asked about the recommendation, and each gets its own
correction: does it beat the arms of its gate, and is there another arm that does better? All of the gate's
pairs must hold, and the last of Holm's steps tests at the full 5 %, so the correction costs the gate little
(no more than 5 % would be wrong even without it: Berger 1982); but it makes each single sentence "above rag"
hold beside the others, and the p that is shown is the p that decides. In the other family a single better arm
overturns the recommendation, which is what needs the correction. When the best arm is not the recommended
one, its comparisons with cheaper arms are corrected among themselves in the same way.

With several models all comparisons count as one family, as many as there are pairs of arms (:func:`all_pairs`): which arm
is the best, and so which pairs are named, follows from the results, and of twelve arms the best is ahead of some by luck.

An interval that touches the line still includes it: neither above nor below.

:func:`questions_needed` says how many more questions would decide an open verdict: a power calculation at the
difference seen.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

from advisor.costs.arm_costs import only_explains
from rag.evaluation.clusters import FEW_CLUSTERS, LEVEL, MIN_CLUSTERS, mean_by_question, weighted_questions
from rag.evaluation.prediction_powered import PredictionPowered, prediction_powered
from rag.evaluation.statistics import RESAMPLES, PairedDifference, holm_correction, paired_test
from rag.text.words import count_noun
from runners.plan.score_names import SCORE_BY_NAME
from runners.report.arm_scores import ITSELF, ArmScores

RIGHT = "right"
"""The score that a grade stands for."""
SIGNIFICANCE_LEVEL = 0.05
"""Largest Holm-corrected p that still counts."""
LEANING_BELOW = 30
"""With fewer test questions than this, or with two documents, the verdict is only a tendency ("leaning")."""
STATISTICAL_POWER = 0.8
"""Probability that this many questions decide, if the true difference is the one seen."""


@dataclass(frozen=True, slots=True)
class ArmComparison:
    """One arm against another, and the margin ``by`` that the difference must exceed, as the p tests."""

    pair: PairedDifference
    by: float = 0.0

    @property
    def above(self) -> bool:
        """Surely more than ``by`` above the other arm."""
        return self.pair.low > self.by and self.pair.p_holm <= SIGNIFICANCE_LEVEL

    @property
    def below(self) -> bool:
        """Surely less than ``by`` above it, or the same on every question."""
        return self.same or (self.pair.high < self.by and self.pair.p_holm <= SIGNIFICANCE_LEVEL)

    @property
    def same(self) -> bool:
        """The same score on every question (or ``by`` apart on each), and questions enough to say so."""
        return self.pair.low == self.pair.high == self.by and self.pair.units >= MIN_CLUSTERS


@dataclass(frozen=True, slots=True)
class ArmStanding:
    """The recommended arm compared with all others."""

    choice: str
    shown: Mapping[str, ArmComparison]
    """Against every other arm, as reported: is there any difference?"""
    gate: Mapping[str, ArmComparison]
    """Against the arms of the gate: is the difference larger than the plan's ``by``?"""

    @property
    def gate_met(self) -> bool | None:
        """True when every arm of the gate is surely beaten, False when one surely is not, None otherwise."""
        if all(comparison.above for comparison in self.gate.values()):
            return True
        lost = any(comparison.below or name in self.better for name, comparison in self.gate.items())
        return False if lost else None

    @property
    def better(self) -> tuple[str, ...]:
        """Arms that surely did better than the recommended one, the largest difference first."""
        names = [
            name for name, c in self.shown.items() if c.pair.high < 0 and c.pair.p_holm <= SIGNIFICANCE_LEVEL
        ]
        return tuple(sorted(names, key=lambda name: self.shown[name].pair.difference))

    def loses_to(self, names: Collection[str]) -> bool:
        """Return whether one of these arms is surely better, or surely not beaten by the gate's margin."""
        lost = {name for name, comparison in self.gate.items() if comparison.below}
        return any(name in names for name in (*self.better, *lost))

    @property
    def beaten(self) -> frozenset[str]:
        """Arms that the recommended one surely beats, by the gate's margin where it has one."""
        both = {**self.shown, **self.gate}
        return frozenset(name for name, comparison in both.items() if comparison.above)


@dataclass(frozen=True, slots=True)
class QuestionsNeeded:
    """Further questions, and the number of documents they come from where questions share documents."""

    questions: int
    documents: int | None


def compare_arms(a: ArmScores, b: ArmScores, seed: int, above: float = 0.0) -> PairedDifference:
    """Return the paired difference of two arms over their common questions, clustered by source document.

    Every wording counts, and those of one question together are one value of the test. Where the grades of a judge count for
    the two (:mod:`runners.judging.calibration`), it is the difference of their mean grades, else of their combined scores.
    This is the one place where two arms are compared.
    """
    if b.arm in a.graded:
        return prediction_powered(a.graded[b.arm].differences, above, any_time=True).paired(a.arm, b.arm)
    if a.asked:
        of_a, of_b = (dict(zip(arm.questions, arm.combined, strict=True)) for arm in (a, b))
        weights = dict(zip(a.questions, a.question_weights, strict=True))
        return paired_by_question(a, b, of_a, of_b, seed, above, weights=weights)
    of_a, of_b = (dict(zip(arm.questions, arm.weighted, strict=True)) for arm in (a, b))
    return paired_by_question(a, b, of_a, of_b, seed, above)


def paired_by_question(
    a: ArmScores,
    b: ArmScores,
    of_a: Mapping[str, float],
    of_b: Mapping[str, float],
    seed: int,
    above: float = 0.0,
    resamples: int = RESAMPLES,
    weights: Mapping[str, float] | None = None,
) -> PairedDifference:
    """Return the paired difference of two arms in values of all that was asked, one for each question.

    Args:
        a: the first arm, which says which question each wording asks, and its document.
        b: the second arm.
        of_a: the first arm's values by what was asked.
        of_b: the second arm's.
        seed: of the random draws.
        above: the difference under the null hypothesis.
        resamples: how many bootstrap samples and sign flips are drawn.
        weights: how often each is asked; None when all are asked as often.
    """
    originals = dict(zip(a.questions, a.originals, strict=True))
    documents = dict(zip(a.originals, a.documents or [None] * len(a.questions), strict=True))
    both = [asked for asked in of_a if asked in of_b]
    questions = [originals[asked] for asked in both]
    sources = tuple(documents[question] for question in dict.fromkeys(questions))
    times = [weights[asked] for asked in both] if weights else []
    if times:
        (first, sizes), (second, _) = (
            weighted_questions([of[asked] for asked in both], questions, times) for of in (of_a, of_b)
        )
    else:
        first, second = (mean_by_question([of[asked] for asked in both], questions) for of in (of_a, of_b))
        sizes = []
    pair = _paired(tuple(first), tuple(second), seed, sources, above, resamples, tuple(sizes))
    return replace(pair, a=a.arm, b=b.arm)


@lru_cache(maxsize=64)
def _paired(
    first: tuple[float, ...],
    second: tuple[float, ...],
    seed: int,
    sources: tuple[str | None, ...],
    above: float,
    resamples: int,
    weights: tuple[float, ...],
) -> PairedDifference:
    """Return the test of a pair without names; a verdict asks for some pairs more than once."""
    return paired_test("", "", first, second, seed, sources, above, resamples, weights)


def compare_on_score(a: ArmScores, b: ArmScores, score: str, seed: int) -> PairedDifference | None:
    """Return the paired difference of two arms in one score, where higher is better; None without common questions.

    Of a score of which less is better, 1 minus its value is compared. Where the grades of a judge count for the two, they
    stand for the score ``right``.
    """
    if score == RIGHT and b.arm in a.graded:
        return compare_arms(a, b, seed)
    definition = SCORE_BY_NAME.get(score)
    gain = definition.gain if definition else float
    of_b = {
        question: gain(scores[score])
        for question, scores in zip(b.questions, b.scores, strict=True)
        if score in scores
    }
    of_a = {
        question: gain(scores[score])
        for question, scores in zip(a.questions, a.scores, strict=True)
        if score in scores and question in of_b
    }
    weights = dict(zip(a.questions, a.asked, strict=False))
    return paired_by_question(a, b, of_a, of_b, seed, weights=weights) if of_a else None


def surely_below(
    best: str, arms: Mapping[str, ArmScores], score: str, seed: int, family: int = 0
) -> dict[str, PairedDifference]:
    """Return the arms that the best one surely beats in one score, with the differences (best minus arm), Holm-corrected.

    ``family`` is as in :func:`corrected_comparisons`.
    """
    pairs = [
        pair
        for name in arms
        if name != best and (pair := compare_on_score(arms[best], arms[name], score, seed))
    ]
    return {name: c.pair for name, c in corrected_comparisons(pairs, family=family).items() if c.above}


def corrected_comparisons(
    pairs: Iterable[PairedDifference], by: float = 0.0, family: int = 0
) -> dict[str, ArmComparison]:
    """Correct the pairs together (Holm); keys are the names of the other arms.

    Args:
        pairs: what is compared.
        by: the margin that is tested.
        family: how many comparisons are corrected together, where that is more than are given: those not given count.
    """
    rows = list(pairs)
    others = [1.0] * max(0, family - len(rows))
    adjusted = holm_correction([*(pair.p for pair in rows), *others])[: len(rows)]
    return {
        pair.b: ArmComparison(replace(pair, p_holm=p), by) for pair, p in zip(rows, adjusted, strict=True)
    }


def all_pairs(arms: int) -> int:
    """Return how many pairs of so many arms there are."""
    return arms * (arms - 1) // 2


def compare_with_others(
    choice: str,
    arms: Mapping[str, ArmScores],
    must_beat: Sequence[str],
    by: float,
    seed: int,
    family: int = 0,
) -> ArmStanding:
    """Compare the recommended arm with every other.

    The gate's pairs are corrected separately, unless ``family`` says how many comparisons count as one family.
    """

    def compared(names: Sequence[str], above: float = 0.0) -> dict[str, ArmComparison]:
        pairs = (compare_arms(arms[choice], arms[name], seed, above) for name in names)
        return corrected_comparisons(pairs, above, family)

    others = [name for name in arms if name != choice]
    gate_arms = [name for name in others if name in must_beat]
    if family:
        shown = compared(others)
        gate_comparisons = {name: shown[name] for name in gate_arms}
    else:
        gate_comparisons = compared(gate_arms)
        shown = gate_comparisons | compared([name for name in others if name not in must_beat])
    gate = compared(gate_arms, by) if by else gate_comparisons
    return ArmStanding(choice, {name: shown[name] for name in others}, gate)


@dataclass(frozen=True, slots=True, kw_only=True)
class NonInferiority:
    """Whether an arm is not worse than another by a margin: shown by the data, never assumed for lack of them."""

    pair: PairedDifference
    """The better arm minus this one."""
    by: float
    level: float
    """One-sided error rate of this pair, corrected for the number of pairs."""

    @property
    def error(self) -> float:
        """The standard error if this arm were worse by exactly the margin.

        At least that of an arm that loses this share of the units and ties on the rest, as in the score test of Tango
        (1998): twenty equal results are no proof that one in ten is not lost.
        """
        return max(self.pair.error, math.sqrt(self.by * (1 - self.by) / self.pair.units))

    @property
    def shown(self) -> bool:
        """Whether it is surely worse by less than the margin; never with two documents or fewer, or a margin of 0."""
        if self.by <= 0 or math.isnan(self.pair.error) or self.pair.units < MIN_CLUSTERS:
            return False
        steps = (self.by - self.pair.difference) / self.error
        return self.pair.high < self.by and steps >= NormalDist().inv_cdf(1 - self.level)

    @property
    def questions_needed(self) -> int | None:
        """How many more questions would show it at the difference seen; None where no number would.

        None would where with so many the difference is clear: an arm that is clearly worse is not taken, however little it
        is.
        """
        gap = self.by - self.pair.difference
        if gap <= 0 or math.isnan(self.pair.error) or self.pair.labels is not None:
            return None
        normal = NormalDist()
        # The bound is reached at the error of the margin; what varies about the difference seen is its own error.
        # One more pair that differs is added to those seen: few that do vary much in number.
        seen = math.hypot(self.pair.error, 1 / self.pair.questions)
        away = normal.inv_cdf(1 - self.level) * max(self.error, seen)
        away += normal.inv_cdf(STATISTICAL_POWER) * seen
        total = self.pair.questions * (away / gap) ** 2
        clear = normal.inv_cdf(1 - SIGNIFICANCE_LEVEL / 2) - normal.inv_cdf(STATISTICAL_POWER)
        if self.pair.difference * math.sqrt(total / self.pair.questions) > clear * seen:
            return None
        return max(1, math.ceil(total) - self.pair.questions)


def not_worse(
    best: str, names: Sequence[str], arms: Mapping[str, ArmScores], by: float, seed: int
) -> dict[str, NonInferiority]:
    """Return for each of these arms whether it is not worse than the best one by ``by``.

    The error rate of all of them together is :data:`SIGNIFICANCE_LEVEL` (Bonferroni), of each at most half of it.
    """
    level = SIGNIFICANCE_LEVEL / max(2, len(names))
    return {
        name: NonInferiority(pair=compare_arms(arms[best], arms[name], seed), by=by, level=level)
        for name in names
    }


def cheapest_within_noise(
    arms: Mapping[str, ArmScores],
    costs: Mapping[str, int],
    standing: ArmStanding,
    seed: int,
    family: int = 0,
) -> str:
    """Return the cheapest arm that neither the best arm nor the recommended one surely beats: a recommendation is confirmed
    only where it is that one. Which arm to use is decided by :mod:`advisor.verdict.arm_choice`.

    The recommended arm is out when another is surely better, or when it surely misses its gate. An arm that is measured
    only to explain the others (:data:`advisor.costs.arm_costs.COMPARISON_ARMS`) counts where it is surely better.
    """
    rivals = {name: arm for name, arm in arms.items() if is_rival(name, arms, standing)}
    best = best_combined(rivals, costs)
    beaten = set(standing.beaten)
    if best != standing.choice:
        other_arms = [name for name in rivals if costs[name] < costs[best] and name != standing.choice]
        pairs = (compare_arms(arms[best], arms[name], seed) for name in other_arms)
        comparisons = corrected_comparisons(pairs, family=family)
        beaten = (beaten | {name for name, comparison in comparisons.items() if comparison.above}) - {best}
    if standing.better or standing.gate_met is False:
        beaten.add(standing.choice)
    return min((name for name in rivals if name not in beaten), key=lambda name: costs[name])


def is_rival(name: str, arms: Mapping[str, ArmScores], standing: ArmStanding) -> bool:
    """Return whether an arm may be named as the one to use instead: all but those that only explain the others.

    Such an arm counts where it is surely better than the recommended one, or where nothing else was measured.
    """
    return (
        not only_explains(name)
        or name == standing.choice
        or name in standing.better
        or all(map(only_explains, arms))
    )


def best_combined(arms: Mapping[str, ArmScores], costs: Mapping[str, int]) -> str:
    """Return the arm with the highest mean combined score, the cheapest of several.

    Where the grades of a judge count for pairs of them, it is the arm whose least lead over another one is largest, which
    among combined scores is the same arm.
    """
    if len(arms) > 1 and any(other in arms for arm in arms.values() for other in arm.graded):
        leads = {
            name: min(_lead(arm, other) for other in arms.values() if other is not arm)
            for name, arm in arms.items()
        }
        return min(arms, key=lambda name: (-round(leads[name], 9), costs[name]))
    # Scores are rounded so that equal arms are ordered by their costs, not by floating-point noise.
    return min(arms, key=lambda name: (-round(mean_combined(arms[name]), 9), costs[name]))


def mean_grade(arm: ArmScores, level: float = LEVEL) -> PredictionPowered | None:
    """Return an arm's mean grade by people's labels and a judge that counts for it; None where computed scores decide."""
    rows = arm.graded.get(ITSELF)
    return rows.mean_grade(level) if rows else None


def _lead(arm: ArmScores, other: ArmScores) -> float:
    if other.arm in arm.graded:
        return compare_arms(arm, other, 0).difference
    return mean_combined(arm) - mean_combined(other)


def mean_combined(arm: ArmScores) -> float:
    """Return the arm's mean combined score over its questions, weighted as the trial weighs them."""
    return arm.mean_score


def questions_needed(open_comparisons: Sequence[ArmComparison], family: int = 0) -> QuestionsNeeded | None:
    """Return how many more questions would decide; None when no number would. ``family``: see :func:`corrected_comparisons`.

    That is so where a difference is exactly what it must exceed. An open verdict ends in one of two ways. If
    an arm that must be beaten is ahead, it ends when the nearest such arm is surely ahead, at the strictest
    of Holm's levels; else when the last of the open pairs is surely beaten. The standard error shrinks with
    the square root of the number of documents, new ones holding as many questions each.
    """
    behind = [c for c in open_comparisons if c.pair.difference < c.by]
    if behind:
        strictest = SIGNIFICANCE_LEVEL / max(len(open_comparisons), family)
        return _fewest([_needed_for(c, strictest) for c in behind])
    estimates = [_needed_for(c, SIGNIFICANCE_LEVEL / max(1, family)) for c in open_comparisons]
    if not estimates or None in estimates:
        return None
    return max((estimate for estimate in estimates if estimate), key=lambda estimate: estimate.questions)


def _fewest(estimates: Sequence[QuestionsNeeded | None]) -> QuestionsNeeded | None:
    """Return the estimate with the fewest questions, None without any."""
    return min(
        (estimate for estimate in estimates if estimate),
        key=lambda estimate: estimate.questions,
        default=None,
    )


def _needed_for(comparison: ArmComparison, level: float) -> QuestionsNeeded | None:
    """Return how many more questions would decide a comparison at this level; None when none would."""
    pair = comparison.pair
    gap = abs(comparison.pair.difference - comparison.by)
    if gap == 0 or math.isnan(pair.error) or pair.labels is not None:  # by grades, it is labels that decide
        return None
    # A two-sided test at ``level`` has the wanted power when the gap is (z_level + z_power) standard errors;
    # the error shrinks with the square root of the number of questions, so their ratio is squared.
    normal = NormalDist()
    quantiles = normal.inv_cdf(1 - level / 2) + normal.inv_cdf(STATISTICAL_POWER)
    clustered = pair.units < pair.questions
    # Fewer than MIN_CLUSTERS questions are never sure; below FEW_CLUSTERS documents Student's t needs more than the normal.
    fewest = (FEW_CLUSTERS if clustered else MIN_CLUSTERS) * pair.questions / pair.units
    total = max(fewest, pair.questions * (quantiles * pair.error / gap) ** 2)
    more = max(1, math.ceil(total) - pair.questions)
    return QuestionsNeeded(more, math.ceil(more * pair.units / pair.questions) if clustered else None)


def margin_text(comparison: ArmComparison) -> str:
    """Return the difference with its interval, such as +0.18 [+0.13, +0.24] against rag."""
    pair = comparison.pair
    if pair.low == pair.high == 0:
        return f"the same as {pair.b}"
    graded = (
        ""
        if pair.labels is None
        else f" in mean grade (calibrated judge, {count_noun(pair.labels, 'label')})"
    )
    interval = f"[{signed_number(pair.low)}, {signed_number(pair.high)}]"
    return f"{signed_number(pair.difference)} {interval}{graded} against {pair.b}"


def signed_number(value: float) -> str:
    """Return a signed number of two decimals, or of as many as show that it is not zero (four at most)."""
    for decimals in (2, 3, 4):
        if float(f"{value:.{decimals}f}") or value == 0:
            return f"{value:+.{decimals}f}"
    return f"{value:+.0e}"
