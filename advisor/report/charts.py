"""The report's drawings as inline SVG: percentages across, so that a page of any width shows letters of one size.

No colour stands here: classes name what a mark means, and the page's style sheet knows light, dark and paper.

An axis of a drawing: from values to shares of its length, and where its numbers stand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from advisor.report import cost_plot

TICK_STEPS = (1, 2, 2.5, 5, 10)
MAX_TICKS = 6


@dataclass(frozen=True, slots=True)
class Axis:
    """A named axis; with ``log``, ``low`` and ``high`` are powers of ten."""

    name: str
    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Return where a value stands, between 0 and 1."""
        at = math.log10(max(value, 1e-12)) if self.log else value
        return max(0.0, min(1.0, (at - self.low) / (self.high - self.low)))

    def across(self, value: float) -> str:
        """Return a value's place from the left, in percent."""
        return f"{100 * self.share(value):.2f}%"

    def up(self, value: float) -> str:
        """Return a value's place from the top, in percent."""
        return f"{100 - 100 * self.share(value):.2f}%"

    @property
    def ticks(self) -> list[float]:
        """The values that are named: powers of ten, or at most seven round numbers."""
        if self.log:
            powers = range(math.ceil(self.low), math.floor(self.high) + 1)
            every = max(1, math.ceil(len(powers) / MAX_TICKS))
            return [10.0**power for power in powers[::every]]
        size = (self.high - self.low) / MAX_TICKS
        power = 10 ** math.floor(math.log10(size))
        step = next(s * power for s in TICK_STEPS if s * power >= size * 0.999)
        return [n * step for n in range(math.ceil(self.low / step), math.floor(self.high / step + 1e-9) + 1)]

    def anchor(self, value: float) -> str:
        """Return how a number under the axis is aligned, so that none runs over an edge."""
        share = self.share(value)
        return "start" if share < 0.03 else "end" if share > 0.97 else "middle"

    def say(self, value: float) -> str:
        """Return a value as a person reads it."""
        if self.log and value >= 1_000_000:
            return f"{value / 1_000_000:,.0f} M"
        return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


ROW_HEIGHT = 20
"""Pixels of a row's track."""
CHART_HEIGHT = 220
VALIDATION_SERIES = "validation"
_GRID = (0.0, 0.25, 0.5, 0.75, 1.0)


def draw_interval(mean: float, low: float, high: float, best: bool = False, lower: float = 0.0) -> str:
    """Draw a dot with its interval on a scale from ``lower`` (0, or -1 for differences) to 1."""
    x = [_share(v, lower) for v in (low, mean, high)]
    name = "dot best" if best else "dot"
    zero = _line(_share(0.0, lower), "zero") if lower < 0 else ""
    return _row(
        _grid()
        + zero
        + f'<line class="span{" best" if best else ""}" x1="{x[0]}" x2="{x[2]}" y1="10" y2="10"/>'
        f'<circle class="{name}" cx="{x[1]}" cy="10" r="5"/>'
    )


def draw_seeds(seeds: Sequence[Mapping[str, float]], best: bool = False) -> str:
    """Draw the mean of each training seed on a track from 0 to 1, a line from the worst to the best."""
    x = [_share(mean) for mean in sorted(one["mean"] for one in seeds)]
    more = " best" if best else ""
    dots = "".join(f'<circle class="dot{more}" cx="{at}" cy="10" r="4.5"/>' for at in x)
    return _row(f'{_grid()}<line class="span{more}" x1="{x[0]}" x2="{x[-1]}" y1="10" y2="10"/>{dots}')


def draw_change(before: float, after: float, best: bool = False) -> str:
    """Draw how a share between 0 and 1 moved: a ring before, a dot after."""
    a, b = _share(before), _share(after)
    name = "dot best" if best else "dot"
    return _row(
        _grid()
        + f'<line class="span" x1="{a}" x2="{b}" y1="10" y2="10"/><circle class="ring" cx="{a}" cy="10" r="4.5"/>'
        f'<circle class="{name}" cx="{b}" cy="10" r="4.5"/>'
    )


def draw_scale(lower: float = 0.0) -> str:
    """Draw the numbers under a column of tracks."""
    text = ""
    for n, at in enumerate(_GRID):
        value = lower + at * (1 - lower)
        anchor = ("start", "middle", "middle", "middle", "end")[n]
        said = f"{value:+g}" if lower < 0 and value else f"{value:g}"
        kind = ' class="minor"' if n in (1, 3) else ""
        text += f'<text{kind} x="{_share(at)}" y="12" text-anchor="{anchor}">{said}</text>'
    return f'<svg class="scale" width="100%" height="16" aria-hidden="true" focusable="false">{text}</svg>'


def memory_bar(
    low: float,
    likely: float,
    high: float,
    measured: float | None,
    room: float | None,
    whole: float | None = None,
) -> str:
    """Draw the memory estimated in GiB as a bar from low to high, likely marked; what training took as a dot.

    ``whole`` is the peak of the whole process, a ring; ``room`` what the machine has, a line.
    """
    most = 1.15 * max(high, measured or 0.0, whole or 0.0)
    if room and room <= 2.5 * most:
        most = max(most, 1.05 * room)
    else:
        room = None

    def at(value: float) -> str:
        return _share(value / most)

    width = f"{100 * (high - low) / most:.2f}%"
    parts = '<line class="grid" x1="0" x2="100%" y1="20" y2="20"/>'
    parts += f'<rect class="bar" x="{at(low)}" width="{width}" y="11" height="18"/>'
    parts += f'<line class="likely" x1="{at(likely)}" x2="{at(likely)}" y1="7" y2="33"/>'
    if room:
        parts += f'<line class="room" x1="{at(room)}" x2="{at(room)}" y1="2" y2="38"/>'
    if whole is not None:
        parts += f'<circle class="ring" cx="{at(whole)}" cy="20" r="6"/>'
    if measured is not None:
        parts += f'<circle class="dot best" cx="{at(measured)}" cy="20" r="6"/>'
    said = f"estimated {low:.2f} to {high:.2f} GiB, likely {likely:.2f}"
    said += f"; measured {measured:.2f} GiB" if measured is not None else ""
    said += f"; the whole process {whole:.2f} GiB" if whole is not None else ""
    return f'<svg class="memory" width="100%" height="40" role="img" aria-label="{said}">{parts}</svg>'


def draw_lines(
    title: str,
    told: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    x: Axis,
    y: Axis,
    marks: Sequence[tuple[float, float]] = (),
    rule: float | None = None,
    dots: str = "",
) -> str:
    """Draw one line for each of ``series`` (in the order given), and rings at ``marks``; a legend names the lines.

    ``told`` says in words what the drawing shows; ``rule`` is an x to draw a dotted line at; ``dots`` ends the
    names of series whose points are drawn as dots without a line.
    """
    body = "".join(f'<line class="grid" x1="0" x2="100%" y1="{y.up(v)}" y2="{y.up(v)}"/>' for v in y.ticks)
    body += '<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%" overflow="visible">'
    for n, (name, points) in enumerate(series.items()):
        if not dots or not name.endswith(dots):
            body += f'<polyline class="k{n % 6}" points="{" ".join(_point(p, x, y) for p in points)}"/>'
    body += "</svg>"
    for n, (name, points) in enumerate(series.items()):
        if dots and name.endswith(dots):
            body += "".join(
                f'<circle class="k{n % 6}" cx="{x.across(a)}" cy="{y.up(b)}" r="3"/>' for a, b in points
            )
    if rule is not None:
        body += f'<line class="rule" x1="{x.across(rule)}" x2="{x.across(rule)}" y1="0" y2="100%"/>'
    body += "".join(f'<circle class="mark" cx="{x.across(a)}" cy="{y.up(b)}" r="6"/>' for a, b in marks)
    below = "".join(
        f'<text x="{x.across(v)}" y="14" text-anchor="{x.anchor(v)}">{escape(x.say(v))}</text>'
        for v in x.ticks
    )
    beside = "".join(
        f'<text x="100%" y="{y.up(v)}" dy="4" text-anchor="end">{escape(y.say(v))}</text>' for v in y.ticks
    )
    return (
        f'<div class="plot"><p class="unit">{escape(y.name)}</p>'
        f'<svg class="beside" width="100%" height="{CHART_HEIGHT}" aria-hidden="true" focusable="false">{beside}</svg>'
        f'<svg class="area" width="100%" height="{CHART_HEIGHT}" role="img" aria-label="{escape(f"{title}. {told}")}">{body}</svg>'
        f'<svg class="below" width="100%" height="18" aria-hidden="true" focusable="false">{below}</svg>'
        f'<p class="unit right">{escape(x.name)}</p></div>{_legend(list(series), dots)}'
    )


def cost_chart(break_even: Mapping[str, Any]) -> str:
    """Draw USD a month of each open method against calls a month, logarithmic; empty when nothing has a price.

    ``break_even`` is the recommendation's. Lines that run together share one line and one name; a ring marks
    where the headline pair costs the same, a dotted line the user's calls.
    """
    drawn = cost_plot.plotted_methods(break_even) if break_even else {}
    if not drawn:
        return ""
    low, high = cost_plot.plotted_calls(break_even)
    floor, top = cost_plot.plotted_usd(drawn, low, high)
    calls = [10 ** (low + (high - low) * n / 80) for n in range(81)]
    together: dict[tuple[float, ...], list[str]] = {}
    for name, line in drawn.items():
        together.setdefault(tuple(float(f"{line.month(c):.4g}") for c in calls), []).append(name)
    first = sorted(together.items(), key=lambda item: not set(item[1]) & set(break_even["between"]))
    series = {", ".join(names): list(zip(calls, usd, strict=True)) for usd, names in first}
    met = cost_plot.crossing_point(break_even)
    return draw_lines(
        "USD a month by calls a month",
        str(break_even["text"]),
        series,
        Axis("calls a month (dotted: yours)", low, high, log=True),
        Axis("USD a month", floor, top, log=True),
        [met] if met else [],
        float(break_even["calls_per_month"]),
    )


def loss_chart(curves: Mapping[str, Sequence[tuple[int, float]]], window: int = 1) -> str:
    """Draw the loss by step, a line for each arm trained; its validation losses, named "... validation", as dots.

    Lines are the running mean of ``window`` steps, without which small batches draw only their own noise.
    """
    curves = {k: v if k.endswith(VALIDATION_SERIES) else _running(v, window) for k, v in curves.items()}
    steps = max(step for points in curves.values() for step, _ in points)
    most = max(loss for points in curves.values() for _, loss in points)
    ends = ", ".join(
        f"{name} from {points[0][1]:.2f} to {points[-1][1]:.2f}" for name, points in curves.items()
    )
    return draw_lines(
        "Training loss by step",
        ends,
        {k: [(float(a), b) for a, b in v] for k, v in curves.items()},
        Axis("optimiser step", 0, max(steps, 1)),
        Axis("loss per label token", 0, most * 1.05),
        dots=VALIDATION_SERIES,
    )


def refusal_chart(refusal: Mapping[str, Any]) -> str:
    """Draw the share refused rightly against the share refused wrongly, threshold by threshold."""
    chosen = refusal["chosen"]
    points = sorted({(p["wrong"], p["right"]) for p in [*refusal["curve"], chosen]})
    told = f"chosen: {chosen['right']:.0%} refused rightly, {chosen['wrong']:.0%} wrongly"
    return draw_lines(
        "When it refuses",
        told,
        {"every threshold (ring: the one chosen)": points},
        Axis("answerable questions refused wrongly", 0, 1),
        Axis("unanswerable ones refused rightly", 0, 1),
        [(chosen["wrong"], chosen["right"])],
    )


def smoothing_window(curves: Mapping[str, Sequence[tuple[int, float]]]) -> int:
    """Return the window of the running mean that suits the longest curve: one, up to 40 steps."""
    return max(1, max((len(points) for points in curves.values()), default=0) // 20 if curves else 1)


def _running(points: Sequence[tuple[int, float]], window: int) -> list[tuple[int, float]]:
    losses = [loss for _, loss in points]
    return [
        (step, sum(part) / len(part))
        for n, (step, _) in enumerate(points)
        if (part := losses[max(0, n + 1 - window) : n + 1])
    ]


def _legend(names: Sequence[str], dots: str) -> str:
    items = ""
    for n, name in enumerate(names):
        drawn = f'<line class="k{n % 6}" x1="0" x2="26" y1="6" y2="6"/>'
        if dots and name.endswith(dots):
            drawn = f'<circle class="k{n % 6}" cx="13" cy="6" r="3"/>'
        items += f'<li><svg width="26" height="12" aria-hidden="true" focusable="false">{drawn}</svg> {escape(name)}</li>'
    return f'<ul class="legend">{items}</ul>'


def _row(body: str) -> str:
    return f'<svg class="track" width="100%" height="{ROW_HEIGHT}" aria-hidden="true" focusable="false">{body}</svg>'


def _grid() -> str:
    return "".join(_line(_share(v), "grid") for v in _GRID)


def _line(x: str, name: str) -> str:
    return f'<line class="{name}" x1="{x}" x2="{x}" y1="0" y2="{ROW_HEIGHT}"/>'


def _point(point: tuple[float, float], x: Axis, y: Axis) -> str:
    return f"{1000 * x.share(point[0]):.1f},{1000 - 1000 * y.share(point[1]):.1f}"


def _share(value: float, lower: float = 0.0) -> str:
    return f"{100 * max(0.0, min(1.0, (value - lower) / (1 - lower))):.2f}%"
