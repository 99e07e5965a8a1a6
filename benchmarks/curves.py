"""Fit the priors of the learning-curve forecast, and score it on tasks that they were not fitted on.

python -m benchmarks.curves CURVES [--splits 6] [--json FILE]
python -m benchmarks.curves CURVES --thresholds

CURVES is a file of published curves, {"curves": [{"id", "task", "source", "method", "points": [..]}]}. The priors are
fitted three ways: to all curves (these are the defaults of ``runners/scoring/learning_curve.py``), to one half of the
tasks with the other half scored (several random halves; the first is by the order of the names), and with one task or one
source left out. A fit maximises the mean log density of later scores given earlier ones: every size is forecast from the
sizes up to a quarter of it, the largest of each curve with weight 1, the others with .5 together; curves of a task share
its weight (1 / sqrt of their number). Of the density 5 % is that of an even chance between .2 and 1, so that answers that
break down (3 curves) do not widen every band.

``--thresholds`` compares the number of examples from which the advice tunes with that from which the published tuned curve
passes the many-shot curves of the same task, and what following the advice would have cost at each size.
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

from benchmarks.scorers.curve_cases import (
    SEEN_SHARE,
    CurveCase,
    curve_scores,
    score_curve_case,
    summary,
    usable_points,
)
from runners.scoring.learning_curve import (
    MIN_SIZES,
    PRIORS,
    CurvePriors,
    LearningCurve,
    to_z,
    to_z_slope,
)

SHARE_OF_OTHER_SIZES = 0.5
OUTLIER_SHARE, OUTLIER_DENSITY = 0.05, 0.2
# Centre and standard deviation of a weak normal penalty on the six values, all but the first as logarithms.
CENTRE = np.array([0.15, math.log(0.3), math.log(0.7), math.log(0.07), math.log(0.008), math.log(3.0)])
SPREAD = np.array([0.15, 0.7, 0.7, 0.8, 0.5, 0.7])
PENALTY = 0.01
MIN_FREEDOM = 2.0
TUNED = ("lora", "qlora", "full", "hybrid")


def read_cases(path: Path) -> list[tuple[CurveCase, float]]:
    """Return a case for each size that can be forecast, with its weight within its curve; the largest has weight 1."""
    cases = []
    for curve in json.loads(path.read_text("utf-8"))["curves"]:
        points, factor, _ = usable_points(curve["points"], curve["id"])
        own = []
        for target in points[2:]:
            seen = tuple(point for point in points if point.n <= SEEN_SHARE * target.n)
            if len(seen) >= MIN_SIZES:
                own.append(
                    CurveCase(
                        curve["id"], curve["task"], curve["source"], curve["method"], seen, target, factor
                    )
                )
        others = SHARE_OF_OTHER_SIZES / max(1, len(own) - 1)
        cases += [(case, 1.0 if case is own[-1] else others) for case in own]
    return cases


def to_priors(values: np.ndarray) -> CurvePriors:
    """Return the priors of the six values that are optimised."""
    slope_sd, reversion, drift, noise, freedom = np.exp(values[1:6]).tolist()
    return CurvePriors(float(values[0]), slope_sd, reversion, drift, noise, MIN_FREEDOM + freedom)


def fit_priors(weighted: Sequence[tuple[CurveCase, float]]) -> CurvePriors:
    """Return the priors under which later scores are most likely given earlier ones."""
    curves = defaultdict(set)
    for case, _ in weighted:
        curves[case.task].add(case.id)
    weights = np.array([weight / math.sqrt(len(curves[case.task])) for case, weight in weighted])

    def loss(values: np.ndarray) -> float:
        densities = np.array([log_density(case, to_priors(values)) for case, _ in weighted])
        mixed = np.logaddexp(
            math.log1p(-OUTLIER_SHARE) + densities, math.log(OUTLIER_SHARE * OUTLIER_DENSITY)
        )
        return float(-(weights @ mixed) / weights.sum() + PENALTY * (((values - CENTRE) / SPREAD) ** 2).sum())

    best = minimize(loss, CENTRE, method="BFGS", options={"maxiter": 40, "gtol": 1e-3})
    return to_priors(best.x)


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


def score_left_out(
    weighted: Sequence[tuple[CurveCase, float]], groups: Sequence[set[str]], key: str
) -> list[dict]:
    """Return the rows of each group of tasks or sources, forecast with priors fitted to all others."""
    rows = []
    for group in groups:
        priors = fit_priors([pair for pair in weighted if getattr(pair[0], key) not in group])
        rows += [score_curve_case(case, priors) for case in largest(weighted) if getattr(case, key) in group]
    return rows


def print_doublings(
    path: Path, weighted: Sequence[tuple[CurveCase, float]], halves: Sequence[set[str]]
) -> None:
    """Print how forecasts of the next doubling (1.9 to 2.6 times) held, with the priors of the other half of the tasks."""
    priors = [fit_priors([pair for pair in weighted if pair[0].task not in half]) for half in halves]
    held, chances = [], []
    for row in json.loads(path.read_text("utf-8"))["curves"]:
        points, _, _ = usable_points(row["points"], row["id"])
        own = priors[0] if row["task"] in halves[0] else priors[1]
        for target in points:
            seen = [point for point in points if point.n <= target.n / 1.9]
            if len(seen) < MIN_SIZES or target.n / seen[-1].n > 2.6:
                continue
            curve = LearningCurve(seen, own)
            predicted = curve.forecast([target.n], measured=True)[0]
            held.append((predicted.low <= target.score <= predicted.high, predicted.high - predicted.low))
            gain = target.score - seen[-1].score
            chances.append((curve.gain(seen[-1].n, target.n).chance, gain > 0.01))
    inside, widths = zip(*held, strict=True)
    print(f"next doubling, {len(held)}: inside {fmean(inside):.2f}, median width {median(widths):.3f}")
    for low, high in ((0, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.01)):
        rows = [pair for pair in chances if low <= pair[0] < high]
        if rows:
            said, came = (fmean(values) for values in zip(*rows, strict=True))
            print(
                f"  chance of more than .01 from {low} to {high:g}: {len(rows)}, mean {said:.2f}, it did {came:.2f}"
            )


def line(name: str, result: dict) -> str:
    """Return a row of the table for benchmarks/LOG.md."""
    cells = [result["of"], f"{result['coverage']:.2f}", f"{result['width']:.3f}"]
    cells += [
        "–" if result[key] is None else f"{result[key]:.3f}" for key in ("last_value_width", "pooled_width")
    ]
    cells += [f"{result[key]:.3f}" for key in ("mae", "median_error", "last_value_mae", "loglinear_mae")]
    return f"| {name} | {' | '.join(map(str, cells))} |"


def crossing(tuned: list[dict], shown: list[dict]) -> float:
    """Return the smallest published size from which tuning on n rows stays above showing the best number up to n."""
    passed = math.inf
    for point in reversed(tuned):
        if point["score"] <= best_shown(shown, point["n"]):
            break
        passed = point["n"]
    return passed


def best_shown(shown: list[dict], n: float) -> float:
    """Return the best many-shot score with at most n examples; 0 where none is published."""
    return max((point["score"] for point in shown if point["n"] <= n), default=0.0)


def advised_at(classes: int, gap: str, n: int) -> str:
    """Return the first choice for n examples of a task with labels: a 7B model on one large GPU, few calls, no facts."""
    from dataclasses import replace

    from advisor.questionnaire.data_facts import DataFacts
    from advisor.questionnaire.profile import Profile
    from advisor.recommendation.ranking import first_choice

    answers = {
        "task_needs_facts": "none", "behaviour_gap": gap, "output_format": "labels", "labelled_examples": n,
        "model_params_b": 7.0, "gpu_kind": "cuda", "gpu_count": 1, "gpu_memory_gib": 80.0, "call_volume": "low",
    }  # fmt: skip
    profile = Profile.of(answers)
    facts = DataFacts(label_count=classes, rows_per_label=n / classes)
    return first_choice(replace(profile, data=facts)).choice


def print_thresholds(path: Path) -> None:
    """Print, for each task with both kinds of curve, where tuning passes, what is advised, and the score lost by it."""
    curves = json.loads(path.read_text("utf-8"))["curves"]
    print(
        "| task | labels | shown | tuning passes at | advised from (gap low, high) | score lost (low, high, best fixed) |"
    )
    print("|" + " --- |" * 6)
    for tuned in (curve for curve in curves if curve["method"] == "tuned"):
        rivals = [c for c in curves if c["task"] == tuned["task"] and c["method"] == "many-shot"]
        sizes = [int(point["n"]) for point in tuned["points"]]
        for recipe in sorted({c["recipe"] for c in rivals}):
            own = [c["points"] for c in rivals if c["recipe"] == recipe]
            passed = sorted(crossing(tuned["points"], points) for points in own)
            choices = {gap: [advised_at(tuned["classes"], gap, n) for n in sizes] for gap in ("low", "high")}
            first = {
                gap: next((n for n, c in zip(sizes, row, strict=True) if c in TUNED), None)
                for gap, row in choices.items()
            }
            scores = [
                (p["score"], fmean(best_shown(points, p["n"]) for points in own)) for p in tuned["points"]
            ]
            lost = [mean_lost(scores, [c in TUNED for c in choices[gap]]) for gap in ("low", "high")]
            fixed = min(mean_lost(scores, [flag] * len(scores)) for flag in (False, True))
            cells = (
                tuned["task"],
                tuned["classes"],
                recipe,
                ", ".join(f"{n:g}" for n in passed),
                tuple(first.values()),
            )
            print("|", " | ".join(map(str, cells)), "|", ", ".join(f"{x:.3f}" for x in (*lost, fixed)), "|")


def mean_lost(scores: Sequence[tuple[float, float]], tunes: Sequence[bool]) -> float:
    """Return the mean of the better of (tuned, shown) minus the one that is taken."""
    return fmean(
        max(pair) - (pair[0] if tuned else pair[1]) for pair, tuned in zip(scores, tunes, strict=True)
    )


def main() -> None:
    """Fit, score and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("curves", type=Path)
    parser.add_argument("--thresholds", action="store_true")
    parser.add_argument("--splits", type=int, default=6)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.thresholds:
        print_thresholds(options.curves)
        return
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
    print_doublings(
        options.curves, weighted, [{t for i, t in enumerate(tasks) if i % 2 == half} for half in (0, 1)]
    )
    rows = [score_curve_case(case) for case in largest(weighted)]
    results["defaults"] = curve_scores(rows)
    print(line("defaults (fitted to these curves)", summary(rows)))
    print(
        "outside, one task left out:",
        *(r["id"] for r in results["task"]["rows"] if not r["inside"]),
        sep="\n  ",
    )
    print("mean of the halves' coverage:", round(fmean(h["coverage"] for h in halves), 3), astuple(PRIORS))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), "utf-8")


if __name__ == "__main__":
    main()
