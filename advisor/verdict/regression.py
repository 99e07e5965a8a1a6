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
upwards. The interval is the bootstrap of :mod:`rag.evaluation.statistics`, clustered by document; requiring both can only
lower the share of false alarms. With a margin above 0 the interval decides about the margin: its one-sided error is that of
the bootstrap (about 2.5 %, up to 4 % with few questions).

:func:`smallest_found_loss` says which loss the questions find with 80 % chance, :func:`decide` gives the outcome.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from advisor.verdict.comparison import LEANING_BELOW, STATISTICAL_POWER
from advisor.verdict.right_answers import RIGHT
from rag.evaluation.statistics import MIN_SPREAD, bootstrap_interval, cluster_by_document
from rag.text.words import count_noun
from runners.plan.score_names import SCORE_BY_NAME
from runners.report.json_records import to_json
from runners.trial.trial import ArmScores, mean_by_question

if TYPE_CHECKING:
    import numpy as np

COMBINED = "combined"
GUARDS = ("citation", "refusal", "style")
"""Scores that are shown beside; they decide only where the answers demand them."""
LEVEL = 0.025
"""Largest adjusted one-sided p of a sure loss, and of a sure gain."""
SMALL_LOSS = 0.05
"""A loss that is excluded down to this share of the questions counts as none."""
MOST_ENUMERATED = 12
"""Documents with differences up to which all sign changes are tried: 4,096 of them."""
DRAWS = 9_999
SIMULATIONS = 2_000
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

    @property
    def independent(self) -> int:
        """The number of questions, all wordings of one taken together."""
        return self.n if self.questions is None else self.questions

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
    """The smallest loss of right answers that is found with 80 % chance."""

    answers: int
    """Right answers that become wrong."""
    share: float
    """The same as a share of all questions."""
    right: int
    """Right answers before."""


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
        for score in (RIGHT, COMBINED, *GUARDS):
            values = _pairs_of(before, now, score)
            values = {q: pair for q, pair in values.items() if only is None or q in only}
            if values:
                rows.append(_ScoreRow(now.arm, score, values, originals, sources))
    deciding = [row for row in rows if row.score in (RIGHT, COMBINED) or row.score in demanded]
    losses, gains = _family(deciding, seed)
    changes = []
    for row in rows:
        decides = row in deciding
        position = deciding.index(row) if decides else -1
        p = (losses[position], gains[position]) if decides else (1.0, 1.0)
        changes.append(_change(row, p, decides))
    return tuple(changes)


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

    @property
    def questions(self) -> list[str]:
        """The id of the question itself for each of the values."""
        return [self.originals[asked] for asked in self.values]


def _pairs_of(before: ArmScores, now: ArmScores, score: str) -> dict[str, tuple[float, float]]:
    """Return both values of each question that has the score on both sides; higher is better."""
    if score == COMBINED:
        old, new = (dict(zip(arm.questions, arm.weighted, strict=True)) for arm in (before, now))
    else:
        definition = SCORE_BY_NAME.get(score)
        gain = definition.gain if definition else float
        old, new = (
            {q: gain(row[score]) for q, row in zip(arm.questions, arm.scores, strict=True) if score in row}
            for arm in (before, now)
        )
    return {question: (old[question], value) for question, value in new.items() if question in old}


def _change(row: _ScoreRow, p: tuple[float, float], decides: bool) -> ScoreChange:
    old, new = zip(*row.values.values(), strict=True)
    differences = [b - a for a, b in row.values.values()]
    by_question = mean_by_question(differences, row.questions)
    interval = bootstrap_interval(
        by_question, documents=[row.sources[q] for q in dict.fromkeys(row.questions)]
    )
    count = len(differences)
    spread = sum((d - interval.mean) ** 2 for d in by_question) / max(1, len(by_question) - 1)
    return ScoreChange(
        arm=row.arm,
        score=row.score,
        before=sum(old) / count,
        now=sum(new) / count,
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        p_loss=p[0],
        p_gain=p[1],
        losses=sum(d < -MIN_SPREAD for d in differences),
        gains=sum(d > MIN_SPREAD for d in differences),
        n=count,
        decides=decides,
        error=math.sqrt(spread / len(by_question)),
        questions=len(by_question) if len(by_question) < count else None,
    )


def _family(rows: Sequence[_ScoreRow], seed: int) -> tuple[list[float], list[float]]:
    """Return the adjusted one-sided p of a loss and of a gain of each row."""
    import numpy as np

    if not rows:
        return [], []
    documents: dict[str, str | None] = {}
    for row in rows:
        documents |= {question: row.sources[question] for question in row.questions}
    position = {question: n for n, question in enumerate(documents)}
    units = cluster_by_document(list(documents.values()))
    table = np.zeros((len(rows), units.units))
    for n, row in enumerate(rows):
        for question, (old, new) in zip(row.questions, row.values.values(), strict=True):
            table[n, units.index[position[question]]] += new - old
    return sign_flip_family(table, seed), sign_flip_family(-table, seed)


def sign_flip_family(table: np.ndarray, seed: int = 0) -> list[float]:
    """Return the adjusted one-sided p-values of sums below 0: step-down min-p over sign changes of whole units.

    Exact under the hypothesis that each unit's column of differences is as likely with the opposite sign. All sign changes
    are tried for at most :data:`MOST_ENUMERATED` units that differ; else :data:`DRAWS` random ones, and the observed one
    counts with them, so that p is never 0 (Phipson and Smyth 2010).

    Args:
        table: differences summed over each unit, float [tests, units].
        seed: of the random sign changes.
    """
    import numpy as np

    moving = table[:, np.abs(table).max(axis=0, initial=0.0) > MIN_SPREAD]
    tests, units = moving.shape
    if not units:
        return [1.0] * tests
    if units <= MOST_ENUMERATED:
        bits = (np.arange(2**units)[:, None] >> np.arange(units)) & 1
        signs = 1.0 - 2.0 * bits  # the first row is the observed one
    else:
        rng = np.random.default_rng(seed)
        signs = np.vstack([np.ones(units), rng.choice(np.array([-1.0, 1.0]), (DRAWS, units))])
    sums = np.round(moving @ signs.T, 9)  # [tests, sign changes]; equal sums must not differ by rounding
    ordered = np.sort(sums, axis=1)
    chances = np.stack([np.searchsorted(ordered[n], sums[n], side="right") for n in range(tests)]) / len(
        signs
    )
    order = np.argsort(chances[:, 0], kind="stable")
    adjusted = [1.0] * tests
    largest = 0.0
    for rank, test in enumerate(order):
        smallest = chances[order[rank:]].min(axis=0)
        largest = max(largest, float((smallest <= chances[test, 0] + 1e-12).mean()))
        adjusted[test] = largest
    return adjusted


def smallest_found_loss(
    before: ArmScores, changes: Sequence[ScoreChange], arms_asked: int = 1, seed: int = 0
) -> FoundLoss | None:
    """Return the smallest loss of right answers that the arm's questions find with 80 % chance.

    Simulated: each right answer becomes wrong with the same chance, independently; as many others as were seen become right
    and wrong by chance. An alarm is the sign test over documents at the level of the test, divided by the arms that were
    asked again.

    Args:
        before: the arm's scores before, on the compared questions.
        changes: the changes that were measured: the gains that chance brings are taken from them.
        arms_asked: arms with answers that were asked again.
        seed: of the simulation.

    Returns:
        None where no loss would be found: too few answers were right, or none can be judged.
    """
    import numpy as np

    values = [round(v) for v in before.of(RIGHT)]
    right = sum(values)
    if not right:
        return None
    units = cluster_by_document(before.sources(RIGHT))
    originals = before.originals_of(RIGHT)
    number = {question: n for n, question in enumerate(dict.fromkeys(originals))}
    unit_of = [units.index[number[question]] for question in originals]
    gains = next((c.gains for c in changes if (c.arm, c.score) == (before.arm, RIGHT)), 0)
    was_right = np.array(values, dtype=bool)
    rng = np.random.default_rng(seed)
    draws = rng.random((SIMULATIONS, len(values)))
    by_unit = np.zeros((len(values), units.units))
    by_unit[np.arange(len(values)), unit_of] = 1.0
    chance_gain = gains / max(1, len(values) - right)
    won = (draws < chance_gain) & ~was_right
    bound = LEVEL / max(1, arms_asked)

    def power(lost: int) -> float:
        chance = min(1.0, (lost + min(gains, right)) / right)
        sums = (won.astype(float) - ((draws < chance) & was_right)) @ by_unit
        below, above = (sums < 0).sum(axis=1), (sums > 0).sum(axis=1)
        return float((_sign_test(below, above) <= bound).mean())

    low, high = 1, right
    if power(right) < STATISTICAL_POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= STATISTICAL_POWER else (middle + 1, high)
    return FoundLoss(low, low / len(values), right)


def _sign_test(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Return the exact one-sided p of so many units below and above zero: the chance of at most ``above`` of all."""
    from scipy import stats

    return stats.binom.cdf(above, below + above, 0.5)


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
        outcome = NEW_GOLD if lost_gold else UNDECIDED
        return Decision(outcome, "no question can be compared")
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

    normal = NormalDist()
    quantiles = normal.inv_cdf(1 - LEVEL) + normal.inv_cdf(STATISTICAL_POWER)
    needed = []
    for change in deciding:
        gap = -change.difference - margin
        if gap > MIN_SPREAD and change.error > 0:
            total = math.ceil(change.independent * (quantiles * change.error / gap) ** 2)
            needed.append(max(1, total - change.independent))
    return min(needed, default=None)


def change_text(change: ScoreChange) -> str:
    """Return a change in words: the counts of right answers, else the means, with the interval."""
    interval = f"{change.difference:+.2f} [{change.low:+.2f}, {change.high:+.2f}]"
    if change.score == RIGHT:
        before, now = (round(value * change.n) for value in (change.before, change.now))
        return f"{change.arm} answers {now} of {change.n} right, {before} before ({interval})"
    return f"{change.arm}: {change.score} {change.now:.2f}, {change.before:.2f} before ({interval})"
