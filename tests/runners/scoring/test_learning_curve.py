"""The forecast of learning curves: power laws recovered, bands that hold in simulation, and inputs of every kind."""

from __future__ import annotations

import math

import numpy as np
import pytest

from runners.scoring.learning_curve import (
    PRIORS,
    CurvePoint,
    LearningCurve,
    to_score,
    to_z,
)

SIZES = (50, 100, 200, 400)


def power_law(n: float, exponent: float, error: float = 0.5, at: float = 50) -> float:
    """The score of an error that falls by n^-exponent, as the model has it."""
    return float(to_score(to_z(np.array(1 - error)) + exponent * math.log(n / at)))


@pytest.mark.parametrize("exponent", [0.1, 0.15, 0.2])
@pytest.mark.parametrize("error", [0.2, 0.5, 0.8])
def test_power_law_is_recovered(exponent: float, error: float) -> None:
    """Exact points of a power law of the error are continued within the band, with a narrower band after more points."""
    widths = []
    for sizes in (SIZES[:2], SIZES, (*SIZES, 800, 1600)):
        points = [CurvePoint(n, power_law(n, exponent, error), 0.0, 5) for n in sizes]
        (forecast,) = LearningCurve(points).forecast([2 * sizes[-1]])
        assert forecast.low <= power_law(2 * sizes[-1], exponent, error) <= forecast.high
        widths.append((forecast.high - forecast.low) / (1 - power_law(sizes[-1], exponent, error)))
    assert widths[-1] < widths[0]


def test_band_holds_in_nine_of_ten_curves_of_the_model() -> None:
    """Curves drawn from the priors themselves, with noise: the 90 % band of the next but one doubling."""
    rng = np.random.default_rng(1)
    sizes = np.array([*SIZES, 1600.0])
    d = np.log(sizes / sizes[0])
    kernel = PRIORS.covariance(d)
    inside = 0
    for _ in range(300):
        scale = PRIORS.freedom / rng.chisquare(PRIORS.freedom)
        path = rng.multivariate_normal(
            PRIORS.exponent * d, scale * kernel + 1e-12 * np.eye(5), method="cholesky"
        )
        scores = to_score(to_z(np.array(0.5)) + path)
        noise = math.sqrt(scale) * rng.normal(0, math.hypot(0.02, PRIORS.noise), 5)
        points = [
            CurvePoint(n, float(np.clip(s + e, 0, 1)), 0.02)
            for n, s, e in zip(sizes, scores, noise, strict=True)
        ]
        (forecast,) = LearningCurve(points[:4]).forecast([1600])
        inside += forecast.low <= scores[4] <= forecast.high
    assert 0.85 <= inside / 300 <= 0.95


def test_constant_curve_stays_and_says_to_stop() -> None:
    curve = LearningCurve([CurvePoint(n, 0.9, 0.002, 5) for n in (100, 200, 400, 800, 1600)])
    gain = curve.gain(1600, 3200)
    assert abs(gain.median) < 0.01
    assert curve.stop_size(0.02) == 1600
    assert gain.low <= gain.median <= gain.high


def test_steep_curve_says_to_label_more() -> None:
    curve = LearningCurve(
        [CurvePoint(n, s, 0.01, 5) for n, s in zip(SIZES, (0.3, 0.4, 0.5, 0.6), strict=True)]
    )
    gain = curve.gain(400, 800, 0.01)
    assert gain.chance > 0.9
    assert 0.02 < gain.median < 0.15
    assert (curve.stop_size() or 1e9) > 400


def test_decreasing_curve_expects_little() -> None:
    curve = LearningCurve(
        [CurvePoint(n, s, 0.01) for n, s in zip(SIZES, (0.8, 0.76, 0.72, 0.68), strict=True)]
    )
    rising = LearningCurve(
        [CurvePoint(n, s, 0.01) for n, s in zip(SIZES, (0.56, 0.6, 0.64, 0.68), strict=True)]
    )
    assert curve.gain(400, 800).median < rising.gain(400, 800).median


def test_two_points_are_enough_and_weak() -> None:
    two = LearningCurve([CurvePoint(50, 0.5), CurvePoint(100, 0.55)])
    four = LearningCurve(
        [CurvePoint(n, s) for n, s in zip((12.5, 25, 50, 100), (0.4, 0.45, 0.5, 0.55), strict=True)]
    )
    widths = [f.high - f.low for f in (two.forecast([200])[0], four.forecast([200])[0])]
    assert widths[0] > widths[1] > 0


@pytest.mark.parametrize("scores", [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0)])
def test_scores_at_the_ends_give_finite_bands(scores: tuple[float, float]) -> None:
    for forecast in LearningCurve([CurvePoint(10, scores[0]), CurvePoint(20, scores[1])]).forecast(
        [20, 40, 2e6]
    ):
        assert 0 <= forecast.low <= forecast.median <= forecast.high <= 1


def test_noise_of_few_questions_widens_the_band() -> None:
    scores = (0.5, 0.55, 0.6, 0.65)
    widths = []
    for asked in (20, 2000):
        points = [CurvePoint(n, s, 0.0, 1, asked) for n, s in zip(SIZES, scores, strict=True)]
        gain = LearningCurve(points).gain(400, 800)
        widths.append(gain.high - gain.low)
    assert widths[0] > widths[1]


def test_forecast_is_the_same_every_time() -> None:
    points = [CurvePoint(n, 0.5 + n / 2000, 0.02) for n in SIZES]
    assert LearningCurve(points).gain(400, 800) == LearningCurve(points).gain(400, 800)


@pytest.mark.parametrize(
    "scores",
    [(0.4, 0.7, 0.9, 1.0), (0.2, 0.5, 0.8, 1.0), (0.0, 0.0, 0.2, 1.0), (0.9, 0.97, 1.0, 1.0), (1.0,) * 4],
)
@pytest.mark.parametrize("questions", [35, None])
def test_perfect_score_ends_the_labelling(scores: tuple[float, ...], questions: int | None) -> None:
    """What was measured is not forecast away: no score far below it at more rows, and nothing left to gain."""
    sizes = (30, 60, 120, 240)
    curve = LearningCurve([CurvePoint(n, s, 0.02, 1, questions) for n, s in zip(sizes, scores, strict=True)])
    assert curve.stop_size() == 240
    assert curve.gain(240, 480).chance < 0.1
    for forecast in curve.forecast([240, 480, 960]):
        assert forecast.median > 0.95
        assert forecast.high > 0.999


def test_gain_is_counted_from_what_was_reached() -> None:
    """.97 three times leaves .03; from the smoothed curve, .89, a doubling seemed to bring more than .01."""
    points = [
        CurvePoint(n, s, 0.02, 1, 35)
        for n, s in zip((30, 60, 120, 240), (0.8, 0.97, 0.97, 0.97), strict=True)
    ]
    assert LearningCurve(points).stop_size() == 240
