"""Whether an arm surely lost something since it was measured: old and new answers to the same questions, paired.

**The test.** For each measured arm the differences new minus old of right answers and of the combined score are tested, and
those of citations where sources were demanded. If a change is harmless, the old and the new answer of a question are two
draws of the same, so exchanging them changes nothing: the differences of each document may change sign, those of all arms
and scores together. :func:`sign_flip_family` compares the observed sums with those under all (or 9,999 random) sign changes.
One side is tested at 2.5 %, and the smallest p of the family sets the bound for all of them (step-down min-p, Westfall and
Young 1993), so that all losses together are reported wrongly in at most 2.5 % of harmless rechecks, whatever the number of
questions and however the scores hang together. Holm's correction would be valid too, and would cost more: right answers and
combined scores mostly change together. For right answers alone the test is the exact McNemar test.

**A sure regression** is such a loss whose whole 95 % interval also lies below minus the margin. **A sure gain** is the same
upwards. The interval is that of :mod:`rag.evaluation.statistics`, clustered by document; requiring both can only lower the
share of false alarms. Of fewer than six documents the p are those of Student's t over documents, corrected by
Holm; of two or fewer nothing is sure. With a margin above 0 the interval decides about the margin: its one-sided error is
that of the bootstrap (about 2.5 %, up to 4 % with few questions).
:func:`smallest_found_loss` says which loss the questions find with 80 % chance, :func:`decide` gives the outcome.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from typing import TYPE_CHECKING, Any

from advisor.verdict.comparison import LEANING_BELOW, STATISTICAL_POWER
from advisor.verdict.right_answers import RIGHT
from rag.evaluation.clusters import (
    MIN_CLUSTERS,
    MIN_FREEDOM,
    MIN_SPREAD,
    Clusters,
    cluster_by_document,
    clustered_error,
    document_groups,
    mean_by_question,
    pull,
    student_p,
    weighted_questions,
)
from rag.evaluation.sign_flips import sign_flip_family
from rag.evaluation.statistics import bootstrap_interval, holm_correction
from rag.text.words import count_noun
from runners.plan.score_names import SCORE_BY_NAME
from runners.report.json_records import to_json
from runners.trial.trial import ArmScores

if TYPE_CHECKING:
    import numpy as np

COMBINED = "combined"
GUARDS = ("citation", "refusal", "style")
"""Scores that are shown beside; they decide only where the answers demand them."""
LEVEL = 0.025
"""Largest adjusted one-sided p of a sure change."""
SMALL_LOSS = 0.05
"""A loss that is excluded down to this share of the questions counts as none."""
SIMULATIONS, SIMULATED_SIGNS = 2_000, 1_999
REGRESSION, IMPROVED, UNCHANGED = "regression", "improved", "unchanged"
UNDECIDED, NEW_GOLD = "undecided", "needs new gold"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreChange:
    """One score of one arm, before and now, on the same questions."""

    arm: str
    score: str
    before: float
    """Mean over the questions that have the score on both sides."""
    now: float
    difference: float
    low: float
    """Lower end of the 95 % interval of the difference, clustered by document."""
    high: float
    p_loss: float
    """Adjusted one-sided p of a loss; 1 for a score that only is shown."""
    p_gain: float
    losses: int
    """Questions that score less than before."""
    gains: int
    n: int
    decides: bool
    """Whether a loss of this score is an alarm; the others are shown beside."""
    error: float = float("nan")
    questions: int | None = None
    """How many questions ``n`` are, where some are other wordings of others; None where none is."""
    full: tuple[int, int] | None = None
    """Questions of full score before and now, where rows have weights, so that the means are no counts; None elsewhere."""
    effective: float | None = None
    """The effective number of questions of unequal weights (Kish 1965); None where all are equal."""

    @property
    def independent(self) -> int:
        """The number of questions, all wordings of one taken together; of unequal weights their effective number."""
        count = self.n if self.questions is None else self.questions
        return count if self.effective is None else min(count, round(self.effective))

    @property
    def counts(self) -> tuple[int, int]:
        """Right answers before and now, where the score is that of right answers."""
        before, now = self.full or (round(self.before * self.n), round(self.now * self.n))
        return before, now

    def sure_loss(self, margin: float) -> bool:
        """Return whether the score surely lost more than the margin."""
        return self.decides and self.p_loss <= LEVEL and self.high < -margin

    def sure_gain(self, margin: float) -> bool:
        """Return whether the score surely gained more than the margin."""
        return self.decides and self.p_gain <= LEVEL and self.low > margin

    def to_json(self) -> dict[str, Any]:
        """Return the change as a report has it."""
        values = {name: value for name, value in to_json(self).items() if name != "error"}
        return {
            name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()
        }


@dataclass(frozen=True, slots=True)
class FoundLoss:
    """The smallest loss of right answers that is found with 80 % chance: so many of those right before become wrong."""

    answers: int
    share: float
    """The same as a share of all questions."""
    right: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What a recheck says."""

    outcome: str
    """regression, improved, unchanged, undecided or needs new gold."""
    text: str
    """One sentence, with numbers."""
    more_questions_needed: int | None = None
    """Further questions that would decide, at the difference seen; None where it is decided or no number would."""


def paired_changes(
    pairs: Sequence[tuple[ArmScores, ArmScores]],
    demanded: Collection[str] = (),
    only: Collection[str] | None = None,
    seed: int = 0,
) -> tuple[ScoreChange, ...]:
    """Return the changes of every arm's scores, tested together.

    Args:
        pairs: the scores of each arm before and now.
        demanded: guards whose loss is an alarm too.
        only: ids of the questions to compare; None for all.
        seed: of the random sign changes.
    """
    rows: list[_ScoreRow] = []
    for before, now in pairs:
        originals = dict(zip(now.questions, now.originals, strict=True))
        sources = dict(zip(dict.fromkeys(now.originals), now.sources(), strict=True))
        asked = dict(zip(now.questions, now.asked, strict=False))
        balance = dict(zip(now.questions, now.question_weights, strict=False)) if asked else {}
        for score in (RIGHT, COMBINED, *GUARDS):
            values = _pairs_of(before, now, score)
            values = {q: pair for q, pair in values.items() if only is None or q in only}
            if values:
                weights = balance if score == COMBINED else asked
                rows.append(_ScoreRow(now.arm, score, values, originals, sources, weights))
    deciding = [row for row in rows if row.score in (RIGHT, COMBINED) or row.score in demanded]
    losses, gains = _family(deciding, seed)
    p_of = {id(row): p for row, *p in zip(deciding, losses, gains, strict=True)}
    return tuple(_change(row, p_of.get(id(row))) for row in rows)


@dataclass(frozen=True, slots=True)
class _ScoreRow:
    """One score of one arm: both values of each question, in its wordings too."""

    arm: str
    score: str
    values: Mapping[str, tuple[float, float]]
    originals: Mapping[str, str]
    """Id of the question itself by what was asked."""
    sources: Mapping[str, str | None]
    """Document by the id of the question itself."""
    weights: Mapping[str, float]
    """How often each is asked, by what was asked; {} when all are asked as often."""

    @property
    def questions(self) -> list[str]:
        """The id of the question itself for each of the values."""
        return [self.originals[asked] for asked in self.values]

    @property
    def times(self) -> list[float]:
        """How often each of the values is asked, 1 on average; [] when all are asked as often."""
        times = [self.weights[asked] for asked in self.values] if self.weights else []
        return [time * len(times) / sum(times) for time in times]

    @property
    def by_question(self) -> list[float]:
        """New minus old of each question, the mean over its wordings; their plain mean is that over all that is asked."""
        return mean_by_question([new - old for old, new in self.values.values()], self.questions, self.times)

    @property
    def weight_by_question(self) -> list[float]:
        """How often each question is asked, in the order of :attr:`by_question`; [] when all are asked as often."""
        times = self.times
        return weighted_questions(times, self.questions, times)[1] if times else []

    @property
    def documents(self) -> list[str | None]:
        """The document of each value of :attr:`by_question`."""
        return [self.sources[question] for question in dict.fromkeys(self.questions)]


def _pairs_of(before: ArmScores, now: ArmScores, score: str) -> dict[str, tuple[float, float]]:
    """Return both values of each question that has the score on both sides; higher is better."""
    if score == COMBINED:
        old, new = (
            dict(zip(arm.questions, arm.combined if now.asked else arm.weighted, strict=True))
            for arm in (before, now)
        )
    else:
        definition = SCORE_BY_NAME.get(score)
        gain = definition.gain if definition else float
        old, new = (
            {q: gain(row[score]) for q, row in zip(arm.questions, arm.scores, strict=True) if score in row}
            for arm in (before, now)
        )
    return {question: (old[question], value) for question, value in new.items() if question in old}


def _change(row: _ScoreRow, p: Sequence[float] | None) -> ScoreChange:
    p_loss, p_gain = p or (1.0, 1.0)
    old, new = zip(*row.values.values(), strict=True)
    by_question, weights = row.by_question, row.weight_by_question
    interval = bootstrap_interval(by_question, documents=row.documents, weights=weights)
    differences, count = [b - a for a, b in row.values.values()], len(old)
    times = row.times or [1.0] * count
    return ScoreChange(
        arm=row.arm,
        score=row.score,
        before=sum(map(mul, old, times)) / count,
        now=sum(map(mul, new, times)) / count,
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        p_loss=p_loss,
        p_gain=p_gain,
        losses=sum(d < -MIN_SPREAD for d in differences),
        gains=sum(d > MIN_SPREAD for d in differences),
        n=count,
        decides=p is not None,
        error=_row_error(row),
        questions=len(by_question) if len(by_question) < count else None,
        full=(sum(v > 1 - MIN_SPREAD for v in old), sum(v > 1 - MIN_SPREAD for v in new))
        if weights
        else None,
        effective=sum(weights) ** 2 / sum(w * w for w in weights) if weights else None,
    )


def _family(rows: Sequence[_ScoreRow], seed: int) -> tuple[list[float], list[float]]:
    """Return the adjusted one-sided p of a loss and of a gain of each row."""
    import numpy as np

    if not rows:
        return [], []
    documents: dict[str, str | None] = {}
    weights: dict[str, float] = {}
    for row in rows:
        documents |= {question: row.sources[question] for question in row.questions}
        weights |= dict(zip(dict.fromkeys(row.questions), row.weight_by_question, strict=False))
    position = {question: n for n, question in enumerate(documents)}
    units = cluster_by_document(list(documents.values()), [weights[q] for q in documents] if weights else ())
    if not units.by_document:
        return [1.0] * len(rows), [1.0] * len(rows)
    if _too_few(units):
        losses = [_student_loss_p(row) for row in rows]
        return holm_correction(losses), holm_correction([1 - p for p in losses])
    table = np.zeros((len(rows), units.units))
    for n, row in enumerate(rows):
        times = row.times or [1.0] * len(row.values)
        for question, (old, new), time in zip(row.questions, row.values.values(), times, strict=True):
            table[n, units.index[position[question]]] += time * (new - old)
    return sign_flip_family(table, seed), sign_flip_family(-table, seed)


def _row_error(row: _ScoreRow) -> float:
    import numpy as np

    differences = np.array(row.by_question)
    return clustered_error(differences, document_groups(differences, row.documents, row.weight_by_question))


def _too_few(units: Clusters) -> bool:
    return units.units < MIN_CLUSTERS and (not units.single or units.weights is not None)


def _student_loss_p(row: _ScoreRow) -> float:
    import numpy as np

    mean = np.array([sum(row.by_question) / len(row.by_question)])
    units = cluster_by_document(row.documents, row.weight_by_question).effective
    return float(student_p(mean, np.array([_row_error(row)]), units)[0]) if units > 1 else 0.5


def smallest_found_loss(
    before: ArmScores,
    changes: Sequence[ScoreChange],
    arms_asked: int = 1,
    seed: int = 0,
    margin: float = 0.0,
) -> FoundLoss | None:
    """Return the smallest loss of right answers that the arm's questions find with 80 % chance.

    Simulated: each right answer becomes wrong with the same chance, independently; about as many others as were seen to
    become right (a gamma distribution of that mean, as one count is all that is known) become right, and wrong, by chance.
    Found is what :meth:`ScoreChange.sure_loss` finds, its level divided by the arms that were asked again.

    Args:
        before: the arm's scores before, on the compared questions.
        changes: the changes that were measured: the gains that chance brings are taken from them.
        arms_asked: arms with answers that were asked again.
        seed: of the simulation.
        margin: the loss that is accepted.

    Returns:
        None where no loss would be found: too few answers were right, or all are of two documents, or none can be judged.
    """
    import numpy as np

    values = np.array([round(v) for v in before.of(RIGHT)], dtype=bool)
    right = int(values.sum())
    units = cluster_by_document(before.sources(RIGHT), before.weights_by_question(RIGHT))
    if not right or not units.by_document:
        return None
    number = {question: n for n, question in enumerate(dict.fromkeys(before.originals_of(RIGHT)))}
    # each question's share of its wordings, float [answers, questions]
    shares = np.zeros((len(values), len(number)))
    shares[np.arange(len(values)), [number[question] for question in before.originals_of(RIGHT)]] = 1.0
    shares /= shares.sum(axis=0)
    gains = next((c.gains for c in changes if (c.arm, c.score) == (before.arm, RIGHT)), 0)
    rng = np.random.default_rng(seed)
    draws = rng.random((SIMULATIONS, len(values)))
    # how many change by chance is itself known from one count only
    flips = rng.gamma(gains, 1.0, (SIMULATIONS, 1))
    won = (draws < flips / max(1, len(values) - right)) & ~values
    tests = (max(1, sum(change.decides for change in changes)), max(1, arms_asked))
    bound = LEVEL / tests[units.units >= MIN_CLUSTERS]

    def power(lost: int) -> float:
        chance = (lost + flips) / right
        changed = (won.astype(float) - ((draws < chance) & values)) @ shares
        return float(_found(changed, units, bound, margin).mean())

    low, high = 1, right
    if power(right) < STATISTICAL_POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= STATISTICAL_POWER else (middle + 1, high)
    return FoundLoss(low, low / len(values), right)


def _found(changes: np.ndarray, units: Clusters, bound: float, margin: float) -> np.ndarray:
    """Return whether each simulated recheck finds a loss, bool [rechecks], as :meth:`ScoreChange.sure_loss` does.

    The bootstrap's upper end is that of BCa to the second order (Efron 1987), which needs no resamples.

    Args:
        changes: new minus old by question, float [rechecks, questions].
        units: the documents of the questions.
        bound: largest one-sided p.
        margin: the loss that is accepted.
    """
    import numpy as np
    from scipy.special import ndtri, stdtrit

    count, mean = changes.shape[1], changes.mean(axis=1)
    by_unit = np.zeros((count, units.units))
    by_unit[np.arange(count), units.index] = 1.0
    residuals = changes - mean[:, None]
    if units.weights is not None:  # of a weighted mean, as `linearised` has them
        mean = changes @ units.weights / count
        residuals, changes = (changes - mean[:, None]) * units.weights, changes * units.weights
    sums = residuals @ by_unit
    error = _error_of_sums(sums, count)
    if units.few or units.weights is not None:
        error = np.maximum(_error_of_sums(sums * pull(units), count), _error_of_sums(residuals, count))
        if units.weights is not None:  # as `clustered_error` has it
            spread = (residuals**2 / units.weights).mean(axis=1) * (units.weights**2).mean()
            error = np.maximum(error, np.sqrt(spread / count))
        high = mean + stdtrit(max(units.effective - 1, MIN_FREEDOM), 1 - LEVEL) * error
    else:
        spread = np.sqrt((sums**2).mean(axis=1)) + MIN_SPREAD
        skew = (sums**3).mean(axis=1) / spread**3 / (6 * math.sqrt(units.units))
        normal = ndtri(1 - LEVEL) * math.sqrt((units.units - 1) / units.units)
        quantile = normal if units.single else stdtrit(units.units - 1, 1 - LEVEL)
        quantile = skew + (skew + quantile) / (1 - skew * (skew + quantile))
        high = mean + error * (quantile + skew * (quantile**2 - 1))
    p = student_p(mean, error, units.effective) if _too_few(units) else _loss_p(changes @ by_unit)
    return (p <= bound) & (high < -margin)


def _error_of_sums(residuals: np.ndarray, count: int) -> np.ndarray:
    units = residuals.shape[1]
    return (units / (units - 1) * (residuals**2).sum(axis=1)) ** 0.5 / count


def _loss_p(sums: np.ndarray) -> np.ndarray:
    """Return the one-sided p of a loss by sign changes of sums [rechecks, units], of single answers exactly."""
    import numpy as np
    from scipy.special import bdtr

    below, above = (sums < -MIN_SPREAD).sum(axis=1), (sums > MIN_SPREAD).sum(axis=1)
    if np.all(np.isin(np.round(sums, 9), (-1.0, 0.0, 1.0))):
        return np.asarray(bdtr(above, below + above, 0.5))
    signs = np.random.default_rng(0).choice(np.array([-1.0, 1.0]), (sums.shape[1], SIMULATED_SIGNS))
    lower = (sums @ signs <= sums.sum(axis=1, keepdims=True) + MIN_SPREAD).sum(axis=1)
    return np.asarray((1 + lower) / (1 + SIMULATED_SIGNS))


def decide(
    changes: Sequence[ScoreChange],
    margin: float,
    lost_gold: int,
    made_only: bool = False,
) -> Decision:
    """Return the outcome.

    Args:
        changes: of all arms' scores.
        margin: the loss that is accepted.
        lost_gold: questions that need new gold.
        made_only: whether all questions were made from documents: then nothing is decided by them.
    """
    deciding = [change for change in changes if change.decides]
    lost = [change for change in deciding if change.sure_loss(margin)]
    gained = [change for change in deciding if change.sure_gain(margin)]
    worst = min(deciding, key=lambda change: change.low, default=None)
    if (lost or gained) and made_only:
        named = (lost or gained)[0]
        text = f"{change_text(named)}, on questions that were made from documents alone: they decide nothing"
        return Decision(UNDECIDED, text)
    if lost:
        named = min(lost, key=lambda change: (change.score != RIGHT, change.difference))
        beyond = f", more than the margin of {margin:g}" if margin else ""
        return Decision(REGRESSION, f"{change_text(named)}{beyond}")
    if worst is None:
        return Decision(NEW_GOLD if lost_gold else UNDECIDED, "no question can be compared")
    if gained:
        named = max(gained, key=lambda change: (change.score == RIGHT, change.difference))
        return Decision(IMPROVED, change_text(named))
    return _open_decision(deciding, worst, margin, lost_gold)


def _open_decision(
    deciding: Sequence[ScoreChange], worst: ScoreChange, margin: float, lost_gold: int
) -> Decision:
    """Return the decision where nothing is sure: unchanged, undecided or in need of new gold."""
    if all(not (change.losses or change.gains) for change in deciding):
        text = f"every score of {count_noun(worst.n, 'question')} is as before"
        return Decision(NEW_GOLD if lost_gold else UNCHANGED, text)
    allowed = max(margin, SMALL_LOSS)
    if worst.low >= -allowed and worst.independent >= LEANING_BELOW:
        text = f"{change_text(worst)}; a loss of more than {allowed:g} is excluded"
        return Decision(NEW_GOLD if lost_gold else UNCHANGED, text)
    needed = _questions_needed(deciding, margin)
    text = f"{change_text(worst)}; a loss of {-worst.low:.2f} cannot be excluded"
    return Decision(NEW_GOLD if lost_gold else UNDECIDED, text, needed)


def _questions_needed(deciding: Sequence[ScoreChange], margin: float) -> int | None:
    """Return how many more questions would make the worst loss sure, if it is as large as seen; None where there is none."""
    from statistics import NormalDist

    quantiles = sum(map(NormalDist().inv_cdf, (1 - LEVEL, STATISTICAL_POWER)))
    needed = []
    for change in deciding:
        gap = -change.difference - margin
        if gap > MIN_SPREAD and change.error > 0:
            total = change.independent * (quantiles * change.error / gap) ** 2
            # Whole answers are tested exactly, which takes half an answer more (Fleiss's continuity correction).
            total *= (1 + math.sqrt(1 + 2 / (total * gap))) ** 2 / 4
            needed.append(max(1, math.ceil(total) - change.independent))
    return min(needed, default=None)


def change_text(change: ScoreChange) -> str:
    """Return a change in words: the counts of right answers, else the means, with the interval."""
    interval = f"{change.difference:+.2f} [{change.low:+.2f}, {change.high:+.2f}]"
    if change.score == RIGHT:
        before, now = change.counts
        shares = f"; of what is asked {change.now:.0%}, {change.before:.0%} before" if change.full else ""
        return f"{change.arm} answers {now} of {change.n} right, {before} before ({interval}{shares})"
    return f"{change.arm}: {change.score} {change.now:.2f}, {change.before:.2f} before ({interval})"
