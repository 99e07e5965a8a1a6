"""Bootstrap intervals, paired tests and comparison with many candidates."""

from __future__ import annotations

import random

import numpy as np
import pytest

from rag.evaluation.statistics import bootstrap_interval, compare_with_many, paired_test


def test_interval_contains_mean_and_narrows_with_data() -> None:
    draw = random.Random(3)
    few = [float(draw.random() < 0.6) for _ in range(20)]
    many = [float(draw.random() < 0.6) for _ in range(400)]
    a, b = bootstrap_interval(few), bootstrap_interval(many)
    assert a.low <= a.mean <= a.high
    assert b.high - b.low < a.high - a.low


def test_interval_coverage() -> None:
    draw = random.Random(5)
    inside = 0
    for trial in range(200):
        interval = bootstrap_interval(
            [float(draw.random() < 0.7) for _ in range(60)], seed=trial, resamples=800
        )
        inside += interval.low <= 0.7 <= interval.high
    assert 178 <= inside <= 199  # 95 % of 200 is 190, give or take three standard errors


def test_rounding_differences_have_no_spread() -> None:
    a, b = [0.7 + n % 3 / 30 for n in range(40)], [0.1 + n % 3 / 30 for n in range(40)]
    assert len({x - y for x, y in zip(a, b, strict=True)}) > 1
    difference = paired_test("a", "b", a, b)
    assert difference.low == difference.high == difference.difference == pytest.approx(0.6)
    assert difference.p < 1e-3


def test_interval_is_deterministic() -> None:
    values = [0.1, 0.5, 0.9, 0.4, 0.3]
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)


def test_interval_without_spread_has_no_width() -> None:
    interval = bootstrap_interval([1.0] * 9)
    assert (interval.low, interval.mean, interval.high) == (1.0, 1.0, 1.0)


def test_paired_test_detects_a_small_steady_difference() -> None:
    draw = random.Random(2)
    base = [draw.random() for _ in range(40)]
    above = paired_test("a", "b", [x + 0.05 + 0.01 * draw.random() for x in base], base)
    assert above.low > 0
    assert above.p < 0.001
    assert above.difference == pytest.approx(0.055, abs=0.003)


def test_paired_test_of_equal_arms() -> None:
    same = paired_test("a", "b", [0.2, 0.4, 0.8], [0.2, 0.4, 0.8])
    assert (same.difference, same.p) == (0.0, 1.0)


def test_paired_test_rejects_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="2 questions"):
        paired_test("a", "b", [1.0, 0.0], [1.0])


def test_compare_with_many_detects_a_clear_winner() -> None:
    draw = random.Random(4)
    base = [float(draw.random() < 0.6) for _ in range(60)]
    better = [1.0 if draw.random() < 0.55 else x for x in base]
    noise = {f"n{n}": [1 - x if draw.random() < 0.1 else x for x in base] for n in range(50)}
    by_name = {
        difference.a: difference
        for difference in compare_with_many("base", base, {**noise, "better": better})
    }
    assert by_name["better"].low > 0
    assert by_name["better"].p < 0.01
    assert by_name["better"].difference == pytest.approx(sum(better) / 60 - sum(base) / 60)
    assert by_name["better"].p > paired_test("better", "base", better, base).p
    assert [name for name, difference in by_name.items() if difference.low > 0] == ["better"]


def test_compare_with_many_error_rate() -> None:
    draw = random.Random(6)
    mistaken = 0
    for trial in range(20):
        base = [float(draw.random() < 0.7) for _ in range(30)]
        others = {
            str(n): [float(draw.random() < 0.7) if draw.random() < 0.3 else x for x in base]
            for n in range(30)
        }
        differences = compare_with_many("base", base, others, seed=trial, resamples=500)
        mistaken += any(difference.low > 0 and difference.p <= 0.05 for difference in differences)
    assert mistaken <= 4  # 5 % of 20 is 1, give or take three standard errors


def test_compare_with_many_flips_whole_documents() -> None:
    """Candidates with luck by document, none better: with documents ignored most trials name one."""
    draw, found, blind = np.random.default_rng(4), 0, 0
    names = [f"{n // 6}.md" for n in range(60)]
    for trial in range(60):
        base = draw.random(60).tolist()
        others = {
            str(n): (
                np.array(base) + np.repeat(draw.normal(0, 0.2, 10), 6) + draw.normal(0, 0.05, 60)
            ).tolist()
            for n in range(5)
        }
        found += any(
            d.low > 0 and d.p <= 0.05
            for d in compare_with_many("base", base, others, trial, 400, documents=names)
        )
        blind += any(d.low > 0 and d.p <= 0.05 for d in compare_with_many("base", base, others, trial, 400))
    assert found <= 9  # all but one of a thousand sessions at 5 %
    assert blind > 20
    assert {d.p for d in compare_with_many("base", base, others, documents=["a"] * 60)} == {1.0}


def test_compare_with_many_of_equal_candidates() -> None:
    same, worse = compare_with_many(
        "base", [1.0, 0.0, 1.0], {"same": [1.0, 0.0, 1.0], "worse": [0.0, 0.0, 0.0]}
    )
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert worse.p > 0.5
    assert compare_with_many("base", [1.0], {}) == ()
    with pytest.raises(ValueError, match="2 questions of base"):
        compare_with_many("base", [1.0, 0.0], {"a": [1.0]})
