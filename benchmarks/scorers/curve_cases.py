"""Score the forecast of learning curves on published ones: ``tunewise curve --cases FILE``.

The score at a curve's largest size is forecast from the sizes up to a quarter of it. Beside the forecast stand a straight
line over log n, and the last score seen, plus and minus what the source's own trainings spread there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from advisor.output import print_plain
from rag.errors import BadInput, UsageProblem
from runners.scoring.learning_curve import (
    MIN_SIZES,
    PRIORS,
    CurvePoint,
    CurvePriors,
    LearningCurve,
)

SEEN_SHARE = 0.25
"""The forecast sees sizes up to this share of the largest one."""
NORMAL_90 = 1.645
"""Half width of a 90 % band of a normal distribution, in standard deviations."""


@dataclass(frozen=True, slots=True)
class CurveCase:
    """One published curve, with what is known of where it is from."""

    id: str
    task: str
    source: str
    method: str
    seen: tuple[CurvePoint, ...]
    target: CurvePoint
    factor: float = 1.0
    """What the scores were divided by."""
    notes: tuple[str, ...] = ()


def read_curve_cases(path: Path) -> tuple[tuple[CurveCase, ...], tuple[dict[str, str], ...]]:
    """Return the curves of a file ``{"curves": [...]}`` that can be forecast, and {"id", "reason"} of the others.

    Raises:
        BadInput: the file cannot be read, or holds no list of curves, or none that can be forecast.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the file of curves {path} cannot be read: {error}") from None
    except ValueError as error:
        raise BadInput(f"{path} is no JSON: {error}", 'write {"curves": [...]}') from None
    curves = data.get("curves") if isinstance(data, dict) else None
    if not isinstance(curves, list) or not curves:
        raise BadInput(f"{path} has no curves", 'write {"curves": [{"id": "..", "points": [..]}, ..]}')
    cases: list[CurveCase] = []
    skipped: list[dict[str, str]] = []
    for number, curve in enumerate(curves, 1):
        name = str(curve.get("id") or f"curve {number}") if isinstance(curve, dict) else f"curve {number}"
        try:
            cases.append(_read_case(curve, name))
        except BadInput as problem:
            skipped.append({"id": name, "reason": problem.message})
    if not cases:
        raise BadInput(
            f"{path}: none of {len(curves)} curves can be forecast: {skipped[0]['reason']}",
            f"a curve needs {MIN_SIZES} sizes up to a quarter of its largest",
        )
    return tuple(cases), tuple(skipped)


def _read_case(curve: Any, name: str) -> CurveCase:
    if not isinstance(curve, dict) or not isinstance(curve.get("points"), list):
        raise BadInput(f"{name} has no list of points")
    points, factor, notes = usable_points(curve["points"], name)
    if not points:
        raise BadInput(f"{name} has no points")
    target = points[-1]
    seen = tuple(point for point in points if point.n <= SEEN_SHARE * target.n)
    if len(seen) < MIN_SIZES:
        raise BadInput(
            f"{name} has {len(seen)} size{'s' if len(seen) != 1 else ''} up to a quarter of its largest, {target.n:g}: "
            f"{MIN_SIZES} are needed"
        )
    task, source, method = (str(curve.get(key) or "") for key in ("task", "source", "method"))
    return CurveCase(name, task, source, method, seen, target, factor, tuple(notes))


def usable_points(
    rows: Iterable[Mapping[str, Any]], where: str = "the curve"
) -> tuple[list[CurvePoint], float, list[str]]:
    """Return the points of a curve ascending in n, the factor that their scores were divided by, and what was changed.

    Args:
        rows: ``{"n", "score", "sd"?, "runs"?, "questions"?}``. Scores are 0 to 1, or 0 to 100 in the whole curve: then they
            are divided by 100. A row with n 0 (no examples) has no place on a logarithmic axis and is left out. Sizes that
            occur twice are joined: mean score, runs added.
        where: named in messages.

    Raises:
        BadInput: a row lacks n or score, or one of them is no usable number.
    """
    notes: list[str] = []
    parsed = [_parse_point(row, f"{where}, point {number + 1}") for number, row in enumerate(rows)]
    empty = sum(point.n == 0 for point in parsed)
    if empty:
        notes.append(f"{empty} point{'s' if empty > 1 else ''} with n 0 skipped: its logarithm is not finite")
    parsed = [point for point in parsed if point.n > 0]
    factor = 100.0 if any(point.score > 1 for point in parsed) else 1.0
    if factor > 1:
        notes.append("scores above 1 were read as percent")
    by_size: dict[float, list[CurvePoint]] = {}
    for point in parsed:
        by_size.setdefault(point.n, []).append(point)
    if repeated := sum(len(same) > 1 for same in by_size.values()):
        notes.append(f"{repeated} size{'s' if repeated > 1 else ''} given more than once: joined by the mean")
    return [_joined(by_size[n], factor) for n in sorted(by_size)], factor, notes


def _joined(same: Sequence[CurvePoint], factor: float) -> CurvePoint:
    """Return the mean of points of one size."""
    sds = [point.sd for point in same if point.sd is not None]
    asked = [point.questions for point in same if point.questions]
    return CurvePoint(
        same[0].n,
        fmean(point.score for point in same) / factor,
        math.sqrt(fmean(sd**2 for sd in sds)) / factor if sds else None,
        sum(point.runs for point in same),
        min(asked) if asked else None,
    )


def _parse_point(row: Mapping[str, Any], where: str) -> CurvePoint:
    """Return the point of a row; BadInput names the value that cannot be used."""
    if not isinstance(row, Mapping):
        raise BadInput(f"{where} is no object", 'write {"n": 100, "score": 0.61}')
    n = _number(row, "n", where, 0, math.inf)
    score = _number(row, "score", where, 0, 100)
    sd = None if row.get("sd") is None else _number(row, "sd", where, 0, 100)
    runs = 1 if row.get("runs") is None else int(_number(row, "runs", where, 1, 1e6))
    asked = None if row.get("questions") is None else int(_number(row, "questions", where, 1, 1e9))
    return CurvePoint(n, score, sd, runs, asked)


def _number(row: Mapping[str, Any], key: str, where: str, low: float, high: float) -> float:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadInput(f"{where}: {key} is {value!r}, not a number", "correct it, or take the point out")
    if not low <= value <= high:
        raise BadInput(
            f"{where}: {key} {value:g} is outside of {low:g} to {high:g}", "correct it, or take the point out"
        )
    return float(value)


def log_linear_forecast(points: Sequence[CurvePoint], n: float) -> float:
    """Return the score at n of the least-squares line ``score = a + b log n``: the forecast that has to be beaten."""
    x = np.log([point.n for point in points])
    slope, start = np.polyfit(x, [point.score for point in points], 1)
    return float(start + slope * math.log(n))


def score_curve_case(case: CurveCase, priors: CurvePriors = PRIORS) -> dict[str, Any]:
    """Return the forecast of a curve's largest size beside what was measured there, in the source's unit."""
    predicted = LearningCurve(case.seen, priors).forecast([case.target.n], measured=True)[0]
    last, times = case.seen[-1], case.factor
    spread = None if last.sd is None else 2 * NORMAL_90 * last.sd
    sds = [point.sd for point in case.seen if point.sd is not None]
    pooled = 2 * NORMAL_90 * fmean(sd**2 for sd in sds) ** 0.5 if sds else None
    score = case.target.score
    values = {
        "score": score,
        "median": predicted.median,
        "low": predicted.low,
        "high": predicted.high,
        "loglinear": log_linear_forecast(case.seen, case.target.n),
        "last_value": last.score,
        "last_value_width": spread,
        "pooled_width": pooled,
    }
    row: dict[str, Any] = {"id": case.id, "task": case.task, "source": case.source, "method": case.method}
    n = case.target.n
    row |= {"n": int(n) if n.is_integer() else n, "seen": len(case.seen), "last_n": last.n}
    row |= {key: value if value is None else round(value * times, 5) for key, value in values.items()}
    row["inside"] = bool(predicted.low <= score <= predicted.high)
    if case.notes:
        row["notes"] = list(case.notes)
    return row


def curve_scores(
    rows: Sequence[Mapping[str, Any]], skipped: Sequence[Mapping[str, str]] = ()
) -> dict[str, Any]:
    """Return what ``curve --cases --json`` prints: coverage, widths and errors over the rows.

    ``last_value_width`` is the median over curves whose source gives the spread of its trainings at the last size seen:
    2 x 1.645 standard deviations there; ``pooled_width`` takes the root mean square of those at all sizes seen.
    """
    return {
        "schema": 1,
        "n": len(rows),
        **summary(rows),
        "by_source": {
            name: summary([row for row in rows if _group(row) == name])
            for name in sorted({_group(r) for r in rows})
        },
        "skipped": [dict(row) for row in skipped],
        "rows": [dict(row) for row in rows],
    }


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return coverage, median widths and mean absolute errors over rows."""
    inside = sum(row["inside"] for row in rows)
    last = [
        abs(row["score"] - row["last_value"]) <= row["last_value_width"] / 2
        for row in rows
        if row["last_value_width"] is not None
    ]
    return {
        "inside": inside,
        "of": len(rows),
        "coverage": round(inside / len(rows), 4),
        "width": _rounded(median([row["high"] - row["low"] for row in rows])),
        "last_value_width": _median(rows, "last_value_width"),
        "last_value_coverage": _rounded(fmean(last)) if last else None,
        "pooled_width": _median(rows, "pooled_width"),
        "mae": _rounded(fmean(abs(row["median"] - row["score"]) for row in rows)),
        "median_error": _rounded(median([abs(row["median"] - row["score"]) for row in rows])),
        "last_value_mae": _rounded(fmean(abs(row["last_value"] - row["score"]) for row in rows)),
        "loglinear_mae": _rounded(fmean(abs(row["loglinear"] - row["score"]) for row in rows)),
    }


def _group(row: Mapping[str, Any]) -> str:
    source = str(row["source"]).split("@")[0] or "no source"
    return f"{source}, {row['method']}" if row["method"] else source


def _median(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [row[key] for row in rows if row[key] is not None]
    return _rounded(median(values)) if values else None


def _rounded(value: float) -> float:
    return round(value, 5)


def score_cases_file(path: Path, others: Sequence[str] = ()) -> dict[str, Any]:
    """Carry out ``curve --cases``; UsageProblem when something else is named as well."""
    if others:
        raise UsageProblem(f"--cases measures nothing, so {others[0]} has no effect", "remove it")
    cases, skipped = read_curve_cases(path)
    return curve_scores([score_curve_case(case) for case in cases], skipped)


def show_case_scores(data: dict[str, Any], console: Console | None = None) -> None:
    """Print how the forecast did on published curves."""
    console = console or Console()
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    titles = ("", "curves", "inside", "width", "last ± 1.645 sd", "error", "last value", "log-linear")
    for title in titles:
        table.add_column(title, justify="left" if not title else "right")
    keys = ("coverage", "width", "last_value_width", "mae", "last_value_mae", "loglinear_mae")
    for name, row in (("all", data), *data["by_source"].items()):
        cells = ("–" if row[key] is None else f"{row[key]:.3f}" for key in keys)
        table.add_row(name, str(row["of"]), *cells)
    console.print(table)
    outside = [row["id"] for row in data["rows"] if not row["inside"]]
    if outside:
        print_plain(console, f"outside of the 90 % band: {', '.join(outside)}")
    for row in data["skipped"]:
        print_plain(console, f"  not scored: {row['reason']}", "yellow")
