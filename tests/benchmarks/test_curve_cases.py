"""`tunewise curve --cases`: published curves forecast, curves that cannot be, and the targets on the shared file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scorers.curve_cases import (
    curve_scores,
    log_linear_forecast,
    read_curve_cases,
    score_curve_case,
    usable_points,
)
from rag.errors import BadInput
from runners.scoring.learning_curve import CurvePoint

Printed = Callable[..., str]


def curve(name: str, *points: tuple[float, float], **more: Any) -> dict[str, Any]:
    """A curve as the file has it; three trainings of each size."""
    rows = [{"n": n, "score": score, "sd": 0.02, "runs": 3} for n, score in points]
    return {"id": name, "task": name, "source": "here", "method": "tuned", "points": rows, **more}


def write(path: Path, *curves: Any) -> Path:
    """Write a file of curves."""
    path.write_text(json.dumps({"curves": list(curves)}), "utf-8")
    return path


GOOD = curve("good", (10, 0.5), (20, 0.55), (40, 0.6), (160, 0.7))


def test_cases_are_forecast_from_a_quarter(printed: Printed, tmp_path: Path) -> None:
    percent = curve("percent", (10, 50), (20, 55), (40, 60), (160, 70))
    for point in percent["points"]:
        point["sd"] = 2
    short = curve("short", (10, 0.5), (20, 0.6))
    broken = curve("broken", (10, 0.5), (20, 0.6))
    broken["points"][1]["score"] = "much"
    file = write(tmp_path / "curves.json", GOOD, percent, short, broken)
    body = json.loads(printed("curve", "--cases", file, "--json"))
    assert (body["schema"], body["n"], body["inside"], body["coverage"]) == (1, 2, 2, 1.0)
    rows = {row["id"]: row for row in body["rows"]}
    assert (rows["good"]["n"], rows["good"]["seen"], rows["good"]["score"]) == (160, 3, 0.7)
    assert rows["good"]["low"] < 0.7 < rows["good"]["high"]
    assert rows["good"]["last_value_width"] == pytest.approx(2 * 1.645 * 0.02, abs=1e-5)
    assert rows["percent"]["median"] == pytest.approx(100 * rows["good"]["median"], abs=1e-3)
    reasons = {row["id"]: row["reason"] for row in body["skipped"]}
    assert "0 sizes up to a quarter" in reasons["short"]
    assert "score is 'much'" in reasons["broken"]
    shown = printed("curve", "--cases", file)
    assert "not scored: short" in shown
    assert "log-linear" in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "has no curves"),
        ('{"curves": []}', "has no curves"),
        ('{"curves": [1]}', "none of 1"),
    ],
)
def test_unusable_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "curves.json"
    file.write_text(text, "utf-8")
    with pytest.raises(BadInput, match=message):
        read_curve_cases(file)
    with pytest.raises(BadInput, match="cannot be read"):
        read_curve_cases(tmp_path / "missing.json")


def test_curve_without_spread_has_no_width_to_compare(tmp_path: Path) -> None:
    for point in (bare := curve("bare", (10, 0.5), (20, 0.55), (80, 0.6)))["points"]:
        del point["sd"], point["runs"]
    cases, skipped = read_curve_cases(write(tmp_path / "c.json", bare))
    assert not skipped
    body = curve_scores([score_curve_case(cases[0])])
    assert body["last_value_width"] is None
    assert body["rows"][0]["last_value_width"] is None


def test_published_curves_meet_targets(shared: Path) -> None:
    """Coverage and error; the width of the band is not below that of the last value's spread, see benchmarks/LOG.md."""
    file = shared / "cases" / "curves_dev.json"
    cases, skipped = read_curve_cases(file)
    assert not skipped
    body = curve_scores([score_curve_case(case) for case in cases])
    assert body["n"] == 59
    assert 0.80 <= body["coverage"] <= 0.97
    assert body["mae"] < 0.6 * body["loglinear_mae"]
    assert body["mae"] < body["last_value_mae"]


def test_points_are_sorted_joined_and_scaled() -> None:
    rows = [
        {"n": 100, "score": 60},
        {"n": 50, "score": 50, "sd": 2, "runs": 3},
        {"n": 0, "score": 20},
        {"n": 100, "score": 70},
    ]
    points, factor, notes = usable_points(rows)
    assert [(p.n, p.score, p.runs) for p in points] == [(50, 0.5, 3), (100, 0.65, 2)]
    assert factor == 100
    assert points[0].sd == pytest.approx(0.02)
    assert len(notes) == 3


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"score": 0.5}, "n is None"),
        ({"n": 5}, "score is None"),
        ({"n": 5, "score": float("nan")}, "score is nan"),
        ({"n": -5, "score": 0.5}, "n -5"),
        ({"n": 5, "score": 250}, "score 250"),
        ({"n": 5, "score": -0.1}, "score -0.1"),
        ({"n": True, "score": 0.5}, "n is True"),
        ({"n": 5, "score": 0.5, "runs": 0}, "runs 0"),
        ("5: .5", "no object"),
    ],
)
def test_unusable_point_is_named(row: object, named: str) -> None:
    with pytest.raises(BadInput, match="point 1") as caught:
        usable_points([row], "my curve")  # type: ignore[list-item]
    assert named in caught.value.message


def test_log_linear_forecast_is_a_straight_line_in_log_n() -> None:
    points = [CurvePoint(n, 0.1 * math.log(n)) for n in (50, 100, 200, 400)]
    assert log_linear_forecast(points, 1600) == pytest.approx(0.1 * math.log(1600))
