"""Fit the priors of the learning-curve forecast, and score it on tasks that they were not fitted on.

python -m benchmarks.curves CURVES [--splits 6] [--json FILE]

CURVES is a file of published curves, {"curves": [{"id", "task", "source", "method", "points": [..]}]}. The priors are
fitted three ways: to all curves (these are the defaults of ``runners/scoring/learning_curve.py``), to one half of the
tasks with the other half scored (several random halves; the first is by the order of the names), and with one task or one
source left out. A fit maximises the mean log density of later scores given earlier ones: every size is forecast from the
sizes up to a quarter of it, the largest of each curve with weight 1, the others with .5 together; curves of a task share
its weight (1 / sqrt of their number). Of the density 5 % is that of an even chance between .2 and 1, so that answers that
break down (3 curves) do not widen every band.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from statistics import fmean, median

import numpy as np
from scipy.optimize import minimize
from scipy.stats import t as student_t

from advisor.workflows.curve_cases import SEEN_SHARE, CurveCase, curve_scores, score_curve_case, summary
from runners.scoring.learning_curve import (
    MIN_SIZES,
    PRIORS,
    CurvePriors,
    LearningCurve,
    to_z,
    to_z_slope,
    usable_points,
)

SHARE_OF_OTHER_SIZES = 0.5
OUTLIER_SHARE, OUTLIER_DENSITY = 0.05, 0.2
# Centre and standard deviation of a weak normal penalty on the six values, all but the first as logarithms.
CENTRE = np.array([0.15, math.log(0.3), math.log(0.7), math.log(0.07), math.log(0.008), math.log(3.0)])
SPREAD = np.array([0.15, 0.7, 0.7, 0.8, 0.5, 0.7])
PENALTY = 0.01
MIN_FREEDOM = 2.0


def read_cases(path: Path) -> list[tuple[CurveCase, float]]:
    """Return a case for each size that can be forecast, with its weight within its curve; the largest has weight 1."""
    cases = []
    for curve in json.loads(path.read_text("utf-8"))["curves"]:
        points, factor, _ = usable_points(curve["points"], curve["id"])
        own = []
        for target in points[2:]:
            seen = tuple(point for point in points if point.n <= SEEN_SHARE * target.n)
            if len(seen) >= MIN_SIZES:
                own.append(CurveCase(curve["id"], curve["task"], curve["source"], curve["method"], seen, target, factor))
        others = SHARE_OF_OTHER_SIZES / max(1, len(own) - 1)
        cases += [(case, 1.0 if case is own[-1] else others) for case in own]
    return cases


def to_priors(values: np.ndarray) -> CurvePriors:
    """Return the priors of the six values that are optimised."""
    return CurvePriors(float(values[0]), *map(float, np.exp(values[1:5])), MIN_FREEDOM + float(np.exp(values[5])))


def fit_priors(weighted: Sequence[tuple[CurveCase, float]]) -> CurvePriors:
    """Return the priors under which later scores are most likely given earlier ones."""
    curves = defaultdict(set)
    for case, _ in weighted:
        curves[case.task].add(case.id)
    weights = np.array([weight / math.sqrt(len(curves[case.task])) for case, weight in weighted])

    def loss(values: np.ndarray) -> float:
        densities = np.array([log_density(case, to_priors(values)) for case, _ in weighted])
        mixed = np.logaddexp(math.log1p(-OUTLIER_SHARE) + densities, math.log(OUTLIER_SHARE * OUTLIER_DENSITY))
        return float(-(weights @ mixed) / weights.sum() + PENALTY * (((values - CENTRE) / SPREAD) ** 2).sum())

    found_values = minimize(loss, CENTRE, method="BFGS", options={"maxiter": 40, "gtol": 1e-3}).x
    return to_priors(found_values)


def log_density(case: CurveCase, priors: CurvePriors) -> float:
    """Return the log density of a measured score in z, given the sizes seen."""
    curve = LearningCurve(case.seen, priors)
    mean, scale = curve.distribution([case.target.n])
    extra = case.seen[-1].variance() + priors.noise**2
    jacobian = float(to_z_slope(np.array(case.seen[-1].score)))
    sd = math.sqrt(max(float(scale[0, 0]), 0.0) + curve._scale * extra * jacobian**2)
    away = (float(to_z(np.array(case.target.score))) - float(mean[0])) / sd
    return float(student_t.logpdf(away, curve.freedom)) - math.log(sd)


def largest(weighted: Sequence[tuple[CurveCase, float]]) -> list[CurveCase]:
    """Return the cases of the curves' largest sizes."""
    return [case for case, weight in weighted if weight == 1.0]


def score_left_out(weighted: Sequence[tuple[CurveCase, float]], groups: Sequence[set[str]], key: str) -> list[dict]:
    """Return the rows of each group of tasks or sources, forecast with priors fitted to all others."""
    rows = []
    for group in groups:
        priors = fit_priors([pair for pair in weighted if getattr(pair[0], key) not in group])
        rows += [score_curve_case(case, priors) for case in largest(weighted) if getattr(case, key) in group]
    return rows


def line(name: str, result: dict) -> str:
    """Return a row of the table for benchmarks/LOG.md."""
    cells = [result["of"], f"{result['coverage']:.2f}", f"{result['width']:.3f}"]
    cells += ["–" if result[key] is None else f"{result[key]:.3f}" for key in ("last_value_width", "pooled_width")]
    cells += [f"{result[key]:.3f}" for key in ("mae", "median_error", "last_value_mae", "loglinear_mae")]
    return f"| {name} | {' | '.join(map(str, cells))} |"


def main() -> None:
    """Fit, score and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("curves", type=Path)
    parser.add_argument("--splits", type=int, default=6)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    weighted = read_cases(options.curves)
    tasks = sorted({case.task for case, _ in weighted})
    print("all curves:", fit_priors(weighted))
    print("defaults:  ", PRIORS)
    head = "| | curves | inside | width | last ± 1.645 sd | pooled sd | error | median error | last value | log-linear |"
    print(head, "|" + " --- |" * 10, sep="\n")
    results = {}
    halves = []
    for split in range(options.splits):
        order = np.random.default_rng(split).permutation(len(tasks)) if split else np.arange(len(tasks))
        parts = [{tasks[i] for i in range(len(tasks)) if order[i] % 2 == half} for half in (0, 1)]
        rows = score_left_out(weighted, parts, "task")
        halves.append(summary(rows))
        results[f"half {split}"] = curve_scores(rows)
        print(line(f"halves of the tasks, split {split}", halves[-1]), flush=True)
    middle = {key: median([h[key] for h in halves]) for key in halves[0] if halves[0][key] is not None}
    print(line(f"median of {options.splits} splits", middle))
    for name, result in results["half 0"]["by_source"].items():
        print(line(f"split 0: {name}", result))
    for key in ("task", "source"):
        groups = [{value} for value in sorted({getattr(case, key) for case, _ in weighted})]
        rows = score_left_out(weighted, groups, key)
        results[key] = curve_scores(rows)
        print(line(f"one {key} left out", summary(rows)), flush=True)
    rows = [score_curve_case(case) for case in largest(weighted)]
    results["defaults"] = curve_scores(rows)
    print(line("defaults (fitted to these curves)", summary(rows)))
    print("outside, one task left out:", *(r["id"] for r in results["task"]["rows"] if not r["inside"]), sep="\n  ")
    print("mean of the halves' coverage:", round(fmean(h["coverage"] for h in halves), 3), astuple(PRIORS))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), "utf-8")


if __name__ == "__main__":
    main()
