"""Points with intervals both ways as SVG: inline for a page, and as a file that needs no style sheet.

A point has the colour and shape of its group. Where a letter is given too, it stands in the point, and the legend says what
it means: so arms of several models show their model and their method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from advisor.report.charts import (
    CHART_HEIGHT,
    MARKERS,
    Axis,
    axis_labels,
    draw_bars,
    draw_dots,
    draw_frame,
    draw_legend,
    horizontal_grid,
    polyline_point,
)

FILE_WIDTH, FILE_MARGIN = 760, 60
"""Pixels: of a chart in a file of its own, and left of its area."""
FILE_STYLE = (
    "svg{overflow:visible}text{font:12px sans-serif;fill:#5b646e}polyline{fill:none}.grid{stroke:#d9dde1}"
    ".front{stroke:#5b646e;stroke-width:1.8;stroke-dasharray:5 4;vector-effect:non-scaling-stroke}"
    ".error{stroke:#0a6a78;stroke-width:1.4}.k0{stroke:#0a6a78}.k1{stroke:#b4542b}.k2{stroke:#5b5fae}.k3{stroke:#16191d}"
    ".k4{stroke:#7a8a2a}.k5{stroke:#8d97a1}.t0{fill:#0a6a78}.t1{fill:#b4542b}.t2{fill:#5b5fae}.t3{fill:#16191d}"
    ".t4{fill:#7a8a2a}.t5{fill:#8d97a1}"
)
LETTER_STYLE = ".lettered path{stroke:#fff;stroke-width:.6}.lettered text{fill:#fff;font:bold 9px sans-serif}"
LETTER_DROP = (0.0, 0.0, 0.0, 1.5)
"""How far below its point the letter in each of the shapes is centred, in pixels."""


@dataclass(frozen=True, slots=True)
class PlotPoint:
    """A point with the ends of its intervals both ways."""

    x: float
    x_low: float
    x_high: float
    y: float
    y_low: float
    y_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PointsPlot:
    """Points by name, with what a chart of them needs."""

    title: str
    """What the chart shows, for screen readers."""
    points: Mapping[str, PlotPoint]
    group_of: Mapping[str, str]
    """The group of each point."""
    groups: Mapping[str, int]
    """The number of the colour and shape of each group."""
    letters: Mapping[str, str] = field(default_factory=dict)
    """The letter of each point; {} for points without."""
    meanings: Mapping[str, str] = field(default_factory=dict)
    """What each letter means."""
    front: Sequence[str]
    """Names of the points that no other one is left of and above, from left to right."""
    x: Axis
    y: Axis

    @property
    def legend(self) -> list[str]:
        """The groups that have a point, in the order of the points where they have no letters, else of their numbers."""
        present = dict.fromkeys(self.group_of[name] for name in self.points)
        return sorted(present, key=lambda group: self.groups[group]) if self.letters else list(present)


def draw_points(plot: PointsPlot) -> str:
    """Draw points with their intervals both ways and a line along those of the front, with a legend below."""
    legend = draw_legend(plot.legend, "", plot.groups, plot.legend, lines=False)
    items = "".join(
        f"<li><b>{letter}</b> {escape(meaning)}</li>" for letter, meaning in plot.meanings.items()
    )
    letters = f'<ul class="legend letters">{items}</ul>' if items else ""
    return draw_frame(plot.x, plot.y, _points(plot), plot.title) + legend + letters


def points_file(plot: PointsPlot) -> str:
    """Return the chart of :func:`draw_points` as an SVG file that needs no style sheet."""
    x, y = plot.x, plot.y
    x_labels, y_labels = axis_labels(x, y)
    area = f'y="28" height="{CHART_HEIGHT}"'
    top, legend = _file_legend(plot, CHART_HEIGHT + 84)
    inner = FILE_WIDTH - FILE_MARGIN - 20
    style = FILE_STYLE + (LETTER_STYLE if plot.letters else "")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{FILE_WIDTH}" height="{top + 16}" role="img" '
        f'aria-label="{escape(plot.title)}"><style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="8" y="16">{escape(y.name)}</text><svg x="0" width="{FILE_MARGIN - 8}" {area}>{y_labels}</svg>'
        f'<svg x="{FILE_MARGIN}" width="{inner}" {area}>{_points(plot)}</svg>'
        f'<svg x="{FILE_MARGIN}" y="{CHART_HEIGHT + 34}" width="{inner}" height="18">{x_labels}</svg>'
        f'<text x="{FILE_MARGIN + inner}" y="{CHART_HEIGHT + 64}" text-anchor="end">{escape(x.name)}</text>{legend}</svg>\n'
    )


def _file_legend(plot: PointsPlot, top: int) -> tuple[int, str]:
    """Return the height of the last line of the legend, and the legend: groups, and below them the letters."""
    groups = [(draw_dots([("5", "-4")], plot.groups[group], False, True), group) for group in plot.legend]
    meanings = [
        (f'<text x="1" font-weight="bold">{letter}</text>', meaning)
        for letter, meaning in plot.meanings.items()
    ]
    legend = ""
    for entries in filter(None, (groups, meanings)):
        left, top = FILE_MARGIN, top + (22 if legend else 0)
        for marker, name in entries:
            width = 34 + 7 * len(name)
            if left + width > FILE_WIDTH:
                left, top = FILE_MARGIN, top + 20
            legend += f'<svg x="{left}" y="{top}">{marker}<text x="16">{escape(name)}</text></svg>'
            left += width
    return top, legend


def _points(plot: PointsPlot) -> str:
    """Draw the grid, the line along the front, a step from one point to the next, and the points with their intervals."""
    x, y = plot.x, plot.y
    ends = [(plot.points[name].x, plot.points[name].y) for name in plot.front]
    steps = [corner for a, b in pairwise(ends) for corner in (a, (b[0], a[1]))] + ends[-1:]
    body = horizontal_grid(y)
    body += '<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%" overflow="visible">'
    body += (
        f'<polyline class="front" points="{" ".join(polyline_point(step, x, y) for step in steps)}"/></svg>'
    )
    for name, point in plot.points.items():
        at, number = y.y_percent(point.y), plot.groups[plot.group_of[name]]
        low, high = x.x_percent(point.x_low), x.x_percent(point.x_high)
        body += f'<line class="error k{number % 6}" x1="{low}" x2="{high}" y1="{at}" y2="{at}"/>'
        body += draw_bars([(point.x, point.y_low, point.y_high)], x, y, number)
    # Those of the front last, so that none of the others covers them.
    for name in sorted(plot.points, key=lambda name: bool(plot.letters) and name in plot.front):
        point, number = plot.points[name], plot.groups[plot.group_of[name]]
        place = (x.x_percent(point.x), y.y_percent(point.y))
        body += _lettered(plot, name, place) if plot.letters else draw_dots([place], number, False, True)
    return body


def _lettered(plot: PointsPlot, name: str, place: tuple[str, str]) -> str:
    """Draw a point in the shape of its group with its letter in it; its name and values show under the pointer."""
    point, number = plot.points[name], plot.groups[plot.group_of[name]]
    title = f"{name}: {point.y:.0%} right, {point.x:.2g} {plot.x.name}"
    shape = number % len(MARKERS)
    return (
        f'<svg x="{place[0]}" y="{place[1]}" class="lettered"><title>{escape(title)}</title>'
        f'<path class="t{number % 6}" transform="scale(2)" d="{MARKERS[shape]}"/>'
        f'<text text-anchor="middle" y="{3.2 + LETTER_DROP[shape]:g}">{plot.letters[name]}</text></svg>'
    )
