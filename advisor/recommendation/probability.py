"""How often the advice is right: one rate for all advice, moved by the user's own finished trials.

A probability for each advice, fitted to published decisions, and three levels cut from it were tried: on decisions that no
rule had seen they did not tell right advice from wrong (docs/how-it-decides.md#how-sure). What speaks against one advice
is said in words instead (:mod:`advisor.recommendation.confidence`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from advisor.history import NO_OWN_TRIALS, OwnTrials

UNSEEN_SETS: Mapping[str, tuple[int, int]] = {
    "60 kept back": (52, 60),
    "53 kept back": (46, 53),
    "40 fresh": (24, 40),
    "62 in benchmarks/unseen": (31, 62),
}
"""Right and all decisions of each set when it was first scored, before any rule was written or changed with it in view."""
UNSEEN_BASELINES: Mapping[str, tuple[int, str, int]] = {
    "53 kept back": (26, "rag", 17),
    "62 in benchmarks/unseen": (37, "long-context", 25),
}
"""Of the sets whose decisions are at hand: how many a rule of thumb has right (``rule_of_thumb`` of
benchmarks/scorers/advice_cases.py), the one method that is right most often, and in how many."""
UNSEEN_RIGHT, UNSEEN = (sum(counts) for counts in zip(*UNSEEN_SETS.values(), strict=True))
"""The same of all sets together."""
COMPARED_RIGHT, COMPARED = (sum(UNSEEN_SETS[name][i] for name in UNSEEN_BASELINES) for i in (0, 1))
"""The same of the sets with a baseline."""
THUMB_RIGHT = sum(right for right, _, _ in UNSEEN_BASELINES.values())
"""How many of these a rule of thumb has right."""
PRIOR_TRIALS = 5.0
"""Own decided trials that weigh as much as the rate of the published decisions. The rate differs between the four sets by
more than chance: a beta-binomial distribution fitted to them by moments (Kleinman 1973, JASA 68:46) has an intraclass
correlation of .168, hence a + b = (1 - .168) / .168 = 4.97. Users are taken to differ as these sets do."""
COVERAGE = 0.95
"""Probability that an interval of the rate is meant to hold the user's own."""
HIGH_FROM, LOW_BELOW = 0.90, 0.84
"""Cuts of the word for the rate that scripts read: high from the first on, low below the second."""
Level = Literal["high", "medium", "low"]


@dataclass(frozen=True, slots=True)
class AdviceRate:
    """How often advice is right; the same for all advice to one user.

    Attributes:
        own: the user's finished trials that decided on an advice.
    """

    own: OwnTrials = NO_OWN_TRIALS

    @property
    def value(self) -> float:
        """The mean of the rate, 0 to 1: (a + right) / (a + b + trials), with a + b = :data:`PRIOR_TRIALS`."""
        prior = PRIOR_TRIALS * UNSEEN_RIGHT / UNSEEN
        return (prior + self.own.right) / (PRIOR_TRIALS + self.own.n)

    @property
    def level(self) -> Level:
        """The word for the rate."""
        return "high" if self.value >= HIGH_FROM else "low" if self.value < LOW_BELOW else "medium"

    @property
    def interval(self) -> tuple[float, float]:
        """The interval that holds the rate of this user with a probability of :data:`COVERAGE`, by the beta posterior."""
        from scipy.special import (
            betaincinv,
        )  # the quantile of a beta distribution; scipy.stats takes a second to import

        weight = PRIOR_TRIALS + self.own.n
        a, b = weight * self.value, weight * (1 - self.value)
        tail = (1 - COVERAGE) / 2
        return float(betaincinv(a, b, tail)), float(betaincinv(a, b, 1 - tail))

    @property
    def text(self) -> str:
        """The rate in words, with where it comes from."""
        text = f"advice was right in {unseen_text()}"
        if not self.own.n:
            return text
        low, high = self.interval
        trials = f"{self.own.right} of {self.own.n} decided trial{'s' * (self.own.n != 1)}"
        return f"{text}; with your own {trials} {_short(self.value)} ({_short(low)} to {_short(high)})"

    def own_json(self) -> dict[str, Any] | None:
        """Return the user's own trials with the interval of the rate; None without any."""
        if not self.own.n:
            return None
        low, high = self.interval
        return {"right": self.own.right, "n": self.own.n, "low": round(low, 3), "high": round(high, 3)}


def unseen_text() -> str:
    """Return the rate on unseen decisions, its 95 % interval (Wilson 1927), its range by set, and the rule of thumb's."""
    rates = [right / n for right, n in UNSEEN_SETS.values()]
    by_set = f"by set {_short(min(rates))} to {_short(max(rates))}"
    thumb = f"of {COMPARED} of them in {COMPARED_RIGHT}, a rule of thumb in {THUMB_RIGHT}"
    return f"{UNSEEN_RIGHT} of {UNSEEN} decisions that no rule had seen (.71, .65 to .77; {by_set}; {thumb})"


def _short(share: float) -> str:
    return f"{share:.2f}".removeprefix("0")
