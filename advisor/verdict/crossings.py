"""Learning curves of several arms held against each other: with how many rows which arm is clearly ahead of which.

At each size every two arms are compared on the same questions by the rule of a verdict
(:mod:`advisor.verdict.comparison`): the paired 95 % interval is above zero, and the p of the sign-flip test, corrected by
Holm over all that is reported, all pairs at all sizes, is at most .05. Sizes answer the same questions, so their tests are
alike, and the correction takes more than it must: how often equal arms come out as clearly ahead is simulated by
``python -m benchmarks.simulated_verdicts --part crossings``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Any

from advisor.verdict.comparison import SIGNIFICANCE_LEVEL, ArmComparison, paired_by_question
from rag.evaluation.statistics import RESAMPLES, PairedDifference, holm_correction
from runners.trial.trial import ArmScores

NOT_DECIDED = "not decided"
ScoresBySize = Mapping[int, Sequence[ArmScores]]
"""One arm's scores at each number of rows, one for each training."""


@dataclass(frozen=True, slots=True)
class SizeComparison:
    """Two arms that learnt from the same rows."""

    rows: int
    comparison: ArmComparison
    """Corrected with those of all pairs and sizes."""

    @property
    def pair(self) -> PairedDifference:
        """The difference of the two."""
        return self.comparison.pair

    @property
    def ahead(self) -> str | None:
        """The arm that is clearly ahead; None where it is not decided."""
        if self.comparison.above:
            return self.pair.a
        return self.pair.b if self.pair.high < 0 and self.pair.p_holm <= SIGNIFICANCE_LEVEL else None


@dataclass(frozen=True, slots=True)
class Crossings:
    """The comparisons of some arms at some sizes."""

    arms: tuple[str, ...]
    sizes: tuple[int, ...]
    at: tuple[SizeComparison, ...]
    """Of every two arms at each size, the sizes ascending."""
    best: str
    """The arm with the highest mean score at the largest size."""

    def of(self, a: str, b: str) -> tuple[SizeComparison, ...]:
        """Return the comparisons of two arms."""
        return tuple(one for one in self.at if {one.pair.a, one.pair.b} == {a, b})

    def leads(self, arm: str, other: str) -> tuple[int, ...]:
        """Return the sizes at which an arm is clearly ahead of another."""
        return tuple(one.rows for one in self.of(arm, other) if one.ahead == arm)

    def lead_from(self, arm: str, others: Sequence[str]) -> int | None:
        """Return the smallest size from which an arm is clearly ahead of these at each measured size; None without one."""
        led = [set(self.leads(arm, other)) for other in others]
        start = None
        for size in reversed(self.sizes):
            if not led or not all(size in sizes for sizes in led):
                break
            start = size
        return start

    @property
    def best_from(self) -> int | None:
        """The smallest size from which the best arm is clearly ahead of every other one; None where it is not decided."""
        return self.lead_from(self.best, [arm for arm in self.arms if arm != self.best])

    def leader(self, size: int) -> str | None:
        """Return the arm that is clearly ahead of every other one at a size; None without one."""
        for arm in self.arms:
            if len(self.arms) > 1 and all(
                size in self.leads(arm, other) for other in self.arms if other != arm
            ):
                return arm
        return None

    def sentences(self) -> list[str]:
        """Return what is decided: for the best arm, then for every two; last the pairs of which nothing is."""
        if len(self.arms) < 2:
            return []
        pairs = {(a, b): self._pair_sentence(a, b) for a, b in combinations(self.arms, 2)}
        still_open = ", ".join(f"{a} against {b}" for (a, b), sentence in pairs.items() if not sentence)
        last = [f"{NOT_DECIDED.capitalize()} at any size: {still_open}."] if still_open else []
        return [self._best_sentence(), *filter(None, pairs.values()), *last]

    def _best_sentence(self) -> str:
        most, others = self.sizes[-1], [arm for arm in self.arms if arm != self.best]
        first = f"{self.best} scored highest with {_rows([most])}"
        if self.best_from is not None:
            which = "every other arm" if len(others) > 1 else others[0]
            where = "there" if self.best_from == most else f"from {_rows([self.best_from])} on"
            return f"{first}, and is clearly ahead of {which} {where}."
        open_arms = [arm for arm in others if most not in self.leads(self.best, arm)]
        return f"{first}; whether it is ahead of {_joined(open_arms)} is {NOT_DECIDED} there."

    def _pair_sentence(self, a: str, b: str) -> str:
        """Return at which sizes one of two arms is clearly ahead; "" where that is not decided at any."""
        parts = []
        for arm, other in ((a, b), (b, a)):
            sizes = self.leads(arm, other)
            start = self.lead_from(arm, [other])
            if start == self.sizes[-1]:
                start = None  # one size says nothing of more rows
            before = [size for size in sizes if start is None or size < start]
            steady = [f"from {_rows([start])} on"] if start is not None else []
            if sizes:
                at = [f"with {_rows(before)}"] if before else []
                parts.append(f"{arm} is clearly ahead of {other} {_joined([*at, *steady])}")
        return f"{'; '.join(parts)}." if parts else ""

    def to_json(self) -> dict[str, Any]:
        """Return the comparisons, and what they decide, as JSON values; null is not decided."""
        pairs = []
        for a, b in combinations(self.arms, 2):
            start = {arm: self.lead_from(arm, [other]) for arm, other in ((a, b), (b, a))}
            steady = next(({"arm": arm, "n": n} for arm, n in start.items() if n is not None), None)
            pairs.append({"a": a, "b": b, "at": [_size_json(one) for one in self.of(a, b)], "from": steady})
        return {
            "score": "combined",
            "tests": len(self.at),
            "pairs": pairs,
            "leaders": [{"n": size, "arm": self.leader(size)} for size in self.sizes],
            "best": {"arm": self.best, "from": self.best_from},
            "sentences": self.sentences(),
        }


def compare_curves(arms: Mapping[str, ScoresBySize], seed: int, resamples: int = RESAMPLES) -> Crossings:
    """Compare every two arms at each size, with several trainings by the mean of each question.

    Args:
        arms: the scores of each arm; all have the same sizes.
        seed: of the random draws.
        resamples: how many bootstrap samples and sign flips are drawn of each pair.
    """
    sizes = tuple(sorted(next(iter(arms.values()))))
    pairs = [
        (size, _paired(a, arms[a][size], b, arms[b][size], seed, resamples))
        for size in sizes
        for a, b in combinations(arms, 2)
    ]
    adjusted = holm_correction([pair.p for _, pair in pairs])
    compared = tuple(
        SizeComparison(size, ArmComparison(replace(pair, p_holm=p)))
        for (size, pair), p in zip(pairs, adjusted, strict=True)
    )
    # Rounded, so that of equal arms the first is taken, and not one by floating-point noise.
    best = max(arms, key=lambda name: round(fmean([one.mean_score for one in arms[name][sizes[-1]]]), 9))
    return Crossings(tuple(arms), sizes, compared, best)


def _paired(
    a: str, of_a: Sequence[ArmScores], b: str, of_b: Sequence[ArmScores], seed: int, resamples: int
) -> PairedDifference:
    """Return the paired difference of two arms that were trained once or more."""
    first, second = (replace(trained[0], arm=name) for name, trained in ((a, of_a), (b, of_b)))
    values = _mean_by_asked(of_a), _mean_by_asked(of_b)
    return paired_by_question(first, second, *values, seed, resamples=resamples)


def _mean_by_asked(trained: Sequence[ArmScores]) -> dict[str, float]:
    """Return the mean weighted score of each question over the trainings."""
    rows = [dict(zip(arm.questions, arm.weighted, strict=True)) for arm in trained]
    return {asked: fmean([row[asked] for row in rows if asked in row]) for asked in rows[0]}


def _size_json(one: SizeComparison) -> dict[str, Any]:
    values = {key: round(getattr(one.pair, key), 4) for key in ("difference", "low", "high", "p", "p_holm")}
    return {"n": one.rows, **values, "ahead": one.ahead}


def _rows(sizes: Sequence[int]) -> str:
    """Return numbers of rows in words."""
    return _joined([f"{size:,}" for size in sizes]) + " rows"


def _joined(words: Sequence[str]) -> str:
    """Return words as a list in a sentence."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
