"""Right answers against the cost of an answer: the picture of a trial and of two, and the table that can be sorted.

Of one model each arm has its own colour. Of several models, or of two runs, colour and shape are the model's or the run's,
and a letter is the method's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from advisor.report.cost_plot import METHOD_LETTERS
from advisor.report.statements import right_cost_table, short_models
from runners.plan.arm_names import method_of, split_arm
from runners.report.records import ArmReport
from runners.report.trial_report import TrialReport

if TYPE_CHECKING:
    from advisor.report.plots.points import PointsPlot

LEAST_DECADES = 0.8
"""Powers of ten that a chart of costs spans at the least."""
NO_MODEL = "no language model"
"""The group of arms that ask no model, where several were compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlottedArm:
    """An arm of a picture with its name there, and its group where colours are not the arms' own."""

    name: str
    arm: ArmReport
    group: str


def right_cost_chart(report: TrialReport, colours: Mapping[str, int]) -> str:
    """Draw right answers against the cost of an answer; "" where fewer than two arms have a place.

    Args:
        report: of a trial.
        colours: number of the colour of each arm; of several models, those are the models'.
    """
    from advisor.report.plots.points import draw_points

    plot = _trial_plot(report, colours)
    return draw_points(plot) if plot else ""


def right_cost_file(report: TrialReport) -> str:
    """Return the same chart as an SVG file."""
    from advisor.report.plots.points import points_file

    plot = _trial_plot(report, {arm.arm: number for number, arm in enumerate(report.arms)})
    return points_file(plot) if plot else ""


def runs_chart(runs: Mapping[str, TrialReport]) -> str:
    """Draw the arms of several runs in one picture; "" where fewer than two have a place.

    Args:
        runs: reports by the name that is shown of each run.
    """
    from advisor.report.plots.points import draw_points

    groups = [
        " ".join(filter(None, (name, alias)))
        for name, report in runs.items()
        for alias in (*(report.models or {}), "")
    ]
    arms = [
        PlottedArm(
            name=f"{name}: {arm.arm}",
            arm=arm,
            group=" ".join(filter(None, (name, split_arm(arm.arm)[1]))),
        )
        for name, report in runs.items()
        for arm in report.arms
    ]
    present = [group for group in groups if any(arm.group == group for arm in arms)]
    plot = _plot(arms, {group: number for number, group in enumerate(present)}, lettered=True)
    return draw_points(plot) if plot else ""


def not_in_plot(report: TrialReport) -> str:
    """Return which arms have a cost and no place in the picture, and why; "" where all have one, or there is none."""
    plot = _trial_plot(report, {arm.arm: number for number, arm in enumerate(report.arms)})
    if plot is None:
        return ""
    reasons = [
        f"{arm.arm} ({'costs nothing' if cost.in_usd else 'no price is known'})"
        for arm in report.arms
        if (cost := arm.cost_per_right) and arm.arm not in plot.points
    ]
    return f"Not in the picture: {', '.join(reasons)}." if reasons else ""


def sortable_table(runs: Mapping[str, TrialReport], use: str = "") -> str:
    """Return the table of what a right answer costs as HTML, whose cells say by what they are sorted; "" without costs.

    Args:
        runs: reports by the name that is shown of each run; that of one run is not shown.
        use: the arm to mark.
    """
    columns: Sequence[str] = ()
    body = ""
    for name, report in runs.items():
        columns, rows = right_cost_table(report)
        costed = [arm for arm in report.arms if arm.cost_per_right]
        for arm, cells in zip(costed, rows, strict=True):
            title = f"{name}: {cells[0]}" if len(runs) > 1 else cells[0]
            best = ' class="best"' if arm.arm == use else ""
            body += f'<tr{best}><th scope="row" data-sort="{escape(title)}">{escape(title)}</th>'
            for column, cell, key in zip(columns[1:], cells[1:], _sort_keys(arm), strict=True):
                sort = f' data-sort="{key}"' if key else ""
                body += f'<td{sort} data-title="{escape(column)}">{escape(cell)}</td>'
            body += "</tr>\n"
    if not body:
        return ""
    first_descending = ' data-first="descending"'  # right answers, of which more are better
    heads = "".join(
        f'<th scope="col"{first_descending * (number == 1)}>{escape(column)}</th>'
        for number, column in enumerate(columns)
    )
    table = f"<thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody>"
    return f'<div class="wide"><table class="stack sortable">{table}</table></div>'


def _sort_keys(arm: ArmReport) -> list[str]:
    """Return by what the cells of an arm after its name are sorted; costs in seconds come after those in USD, "" last."""
    cost, timed = arm.cost_per_right, arm.requests or arm.alone
    if cost is None:
        return []
    unit = "" if cost.in_usd else "s"
    costs = (cost.each, cost.per_1000.mean, cost.month)
    return [
        f"{arm.right.share:.6f}" if arm.right else "",
        *("" if value is None else f"{value:.6g}{unit}" for value in costs),
        *(f"{value:.6g}" if timed else "" for value in ((timed.seconds, timed.p95) if timed else (0, 0))),
    ]


def method_letters(methods: Iterable[str]) -> dict[str, str]:
    """Return one letter for each method: its own, else the first of its name that is free, else a digit."""
    letters: dict[str, str] = {}
    for number, method in enumerate(dict.fromkeys(methods), 1):
        taken = {*letters.values(), *METHOD_LETTERS.values()}
        free = [letter for letter in method.upper() if letter.isalpha() and letter not in taken]
        letters[method] = METHOD_LETTERS.get(method) or (free[0] if free else str(number % 10))
    return letters


def _trial_plot(report: TrialReport, colours: Mapping[str, int]) -> PointsPlot | None:
    if report.models is None:
        arms = [PlottedArm(name=arm.arm, arm=arm, group=arm.arm) for arm in report.arms]
        return _plot(arms, colours)
    names = {alias: f"{alias} ({name})" for alias, name in short_models(report).items()}
    groups = {group: number for number, group in enumerate((*names.values(), NO_MODEL))}
    arms = [
        PlottedArm(name=arm.arm, arm=arm, group=names.get(split_arm(arm.arm)[1], NO_MODEL))
        for arm in report.arms
    ]
    return _plot(arms, groups, lettered=True)


def _plot(arms: Sequence[PlottedArm], groups: Mapping[str, int], lettered: bool = False) -> PointsPlot | None:
    """Return what is drawn of these arms; None where fewer than two have a place.

    Args:
        arms: of one trial or of several.
        groups: the number of each group.
        lettered: whether each method has a letter.
    """
    from advisor.report.charts import Axis
    from advisor.report.plots.points import PlotPoint, PointsPlot

    in_usd = any(arm.arm.cost_per_right and arm.arm.cost_per_right.in_usd for arm in arms)
    scale = 1.0 if in_usd else 0.001  # 1,000 calls in USD, one in seconds
    points, methods = {}, {}
    for plotted in arms:
        cost, right = plotted.arm.cost_per_right, plotted.arm.right
        if right and cost and cost.in_usd == in_usd and cost.per_1000.mean > 0:
            points[plotted.name] = PlotPoint(
                scale * cost.per_1000.mean,
                scale * cost.per_1000.low,
                scale * cost.per_1000.high,
                right.share,
                right.low,
                right.high,
            )
            methods[plotted.name] = method_of(plotted.arm.arm)
    if len(points) < 2:
        return None
    front: list[str] = []
    for name in sorted(points, key=lambda name: (points[name].x, -points[name].y)):
        if points[name].y > (points[front[-1]].y if front else 0.0):
            front.append(name)
    low, high = (
        math.log10(end)
        for end in (min(p.x_low for p in points.values()), max(p.x_high for p in points.values()))
    )
    margin = max(0.05 * (high - low), (LEAST_DECADES - (high - low)) / 2)
    name = "USD for 1,000 calls" if in_usd else "seconds of an answer"
    letters = method_letters(methods.values()) if lettered else {}
    return PointsPlot(
        title=f"Right answers against {name}; no other arm costs less and is more often right: {', '.join(front) or 'none'}",
        points=points,
        group_of={plotted.name: plotted.group for plotted in arms},
        groups=groups,
        letters={name: letters[method] for name, method in methods.items()} if letters else {},
        meanings={letter: method for method, letter in letters.items()},
        front=front,
        x=Axis(name, low - margin, high + margin, log=True),
        y=Axis("share of right answers", 0, 1),
    )
