"""Shares of few cases: the Wilson interval against published values, and what it excludes."""

from __future__ import annotations

from math import comb

import pytest

from rag.evaluation.statistics import WilsonShare


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_interval_equals_published_values(hits: int, n: int, low: float, high: float) -> None:
    """The last is the example of Newcombe 1998, Two-sided confidence intervals for the single proportion."""
    share = WilsonShare.of(hits, n)
    assert (share.low, share.high) == pytest.approx((low, high), abs=1e-4)
    assert share.text().startswith(f"{hits} of {n} ")


def test_wilson_interval_of_zero_cases() -> None:
    share = WilsonShare.of(0, 0)
    assert share.rate is None
    assert not share.above(0.0)
    assert not share.below(1.0)
    assert (share.text(), share.short()) == ("none asked", "–")


def test_wilson_above_and_below_use_the_whole_interval() -> None:
    assert not WilsonShare.of(10, 10).above(0.8)
    assert WilsonShare.of(20, 20).above(0.8)
    assert WilsonShare.of(2, 10).below(0.8)
    with pytest.raises(ValueError, match="no share"):
        WilsonShare.of(3, 2)


@pytest.mark.parametrize("n", [10, 22, 30, 40])
@pytest.mark.parametrize("truth", [0.5, 0.8])
def test_wilson_error_rate_at_the_threshold(n: int, truth: float) -> None:
    """Summed over all outcomes: about one case of twenty, swinging with n as counts are whole (7.2 % at worst here)."""
    shares = [WilsonShare.of(hits, n) for hits in range(n + 1)]
    wrong = sum(
        comb(n, s.hits) * truth**s.hits * (1 - truth) ** (n - s.hits)
        for s in shares
        if s.above(truth) or s.below(truth)
    )
    assert wrong < 0.075
