"""The charts of report.html as inline SVG.

Positions along the width are percentages, so that text keeps its size on a page of any width. Colours are not set here:
elements have classes, and the style sheet of the page gives them colours for the light and dark theme and for print.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from runners.report.records import ArmReport, SeedScore

TICK_STEPS = (1, 2, 2.5, 5, 10)
MAX_TICKS = 6


ROW_HEIGHT = 20
"""Height in pixels of the one-line chart in a table row."""
CHART_HEIGHT = 220
MISS = 1.5
"""A measurement that is further from its estimate than this factor is pointed out."""
MARKERS = ("M-4,0a4,4,0,1,0,8,0a4,4,0,1,0-8,0z", "M-4-4h8v8h-8z", "M0-5l5,5-5,5-5-5z", "M0-5l5,9h-10z")
"""Shapes of points; with six colours and line styles, twelve series differ."""
_GRID = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Axis:
    """A named axis; with ``log``, ``low`` and ``high`` are powers of ten."""

    name: str
    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Return the position of a value between ``low`` (0) and ``high`` (1), clipped to that range."""
        # A logarithmic axis cannot show 0: it is drawn at the lower end.
        position = math.log10(max(value, 1e-12)) if self.log else value
        return max(0.0, min(1.0, (position - self.low) / (self.high - self.low)))

    def x_percent(self, value: float) -> str:
        """Return the distance of a value from the left edge, in percent."""
        return f"{100 * self.share(value):.2f}%"

    def y_percent(self, value: float) -> str:
        """Return the distance of a value from the top edge, in percent (SVG counts downwards)."""
        return f"{100 - 100 * self.share(value):.2f}%"

    @property
    def ticks(self) -> list[float]:
        """The labelled values: powers of ten on a logarithmic axis, otherwise at most seven round numbers."""
        if self.log and self.high - self.low < 2.5:
            steps = (step * 10.0**power for power in range(math.floor(self.low), 13) for step in (1, 2, 5))
            return [value for value in steps if self.low <= math.log10(value) <= self.high + 1e-9]
        if self.log:
            powers = range(math.ceil(self.low), math.floor(self.high) + 1)
            every = max(1, math.ceil(len(powers) / MAX_TICKS))
            return [10.0**power for power in powers[::every]]
        size = (self.high - self.low) / MAX_TICKS
        power = 10 ** math.floor(math.log10(size))
        step = next(s * power for s in TICK_STEPS if s * power >= size * 0.999)
        return [n * step for n in range(math.ceil(self.low / step), math.floor(self.high / step + 1e-9) + 1)]

    def anchor(self, value: float) -> str:
        """Return the ``text-anchor`` of a label below the axis that keeps it within the edges."""
        share = self.share(value)
        return "start" if share < 0.03 else "end" if share > 0.97 else "middle"

    def label(self, value: float) -> str:
        """Return the label of a value, with thousands separators."""
        if self.log and value >= 1_000_000:
            return f"{value / 1_000_000:,.0f} M"
        return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def draw_interval(mean: float, low: float, high: float, best: bool = False, lower: float = 0.0) -> str:
    """Draw a mean as a dot and its interval as a line, on a scale from ``lower`` to 1.

    Args:
        mean: the mean.
        low: lower end of the interval.
        high: upper end of the interval.
        best: whether to highlight it.
        lower: left end of the scale: 0 for scores, -1 for differences, which also get a line at 0.
    """
    x = [_percent(v, lower) for v in (low, mean, high)]
    css_class = "dot best" if best else "dot"
    zero = _line(_percent(0.0, lower), "zero") if lower < 0 else ""
    return _row(
        _grid()
        + zero
        + f'<line class="span{" best" if best else ""}" x1="{x[0]}" x2="{x[2]}" y1="10" y2="10"/>'
        # The ends are taller than the dot, so that an interval shorter than the dot is seen on a narrow page as well.
        + "".join(
            f'<line class="end{" best" if best else ""}" x1="{v}" x2="{v}" y1="3" y2="17"/>'
            for v in (x[0], x[2])
        )
        + f'<circle class="{css_class}" cx="{x[1]}" cy="10" r="5"/>'
    )


def draw_seeds(seeds: Sequence[SeedScore], best: bool = False) -> str:
    """Draw the mean of each training seed as a dot on a scale from 0 to 1, with a line from the lowest to the highest."""
    x = [_percent(mean) for mean in sorted(seed.mean for seed in seeds)]
    highlight = " best" if best else ""
    dots = "".join(f'<circle class="dot{highlight}" cx="{position}" cy="10" r="4.5"/>' for position in x)
    return _row(f'{_grid()}<line class="span{highlight}" x1="{x[0]}" x2="{x[-1]}" y1="10" y2="10"/>{dots}')


def draw_change(before: float, after: float, best: bool = False) -> str:
    """Draw the change of a share between 0 and 1: a ring for the value before, a dot for the value after."""
    x_before, x_after = _percent(before), _percent(after)
    css_class = "dot best" if best else "dot"
    return _row(
        _grid() + f'<line class="span" x1="{x_before}" x2="{x_after}" y1="10" y2="10"/>'
        f'<circle class="ring" cx="{x_before}" cy="10" r="4.5"/>'
        f'<circle class="{css_class}" cx="{x_after}" cy="10" r="4.5"/>'
    )


def draw_scale(lower: float = 0.0) -> str:
    """Draw the labels of the scale below a column of one-line charts; ``lower`` is its left end."""
    text = ""
    for number, share in enumerate(_GRID):
        value = lower + share * (1 - lower)
        anchor = ("start", "middle", "middle", "middle", "end")[number]
        label = f"{value:+g}" if lower < 0 and value else f"{value:g}"
        css_class = ' class="minor"' if number in (1, 3) else ""
        text += f'<text{css_class} x="{_percent(share)}" y="12" text-anchor="{anchor}">{label}</text>'
    return f'<svg class="scale" width="100%" height="16" aria-hidden="true" focusable="false">{text}</svg>'


def memory_scale_end(values: Sequence[float], available: float | None) -> float:
    """Return the right end of the memory chart in GiB: above all values, and above the machine's memory if it is near.

    Args:
        values: every estimate and measurement to show, in GiB.
        available: memory of the machine in GiB, None if it is unknown; left out if it is over 2.5 times the rest.
    """
    end = 1.1 * max(values)
    return max(end, 1.05 * available) if available and available <= 2.5 * end else end


def memory_bar(
    low: float,
    likely: float,
    high: float,
    measured: float | None,
    available: float | None,
    process_peak: float | None,
    end: float,
) -> str:
    """Draw estimated memory as a bar from low to high with a mark at the likely value, and measured memory as a dot.

    Args:
        low: lower end of the estimate, in GiB.
        likely: most likely value, in GiB.
        high: upper end of the estimate, in GiB.
        measured: memory of the training alone in GiB, drawn as a dot; None if it was not measured.
        available: memory of the machine in GiB, drawn as a vertical line where it is on the scale.
        process_peak: peak of the whole process in GiB, drawn as a ring; None if it was not measured.
        end: right end of the scale in GiB, the same for all rows of the chart.
    """

    def x_at(value: float) -> str:
        return _percent(value / end)

    width = f"{100 * (high - low) / end:.2f}%"
    parts = "".join(
        f'<line class="grid" x1="{x_at(tick)}" x2="{x_at(tick)}" y1="0" y2="40"/>' for tick in _gib_ticks(end)
    )
    parts += '<line class="grid" x1="0" x2="100%" y1="20" y2="20"/>'
    parts += f'<rect class="bar" x="{x_at(low)}" width="{width}" y="11" height="18"/>'
    parts += f'<line class="likely" x1="{x_at(likely)}" x2="{x_at(likely)}" y1="7" y2="33"/>'
    if available and available <= end:
        parts += f'<line class="room" x1="{x_at(available)}" x2="{x_at(available)}" y1="2" y2="38"/>'
    if process_peak is not None:
        parts += f'<circle class="ring" cx="{x_at(process_peak)}" cy="20" r="6"/>'
    if measured is not None:
        missed = is_missed(likely, measured)
        parts += f'<circle class="dot {"missed" if missed else "best"}" cx="{x_at(measured)}" cy="20" r="6"/>'
    label = f"estimated {low:.2f} to {high:.2f} GiB, likely {likely:.2f}"
    label += f"; measured {measured:.2f} GiB" if measured is not None else ""
    label += f"; the whole process {process_peak:.2f} GiB" if process_peak is not None else ""
    return f'<svg class="memory" width="100%" height="40" role="img" aria-label="{label}">{parts}</svg>'


def memory_scale(end: float) -> str:
    """Draw the labels of the scale below the memory chart, from 0 to ``end`` GiB."""
    ticks = _gib_ticks(end)
    text = "".join(
        f'<text x="{_percent(tick / end)}" y="12" text-anchor="{"start" if not tick else "middle"}">'
        f"{tick:g}{' GiB' if tick == ticks[-1] else ''}</text>"
        for tick in ticks
    )
    return f'<svg class="scale" width="100%" height="16" aria-hidden="true" focusable="false">{text}</svg>'


def is_missed(estimated: float, measured: float | None) -> bool:
    """Return whether a measurement is more than :data:`MISS` times the estimate, or less than its reciprocal."""
    return bool(measured) and not 1 / MISS <= (measured or 0.0) / estimated <= MISS


def _gib_ticks(end: float) -> list[float]:
    """Return the labelled values of a scale from 0 to ``end``, of which the last has room for its unit."""
    return [tick for tick in Axis("GiB", 0.0, end).ticks if tick <= 0.93 * end]


def draw_lines(
    title: str,
    description: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    x: Axis,
    y: Axis,
    marks: Sequence[tuple[float, float]] = (),
    vertical_line: float | None = None,
    dot_suffix: str = "",
    colours: Mapping[str, int] | None = None,
    line_label: str = "",
    band: Sequence[tuple[float, float, float]] = (),
    bars: Mapping[str, Sequence[tuple[float, float, float]]] | None = None,
) -> str:
    """Draw one line for each series, with a legend below, or with their names at the right ends of the lines.

    Args:
        title: title of the chart, for screen readers.
        description: what the chart shows, in words, for screen readers.
        series: points (x, y) by name, in the order of the colours.
        x: horizontal axis.
        y: vertical axis.
        marks: points to circle.
        vertical_line: x of a vertical line, or None.
        dot_suffix: series whose names end with this are drawn as dots without a line; "" for none.
        colours: number of the colour of each series by its name; None numbers them in order.
        line_label: text at the vertical line; where there is one, series are named at their right ends.
        band: (x, low, high) of an area behind the lines.
        bars: the same of vertical intervals, by series, whose points are marked by a shape if they are a line.
    """
    bars, numbers = bars or {}, colours or {name: number for number, name in enumerate(series)}
    body = horizontal_grid(y)
    body += '<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%" overflow="visible">'
    body += _band(band, x, y)
    for name, points in series.items():
        if not dot_suffix or not name.endswith(dot_suffix):
            corners = " ".join(polyline_point(point, x, y) for point in points)
            body += f'<polyline class="k{numbers[name] % 6}" points="{corners}"/>'
    body += "</svg>" + "".join(draw_bars(rows, x, y, numbers[name]) for name, rows in bars.items())
    for name, points in series.items():
        places = [(x.x_percent(a), y.y_percent(b)) for a, b in points]
        body += draw_dots(places, numbers[name], bool(dot_suffix) and name.endswith(dot_suffix), name in bars)
    if vertical_line is not None:
        body += _vertical_line(x, vertical_line, line_label)
    rings = [(x.x_percent(a), y.y_percent(b)) for a, b in marks]
    body += "".join(f'<circle class="mark" cx="{a}" cy="{b}" r="6"/>' for a, b in rings)
    ends = _end_labels(series, y, numbers) if line_label else ""
    legend = "" if line_label else draw_legend(list(series), dot_suffix, numbers, bars)
    return draw_frame(x, y, body, f"{title}. {description}", ends) + legend


def horizontal_grid(y: Axis) -> str:
    """Draw a line over the whole width at each labelled value."""
    at = map(y.y_percent, y.ticks)
    return "".join(f'<line class="grid" x1="0" x2="100%" y1="{value}" y2="{value}"/>' for value in at)


def draw_frame(x: Axis, y: Axis, body: str, alt_text: str, ends: str = "") -> str:
    """Return the area of a chart with its axes; ``ends`` are labels at the right ends of lines."""
    x_labels, y_labels = axis_labels(x, y)
    size = f'width="100%" height="{CHART_HEIGHT}"'
    return (
        f'<div class="plot{" named" if ends else ""}"><p class="unit">{escape(y.name)}</p>'
        f'<svg class="beside" {size} aria-hidden="true" focusable="false">{y_labels}</svg>'
        f'<svg class="area" {size} role="img" aria-label="{escape(alt_text)}">{body}</svg>{ends}'
        f'<svg class="below" width="100%" height="18" aria-hidden="true" focusable="false">{x_labels}</svg>'
        f'<p class="unit right">{escape(x.name)}</p></div>'
    )


def draw_dots(places: Sequence[tuple[str, str]], number: int, dots: bool, marked: bool) -> str:
    """Draw points in the colour of this number, as dots or in its shape; "" for a line without either."""
    if dots:
        return "".join(f'<circle class="k{number % 6}" cx="{x}" cy="{y}" r="3"/>' for x, y in places)
    shape = f'<path class="t{number % 6}" d="{MARKERS[number % len(MARKERS)]}"/>'
    return "".join(f'<svg x="{x}" y="{y}">{shape}</svg>' for x, y in places) if marked else ""


def _band(band: Sequence[tuple[float, float, float]], x: Axis, y: Axis) -> str:
    """Draw the area between two lines, in the units of a viewBox of 1000 by 1000; "" without points."""
    upper = [polyline_point((at, high), x, y) for at, _, high in band]
    lower = [polyline_point((at, low), x, y) for at, low, _ in reversed(band)]
    return f'<polygon class="band" points="{" ".join((*upper, *lower))}"/>' if band else ""


def draw_bars(bars: Sequence[tuple[float, float, float]], x: Axis, y: Axis, number: int) -> str:
    """Draw vertical intervals in the colour of this number."""
    own = f" k{number % 6}" if number else ""
    lines = [(x.x_percent(at), y.y_percent(low), y.y_percent(high)) for at, low, high in bars]
    return "".join(
        f'<line class="error{own}" x1="{a}" x2="{a}" y1="{low}" y2="{high}"/>' for a, low, high in lines
    )


def _vertical_line(x: Axis, value: float, label: str) -> str:
    """Draw a vertical line over the whole height, with a label at its top on the side that has room."""
    anchor, dx = ("end", -5) if x.share(value) > 0.6 else ("start", 5)
    at = x.x_percent(value)
    return (
        f'<line class="rule" x1="{at}" x2="{at}" y1="0" y2="100%"/>'
        f'<text x="{at}" dx="{dx}" y="12" text-anchor="{anchor}">{escape(label)}</text>'
    )


def axis_labels(x: Axis, y: Axis) -> tuple[str, str]:
    """Draw the labels below the horizontal axis and those left of the vertical one."""
    x_labels = "".join(
        f'<text x="{x.x_percent(value)}" y="14" text-anchor="{x.anchor(value)}">{escape(x.label(value))}</text>'
        for value in x.ticks
    )
    y_labels = "".join(
        f'<text x="100%" y="{y.y_percent(value)}" dy="4" text-anchor="end">{escape(y.label(value))}</text>'
        for value in y.ticks
    )
    return x_labels, y_labels


def support_chart(arms: Sequence[ArmReport]) -> str:
    """Draw the risk-coverage curve of every arm that cites, ranked by support; "" without one.

    A ring is at the gate alone, where every answer is given, and another where the check refuses unsupported ones.
    """
    curves = {arm.arm: arm for arm in arms if arm.checks and arm.risk_coverage}
    if not curves:
        return ""
    series = {name: [(p.answered, p.wrong) for p in arm.risk_coverage] for name, arm in curves.items()}
    marks = [points[-1] for points in series.values()]
    worst = max(y for own in series.values() for _, y in own)
    described = []
    for name, arm in curves.items():
        assert arm.checks
        mark, refuse = arm.checks.mark, arm.checks.refuse
        described.append(
            f"{name}: {mark.wrong} of {mark.given} given answers wrong, checked {refuse.wrong} of {refuse.given}"
        )
        if arm.checks.applied == "refuse" and refuse.given:
            marks.append((refuse.given / (refuse.given + refuse.refused), refuse.wrong / refuse.given))
    return draw_lines(
        "Answered and wrong",
        "; ".join(described),
        series,
        Axis("share of the questions that is answered", 0, 1),
        Axis("share of these answers that is wrong", 0, max(0.1, min(1.0, 1.05 * worst))),
        marks,
    )


def _end_labels(
    series: Mapping[str, Sequence[tuple[float, float]]], y: Axis, numbers: Mapping[str, int]
) -> str:
    """Draw the names of the series beside the right ends of their lines, at least a line of text apart."""
    least = 15 / CHART_HEIGHT
    below = 0.0
    text = ""
    for name, points in sorted(series.items(), key=lambda item: -item[1][-1][1]):
        position = max(1 - y.share(points[-1][1]), below)
        below = position + least
        text += (
            f'<text class="t{numbers[name] % 6}" x="0" y="{100 * position:.2f}%" dy="4">{escape(name)}</text>'
        )
    return f'<svg class="ends" width="100%" height="{CHART_HEIGHT}" aria-hidden="true" focusable="false">{text}</svg>'


def draw_legend(
    names: Sequence[str],
    dot_suffix: str,
    numbers: Mapping[str, int],
    marked: Container[str],
    lines: bool = True,
) -> str:
    """Draw the legend of series or points as a list.

    Args:
        names: of the series, in their order.
        dot_suffix: series whose names end with this are dots; "" for none.
        numbers: the number of the colour and shape of each.
        marked: those whose points have a shape.
        lines: whether they are lines.
    """
    items = ""
    for name in names:
        number = numbers[name]
        dots = bool(dot_suffix) and name.endswith(dot_suffix)
        sample = "" if dots or not lines else f'<line class="k{number % 6}" x1="0" x2="26" y1="6" y2="6"/>'
        sample += draw_dots([("13", "6")], number, dots, name in marked)
        items += f'<li><svg width="26" height="12" aria-hidden="true" focusable="false">{sample}</svg> {escape(name)}</li>'
    return f'<ul class="legend">{items}</ul>'


def _row(body: str) -> str:
    return f'<svg class="track" width="100%" height="{ROW_HEIGHT}" aria-hidden="true" focusable="false">{body}</svg>'


def _grid() -> str:
    return "".join(_line(_percent(v), "grid") for v in _GRID)


def _line(x: str, css_class: str) -> str:
    return f'<line class="{css_class}" x1="{x}" x2="{x}" y1="0" y2="{ROW_HEIGHT}"/>'


def polyline_point(point: tuple[float, float], x: Axis, y: Axis) -> str:
    """Return a point in the units of a viewBox of 1000 by 1000."""
    return f"{1000 * x.share(point[0]):.1f},{1000 - 1000 * y.share(point[1]):.1f}"


def _percent(value: float, lower: float = 0.0) -> str:
    return f"{100 * max(0.0, min(1.0, (value - lower) / (1 - lower))):.2f}%"
