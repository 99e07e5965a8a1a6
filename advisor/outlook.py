"""How the choice depends on one answer, all others staying as they are: a line cut into spans."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from advisor.edges import NUMERIC, edges
from advisor.profile import Profile
from advisor.questions import BY_ID
from advisor.ranking import rank

CHOICES: tuple[str, ...] = tuple(
    key for key, question in BY_ID.items() if question.kind in ("choice", "flag")
)


WHOLE_DIGITS = 6
"""Digits to which the ends of whole numbers are rounded, into the span, before a person reads them."""
LEAST = 0.01
"""The smallest number above zero that is worth writing."""


@dataclass(frozen=True, slots=True)
class Span:
    """Values of a numeric answer, from ``low`` up to but not including ``high``, that lead to one choice."""

    low: float
    high: float
    choice: str

    def least(self, whole: bool) -> float:
        """The smallest value of the span that can be written in a few digits."""
        return _first(self.low, self.high, whole)

    def most(self, whole: bool) -> float:
        """The largest value of the span that can be written in a few digits."""
        if whole:
            round_one = _cut(self.high - 1, WHOLE_DIGITS)
            return round_one if round_one >= self.low else self.high - 1
        if self.high < LEAST:
            return self.low
        for digits in range(2, 17):
            value = _cut(self.high, digits)
            if value >= self.high:  # cutting left it as it was: one unit of the last digit less
                value = _cut(self.high - 10.0 ** (math.floor(math.log10(self.high)) - digits + 1), digits)
            if self.low <= value < self.high:
                return value
        return self.low

    def words(self, whole: bool) -> str:
        """The span as a condition: "at least 200", "200 or more, and at most 999", "below 0.8"."""
        if self.high < LEAST or (whole and self.high == self.low + 1):
            return _said(self.low)
        if not math.isfinite(self.high):
            return f"at least {_said(self.least(whole))}"
        if whole and (self.high < 100_000 or self.high != _cut(self.high, 3)):
            end = f"at most {_said(self.most(whole))}"
        else:  # a round bound is said as it is: below 1,000,000,000
            end = f"below {_said(self.high)}" if whole else f"below {float(f'{self.high:.4g}'):g}"
        return end if self.low <= 0 else f"{_said(self.least(whole))} or more, and {end}"

    def __contains__(self, value: float) -> bool:
        return self.low <= value < self.high


@dataclass(frozen=True, slots=True)
class Outlook:
    """Where every answer, changed alone, leads."""

    numbers: Mapping[str, tuple[Span, ...]]
    """For each numeric answer its spans, ascending."""
    choices: Mapping[str, Mapping[str | bool, str]]
    """For each answer to choose from what each value leads to."""

    @classmethod
    def of(cls, p: Profile) -> Outlook:
        """Work it out for a profile: some hundred rankings."""
        return cls({key: spans(p, key) for key in NUMERIC}, {key: choices(p, key) for key in CHOICES})


def spans(p: Profile, key: str) -> tuple[Span, ...]:
    """Return all spans of a numeric answer, ascending; neighbours lead to different choices."""
    asked = BY_ID[key]
    whole = asked.kind == "count"
    cuts = [asked.low, *edges(p, key)]
    found: list[Span] = []
    for low, high in zip(cuts, [*cuts[1:], math.inf], strict=True):
        value = _first(low, high, whole)
        choice = rank(p.change(key, int(value) if whole else value)).choice
        if found and found[-1].choice == choice:
            found[-1] = Span(found[-1].low, high, choice)
        else:
            found.append(Span(low, high, choice))
    return tuple(found)


def choices(p: Profile, key: str) -> dict[str | bool, str]:
    """Return the choice that each possible value of an answer to choose from leads to."""
    values: list[str | bool] = [choice.value for choice in BY_ID[key].choices] or [True, False]
    return {value: rank(p.change(key, value)).choice for value in values}


def _first(low: float, high: float, whole: bool) -> float:
    """Return the value nearest to ``low`` that a person would write and that lies below ``high``."""
    if low == 0 or high <= LEAST:
        return low
    if whole:
        round_one = -_cut(-low, WHOLE_DIGITS)
        return round_one if round_one < high else low
    if low < LEAST:
        return LEAST
    for digits in range(3, 17):
        value = -_cut(-low, digits)
        if low <= value < high:
            return value
    return low


def _cut(value: float, digits: int) -> float:
    """Return the value rounded down to significant digits."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (digits - 1 - math.floor(math.log10(abs(value))))
    return math.floor(value * unit) / unit


def _said(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"
