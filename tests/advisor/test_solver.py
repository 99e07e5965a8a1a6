"""Solving for a limit: exact as halving is, for figures that rise steadily, in steps, or jump."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.solver import least, passes

FIGURES: dict[str, Callable[[float], float]] = {
    "a line": lambda v: 0.37 * v + 2,
    "rounded": lambda v: round(0.37 * v, 2),
    "two lines": lambda v: min(5.0 * v, 300.0 + 0.01 * v),
    "a root": math.sqrt,
    "a jump": lambda v: 0.37 * v if v < 5_000 else math.inf,
    "a constant": lambda v: 3.0,
}


@pytest.mark.parametrize("name", FIGURES)
@settings(max_examples=100, deadline=None)
@given(limit=st.floats(0, 1e6), whole=st.booleans())
def test_it_finds_what_halving_finds(name: str, limit: float, whole: bool) -> None:
    """The same value to the last digit: above the limit, and the one before is not."""
    figure, low, high = FIGURES[name], 1.0, 1e9
    found = passes(figure, limit, low, high, whole)
    assert found == least(lambda v: figure(v) > limit, low, high, whole)
    if low < found < math.inf:
        assert figure(found) > limit >= figure(found - 1 if whole else math.nextafter(found, 0))


def test_a_line_takes_few_looks() -> None:
    """Halving would look 44 times."""
    looked: list[float] = []

    def figure(value: float) -> float:
        looked.append(value)
        return 0.37 * value + 2

    assert passes(figure, 1e6, 1, 1e13, whole=True) == 2_702_698
    assert len(looked) < 20
