"""At which values of a numeric answer the choice changes: thresholds to three sure digits, by bisection.

What decides the choice is a set of yes-or-no conditions (a rule applies, a method is blocked). Rules and blockers
that compare an answer with a constant declare it (``at``), so these thresholds are exact. Between two declared
constants each condition changes at most once, because memory, time and money grow steadily with every answer; so
if the conditions differ at two values, bisection finds where. It runs on numbers of four significant digits and
returns the smallest one on the upper side, so that three digits are sure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from advisor.facts import models
from advisor.methods import blocks
from advisor.profile import EDGES, Profile
from advisor.questions import BY_ID
from advisor.ranking import Ranking, rank
from advisor.rules.table import RULES

NUMERIC: tuple[str, ...] = tuple(
    key for key, question in BY_ID.items() if question.kind in ("count", "number", "share")
)
DIGITS = 4
"""Significant digits of a threshold that follows from memory, time or money: the first three are sure."""
MOST = {"count": 1e13, "number": 1e6, "share": 1.0}
"""The largest answers that are tried: tokens or calls, billions of parameters or GiB or USD, and a share."""
LEAST = 0.01
"""The smallest number above zero that is worth writing."""
_STEPS = 9 * 10 ** (DIGITS - 1)
"""How many numbers of so many significant digits lie between two powers of ten."""


@dataclass(frozen=True, slots=True)
class Span:
    """Values of a numeric answer, from ``low`` up to but not including ``high``, that lead to one choice.

    A ``high`` that is no declared constant is the true bound or at most one unit of its last digit above it; up to
    :meth:`most` the choice is sure.
    """

    low: float
    high: float
    choice: str

    def least(self, whole: bool) -> float:
        """Return the smallest value of the span that can be written in a few digits."""
        if whole or self.low == 0 or self.high <= LEAST:
            return self.low
        value = max(_at_least(self.low, DIGITS - 1), LEAST)
        return value if value in self else self.low

    def most(self, whole: bool) -> float:
        """Return the largest value of the span that has four digits, or less where these do."""
        if self.high < LEAST:
            return self.low
        for digits in (DIGITS,) if whole else range(2, DIGITS + 1):
            value = below(self.high, whole, digits)
            if self.low <= value:
                return value
        return self.low

    def words(self, whole: bool) -> str:
        """Return the span as a condition: "at least 200", "200 or more, and at most 999", "below 0.8"."""
        if self.high < LEAST or (whole and self.high == self.low + 1):
            return _said(self.low)
        if not math.isfinite(self.high):
            return f"at least {_said(self.least(whole))}"
        if whole and self.high <= 10**DIGITS:
            end = f"at most {_said(self.high - 1)}"
        elif whole and not _short(self.high):  # a constant such as 200,001 is said by the number before it
            end = f"at most {_said(self.most(whole))}"
        else:
            end = f"below {_said(self.high)}" if whole else f"below {float(f'{self.high:.4g}'):g}"
        return end if self.low <= 0 else f"{_said(self.least(whole))} or more, and {end}"

    def __contains__(self, value: float) -> bool:
        return self.low <= value < self.high


def spans(p: Profile, key: str) -> tuple[Span, ...]:
    """Return all spans of a numeric answer, ascending; neighbours lead to different choices."""
    whole = BY_ID[key].kind == "count"
    ranked: dict[float, Ranking] = {}

    def at(value: float) -> Ranking:
        if value not in ranked:
            ranked[value] = rank(p.change(key, int(value) if whole else value))
        return ranked[value]

    cuts = declared(p, key)
    edges = [cuts[0], *(edge for low, high in pairwise(cuts) for edge in _bisected(at, low, high, whole))]
    found: list[Span] = []
    for low, high in pairwise([*edges, math.inf]):
        choice = at(low).choice
        if found and found[-1].choice == choice:
            found[-1] = Span(found[-1].low, high, choice)
        else:
            found.append(Span(low, high, choice))
    return tuple(found)


def declared(p: Profile, key: str) -> list[float]:
    """Return, ascending, the least and the largest value to try and the constants between that something names.

    A value belongs to the side above it. Without a declared constant the smallest number above zero is one too:
    zero often means that something is unknown.
    """
    asked = BY_ID[key]
    low, high = asked.low, MOST[asked.kind]
    found = {*EDGES.get(key, ())}
    for table in (*(rule.at for rule in RULES), *blocks.AT.values()):
        found.update(table.get(key, ()))
    if asked.kind != "count" and low == 0:
        found.add(math.ulp(0.0))
    known = models.find(p.model) if key == "model_params_b" and p.model else None
    if known:  # near its size the known model's own shape counts, on both sides a typical one
        found.add(known.params_b)
    return [low, *sorted(value for value in found if low < value < high), high]


def _bisected(at: Callable[[float], Ranking], low: float, high: float, whole: bool) -> Iterator[float]:
    """Yield, ascending, the values above ``low`` up to ``high`` from which on other conditions hold than just below."""
    if _conditions(at(low)) == _conditions(at(high)):
        return
    first, last = _index(low, whole) + 1, _index(below(high, whole), whole)
    if first > last:
        yield high
        return
    middle = _number((first + last) // 2, whole)
    yield from _bisected(at, low, middle, whole)
    yield from _bisected(at, middle, high, whole)


def _conditions(ranking: Ranking) -> tuple[object, ...]:
    """Return all that decides the choice: the rules that speak for a need, and the methods that are blocked."""
    return (
        tuple(finding.rule for finding in ranking.findings if finding.need),
        frozenset(scored.method.name for scored in ranking.methods if scored.blockers),
    )


def below(value: float, whole: bool, digits: int = DIGITS) -> float:
    """Return the largest number of so many significant digits that is less than a value above zero."""
    if whole and value <= 10**digits:
        return value - 1
    scale = 10 ** (DIGITS - digits)
    index = _index(value, whole)
    number = _number(index - index % scale, whole)
    return number if number < value else _number(index - scale, whole)


def _at_least(value: float, digits: int) -> float:
    """Return the smallest number of so many significant digits that is not below a value above zero."""
    scale = 10 ** (DIGITS - digits)
    index = _index(value, False)
    index += _number(index, False) < value
    return _number(-(-index // scale) * scale, False)


def _index(value: float, whole: bool) -> int:
    """Return the place of the largest number of four digits that is not above a value, among all of these.

    The numbers k * 10^e with k from 1000 to 9999 have the places 9000 * e + k. Whole numbers below 1000 are their
    own place.
    """
    if whole and value < 10**DIGITS:
        return int(value)
    mantissa, exponent = f"{value:.{DIGITS - 1}e}".split("e")
    digits = round(float(mantissa) * 10 ** (DIGITS - 1))
    index = _STEPS * (int(exponent) - DIGITS + 1) + digits
    return index if _number(index, whole) <= value else index - 1


def _number(index: int, whole: bool) -> float:
    """Return the number at a place of :func:`_index`."""
    exponent = (index - 10 ** (DIGITS - 1)) // _STEPS
    if whole and exponent < 0:
        return index
    digits = index - _STEPS * exponent
    return digits * 10**exponent if whole else float(f"{digits}e{exponent}")


def _short(value: float) -> bool:
    """Whether a whole number has four significant digits at most."""
    return _number(_index(value, True), True) == value


def _said(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"
