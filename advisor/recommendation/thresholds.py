"""Thresholds: at which values of a numeric answer the choice changes, found by bisection over the ranking.

The choice depends on conditions: a rule applies or not, a method is blocked or not. Where a rule or a blocker
compares an answer with a constant it declares it (``at``), and the threshold is exact. Between two declared
constants every condition changes at most once, because memory, time and money are monotone in every answer.
So if the conditions differ at two values, bisection finds each threshold between them. It runs on numbers of
four significant digits and returns the smallest one above the threshold: three digits are correct. A root finder such as
``scipy.optimize.brentq`` needs a number that changes its sign once; a choice of method may change several times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
THRESHOLD_DIGITS = 4
"""Significant digits of a threshold that follows from memory, time or money; the last may be one too high."""
MAX_VALUES = {"count": 1e13, "number": 1e6, "share": 1.0}
"""The largest answers that are tried: tokens or calls, billions of parameters or GiB or USD, and a share."""
SMALLEST_POSITIVE = math.ulp(0.0)
"""The smallest number above zero."""
MIN_SHARE = 0.01
"""The smallest number above zero that is printed."""
_STEPS = 9 * 10 ** (THRESHOLD_DIGITS - 1)
"""Number of values with that many significant digits between two powers of ten."""


@dataclass(frozen=True, slots=True)
class ChoiceSpan:
    """Values of a numeric answer, from ``low`` up to but not including ``high``, that lead to one choice.

    A ``high`` that is no declared constant is at most one unit of its fourth digit above the true threshold;
    up to :meth:`most` the choice has been computed.
    """

    low: float
    high: float
    choice: str

    def least(self, whole: bool) -> float:
        """Return the smallest value of the span with few digits; ``whole`` for whole numbers."""
        if whole or self.low == 0 or self.high <= MIN_SHARE:
            return self.low
        value = max(_at_least(self.low, THRESHOLD_DIGITS - 1), MIN_SHARE)
        return value if value in self else self.low

    def most(self, whole: bool) -> float:
        """Return a value near the end of the span with at most four digits, else its low end."""
        if self.high < MIN_SHARE:
            return self.low
        for digits in (THRESHOLD_DIGITS,) if whole else range(2, THRESHOLD_DIGITS + 1):
            value = largest_below(self.high, whole, digits)
            if self.low <= value:
                return value
        return self.low

    def words(self, whole: bool) -> str:
        """Return the span as a condition: "at least 200", "200 or more, and at most 999", "below 0.8"."""
        if self.high < MIN_SHARE or (whole and self.high == self.low + 1):
            return _number_words(self.low)
        if not math.isfinite(self.high):
            return f"at least {_number_words(self.least(whole))}"
        if whole and self.high <= 10**THRESHOLD_DIGITS:
            end = f"at most {_number_words(self.high - 1)}"
        elif whole and not _short(self.high):  # "at most 200,000" reads better than "below 200,001"
            end = f"at most {_number_words(self.most(whole))}"
        else:
            end = f"below {_number_words(self.high)}" if whole else f"below {float(f'{self.high:.4g}'):g}"
        return end if self.low <= 0 else f"{_number_words(self.least(whole))} or more, and {end}"

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
    starts = [constants[0]]
    for low, high in pairwise(constants):
        # Most thresholds are the constants themselves: then nothing changes up to the number just below.
        last = max(low, largest_below(high, whole)) if high > SMALLEST_POSITIVE else low
        starts += _bisected(at, low, last, whole)
        if at(last) != at(high):
            starts.append(high)
    merged: list[ChoiceSpan] = []
    for low, high in pairwise([*starts, math.inf]):
        choice = at(low).choice
        if merged and merged[-1].choice == choice:
            merged[-1] = ChoiceSpan(merged[-1].low, high, choice)
        else:
            merged.append(ChoiceSpan(low, high, choice))
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


def _bisected(at: Callable[[float], FirstChoice], low: float, high: float, whole: bool) -> Iterator[float]:
    """Yield, ascending, the thresholds above ``low`` up to ``high``; each belongs to the side above it.

    If rules and choice agree at two values, they agree at all values between them: with the same rules the methods have the
    same sums; the choice is not blocked at either value and every method with a larger sum is blocked at both, and neither
    changes twice.
    """
    if at(low) == at(high):
        return
    first = _index(low, whole) + 1
    last = _index(largest_below(high, whole), whole)
    if first > last:
        yield high
        return
    middle = _number((first + last) // 2, whole)
    yield from _bisected(at, low, middle, whole)
    yield from _bisected(at, middle, high, whole)


def largest_below(value: float, whole: bool, digits: int = THRESHOLD_DIGITS) -> float:
    """Return the largest number with this many significant digits that is less than a value above zero."""
    if whole and value <= 10**digits:
        return value - 1
    scale = 10 ** (THRESHOLD_DIGITS - digits)
    index = _index(value, whole)
    number = _number(index - index % scale, whole)
    return number if number < value else _number(index - scale, whole)


def _at_least(value: float, digits: int) -> float:
    """Return the smallest number with this many significant digits that is not below a value above zero."""
    scale = 10 ** (THRESHOLD_DIGITS - digits)
    index = _index(value, False)
    index += _number(index, False) < value
    return _number(-(-index // scale) * scale, False)


def _index(value: float, whole: bool) -> int:
    """Return the index of the largest number of four digits that is not above a value.

    The number k * 10^e, k from 1000 to 9999, has the index 9000 * e + k. A whole number below 1000 is its own
    index.
    """
    if whole and value < 10**THRESHOLD_DIGITS:
        return int(value)
    mantissa, exponent = f"{value:.{THRESHOLD_DIGITS - 1}e}".split(
        "e"
    )  # rounds to nearest, so it may be one too high
    digits = round(float(mantissa) * 10 ** (THRESHOLD_DIGITS - 1))
    index = _STEPS * (int(exponent) - THRESHOLD_DIGITS + 1) + digits
    return index if _number(index, whole) <= value else index - 1


def _number(index: int, whole: bool) -> float:
    """Return the number with this index; the inverse of :func:`_index`."""
    exponent = (index - 10 ** (THRESHOLD_DIGITS - 1)) // _STEPS
    if whole and exponent < 0:
        return index
    digits = index - _STEPS * exponent
    return digits * 10**exponent if whole else float(f"{digits}e{exponent}")


def _short(value: float) -> bool:
    """Return whether a whole number has four significant digits at most."""
    return _number(_index(value, True), True) == value


def _number_words(value: float) -> str:
    """Return a number as it is printed in a condition."""
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"
