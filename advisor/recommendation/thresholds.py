"""Thresholds: at which values of a numeric answer the choice changes, found by bisection over the ranking.

The choice depends on conditions: a rule applies or not, a method is blocked or not. Where a rule or a blocker
compares an answer with a constant it declares it (``at``), and the threshold is exact. Between two declared
constants every condition changes at most once, because memory, time and money are monotone in every answer.
So if the conditions differ at two values, bisection finds each threshold between them, over numbers of two digits:
the threshold is the smallest of these above the true one. A root finder such as ``scipy.optimize.brentq`` needs a
number that changes its sign once; a choice of method may change several times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from advisor.methods import blockers
from advisor.questionnaire.profile import PROFILE_THRESHOLDS, Profile
from advisor.questionnaire.questions import QUESTION_BY_ID
from advisor.recommendation.ranking import FirstChoice, first_choice
from advisor.rules.registry import RULES
from runners.catalog import models

NUMERIC_KEYS: tuple[str, ...] = tuple(
    key for key, question in QUESTION_BY_ID.items() if question.kind in ("count", "number", "share")
)
MAX_VALUES = {"count": 1e13, "number": 1e6, "share": 1.0}
"""The largest answers that are tried: tokens or calls, billions of parameters or GiB or USD, and a share."""
SMALLEST_POSITIVE = math.ulp(0.0)
"""The smallest number above zero."""
MIN_SHARE = 0.01
"""The smallest number above zero that is printed."""
EXACT_WHOLE = 10_000
"""Largest whole constant up to which the number before it is the last below it."""


@dataclass(frozen=True, slots=True)
class ChoiceSpan:
    """Values of a numeric answer, from ``low`` up to but not including ``high``, that lead to one choice.

    A ``high`` that is no declared constant is at most one unit of its second digit above the true threshold.
    """

    low: float
    high: float
    choice: str
    last: float
    """The largest value below ``high`` for which the choice was computed."""

    def least(self, whole: bool) -> float:
        """Return the smallest value of the span, but :data:`MIN_SHARE` for a smaller one above zero."""
        return MIN_SHARE if not whole and 0 < self.low < MIN_SHARE < self.high else self.low

    def words(self, whole: bool) -> str:
        """Return the span as a condition: "at least 200", "200 or more, and at most 999", "below 0.8"."""
        if self.high < MIN_SHARE or (whole and self.high == self.low + 1):
            return _number_words(self.low)
        if not math.isfinite(self.high):
            return f"at least {_number_words(self.least(whole))}"
        exact = whole and self.last == self.high - 1
        end = f"at most {_number_words(self.last)}" if exact else f"below {_number_words(self.high)}"
        return end if self.low <= 0 else f"{_number_words(self.least(whole))} or more, and {end}"

    def within(self, lowest: float, highest: float) -> ChoiceSpan:
        """Return the span without an end beyond a range: for people, who need not know what no job reaches."""
        if self.high > highest:
            return replace(self, high=math.inf, last=math.inf)
        return replace(self, low=0.0) if self.low <= lowest else self

    def __contains__(self, value: float) -> bool:
        return self.low <= value < self.high


def choice_spans(profile: Profile, key: str) -> tuple[ChoiceSpan, ...]:
    """Return all spans of a numeric answer, ascending; neighbours lead to different choices."""
    whole = QUESTION_BY_ID[key].kind == "count"
    computed: dict[float, FirstChoice] = {}

    def at(value: float) -> FirstChoice:
        """Return the choice and its rules at a value, each computed once."""
        if value not in computed:
            computed[value] = first_choice(profile.change(key, int(value) if whole else value))
        return computed[value]

    constants = declared_thresholds(profile, key)
    starts = [(0.0, constants[0])]
    for low, high in pairwise(constants):
        # Most thresholds are the constants themselves: then nothing changes up to the number just below.
        last = max(low, largest_below(high, whole))
        starts += _bisected(at, low, last, whole)
        if at(last) != at(high):
            starts.append((last, high))
    merged: list[ChoiceSpan] = []
    for (_, low), (last, high) in pairwise([*starts, (math.inf, math.inf)]):
        choice = at(low).choice
        same = bool(merged) and merged[-1].choice == choice
        merged.append(ChoiceSpan(merged.pop().low if same else low, high, choice, last))
    return tuple(merged)


def declared_thresholds(profile: Profile, key: str) -> list[float]:
    """Return, ascending, the least and the largest value to try and all constants between them.

    The constants are those that the profile, the rules and the blockers compare this answer with, and the
    size of the model where it is known by name. A constant belongs to the side above it.
    """
    question = QUESTION_BY_ID[key]
    low = question.low
    high = MAX_VALUES[question.kind]
    constants = {*PROFILE_THRESHOLDS.get(key, ())}
    for table in (*(rule.at for rule in RULES), *blockers.BLOCKER_THRESHOLDS.values()):
        constants.update(table.get(key, ()))
    if question.kind != "count" and low == 0:
        # Some answers count as unknown when they are 0, so the smallest number above it may be another case.
        constants.add(SMALLEST_POSITIVE)
    model = models.find_model(profile.model) if key == "model_params_b" and profile.model else None
    if model:
        constants.add(model.params_b)  # near its size its own shape counts, on both sides a typical one
    return [low, *sorted(value for value in constants if low < value < high), high]


def _bisected(
    at: Callable[[float], FirstChoice], low: float, high: float, whole: bool
) -> Iterator[tuple[float, float]]:
    """Yield, ascending, the thresholds above ``low`` up to ``high``, each after the last value below it that was computed.

    If rules and choice agree at two values, they agree at all values between them: with the same rules the methods have the
    same sums; the choice is not blocked at either value and every method with a larger sum is blocked at both, and neither
    changes twice.
    """
    if at(low) == at(high):
        return
    # The geometric mean, with two digits.
    middle = float(f"{math.sqrt(max(low, 1 if whole else SMALLEST_POSITIVE)) * math.sqrt(high):.1e}")
    middle = round(middle) if whole else middle
    if not low < middle < high:
        yield low, high
        return
    yield from _bisected(at, low, middle, whole)
    yield from _bisected(at, middle, high, whole)


def largest_below(value: float, whole: bool) -> float:
    """Return the largest number of two digits that is less than a value above zero; of few whole ones the one before."""
    if value <= (EXACT_WHOLE if whole else SMALLEST_POSITIVE):
        return value - 1 if whole else 0.0
    unit = 10.0 ** (math.ceil(math.log10(value)) - 2)
    number = float(f"{(math.ceil(round(value / unit, 9)) - 1) * unit:.1e}")
    return int(number) if whole else number


def _number_words(value: float) -> str:
    """Return a number as it is printed in a condition."""
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"
