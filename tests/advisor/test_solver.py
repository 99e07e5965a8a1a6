"""Solving for a limit: exact as halving is, for figures that rise steadily, in steps, or jump."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.size import size_passes
from advisor.solver import least, passes
from runners.shape import shape_of

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
@given(
    limit=st.floats(0, 1e6),
    whole=st.booleans(),
    hints=st.lists(st.floats(0, 2e9).map(math.floor), max_size=3),
)
def test_it_finds_what_halving_finds(name: str, limit: float, whole: bool, hints: list[int]) -> None:
    """The same value to the last digit, whatever the hints: above the limit, and the one before is not."""
    figure, low, high = FIGURES[name], 1.0, 1e9
    found = passes(figure, limit, low, high, whole, hints)
    assert found == least(lambda v: figure(v) > limit, low, high, whole)
    if low < found < math.inf:
        assert figure(found) > limit >= figure(found - 1 if whole else math.nextafter(found, 0))


@settings(max_examples=50, deadline=None)
@given(params=st.integers(1_000_001, 10**14 - 1), hints=st.lists(st.floats(1e-3, 1e5), max_size=3))
def test_a_size_is_the_smallest_that_means_as_many_parameters(params: int, hints: list[float]) -> None:
    """The float before the found one stands for a parameter less."""
    found = size_passes(lambda size: shape_of(size).params, params - 1, hints)
    assert shape_of(found).params == params
    assert shape_of(math.nextafter(found, 0)).params == params - 1


def test_a_line_takes_few_looks() -> None:
    """Halving would look 44 times."""
    looked: list[float] = []

    def figure(value: float) -> float:
        looked.append(value)
        return 0.37 * value + 2

    assert passes(figure, 1e6, 1, 1e13, whole=True) == 2_702_698
    assert len(looked) < 20
