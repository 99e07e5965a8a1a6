"""Intervals and paired tests."""

from __future__ import annotations

import random

import pytest

from rag.stats import interval, paired


def test_the_interval_holds_the_mean_and_narrows_with_more_data() -> None:
    draw = random.Random(3)
    few = [float(draw.random() < 0.6) for _ in range(20)]
    many = [float(draw.random() < 0.6) for _ in range(400)]
    a, b = interval(few), interval(many)
    assert a.low <= a.mean <= a.high
    assert b.high - b.low < a.high - a.low


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    draw = random.Random(5)
    inside = 0
    for trial in range(200):
        found = interval([float(draw.random() < 0.7) for _ in range(60)], seed=trial, resamples=800)
        inside += found.low <= 0.7 <= found.high
    assert 178 <= inside <= 199  # 95 % of 200 is 190, give or take three standard errors


def test_differences_of_rounding_only_are_no_spread() -> None:
    a, b = [0.7 + n % 3 / 30 for n in range(40)], [0.1 + n % 3 / 30 for n in range(40)]
    assert len({x - y for x, y in zip(a, b, strict=True)}) > 1
    found = paired("a", "b", a, b)
    assert found.low == found.high == found.difference == pytest.approx(0.6)
    assert found.p < 1e-3


def test_the_same_numbers_give_the_same_interval() -> None:
    values = [0.1, 0.5, 0.9, 0.4, 0.3]
    assert interval(values, seed=1) == interval(values, seed=1)


def test_values_without_spread_have_no_width() -> None:
    found = interval([1.0] * 9)
    assert (found.low, found.mean, found.high) == (1.0, 1.0, 1.0)


def test_pairing_finds_a_small_steady_difference() -> None:
    draw = random.Random(2)
    base = [draw.random() for _ in range(40)]
    above = paired("a", "b", [x + 0.05 + 0.01 * draw.random() for x in base], base)
    assert above.low > 0
    assert above.p < 0.001
    assert above.difference == pytest.approx(0.055, abs=0.003)


def test_equal_arms_are_not_told_apart() -> None:
    same = paired("a", "b", [0.2, 0.4, 0.8], [0.2, 0.4, 0.8])
    assert (same.difference, same.p) == (0.0, 1.0)


def test_unequal_lengths_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="2 questions"):
        paired("a", "b", [1.0, 0.0], [1.0])
