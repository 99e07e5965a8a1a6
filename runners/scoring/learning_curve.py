"""Forecast of a learning curve: the score at more rows than were tried, with its uncertainty.

Model. The error ``e = 1 - score`` of a tuned model falls with the number n of rows about as a power law ``e ~ n^-g``
(Hestness et al. 2017, arXiv:1712.00409), but g is not the same along a curve: steep in the beginning, near zero at a
ceiling. So ``z = -log(e + SOFTENING)`` is followed along ``d = log n`` as a local trend whose slope goes back to a common
exponent::

    z(d) = level + exponent d + integral of v + random walk,   v: Ornstein-Uhlenbeck process of standard deviation
                                                               ``slope_sd`` that forgets at ``reversion`` per e-fold

With ``slope_sd`` 0 that is a power law of the error without an asymptote; the fast forgetting lets a curve level off. All
variances share one unknown scale, so the forecast is a Student-t process (Shah, Wilson and Ghahramani 2014,
arXiv:1402.4306) in closed form: nothing is sampled but differences of scores. The values of :class:`CurvePriors` were
fitted to published curves by ``benchmarks/curves.py``, which also reports them on tasks that were left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SOFTENING = 0.02
"""Added to the error before its logarithm, so that a perfect score is a finite value."""
TYPICAL_SD = 0.02
"""Standard deviation between trainings assumed where a size was trained once: the median of published tuned curves
(SetFit, PET, Lawma and long-context-icl repositories: quartiles .011, .021 and .041)."""
SHARED_NOISE = 0.5
"""Share of the sampling variance of questions that all sizes have in common when they answer the same questions and the
questions' scores are not given: it moves the curve as a whole. Correlations of .4 to .6 were seen between sizes."""
LEVEL = 0.90
MIN_SIZES = 2
DRAWS = 20_000
MAX_DOUBLINGS = 3
"""Doublings that are searched for the size to stop at: 8 times the rows at hand. Few published curves reach further."""
WORTH = 0.01
"""Score that a doubling must bring to be worth its labels, by default."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A score measured with ``n`` rows."""

    n: float
    score: float
    """0 to 1, the mean over ``runs`` trainings."""
    sd: float | None = None
    """Standard deviation between the trainings; None where it is not known."""
    runs: int = 1
    questions: int | None = None
    """Questions that were scored; None where their sampling error is not to count."""

    def variance(self) -> float:
        """Return the variance of the mean over trainings."""
        sd = TYPICAL_SD if self.sd is None else self.sd
        return sd**2 / max(self.runs, 1)


@dataclass(frozen=True, slots=True)
class CurvePriors:
    """What is known of learning curves before one is seen; z and d as in the module's formula."""

    exponent: float = 0.132
    """Slope of z that curves go back to: the error falls by n^-exponent."""
    slope_sd: float = 0.133
    """Standard deviation of slopes about it."""
    reversion: float = 0.75
    """How fast a slope is forgotten, per e-fold of rows."""
    drift: float = 0.0439
    """Standard deviation of the random walk of z, per square root of an e-fold."""
    noise: float = 0.0064
    """Standard deviation of a score beyond what its trainings show: other questions, other settings."""
    freedom: float = 4.9
    """Degrees of freedom of the scale that a curve's variances share."""
    widening: float = 1.2
    """Factor of a band's half width: without it the 90 % band held .82 of the curves of tasks that were left out, because
    curves that break down or jump are more frequent than the model has them. How often it holds: :func:`band_held`."""

    def covariance(self, d: np.ndarray) -> np.ndarray:
        """Return the covariance of z - level at distances d = log(n / smallest n), float [sizes, sizes].

        Integral of a stationary Ornstein-Uhlenbeck process from 0 (variance s², rate b), and a random walk::

            s² (2 min(d, d') / b + (exp(-b d) + exp(-b d') - 1 - exp(-b |d - d'|)) / b²) + drift² min(d, d')
        """
        b, low = self.reversion, np.minimum(d[:, None], d[None, :])
        decays = np.exp(-b * d)
        apart = np.exp(-b * np.abs(d[:, None] - d[None, :]))
        slope = 2 * low / b + (decays[:, None] + decays[None, :] - 1 - apart) / b**2
        return np.asarray(self.slope_sd**2 * slope + self.drift**2 * low)


PRIORS = CurvePriors()
LEVEL_VARIANCE = 4.0
"""Variance of z where a curve starts: any score from about .01 to .99 is likely."""


HELD_DOUBLINGS, HELD_BEYOND = (255, 277), (31, 40)
"""How often the 90 % band held on curves that no value here was fitted to, and of how many: up to twice the rows that were
seen, and at the largest size of a curve, four times the rows or more."""


BAND_TEXT = (
    "a band that is to hold 90 %; on curves that nothing was fitted to it held in {} of {} doublings, and in {} of {} "
    "forecasts of four times the rows or more"
).format(*HELD_DOUBLINGS, *HELD_BEYOND)


def band_held(times: float) -> tuple[int, int]:
    """Return how often the band held on unseen curves, and of how many, at so many times the rows measured."""
    return HELD_DOUBLINGS if times <= 2 else HELD_BEYOND


@dataclass(frozen=True, slots=True)
class Forecast:
    """The score expected with ``n`` rows, and its 90 % band."""

    n: float
    median: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Return the values, rounded."""
        n = int(self.n) if float(self.n).is_integer() else self.n
        return {"n": n, **{key: round(getattr(self, key), 4) for key in ("median", "low", "high")}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What more rows are expected to bring."""

    from_n: float
    to_n: float
    median: float
    low: float
    high: float
    chance: float
    """Chance of more than ``worth``."""
    worth: float

    def to_json(self) -> dict[str, Any]:
        """Return the values, rounded."""
        sizes = {"from": round(self.from_n), "to": round(self.to_n)}
        values = {key: round(getattr(self, key), 4) for key in ("median", "low", "high")}
        return {**sizes, **values, "chance": round(self.chance, 3), "worth": self.worth}


class LearningCurve:
    """A curve fitted to points; forecasts are Student-t in z, so bands are not symmetric in the score."""

    def __init__(
        self, points: Sequence[CurvePoint], priors: CurvePriors = PRIORS, noise: np.ndarray | None = None
    ) -> None:
        """Condition the priors on points.

        Args:
            points: at least one, ascending in n.
            priors: what is known before.
            noise: covariance of the points' scores from training and questions, float [points, points]; by default it is
                computed from sd, runs and questions of each.
        """
        self.points, self.priors = tuple(points), priors
        sizes = np.array([point.n for point in points], float)
        scores = np.array([point.score for point in points])
        self._start = math.log(sizes[0])
        d = np.log(sizes) - self._start
        slopes = to_z_slope(scores)
        covariance = score_noise(points) if noise is None else noise
        covariance = covariance + priors.noise**2 * np.eye(len(sizes))
        self._kernel = LEVEL_VARIANCE + priors.covariance(d) + covariance * np.outer(slopes, slopes)
        self._residual = to_z(scores) - priors.exponent * d
        self._d = d
        weights = np.linalg.solve(self._kernel, self._residual)
        # One residual is spent on the level, whose prior is wide.
        self.freedom = priors.freedom + len(sizes) - 1
        self._scale = (priors.freedom + float(self._residual @ weights)) / self.freedom
        self._weights = weights
        self._lift = self._lift_to_measured()

    def _lift_to_measured(self) -> float:
        """Return how far above the band's upper end the last point lies, in z; 0 where the band holds it.

        Near a perfect score a small error of a score is a large one of z, so the fit all but ignores such a point: after
        .4, .7, .9 and 1.0 it would expect .71 at the size where 1.0 was measured.
        """
        mean, scale = self.distribution([self.points[-1].n])
        upper = float(mean[0] + self._band_times(LEVEL) * math.sqrt(max(float(scale[0, 0]), 0.0)))
        return max(0.0, float(to_z(np.array(self.points[-1].score))) - upper)

    def _lifted(self, mean: np.ndarray, sizes: Sequence[float]) -> np.ndarray:
        """Return means of z raised until the band holds the last point: not at the first size, in full from the last."""
        if not self._lift:
            return mean
        d = np.log(np.asarray(sizes, float)) - self._start
        return np.asarray(mean + self._lift * np.clip(d / max(float(self._d[-1]), 1e-9), 0.0, 1.0))

    def _band_times(self, level: float) -> float:
        """Return the half width of a band in standard deviations of z."""
        from scipy.special import stdtrit

        return self.priors.widening * float(stdtrit(self.freedom, 0.5 + level / 2))

    def distribution(self, sizes: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Return mean [m] and scale matrix [m, m] of z at sizes, without the noise of a measurement there."""
        d = np.log(np.asarray(sizes, float)) - self._start
        # The covariance starts at the smallest size, so sizes below it are not forecast.
        both = np.concatenate([self._d, np.maximum(d, 0.0)])
        whole = LEVEL_VARIANCE + self.priors.covariance(both)
        k = len(self._d)
        cross, own = whole[k:, :k], whole[k:, k:]
        mean = self.priors.exponent * np.maximum(d, 0.0) + cross @ self._weights
        return mean, self._scale * (own - cross @ np.linalg.solve(self._kernel, cross.T))

    def forecast(
        self, sizes: Sequence[float], measured: bool = False, level: float = LEVEL
    ) -> list[Forecast]:
        """Return the forecast at each size.

        Args:
            sizes: numbers of rows, none below the smallest point.
            measured: whether the band is that of a score as it would be measured there, with the noise of the last point,
                or that of the curve itself.
            level: share of the band.
        """
        mean, scale = self.distribution(sizes)
        mean = self._lifted(mean, sizes)
        variance = np.maximum(np.diag(scale), 0.0)
        if measured:
            extra = self.points[-1].variance() + self.priors.noise**2
            variance = variance + self._scale * extra * to_z_slope(to_score(mean)) ** 2
        wide = self._band_times(level) * np.sqrt(variance)
        rows = zip(sizes, to_score(mean), to_score(mean - wide), to_score(mean + wide), strict=True)
        return [Forecast(n, float(middle), float(low), float(high)) for n, middle, low, high in rows]

    def gain(self, from_n: float, to_n: float, worth: float = WORTH) -> Gain:
        """Return what going from one size to a larger one brings, with the chance of more than ``worth``.

        The two scores are drawn together (20,000 pairs, fixed seed): they share the uncertainty of the level. A gain is
        counted from the last score where that was measured above the curve: what was reached cannot be gained again.
        """
        mean, scale = self.distribution([from_n, to_n])
        if from_n >= self.points[-1].n:
            (at_last,), _ = self.distribution([self.points[-1].n])
            mean = mean + max(0.0, float(to_z(np.array(self.points[-1].score))) - float(at_last))
        values, vectors = np.linalg.eigh(scale)
        rng = np.random.default_rng(0)
        normal = rng.standard_normal((DRAWS, 2)) * np.sqrt(np.maximum(values, 0.0))
        spread = np.sqrt(rng.chisquare(self.freedom, DRAWS) / self.freedom)
        scores = to_score(mean + (normal @ vectors.T) / spread[:, None])
        gains = scores[:, 1] - scores[:, 0]
        low, median, high = np.quantile(gains, [0.5 - LEVEL / 2, 0.5, 0.5 + LEVEL / 2])
        chance = float(np.mean(gains > worth))
        return Gain(
            from_n=from_n,
            to_n=to_n,
            median=float(median),
            low=float(low),
            high=float(high),
            chance=chance,
            worth=worth,
        )

    def stop_size(self, worth: float = WORTH) -> float | None:
        """Return the size from which one more doubling brings ``worth`` with a chance below one half.

        It is the last size measured or a doubling of it; None where that is beyond 8 times the rows.
        """
        n = self.points[-1].n
        for doubling in range(MAX_DOUBLINGS + 1):
            size = n * 2**doubling
            if self.gain(size, 2 * size, worth).chance < 0.5:
                return float(size)
        return None


def to_z(scores: np.ndarray) -> np.ndarray:
    """Return -log(1 - score + SOFTENING); scores are held to 0 to 1."""
    return -np.log(1 - np.clip(scores, 0.0, 1.0) + SOFTENING)


def to_z_slope(scores: np.ndarray) -> np.ndarray:
    """Return the derivative of :func:`to_z`, by which a small error of a score is carried over."""
    return np.asarray(1 / (1 - np.clip(scores, 0.0, 1.0) + SOFTENING))


def to_score(z: np.ndarray) -> np.ndarray:
    """Return the score of z, held to 0 to 1."""
    return np.clip(1 + SOFTENING - np.exp(-np.asarray(z)), 0.0, 1.0)


def score_noise(points: Sequence[CurvePoint]) -> np.ndarray:
    """Return the covariance of the points' scores, float [points, points].

    Trainings are independent. The sampling error of questions, p (1 - p) / questions, is shared in part, as all sizes
    answer the same ones.
    """
    own = np.array([point.variance() for point in points])
    sampling = np.array(
        [point.score * (1 - point.score) / point.questions if point.questions else 0.0 for point in points]
    )
    common = np.sqrt(np.maximum(sampling, 0.0) * SHARED_NOISE)
    return np.diag(own + (1 - SHARED_NOISE) * np.maximum(sampling, 0.0)) + np.outer(common, common)
